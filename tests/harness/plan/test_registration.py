"""What a table was to be before its results were there, and what a report says of changes."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest

from harness.plan.registration import FOLDER, content_of, name_of, register, registrations, standing
from harness.store import Store
from harness.store import store as store_module
from harness.store.files import StoreError
from tests.harness.report.world import fill, make_plan


@pytest.fixture(autouse=True)
def quick_disks(monkeypatch):
    monkeypatch.setattr(store_module.files, "sync_file_system", lambda path: None)


def plan_of(folder, **choice):
    return make_plan(folder, n=20, **{"columns": ["mmvp"], "protocols": ["paper"], "latents": ["own"], **choice})


def said(plan, store) -> str:
    return standing(store, name_of(plan), content_of(plan)).text


def commit() -> str:
    return "d9f20cf"


def test_a_run_is_registered_before_its_results_and_stays_as_registered(tmp_path):
    plan, store = plan_of(tmp_path, seeds=2), Store(tmp_path / "results")
    assert said(plan, store) == "not registered"
    first = register(plan, store, commit)
    fill(store, plan, n=20)
    assert register(plan, store, commit) == first, "the same plan writes nothing more"
    assert said(plan, store) == "as registered"
    record = json.loads((store.root / FOLDER / name_of(plan) / "0.json").read_text())
    assert record["content"]["seeds"] == [0, 1] and record["commit"] == "d9f20cf" and record["results_there"] == 0
    assert "against" in record["content"]["comparisons"][0] and record["content"]["claims"][0]["form"] == "best"


def test_seeds_that_are_added_after_results_were_there_are_named(tmp_path):
    store, few = Store(tmp_path / "results"), plan_of(tmp_path, seeds=1)
    register(few, store, commit)
    fill(store, few, n=20)
    more = plan_of(tmp_path, seeds=3)
    register(more, store, commit)
    assert said(more, store) == "registered; changed after results were there: seeds added: 1, 2"
    assert said(few, store) == "as registered"


def test_what_is_changed_before_any_result_is_what_counts(tmp_path):
    store = Store(tmp_path / "results")
    register(plan_of(tmp_path, seeds=1), store, commit)
    more = plan_of(tmp_path, seeds=3)
    register(more, store, commit)
    fill(store, more, n=20)
    assert said(more, store) == "as registered"


def changed_spec(plan, **fields):
    value = plan.experiment.value.model_copy(update=fields)
    return replace(plan, experiment=replace(plan.experiment, value=value))


def test_other_comparisons_claims_margins_and_options_are_named_and_new_keys_hide_nothing(tmp_path):
    plan, store = plan_of(tmp_path), Store(tmp_path / "results")
    register(plan, store, commit)
    fill(store, plan, n=20)
    other = changed_spec(plan, claims=plan.experiment.value.claims[1:], full="Joint Train", equivalence=3.0)
    register(other, store, commit)
    text = said(other, store)
    assert "comparisons changed; claims changed; equivalence changed from 2 to 3 points" in text
    renamed = {**content_of(plan), "cells": {"Joint Train / mmvp": {"0": "f" * 64}}}
    assert "options of rows changed: Joint Train" in standing(store, name_of(plan), renamed).text
    assert registrations(store.root / FOLDER / name_of(plan))[1].there == 4, "results of the first count, though it is another plan"


def test_a_table_whose_results_other_tables_made_says_so(tmp_path):
    plan, store = plan_of(tmp_path), Store(tmp_path / "results")
    fill(store, plan, n=20)
    register(plan, store, commit)
    assert said(plan, store) == "registered when 4 of 4 results were there"


def test_parts_of_a_table_and_overridden_ones_are_runs_of_their_own(tmp_path):
    whole = plan_of(tmp_path)
    part, same, other = (plan_of(tmp_path, rows=rows) for rows in (["Joint"], ["Joint"], ["Stage 2"]))
    changed = plan_of(tmp_path, overrides=["stage1.p=0.3"])
    assert name_of(part) == name_of(same)
    assert len({name_of(plan) for plan in (whole, part, other, changed)}) == 4


def test_of_drivers_that_start_at_once_one_registers_and_all_read_the_same(tmp_path):
    plans = [plan_of(tmp_path, seeds=1 + (i % 2)) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda plan: register(plan, Store(tmp_path / "results"), commit), plans))
    known = registrations(tmp_path / "results" / FOLDER / name_of(plans[0]))
    assert {one.number for one in found} <= {one.number for one in known}
    for plan, one in zip(plans, found):
        assert list(one.content["seeds"]) == list(plan.seeds)
    assert all(a.content != b.content for a, b in pairwise(known)), "no registration is written twice in a row"


def test_a_copied_store_keeps_its_registrations(tmp_path):
    plan, store = plan_of(tmp_path), Store(tmp_path / "results")
    register(plan, store, commit)
    fill(store, plan, n=20)
    shutil.copytree(store.root, tmp_path / "elsewhere", symlinks=True)
    assert said(plan, Store(tmp_path / "elsewhere")) == "as registered"
    assert str(tmp_path) not in (store.root / FOLDER / name_of(plan) / "0.json").read_text()


def test_a_registration_that_was_changed_by_hand_is_refused(tmp_path):
    plan, store = plan_of(tmp_path), Store(tmp_path / "results")
    register(plan, store, commit)
    path = store.root / FOLDER / name_of(plan) / "0.json"
    path.write_text(path.read_text().replace('"seeds": [\n   0\n', '"seeds": [\n   0,\n   1\n'))
    with pytest.raises(StoreError, match="changed by hand"):
        said(plan, store)
