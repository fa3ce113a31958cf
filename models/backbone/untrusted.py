"""A checkpoint folder from somewhere: what must hold of its files before any library opens one.

Only regular files that lie in the folder itself, JSON within limits, and weights that are numbers. A folder of the hub's
cache is links into its own `blobs`; any other link that leads out could carry a file of this machine into a result.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import safe_open

READ = (".safetensors", ".bin", ".json", ".txt", ".jinja", ".model", ".pt")
"""Endings of the files that are read."""
LARGEST_TEXT = 2**26
"""Bytes of a JSON or text file; the tokenizer's is the largest, with about 11 MB."""
_CHUNK = 2**26
"""Values looked at together."""


class Unfit(ValueError):
    """The folder cannot be that stage's outcome. The message is one line: what, where, the remedy."""


def check_files(folder: Path) -> None:
    """Raises Unfit for a file that would be read and is a pipe, a device, a link out of the folder, or no sound JSON."""
    home = folder.resolve()
    allowed = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    for file in sorted(folder.iterdir()):
        if file.suffix not in READ:
            continue
        real = file.resolve()
        if not any(real.is_relative_to(place) for place in allowed):
            raise Unfit(f"{file}: is a link that leads out of the folder, and is not followed; put the file itself there")
        try:
            told = real.stat()
        except OSError as error:
            raise Unfit(f"{file}: cannot be read ({error.strerror}); fetch it again") from None
        if not stat.S_ISREG(told.st_mode):
            raise Unfit(f"{file}: is not a regular file (a folder, a pipe or a device); remove it or put the file there")
        if file.suffix not in (".safetensors", ".bin", ".pt"):
            if told.st_size > LARGEST_TEXT:
                raise Unfit(f"{file}: has {told.st_size} bytes; a file of this kind has at most {LARGEST_TEXT}")
            if file.suffix == ".json":
                read_json(file)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; {} for any other JSON value. Raises Unfit."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise Unfit(f"{file}: its lists and objects lie too deep inside one another; it is no file of a checkpoint") from None
    except (OSError, ValueError) as error:
        raise Unfit(f"{file}: not a readable JSON text ({error})") from None
    return found if isinstance(found, dict) else {}


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def inside(folder: Path, index: Path, names: list[str]) -> list[Path]:
    """The files that an index names. Raises Unfit for a name that is a path, or of a file that is not there."""
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith((".safetensors", ".bin")):
            raise Unfit(f"{index}: names {name!r}, which is no weights file of this folder")
        if not (folder / name).is_file():
            raise Unfit(f"{index}: names {name}, which is not there; fetch the missing shard")
    return [folder / name for name in names]


def check_values(file: Path) -> None:
    """Raises Unfit, naming the tensor, where a weight is NaN or infinite."""
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as held:
            for name in held.keys():  # noqa: SIM118 - safe_open is no mapping
                _check_tensor(file, name, held.get_tensor(name))
    else:
        for name, value in torch.load(file, map_location="cpu", weights_only=True, mmap=True).items():
            _check_tensor(file, name, value)


def _check_tensor(file: Path, name: str, value: torch.Tensor) -> None:
    if not value.is_floating_point():
        return
    wrong = 0
    for part in value.detach().reshape(-1).split(_CHUNK):
        part = part.float() if part.element_size() == 1 else part
        wrong += int((~torch.isfinite(part)).sum())
    if wrong:
        raise Unfit(
            f"{file}: {name} holds {wrong} of {value.numel()} values that are NaN or infinite: the training diverged or the "
            "file is damaged; adopt an earlier checkpoint"
        )
