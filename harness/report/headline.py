"""What a reader must know first: whether the benchmarks can tell arms apart, which arms differ, whether latents matter."""

from __future__ import annotations

import statistics

from harness.report.mechanism import latent_modes, latent_tests, probes
from harness.report.results import Results
from harness.report.tables import base_row, claims, pairs
from harness.report.words import count, difference, interval, listed, percent, signed
from harness.verdict import Holds
from harness.verdict.claims import LEVEL, describe

ABOVE_CHANCE, CEILING = 10.0, 90.0
"""Points between guessing and the base model's lower bound; its upper bound. Outside, a benchmark separates nothing."""
COLLAPSED = 0.95
"""Mean cosine between different boxes' Z_T from which they count as one vector; a constant gives 1."""


def headline(results: Results) -> list[str]:
    """Sentences, most important first."""
    lines = [base_line(results), *difference_lines(results), latent_line(results), collapse_line(results), claim_line(results), trouble_line(results)]
    return [line for line in lines if line]


def base_line(results: Results) -> str:
    """Whether the base model lies between chance and ceiling on every column; the first line says where not."""
    label = base_row(results)
    if label is None:
        return (
            "The base model was not evaluated, so whether the benchmarks leave room (lower bound at least guessing + 10, "
            "upper at most 90) is unknown."
        ) if results.study.profile.proxy else ""
    problems, known, missing = [], [], []
    for name in results.columns:
        value = results.estimate(label, name)
        if value is None:
            missing.append(results.title(name))
            continue
        chance = results.score(name).chance
        bounds = value.interval  # the table's own, which knows that questions share images
        shown = f"{results.title(name)} {percent(value.mean)} {interval(bounds)}"
        if 100 * bounds.low < chance + ABOVE_CHANCE:
            problems.append(f"{shown} is not {ABOVE_CHANCE:g} points above guessing ({chance:.1f})")
        elif 100 * bounds.high > CEILING:
            problems.append(f"{shown} reaches above {CEILING:g}")
        else:
            known.append(shown)
    lines = []
    if problems:
        lines.append("Read with care: the base model's " + "; ".join(problems) + ".")
    if missing:
        lines.append(f"The base model has no result on {listed(missing)}.")
    if known:
        rest = "On the others it" if problems else "The base model"
        lines.append(f"{rest} lies at least 10 points above guessing and below 90: {', '.join(known)}.")
    return " ".join(lines)


def difference_lines(results: Results) -> list[str]:
    """Which rows differ by more than chance explains, and which do not."""
    tested = pairs(results)
    if not tested:
        return ["No two rows have results yet, so nothing can be compared."]
    decided = {key: value for key, value in tested.items() if value[1] <= LEVEL}
    lines = []
    for name in results.columns:
        mine = [(first, second, c) for (first, second, column), (c, _) in tested.items() if column == name]
        shown = [(f, s, c) for (f, s, column), (c, _) in decided.items() if column == name]
        if not mine:
            continue
        if not shown:
            widest = max((c.interval.half_width for _, _, c in mine), default=0)
            none = f"none of the {len(mine)} pairs of rows differs" if len(mine) > 1 else "the two rows do not differ measurably"
            lines.append(
                f"{results.title(name)}: {none} (largest difference "
                f"{signed(max((c.difference for _, _, c in mine), key=abs))}, intervals up to ±{percent(widest)})."
            )
            continue
        shown = [(f, s, c) if c.difference > 0 else (s, f, c) for f, s, c in shown]
        best = sorted(shown, key=lambda item: -abs(item[2].difference))
        words = [f"{f} above {s} by {percent(abs(c.difference))}" for f, s, c in best[:3]]
        more = f" and {len(best) - 3} more" if len(best) > 3 else ""
        rest = len(mine) - len(shown)
        lines.append(
            f"{results.title(name)}: {', '.join(words)}{more}"
            + (f"; the other {count(rest, 'pair')} cannot be told apart." if rest else ".")
        )
    seeds = {min(c.seeds) for c, _ in tested.values()}
    if seeds == {1}:
        lines.append(
            "One seed only: these are differences between trained models; whether they belong to the recipes needs more seeds."
        )
    return lines


