from __future__ import annotations

import json
import random
import re
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks import evidence
from benchmarks.audit_recall import PAPERS, simulate
from benchmarks.printed_tables import COLUMNS, HONEST, Printer
from benchmarks.simulated_tables import World, size
from harness.audit import Basis, Severity, audit, read_paper
from harness.audit.repeats import at_least
from harness.cli.audit import spec_files

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"


@pytest.fixture(scope="module")
def paper():
    return audit(read_paper(spec_files([EXPERIMENTS])))


def found(result, rule, column=None, row=None, table=None):
    return [
        f
        for f in result.findings
        if f.rule == rule
        and (column is None or f.column == column)
        and (row is None or row in f.row)
        and (table is None or f.table == table)
    ]


@pytest.mark.parametrize(
    "rule, table, row, column, arithmetic",
    [
        ("claims", "Table 1", "V-Reflection", "mmvp", "72.3 - 66.7 = +5.6, claimed +7.0"),
        ("claims", "Table 1", "V-Reflection", "blink", "56.4 - 54.5 = +1.9, claimed +1.4"),
        ("claims", "Table 2", "V-Reflection", "hrbench4k.fcp", "61.8 - 55.8 = +6.0, claimed +6.7"),
        ("claims", "Table 3a", "Full", "mmvp", "72.3 - 70.9 = +1.4, claimed +2.8"),
        ("claims", "Table 2", "V-Reflection", "hrbench8k", "66.3 < InternVL3 69.3"),
        ("equal runs", "Table 3f", "S = 8", "hrbench4k", "77.1, but the same run has 71.1"),
        ("equal runs", "Table 3a", "Neither", "hrbench4k", "68.0, but the same run has 69.2"),
        ("equal runs", "Table 1", "V-Reflection", "Size", "Size is 7B in Table 1 and 8B in Table 2"),
        ("sums", "Table 1", "vanilla SFT", "blink", "/ 697 = 50.64"),
        ("sums", "Table 2", "V-Reflection", "hrbench8k", "/ 800 = 66.00"),
        ("sums", "Table 2", "Qwen2.5-VL", "hrbench8k", "/ 800 = 62.80"),
        ("sums", "Table 2", "V-Reflection", "mmerealworld_lite", "/ 1919 = 53.22"),
        ("sums", "Table 2", "vanilla SFT", "mmerealworld_lite", "/ 1919 = 49.57"),
        ("counts", "Table 1", "V-Reflection", "blink.jigsaw", "49.6 is no k/150"),
        ("counts", "Table 3f", "S = 16", "mmvp", "69.6 = 209/300 only if truncated"),
        ("sums", "Table 2", "Deepeyes", "mmerealworld_lite", "54.3, but 379/750 + 662/1169 = 1041/1919 = 54.247"),
        ("duplicates", "Table 3b", "λ_attn = 0", "", "as Joint Train (Table 3c) in 2 of 3 columns: 70.1 (hrbench4k), 53.6 (blink)"),
        ("duplicates", "Table 1", "vanilla SFT", "", "as p = 0.1 (Table 4) in 2 of 3 columns: 69.5 (mmvp), 53.1 (blink)"),
        ("below chance", "Table 3d", "Random Gaussian", "mmvp", "37.3 lies below guessing (50)"),
        ("below chance", "Table 3d", "Random Gaussian", "blink", "28.2 lies below guessing (37.1)"),
    ],
)
def test_the_known_inconsistencies_are_found_by_general_rules(paper, rule, table, row, column, arithmetic):
    assert any(arithmetic in finding.text for finding in found(paper, rule, column, row, table))


@pytest.mark.parametrize("value", ["69.5", "70.9", "65.9", "68.4", "71.5", "70.2", "67.5", "69.8", "70.4", "70.1"])
def test_every_mmvp_number_that_300_questions_cannot_give_is_named_and_a_mean_over_runs_is_allowed_for(paper, value):
    named = [f for f in found(paper, "counts", "mmvp") if f.text.startswith(f"{value} is no k/300")]
    assert named and {f.severity for f in named} == {Severity.CONDITIONAL}
    assert all(re.fullmatch("it is a mean over [23] to 5 runs", f.condition) for f in named)


@pytest.mark.parametrize("value", ["53.6", "52.6", "28.2"])
def test_truncated_numbers_beside_rounded_ones_are_named(paper, value):
    assert any(f.text.startswith(f"{value} = ") and "56.4 = 393/697" in f.text for f in found(paper, "one rounding", "blink"))


