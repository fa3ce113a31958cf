"""One written row that stands for several."""

import pytest

from harness.plan import plan_experiment
from harness.spec.errors import SpecError
from harness.spec.files import load_experiment
from harness.spec.sweep import expand
from tests.harness.conftest import Desk, fake_digest

ROW = "- Stage 2 Only:     {stages: [stage2], set: {stage2.teacher: random}, reported: [68.4, 67.5, 52.9]}"


def rows(desk: Desk, written: str):
    return load_experiment(desk.table((ROW, f"{ROW}\n  {written}"))).value.rows


def test_a_row_for_each_value_with_its_label_reported_numbers_and_place_on_the_axis(desk: Desk):
    found = rows(desk, "- p = {p}: {stages: [stage1], sweep: {stage1.p: [0.1, 0.3]}, x: p, reported: [[1.0, 2, 3], [4, 5, '-']]}")
    assert [row.label for row in found] == ["Stage 1 Only", "Stage 2 Only", "p = 0.1", "p = 0.3", "Joint Train", "Two-stage (Ours)"]
    assert found[2].set == {"stage1.p": 0.1} and found[3].x == 0.3
    assert [value.text for value in found[2].reported] == ["1.0", "2", "3"] and found[3].reported[2].missing


def test_two_keys_make_the_product_and_what_the_label_does_not_name_is_added(desk: Desk):
    found = rows(desk, "- Grid: {stages: [stage1], set: {stage1.lr: 1.0e-6}, sweep: {stage1.p: [0.1, 0.3], latent_steps: [4, 8]}}")
    assert [row.label for row in found[2:6]] == [f"Grid, p = {p}, latent_steps = {s}" for p in (0.1, 0.3) for s in (4, 8)]
    assert found[5].set == {"stage1.lr": 1e-6, "stage1.p": 0.3, "latent_steps": 8}


def test_options_of_one_name_keep_their_sections():
    made = expand("a", {"stages": [], "sweep": {"stage1.lr": [1], "stage2.lr": [2]}})
    assert [label for label, _ in made] == ["a, stage1.lr = 1, stage2.lr = 2"]


def test_the_rows_are_the_jobs_that_rows_written_out_would_be(desk: Desk):
    def keys(written: str) -> list[str]:
        plan = plan_experiment(desk.table((ROW, f"{ROW}\n  {written}")), "smoke", tasks=fake_digest)
        return [job.key for job in plan.graph]

    out = "- p = 0.1: {stages: [stage1], set: {stage1.p: 0.1}}\n  - p = 0.3: {stages: [stage1], set: {stage1.p: 0.3}}"
    assert keys("- p = {p}: {stages: [stage1], sweep: {stage1.p: [0.1, 0.3]}}") == keys(out)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sweep: {stage1.p: 0.1}", 'row "p = {p}": sweep: is written {OPTION: [VALUE, VALUE, …]}'),
        ("sweep: {stage1.p: []}", 'row "p = {p}": sweep: is written'),
        ("sweep: {stage1.p: [0.1]}, set: {stage1.p: 0.2}", 'row "p = {p}": sweep: stage1.p is in set: too; keep one'),
        ("sweep: {stage1.lamda_bcm: [0.1]}", 'row "p = {p}": sweep.stage1.lamda_bcm: no such field; did you mean "lambda_bcm"?'),
        ("sweep: {stage1.p: [0.1, 0.3]}, reported: [1, 2, 3]", 'row "p = {p}": reported: under sweep: it is a list of 2 lists'),
        ("sweep: {stage1.p: [0.1, 0.3]}, x: 3", 'row "p = {p}": x: under sweep: it names the option that is the axis, one of p, stage1.p'),
        ("sweep: {stage1.p: [0.1, 1.5]}", "sweep.stage1.p: 1.5 is out of range: must be at most 1"),
        ("sweep: {stage1.p: [0.1, 0.1]}", 'row "p = 0.1": a second row of this name'),
        ("sweep: {stage1.p: [0.1], latent_steps: [" + ", ".join(map(str, range(1, 300))) + "]}", "makes 299 rows; a table has at most 200"),
    ],
)
def test_a_mistake_is_one_line_at_the_row(body, said, desk: Desk):
    table = desk.table((ROW, f"{ROW}\n  - p = {{p}}:\n      {{stages: [stage1], {body}}}"))
    with pytest.raises(SpecError) as error:
        plan_experiment(table, "smoke", tasks=fake_digest)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(("table.yaml:9: ", "table.yaml:10: "))
