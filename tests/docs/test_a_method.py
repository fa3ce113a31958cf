"""The method of the page: written into a copy of the project, with its line in the registry, it is planned, computed and trained."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, commands, write_files

REPOSITORY = DOCS.parent
LAST = '    "lvr",\n'


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The project, the same but for the page's files and one line."""
    root = tmp_path_factory.mktemp("project") / "copy"
    left_out = shutil.ignore_patterns(".*", "results", "reports", "site", "__pycache__", "cluster", "rehearsal", "base")
    shutil.copytree(REPOSITORY, root, ignore=left_out)
    (root / "models" / "proxy" / "base").symlink_to(REPOSITORY / "models" / "proxy" / "base")
    registry = root / "models" / "methods" / "registry.py"
    text = registry.read_text()
    assert text.count(LAST) == 1
    registry.write_text(text.replace(LAST, LAST + '    "boxmean",\n'))
    written = write_files("a-method.md", root)
    assert len(written) == 5
    (root / "models" / "methods" / "boxmean" / "__init__.py").touch()
    return root


def run(root: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_planned_and_every_value_knows_where_it_comes_from(copy):
    (plan,) = [words for words in commands("a-method.md") if words[0] == "plan"]
    said = run(copy, "run.py", *plan)
    assert "λ = 1: boxmean" in said and "boxmean.lambda_mean" in said and "boxmean.yaml" in said


def test_its_numbers_are_the_equations(copy):
    assert "1 passed" in run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/models/methods/test_boxmean.py")


@pytest.mark.rehearsal
def test_it_is_trained_evaluated_and_reported(copy, tmp_path):
    (words,) = [words for words in commands("a-method.md") if words[0] != "plan"]
    run(copy, "run.py", *words, "--results", str(tmp_path / "results"), "--reports", str(tmp_path / "reports"))
    (report,) = (tmp_path / "reports").rglob("tableboxmean.md")
    row = next(line for line in report.read_text(encoding="utf-8").splitlines() if line.startswith("| λ = 1 |"))
    assert "failed" not in row and "not run" not in row
