"""What the benchmarks that write a page have in common: its introduction, its file, the machine, and an earlier commit to compare with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def about(doc: str | None) -> str:
    """A page's introduction: a module's docstring behind its title and its command."""
    return (doc or "").split("\n\n", 2)[2].strip()


def show(page: str, file: Path | None) -> None:
    """Prints a page, and writes it into `file` if one is given."""
    print(page)
    if file is not None:
        file.write_text(page, encoding="utf-8")


def cores() -> str:
    """How many, and of which processor."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} cores ({names[0] if names else 'unknown'})"


def machine() -> str:
    """Cores and load, for what ran in one thread and has just ended."""
    load = os.getloadavg()[0]
    busy = ", so other programs took most of the machine." if load > (os.cpu_count() or 1) + 0.5 else "."
    return f"{cores()}, 1 thread; the load average was {load:.1f} at the end{busy}"


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """The repository at a commit, in `folder` while inside. CalledProcessError if there is no such commit."""
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)
