"""Reports say what the data is: procedural scenes are named only where they were seen, clips are no images, an unknown stays one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.plan import plan_experiment
from harness.report.numbers.results import Results
from harness.report.numbers.study import study_of
from harness.report.sections.conclusion import room
from harness.report.sections.headline import base_line, unskilled
from harness.report.sections.provenance import proxy_rows, seen_by
from harness.report.sections.tables import column_note, shared
from harness.report.sections.words import listed
from harness.spec.files import EXPERIMENTS, load_benchmark, load_profile
from harness.store import Store
from models.config import ExternalMirror, ExternalTraining
from tests.harness.conftest import fake_digest
from tests.harness.report.test_many_rows import results_of

COT = ExternalTraining(meta="data/meta_data_lvr_sft_stage1.json", revision="viscot-363k")
MMVP = ExternalMirror(benchmark="mmvp", path="lmms-lab-eval/MMVP", revision="main")


def study(training, benchmarks, clips=None, stages=()):
    proxy = load_profile("proxy", EXPERIMENTS).value
    changed = {"benchmarks": {**proxy.benchmarks, **benchmarks}} | ({"data": training} if training else {}) | ({"clips": clips} if clips else {})
    arms = [SimpleNamespace(row=SimpleNamespace(stages=stages))]
    return SimpleNamespace(profile=proxy.model_copy(update=changed), arms=arms, benchmarks={"mmvp": load_benchmark("mmvp", EXPERIMENTS).value})


@pytest.mark.parametrize(
    ("training", "benchmarks", "words"),
    [
        (None, {}, "on procedural scenes"),
        (COT, {"mmvp": MMVP}, "trained on meta_data_lvr_sft_stage1.json and asked the benchmarks' own questions"),
        (COT, {}, "trained on meta_data_lvr_sft_stage1.json and asked about procedural scenes"),
        (None, {"mmvp": MMVP}, "trained on procedural scenes and asked the benchmarks' own questions"),
    ],
)
def test_the_first_sentence_says_what_was_seen(training, benchmarks, words):
    assert seen_by(study(training, benchmarks)) == words


def test_the_first_sentence_names_the_clips_of_rows_that_train_on_them():
    mine = ExternalTraining(meta="mine/clips.json", revision="v1")
    assert seen_by(study(None, {}, mine, ["reflect"])) == "on procedural scenes"
    assert seen_by(study(None, {}, mine, ["reflect_video"])) == "trained on clips.json and asked about procedural scenes"
    assert seen_by(study(COT, {}, mine, ["reflect", "reflect_video"])).startswith("trained on meta_data_lvr_sft_stage1.json and clips.json and")


def test_the_table_of_stand_ins_names_data_of_others_as_what_they_are():
    rows = {row.label: row.cells[1].display for row in proxy_rows(study(COT, {"mmvp": MMVP}))}
    assert rows["training data"] == "data/meta_data_lvr_sft_stage1.json (viscot-363k)"
    assert rows["questions of a benchmark"] == "lmms-lab-eval/MMVP (main)"


def test_clips_are_named_where_a_row_trains_on_them():
    rows = {row.label: row.cells[1].display for row in proxy_rows(study(None, {}), clips=True)}
    assert rows["training data, clips"] == "2,700 questions over procedural clips"
    assert "training data, clips" not in {row.label for row in proxy_rows(study(None, {}))}


def test_questions_are_said_to_share_what_they_are_about(tmp_path):
    plan = plan_experiment(EXPERIMENTS / "visreflect.yaml", "smoke", tasks=fake_digest, seeds=1)
    results = Results(study_of(plan), Store(tmp_path / "results"), tmp_path)
    assert (results.seen("videomme"), results.seen("vstar")) == ("clip", "image")
    assert listed(shared(results), "or") == "clip or image"


def test_a_report_says_where_nobody_knows_what_guessing_gives(tmp_path):
    results = results_of(tmp_path, 3)
    assert "guessing gives 50.0" in column_note(results, "mmvp", "paper")
    benchmark = results.study.benchmarks["mmvp"]
    unknown = {name: score.model_copy(update={"chance": None}) for name, score in benchmark.scores.items()}
    study = replace(results.study, benchmarks={"mmvp": benchmark.model_copy(update={"scores": unknown})})
    results = Results(study, results.store, tmp_path)
    assert column_note(results, "mmvp", "paper").endswith("chance unknown")
    (row, *_) = results.arms
    assert "cannot be compared with chance, which is unknown, on" in base_line(results)
    assert "chance unknown" in room(results)
    assert unskilled(results, row, "mmvp") == ""


def test_guessing_is_known_where_a_source_says_so():
    scores = {name: load_benchmark(name, EXPERIMENTS).value.scores for name in ("mvbench", "mlvu")}
    assert {score.chance for score in scores["mvbench"].values()} == {None}
    assert (scores["mlvu"]["overall"].n, scores["mlvu"]["overall"].chance) == (2174, 25)
