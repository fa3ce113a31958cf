"""In which order jobs begin."""

from __future__ import annotations

from harness.dispatch.driver.forecast import group_of, priorities
from harness.jobs import Graph, Job, Source


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
