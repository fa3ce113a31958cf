"""The documentation: its pages are what the code says, and what they show works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.cli import main
from harness.spec.language import PAGE, page
from tests.docs.pages import DOCS, commands, untested_blocks, write_files

REPOSITORY = DOCS.parent


def test_the_page_on_spec_files_is_what_the_schemas_say():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: uv run python -m harness.spec.language"


@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("*.md")))
def test_every_block_of_a_page_is_a_file_or_a_command_that_a_test_uses(name):
    assert untested_blocks(name) == 0


def test_every_page_is_in_the_menu_and_the_readme_names_the_folder():
    menu = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2].partition("validation:")[0]
    listed = {next(iter(entry.values())) for entry in yaml.safe_load(menu)}
    assert listed == {path.name for path in DOCS.glob("*.md")}
    assert "(docs/" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_benchmark_of_the_page_is_planned_as_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(write_files("a-benchmark.md", tmp_path)) == 3
    plans = [words for words in commands("a-benchmark.md") if words[0] == "plan"]
    for words in plans:
        assert main(words) == 0
        said = capsys.readouterr().out
        assert "2 rows × 4 columns" in said and "base model" in said and "pope" in said
    assert plans
    Path("mine/profile.yaml").write_text("extends: smoke\n")
    assert main(plans[0]) == 2
    assert "add pope: {source: external, path: lmms-lab-encoder/POPE}" in capsys.readouterr().err, "plan names the entry when it is missing"


@pytest.mark.rehearsal
def test_the_benchmark_of_the_page_is_run_and_reported(tmp_path):
    from tests.models.evaluation.stock_data import pope
    from tests.models.evaluation.test_sources_of_benchmarks import cached

    (tmp_path / "pope").mkdir()
    pope(tmp_path / "pope")
    cached(tmp_path / "hf", tmp_path / "pope", "lmms-lab-encoder/POPE")
    write_files("a-benchmark.md", tmp_path)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for words in commands("a-benchmark.md"):
        extra = [] if words[0] == "plan" else ["--results", "results", "--reports", "reports"]
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "run.py"), *words, *extra], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (report,) = (tmp_path / "reports").rglob("tablemine.md")
    text = report.read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith("| Base model |")][:1]
    assert "failed" not in row and "not run" not in row
    assert "part of the benchmark: 12 of 9,000 questions" in text and "no mean over questions" in text
