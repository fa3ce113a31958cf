"""What a reader must know first: whether the benchmarks can tell arms apart, which arms differ, whether latents matter."""

from __future__ import annotations

import statistics

from harness.report.claims import claims
from harness.report.mechanism import latent_modes, latent_tests, probes
from harness.report.results import Results
from harness.report.tables import against_base, base_row, pairs
from harness.report.words import count, difference, interval, listed, percent, signed
from harness.stats import Comparison
from harness.verdict import Holds
from harness.verdict.claims import LEVEL, describe

ABOVE_CHANCE, CEILING = 10.0, 90.0
"""Points between guessing and the base model's lower bound; its upper bound. Outside, a benchmark separates nothing."""
COLLAPSED = 0.95
"""Mean cosine between different boxes' Z_T from which they count as one vector; a constant gives 1."""


def headline(results: Results) -> list[str]:
    """Sentences, most important first."""
    lines = [base_line(results), *difference_lines(results), against_base_line(results), latent_line(results), collapse_line(results), claim_line(results), trouble_line(results)]
    return [line for line in lines if line]


def base_line(results: Results) -> str:
    """Whether the base model lies between chance and ceiling on every column; the first line says where not."""
    label = base_row(results)
    if label is None:
        return (
            "The base model was not evaluated, so whether the benchmarks leave room (lower bound at least guessing + 10, "
            "upper at most 90) is unknown."
        ) if results.study.profile.proxy else ""
    below, near, high, known, missing = [], [], [], [], []
    for name in results.columns:
        value = results.estimate(label, name)
        if value is None:
            missing.append(results.title(name))
            continue
        chance = results.score(name).chance
        bounds = value.interval  # the table's own, which knows that questions share images
        shown = f"{results.title(name)} {percent(value.mean)} {interval(bounds)}"
        if 100 * bounds.high < chance:
            below.append(f"{shown} (guessing: {chance:.1f})")
        elif 100 * bounds.low < chance + ABOVE_CHANCE:
            near.append(f"{shown} (guessing: {chance:.1f})")
        elif 100 * bounds.high > CEILING:
            high.append(shown)
        else:
            known.append(shown)
    problems = [f"{what} {listed(where)}" for what, where in (
        ("lies below guessing on", below),
        (f"is not shown to be {ABOVE_CHANCE:g} points above guessing on", near),
        (f"reaches above {CEILING:g} on", high),
    ) if where]  # fmt: skip
    lines = [f"Read with care: the base model {listed(problems)}."] if problems else []
    if missing:
        lines.append(f"The base model has no result on {listed(missing)}.")
    if known:
        rest = "On the others it" if problems else "The base model"
        lines.append(f"{rest} lies at least 10 points above guessing and below 90: {', '.join(known)}.")
    return " ".join(lines)


def against_base_line(results: Results) -> str:
    """Which rows are better, and which worse, than the checkpoint they were trained from."""
    tested = against_base(results)
    if not tested:
        return ""
    parts = []
    for word, sign in (("above", 1), ("below", -1)):
        shown = [(row, name, c) for (row, name), (c, p) in tested.items() if p <= LEVEL and sign * c.difference > 0]
        shown.sort(key=lambda item: -abs(item[2].difference))
        said = [f"{row} on {results.title(name)} by {size(c)}" for row, name, c in shown[:3]]
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        parts.append(f"{word} it: {', '.join(said) or 'none'}{more}")
    rest = sum(p > LEVEL for _, p in tested.values())
    return f"Against the base model ({count(len(tested), 'cell')}, paired): {'; '.join(parts)}; not told apart from it: {rest}."


def size(comparison: Comparison) -> str:
    """How far apart, with its interval: 2.4 [0.9, 3.9]."""
    bounds = comparison.interval
    low, high = sorted((bounds.low, bounds.high)) if comparison.difference > 0 else sorted((-bounds.low, -bounds.high))
    return f"{percent(abs(comparison.difference))} [{signed(low).lstrip('+')}, {signed(high).lstrip('+')}]"


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
        words = [f"{f} above {s} by {size(c)}{unskilled(results, f, name)}" for f, s, c in best[:3]]
        more = f" and {len(best) - 3} more" if len(best) > 3 else ""
        rest = len(mine) - len(shown)
        others = "the other pair" if rest == 1 else f"the other {rest} pairs"
        lines.append(f"{results.title(name)}: {', '.join(words)}{more}" + (f"; {others} cannot be told apart." if rest else "."))
    seeds = {min(c.seeds) for c, _ in tested.values()}
    if seeds == {1}:
        lines.append(
            "One seed only: these are differences between trained models; whether they belong to the recipes needs more seeds."
        )
    return lines


def unskilled(results: Results, row: str, column: str) -> str:
    """A warning where even the better row of a pair is not shown to be above guessing."""
    value, chance = results.estimate(row, column), results.score(column).chance
    return " (which is not above guessing itself)" if value is not None and 100 * value.interval.low <= chance else ""


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
            (row, column, _), (largest, _) = max(mine.items(), key=lambda item: abs(item[1][0].difference))
            parts.append(
                f"{word} the latents changes no row's accuracy measurably (of {count(len(mine), 'test')}, most: {row} on "
                f"{results.title(column)}, {difference(largest)}; p corrected after Holm)"
            )
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
        silenced = "decode.start" in arm.values and arm.values["decode.start"].value == "never"
        if any(stage != "sft" for stage in arm.row.stages or ()) and not silenced:
            for column in results.columns:
                if results.estimate(row, column) is not None:
                    rate = results.found(row, column).rates.started
                    if rate is not None and rate < 0.5:
                        started.append(f"{row} on {results.title(column)} ({100 * rate:.0f} % do)")
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
    shown = listed([f"{n} {verb(outcome, n)}" for outcome, n in counts.items() if n])
    wrong = sum(reported.outcome is Holds.FAILS for reported, _ in judged)
    own = f"{wrong} fail{'s' * (wrong == 1)} on its own numbers" if wrong else "none fails on its own numbers"
    return f"Of the paper's {len(judged)} claims about this table, {own}; regenerated{scale}: {shown}."


def verb(outcome: Holds, number: int) -> str:
    """holds, hold; is undetermined, are undetermined."""
    if outcome in (Holds.HOLDS, Holds.FAILS):
        return str(outcome) if number == 1 else str(outcome).removesuffix("s")
    return f"{'is' if number == 1 else 'are'} {outcome}"


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
