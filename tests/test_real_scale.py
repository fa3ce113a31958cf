"""What the counted benchmark says of this project's micro-batches stays true."""

from __future__ import annotations

import pytest

from benchmarks import real_answers, real_scale


def test_the_committed_page_is_what_the_command_writes(capsys):
    assert real_scale.main([]) == 0
    assert real_scale.FILE.read_text(encoding="utf-8") == capsys.readouterr().out[:-1]


@pytest.mark.parametrize(("share", "cost"), [("tokens", real_scale.packed), ("padded", real_scale.padded)])
def test_padding_and_waiting_cost_at_most_a_tenth(share, cost):
    lengths = real_scale.lengths_of(20_000, seed=5)
    lockstep, alone, _ = real_scale.waste(real_scale.Way("", real_scale.ours(lengths, share), cost))
    assert 1 <= alone <= lockstep <= 1.10


def test_a_refilled_batch_has_no_idle_rows_and_a_budget_saves_forwards():
    rows = [(100, 10), (100, 2), (100, 10), (1000, 4), (1000, 4)]
    now = real_answers.batched(rows, real_answers.fixed(2))
    full = real_answers.refilled(rows, real_answers.fixed(2))
    wide = real_answers.batched(rows, real_answers.budget(2 * (1000 + real_answers.MOST_NEW)))
    assert (now.forwards, now.rows) == (9 + 9 + 3, 1 * 2 + 8 * 1 + 2 * 3 + 6 * 1 + 3 * 1)
    assert full.rows == full.used == now.used == wide.used == sum(answer - 1 for _, answer in rows)
    assert full.forwards < now.forwards
    assert wide.forwards == 9 + 3, "three short prompts with 512 new tokens take no more than two long ones"
