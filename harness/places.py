"""How a folder is named in a command that the tool prints."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def results_option(root: Path) -> str:
    """ " --results DIR": what a command about this store needs, where it is not the default one; relative where that is shorter."""
    if root.absolute() == Path("results").absolute():
        return ""
    relative = os.path.relpath(root)
    return f" --results {shlex.quote(str(root) if relative.startswith('..') else relative)}"
