"""What people paste: values that are no numbers, names that lead out of the reports folder, look-alike characters."""

import pytest

from harness.cli import main
from tests.harness.cli.test_wrong_input import complaint, row

NO_NUMBERS = [
    "10k",
    ".inf",
    "inf",
    "NaN",
    "1e400",
    "true",
    "'1,5e-5'",
    "1_000",
    "0x10",
    "010",
    "'0.3'",
    "1:30",
    "none",
    "[1]",
    "０.３",
    "−0.3",
    "5%",
]


@pytest.mark.parametrize("profile", ["proxy", "smoke"])
@pytest.mark.parametrize("option", ["stage1.lr", "stage1.steps"])
@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_is_one_line_under_every_profile(desk, capsys, value, option, profile):
    table = desk.table(row(f"stages: [stage1], set: {{{option}: {value}}}, reported: [1, 2, 3]"))
    said = complaint(capsys, str(table), "--profile", profile)
    assert said.startswith("table.yaml:8: ")
    said = complaint(capsys, str(desk.table()), "--profile", profile, "--set", f"{option}={value}")
    assert said.startswith(f"--set {option}={value}: ")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("０.３", "FULLWIDTH DIGIT ZERO"),
        ("−0.3", "MINUS SIGN"),
        ("'1,5'", "decimal point"),
        ("10k", "without a unit"),
        ("010", "leading zeros"),
    ],
)
def test_the_line_says_what_keeps_a_text_from_being_a_number(desk, capsys, value, why):
    assert why in complaint(capsys, str(desk.table()), "--set", f"stage1.lr={value}")


@pytest.mark.parametrize("kind", ["table", "figure", "controls"])
@pytest.mark.parametrize(
    "name",
    [
        "s/../../x",
        "../x",
        "/etc/x",
        ".hidden",
        "a\\nb",
        "a\\0b",
        "a\\e[31mb",
        "a\\u202Eb",
        "x" * 300,
        " ",
        "x.",
        "a..b",
    ],
)
def test_a_name_that_is_no_file_name_is_refused_at_load(desk, capsys, name, kind):
    said = complaint(capsys, str(desk.table(('table: "3c"', f'{kind}: "{name}"'))))
    assert said.startswith("table.yaml:1: ")


def test_a_benchmark_s_name_is_no_path(desk, capsys):
    said = complaint(capsys, str(desk.table(("columns: [mmvp,", "columns: [{benchmark: ../mmvp},"))))
    assert said.startswith("table.yaml:") and "../mmvp" in said


def test_a_label_of_two_lines_is_refused(desk, capsys):
    said = complaint(capsys, str(desk.table(("- Stage 2 Only:", '- "Stage 2\\nOnly":'))))
    assert said.startswith("table.yaml:8: rows[1].label: a row's label is one line")


@pytest.mark.parametrize("value", ["1e-4", "1e5", ".5", "1.", "0.0006", "+2"])
def test_what_yaml_1_2_calls_a_number_is_one(desk, capsys, value):
    assert main(["plan", str(desk.table()), "--set", f"stage1.lr={value}"]) == 0