def test_a_wrong_number_is_traced_to_where_it_stands(paper):
    hints = [finding.hint for finding in paper.findings]
    assert any("58.5 - 51.8 = +6.7 is V-Reflection over Qwen2.5-VL-7B on hrbench8k.fcp" in hint for hint in hints)
    assert any("72.3 - 69.5 = +2.8" in hint for hint in hints)
    assert any("68.0 is what" in hint and "Qwen2.5-VL-7B" in hint for hint in hints)


def test_sentences_that_contradict_each_other_are_named(paper):
    about = {finding.column for finding in found(paper, "statements") if finding.severity is Severity.ERROR}
    assert {"the DAC at inference", "boxes in stage 2"} <= about and "latent steps S" not in about
    assert any("25 % is exactly 8/32" in f.text for f in found(paper, "statements"))


def test_a_table_that_is_cut_off_throughout_is_told_so_once():
    found = audit(read_paper([EXPERIMENTS / "examples" / "vstar-seal.yaml"]))
    (one,) = [f for f in found.findings if "cuts numbers off" in f.text]
    assert one.severity is Severity.CONDITIONAL and "26.95 is 31/115 = 26.9565; so are 17 more of 39" in one.text
    assert not any("only if truncated" in f.text for f in found.findings)
    assert found.checked["counts"] == 42 and not any(f.severity is Severity.ERROR for f in found.findings)


def test_what_surprises_is_a_remark_and_no_accusation(paper):
    for rule in ("below chance", "duplicates", "swapped parts"):
        assert {f.severity for f in found(paper, rule)} <= {Severity.REMARK}
    (twice,) = found(paper, "sums", row="Deepeyes")
    assert twice.severity is Severity.REMARK and "rounded twice" in twice.condition
    assert found(paper, "counts", row="S = 16")[0].severity is Severity.CONDITIONAL


def test_every_finding_states_its_place_and_its_arithmetic(paper):
    for finding in paper.findings:
        assert bool(finding.condition) or finding.severity is not Severity.CONDITIONAL
        assert ".yaml:" in finding.where and any(character.isdigit() for character in finding.text + finding.column), finding


def test_the_output_is_for_a_person_or_a_program(paper):
    read = json.loads(paper.json())
    assert len(read["findings"]) == len(paper.findings) and read["checked"]["sums"] > 20
    assert "sums 33" in paper.text() and max(map(len, paper.text().splitlines())) <= 120


def test_errors_come_first_and_what_rests_on_summaries_of_sentences_is_counted_apart(paper):
    text = paper.text()
    headings = ("Errors: ", "Conditional: ", "Remarks: ", "From our summaries")
    assert sorted(headings, key=text.index) == list(headings)
    arithmetic, summary = ([f for f in paper.findings if f.basis is basis] for basis in Basis)
    assert {f.rule for f in summary} == {"statements"} and "statements" not in {f.rule for f in arithmetic}
    errors, contradictions = (sum(f.severity is Severity.ERROR for f in part) for part in (arithmetic, summary))
    assert f"From the printed numbers: {errors} errors, " in paper.summary and f"{contradictions} contradictions" in paper.summary
    assert json.loads(paper.json())["counts"]["arithmetic"]["error"] == errors


def test_a_number_given_with_more_decimals_elsewhere_is_the_same_number(tmp_path):
    """70.25 beside 70.3: half up; Decimal's own half even would say 70.2."""
    printer = Printer.honest(0)
    printer.values["both", "gamma.one"], printer.values["again", "gamma.one"] = Decimal("70.25"), Decimal("70.3")
    assert not found(audit(read_paper([printer.write(tmp_path)])), "equal runs")


def test_no_honest_way_of_printing_is_accused_and_planted_mistakes_are_found(tmp_path):
    outcome = simulate(len(HONEST), tmp_path, ("sum off by one digit", "swapped parts", "difference off by one digit"))
    assert not outcome.errors and set(outcome.papers) == set(HONEST)
    assert outcome.recall >= 0.95 and all(kind.allowed for kind in outcome.kinds.values())


def test_a_difference_of_means_whose_runs_were_rounded_first_is_no_error(tmp_path):
    """71.94 - 58.33 printed as 13.60: 49/360 = 13.611, and two runs each rounded to two decimals."""
    result = audit(read_paper([Printer.honest(194, "runs rounded first").write(tmp_path)]))
    assert not [f for f in result.findings if f.severity is Severity.ERROR]
    assert [f.column for f in found(result, "differences")] == ["alpha.right"]


@pytest.mark.slow
def test_no_false_error_on_210_honest_tables_and_at_least_95_percent_of_each_planted_mistake(tmp_path):
    outcome = simulate(PAPERS, tmp_path)
    assert not outcome.errors and sum(outcome.papers.values()) >= 200
    assert min(found.recall for found in outcome.kinds.values()) >= 0.95, {k: f.missed for k, f in outcome.kinds.items()}


