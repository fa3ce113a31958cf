"""The commit that is recorded is this checkout's own, or none."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from harness.worker import provenance
from harness.worker.provenance import code

ROOT = Path(__file__).parents[3]
ASK = code.__wrapped__


def git(folder: Path, *words: str) -> str:
    named = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", *named, *words], cwd=folder, check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of a small program of the same layout."""
    root = tmp_path / "checkout"
    (root / "models").mkdir(parents=True)
    (root / "models" / "a.py").write_text("A = 1\n")
    (root / "run.py").write_text("")
    git(root, "init", "-q", ".")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def test_a_clean_checkout_is_its_commit(checkout):
    assert ASK(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": ""}


def test_an_archive_inside_another_repository_has_no_commit(checkout):
    inside = checkout / "vendor" / "vr"
    shutil.copytree(checkout / "models", inside / "models")
    assert ASK(inside) == {"commit": "", "dirty": ""}


def test_variables_that_name_another_repository_mean_nothing(checkout, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q", ".")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert ASK(checkout)["commit"] == git(checkout, "rev-parse", "HEAD")


def test_a_module_that_git_does_not_know_is_a_change_with_its_content(checkout):
    (checkout / "models" / "new.py").write_text("X = 1\n")
    first = ASK(checkout)["dirty"]
    (checkout / "models" / "new.py").write_text("X = 2\n")
    second = ASK(checkout)["dirty"]
    assert first and second and first != second
    (checkout / "models" / "new.py").unlink()
    (checkout / "notes.txt").write_text("not code\n")
    assert ASK(checkout)["dirty"] == ""


def test_a_changed_line_is_a_change(checkout):
    (checkout / "models" / "a.py").write_text("A = 2\n")
    assert ASK(checkout)["dirty"]


def test_every_package_is_recorded_as_importlib_knows_it():
    expected: dict[str, str] = {}
    for found in metadata.distributions():
        expected.setdefault(found.metadata["Name"].lower(), found.version)
    assert provenance._installed() == expected and len(expected) > 50
    provenance.versions.cache_clear()
    assert provenance.versions()["torch"] == expected["torch"]


def test_of_two_packages_of_one_name_the_one_that_is_imported_is_recorded(tmp_path, monkeypatch):
    for place, version in (("first", "2.0"), ("second", "1.0")):
        package = tmp_path / place / f"Thing-{version}.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Thing\nVersion: {version}\n\nName: no field, but its description\n")
    (tmp_path / "second" / "half-1.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "none"), str(tmp_path / "first"), str(tmp_path / "second")])
    assert provenance._installed() == {"thing": "2.0"}
