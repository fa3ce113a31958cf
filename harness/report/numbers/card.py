"""The causal card's numbers: every intervention against its control on the same questions, by the tests that rows are compared by.

The questions of a card are of one trained model (the first seed), so its intervals are about that model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.plan.plan import CARD
from harness.report.numbers.results import Results
from harness.stats import Answers, Comparison, Estimate, Interval, compare, estimate, holm
from harness.stats.intervals import normal_quantile

REPLACED = ("zeroed", "noise", "another", "oracle", "markers", "none")
"""Modes that are held against own latents, on the same questions."""
PROBES = ("answer", "option", "place")


@dataclass(frozen=True)
class Effect:
    """value against control on the same questions; difference = value - control. share: whether these are shares of questions.
    nats: the same difference in mean log-likelihood of the letter in question, where it is known."""

    value: Estimate
    control: Estimate
    difference: Comparison
    share: bool = True
    nats: Comparison | None = None


@dataclass(frozen=True)
class Card:
    """One card.json. name: what was asked."""

    name: str
    found: Mapping[str, Any]

    @classmethod
    def read(cls, out: Path, name: str) -> Card:
        return cls(name, json.loads((out / "card.json").read_text(encoding="utf-8")))

    @property
    def questions(self) -> Sequence[Mapping[str, Any]]:
        return self.found["questions"]

    @cached_property
    def tests(self) -> dict[str, Effect]:
        """Name -> test. Replaced modes by their own names: mode against own. twin, twin hidden: the twin's right letter, fed the
        twin's latents against fed another question's; hidden: the picture masked before the answer. hidden: own latents against another's, the picture masked before the answer.
        evidence: how far latents move when the evidence is painted over, against a region elsewhere. Probes: "probe answer"…"""
        found: dict[str, Effect | None] = {mode: self._modes(mode, "own") for mode in REPLACED}
        found["hidden"] = self._modes("hidden", "hidden_another")
        found["evidence"] = self._movement()
        found["twin"], found["twin hidden"] = self._twin("twin", "another"), self._twin("hidden_twin", "hidden_another")
        found |= {f"probe {name}": self._probe(name) for name in PROBES}
        return {name: test for name, test in found.items() if test is not None}

    @cached_property
    def adjusted(self) -> dict[str, float]:
        """p after Holm over all tests of this card."""
        return dict(zip(self.tests, holm([test.difference.p for test in self.tests.values()]), strict=True))

    @property
    def own(self) -> Estimate:
        return estimate(self._answers([row for row in self.questions], lambda row: row["modes"]["own"]["correct"]))

    @property
    def twins(self) -> int:
        return sum(row["twin_target"] is not None for row in self.questions)

    def _answers(self, rows: Sequence[Mapping[str, Any]], value: Any) -> Answers:
        return Answers.of(((row["task"], row["doc_id"]), row["cluster"], float(value(row))) for row in rows)

    def _test(self, rows: Sequence[Mapping[str, Any]], value: Any, control: Any, share: bool = True) -> Effect | None:
        if len({row["cluster"] for row in rows}) < 2:
            return None
        a, b = self._answers(rows, value), self._answers(rows, control)
        return Effect(estimate(a, share=share), estimate(b, share=share), compare(a, b, share=share), share)

    def _modes(self, mode: str, control: str) -> Effect | None:
        rows = [row for row in self.questions if mode in row["modes"] and control in row["modes"]]
        test = self._test(rows, lambda row: row["modes"][mode]["correct"], lambda row: row["modes"][control]["correct"])
        return self._with_nats(test, rows, mode, control, "loglik")

    def _twin(self, mode: str, control: str) -> Effect | None:
        rows = [row for row in self.questions if row["twin_target"] is not None and mode in row["modes"]]

        def follows(mode: str) -> Any:
            return lambda row: row["modes"][mode]["letter"] == row["twin_target"]

        return self._with_nats(self._test(rows, follows(mode), follows(control)), rows, mode, control, "loglik_twin")

    def _with_nats(self, test: Effect | None, rows: Sequence[Mapping[str, Any]], mode: str, control: str, name: str) -> Effect | None:
        known = [row for row in rows if all(row["modes"][one].get(name) is not None for one in (mode, control))]
        if test is None or len(known) < len(rows):
            return test
        a, b = (self._answers(rows, lambda row, one=one: row["modes"][one][name]) for one in (mode, control))
        return Effect(test.value, test.control, test.difference, test.share, compare(a, b, share=False))

    def _movement(self) -> Effect | None:
        rows = [row for row in self.questions if {"evidence", "elsewhere"} <= row["moved"].keys()]
        return self._test(rows, lambda row: row["moved"]["evidence"], lambda row: row["moved"]["elsewhere"], share=False)

    def _probe(self, name: str) -> Effect | None:
        """Mean over the latents of held-out hits; the best of several would be chosen by its result."""
        probe = self.found["probes"].get(name)
        if probe is None:
            return None
        hits = {at: sum(step[place] for step in probe["hits"]) / len(probe["hits"]) for place, at in enumerate(probe["kept"])}
        chance = {at: probe["chance"][0][place] for place, at in enumerate(probe["kept"])}
        rows = [dict(self.questions[at]) | {"at": at} for at in probe["kept"]]
        return self._test(rows, lambda row: hits[row["at"]], lambda row: chance[row["at"]])

    def by_step(self, name: str) -> list[float]:
        """A probe's held-out accuracy, latent by latent."""
        return [sum(step) / len(step) for step in self.found["probes"][name]["hits"]]

    @property
    def cosine(self) -> Estimate:
        """Mean over all pairs of questions. Each question stands in a pair's cosine as first and as second, so that it moves the
        mean by twice what its own row says (Hoeffding's projection of a statistic of pairs)."""
        each = self.found["alike"]["cosine"]
        mean = sum(each) / len(each)
        rows = zip(self.questions, each, strict=True)
        return estimate(Answers.of(((row["task"], row["doc_id"]), row["cluster"], 2 * value - mean) for row, value in rows), share=False)

    @property
    def rank(self) -> tuple[float, Interval | None, int]:
        """(effective rank, its 95 % interval by the jackknife, the largest that is possible)."""
        alike = self.found["alike"]
        value, half = alike["effective_rank"], normal_quantile(0.95) * alike["effective_rank_se"]
        return value, Interval(value - half, value + half) if math.isfinite(half) else None, alike["most"]


def cards(results: Results) -> dict[tuple[str, str], Card | str]:
    """(row, what was asked) -> card, or why there is none."""
    found: dict[tuple[str, str], Card | str] = {}
    for label, arm in results.arms.items():
        for name, evaluations in arm.evaluations.items():
            if name.startswith(CARD):
                job = evaluations[0].job
                asked = name.removeprefix(CARD)
                done = results.store.is_done(job)
                found[label, asked] = Card.read(results.store.outputs(job), asked) if done else f"{job.name} is {results.store.status(job).state}"
    return found
