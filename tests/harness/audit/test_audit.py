from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.audit import Severity, audit, read_paper
from harness.cli.audit import spec_files
from tests.harness.audit.printer import KINDS, Printer

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
        ("below chance", "Table 3d", "Random Gaussian", "mmvp", "37.3 lies below guessing (50)"),
        ("below chance", "Table 3d", "Random Gaussian", "blink", "28.2 lies below guessing (37.1)"),
    ],
)
def test_the_known_inconsistencies_are_found_by_general_rules(paper, rule, table, row, column, arithmetic):
    assert any(arithmetic in finding.text for finding in found(paper, rule, column, row, table))


@pytest.mark.parametrize("value", ["69.5", "70.9", "65.9", "68.4", "71.5", "70.2", "67.5", "69.8", "70.4", "70.1"])
def test_every_mmvp_number_that_300_questions_cannot_give_is_named(paper, value):
    assert any(f.text.startswith(f"{value} is no k/300") for f in found(paper, "counts", "mmvp"))


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


def test_a_column_that_is_cut_off_throughout_is_told_so_once():
    found = audit(read_paper([EXPERIMENTS / "examples" / "vstar-seal.yaml"]))
    for column, text in (("direct_attributes", "26.95 = 31/115 only if"), ("relative_position", "so are 8 more of the column")):
        (one,) = [f for f in found.findings if f.column == f"vstar.{column}"]
        assert one.severity is Severity.CONDITIONAL and text in one.text and "a way to print" in one.hint
    assert found.checked["counts"] == 42 and not any(f.severity is Severity.ERROR for f in found.findings)


def test_what_surprises_is_a_flag_and_no_accusation(paper):
    assert {f.severity for f in found(paper, "below chance")} == {Severity.FLAG}
    assert found(paper, "counts", row="S = 16")[0].severity is Severity.CONDITIONAL


def test_every_finding_states_its_place_and_its_arithmetic(paper):
    for finding in paper.findings:
        assert ".yaml:" in finding.where and any(character.isdigit() for character in finding.text + finding.column), finding


def test_the_output_is_for_a_person_or_a_program(paper):
    read = json.loads(paper.json())
    assert len(read["findings"]) == len(paper.findings) and read["checked"]["sums"] > 20
    assert "sums: " in paper.text() and max(map(len, paper.text().splitlines())) <= 120


def test_a_number_given_with_more_decimals_elsewhere_is_the_same_number(tmp_path):
    printer = Printer.honest(0)
    printer.values["again", "alpha"] = printer.values["both", "alpha"].quantize(printer.values["both", "alpha"])
    path = printer.write(tmp_path)
    path.write_text(path.read_text().replace("- again:", "- again :"))
    assert not found(audit(read_paper([path])), "equal runs")


def alarms(result):
    return [f for f in result.findings if f.severity is Severity.ERROR or f.rule == "one rounding"]


def false_alarms_and_recall(folder: Path, papers: int) -> tuple[int, dict[str, float]]:
    """False alarms over honest papers; share of planted mistakes found, by kind."""
    wrong, hits = 0, dict.fromkeys(KINDS, 0)
    for seed in range(papers):
        honest = audit(read_paper([Printer.honest(seed).write(folder / f"{seed}")]))
        wrong += len(alarms(honest))
        for kind in KINDS:
            printer = Printer.honest(seed)
            rule, column = printer.plant(kind)
            result = audit(read_paper([printer.write(folder / f"{seed}-{kind}")]))
            hits[kind] += bool(found(result, rule, column))
    return wrong, {kind: count / papers for kind, count in hits.items()}


def test_honest_papers_are_not_accused_and_planted_mistakes_are_found(tmp_path):
    wrong, recall = false_alarms_and_recall(tmp_path, 3)
    assert wrong == 0 and set(recall.values()) == {1.0}, recall


@pytest.mark.slow
def test_no_false_alarm_and_full_recall_on_many_generated_papers(tmp_path):
    wrong, recall = false_alarms_and_recall(tmp_path, 90)
    assert wrong == 0 and min(recall.values()) >= 0.98, recall


def test_nothing_is_found_in_a_corrected_copy(tmp_path):
    """Table 2 as its own parts and rows say it should read."""
    text = (EXPERIMENTS / "table2.yaml").read_text()
    for wrong, right in (
        ("63.8, 73.8, 51.8", "62.8, 73.8, 51.8"),
        ("50.1, 42.5, 54.1", "49.6, 42.5, 54.1"),
        ("66.3, 73.5, 58.5, 53.9, 45.0, 58.5", "66.0, 73.5, 58.5, 53.3, 45.1, 58.5"),
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
    found = audit(read_paper(spec_files([EXPERIMENTS / "examples"]))).findings
    assert found and {finding.severity for finding in found} == {Severity.CONDITIONAL}
    cut, made = ([f for f in found if words in f.text + f.hint] for words in ("only if truncated", "made of the printed parts"))
    assert len(cut) + len(made) == len(found)
    assert {f.row: f.text.partition(", but ")[2] for f in made} == {
        "LLaVA": "(23.47·115 + 53.94·76) / 191 = 35.594",
        "InstructBLIP": "(25.21·115 + 47.36·76) / 191 = 34.024",
        "LLaVA-1.5": "(43.47·115 + 56.57·76) / 191 = 48.683",
    }


def test_what_controls_repeat_is_as_the_paper_prints_it_and_no_second_witness(paper):
    assert not any("Controls" in f.table + f.text + f.hint for f in paper.findings)
    tables = read_paper(spec_files([EXPERIMENTS])).tables
    printed = {(c.run, c.value.value) for table in tables if table.spec.kind != "controls" for c in table.cells()}
    repeated = [c for table in tables if table.spec.kind == "controls" for c in table.cells()]
    assert repeated and all((c.run, c.value.value) in printed for c in repeated)
