"""The short form of the fault suite; `python -m benchmarks.faults` is the long one."""

from __future__ import annotations

import pytest

from tests.faults import suites, work
from tests.faults.work import Promise


@pytest.fixture(scope="module")
def promise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    return Promise(folder, work.graph()), folder


@pytest.mark.parametrize(
    "suite",
    [
        lambda promise, folder: suites.kills_inside_writes(promise, folder, every=7),
        lambda promise, folder: suites.kills_at_random(promise, folder, times=8),
        lambda promise, folder: suites.failing_writes(promise, folder, ["ENOSPC", "EMFILE"], every=19),
        lambda promise, folder: suites.damaged_files(promise, folder, every=17),
        lambda promise, folder: suites.clock_jumps(promise, folder),
        lambda promise, folder: suites.many_workers(promise, folder, (4,)),
    ],
    ids=["kills inside writes", "kills at random", "failing writes", "damaged files", "clock jumps", "many workers"],
)
def test_no_result_is_lost_or_counted_twice_or_wrong_without_an_error(promise, suite):
    tally = suite(*promise)
    assert tally.tried and not tally.broken


def test_the_suite_notices_a_broken_promise(promise):
    """A store whose result was changed together with its record is beyond what can be noticed, so the suite must see it."""
    import json
    import shutil

    from harness.store import Store
    from harness.store.done import seal

    kept, folder = promise
    root = folder / "forged"
    shutil.copytree(folder / "undisturbed", root, symlinks=True)
    job = next(job for job in kept.jobs if job.kind == "digest")
    home = Store(root).folder(job)
    (home / "attempts/1/out/result.json").write_text('{"digest": "forged"}')
    record = json.loads((home / "DONE.json").read_text())
    del record["checksum"]
    from harness.store import outputs

    (home / "DONE.json").write_text(json.dumps(seal({**record, "outputs": outputs.describe(home / "attempts/1/out")})))
    tally = work.Tally("forged")
    kept.check(tally, root, "forged")
    assert tally.broken == ["forged: results differ from those of an undisturbed run"]
