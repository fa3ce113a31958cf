"""What people paste: values that are no numbers, names that lead out of the reports folder, look-alike characters."""

import os
from pathlib import Path

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
    assert said.startswith("table.yaml:8: row \"Stage 2\\x0aOnly\": label: a row's label is one line")


@pytest.mark.parametrize("value", ["1e-4", "1e5", ".5", "1.", "0.0006", "+2"])
def test_what_yaml_1_2_calls_a_number_is_one(desk, capsys, value):
    assert main(["plan", str(desk.table()), "--set", f"stage1.lr={value}"]) == 0


def test_a_report_that_the_system_does_not_let_grow_is_one_line_with_the_remedy(desk, capsys, monkeypatch):
    import resource

    monkeypatch.setattr("sys.dont_write_bytecode", True)  # or the limit cuts off a module's compiled file, for every later test
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        code = main(["report", str(desk.table())])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err.splitlines()
    assert code == 2 and "File too large; allow larger files (ulimit -f)" in said[-1] and "Traceback" not in "".join(said)


@pytest.mark.parametrize("flag", ["--results", "--reports"])
def test_an_empty_name_of_a_folder_is_refused_not_taken_for_the_one_at_hand(desk, capsys, flag):
    with pytest.raises(SystemExit) as ended:
        main(["report", str(desk.table()), flag, ""])
    assert ended.value.code == 2 and f"argument {flag}: is empty; name a folder" in capsys.readouterr().err


def test_an_option_set_to_an_empty_mapping_is_no_option_left_out(desk, capsys):
    table = desk.table(row("stages: [stage1], set: {stage1.lr: {}}, reported: [1, 2, 3]"))
    assert "stage1.lr: must be a number, not a mapping" in complaint(capsys, str(table))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["report", "TABLE", "--reports", "/proc/none"], "No such file or directory; choose a folder you may write"),
        (["TABLE", "--profile", "smoke", "--results", "/dev/null"], "/dev/null: is a file, not a results folder; choose another: --results DIR"),
        (["report", "TABLE", "--results", "TABLE"], "TABLE: is a file, not a results folder; choose another: --results DIR"),
        (["TABLE", "--profile", "smoke", "--results", "/etc/passwd/x"], "Not a directory; choose another results folder"),
        (["report", "TABLE", "--reports", "x" * 300], "File name too long; choose a shorter one"),
        (["verify", "--results", "/etc/passwd"], "/etc/passwd: no such folder; name the one to check"),
        (["verify", "--results", "nothing"], "nothing: no such folder; name the one to check"),
    ],
)
def test_a_folder_that_cannot_be_is_one_line_with_the_remedy(desk, capsys, arguments, says):
    desk.write("TABLE", desk.table().read_text())
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["import", "folder"], "folder: is a folder; name a bundle's file, which run.py export writes"),
        (["audit", "folder"], "folder: holds no experiments (*.yaml)"),
        (["plan", ""], "an experiment's name is empty; name a file or a folder"),
        (["logs", "abcd", "-n", "-5"], "argument -n: -5 is not a whole number; use 0 or more"),
        (["plan", "table.yaml", "--seeds", "99999999999"], "99999999999 is not a number of seeds; use 1 or more, at most 1000"),
        (["samples", "table.yaml", "--most", "0"], "argument --most: 0 is too small; use 1 or more"),
        (["samples", "table.yaml", "--reports", "r", "Joint", "Two"], "unrecognized arguments: Joint Two; put names before the options"),
    ],
)
def test_what_a_shell_or_a_slip_of_the_finger_makes_is_one_line(desk, capsys, arguments, says):
    desk.table()
    (desk.folder / "folder").mkdir()
    try:
        assert main(arguments) == 2
    except SystemExit as ended:
        assert ended.code == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("columns: [mmvp, hrbench4k, blink]", "columns: [mmvp, hrbench4k, mmvp]", 'table.yaml:5: columns[2]: a second column "mmvp"; keep one'),
        ("rows:", "rows: []\nothers:", "rows: is empty; it needs one entry or more"),
    ],
)
def test_a_list_with_nothing_or_the_same_twice_is_one_line(desk, capsys, old, new, says):
    table = desk.table((old, new))
    if "others:" in new:
        table.write_text(table.read_text().partition("others:")[0])
    assert says in complaint(capsys, str(table))


def test_one_option_set_twice_to_different_values_is_refused(desk, capsys):
    said = complaint(capsys, str(desk.table()), "--set", "stage1.p=0.3", "--set", "stage1.p=0.4")
    assert said.strip() == "--set stage1.p=0.4: stage1.p is set already, by --set stage1.p=0.3; keep one"
    assert main(["plan", str(desk.table()), "--set", "p=0.3", "--set", "stage1.p=0.4"]) == 0, "the general first, then the particular"


def refused(capsys, *arguments: str) -> str:
    """The one line that a verb says."""
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


def test_a_pipe_is_no_bundle_and_a_wrong_bundle_creates_no_store(desk, capsys):
    os.mkfifo("pipe.zip")
    assert "pipe.zip: is not a regular file; name a bundle's file" in refused(capsys, "import", "pipe.zip")
    desk.write("cut.zip", "PK")
    assert "cut.zip: is not a bundle" in refused(capsys, "import", "cut.zip")
    assert not Path("results").exists()


@pytest.mark.parametrize("verb", ["logs", "cancel", "retry", "release"])
def test_an_empty_key_is_said_to_be_empty(desk, capsys, verb):
    assert "the job's key is empty; run.py status --all lists the jobs" in refused(capsys, verb, "")
