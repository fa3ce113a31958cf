"""How a folder is named in a command that the tool prints."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

RESULTS = Path("results")
"""The store where none is named."""


def results_option(root: Path, outside: str = "") -> str:
    """ " --results DIR": what a command about this store needs, where it is not the default one. outside: the word for a folder that
    is not below the one we are in, for texts that reports repeat: no machine's paths stand in them."""
    if root.absolute() == RESULTS.absolute():
        return ""
    relative = os.path.relpath(root)
    return f" --results {shlex.quote((outside or str(root)) if relative.startswith('..') else relative)}"
