"""The ratios against the plain ways of answering and training: that they can be measured. What they come to is for the page."""

from __future__ import annotations

from benchmarks import ratios


def test_both_ways_answer_and_train_the_same(capsys, monkeypatch):
    monkeypatch.setattr(ratios, "ROUNDS", 1)
    monkeypatch.setattr(ratios, "NEW_TOKENS", 8)
    assert ratios.main(["--questions", "8", "--samples", "6"]) == 0  # raises where answers or samples differ
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    measured = [row for row in rows if "against" in row[0]]
    assert len(measured) == 6, "each of three as it is measured and again on the page"
    assert all(float(row[1].split()[0]) > 0 for row in measured)
