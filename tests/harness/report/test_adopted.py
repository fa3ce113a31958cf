"""Cells whose checkpoint was adopted say so, wherever they are shown."""

from __future__ import annotations

from harness.report import render
from harness.store import Store
from tests.harness.report.world import fill, make_plan

FACTS = {"from": "https://example.org/stage1", "by": "ada@desk", "note": "the authors' own", "sha256": 64 * "a"}


def test_rows_whose_checkpoint_was_adopted_carry_a_footnote_and_a_note(tmp_path):
    plan, store = make_plan(tmp_path, n=24), Store(tmp_path / "results")
    store.ensure_all(plan.graph)
    job = plan.checkpoints["Stage 1 Only"][0]
    attempt = store.begin_attempt(job)
    (attempt.out / "model.safetensors").write_bytes(b"weights")  # no diagnostics.json: nothing was probed
    assert store.publish(attempt, seconds=0.0, adopted=FACTS)
    fill(store, plan, n=24)
    render(plan, store, tmp_path / "reports")
    text = (tmp_path / "reports" / "table3c.md").read_text()
    said = f"adopted, not trained here: stage1 ({job.key12}) is the checkpoint https://example.org/stage1, sha256 aaaaaaaaaaaa, registered by ada@desk: the authors' own."
    (note,) = [line for line in text.splitlines() if line.endswith(said) and line.startswith("- ") and ": adopted" in line]
    sign = note[2]
    rows = [line for line in text.splitlines() if line.startswith("| ") and f"{sign}" in line.split("|")[1].split()[-1]]
    labels = " ".join(line.split("|")[1] for line in rows)
    assert "Stage 1 Only" in labels and "Two-stage" in labels  # its second stage starts from the adopted one
    assert "Joint" not in labels and "Stage 2 Only" not in labels
    page = (tmp_path / "reports" / "table3c.html").read_text().replace("&#39;", "'")
    assert page.count(said.removesuffix(".")) > 3, "the cells' own notes say it too"
