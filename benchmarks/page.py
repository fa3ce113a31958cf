"""What benchmarks have in common: types of their arguments, a page's introduction and file, the machine, and an earlier commit to compare with."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def whole(least: int = 1, multiple: int = 1) -> Callable[[str], int]:
    """An argument's type: a whole number from `least`, and a multiple of `multiple`."""

    def read(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if number < least or number % multiple:
            kind = "whole number" if multiple == 1 else f"multiple of {multiple}"
            raise argparse.ArgumentTypeError(f"{text!r} cannot be used; give a {kind}, {least} or more")
        return number

    return read


positive = whole()


def above_zero(text: str) -> float:
    """An argument's type: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used; give a number above 0")
    return number


def page_file(text: str) -> Path:
    """An argument's type: a file that can be written, so that no benchmark runs for minutes and then loses its page."""
    path = Path(text)
    if not text or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no file; name one, such as page.md")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: its folder {path.parent} does not exist; create it, or name another file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: cannot be written; name another file")
    return path


def commit(text: str) -> str:
    """An argument's type: a name of a commit of this repository, as given."""
    git = ["git", "-C", str(REPOSITORY), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}"]
    if subprocess.run(git, check=False, capture_output=True).returncode:
        raise argparse.ArgumentTypeError(f"{text!r} is no commit of {REPOSITORY}; git log lists them, git fetch brings others")
    return text


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