def test_an_overall_score_that_is_the_plain_mean_of_its_parts_is_conditional_not_an_error(tmp_path):
    result = audit(read_paper([Printer.honest(1, "plain mean").write(tmp_path)]))
    assert not any(f.severity is Severity.ERROR for f in result.findings)
    assert any("the overall score is the plain mean of its parts" in f.condition for f in found(result, "sums"))


def test_parts_that_changed_places_are_named(tmp_path):
    printer = Printer.honest(0, "rounded")
    row = {part: printer.values["first", f"delta.{part}"] for part in ("seen", "told")}
    assert abs(row["seen"] - row["told"]) > 1
    printer.values["first", "delta.seen"], printer.values["first", "delta.told"] = row["told"], row["seen"]
    result = audit(read_paper([printer.write(tmp_path)]))
    (one,) = found(result, "swapped parts", "delta")
    assert one.severity is Severity.REMARK and "change places; of 1 exchange tried, 1 fits" in one.text
    assert found(result, "sums", "delta", "first")


def test_a_copied_row_is_remarked_on_with_its_chance(tmp_path):
    printer = Printer.honest(0, "rounded")
    printer.values |= {("first", column): printer.values["sft", column] for column in COLUMNS}
    (one,) = found(audit(read_paper([printer.write(tmp_path)])), "duplicates")
    assert one.severity is Severity.REMARK and "as first (Table 1) in all 9 columns" in one.text
    assert re.search(r"pairs of rows would give \d(\.\d)?e-\d+ such by chance", one.text)


def test_the_chance_of_shared_numbers_is_the_share_of_shuffled_columns_that_share_them():
    draw, odds = random.Random(0), [0.1, 0.3, 0.05, 0.2]
    hits = sum(sum(draw.random() < p for p in odds) >= 2 for _ in range(40_000))
    assert at_least(2, odds) == pytest.approx(hits / 40_000, abs=0.005)


def test_nothing_is_found_in_a_corrected_copy(tmp_path):
    """Table 2 as its own parts and rows say it should read."""
    text = (EXPERIMENTS / "table2.yaml").read_text()
    for wrong, right in (
        ("63.8, 73.8, 51.8", "62.8, 73.8, 51.8"),
        ("50.1, 42.5, 54.1", "49.6, 42.5, 54.1"),
        ("66.3, 73.5, 58.5, 53.9, 45.0, 58.5", "66.0, 73.5, 58.5, 53.3, 45.1, 58.5"),
        ("65.1, 77.0, 53.3, 54.3", "65.1, 77.0, 53.3, 54.2"),
        ("+2.5, -0.3, +6.7, +8.1, +5.3", "+3.2, -0.3, +6.7, +7.5, +5.4"),
        ("points: 66.3", "points: 66.0"),
        ("points: 53.9", "points: 53.3"),
        ("points: 6.7", "points: 6.0"),
        ("on: [hrbench4k, hrbench8k]", "on: hrbench4k"),
    ):
        assert wrong in text, wrong
        text = text.replace(wrong, right)
    (tmp_path / "benchmarks").symlink_to(EXPERIMENTS / "benchmarks")
    (tmp_path / "recipes").symlink_to(EXPERIMENTS / "recipes")
    (tmp_path / "table2.yaml").write_text(text)
    assert audit(read_paper([tmp_path / "table2.yaml"])).findings == ()


def test_another_papers_table_is_read_and_its_way_of_rounding_is_no_accusation():
    found = audit(read_paper([EXPERIMENTS / "examples" / "vstar-seal.yaml"])).findings
    assert found and {finding.severity for finding in found} == {Severity.CONDITIONAL}
    cut, made = ([f for f in found if words in f.text + f.condition] for words in ("cuts numbers off", "from the printed parts"))
    assert len(cut) + len(made) == len(found)
    assert {f.row: f.text.partition(", but ")[2] for f in made} == {
        "MiniGPT-4": "35/115 + 38/76 = 73/191 = 38.2199, which cut off is 38.21",
        "LLaVA": "(23.47·115 + 53.94·76) / 191 = 35.594",
        "InstructBLIP": "(25.21·115 + 47.36·76) / 191 = 34.024",
        "LLaVA-1.5": "(43.47·115 + 56.57·76) / 191 = 48.683",
    }


def test_the_template_for_any_papers_table_shows_its_two_planted_errors_and_nothing_else():
    findings = audit(read_paper([EXPERIMENTS / "examples" / "invented.yaml"])).findings
    assert {(f.severity, f.rule, f.row, f.column) for f in findings} == {
        (Severity.ERROR, "sums", "B", "street"),
        (Severity.ERROR, "claims", "A", "street.night"),
    }


