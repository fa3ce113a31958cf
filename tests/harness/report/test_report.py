"""One study, rendered once through the real plan and store; every writer is looked at."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.report import ENDINGS, paths, render, up_to_date
from harness.report.numbers.fingerprint import stamped
from harness.report.numbers.study import study_of
from harness.report.sections.build import build
from harness.report.writers.chart import WIDTHS, draw
from harness.store import Store
from harness.store import store as store_module
from tests.harness.report.world import REPOSITORY, fill, make_plan

ROWS = ("Stage 1 Only", "Stage 2 Only", "Joint Train", "Two-stage (Ours)")


@pytest.fixture(scope="module", autouse=True)
def quick_disks():
    """Hundreds of tiny jobs need not survive a power cut."""
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.files, "sync_file_system", lambda path: None)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Everything done, one seed."""
    folder = tmp_path_factory.mktemp("world")
    plan, store = make_plan(folder, n=240), Store(folder / "results")
    fill(store, plan, n=240)
    render(plan, store, folder / "reports")
    return plan, store, folder / "reports"


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """Joint training failed, one evaluation never ran, two seeds."""
    folder = tmp_path_factory.mktemp("troubled")
    plan, store = make_plan(folder, n=60, seeds=2), Store(folder / "results")
    fill(store, plan, n=60, failing=("joint",), skip=("stage2-teacher-random-seed0-mmvp-paper-",))
    render(plan, store, folder / "reports", formats=("md", "html", "tex", "png"))
    return plan, store, folder / "reports"


def text(reports, suffix="md", stem="table3c"):
    return (reports / f"{stem}{ENDINGS[suffix]}").read_text(encoding="utf-8")


def test_every_format_is_written_and_stamped(world):
    plan, _, reports = world
    stamps = {stamped(path) for name, path in paths(plan, reports).items() if name != "csv"}
    assert len(stamps) == 1 and re.fullmatch("[0-9a-f]{64}", stamps.pop())


def test_nothing_is_drawn_when_nothing_changed(world):
    plan, store, reports = world
    assert up_to_date(plan, store, reports)


