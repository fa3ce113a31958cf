"""The documentation: its pages are what the code says, and what they show works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from harness.cli import main
from harness.cli.run import check_inputs
from harness.plan import plan_experiment
from harness.spec.language import PAGE, page
from harness.store import Store
from models.training.data import read_samples
from tests.docs.pages import DOCS, commands, untested_blocks, write_files
from tests.films import write_film

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


def test_the_training_data_of_the_page_are_read_planned_and_found_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(write_files("your-data.md", tmp_path)) == 7
    Image.new("RGB", (64, 48)).save("mine/signs/stop.png")
    write_film(Path("mine/streets/crossing.mp4"), frames=90)
    picture, clip = (read_samples(Path(f"mine/{name}.json")) for name in ("pictures", "clips"))
    assert picture[0].boxes == ((0.2, 0.3, 0.6, 0.7),) and clip[0].spans == ((1.5, 3.0), (7.0, 8.5))
    assert not picture.summary.rejected and not clip.summary.rejected and not clip.summary.mended
    plan, doctor, run = commands("your-data.md")
    assert main(plan) == 0 and run[1:] == plan[2:]
    said = capsys.readouterr().out
    assert said.count("training-set-") == 2 and "2 trainings for 2 rows" in said
    made = plan_experiment(plan[1], plan[3])
    assert check_inputs(made.graph, Store("results"), made.profile.value) == []
    main(doctor)
    said = capsys.readouterr().out
    assert [said.count(f"{name}.json is found and checked") for name in ("pictures", "clips")] == [1, 1]


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
    assert "part of the benchmark: 12 of 9,000 questions" in text and "not a mean over questions" in text
