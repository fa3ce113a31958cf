"""A stock benchmark as a folder: a local copy referred to in place, or a pinned snapshot of the hub's.

Evaluation itself never touches a network: what it reads is what this job put, or found, on disk.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.config import ExternalMirror


def link_mirror(out: Path, spec: ExternalMirror) -> dict[str, Any]:
    """Fill `out` with the data set's files: links to those of a local folder, or a snapshot of `spec.revision`.

    Raises FileNotFoundError when the path is neither a folder nor reachable on the hub.
    """
    local = Path(spec.path).expanduser()
    if local.is_dir():
        for item in sorted(local.iterdir()):
            (out / item.name).symlink_to(item.absolute(), target_is_directory=item.is_dir())
    else:
        _snapshot(out, spec)
    summary = {"path": spec.path, "revision": spec.revision, "files": sum(f.is_file() for f in out.rglob("*"))}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _snapshot(out: Path, spec: ExternalMirror) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        snapshot_download(spec.path, repo_type="dataset", revision=spec.revision, local_dir=out)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise FileNotFoundError(
            f"{spec.benchmark}: {spec.path!r} is no folder here and could not be fetched at revision {spec.revision!r} "
            f"({type(error).__name__}); copy the data set to this machine and write its folder as benchmarks.{spec.benchmark}.path"
        ) from error
