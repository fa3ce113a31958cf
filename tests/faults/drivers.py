"""Real drivers with real workers, and MLflow's database: several at once, killed, locked, shared.

`python -m tests.faults.drivers ROOT NUMBER` is one driver of an overlapping part of the diamond.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from harness.jobs import Graph
from harness.store import Store
from harness.tracking import where
from tests.faults.work import Tally
from tests.harness.dispatch import graphs


def part(number: int) -> Graph:
    """Four of the diamond's six last jobs, and what they need."""
    last = [job for job in graphs.diamond() if job.kind == "digest"]
    return Graph(last[(number + i) % len(last)] for i in range(4))


def start(root: Path, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.drivers", str(root), str(number)],
        cwd=graphs.REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def many_drivers(folder: Path, numbers: Sequence[int] = (2, 4, 8)) -> Tally:
    """Drivers of overlapping tables at once, every third killed, and workers too; then the undisturbed results, each once."""
    tally, draw = Tally("drivers of overlapping tables at once, some killed"), random.Random(2)
    graphs.run(graphs.diamond(), folder / "diamond")
    expected = graphs.results(graphs.diamond(), folder / "diamond")
    for number in numbers:
        root = folder / f"drivers-{number}"
        drivers = [start(root, i) for i in range(number)]
        time.sleep(draw.uniform(4, 6))
        for driver in drivers[::3]:
            driver.kill()
        for lease in graphs.live_workers(root)[:1]:
            os.kill(lease.owner.pid, signal.SIGKILL)
        ends = [driver.wait(300) for driver in drivers]
        tally.count(f"{number} drivers")
        if any(end not in (0, -signal.SIGKILL) for end in ends):
            told = [driver.stdout.read()[-300:] for driver in drivers if driver.stdout]
            tally.broken.append(f"{number} drivers ended with {ends}: {told}")
        outcome = graphs.run(graphs.diamond(), root)
        if not outcome.complete or graphs.results(graphs.diamond(), root) != expected:
            tally.broken.append(f"{number} drivers: results differ from those of an undisturbed run")
    return tally.done()


def synced(root: Path, seconds: float = 0.0, **environment: str) -> tuple[int, str]:
    """A process that copies to MLflow and is told to end after so many seconds; its exit code and last line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.tracking", str(root)],
        cwd=graphs.REPOSITORY,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(seconds)
    told, _ = process.communicate(timeout=300)
    return process.returncode, (told.splitlines() or [""])[-1]


def runs_of(database: Path) -> Counter[tuple[str, str]]:
    """(store, job key) → runs."""
    query = """select (select value from tags where run_uuid = r.run_uuid and key = 'mirror.store'),
                      (select value from tags where run_uuid = r.run_uuid and key = 'job_key') from runs r"""
    with closing(sqlite3.connect(database)) as opened:
        return Counter(opened.execute(query).fetchall())


def databases(folder: Path) -> Tally:
    """Two stores that make one database at once; a database that is locked for 20 s; then each job has one run in each."""
    tally, stores = Tally("MLflow's database: created by two stores at once, shared, locked"), []
    for name in "ab":
        graphs.run(part(0), folder / f"store-{name}")
        stores.append(Store(folder / f"store-{name}"))
    shared = folder / "shared.db"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{shared}"}
    command = [sys.executable, "-m", "harness.tracking"]
    for what in ("created at once", "written at once"):
        both = [
            subprocess.Popen([*command, str(store.root)], cwd=graphs.REPOSITORY, env=environment, stdin=subprocess.DEVNULL)
            for store in stores
        ]
        ends = [process.wait(300) for process in both]
        tally.count(what)
        if ends != [0, 0]:
            tally.broken.append(f"{what}: the syncing processes ended with {ends}")
        for done in (path for store in stores for path in store.root.glob("[!.]*/*/DONE.json")):
            os.utime(done)
    expected = Counter({(where.identity(store), job.key): 1 for store in stores for job in part(0)})
    if runs_of(shared) != expected:
        tally.broken.append(f"{sum(runs_of(shared).values())} runs for {len(expected)} jobs in two stores")
    own, job = stores[0], next(iter(part(0)))
    synced(own.root)
    os.utime(own.folder(job) / "DONE.json")
    with closing(sqlite3.connect(own.root / "mlflow.db", isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        process = subprocess.Popen([*command, str(own.root)], cwd=graphs.REPOSITORY, stdin=subprocess.PIPE)
        time.sleep(20)
        holder.execute("rollback")
    process.communicate(timeout=300)
    tally.count("locked for 20 s")
    runs = Counter(key for _, key in runs_of(own.root / "mlflow.db").elements())
    if process.returncode or runs != Counter(job.key for job in part(0)):
        tally.broken.append(f"locked: syncing ended with {process.returncode}, {runs}")
    return tally.done()


if __name__ == "__main__":
    outcome = graphs.run(part(int(sys.argv[2])), Path(sys.argv[1]))
    print(*outcome.problems, *outcome.notes, sep="\n")
    sys.exit(outcome.exit_code)
