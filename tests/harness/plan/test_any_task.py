"""A column that is any task of lmms-eval's: named in a benchmark's file, planned without lmms_eval, and its mistakes one line each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.plan import plan_experiment
from harness.report.numbers.measure import Measured, Unmeasured, check_aggregate, read_rows
from harness.report.numbers.study import Evaluation
from harness.spec.errors import SpecError
from harness.spec.files import EXPERIMENTS, load_benchmark
from models.config import EvaluateSpec
from tests.harness.conftest import Desk, fake_digest

POPE = """title: POPE
tasks: {stock: [pope]}
scores:
  overall:     {metric: pope_accuracy, n: 9000, chance: 50}
  adversarial: {where: {category: adversarial}, n: 3000, chance: 50}
  f1:          {metric: pope_f1_score, n: 9000, chance: 50}
"""
COLUMNS = ("columns: [mmvp, hrbench4k, blink]", "columns: [mmvp, pope, pope.f1]")
MMVP = "  mmvp: {source: proxy, n: 16}\n"


@pytest.fixture
def table(desk: Desk) -> Path:
    """Table 3(c) with columns of a benchmark that the project does not know, and a profile that has its data."""
    desk.write("benchmarks/pope.yaml", POPE)
    desk.write("pope/data/test-00000-of-00001.parquet", "rows")
    desk.write("profiles/smoke.yaml", desk.profile("smoke").replace(MMVP, MMVP + "  pope: {source: external, path: pope}\n"))
    return desk.table(COLUMNS)


def complaint(table: Path, **options) -> str:
    with pytest.raises(SpecError) as error:
        plan_experiment(table, "smoke", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_stands_beside_the_projects_own_columns_and_is_asked_as_lmms_eval_asks(table):
    plan = plan_experiment(table, "smoke", tasks=fake_digest)
    cell = plan.cell("Joint Train", "pope")
    spec = EvaluateSpec.model_validate(cell.jobs[0, "own"].payload)
    assert (spec.benchmark, spec.protocol, list(spec.tasks)) == ("pope", "stock", ["pope"])
    assert cell.jobs == plan.cell("Joint Train", "pope.f1").jobs, "columns of one benchmark share an evaluation"
    assert (0, "zeroed") in cell.jobs, "its latents are examined as the other columns' are"
    assert EvaluateSpec.model_validate(plan.cell("Joint Train", "mmvp").jobs[0, "own"].payload).protocol == "paper"
    mirror = cell.jobs[0, "own"].inputs["mirror"]
    assert mirror.payload["tasks"] == ["pope"]
    assert len(plan.cells) == 4 * 3, "no column vanishes, whatever protocol the table shows"


def test_what_its_file_leaves_out_is_lmms_evals_own(table):
    found = load_benchmark("pope", table.parent).value
    assert found.protocols == {"stock": "lmms-eval's pope"} and found.scale["stock"] == 100
    assert found.inference["stock"] == load_benchmark("mmvp").value.inference["stock"]
    assert found.inference["stock"].fetched == "qwen_vl_utils"


def test_neither_torch_nor_lmms_eval_is_imported_to_plan_it():
    program = (
        "import sys\nfrom harness.cli import main\n"
        f"code = main(['plan', {str(EXPERIMENTS / 'examples' / 'any-task.yaml')!r}])\n"
        "assert code == 2 and not {'torch', 'lmms_eval', 'datasets'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "proxy.yaml:8: benchmarks: has no entry for pope; add pope: {source: external, path: lmms-lab-encoder/POPE}" in done.stderr
    assert done.stderr.count("\n") == 1


IN_THE_BENCHMARK = {
    "an unknown task": (("[pope]", "[popee]"), 'pope.yaml:2: tasks.stock[0]: lmms-eval has no task "popee"; near it are pope'),
    "a group of tasks": (("[pope]", "[docvqa]"), 'tasks.stock[0]: "docvqa" is a group of lmms-eval\'s, not a task; name its tasks: docvqa_val, docvqa_test'),
    "a task that is scored by likelihood": (("[pope]", "[arc_easy]"), 'tasks.stock[0]: the task "arc_easy" is of output_type multiple_choice'),
    "a task with a judge": (("[pope]", "[mmvet]"), 'tasks.stock[0]: the answers of "mmvet" are judged by a model on the network (utils.py: mmvet_process_results)'),
    "tasks of several data sets": (("[pope]", "[pope, mme]"), "tasks.stock[1]: read different data sets, lmms-lab-encoder/POPE (pope) and lmms-lab-encoder/MME (mme)"),
    "an unknown metric": (("pope_f1_score", "pope_f1"), 'pope.yaml:6: scores.f1.metric: pope has no metric "pope_f1"; did you mean "pope_f1_score"? (metrics: pope_accuracy'),
    "no metric": (("metric: pope_accuracy, ", ""), "pope.yaml:4: scores.overall: needs metric: one of the task's, pope_accuracy, "),
    "a word for a list": (("[pope]", "pope"), "pope.yaml:2: tasks.stock: "),
    "no task": (("[pope]", "[]"), "pope.yaml:2: tasks.stock: "),
    "an unknown protocol": (("{stock: [pope]}", "{stock: [pope], stok: [pope]}"), "pope.yaml:2: tasks."),
}  # fmt: skip


@pytest.mark.parametrize(("change", "says"), IN_THE_BENCHMARK.values(), ids=IN_THE_BENCHMARK)
def test_a_mistake_in_its_file_is_one_line_with_the_near_names(desk, table, change, says):
    assert change[0] in POPE
    desk.write("benchmarks/pope.yaml", POPE.replace(*change))
    assert says in complaint(table)


def test_data_that_a_profile_lacks_or_cannot_draw_are_one_line_with_the_entry_to_add(desk, table):
    smoke = desk.profile("smoke")
    desk.write("profiles/smoke.yaml", smoke)
    said = complaint(table)
    assert "profiles/smoke.yaml:7: benchmarks: has no entry for pope; add pope: {source: external, path: lmms-lab-encoder/POPE}" in said
    desk.write("profiles/smoke.yaml", smoke.replace(MMVP, MMVP + "  pope: {source: proxy, n: 8}\n"))
    assert "profiles/smoke.yaml:9: benchmarks.pope: lmms-eval's pope cannot be generated here; write {source: external, " in complaint(table)


def test_another_task_or_another_data_set_is_another_job(desk, table):
    def keys() -> tuple[str, str]:
        job = plan_experiment(table, "smoke").cell("Joint Train", "pope").jobs[0, "own"]
        return job.key, job.inputs["mirror"].key

    first = keys()
    desk.write("benchmarks/pope.yaml", POPE.replace("n: 9000", "n: 8000").replace("title: POPE", "title: Pope"))
    assert keys() == first, "what only a report reads is in no key"
    desk.write("benchmarks/pope.yaml", POPE.replace("[pope]", "[pope_adv]"))
    assert keys()[0] != first[0] and keys()[1] != first[1]
    desk.write("benchmarks/pope.yaml", POPE)
    desk.write("pope/data/test-00000-of-00001.parquet", "other")
    assert keys()[1] != first[1]


# What a report reads


def row(doc_id: int, category: str = "random", **scores: float) -> dict:
    return {"task": "pope", "doc_id": doc_id, "cluster": str(doc_id // 2), "groups": {"category": category}, "correct": True,
            "prediction": "yes", "scores": scores}  # fmt: skip


@pytest.fixture
def measured(table, tmp_path):
    def make(rows: list[dict], **result) -> tuple[Measured, object]:
        (tmp_path / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        plan = plan_experiment(table, "smoke", tasks=fake_digest)
        job = plan.cell("Joint Train", "pope").jobs[0, "own"]
        return Measured(Evaluation(job, 0, "paper"), read_rows(tmp_path / "samples.jsonl"), result), plan.benchmarks["pope"].value

    return make


def test_a_score_is_the_mean_of_its_metrics_values_and_a_part_of_the_questions_is_scored_alike(measured):
    rows = [row(k, "adversarial" if k < 2 else "random", pope_accuracy=float(k != 0), pope_f1_score=0.9) for k in range(4)]
    one, pope = measured(rows, aggregates={"pope_accuracy": 0.75, "pope_f1_score": 0.9}, not_means=["pope_f1_score"])
    assert one.answers(pope, "overall").values.mean() == 0.75
    assert one.answers(pope, "adversarial").values.mean() == 0.5 and len(one.answers(pope, "adversarial")) == 2
    assert one.answers(pope, "f1").values.mean() == pytest.approx(0.9)
    assert one.is_mean(pope, "overall") and not one.is_mean(pope, "f1")
    check_aggregate(one, pope, "overall")
    check_aggregate(one, pope, "adversarial")
    wrong, _ = measured(rows, aggregates={"pope_accuracy": 0.5})
    with pytest.raises(Unmeasured, match="the samples give 75.000, the task's pope_accuracy says 50.000"):
        check_aggregate(wrong, pope, "overall")


def test_a_metric_that_stays_whole_is_shown_by_its_number_alone(measured):
    one, pope = measured([row(0, pope_accuracy=1.0)], aggregates={"pope_f1_score": 0.8}, not_means=["pope_f1_score"], whole={"pope_f1_score": "why"})
    with pytest.raises(Unmeasured, match="pope_f1_score is no mean over questions, and why: no interval") as said:
        one.answers(pope, "f1")
    assert said.value.value == pytest.approx(0.8)


MACRO = [("ego", 1), ("ego", 0), ("ego", 0), ("ego", 0), ("count", 1), ("order", 0)]
"""Types of questions, and whether the answers are right: shares of 25, 100 and 0 percent."""


def of_category(pope):
    """The benchmark with f1 as its number, and ego as its part."""
    changed = {name: score.model_copy(update={"metric": dict.fromkeys(("paper", "stock"), "f1")}) for name, score in pope.scores.items()}
    changed["adversarial"] = changed["adversarial"].model_copy(update={"where": {"category": "ego"}})
    return pope.model_copy(update={"scores": changed})


@pytest.mark.parametrize(
    ("theirs", "by_type"),
    [(125 / 3 / 100, True), (125 / 7 / 100, True), (2 / 6, False)],
    ids=["the mean over the types", "the mean over types of which some have no question", "another number"],
)
def test_of_a_mean_over_groups_each_group_is_a_column(measured, theirs, by_type):
    rows = [row(k, kind, f1=0.5) | {"correct": bool(right)} for k, (kind, right) in enumerate(MACRO)]
    one, pope = measured(rows, aggregates={"f1": theirs}, not_means=["f1"])
    pope = of_category(pope)
    if by_type:
        found = one.answers(pope, "adversarial")
        assert list(found.values) == [1, 0, 0, 0] and one.is_mean(pope, "adversarial")
    else:
        with pytest.raises(Unmeasured, match="f1 is no mean over questions, nor over the groups by category of their shares"):
            one.answers(pope, "adversarial")


def test_an_answer_that_nobody_judged_leaves_a_mean_over_groups_whole(measured):
    rows = [row(k, kind, f1=0.5) | {"correct": None} for k, (kind, _) in enumerate(MACRO)]
    one, pope = measured(rows, aggregates={"f1": 0.0}, not_means=["f1"])
    pope = of_category(pope)
    with pytest.raises(Unmeasured, match="f1 is no mean over questions"):
        one.answers(pope, "adversarial")


def test_a_scale_or_a_group_that_does_not_fit_is_said_with_the_remedy(measured):
    one, pope = measured([row(k, pope_accuracy=50.0 * k, pope_f1_score=1.0) for k in range(3)])
    with pytest.raises(Unmeasured, match=r"pope_accuracy is 50 and would be 5000.0 percent; write scale"):
        one.answers(pope, "overall")
    with pytest.raises(Unmeasured, match=r"has \{'category': 'adversarial'\} \(category is one of random\)"):
        one.answers(pope, "adversarial")
    lacking, _ = measured([row(0, pope_recall=1.0)])
    with pytest.raises(Unmeasured, match="no question has a score pope_accuracy; the task gives pope_recall"):
        lacking.answers(pope, "overall")


def test_only_counts_are_held_against_the_multiples_of_one_question():
    from harness.spec.reported import parse
    from harness.stats import Answers, estimate
    from harness.verdict import Outcome, judge

    value = estimate(Answers.of([(k, k, 0.5) for k in range(300)]))
    reported = parse("70.9")
    assert judge(value, reported, 300, proxy=False).outcome is Outcome.NOT_ONE_RUN, "70.9 is no k/300"
    assert judge(value, reported, 300, proxy=False, counted=False).outcome is not Outcome.NOT_ONE_RUN
