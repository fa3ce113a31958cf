"""The second metric in a report: its tables, its line among the answers, and stores from before it."""

from __future__ import annotations

import pytest

from harness.report import render
from harness.report.numbers.results import Results
from harness.report.numbers.study import study_of
from harness.report.sections.likelihood import likelihood_answer, likelihood_pairs, likelihood_table
from harness.store import Store
from harness.store import store as store_module
from tests.harness.report import world
from tests.harness.report.world import fill, make_plan


@pytest.fixture(scope="module", autouse=True)
def quick_disks():
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.files, "sync_file_system", lambda path: None)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("likelihood")
    plan, store = make_plan(folder, n=120, seeds=2), Store(folder / "results")
    fill(store, plan, n=120)
    return folder, plan, store


def results_of(made) -> Results:
    folder, plan, store = made
    return Results(study_of(plan), store, folder / "reports")


def filled(folder, monkeypatch, change) -> tuple:
    """A store whose samples are changed before they are stored: change(job, number, row) -> row."""
    samples = world.samples
    monkeypatch.setattr(world, "samples", lambda job, n: [change(job, i, row) for i, row in enumerate(samples(job, n))])
    plan, store = make_plan(folder, n=60), Store(folder / "results")
    fill(store, plan, n=60)
    return folder, plan, store


def before(row: dict) -> dict:
    return {name: value for name, value in row.items() if not name.startswith("loglik")}


def joint(job) -> bool:
    return "joint" in job.slug


def test_each_row_has_the_mean_of_its_samples_with_an_interval_around_it(made):
    results = results_of(made)
    table = likelihood_table(results)
    found = results.found("Joint Train", "mmvp")
    mean = sum(one.frame["loglik"].mean() for one in found.by_job.values()) / 2
    cell = next(row for row in table.rows if row.label == "Joint Train").cells[0]
    assert cell.value == pytest.approx(mean) and cell.interval.low < mean < cell.interval.high and cell.seeds == 2
    assert cell.display == f"−{abs(mean):.2f}"


def test_pairs_are_corrected_among_themselves_and_may_lie_beyond_one(made):
    results = results_of(made)
    table = likelihood_pairs(results)
    assert len(table.rows) >= 4 and "corrected by itself" in table.caption
    far = results.likelihoods.pair("Joint Train", "Stage 1 Only", "mmvp")
    assert far.p_mcnemar is None and far.test == "t over seeds and clusters"


def test_the_answer_says_what_likelihood_shows_beyond_accuracy(tmp_path, monkeypatch):
    def change(job, number, row):
        return row | {"loglik": -0.2 - 0.01 * (number % 3) - 2 * joint(job)}

    said = likelihood_answer(results_of(filled(tmp_path, monkeypatch, change)))
    assert "told apart by likelihood and not by accuracy" in said and "Joint Train − Two-stage (Ours) on MMVP −2.00 [" in said


def test_the_answer_is_silent_where_likelihood_shows_nothing_new(tmp_path, monkeypatch):
    made = filled(tmp_path, monkeypatch, lambda job, number, row: row | {"loglik": -1.0})
    assert likelihood_answer(results_of(made)) == "" and likelihood_table(results_of(made)) is not None


def test_one_row_from_before_is_named_beside_the_others(tmp_path, monkeypatch):
    made = filled(tmp_path, monkeypatch, lambda job, number, row: before(row) if joint(job) else row)
    table = likelihood_table(results_of(made))
    assert next(row for row in table.rows if row.label == "Joint Train").cells[0].display == "–"
    assert any(note.startswith("Joint Train: ") and "before log-likelihoods were stored" in note for note in table.notes)


def test_a_store_from_before_draws_its_report_without_them(tmp_path, monkeypatch):
    folder, plan, store = filled(tmp_path, monkeypatch, lambda job, number, row: before(row))
    render(plan, store, folder / "reports", formats=("md",))
    page = (folder / "reports" / "table3c.md").read_text()
    assert "Log-likelihood" not in page and "What do likelihoods add" not in page and "Joint Train" in page
