"""The shipped base has what its card says: measured again, some minutes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.proxy import measure, readable, release

BASE = Path(measure.__file__).parent / "base"


def card() -> str:
    return (BASE / "README.md").read_text()


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (BASE / name).read_text().splitlines()]


def test_the_card_is_what_the_stored_numbers_give(tmp_path):
    for file in BASE.iterdir():
        if file.name != "README.md":
            (tmp_path / file.name).symlink_to(file)
    release.write_card(tmp_path)
    assert (tmp_path / "README.md").read_text() == card()


def test_the_base_and_its_card_stay_small():
    assert sum(file.stat().st_size for file in BASE.iterdir()) <= 15e6


@pytest.mark.slow
def test_room_is_what_the_card_says():
    model, tokens = measure.load(BASE)
    stored = {(r["benchmark"], r["split"]): r for r in lines("measured.jsonl")}
    found = [measure.measure(model, tokens, name, "dev", release.MEASURE_SEED) for name in release.COLUMNS]
    for row in found:
        assert row["accuracy"] == pytest.approx(stored[row["benchmark"], "dev"]["accuracy"], abs=1.0)
    (_, room), (_, said) = (release.measured_properties(rows, lines("readable.jsonl")) for rows in (found, lines("measured.jsonl")))
    assert room["holds"] == said["holds"]


@pytest.mark.slow
def test_slots_are_as_readable_as_the_card_says():
    model, tokens = measure.load(BASE)
    found = readable.table(model, tokens, clean=True)
    stored = [r for r in lines("readable.jsonl") if r["world"] == "clean"]
    for row, before in zip(found, stored, strict=True):
        for mode in readable.MODES:
            assert row[mode] == pytest.approx(before[mode], abs=2.0), (row["kind"], mode)
    assert release.measured_properties([], found)[0]["holds"] == release.measured_properties([], stored)[0]["holds"]
