"""What the counted benchmark says of this project's micro-batches stays true."""

from __future__ import annotations

import pytest

from benchmarks import real_scale


def test_the_committed_page_is_what_the_command_writes(capsys):
    assert real_scale.main([]) == 0
    assert real_scale.FILE.read_text(encoding="utf-8") == capsys.readouterr().out[:-1]


@pytest.mark.parametrize(("share", "cost"), [("tokens", real_scale.packed), ("padded", real_scale.padded)])
def test_padding_and_waiting_cost_at_most_a_tenth(share, cost):
    lengths = real_scale.lengths_of(20_000, seed=5)
    lockstep, alone, _ = real_scale.waste(real_scale.Way("", real_scale.ours(lengths, share), cost))
    assert 1 <= alone <= lockstep <= 1.10
