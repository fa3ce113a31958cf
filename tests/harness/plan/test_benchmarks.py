"""What identifies a benchmark that exists already: its content or its commit, never a path or a name that may move."""

import os
import shutil

import pytest

from harness.plan import plan_experiment
from harness.verdict import Outcome, judge
from tests.harness.conftest import Desk, fake_digest

MMVP = "mmvp: {source: proxy, n: 16}"
COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


def key(desk: Desk, entry: str, **options) -> str:
    text = desk.profile("smoke")
    assert MMVP in text
    desk.write("profiles/mine.yaml", text.replace(MMVP, f"mmvp: {entry}"))
    plan = plan_experiment(desk.table(), "mine", tasks=fake_digest, **options)
    return next(job.key for job in plan.graph if job.kind == "mirror" and job.payload["benchmark"] == "mmvp")


def test_a_folder_is_known_by_its_content_wherever_it_lies(desk: Desk):
    desk.write("one/data/train-0.parquet", "rows")
    desk.write("one/README.md", "card")
    shutil.copytree("one", "two")
    first = key(desk, "{source: external, path: one, revision: v1}")
    assert key(desk, "{source: external, path: ./two}") == first
    desk.write("one/data/train-0.parquet", "ROWS")
    assert key(desk, "{source: external, path: one, revision: v1}") != first
    desk.write("two/.cache/leavings", "")
    assert key(desk, "{source: external, path: two}") == first


def test_a_changed_file_is_seen_though_digests_are_kept(desk: Desk):
    desk.write("one/train-0.parquet", "rows")
    desk.write("results/.digests.json", "{}")
    kept = desk.folder / "results" / ".digests.json"
    first = key(desk, "{source: external, path: one}", digests=kept)
    assert str(desk.folder / "one") in kept.read_text()
    assert key(desk, "{source: external, path: one}", digests=kept) == first
    desk.write("one/train-0.parquet", "ROWS")
    os.utime("one/train-0.parquet", (1, 1))
    assert key(desk, "{source: external, path: one}", digests=kept) != first


def test_a_branch_stands_for_the_commit_that_the_hubs_cache_holds(desk: Desk, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(desk.folder / "hf"))
    entry = "{source: external, path: some/Set, revision: main}"
    unknown = key(desk, entry)
    desk.write("hf/hub/datasets--some--Set/refs/main", COMMIT)
    desk.write(f"hf/hub/datasets--some--Set/snapshots/{COMMIT}/README.md", "")
    known = key(desk, entry)
    assert known != unknown and key(desk, f"{{source: external, path: some/Set, revision: {COMMIT}}}") == known
    desk.write("hf/hub/datasets--some--Set/refs/main", COMMIT[::-1])
    assert key(desk, entry) != known


def test_maps_of_a_benchmark_without_evidence_boxes_are_not_possible_and_no_job(desk: Desk):
    desk.write("one/train-0.parquet", "rows")
    table = desk.table(("columns: [mmvp, hrbench4k, blink]", "columns: []\nmaps: {benchmarks: [mmvp, hrbench4k], samples: 2}"))
    text = "\n".join(line for line in table.read_text().splitlines() if "reported" not in line or "Two-stage" in line)
    text = text.split("claims:")[0].replace(", reported: [72.3, 72.6, 56.4]", "")
    desk.write("maps.yaml", text)
    desk.write("profiles/mine.yaml", desk.profile("smoke").replace(MMVP, "mmvp: {source: external, path: one}"))
    plan = plan_experiment("maps.yaml", "mine", tasks=fake_digest)
    cells = {cell.column.benchmark: cell for cell in plan.cells}
    assert cells["mmvp"].not_run.startswith("not possible here: mmvp comes without evidence boxes") and not cells["mmvp"].jobs
    assert cells["hrbench4k"].jobs and not cells["hrbench4k"].not_run
    assert [job.payload.get("benchmark") for job in plan.graph if job.kind == "maps"] == [None, "hrbench4k"]
    desk.write("one/boxes.jsonl", "")
    assert plan_experiment("maps.yaml", "mine", tasks=fake_digest).cells[1].jobs


@pytest.mark.parametrize("proxy", [False, True])
def test_part_of_a_benchmark_gets_no_verdict(proxy):
    import numpy as np

    from harness.spec.reported import parse
    from harness.stats import Answers, estimate

    measured = estimate([Answers(tuple(range(14)), tuple(range(14)), np.arange(14) % 2 * 1.0)])
    verdict = judge(measured, parse("90.0"), 300, proxy=proxy, part="14 of 300 questions")
    assert verdict.outcome is (Outcome.PROXY if proxy else Outcome.PART) and verdict.difference is None
    if not proxy:
        assert verdict.text.startswith("part of the benchmark: 14 of 300 questions")
