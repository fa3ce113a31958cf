"""A claim about time adds one job to its table, and is refused where there is nothing to time."""

from __future__ import annotations

import pytest

from harness.plan import plan_experiment
from harness.spec.errors import SpecError
from harness.spec.files import EXPERIMENTS
from tests.harness.conftest import fake_digest

TEXT = (EXPERIMENTS / "visreflect.yaml").read_text()
CLAIM = TEXT[TEXT.index("  - less_time:") : TEXT.index("notes:")]


@pytest.fixture
def planned(tmp_path):
    def plan(old: str = CLAIM, new: str = CLAIM, profile: str = "smoke", **options):
        assert TEXT.count(old) == 1
        (tmp_path / "visreflect.yaml").write_text(TEXT.replace(old, new))
        return plan_experiment(tmp_path / "visreflect.yaml", profile, tasks=fake_digest, **options)

    return plan


@pytest.mark.parametrize("profile", ["smoke", "proxy", "a800"])
def test_one_job_more_and_every_other_keeps_its_key(planned, profile):
    plan, without = planned(profile=profile), planned(new="", profile=profile)
    (job,) = [job for job in plan.graph if job.key not in {one.key for one in without.graph}]
    assert len(plan.graph) == len(without.graph) + 1 and plan.rows_of(job) == ("Image, then video stage",)
    assert job.kind == "measure" and job.inputs["checkpoint"] == plan.checkpoints["Image, then video stage"][0]
    assert job.inputs["zooming"] == plan.checkpoints["Zooming baseline"][0] and plan.profile.value.resources_of("measure").alone
    for name, row in (("row", "Image, then video stage"), ("zooming", "Zooming baseline")):
        assert job.payload[name] == plan.cell(row, "videomme").jobs[0, "own"].payload, "as its evaluations are decoded"


def test_a_part_of_the_table_without_one_of_the_rows_or_the_column_times_nothing(planned):
    for part in ({"rows": ["Base model", "Zooming"]}, {"columns": ["vstar"]}):
        assert not [job for job in planned(**part).graph if job.kind == "measure"]


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("on: [videomme]\n    source: abstract\n    quote: reduc", "on: [vstar]\n    quote: reduc", "claims[2]: vstar asks about no clips"),
        ("on: [videomme]\n    source: abstract\n    quote: reduc", "quote: reduc", "claims[2]: vstar asks about no clips"),
        ("on: [videomme]\n    source: abstract\n    quote: reduc", "on: []\n    quote: reduc", "claims[2].on: names no column; leave it out for all"),
        ("    than: Zooming", "    than: Zoming", 'no such row "Zoming baseline"; did you mean "Zooming baseline"'),
        ("    than: Zooming baseline", "    than: Base model", 'row "Base model" has decode.zoom: none on videomme, not predicted'),
        ("less_time: Image, then video stage\n    than: Zooming baseline", "less_time: Zooming baseline\n    than: Base model", 'row "Zooming baseline" has decode.zoom: predicted on videomme, not none'),
        ("decode.zoom: predicted", "decode.zoom: oracle", 'row "Zooming baseline" has decode.zoom: oracle on videomme, not predicted'),
        ("    than: Zooming baseline", "    than: Image, then video stage", "name the row that zooms"),
        ("percent: 44", "percent: 100", "claims[2].percent: 100 is out of range: must be < 100"),
        ("percent: 44", "percent: 0", "claims[2].percent: 0 is out of range: must be > 0"),
        ("      stages: []\n      set: {decode.zoom: predicted}", "      external: {not_run: no weights}", 'row "Zooming baseline" is no checkpoint of ours'),
    ],
)  # fmt: skip
def test_what_cannot_be_timed_is_one_line(planned, old, new, said):
    with pytest.raises(SpecError) as error:
        planned(old, new)
    assert said in str(error.value) and "\n" not in str(error.value) and "visreflect.yaml:" in str(error.value)


def test_the_command_line_may_take_the_zooming_away(planned):
    plan = planned(overrides=["decode.zoom=none"])
    (cell,) = [cell for cell in plan.cells if cell.column.name.startswith("time-")]
    assert not cell.jobs and "has decode.zoom: none on videomme" in cell.not_run
