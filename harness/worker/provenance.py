"""Which code and which packages computed a result. Recorded with it, never part of its identity."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "transformers", "accelerate", "deepspeed", "lmms-eval", "datasets", "submitit")
"""Named in every record; all the others enter the hash."""


def _git(*words: str) -> str | None:
    here = Path(__file__).parent
    try:
        result = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


@lru_cache(maxsize=1)
def code() -> dict[str, Any]:
    """{"commit", "dirty": sha256 of the difference to it, "" when there is none}; commit "" outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": "", "dirty": ""}
    difference = _git("diff", "HEAD", "--", "harness", "models", "run.py") or ""
    return {
        "commit": commit.strip(),
        "dirty": hashlib.sha256(difference.encode()).hexdigest()[:16] if difference else "",
    }


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """python, machine, the packages that matter, and one hash over all installed ones."""
    installed = {
        (found.metadata["Name"] or "").lower(): found.version for found in metadata.distributions() if found.metadata
    }
    listing = "\n".join(f"{name}=={version}" for name, version in sorted(installed.items()))
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: installed[name] for name in PACKAGES if name in installed},
        "all packages": hashlib.sha256(listing.encode()).hexdigest()[:16],
    }
