"""One world for the session, and the product's commands run on it as a user would: offline, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.rehearsal.world import write

REPOSITORY = Path(__file__).parents[2]
MADE = "REHEARSAL_WORLD"
"""Environment variable: a world that exists already, to be used instead of a new one."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get(MADE):
        assert (Path(given) / "expected.json").is_file(), f"{MADE}={given} is no world of tests.rehearsal"
        return Path(given).resolve()
    out = tmp_path_factory.mktemp("rehearsal") / "world"
    write(out)
    return out


def offline(world: Path) -> dict[str, str]:
    """The environment of a compute node: the world's cache, no hub, one thread."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_HOME": str(world / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


@dataclass(frozen=True)
class Desk:
    """A folder in which commands leave their results and reports."""

    world: Path
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`run.py WORDS`, its results in this folder."""
        command = [sys.executable, str(REPOSITORY / "run.py"), *words, "--results", str(self.results)]
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=offline(self.world), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )  # fmt: skip

    def run(self, *words: str, profile: str | None = "profile.yaml", seconds: float = 900) -> str:
        """What the command says, once it has ended well. profile: a file of the world."""
        chosen = ["--profile", str(self.world / profile)] if profile else []
        process = self.start(*words, *chosen)
        try:
            said, _ = process.communicate(timeout=seconds)
        finally:
            process.kill()
        assert process.returncode == 0, said[-6000:]
        return said

    def render(self, *words: str, **options: Any) -> str:
        """Run an experiment to its report."""
        return self.run(*words, "--reports", str(self.reports), **options)

    def outputs(self, kind: str) -> list[Path]:
        """The published output folder of every job of a kind."""
        found = []
        for done in sorted((self.results / kind).glob("*/DONE.json")):
            attempt = json.loads(done.read_text())["attempt"]
            found.append(done.parent / "attempts" / str(attempt) / "out")
        return found


@pytest.fixture(scope="session")
def full(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """One row of Table 3(c) with the release's picture sizes."""
    desk = Desk(world, tmp_path_factory.mktemp("full"))
    desk.render("experiments/table3c.yaml", "--rows", "Stage 1 Only", "--columns", "mmvp", profile="profile-full.yaml")
    return desk
