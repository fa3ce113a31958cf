"""Makes the n-th write of the harness fail, be torn, or be the last thing that the process does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from harness.store import files


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(code: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act


@dataclass
class Injection:
    """at: which step fails, from 1; 0 for none. A step is an open, half of a write, a sync, and the moments before and after
    a rename or link. steps: what was done, in order."""

    at: int
    act: Callable[[], None]
    steps: list[str] = field(default_factory=list)

    def step(self, what: str, path: Path | str = "") -> bool:
        """Whether it is this step's turn."""
        self.steps.append(f"{what} {Path(path).name}".strip())
        return len(self.steps) == self.at


class Torn:
    """A file whose write may stop half-way."""

    def __init__(self, file: Any, injection: Injection, path: Path) -> None:
        self.file, self.injection, self.path = file, injection, path

    def write(self, content: Any) -> int:
        if self.injection.step("write", self.path):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            self.injection.act()
        return self.file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


@contextmanager
def injected(injection: Injection) -> Iterator[Injection]:
    """Meanwhile, in this process and in what it forks."""
    real = {name: getattr(files, name) for name in ("opened", "synced", "renamed", "linked")}

    def opened(path: Path, mode: str) -> Torn:
        if injection.step("open", path):
            injection.act()
        return Torn(real["opened"](path, mode), injection, path)

    def synced(descriptor: int) -> None:
        if injection.step("sync"):
            injection.act()
        real["synced"](descriptor)

    def moving(name: str) -> Callable[[Path, Path], None]:
        def move(old: Path, new: Path) -> None:
            if injection.step(f"before {name}", new):
                injection.act()
            real[name](old, new)
            if injection.step(f"after {name}", new):
                injection.act()

        return move

    try:
        files.opened, files.synced = opened, synced  # type: ignore[assignment]
        files.renamed, files.linked = moving("renamed"), moving("linked")
        yield injection
    finally:
        for name, function in real.items():
            setattr(files, name, function)
