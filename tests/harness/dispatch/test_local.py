"""The local queue, with real processes."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from harness.jobs import Graph, Job
from harness.spec.profile import Resources
from harness.store import State, Store
from tests.harness.dispatch import graphs, kinds  # noqa: F401 - registers the kinds' versions


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    assert graphs.run(graphs.diamond(), root).exit_code == 0
    return graphs.results(graphs.diamond(), root)


def attempts(root, graph):
    store = Store(root)
    return {job.name: len(store.attempts(job)) for job in graph}


def test_a_graph_is_done_in_order_each_job_once(tmp_path):
    graph = graphs.diamond(steps=3)
    outcome = graphs.run(graph, tmp_path)
    assert outcome.complete and outcome.exit_code == 0 and not outcome.problems
    assert set(outcome.ran) == {job.key for job in graph}
    assert set(attempts(tmp_path, graph).values()) == {1}
    assert not list((tmp_path / ".drivers").iterdir()), "a driver whose workers ended well leaves nothing"


def test_a_done_graph_is_not_touched_again_and_takes_no_time(tmp_path):
    graph = graphs.diamond(steps=2)
    graphs.run(graph, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*/**/*")}
    started = time.monotonic()
    assert graphs.run(graph, tmp_path).ran == ()
    assert time.monotonic() - started < 0.5
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*/**/*")}


def test_a_failed_job_blocks_its_dependents_and_nothing_else(tmp_path):
    bad = Job("raise", {}, slug="bad")
    behind = Job("digest", {}, {"x": bad}, "behind")
    good = Job("digest", {}, {"x": Job("count", {"steps": 2}, slug="c")}, "good")
    outcome = graphs.run(Graph([behind, good]), tmp_path)
    assert outcome.exit_code == 1
    assert outcome.statuses[good.key].state is State.DONE
    assert outcome.statuses[behind.key].state is State.BLOCKED
    lines = [str(problem) for problem in outcome.problems]
    assert len(lines) == 2
    assert (
        "ZeroDivisionError: the arm divides by zero" in lines[0] and "traceback.txt" in lines[0] and "/log" in lines[0]
    )
    assert f"parent {bad.name} failed" in lines[1]
    assert attempts(tmp_path, [bad]) == {bad.name: 1}, "an exception in our code is never tried again in one run"
    assert "the arm divides by zero" in (Store(tmp_path).attempts(bad)[0].path / "traceback.txt").read_text()


def test_what_is_timed_runs_last_and_alone(tmp_path):
    others = [Job("count", {"steps": 10, "i": i}, slug=f"other{i}") for i in range(3)]
    timed = [Job("linger", {"seconds": 0.5, "i": i}, {"x": others[0]}, f"timed{i}") for i in range(2)]
    resources = lambda kind: Resources(micro_batch=8, alone=kind == "linger")
    assert graphs.run(Graph([*timed, *others]), tmp_path, resources=resources).complete
    store = Store(tmp_path)
    ends = {job: store.done(job)["finished"] for job in (*others, *timed)}
    begins = {job: store.winner(job).claim["started"] for job in timed}
    first, second = sorted(timed, key=begins.get)
    assert begins[first] >= max(ends[job] for job in others)
    assert begins[second] >= ends[first]


def test_running_out_of_memory_is_tried_again_with_half_the_micro_batch(tmp_path):
    job = Job("starve", {"fits": 2})
    assert graphs.run(Graph([job]), tmp_path).complete
    assert json.loads((Store(tmp_path).outputs(job) / "result.json").read_text()) == {"micro_batch": 2}
    assert attempts(tmp_path, [job]) == {job.name: 3}


def test_memory_that_never_suffices_ends_in_a_failure(tmp_path):
    job = Job("starve", {"fits": 0})
    outcome = graphs.run(Graph([job]), tmp_path)
    line = str(outcome.problems[0])
    assert outcome.exit_code == 1 and "1 sequences do not fit" in line
    assert "lower resources.starve.micro_batch in the profile" in line


def test_a_killed_worker_is_noticed_and_its_job_resumes_from_the_checkpoint(tmp_path, undisturbed):
    graph = graphs.diamond()
    driver = graphs.start_driver(tmp_path, slow=True)
    first = next(iter(graph))
    attempt = graphs.wait_until(lambda: next(iter(Store(tmp_path).attempts(first)), None))
    graphs.wait_until(lambda: len(attempt.complete_checkpoints()) > 4)
    os.kill(attempt.owner.pid, signal.SIGKILL)
    assert driver.wait(90) == 0, driver.stdout.read()
    assert graphs.results(graph, tmp_path) == undisturbed
    assert attempts(tmp_path, graph)[first.name] == 2
    assert "resumed at step" in Store(tmp_path).attempts(first)[1].log.read_text()


def test_a_killed_driver_leaves_its_worker_running_and_the_same_command_continues(tmp_path, undisturbed):
    graph = graphs.diamond()
    driver = graphs.start_driver(tmp_path, slow=True)
    first = next(iter(graph))
    attempt = graphs.wait_until(lambda: next(iter(Store(tmp_path).attempts(first)), None))
    driver.kill()
    driver.wait()
    graphs.wait_until(lambda: Store(tmp_path).is_done(first))
    assert attempts(tmp_path, [first]) == {first.name: 1} and attempt.owner.pid != driver.pid
    assert graphs.start_driver(tmp_path).wait(90) == 0
    assert graphs.results(graph, tmp_path) == undisturbed


def test_two_drivers_on_one_store_share_the_places_and_duplicate_nothing(tmp_path, undisturbed):
    drivers = [graphs.start_driver(tmp_path) for _ in range(2)]
    most = 0
    while any(driver.poll() is None for driver in drivers):
        most = max(most, len(graphs.live_workers(tmp_path)))
        time.sleep(0.02)
    assert [driver.returncode for driver in drivers] == [0, 0]
    assert most <= 2
    assert graphs.results(graphs.diamond(), tmp_path) == undisturbed
    assert set(attempts(tmp_path, graphs.diamond()).values()) == {1}


def test_ctrl_c_lets_workers_write_a_checkpoint_and_the_next_run_resumes_there(tmp_path, undisturbed):
    driver = graphs.start_driver(tmp_path, slow=True)
    first = next(iter(graphs.diamond()))
    attempt = graphs.wait_until(lambda: next(iter(Store(tmp_path).attempts(first)), None))
    graphs.wait_until(lambda: len(attempt.complete_checkpoints()) > 2)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(90) == 130
    assert not graphs.live_workers(tmp_path)
    assert attempt.failure.cause == "interrupted"
    assert "stopping: " in driver.stdout.read()
    assert graphs.start_driver(tmp_path).wait(90) == 0
    assert graphs.results(graphs.diamond(), tmp_path) == undisturbed


def test_ctrl_c_twice_kills_at_once(tmp_path):
    job = Job("linger", {"seconds": 60})
    script = (
        "import sys; from tests.harness.dispatch import graphs, kinds; from harness.jobs import Graph, Job; "
        "sys.exit(graphs.run(Graph([Job('linger', {'seconds': 60})]), sys.argv[1]).exit_code)"
    )
    import subprocess
    import sys

    driver = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=graphs.REPOSITORY)
    attempt = graphs.wait_until(lambda: next(iter(Store(tmp_path).attempts(job)), None))
    for _ in range(2):
        driver.send_signal(signal.SIGINT)
        time.sleep(0.7)
    assert driver.wait(90) == 130
    graphs.wait_until(lambda: not attempt.owner.alive(), 5)
    assert Store(tmp_path).state(job) is State.INTERRUPTED


def test_workers_that_cannot_start_end_the_run_with_their_last_words(tmp_path):
    from harness import dispatch
    from harness.dispatch.driver.progress import Silent

    outcome = dispatch.run(
        Graph([Job("digest", {})]),
        Store(tmp_path),
        resources=graphs.resources,
        slots=1,
        plugins=["tests.harness.dispatch.no_such_module"],
        display=Silent(),
    )
    assert outcome.exit_code == 1
    assert "no_such_module" in outcome.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_kills_at_random_moments_change_no_result(tmp_path, undisturbed, seed):
    import random

    draw = random.Random(seed)
    for _ in range(4):
        driver = graphs.start_driver(tmp_path)
        time.sleep(draw.uniform(0.2, 3.0))
        workers = graphs.live_workers(tmp_path)
        victims = draw.choice(
            [[driver.pid], [lease.owner.pid for lease in workers], [driver.pid, *[w.owner.pid for w in workers]]]
        )
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if driver.pid in victims:
            driver.wait()
        else:
            driver.wait(120)
    assert graphs.start_driver(tmp_path).wait(120) == 0
    assert graphs.results(graphs.diamond(), tmp_path) == undisturbed
    for job in graphs.diamond():
        winner = Store(tmp_path).winner(job)
        ends = winner.out / "log of ends"
        assert not ends.exists() or len(ends.read_text().splitlines()) == 1


def test_what_depends_on_a_damaged_job_waits_and_nothing_is_made_again(tmp_path):
    first = Job("count", {"steps": 2}, slug="first")
    middle = Job("count", {"steps": 2, "i": 1}, {"x": first}, "middle")
    assert graphs.run(Graph([middle]), tmp_path).complete
    (Store(tmp_path).outputs(middle) / "result.json").write_text("{}")
    behind, beside = Job("digest", {}, {"x": middle}, "behind"), Job("digest", {"i": 1}, {"x": first}, "beside")
    store = Store(tmp_path)
    graph = Graph([behind, beside]).needed(lambda job: store.is_done(job) or bool(store.damage(job)))
    outcome = graphs.run(graph, tmp_path)
    states = {job: outcome.statuses[job.key].state for job in (middle, behind, beside)}
    assert states == {middle: State.DAMAGED, behind: State.BLOCKED, beside: State.DONE} and outcome.exit_code == 1
    assert attempts(tmp_path, [first, middle, behind]) == {first.name: 1, middle.name: 1, behind.name: 0}
    assert "result.json" in outcome.statuses[middle.key].reason
