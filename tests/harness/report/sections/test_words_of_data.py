"""Reports say what the data is: procedural scenes are named only where they were seen."""

from types import SimpleNamespace

import pytest

from harness.report.sections.provenance import proxy_rows, seen_by
from harness.spec.files import EXPERIMENTS, load_benchmark, load_profile
from models.config import ExternalMirror, ExternalTraining

COT = ExternalTraining(meta="data/meta_data_lvr_sft_stage1.json", revision="viscot-363k")
MMVP = ExternalMirror(benchmark="mmvp", path="lmms-lab-eval/MMVP", revision="main")


def study(training, benchmarks):
    proxy = load_profile("proxy", EXPERIMENTS).value
    changed = {"benchmarks": {**proxy.benchmarks, **benchmarks}} | ({"data": training} if training else {})
    return SimpleNamespace(profile=proxy.model_copy(update=changed), benchmarks={"mmvp": load_benchmark("mmvp", EXPERIMENTS).value})


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


def test_the_table_of_stand_ins_names_data_of_others_as_what_they_are():
    rows = {row.label: row.cells[1].display for row in proxy_rows(study(COT, {"mmvp": MMVP}))}
    assert rows["training data"] == "data/meta_data_lvr_sft_stage1.json (viscot-363k)"
    assert rows["questions of a benchmark"] == "lmms-lab-eval/MMVP (main)"


def test_clips_are_named_where_a_row_trains_on_them():
    rows = {row.label: row.cells[1].display for row in proxy_rows(study(None, {}), clips=True)}
    assert rows["training data, clips"] == "2,700 questions over procedural clips"
    assert "training data, clips" not in {row.label for row in proxy_rows(study(None, {}))}
