"""The store refuses to be written for a while, as shared file systems do: the result is that of an undisturbed run."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.jobs import Graph, Job
from harness.store import Store
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import background, counting, entry, queued, result, step, until
from tests.cluster.kinds import expected
from tests.harness.store.test_store import mounted

pytestmark = pytest.mark.cluster


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Whoever opens a file in it for writing is refused; files that are open stay as they are.

    The mount is made read-only elsewhere, where nobody can open a file for writing (which would keep it writable: "mount
    point is busy"), and is laid over the folder in one step."""
    aside = folder.with_name(f"{folder.name}-read-only")
    aside.mkdir()
    mount("--bind", folder, aside)
    try:
        mount("-o", "remount,bind,ro", aside)
        mount("--bind", aside, folder)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(aside)], check=True)
        aside.rmdir()


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(2**16))
            except OSError:
                yield
    finally:
        ballast.unlink()


@pytest.mark.parametrize("fault", [full, read_only])
def test_a_store_that_cannot_be_written_for_a_while_changes_no_result(cluster, tmp_path, fault):
    disk = tmp_path / "disk"
    with mounted(disk, "size=32m"):
        root = disk / "results"
        root.mkdir()
        parent = counting(60)
        child = Job("digest", {}, {"x": parent}, "child")
        driver = background(Graph([child]), root)
        until(lambda: step(root, parent) >= 3)
        with fault(disk):
            time.sleep(4)
        outcome = driver.end()
        assert outcome.complete, [str(problem) for problem in outcome.problems]
        assert json.loads(result(root, parent)) == expected(parent)
        assert len(list(root.rglob("DONE.json"))) == 2 and Store(root).is_done(child)
        until(lambda: not cluster.run("squeue", "-h", "-t", "PD,R,CG"))


def released(cluster: Cluster) -> bool:
    """Frees what waits on hold, as every request of these drivers does."""
    for words in queued(cluster, "PD"):
        cluster.run("scontrol", "release", words[0])
    return False


@pytest.mark.parametrize("fault", [full, read_only])
def test_a_job_that_begins_while_the_store_cannot_be_written_is_begun_again(cluster, tmp_path, fault):
    disk = tmp_path / "disk"
    with mounted(disk, "size=32m"):
        root = disk / "results"
        root.mkdir()
        job = counting(3)
        driver = background(Graph([job]), root, sbatch={"hold": True})
        [held] = until(lambda: [words[0] for words in queued(cluster, "PD")])
        with fault(disk):
            cluster.run("scontrol", "release", held)
            until(lambda: entry(cluster, held)[1] != "PENDING")
            time.sleep(6)
        until(lambda: released(cluster) or Store(root).is_done(job))
        outcome = driver.end()
        assert outcome.complete, [str(problem) for problem in outcome.problems]
