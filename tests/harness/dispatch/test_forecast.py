"""In which order jobs begin, and when all will have ended."""

from __future__ import annotations

import io
import time

from harness.dispatch.driver.backend import GraphRun
from harness.dispatch.driver.forecast import Pace, group_of, priorities
from harness.dispatch.driver.loop import Driver
from harness.dispatch.driver.progress import PlainDisplay
from harness.jobs import Graph, Job, Source
from harness.spec.profile import Resources
from harness.store import Store


def test_evaluations_of_a_checkpoint_that_ask_the_same_questions_follow_each_other():
    """Whatever their forecasts: a process keeps what it has read of a benchmark until another one comes."""
    mirrors = {name: Job("mirror", {"benchmark": name}) for name in ("mmvp", "blink", "vstar")}
    jobs = [
        Job(
            "evaluate", {"benchmark": name, "protocol": protocol, "decode": {"latents": latents}},
            {"checkpoint": Source(checkpoint, checkpoint), "mirror": mirror},
        )
        for latents in ("own", "zeroed", "shuffled")
        for protocol in ("paper", "stock")
        for checkpoint in ("one", "two")
        for name, mirror in mirrors.items()
    ]  # fmt: skip
    seconds = {mirror.key: 1.0 for mirror in mirrors.values()} | {job.key: 10.0 + at % 7 for at, job in enumerate(jobs)}
    order = [job for job in priorities(Graph(jobs), seconds) if job.kind == "evaluate"]
    assert len(order) == len(jobs)
    runs = [(group_of(job), job.inputs["mirror"].key, job.payload["protocol"]) for job in order]
    for depth in (1, 2, 3):
        begun = [run[:depth] for at, run in enumerate(runs) if not at or runs[at - 1][:depth] != run[:depth]]
        assert len(begun) == len(set(begun)), "each is begun once"
    longest_first = [seconds[job.key] for job in order[:3]]
    assert longest_first == sorted(longest_first, reverse=True)


def test_a_pace_is_learned_by_kind_and_a_kind_without_one_takes_that_of_all():
    pace = Pace()
    assert pace.of("train") == 1
    pace.saw("data", 30, 10)
    later = pace.copy()
    later.saw("train", 10, 10)
    later.saw("train", 40, 10)
    assert pace.of("train") == 3, "a copy is its own"
    assert (later.of("data"), later.of("train"), later.of("evaluate")) == (3, 2.5, 80 / 30)


def test_what_is_left_is_forecast_anew_as_jobs_end_or_say_how_far_they_are(tmp_path):
    """On a machine four times slower than the profile says, half of it is known from the first job's end."""
    store = Store(tmp_path / "results")
    first, second, third = (Job("train", {"n": n}, slug=f"stage{n}") for n in range(3))
    run = GraphRun(
        Graph([first, second, third]), store, resources=lambda kind: Resources(memory_gb=1, minutes=1),
        forecast=lambda job: 100.0, plugins=(), say=print,
    )  # fmt: skip
    driver = Driver(run, type("Backend", (), {"slots": 1})(), PlainDisplay(io.StringIO()))

    def left() -> float:
        statuses = store.statuses(run.graph)
        snapshot = driver.snapshot(statuses, driver._changed(before, statuses))
        before.update(statuses)
        return snapshot.left

    before = store.statuses(run.graph)
    assert left() == 300
    attempt = store.begin_attempt(first)
    begun = attempt.claim["started"]

    def did(step: int, after: float) -> float:
        with attempt.metrics.open("a") as file:
            file.write(f'{{"time": {begun + after}, "step": {step}, "total": 100, "values": {{}}}}\n')
        return time.time() - begun

    passed = did(1, 30)
    assert abs(left() - (300 - passed)) < 5, "the first step's time is that of imports"
    passed = did(51, 230)
    assert abs(left() - (426 - passed + 2 * 426)) < 5
    attempt.out.mkdir(exist_ok=True)
    (attempt.out / "summary.json").write_text("{}")
    assert store.publish(attempt, seconds=400.0)
    assert left() == 2 * 400
