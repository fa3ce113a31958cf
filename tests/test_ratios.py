"""The ratios against the plain ways of answering and training: that they can be measured. What they come to is for the page."""

from __future__ import annotations

import pytest
import torch

from benchmarks import ratios, ratios_answers, ratios_training, real_costs, real_scale


def test_both_ways_answer_and_train_the_same(capsys, monkeypatch):
    monkeypatch.setattr(ratios_answers, "NEW_TOKENS", 3)
    monkeypatch.setattr(ratios_training, "SHORTER", 32)
    for name in ("RANKS", "ACCUMULATION"):
        monkeypatch.setattr(real_scale, name, 2)
    monkeypatch.setattr(ratios, "STEPS", 1)
    assert ratios.main(["--questions", "8", "--samples", "6", "--rounds", "1"]) == 0  # raises where answers or samples differ
    found = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    measured = [row for row in found if " a second, " in row[0] or " a second of " in row[0]]
    assert len(measured) == 2 * 8, "each row as it is measured and again on the page"
    assert all(float(row[1]) > 0 for row in measured)
    goals = [row[3].removesuffix(" (**not reached**)") for row in measured[:8]]
    assert goals == ["≥ 8", "≥ 8", "≥ 8", "–", "–", "≥ 2", "≥ 2", "–"]


def test_a_ratio_below_its_goal_says_so():
    assert "| 7.9 | 9.0, 7.9, 7.0 | ≥ 8 (**not reached**) |" in str(ratios.Row("", [9.0, 7.9, 7.0], 8, ""))
    assert "| 8.0 | 8.0 | ≥ 8 |" in str(ratios.Row("", [8.0], 8, ""))


@pytest.mark.parametrize("packing", ["padded", "packed"])
def test_the_releases_way_computes_the_same_loss_and_gradient(tmp_path, packing, monkeypatch):
    monkeypatch.setattr(ratios_training, "SHORTER", 32)
    both = ratios_training.Both(tmp_path)
    (batch,), _ = both.batches([[1200, 2400, 3600]], packing)
    found = []
    for loss in (both.own_loss, both.release_loss):
        value = loss(batch)
        value.backward()
        found.append((value.detach(), {name: p.grad.clone() for name, p in both.model.named_parameters() if p.grad is not None}))
        both.model.zero_grad()
    torch.testing.assert_close(found[0][0], found[1][0])
    head = [gradients["lm_head.weight"] for _, gradients in found]
    torch.testing.assert_close(*head, rtol=1e-4, atol=1e-6)


def test_a_step_takes_as_long_as_the_slowest_rank_at_each_micro_batch(tmp_path, monkeypatch):
    both = ratios_training.Both(tmp_path)
    times = iter([[1.0, 5.0], [3.0, 2.0]])
    monkeypatch.setattr(both, "seconds", lambda some, loss: next(times))
    monkeypatch.setattr(both, "optimiser_seconds", lambda: 0.5)
    ranks = [[[400], [400, 800]], [[400], [400]]]
    seconds, tokens, padded = both.step(ranks, "padded", both.own_loss)
    assert seconds == 3 + 5 + 0.5 / 2
    assert 0 < tokens < padded


def test_the_count_has_logits_of_every_token_for_the_release_and_of_the_supervised_here():
    logits = real_costs.HEAD
    layers = real_scale.packed([1000, 500]) - 1500 * logits
    assert real_scale.few_logits(16)([1000, 500]) == pytest.approx(layers + 2 * 16 * logits)
    assert real_scale.few_logits(1000)([1000]) == pytest.approx(real_scale.padded([1000]))
