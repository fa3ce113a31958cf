"""Whose trainings say how far seeds lie apart: the store's, or the table's own where it says so."""

from __future__ import annotations

import pytest

from harness.plan.registration import changes, content_of
from harness.report.numbers.fingerprint import fingerprint
from harness.report.numbers.study import study_of
from harness.report.sections.build import build
from harness.store import Store
from harness.store import store as store_module
from tests.harness.report.world import REPOSITORY, fill, make_plan

ASKED = {"n": 60, "seeds": 2, "columns": ["mmvp"], "protocols": ["paper"], "latents": ["own"]}


@pytest.fixture(autouse=True)
def quick_disks(monkeypatch):
    monkeypatch.setattr(store_module.files, "sync_file_system", lambda path: None)


@pytest.fixture
def own(tmp_path):
    """Table 3(c) with seed noise of its own."""
    text = (REPOSITORY / "experiments" / "table3c.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace("\nrecipe:", "\nnoise_from: table\nrecipe:", 1))
    return make_plan(tmp_path, table=str(tmp_path / "own"), **ASKED)


def drawn(plan, root):
    """(every cell's interval, the report's fingerprint)"""
    study, store = study_of(plan), Store(root)
    cells = build(study, store, root.parent).data["cells"]
    return [(cell["row"], cell["low"], cell["high"]) for cell in cells], fingerprint(study, store)


def test_a_tables_own_seed_noise_does_not_depend_on_what_else_the_store_holds(own, tmp_path):
    root, pooled = tmp_path / "results", make_plan(tmp_path, **ASKED)
    fill(Store(root), pooled, n=60)
    before, pooled_before = drawn(own, root), drawn(pooled, root)
    assert before[0] == pooled_before[0], "in a store that holds nothing else the two are the same"
    fill(Store(root), make_plan(tmp_path, table="table3b", **ASKED), n=60)
    assert drawn(own, root) == before
    after = drawn(pooled, root)
    assert after[0] != pooled_before[0] and after[1] != pooled_before[1]


def test_whose_seed_noise_a_table_takes_is_registered(own, tmp_path):
    pooled = content_of(make_plan(tmp_path, **ASKED))
    assert "noise_from" not in pooled
    assert list(changes(pooled, content_of(own))) == ["seed noise from the table's trainings, not the store's"]
