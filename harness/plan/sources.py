"""Existing checkpoints and benchmarks as a `Source`: their location, and the digest that identifies them.

A folder is identified by its files' content, wherever it is; a hub repository by its commit.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from harness.jobs import Source
from harness.spec.files import REPOSITORY, Loaded
from harness.spec.profile import LocalBackbone, Profile
from harness.spec.text import shown
from harness.store.files import read_note
from models import hub
from models.config import ExternalMirror

_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "chat_template.json",
)


def backbone(profile: Loaded[Profile], cache: Path | None = None) -> Source:
    """The profile's base checkpoint. cache: a JSON file of digests by path, size and time; written where it can be.

    Raises SpecError when the folder is not a checkpoint.
    """
    wanted = profile.value.backbone
    if not isinstance(wanted, LocalBackbone):
        return Source(f"hub:{wanted.repo}@{wanted.revision}", f"{wanted.repo}@{wanted.revision}")
    name = "clip_backbone" if wanted is profile.value.clip_backbone else "backbone"
    written_in = profile.document.owner(name, "path").path.parent
    candidates = [written_in / wanted.path, REPOSITORY / wanted.path]
    folder = next((c for c in candidates if c.is_dir()), None)
    if folder is None:
        raise profile.error(f"no such folder {wanted.path}; name a checkpoint folder", name, "path")
    files = model_files(folder)
    for needed in ("config.json", ".safetensors"):
        if not any(f.name.endswith(needed) for f in files):
            raise profile.error(
                f"{shown(folder)} is no checkpoint: it has no {needed.lstrip('.')} file; make or fetch it first",
                name,
                "path",
            )
    return Source(str(folder.resolve()), folder_digest(folder, files, cache))


def benchmark(profile: Loaded[Profile], spec: ExternalMirror, cache: Path | None = None) -> Source:
    """A benchmark's data set: a folder's content, or a commit of the hub's, which a branch name is resolved to by the caches
    of this machine. A name that they do not know stays as it is: `models.hub.is_commit` tells, and `run` fetches it.
    """
    folder = benchmark_folder(profile, spec)
    if folder is not None:
        files = hub.files_of(folder)
        for file in files:
            if not file.is_file():
                raise profile.error(f"{file} is a link to nothing; bring back what it points to", "benchmarks", spec.benchmark, "path")
        return Source(str(folder.resolve()), folder_digest(folder, files, cache))
    if is_path(spec.path):
        return Source(spec.path, f"absent:{spec.path}")
    _, commit = hub.cached_snapshot(spec.path, spec.revision, "datasets")
    if not hub.is_commit(commit):
        _, commit = hub.prepared(spec.path, spec.revision)
    return Source(f"{hub.DATA_SET}{spec.path}@{commit}", f"{spec.path}@{commit}")


def benchmark_folder(profile: Loaded[Profile], spec: ExternalMirror) -> Path | None:
    """The folder that a benchmark's path names: beside the profile, from here, or in the repository. None if there is none."""
    return _folder(profile, spec.path)


def clips(profile: Loaded[Profile], spec: ExternalMirror, home: str) -> Source | None:
    """The folder of a benchmark's clips, known by its files' names and sizes: the profile's, else HF_HOME/`home`, where lmms-eval
    keeps them. None where they lie among the files of the data set's own folder."""
    if spec.clips is not None:
        folder = _folder(profile, spec.clips)
        if folder is None:
            raise profile.error(f"no such folder {spec.clips}; name the one that holds the clips", "benchmarks", spec.benchmark, "clips")
    elif benchmark_folder(profile, spec) is not None:
        return None
    else:
        folder = hub.home() / home
        if not folder.is_dir():
            return Source(str(folder), f"absent:{home}")
    return Source(str(folder.resolve()), f"clips:{_listing(folder)}")


def _folder(profile: Loaded[Profile], path: str) -> Path | None:
    written = Path(path).expanduser()
    places = (profile.document.path.parent, Path(), REPOSITORY)
    return next((place / written for place in places if (place / written).is_dir()), None)


def _listing(folder: Path) -> str:
    """sha256 over names and sizes."""
    lines = (f"{file.relative_to(folder)}\0{file.stat().st_size}\n" for file in hub.files_of(folder) if file.is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_path(text: str) -> bool:
    """Whether it can only be a local folder."""
    return text.startswith(("/", ".", "~"))


def model_files(folder: Path) -> list[Path]:
    """The model's files by name, without cards, curves and logs."""
    return sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern) if file.is_file()})


def folder_digest(folder: Path, files: list[Path], cache: Path | None) -> str:
    """sha256 over names and contents; of clips over names and sizes."""
    stats = [file.stat() for file in files]
    state = [[str(f.relative_to(folder)), s.st_size, s.st_mtime_ns, s.st_ino] for f, s in zip(files, stats, strict=True)]
    known = read_cache(cache)
    entry = known.get(str(folder.resolve()))
    if entry and entry["state"] == state:
        return entry["digest"]
    digest = hashlib.sha256()
    for file, stat in zip(files, stats, strict=True):
        if file.suffix.lower() in hub.FILMS:  # hundreds of gigabytes
            digest.update(f"{file.relative_to(folder)}\0{stat.st_size}\n".encode())
            continue
        with file.open("rb") as content:
            digest.update(f"{file.relative_to(folder)}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    write_cache(cache, {**known, str(folder.resolve()): {"state": state, "digest": digest.hexdigest()}})
    return digest.hexdigest()


def read_cache(cache: Path | None) -> dict:
    """The cached digests, without entries that this program cannot have written; those are computed again."""
    noted = read_note(cache) if cache else {}
    return {name: entry for name, entry in noted.items() if isinstance(entry, dict) and {"state", "digest"} <= entry.keys()}


def write_cache(cache: Path | None, known: dict) -> None:
    """Only into a folder that exists: planning creates nothing else. A cache that cannot be written is no error."""
    if cache is None or not cache.parent.is_dir():
        return
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(known))
        temporary.replace(cache)
    except OSError:
        temporary.unlink(missing_ok=True)
