"""Tasks of lmms-eval that the project has no code for: a column of a table all the same."""

import json
import math
import shutil

import pytest

from models.config import DecodeSpec, EvaluateSpec
from models.evaluation.external import BadBenchmark, link_mirror, look_through
from models.evaluation.questions import read_questions
from models.evaluation.tasks import digests_of
from models.run import LocalRun
from tests.models.evaluation.conftest import replace_decoding
from tests.models.evaluation.stock_data import WRITERS


@pytest.fixture(scope="session")
def folders(tmp_path_factory, mirrors):
    """Task → data set folder. mirrors: for its cache of `datasets` alone."""
    root = tmp_path_factory.mktemp("stock")
    for task, write in WRITERS.items():
        (root / task).mkdir()
        write(root / task)
    return {task: root / task for task in WRITERS}


@pytest.fixture(scope="module")
def session(checkpoint):
    from models.evaluation import Session

    return Session(checkpoint, precision="fp32")


@pytest.fixture
def answered(monkeypatch, session, images, folders, tmp_path):
    """Evaluates a task with given answers, which are asked for by question text; returns (result, rows)."""
    from models.latent.decoding import Decoded

    def evaluate(tasks, texts, benchmark="mine", folder=None):
        tasks = [tasks] if isinstance(tasks, str) else tasks
        asked = iter(texts)

        def say(prompts, spec, tokens, eos):
            ids = [session.engine.tokenizer(next(asked), add_special_tokens=False)["input_ids"] for _ in prompts]
            return [Decoded([*one, *eos], False, 0, False) for one in ids]

        replace_decoding(monkeypatch, say)
        spec = EvaluateSpec(
            benchmark=benchmark, protocol="stock", tasks=digests_of(tasks), decode=DecodeSpec(latent_steps=2), images=images, precision="fp32"
        )
        result = session.evaluate(LocalRun(tmp_path), spec, mirror=folder or folders[tasks[0]], batch_size=64)
        return result, [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]

    return evaluate


def mean(rows, metric):
    held = [row["scores"][metric] for row in rows if metric in row["scores"]]
    return sum(held) / len(held)


def jackknife_error(rows, metric):
    """From the rows, clusters as the harness treats them."""
    held = [row for row in rows if metric in row["scores"]]
    centre, totals = mean(rows, metric), {}
    for row in held:
        totals[row["cluster"]] = totals.get(row["cluster"], 0) + row["scores"][metric] - centre
    k = len(totals)
    return math.sqrt(k / (k - 1) * sum(total**2 for total in totals.values()) / len(held) ** 2)


def test_yes_or_no_is_scored_by_question_and_its_f1_by_what_each_picture_adds(answered):
    result, rows = answered("pope", ["yes", "yes", "no", "no", "Yes.", "no", "yes", "no", "yes", "no", "no", "yes"])
    assert result["n"] == 12 and set(result["aggregates"]) >= {"pope_accuracy", "pope_f1_score"}
    assert [row["scores"]["pope_accuracy"] for row in rows].count(1.0) == 12 * result["aggregates"]["pope_accuracy"]
    assert {row["groups"]["category"] for row in rows} == {"random", "popular", "adversarial"}
    assert len({row["cluster"] for row in rows}) == 2, "six questions share a picture"
    assert "pope_f1_score" in result["not_means"] and "pope_accuracy" not in result["not_means"]
    for metric, value in result["aggregates"].items():
        assert mean(rows, metric) == pytest.approx(value, abs=1e-9), metric


def test_multiple_choice_whose_average_is_a_mean_of_means_has_the_jackknifes_error(answered):
    result, rows = answered("mmstar", ["A", "B", "A", "D", "B", "B", "C", "(D)"])
    assert "average" in result["not_means"]
    assert mean(rows, "average") == pytest.approx(result["aggregates"]["average"], abs=1e-9)
    from lmms_eval.tasks.mmstar.utils import mmstar_aggregate_results as aggregate

    right = [row["correct"] for row in rows]
    finer = [row["groups"]["l2_category"] for row in rows]
    without = [aggregate([{"score": float(r), "l2_category": f} for j, (r, f) in enumerate(zip(right, finer)) if j != k]) for k in range(8)]
    centre = sum(without) / 8
    expected = math.sqrt(7 / 8 * sum((one - centre) ** 2 for one in without))
    assert expected > 0 and jackknife_error(rows, "average") == pytest.approx(expected, rel=1e-9)


def test_free_text_keeps_its_graded_scores(answered):
    result, rows = answered("docvqa_val", ["answer 0", "answer 7", "nothing of the kind", "answer 3!", "", "Answer 5"])
    graded = [row["scores"]["anls"] for row in rows]
    assert any(0 < one < 1 for one in graded) and 1.0 in graded and 0.0 in graded
    assert result["aggregates"]["anls"] == pytest.approx(sum(graded) / 6) and "not_means" not in result
    assert [row["prediction"] is None for row in rows].count(True) == 1 and result["unparsed"] == pytest.approx(1 / 6)
    assert rows[0]["target"] == "answer 0; Answer 0."


