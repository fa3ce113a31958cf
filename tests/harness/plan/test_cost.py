from harness.jobs import Graph, Job
from harness.plan.cost import Bound, Finished, above_limit, bound, gpu_bound, hindsight, learn, makespan, seconds_of
from harness.spec.profile import Resources


def train(steps: int, seed: int = 0, **stage) -> Job:
    return Job("train", {"stage": {"kind": "stage1", "steps": steps, **stage}, "seed": seed}, {"data": Job("data", {})})


def finished(job: Job, seconds: float, ended: float = 0.0) -> Finished:
    inputs = {role: upstream.key for role, upstream in job.inputs.items()}
    return Finished(job.key, job.kind, job.payload, inputs, seconds, ended)


def test_a_training_costs_by_its_steps():
    known = learn([finished(train(100), 50.0), finished(train(100, seed=1), 70.0), finished(train(200), 110.0)])
    assert seconds_of(train(400), known) == 400 * 0.55


def test_a_training_that_names_no_steps_has_its_own_stages():
    known = learn([finished(train(100, kind="reflect"), 50.0)])
    plain = Job("train", {"stage": {"kind": "reflect"}, "seed": 0}, {"data": Job("data", {})})
    assert seconds_of(plain, known) == 5000 * 0.5


def test_another_shape_is_unknown_and_not_guessed():
    known = learn([finished(train(100), 50.0)])
    assert seconds_of(train(100, rollout="two_pass"), known) is None
    assert seconds_of(Job("data", {}), known) is None


def test_hindsight_knows_only_what_had_ended_when_a_job_began():
    first, second = finished(train(100), 50.0, ended=100.0), finished(train(200, seed=1), 120.0, ended=221.0)
    beside = finished(train(100, seed=2), 40.0, ended=140.0)
    third = finished(train(100, seed=3), 60.0, ended=400.0)
    assert judged([third, second, first]) == [(100 * 0.55, 60.0), (200 * 0.5, 120.0)]
    assert judged([first, beside]) == [(100 * 0.5, 40.0)]
    assert judged([first, finished(Job("data", {}), 9.0)], {"train": 0.4}) == [(40.0, 50.0)]


def test_hindsight_about_some_jobs_knows_what_the_others_took():
    first, second = finished(train(100), 50.0, ended=100.0), finished(train(200, seed=1), 120.0, ended=221.0)
    assert hindsight([first, second], {second.key}) == {second.key: (200 * 0.5, 120.0)}


def judged(jobs: list[Finished], stated=None) -> list[tuple[float, float]]:
    return list(hindsight(jobs, {job.key for job in jobs}, stated).values())


def test_the_time_of_all_is_load_or_longest_chain():
    data = Job("data", {})
    jobs = [Job("train", {"seed": i}, {"data": data}) for i in range(4)]
    graph = Graph(jobs)
    todo = {data.key: 10.0, **{job.key: 20.0 for job in jobs}}
    assert makespan(graph, todo, 2) == 45.0
    assert makespan(graph, todo, 100) == 30.0
    assert makespan(graph, {}, 2) == 0.0


def test_time_limits_bound_what_a_forecast_does_not_know():
    data = Job("data", {})
    jobs = [data, *(Job("train", {"seed": i}, {"data": data}) for i in range(3))]
    costs = dict(zip((job.key for job in jobs), (None, 3600.0, 9000.0, None), strict=True))
    resources = {"data": Resources(minutes=30), "train": Resources(minutes=120, gpus=8, processes=8)}.__getitem__
    assert bound(jobs, costs, resources) == Bound(12600.0, 1800.0 + 3 * 7200, 2)
    assert gpu_bound(jobs, costs, resources) == Bound(8 * 12600.0, 8 * 3 * 7200.0, 1), "data holds no GPU"
    assert above_limit(jobs, costs, resources) == {"train": 9000.0}
    assert above_limit(jobs[:2], costs, resources) == {}
