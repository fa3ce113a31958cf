"""The count of decoded pictures: that it can be made. What it comes to at 8K is for the page."""

from __future__ import annotations

from benchmarks import pictures
from models.evaluation import mirror


def test_a_small_picture_is_counted_as_a_large_one_is(capsys, monkeypatch):
    monkeypatch.setattr(pictures, "WIDTH", 448)
    monkeypatch.setattr(pictures, "HEIGHT", 252)
    monkeypatch.setattr(pictures, "CASES", [pictures.Case("alone"), pictures.Case("two ranks", ranks=2)])
    monkeypatch.setattr(mirror, "_DECODED_BYTES", mirror._DECODED_BYTES)
    assert pictures.main([]) == 0  # raises where the two ways leave different samples
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert [row[2:4] for row in rows] == [["8 → 2", "8 → 2"], ["10 → 4", "8 → 2"], ["8 → 2", "0 → 0"]]
