"""Video benchmarks on the rehearsal world: annotations from the hub's cache, clips from HF_HOME, as a cluster's node has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.rehearsal.conftest import Desk
from tests.rehearsal.test_table import NUMBER, table

pytestmark = pytest.mark.rehearsal

TABLE = """
table: clips
title: The base model on clips
recipe: visreflect-release
columns: [mvbench, mvbench.scene_transition, videomme, videomme.short, mlvu]
rows:
  - Base: {stages: []}
"""


@pytest.fixture(scope="module")
def desk(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk(world, tmp_path_factory.mktemp("clips"))
    (desk.folder / "clips.yaml").write_text(TABLE)
    desk.render(str(desk.folder / "clips.yaml"))
    return desk


@pytest.mark.parametrize("protocol", ["paper", "stock"])
def test_every_column_of_clips_is_filled(desk: Desk, protocol: str):
    ((name, cells),) = table((desk.reports / "tableclips.md").read_text(), protocol).items()
    assert name.startswith("Base") and len(cells) == 5
    assert all(NUMBER.fullmatch(text) for text in cells.values()), cells


def test_questions_that_cannot_be_asked_are_named_by_the_mirror_and_the_evaluation(desk: Desk):
    (summary,) = [found for out in desk.outputs("mirror") if "videomme" in (found := json.loads((out / "summary.json").read_text()))["questions"]]
    assert summary["unreadable"]["n"] == 6, "three questions, in the tasks of two protocols"
    results = [json.loads((out / "result.json").read_text()) for out in desk.outputs("evaluate")]
    rejected = {(one["benchmark"], one["protocol"]): one.get("rejected", {}).get("n", 0) for one in results}
    expected = {"mvbench": 2, "videomme": 3, "mlvu": 0}
    assert rejected == {(name, protocol): n for name, n in expected.items() for protocol in ("paper", "stock")}
    notes = [line for line in (desk.reports / "tableclips.md").read_text().splitlines() if "were never asked" in line]
    said = [(line.split(":")[0], line.rpartition("; ")[2][:20]) for line in notes]
    own = [("- MVBench", "2 of 40 questions we"), ("- MVBench scene transition", "1 of 2 questions wer"), ("- Video-MME", "3 of 9 questions wer")]
    assert said == 2 * own, "under both protocols"


def test_clips_with_a_variable_frame_rate_are_named_by_the_mirror_and_counted_in_the_report(desk: Desk):
    (found,) = [one for out in desk.outputs("mirror") if "mlvu_dev" in (one := json.loads((out / "summary.json").read_text()))["questions"]]
    assert found["uneven"]["n"] == 2, "one question, in the tasks of two protocols"
    name, _, why = found["uneven"]["questions"][0].partition(": ")
    assert name == "visreflect_mlvu 2" and why.endswith("/hf/mlvu/count_1.mp4: frames lie up to 1.24 s from where its mean rate puts them")
    notes = [line for line in (desk.reports / "tableclips.md").read_text().splitlines() if "variable frame rate" in line]
    said = "; 1 question about clips with a variable frame rate, whose frames are evenly spaced by frame number, and so not in time (uneven in"
    assert [(line.split(":")[0], said in line) for line in notes] == 2 * [("- MLVU", True)], "under both protocols"


TIMES = """
table: times
title: Time of one pass and of two
recipe: visreflect-release
columns: [videomme]
rows:
  - Base: {stages: []}
  - Zooming: {stages: [], set: {decode.zoom: predicted}}
claims:
  - {less_time: Base, than: Zooming, percent: 44, on: [videomme], source: ours, quote: faster}
"""


def test_a_claim_about_time_is_judged_by_a_job_that_times_both_rows(desk: Desk):
    (desk.folder / "times.yaml").write_text(TIMES)
    desk.render(str(desk.folder / "times.yaml"))
    (found,) = [json.loads((out / "measure.json").read_text()) for out in desk.outputs("measure")]
    assert found["questions"] + found["unreadable"] == 9 and found["unreadable"] == 3
    assert {"row", "zooming"} <= set(found["ways"]) and found["ways"]["row"]["read"] < found["ways"]["zooming"]["read"]
    (line,) = [line for line in (desk.reports / "tabletimes.md").read_text().splitlines() if line.startswith("| Base takes 44 % less time than Zooming")]
    assert "% less time [" in line and "3 questions are left out, as their clips cannot be read" in line