def test_a_file_for_a_submission_is_no_number_and_lies_nowhere_afterwards(answered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result, rows = answered("textvqa_val", ["stop", "halt", "stop", "none"])
    assert set(result["aggregates"]) == {"exact_match"} and 0 < result["aggregates"]["exact_match"] < 1
    assert mean(rows, "exact_match") == pytest.approx(result["aggregates"]["exact_match"])
    assert not list(tmp_path.rglob("*submission*"))


def test_a_metric_of_some_questions_counts_only_those(answered):
    result, rows = answered("chartqa", ["10", "20", "31", "no idea", "50", "60"])
    assert ["relaxed_human_split" in row["scores"] for row in rows] == [False, True] * 3
    for metric in ("relaxed_overall", "relaxed_human_split", "relaxed_augmented_split"):
        assert mean(rows, metric) == pytest.approx(result["aggregates"][metric]), metric


def test_a_sum_over_categories_that_needs_whole_pairs_is_taken_apart_by_picture(answered):
    result, rows = answered("mme", ["yes", "no", "yes", "yes", "no", "no", "yes", "no"] * 2)
    assert set(result["aggregates"]) == {"mme_perception_score", "mme_cognition_score"}
    assert result["aggregates"]["mme_perception_score"] > 50 and "mme_perception_score" in result["not_means"]
    assert mean(rows, "mme_perception_score") == pytest.approx(result["aggregates"]["mme_perception_score"])
    assert all(row["correct"] is not None for row in rows)


def test_several_tasks_of_one_data_set_are_one_benchmark(answered, folders, tmp_path):
    folder = shutil.copytree(folders["docvqa_val"], tmp_path / "both")
    text = (folder / "README.md").read_text()
    shutil.copytree(folder / "DocVQA", folder / "InfographicVQA")
    extra = text.partition("configs:\n")[2].partition("---")[0].replace("DocVQA", "InfographicVQA")
    (folder / "README.md").write_text(text.replace("configs:\n", "configs:\n" + extra))
    result, rows = answered(["docvqa_val", "infovqa_val"], ["answer 1"] * 12, folder=folder)
    flat = result["aggregates"]
    assert flat["anls"] == pytest.approx((flat["docvqa_val.anls"] + flat["infovqa_val.anls"]) / 2) and len(rows) == 12


def test_a_metric_that_no_part_can_be_left_out_of_is_said_to_be_whole(monkeypatch):
    from models.evaluation import stock

    def only_whole(records):
        assert len(records) == 4, "needs all"
        return 0.5

    shares, is_mean = stock._shares(only_whole, [{"a": 1, "b": "x"}, {"a": 0, "b": "x"}] * 2, list("wxyz"), 0.25)
    assert shares is None and not is_mean


@pytest.mark.parametrize("task", sorted(WRITERS))
def test_its_data_are_looked_through_and_its_questions_shown(task, folders, tmp_path, monkeypatch):
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    (tmp_path / "out").mkdir()
    assert look_through(folders[task], "mine", [task])[task] > 3
    summary = link_mirror(tmp_path / "out", "mine", str(folders[task]), [task])
    assert not list(here.iterdir()), "files for a task's own server"
    one = read_questions(tmp_path / "out", "mine", task, [1])[1]
    assert summary["questions"][task] > 3 and one.text and one.target and one.images[0].size == (64, 64)


def test_missing_data_is_one_line_with_task_split_and_remedy(folders, tmp_path):
    import datasets

    folder = shutil.copytree(folders["pope"], tmp_path / "pope")
    (file,) = folder.rglob("*.parquet")
    table = datasets.Dataset.from_parquet(str(file))
    table.remove_columns("question").to_parquet(file)
    with pytest.raises(BadBenchmark, match=r"^mine: split test: .* has no column question \(it has id, .*benchmarks\.mine\.path$"):
        look_through(folder, "mine", ["pope"])
    table.remove_columns("answer").to_parquet(file)
    assert look_through(folder, "mine", ["pope"]), "what only scoring reads, the mirror job finds"
    (tmp_path / "out").mkdir()
    with pytest.raises(BadBenchmark, match=r"^mine: split test: no column answer, which scoring reads \(it has id, "):
        link_mirror(tmp_path / "out", "mine", str(folder), ["pope"])
    file.rename(file.with_name("val-00000-of-00001.parquet"))
    with pytest.raises(BadBenchmark, match="^mine: split test is not there \\(README.md names data/test-\\*.parquet for it\\); fetch"):
        look_through(folder, "mine", ["pope"])
