"""A copied spec file that keeps its table's name takes neither the report nor the registration of the first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.cli import names as names_module
from harness.cli.names import check_names
from harness.plan.registration import FOLDER, register
from harness.report import ENDINGS
from harness.spec.errors import SpecError
from harness.spec.files import REPOSITORY
from harness.store import Store
from tests.harness.conftest import Desk
from tests.harness.report.world import make_plan


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def test_a_copy_that_keeps_the_name_of_a_table_does_not_replace_its_report(desk: Desk, capsys):
    assert main(["report", str(desk.table())]) == 0
    before = {name: Path(f"reports/table3c{ending}").read_bytes() for name, ending in ENDINGS.items()}
    assert json.loads(before["json"])["spec"] == f"{desk.folder.name}/table.yaml"
    copy = desk.write("mine.yaml", Path("table.yaml").read_text().replace("title: Training", "title: My training"))
    said = refused(capsys, "report", str(copy))
    assert said.startswith(f'mine.yaml:1: table: "3c" is the name of {desk.folder.name}/table.yaml, and its report would be replaced')
    assert 'choose another, as in table: "3c-mine"' in said
    assert refused(capsys, str(copy), "--profile", "proxy") == said, "nor does a run, before it computes anything"
    assert before == {name: Path(f"reports/table3c{ending}").read_bytes() for name, ending in ENDINGS.items()}
    copy.write_text(copy.read_text().replace('table: "3c"', 'table: "3c-mine"'))
    assert main(["report", str(copy), "table.yaml"]) == 0 and Path("reports/table3c-mine.html").exists()


def test_a_report_that_does_not_say_whose_it_is_belongs_to_the_projects_own_table(desk: Desk, capsys):
    Path("reports").mkdir()
    shutil.copy(REPOSITORY / "reports" / "table3c.json", "reports")
    text = json.loads(Path("reports/table3c.json").read_text())
    text.pop("spec", None)
    Path("reports/table3c.json").write_text(json.dumps(text))
    assert '"3c" is the name of experiments/table3c.yaml' in refused(capsys, "report", str(desk.table()))


def test_a_spec_that_was_renamed_keeps_its_report(desk: Desk):
    assert main(["report", str(desk.table())]) == 0
    Path("table.yaml").rename("renamed.yaml")
    assert main(["report", "renamed.yaml"]) == 0
    assert json.loads(Path("reports/table3c.json").read_text())["spec"].endswith("/renamed.yaml")


def test_two_specs_of_one_name_in_one_command_are_refused(desk: Desk, capsys):
    desk.write("mine.yaml", desk.table().read_text())
    assert "both would write the same report" in refused(capsys, "report", "table.yaml", "mine.yaml")


def test_a_copy_does_not_change_the_registration_of_the_first(tmp_path, monkeypatch):
    plan, store = make_plan(tmp_path, n=20, columns=["mmvp"]), Store(tmp_path / "results")
    register(plan, store, lambda: "d9f20cf")
    assert json.loads(next((store.root / FOLDER).glob("*/0.json")).read_text())["file"] == "experiments/table3c.yaml"
    check_names([plan], store, tmp_path / "reports")
    monkeypatch.setattr(names_module, "written_in", lambda path: "tables/mine.yaml")
    with pytest.raises(SpecError, match="is the name of experiments/table3c.yaml, and its registration would be changed"):
        check_names([plan], store, tmp_path / "reports")
