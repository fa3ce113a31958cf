"""The table of what the latents hold, and shares of answers where some questions were never asked."""

import json
from types import SimpleNamespace

from harness.report.numbers.measure import Measured, read_rows
from harness.report.sections import mechanism


def results(**rows):
    """Rows by label, each (its stages, numbers of its probe)."""
    arms = {label: SimpleNamespace(row=SimpleNamespace(stages=stages)) for label, (stages, _) in rows.items()}
    return SimpleNamespace(arms=arms, study=SimpleNamespace(profile=SimpleNamespace(proxy=True)))


def test_numbers_that_two_stages_name_alike_stand_under_what_each_row_compares(monkeypatch):
    rows = {"pictures": (["reflect"], {"vr": 0.25, "vr_first": 0.5}), "clips": (["reflect", "reflect_video"], {"vr": 0.75})}
    monkeypatch.setattr(mechanism, "probes", lambda _: {label: [numbers] for label, (_, numbers) in rows.items()})
    table = mechanism.probe_table(results(**rows))
    crop, clues = "1 − cosine of H with the crop", "1 − cosine of H with the clue frames"
    assert [(column.title, column.group) for column in table.columns] == [("all slots", crop), ("first slot", crop), ("all slots", clues)]
    assert [[cell.display for cell in row.cells] for row in table.rows] == [["0.250", "0.500", "–"], ["–", "–", "0.750"]]
    assert [note.partition(":")[0] for note in table.notes] == ["The crop", "The clue frames"], "no word on what is not shown"


def test_shares_are_of_answers_and_what_is_unreadable_of_what_counts(tmp_path):
    row = {"task": "t", "cluster": "c", "latent_started": True, "truncated": False, "latent_steps": 4, "prediction": "A", "correct": True}
    lost = {"latent_started": False, "latent_steps": 0, "rejected": "it is not there"}
    rows = [row, row | {"prediction": None, "correct": False}, row | lost | {"correct": None}, row | lost | {"prediction": None, "correct": False}]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(one | {"doc_id": k}) + "\n" for k, one in enumerate(rows)))
    score = SimpleNamespace(where={}, keeps=lambda sample: True)
    of = SimpleNamespace(frame=read_rows(tmp_path / "samples.jsonl"), evaluation=SimpleNamespace(job=SimpleNamespace(key12="0")))
    rates = Measured.rates(of, score)
    assert (rates.started, rates.truncated, rates.unparsed, rates.latent_steps, rates.rejected) == (1, 0, 2 / 3, 4, 0.5)
