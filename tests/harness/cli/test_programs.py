"""What the verbs print for programs, against its description, and how two stores and two runs of a table differ."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.plan import plan_experiment
from harness.report import render
from harness.spec.files import REPOSITORY
from harness.store import Store
from tests.harness.conftest import Desk
from tests.harness.report.world import PROFILE, fill

N = 40
CELL = "Joint Train/mmvp"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A desk with Table 3(c) done, made once."""
    import os

    folder = tmp_path_factory.mktemp("desk")
    before = Path.cwd()
    os.chdir(folder)
    try:
        desk = Desk(folder)
        text = PROFILE.format(n=N, seeds=2, side_seeds=1, side_benchmarks="null", proxy="true")
        desk.write("profiles/invented.yaml", re.sub(r"backbone: .*", f"backbone: {{source: local, path: {folder / 'base'}}}", text))
        fill(Store("results"), plan_experiment(desk.table(), "invented"), n=N)
        yield desk
    finally:
        os.chdir(before)


@pytest.fixture
def done(made: Desk, monkeypatch):
    monkeypatch.chdir(made.folder)
    return made


def printed(capsys: pytest.CaptureFixture, *words: object, code: int = 0):
    assert main([str(word) for word in words]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def described(verb: str) -> dict[str, set[str]]:
    """what → the fields that docs/json.md names, of one verb."""
    found: dict[str, set[str]] = {}
    now = ""
    for line in (REPOSITORY / "docs" / "json.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 3:
            continue
        now = cells[0].strip("`") or now
        if now == verb:
            text = re.sub(r"\([^)]*\)", "", cells[2])
            found[cells[1]] = {name.strip() for name in text.split(",") if re.fullmatch(r"\w+", name.strip())}
    assert found, verb
    return found


def test_every_verb_says_to_a_program_what_its_description_names(done: Desk, capsys, monkeypatch):
    profile = ("--profile", "invented")
    store = Store("results")
    training = plan_experiment(Path("table.yaml"), "invented").checkpoints["Joint Train"][0]
    from harness.store import files

    values = {"loss": 1.5, "lr": 1e-3}
    files.append(store.attempts(training)[0].metrics, json.dumps({"time": 1.0, "step": 4, "total": 8, "values": values}) + "\n")

    plan, told = printed(capsys, "plan", "table.yaml", *profile, "--json"), described("plan")
    assert set(plan) == told["object"] and set(plan["jobs"][0]) == told["a job"]
    assert set(plan["experiments"][0]) == told["an experiment"] and set(plan["experiments"][0]["cells"][0]) == told["a cell of it"]

    row, told = printed(capsys, "plan", "table.yaml", *profile, "--explain", "Joint", "--json"), described("plan --explain ROW")
    assert set(row) == told["object"] and set(row["options"][0]) == told["an option"]
    assert {one["name"]: one["value"] for one in row["options"]}["joint.global_batch"] > 0 and row["stages"] == ["joint"]

    assert set(printed(capsys, "status", "--json")[0]) == described("status")["list of jobs"]

    (cell,), told = printed(capsys, "why", CELL, "table.yaml", *profile, "--json"), described("why CELL")
    assert set(cell) == told["list of cells"] and set(cell["value"]) == told["value"] and set(cell["jobs"][0]) == told["a job"]
    assert cell["value"]["low"] < cell["value"]["value"] < cell["value"]["high"] and (cell["value"]["n"], cell["value"]["seeds"]) == (N, 2)

    log, told = printed(capsys, "logs", training.key12, "--json"), described("logs KEY")
    assert set(log) == told["object"] and log["lines"] == ["it ran"] and log["steps"] == [{"step": 4, "total": 8, "time": 1.0, **values}]

    rows, told = printed(capsys, "diff", "table.yaml:Stage 2 Only", ":Two-stage", "--json"), described("diff A B")
    assert set(rows) == told["object"] and set(rows["options"][0]) == told["an option"]
    assert {one["option"]: (one["a"], one["b"], one["only"]) for one in rows["options"]}["stage2.teacher"] == ("random", "stage1", None)

    samples = re.sub(r"\s", "", ", ".join(sorted(described("samples FILE ROW ROW")["object"])))
    assert samples == "columns,first,page,protocol,second"

    assert set(printed(capsys, "verify", "--json")) == described("verify")["object"]
    assert main(["export", "table.yaml", *profile, "--to", "b.zip"]) == 0
    capsys.readouterr()
    assert set(printed(capsys, "verify", "b.zip", "--json")[0]) == described("verify ZIP")["list of bundles"]

    unneeded = printed(capsys, "gc", "table.yaml", *profile, "--rows", "Stage 1 Only", "--json")
    assert set(unneeded[0]) == described("gc")["list of jobs"] and not any(one["deleted"] for one in unneeded)

    assert main(["tag", "mine", training.key12, "--note", "it"]) == 0
    capsys.readouterr()
    assert set(printed(capsys, "tag", "--json")[0]) == described("tag")["list of tags"]

    audit, told = printed(capsys, "audit", REPOSITORY / "experiments/table3c.yaml", "--json"), described("audit")
    assert set(audit) == told["object"] and told["a finding"] <= set(audit["findings"][0])

    assert set(printed(capsys, "doctor", "--json")[0]) == described("doctor")["list of checks"]


def test_why_shows_the_value_of_a_cell_that_is_done_as_the_report_has_it(done: Desk, capsys):
    from harness import load

    frame = load("results").table("table.yaml", profile="invented").frame().set_index(["row", "column", "protocol", "latents"])
    cell = frame.loc["Joint Train", "mmvp", "paper", "own"]
    assert main(["why", CELL, "table.yaml", "--profile", "invented"]) == 0
    said = capsys.readouterr().out
    text = f"{cell.value:.1f} [{cell.low:.1f}, {cell.high:.1f}] %, {N} questions, 2 seeds"
    assert f"  at proxy scale {text}; the paper reports 70.2 (another model)\n" in said
    assert "complete: all " in said


def test_the_base_model_beside_the_rows_is_known_to_why_and_to_notebooks(done: Desk, capsys):
    from harness import load

    table = load("results").table("table.yaml", profile="invented")
    cell = table.frame().set_index(["row", "column", "protocol", "latents"]).loc["Base model", "mmvp", "paper", "own"]
    assert main(["why", "Base model/mmvp", "table.yaml", "--profile", "invented"]) == 0
    said = capsys.readouterr().out
    assert f"Base model / mmvp\n  at proxy scale {cell.value:.1f} [{cell.low:.1f}, {cell.high:.1f}] %, {N} questions" in said
    answers = table.samples("Base model", "mmvp")
    assert len(answers) == N and 100 * answers.correct.mean() == pytest.approx(cell.value)
    assert main(["why", "Bsae model/mmvp", "table.yaml", "--profile", "invented"]) == 2
    assert 'did you mean "Base model/mmvp"?' in capsys.readouterr().err


def test_two_runs_of_a_table_are_compared_cell_by_cell_with_the_reason(done: Desk, capsys):
    profile = ("--profile", "invented")
    (same,) = printed(capsys, "diff", "results", "results", "--table", "table.yaml", *profile, "--json")
    assert same["moved"] == [] and same["cells"] > 24
    changed = done.folder / "profiles" / "other.yaml"
    changed.write_text((done.folder / "profiles" / "invented.yaml").read_text().replace("lr: 60", "lr: 30"))
    fill(Store("theirs"), plan_experiment(Path("table.yaml"), "other"), n=N)
    for name, folder in (("invented", "results"), ("other", "theirs")):
        render(plan_experiment(Path("table.yaml"), name), Store(folder), Path("reports", name), formats=("json",))
    shutil.copytree("theirs", "both", dirs_exist_ok=True)
    shutil.copytree("results", "both", dirs_exist_ok=True)
    (table,) = printed(capsys, "diff", "reports/invented/table3c.json", "reports/other/table3c.json", "--results", "both", "--json")
    told = described("diff … --table FILE")
    assert set(table) == told["list of tables"] and set(table["moved"][0]) == told["moved"] and set(table["moved"][0]["a"]) == told["a, b"]
    joint = next(one for one in table["moved"] if (one["row"], one["column"], one["latents"]) == ("Joint Train", "mmvp", "own"))
    assert joint["because"] == ["joint.lr 0.0006 → 0.0003"] and joint["by"] == pytest.approx(joint["b"]["value"] - joint["a"]["value"])
    base = [one for one in table["moved"] if one["row"].startswith("Base")]
    assert not base, "what depends on no training has not moved"


def test_one_job_with_other_answers_in_another_store_is_told_with_what_else_differs(done: Desk, capsys):
    plan = plan_experiment(Path("table.yaml"), "invented")
    job = plan.cell("Joint Train", "mmvp").jobs[0, "own"]
    shutil.rmtree("again", ignore_errors=True)
    fill(Store("again"), plan, n=N, skip=(job.name,))
    store = Store("again")
    store.ensure(job)
    attempt = store.begin_attempt(job)
    rows = [json.loads(line) for line in (Store("results").outputs(job) / "samples.jsonl").read_text().splitlines()]
    wrong = next(row for row in rows if row["correct"])
    wrong |= {"correct": False, "prediction": "B", "response": "B"}
    (attempt.out / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(Store("results").outputs(job) / "result.json", attempt.out)
    result = json.loads((attempt.out / "result.json").read_text())
    result["aggregates"]["accuracy"] -= 1 / N
    (attempt.out / "result.json").write_text(json.dumps(result))
    assert store.publish(attempt, seconds=1.0, versions={"torch": "2.14.0"}, code={"commit": "abcdef", "dirty": False})

    stores, told = printed(capsys, "diff", "results", "again", "--json"), described("diff STORE STORE")
    assert set(stores) == told["object"] and set(stores["different"][0]) == told["different"]
    (one,) = (one for one in stores["different"] if one["key"] == job.key)
    assert one["files"] == ["result.json", "samples.jsonl"] and "torch 2.13.0 → 2.14.0" in one["because"]

    assert main(["diff", "results", "again", "--table", "table.yaml", "--profile", "invented"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "4 of 66 cells moved, 3 by the interval alone" in lines[0] and len(lines) == 5
    assert all("other trainings stood beside it" in line for line in lines[1:] if "Joint Train" not in line)
    (line,) = (line for line in lines if "Joint Train / mmvp" in line)
    assert "-1.2" in line, "one of 40 questions, of one of two seeds"
    assert "the same job answered otherwise: 1 of 40 questions, 0 right now and 1 wrong now; commit d9f20cf1c0ff → abcdef" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["results", "nowhere"], "nowhere: is neither a results folder nor a report's JSON file"),
        (["results", "base"], "base: holds no jobs; name a results folder"),
        (["results", "reports/none.json"], "results: a folder and a report's file: name the table, --table FILE"),
        (["reports/none.json", "reports/none.json"], "reports/none.json: cannot be read: No such file"),
        (["bad.json", "bad.json"], "bad.json: is not a report's JSON file"),
    ],
)
def test_what_cannot_be_compared_is_one_line(done: Desk, capsys, words, said):
    Path("bad.json").write_text("[]")
    assert main(["diff", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
