"""What the counted benchmark says of this project's micro-batches stays true."""

from __future__ import annotations

import pytest

from benchmarks import real_answers, real_scale


def test_the_committed_page_is_what_the_command_writes(capsys):
    assert real_scale.main([]) == 0
    page, printed = real_scale.FILE.read_text(encoding="utf-8"), capsys.readouterr().out
    assert printed.startswith(page)
    for name in real_scale.MEASURED.values():
        assert f"(`python -m benchmarks.{name}`)\n\n| " in printed.removeprefix(page)


@pytest.mark.parametrize(("share", "cost"), [("tokens", real_scale.packed), ("padded", real_scale.padded)])
def test_padding_and_waiting_cost_at_most_a_tenth(share, cost):
    lengths = real_scale.lengths_of(20_000, seed=5)
    lockstep, alone, _ = real_scale.waste(real_scale.Way("", real_scale.ours(lengths, share), cost))
    assert 1 <= alone <= lockstep <= 1.10


def test_a_refilled_batch_has_no_idle_rows_and_a_budget_saves_forwards():
    rows = [(100, 10), (100, 2), (100, 10), (1000, 4), (1000, 4)]
    now = real_answers.counted(rows, 2, by_rows=True, refilled=False)
    full = real_answers.counted(rows, 2, by_rows=True)
    wide = real_answers.counted(rows, 2, refilled=False)
    assert (now.forwards, now.carried) == (9 + 9 + 3, 1 * 2 + 8 * 1 + 2 * 3 + 6 * 1 + 3 * 1)
    assert full.used == now.used == wide.used == sum(answer - 1 for _, answer in rows)
    assert full.forwards < now.forwards
    assert wide.forwards == 9 + 3, "three short prompts with 512 new tokens take no more than two long ones"
    assert real_answers.counted(rows, 2, 1e6).forwards == 9, "all at once"
    assert now.prompts == [2300, 2300] and now.with_prompts > now.seconds