def latent_line(results: Results) -> str:
    """Whether answers depend on the latents at all."""
    if not latent_modes(results):
        return ""
    tested = latent_tests(results)
    if not tested:
        return ""
    parts = []
    for mode, word in (("zeroed", "zeroing"), ("shuffled", "shuffling")):
        mine = {key: value for key, value in tested.items() if key[2] == mode}
        if not mine:
            continue
        moved = [(row, column, c) for (row, column, _), (c, p) in mine.items() if p <= LEVEL]
        if not moved:
            parts.append(f"{word} the latents changes no arm's accuracy measurably")
        else:
            arms = listed(list(dict.fromkeys(row for row, _, _ in moved)))
            most = max(moved, key=lambda item: abs(item[2].difference))
            parts.append(
                f"{word} the latents changes {arms} (most: {most[0]} on {results.title(most[1])}, {difference(most[2])})"
            )
    oracle = [(row, column, c) for (row, column, mode), (c, p) in tested.items() if mode == "oracle" and p <= LEVEL]
    if gains := [item for item in oracle if item[2].difference > 0]:
        most = max(gains, key=lambda item: item[2].difference)
        parts.append(
            f"oracle latents help {listed(list(dict.fromkeys(row for row, _, _ in gains)))} "
            f"(most: {most[0]} on {results.title(most[1])}, {difference(most[2])})"
        )
    started = []
    for row, arm in results.arms.items():
        if arm.row.stages and any(stage != "sft" for stage in arm.row.stages):
            for column in results.columns:
                if results.estimate(row, column) is not None:
                    rate = results.found(row, column).rates.started
                    if rate is not None and rate < 0.5:
                        started.append(f"{row} on {results.title(column)} ({100 * rate:.0f} %)")
    if started:
        parts.append(f"most answers open no latent segment: {listed(started)}")
    text = "; ".join(parts)
    return f"Mechanism: {text}." if text else ""


def collapse_line(results: Results) -> str:
    """Whether the teacher's latents of different boxes have become one vector, row by row."""
    found: dict[str, tuple[float, float]] = {}
    for row, numbers in probes(results).items():
        seeds = [(one["teacher_fed.z_t_cosine"], one["teacher_fed.z_t_std"]) for one in numbers if "teacher_fed.z_t_cosine" in one]
        if seeds:
            cosine, deviation = (statistics.fmean(values) for values in zip(*seeds, strict=True))
            found[row] = cosine, deviation
    if not found:
        return ""
    said = {row: f"{row} ({cosine:.3f}, {deviation:.3f})" for row, (cosine, deviation) in found.items()}
    same = [said[row] for row, (cosine, _) in found.items() if cosine >= COLLAPSED]
    apart = [said[row] for row, (cosine, _) in found.items() if cosine < COLLAPSED]
    what = "the teacher's latents of two boxes are nearly one vector"
    meaning = "cosine of two boxes' Z_T, and how much Z_T deviates between boxes"
    if not same:
        return f"Collapse ({meaning}): none; {listed(apart)}."
    where = "in every row" if not apart else f"in {count(len(same), 'row')} of {len(found)}"
    rest = f"; not in {listed(apart)}" if apart else ""
    return f"Collapse ({meaning}): {what} {where}: {listed(same)}{rest}."


def claim_line(results: Results) -> str:
    """The text's claims in one sentence."""
    judged = claims(results)
    if not judged:
        return ""
    scale = " at proxy scale" if results.study.profile.proxy else ""
    if len(judged) == 1:
        reported, again = judged[0]
        outcome = f"{again.outcome}{scale}" if again.outcome is not Holds.NOT_JUDGED else "is not judged here"
        return f"The paper's claim “{describe(reported.claim)}” {reported.outcome} on its own numbers; regenerated, it {be(outcome)}."
    counts = {outcome: sum(again.outcome is outcome for _, again in judged) for outcome in Holds}
    shown = listed([f"{n} {outcome}" for outcome, n in counts.items() if n])
    wrong = sum(reported.outcome is Holds.FAILS for reported, _ in judged)
    own = f"{wrong} fail{'s' * (wrong == 1)} on its own numbers" if wrong else "none fails on its own numbers"
    return f"Of the paper's {len(judged)} claims about this table, {own}; regenerated{scale}: {shown}."


def be(outcome: str) -> str:
    return f"is {outcome}" if outcome.startswith("undetermined") else outcome


def trouble_line(results: Results) -> str:
    """Cells without a value, and unhealthy answers."""
    problems: dict[str, list[str]] = {}
    for row, arm in results.arms.items():
        if arm.row.delta is not None or arm.silent or arm.undefined:
            continue
        for column in results.columns:
            if results.estimate(row, column) is None:
                problems.setdefault("No value", []).append(f"{row} on {results.title(column)}")
                continue
            rates = results.found(row, column).rates
            for name, rate in (("cut off", rates.truncated), ("unreadable", rates.unparsed)):
                if rate is not None and rate > 0.05:
                    problems.setdefault(f"More than 5 % of answers {name}", []).append(f"{row} on {results.title(column)}")
    lines = []
    for what, where in problems.items():
        shown = listed(where) if len(where) <= 4 else f"{', '.join(where[:3])} and {len(where) - 3} more cells"
        lines.append(f"{what}: {shown}.")
    return " ".join(lines)