def test_asking_whether_a_report_is_current_imports_nothing_heavy():
    code = (
        "import sys; from harness.report import up_to_date, paths, render; import harness.report.numbers.study; "
        "print([m for m in ('pandas', 'matplotlib', 'jinja2', 'numpy', 'scipy', 'torch', 'mlflow') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert out.stdout.strip() == "[]"


def test_a_changed_result_a_missing_file_and_a_foreign_file_are_noticed(world, tmp_path):
    plan, store, reports = world
    for name, path in paths(plan, reports).items():
        paths(plan, tmp_path)[name].write_bytes(path.read_bytes())
    assert up_to_date(plan, store, tmp_path)
    (tmp_path / "table3c.md").write_text("written by hand")
    assert not up_to_date(plan, store, tmp_path)
    (tmp_path / "table3c.md").unlink()
    assert not up_to_date(plan, store, tmp_path)
    job = next(job for job in plan.graph if job.kind == "evaluate")
    done = store.folder(job) / "DONE.json"
    before = done.read_text()
    try:
        done.write_text(re.sub('"sha256": "[0-9a-f]{8}', '"sha256": "00000000', before))
        assert not up_to_date(plan, store, reports)
    finally:
        done.write_text(before)
    assert up_to_date(plan, store, reports)


def test_the_same_results_give_the_same_bytes(world, tmp_path):
    plan, store, reports = world
    draw.cache_clear()
    render(plan, store, reports.parent / "again")
    for name, path in paths(plan, reports.parent / "again").items():
        assert path.read_bytes() == paths(plan, reports)[name].read_bytes()


def test_a_charts_parts_are_numbered_and_not_named_by_their_positions(world):
    """matplotlib's own names change with the last bit of a position, which differs from process to process."""
    page = paths(world[0], world[2])["html"].read_text()
    for width in WIDTHS:
        made = re.findall(rf'\bid="({width}-[^"]+)"', page)
        used = dict.fromkeys(re.findall(rf'(?:url\(|href=")#({width}-[^)"]+)', page))
        assert [*used] == [f"{width}-{number}" for number in range(len(used))] and len(used) > 0
        assert sorted(made) == sorted(used)


def test_measured_and_reported_values_stand_side_by_side_without_a_verdict(world):
    table = text(world[2]).partition("What the results say")[0]
    for row, value in zip(ROWS, ("70.9", "68.4", "70.2", "72.3")):
        line = next(line for line in table.splitlines() if line.startswith(f"| {row}"))
        assert re.search(rf"\d\d\.\d \[\d\d\.\d, \d\d\.\d\] \| {value} \|", line), line
    assert "MMVP: proxy | MMVP: paper" in table and "verdict" not in table


def test_the_first_lines_say_what_the_numbers_are_of_and_where_a_benchmark_leaves_no_room(world):
    detail = text(world[2]).partition("<summary>In detail</summary>")[2]
    bullets = [line for line in detail.splitlines() if line.startswith("- ")]
    assert bullets[0].startswith("- Proxy scale: a tiny model on procedural scenes.") and "One seed:" in bullets[0]
    care = next(line for line in bullets if line.startswith("- Read with care"))
    assert care.startswith("- Read with care: the base model is not shown to be 10 points above guessing on MMVP")
    assert "(guessing: 50.0)" in care and bullets.index(care) < 6


def test_a_headline_names_the_errors_among_the_papers_printed_numbers(world):
    line = next(line for line in text(world[2]).splitlines() if line.startswith("- Audit of the paper"))
    assert "70.9 is no k/300" in line and "run.py audit experiments/table3c.yaml" in line


def test_the_share_of_single_answers_that_turn_stands_beside_the_change_of_accuracy(world):
    assert re.search(r"\[[−+0-9., ]+\] · flip \d", text(world[2])) and "of single answers turn right or wrong" in text(world[2])


def test_the_report_says_in_which_rows_the_teachers_latents_have_collapsed(world):
    line = next(line for line in text(world[2]).splitlines() if line.startswith("- Collapse"))
    assert "the teacher of Stage 1 Only and Two-stage (Ours) (0.991, 0." in line, "one teacher, said once"
    assert re.search(r"not: the teacher of Joint Train \(0\.400, 0\.\d{3}\)\.$", line)


def test_every_row_is_held_against_the_base_model_it_was_trained_from(world):
    line = next(line for line in text(world[2]).splitlines() if line.startswith("- Against the base model"))
    assert "(12 cells, paired)" in line and "above it:" in line and "below it:" in line
    assert "| Joint Train − Base model |" in text(world[2])


def test_a_note_names_the_command_that_shows_the_questions_themselves(world):
    command = f'run.py samples experiments/table3c.yaml "Stage 1 Only" "Two-stage (Ours)" --profile {world[0].profile.document.path.parent.name}/invented.yaml'
    assert f"`{command}`" in text(world[2]) and r"\`" not in text(world[2])
    assert f"<code>{command.replace(chr(34), '&#34;')}</code>" in text(world[2], "html")
    assert r"\texttt{run.py samples experiments/table3c.yaml {\char34}Stage 1 Only{\char34}" in text(world[2], "tex")


def test_a_report_begins_with_a_conclusion_then_its_table_chart_and_answers_and_folds_the_rest(world):
    for suffix, fold in (("md", "<details>"), ("html", '<details class="fold"')):
        page = text(world[2], suffix)
        places = [page.index(words) for words in ("Conclusion.", "Two-stage (Ours)", "What the results say.", fold)]
        assert places == sorted(places)
    head = text(world[2]).partition("<details>")[0]
    assert re.search(r"Differences smaller than about \d[^.]*(\.\d[^.]*)* points would probably have been missed\.", head)
    assert "| Did training teach? |" in head and "| Room? |" in head and "## " not in head
    assert r"\textbf{Conclusion.}" in text(world[2], "tex")


def test_declared_comparisons_are_corrected_together_and_the_other_pairs_are_exploratory(world):
    page = text(world[2])
    assert "p after Holm over these 21 tests" in page, "three rows against the full method and four against the base, on three columns"
    assert "Exploratory: 9 pairs that the table does not declare" in page
    assert "| Joint Train − Two-stage (Ours) |" in page and "| Joint Train − Stage 2 Only |" in page
    assert "needs ~" not in page, "no forecast from the difference that was seen"
    assert "Smallest difference that a comparison would have shown four times in five" in page


def test_accuracy_stands_beside_accuracy_among_readable_answers_and_at_most(world):
    plan, store, reports = world
    report = build(study_of(plan), store, reports)
    (table,) = (t for section in report.sections for t in section.tables if t.name == "readable-paper")
    for row in table.rows:
        for right, among, most in zip(row.cells[::3], row.cells[1::3], row.cells[2::3]):
            assert right.value <= among.value <= 100 and right.value <= most.value
    assert any(most.value > right.value for row in table.rows for right, most in zip(row.cells[::3], row.cells[2::3]))


def test_accuracy_by_kind_of_question_averages_to_the_columns(world):
    plan, store, reports = world
    report = build(study_of(plan), store, reports)
    (table,) = (t for section in report.sections for t in section.tables if t.name == "kinds-hrbench4k-paper")
    main = {row.label: row for row in report.sections[0].tables[0].rows}
    assert [column.title for column in table.columns] == ["cross", "single"]
    for row in table.rows[1:]:
        assert sum(cell.value for cell in row.cells) / 2 == pytest.approx(main[row.label].cells[2].value), "halves of equal size"


def test_a_sweep_over_one_option_gets_one_trend_test_a_column(tmp_path):
    plan, store = make_plan(tmp_path, n=40, table="table4", protocols=["paper"], latents=["own"]), Store(tmp_path / "results")
    fill(store, plan, n=40)
    render(plan, store, tmp_path / "reports", formats=("md",))
    page = text(tmp_path / "reports", stem="table4")
    assert page.count("| bend from p = 0.1 to p = 0.9 (middle − ends) |") == 1
    assert "p after Holm over these 18 tests" in page, "a trend a column and five rows against the base on three"


def test_a_base_model_that_is_a_row_is_not_shown_twice(tmp_path):
    plan, store = make_plan(tmp_path, n=40, table="controls", columns=["mmvp"], protocols=["paper"]), Store(tmp_path / "results")
    fill(store, plan, n=40)
    render(plan, store, tmp_path / "reports", formats=("md",))
    (written,) = (tmp_path / "reports").glob("*.md")
    table = written.read_text().partition("| Row |")[2].partition("\n\n")[0]
    assert table.count("| Base model") == 1
    assert "latent steps?." not in written.read_text()
    assert "S = 4 at inference and S = 16 at inference are one training, decoded in different ways." in written.read_text()
    assert "Without latent steps, so not among these rows: Markers only (S = 0), Vanilla SFT and Base model." in written.read_text()


def test_the_report_says_for_how_many_seeds_latents_are_replaced(tmp_path, world):
    plan, store = make_plan(tmp_path, n=40, seeds=2, side_seeds=1), Store(tmp_path / "results")
    fill(store, plan, n=40)
    render(plan, store, tmp_path / "reports", formats=("md",))
    page = text(tmp_path / "reports")
    assert "Latents are replaced for 1 of 2 seeds; changes are within those." in page
    assert "Latents are replaced for" not in text(world[2])


def test_columns_that_the_profile_leaves_aside_are_missing_from_the_side_tables_and_named(tmp_path):
    plan, store = make_plan(tmp_path, n=40, side_benchmarks="[mmvp]"), Store(tmp_path / "results")
    fill(store, plan, n=40)
    tables = {t.name: t for s in build(study_of(plan), store, tmp_path / "reports").sections for t in s.tables}
    assert {row.group for row in tables["latents"].rows} == {"MMVP"}
    assert "The profile does not ask for replaced latents on HRBench-4K and BLINK." in tables["latents"].notes
    assert {column.group for column in tables["main-stock"].columns} == {"MMVP"}
    assert [column.title for column in tables["declared-stock"].columns] == ["MMVP"]
    assert not any(note.startswith(("HRBench", "BLINK")) for note in tables["main-stock"].notes)
    assert len({column.group for column in tables["main-paper"].columns}) == 3
    render(plan, store, tmp_path / "reports", formats=("md", "json", "csv"))
    assert "not run" not in text(tmp_path / "reports")


def test_rows_that_share_a_training_are_named(world):
    assert "Stage 1 Only is the first part of Two-stage (Ours): one training (" in text(world[2])


def test_the_report_names_claims_mechanism_scale_assumptions_and_origin(world):
    page = text(world[2])
    for words in (
        "Two-stage (Ours) is best (every column)",
        "at proxy scale",
        "change when the latents are: oracle",
        "Z\\_T: instance std",
        "started",
        "steps (stage1, joint) | 2500 | 200 (×0.08)",
        "roi\\_bins = 8",
        "d9f20cf1c0ff",
        "torch 2.13.0",
        "Protocol stock",
    ):
        assert words in page, words


def test_every_cell_knows_its_jobs_and_its_rates(world):
    plan, store, reports = world
    report = build(study_of(plan), store, reports)
    table = report.sections[0].tables[0]
    cell = next(row for row in table.rows if row.label == "Joint Train").cells[0]
    assert [job.kind for job in cell.jobs] == ["evaluate", "train"]
    assert cell.n == 240 and cell.clusters == 120 and cell.seeds == 1
    assert cell.rates and cell.rates.started > 0.9
    assert cell.jobs[0].key in text(reports, "html")


def test_a_failed_training_fails_its_cells_and_not_the_table(troubled):
    page = text(troubled[2])
    row = next(line for line in page.splitlines() if line.startswith("| Joint Train |"))
    assert row.count("failed (1)") == 3
    assert re.search(r"\(1\) failed: train joint-seed0-\w+: ValueError: loss is NaN at step 17", page)
    assert "| 70.2 |" in row, "the reported value stays"
    assert "No value: Joint Train on MMVP, Joint Train on HRBench-4K and Joint Train on BLINK." in page


def test_a_missing_seed_is_named_and_the_others_are_shown(troubled):
    plan, store, reports = troubled
    report = build(study_of(plan), store, reports)
    cell = next(row for row in report.sections[0].tables[0].rows if row.label == "Stage 2 Only").cells[0]
    assert cell.seeds == 1 and cell.tone == "warning" and "seed 0 not run" in cell.note


def test_a_score_that_the_samples_do_not_give_is_an_error_in_its_cell(tmp_path):
    plan, store = make_plan(tmp_path, n=40), Store(tmp_path / "results")
    fill(store, plan, n=40)
    job = plan.cell("Joint Train", "mmvp").jobs[0, "own"]
    result = store.outputs(job) / "result.json"
    result.write_text(re.sub(r'"accuracy": [\d.]+', '"accuracy": 0.99', result.read_text()))
    render(plan, store, tmp_path / "reports", formats=("md",))
    row = next(line for line in text(tmp_path / "reports").splitlines() if line.startswith("| Joint Train |"))
    assert "the task's accuracy says 99.000" in row


def test_a_subset_is_found_by_its_tasks_name_alone():
    import pandas as pd

    from harness.report.numbers.measure import Unmeasured, select
    from harness.spec.benchmark import Score

    frame = pd.DataFrame(
        {"id": [("vr_blink_counting", 0), ("blink_counting", 1), ("vr_blink_jigsaw", 0)], "groups": [{}, {}, {}]}
    )
    assert len(select(frame, Score(where={"task": "blink_counting"}, n=1, chance=25), "job")) == 2
    with pytest.raises(Unmeasured, match="no sample of job"):
        select(frame, Score(where={"task": "blink_iq_test"}, n=1, chance=25), "job")


def test_an_overridden_result_never_enters_the_papers_table(tmp_path):
    plan = make_plan(tmp_path, n=40, overrides=["stage1.p=0.3"])
    written = render(plan, Store(tmp_path / "results"), tmp_path / "reports", formats=("md", "html"))
    assert all(path.name.startswith("table3c-overridden") for path in written)
    assert "OVERRIDDEN: stage1.p = 0.3. This is not the paper's table." in written[0].read_text()


def test_a_part_of_a_table_gets_a_file_of_its_own_and_names_what_is_left_out(tmp_path):
    plan = make_plan(tmp_path, n=40, rows=["Joint Train", "Stage 1 Only"])
    (written,) = render(plan, Store(tmp_path / "results"), tmp_path / "reports", formats=("md",))
    assert written.name == "table3c-partial.md"
    assert "PARTIAL: left out on request: Stage 2 Only, Two-stage (Ours)." in written.read_text()


def test_an_empty_store_gives_a_report_of_what_is_missing(tmp_path):
    plan = make_plan(tmp_path, n=40)
    render(plan, Store(tmp_path / "results"), tmp_path / "reports")
    page = text(tmp_path / "reports")
    assert page.count("| not run: ") == 30 and "70.9" in page, "15 cells under each protocol"
    assert "regenerated at proxy scale, 4 are not judged" in page, "a claim about nothing does not hold"
    assert not (tmp_path / "results").exists(), "reading creates nothing"


def test_at_the_papers_scale_cells_get_verdicts(tmp_path):
    plan, store = make_plan(tmp_path, n=40, proxy=False), Store(tmp_path / "results")
    fill(store, plan, n=40)
    render(plan, store, tmp_path / "reports", formats=("md",))
    page = text(tmp_path / "reports")
    assert "MMVP: measured | MMVP: paper | MMVP: verdict" in page
    assert "reported value not from one run" in page, "70.9 is no k/300"


def test_an_unreachable_tracker_is_said_and_harmless(world, tmp_path):
    class Gone:
        def links(self, keys):
            raise ConnectionError("connection refused")

    plan, store, _ = world
    render(plan, store, tmp_path, Gone(), formats=("md",))
    assert "MLflow could not be reached (connection refused)" in text(tmp_path)


def test_runs_are_linked_where_the_tracker_knows_them(world, tmp_path):
    class Known:
        def links(self, keys):
            return {key: f"http://localhost:5000/#/runs/{key[:6]}" for key in keys}

    plan, store, _ = world
    render(plan, store, tmp_path, Known(), formats=("html",))
    assert 'href="http://localhost:5000/#/runs/' in text(tmp_path, "html")


class Page(HTMLParser):
    """Balanced tags, and every address the page would load."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attributes if name == "src" or (tag == "link" and name == "href")]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing, after {self.open[-3:]}"


def test_a_secret_in_a_label_reaches_no_format_not_even_the_figures(world, tmp_path, monkeypatch):
    plan, store, reports = world
    secret, drawn = "Joint Train", []
    monkeypatch.setenv("LAB_TOKEN", secret)
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, real=Figure.savefig, **k: (drawn.extend(t.get_text() for t in self.findobj(Text)), real(self, *a, **k)))
    render(plan, store, tmp_path)
    assert any("***" in text for text in drawn) and not any(secret in text for text in drawn)
    for suffix in ("md", "tex", "html"):
        assert secret in text(reports, suffix) and secret not in text(tmp_path, suffix)
    assert all((tmp_path / f"table3c.{suffix}").read_bytes() != (reports / f"table3c.{suffix}").read_bytes() for suffix in ("png", "pdf"))


def test_a_secret_that_equals_a_number_leaves_json_and_csv_as_they_were(world, tmp_path, monkeypatch):
    plan, store, reports = world
    monkeypatch.setenv("LAB_TOKEN", str(json.loads(text(reports, "json"))["cells"][0]["value"]))
    render(plan, store, tmp_path, formats=("json", "csv"))
    assert all((tmp_path / f"table3c.{one}").read_bytes() == (reports / f"table3c.{one}").read_bytes() for one in ("json", "csv"))


def test_the_page_is_well_formed_and_loads_nothing(world):
    page = Page()
    page.feed(text(world[2], "html"))
    assert page.open == [] and all(source.startswith("data:") for source in page.loads)
    assert "http" not in re.sub(r"<!--.*?-->|http-equiv", "", text(world[2], "html")).replace("https://", "http://").split("<script>")[0]


def test_no_report_spells_a_path_of_this_machine(world):
    for suffix in ("md", "tex", "html"):
        page = text(world[2], suffix)
        assert str(world[2].parent) not in page and str(REPOSITORY) not in page


def test_nothing_a_person_wrote_becomes_markup(tmp_path):
    source = (REPOSITORY / "experiments" / "table3c.yaml").read_text()
    folder = tmp_path / "experiments"
    folder.mkdir()
    for shelf in ("recipes", "benchmarks", "profiles"):
        (folder / shelf).symlink_to(REPOSITORY / "experiments" / shelf)
    odd = "A & B_1 <b>50%</b> {x} $y$ | [z](q) \\\\frac"
    (folder / "table3c.yaml").write_text(source.replace("title: Training stage ablation", f'title: "{odd}"'))
    from harness.plan import plan_experiment
    from harness.spec import load_profile

    make_plan(tmp_path)
    plan = plan_experiment(
        folder / "table3c.yaml", load_profile(str(tmp_path / "invented.yaml")), tasks=lambda b, p: {b: "0"}
    )
    render(plan, Store(tmp_path / "results"), tmp_path / "reports")
    html, tex, md = (text(tmp_path / "reports", suffix) for suffix in ("html", "tex", "md"))
    assert "<b>50%</b>" not in html and "&lt;b&gt;50%&lt;/b&gt;" in html
    assert r"A \& B\_1 $<$b$>$50\%$<$/b$>$ \{x\} \$y\$" in tex and r"\textbackslash{}frac" in tex
    assert r"\<b\>" in md and r"\[z\](q)" in md