def pairs_table(folder: Path, row: str) -> Path:
    path = folder / "table.yaml"
    path.write_text(f'table: "1"\ntitle: t\ncolumns: [mmvp.pairs]\nrows:\n  - x: {{external: {{not_run: of another paper}}, {row}}}\n')
    return path


def test_a_number_that_no_mean_of_up_to_five_runs_gives_is_an_error(tmp_path):
    """150 pairs: 19.0 is 57/300, a mean over two runs; 19.05 lies between all k/750 and k/600, even if runs are rounded first."""
    (one,) = audit(read_paper([pairs_table(tmp_path, "reported: [19.0]")]), ("counts",)).findings
    assert one.severity is Severity.CONDITIONAL and one.condition == "it is a mean over 2, 4 or 5 runs"
    (one,) = audit(read_paper([pairs_table(tmp_path, "reported: [19.05]")]), ("counts",)).findings
    assert one.severity is Severity.ERROR and "nor is it a mean over 2 to 5 runs" in one.hint


@pytest.mark.parametrize(
    "claim, severity",
    [
        ("{margin: B, over: Baseline, at_least: 6.55, on: street}", Severity.CONDITIONAL),  # 6.5 as printed, up to 6.6 behind it
        ("{margin: B, over: Baseline, at_least: 6.6, on: street}", Severity.CONDITIONAL),  # ties, one printed down and one up
        ("{close: [B, Baseline], within: 6.4, on: street}", Severity.CONDITIONAL),
        ("{close: [B, Baseline], within: 6.3, on: street}", Severity.ERROR),
        ("{margin: B, over: Baseline, at_least: 7.0, on: street}", Severity.ERROR),
        ("{close: [A, Baseline], within: 5.45, on: street}", Severity.CONDITIONAL),
        ("{close: [A, Baseline], within: 5.0, on: street}", Severity.ERROR),
        ("{delta_equals: A, minus: Baseline, points: 7, on: street.night}", None),
        ("{delta_equals: A, minus: Baseline, points: 6, on: street.night}", Severity.CONDITIONAL),  # cut off
        ("{equals: A, points: 75, on: street.day}", None),
        ("{equals: A, points: 76, on: street.day}", Severity.ERROR),
        ("{margin: B − Baseline, over: A, at_least: 5, on: street}", Severity.ERROR),
    ],
)
def test_a_claim_is_an_error_only_if_no_numbers_behind_the_printed_ones_make_it_true(tmp_path, claim, severity):
    text = (EXPERIMENTS / "examples" / "invented.yaml").read_text().partition("claims:")[0]
    (tmp_path / "benchmarks").symlink_to(EXPERIMENTS / "examples" / "benchmarks")
    (tmp_path / "table.yaml").write_text(f"{text}claims:\n  - {claim}\n")
    assert [f.severity for f in audit(read_paper([tmp_path / "table.yaml"]), ("claims",)).findings] == [severity] * (severity is not None)


def test_a_section_of_the_statistics_is_written_again_and_the_others_stay(tmp_path, monkeypatch):
    file = tmp_path / "statistics.md"
    monkeypatch.setattr(evidence, "SECTIONS", {"one": ("First", ""), "two": ("Second", "")})
    for figure in ("1.0", "2.0"):
        monkeypatch.setattr(evidence, "section", lambda name, figure=figure: lambda seed, share: f"{name} {figure} {seed}")
        evidence.main([*(["one", "two"] if figure == "1.0" else ["two"]), "--seed", "5", "--to", str(file)])
    text = file.read_text()
    assert "## First\n\none 1.0 5\n\nSeed 5.\n" in text and "## Second\n\ntwo 2.0 5\n" in text and text.count("begin") == 2


@pytest.mark.parametrize("wrong", [["three"], ["--seed", "-1"], ["--share", "0"]])
def test_a_wrong_word_to_the_statistics_is_one_line(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit):
        evidence.main([*wrong, "--to", str(tmp_path / "statistics.md")])
    assert "error:" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_other_seeds_draw_other_tables():
    world = World(rows=6, seeds=2, n=100)
    assert len({size(world, 12, (seed, 1)) for seed in range(4)}) > 1 and size(world, 12, (7, 1)) == size(world, 12, (7, 1))


def test_what_controls_repeat_is_as_the_paper_prints_it_and_no_second_witness(paper):
    assert not any("Controls" in f.table + f.text + f.hint for f in paper.findings)
    tables = read_paper(spec_files([EXPERIMENTS])).tables
    printed = {(c.run, c.value.value) for table in tables if table.spec.kind != "controls" for c in table.cells()}
    repeated = [c for table in tables if table.spec.kind == "controls" for c in table.cells()]
    assert repeated and all((c.run, c.value.value) in printed for c in repeated)
