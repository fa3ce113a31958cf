"""The files and commands that a page of the documentation shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_FILE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_COMMANDS = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ANY = re.compile(r"^```(\w+)", re.MULTILINE)


def write_files(page: str, folder: Path) -> list[Path]:
    """Writes the page's files below a folder."""
    written = []
    for name, text in _FILE.findall((DOCS / page).read_text(encoding="utf-8")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def commands(page: str) -> list[list[str]]:
    """What stands behind `uv run run.py` in each command of the page."""
    lines = [line for block in _COMMANDS.findall((DOCS / page).read_text(encoding="utf-8")) for line in block.splitlines()]
    assert all(line.startswith("uv run run.py ") for line in lines), lines
    return [shlex.split(line)[3:] for line in lines]


def untested_blocks(page: str) -> int:
    """Blocks of code that are neither a file nor commands, pictures left out."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return sum(kind != "mermaid" for kind in _ANY.findall(text)) - len(_FILE.findall(text)) - len(_COMMANDS.findall(text))
