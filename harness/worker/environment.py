"""Environment variables that a worker process needs before Python starts."""

from __future__ import annotations

import os
from pathlib import Path


def worker_environment(threads: int) -> dict[str, str]:
    """Thread counts, and where our packages lie."""
    packages = str(Path(__file__).resolve().parents[2])
    paths = [
        packages,
        *[path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != packages],
    ]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **{name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
    }
