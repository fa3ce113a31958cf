from harness.jobs import Graph, Job
from harness.plan.cost import learn, makespan, seconds_of


def train(steps: int, seed: int = 0, **stage) -> Job:
    return Job("train", {"stage": {"kind": "stage1", "steps": steps, **stage}, "seed": seed}, {"data": Job("data", {})})


def finished(job: Job, seconds: float):
    return job.kind, job.payload, {role: upstream.key for role, upstream in job.inputs.items()}, seconds


def test_a_training_costs_by_its_steps():
    known = learn([finished(train(100), 50.0), finished(train(100, seed=1), 70.0), finished(train(200), 110.0)])
    assert seconds_of(train(400), known) == 400 * 0.55


def test_another_shape_is_unknown_and_not_guessed():
    known = learn([finished(train(100), 50.0)])
    assert seconds_of(train(100, rollout="two_pass"), known) is None
    assert seconds_of(Job("data", {}), known) is None


def test_the_time_of_all_is_load_or_longest_chain():
    data = Job("data", {})
    jobs = [Job("train", {"seed": i}, {"data": data}) for i in range(4)]
    graph = Graph(jobs)
    todo = {data.key: 10.0, **{job.key: 20.0 for job in jobs}}
    assert makespan(graph, todo, 2) == 45.0
    assert makespan(graph, todo, 100) == 30.0
    assert makespan(graph, {}, 2) == 0.0
