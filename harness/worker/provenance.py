"""Which code and which packages computed a result. Recorded with it, never part of its identity."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "transformers", "accelerate", "deepspeed", "lmms-eval", "datasets", "submitit")
"""Named in every record; all the others enter the hash."""


OURS = ("harness", "models", "run.py")


def _git(root: Path, *words: str) -> bytes | None:
    """What git says of the repository at `root`, whatever repository its environment variables name (as in a hook)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        result = subprocess.run(
            ["git", "-C", str(root), "-c", "core.quotepath=off", *words],
            capture_output=True, timeout=20, check=False, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


@lru_cache(maxsize=1)
def code(root: Path | None = None) -> dict[str, Any]:
    """{"commit", "dirty": sha256 of the difference to it, modules that git does not know included, "" when there is none}.

    commit: "" where `root` (default: this program's) is not a checkout's top, be it inside another repository.
    """
    root = root or Path(__file__).resolve().parents[2]
    top, commit = _git(root, "rev-parse", "--show-toplevel"), _git(root, "rev-parse", "HEAD")
    if top is None or commit is None or Path(os.fsdecode(top.rstrip(b"\n"))).resolve() != root.resolve():
        return {"commit": "", "dirty": ""}
    difference = hashlib.sha256(changed := _git(root, "diff", "HEAD", "--no-ext-diff", "--", *OURS) or b"")
    unknown = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *OURS) or b""
    for name in sorted(filter(None, unknown.split(b"\0"))):
        try:
            content = (root / os.fsdecode(name)).read_bytes()
        except OSError:
            content = b""  # a dangling link; its name is included
        difference.update(b"\0" + name + b"\0" + hashlib.sha256(content).digest())
    return {"commit": commit.decode().strip(), "dirty": difference.hexdigest()[:16] if changed or unknown else ""}


def _installed() -> dict[str, str]:
    """Name in lower case → version, as Python finds packages: of two of one name, the one that is first on its path counts.

    From the heads of the packages' own files. Importing importlib.metadata takes longer than all of this, and it parses each
    file whole: a tenth of a second and more, in every job of a cluster.
    """
    found: dict[str, str] = {}
    for folder in dict.fromkeys(sys.path):
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:
            continue  # there is none, or it is an archive
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                fields = _fields(os.path.join(folder, name))
                if "Name" in fields and "Version" in fields:
                    found.setdefault(fields["Name"].lower(), fields["Version"])
    return found


def _fields(package: str) -> dict[str, str]:
    """Name and Version, as far as METADATA or PKG-INFO says. Its description follows after an empty line."""
    for name in ("METADATA", "PKG-INFO"):
        found: dict[str, str] = {}
        try:
            with open(os.path.join(package, name), "rb") as file:
                for line in file:
                    field, _, value = line.partition(b":")
                    if field in (b"Name", b"Version"):
                        found[field.decode()] = value.decode(errors="replace").strip()
                    if len(found) == 2 or not line.strip():
                        break
            return found
        except OSError:
            continue
    return {}


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """python, machine, the packages that matter, and one hash over all installed ones."""
    installed = _installed()
    listing = "\n".join(f"{name}=={version}" for name, version in sorted(installed.items()))
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: installed[name] for name in PACKAGES if name in installed},
        "all packages": hashlib.sha256(listing.encode()).hexdigest()[:16],
    }
