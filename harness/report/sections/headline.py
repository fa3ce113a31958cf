"""What a reader must know first: whether the benchmarks can tell arms apart, which arms differ, whether latents matter."""

from __future__ import annotations

import statistics

from harness.jobs import Job
from harness.report.numbers.families import base_row, declared, one_seed
from harness.report.numbers.results import Results
from harness.report.numbers.study import Arm
from harness.report.sections.claims import claims
from harness.report.sections.mechanism import flipped, latent_modes, latent_tests, probes
from harness.report.sections.provenance import seen_by
from harness.report.sections.words import MINUS, count, difference, interval, listed, percent, share, signed, with_p
from harness.spec.claims import describe
from harness.stats import Comparison
from harness.verdict import Holds
from harness.verdict.claims import LEVEL

ABOVE_CHANCE, CEILING = 10.0, 90.0
"""Points between guessing and the base model's lower bound; its upper bound. Outside, a benchmark separates nothing."""
COLLAPSED = 0.95
"""Mean cosine between different boxes' Z_T from which they count as one vector; a constant gives 1."""


def headline(results: Results) -> list[str]:
    """Sentences, most important first."""
    lines = [
        scale_line(results), against_base_line(results), claim_line(results), audit_line(results), base_line(results),
        *difference_lines(results), *latent_lines(results), collapse_line(results), trouble_line(results),
    ]  # fmt: skip
    return [line for line in lines if line]


def scale_line(results: Results) -> str:
    """Caveats that apply to every number: proxy scale, one seed."""
    parts = []
    if results.study.profile.proxy:
        parts.append(
            f"Proxy scale: a tiny model {seen_by(results.study)}. Rows and columns keep the paper's names; nothing here "
            "estimates the paper's model."
        )
    if one_seed(results):
        parts.append("One seed: differences are between these trained models; whether they belong to the recipes needs more seeds.")
    return " ".join(parts)


def base_line(results: Results) -> str:
    """Whether the base model lies between chance and ceiling on every column, so that arms can differ there at all."""
    label = base_row(results)
    if label is None:
        return (
            "The base model was not evaluated, so whether the benchmarks leave room (lower bound at least guessing + 10, "
            "upper at most 90) is unknown."
        ) if results.study.profile.proxy else ""
    below, near, high, unknown, known, missing = [], [], [], [], [], []
    for name in results.columns:
        value = results.estimate(label, name)
        if value is None:
            missing.append(results.title(name))
            continue
        chance = results.score(name).chance
        bounds = value.interval  # the table's own, which knows that questions share images
        shown = f"{results.title(name)} {percent(value.mean)} {interval(bounds)}"
        if chance is None:
            unknown.append(shown)
        elif 100 * bounds.high < chance:
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
        ("cannot be compared with chance, which is unknown, on", unknown),
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
    tested, base = declared(results), base_row(results)
    adjusted = tested.family.adjusted
    mine = {(first, column): (c, adjusted[first, second, column]) for (first, second, column), c in tested.pairs.items() if second == base}
    if not mine:
        return ""
    parts = []
    for word, sign in (("above", 1), ("below", -1)):
        shown = [(row, name, c) for (row, name), (c, p) in mine.items() if p <= LEVEL and sign * c.difference > 0]
        shown.sort(key=lambda item: -abs(item[2].difference))
        said = [f"{row} on {results.title(name)} by {size(c)}" for row, name, c in shown[:3]]
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        parts.append(f"{word} it: {', '.join(said) or 'none'}{more}")
    rest = sum(p > LEVEL for _, p in mine.values())
    return f"Against the base model ({count(len(mine), 'cell')}, paired): {'; '.join(parts)}; {rest} not shown to differ from it."


def size(comparison: Comparison) -> str:
    """How far apart, with its interval: 2.4 [0.9, 3.9]."""
    bounds = comparison.interval
    low, high = sorted((bounds.low, bounds.high)) if comparison.difference > 0 else sorted((-bounds.low, -bounds.high))
    return f"{percent(abs(comparison.difference))} [{signed(low).lstrip('+')}, {signed(high).lstrip('+')}]"


def difference_lines(results: Results) -> list[str]:
    """Which declared pairs differ by more than chance explains, and which are not shown to."""
    tested = declared(results)
    if not tested.size:
        return ["No two rows have results yet, so nothing can be compared."]
    adjusted = tested.family.adjusted
    lines: list[str] = []
    alike: dict[str, tuple[str, str, Comparison, float]] = {}
    for name in results.columns:
        mine = {(f, s): (c, adjusted[f, s, name]) for (f, s, column), c in tested.pairs.items() if column == name}
        if not mine:
            continue
        shown = [(f, s, c, p) if c.difference > 0 else (s, f, c, p) for (f, s), (c, p) in mine.items() if p <= LEVEL]
        if not shown:
            (first, second), (most, p) = max(mine.items(), key=lambda item: abs(item[1][0].difference))
            alike[results.title(name)] = first, second, most, p
            continue
        best = sorted(shown, key=lambda item: -abs(item[2].difference))
        words = [f"{f} above {s} by {size(c)}{unskilled(results, f, name)}{format_alone(results, f, s, name)}" for f, s, c, _ in best[:3]]
        more = f" and {len(best) - 3} more" if len(best) > 3 else ""
        rest = len(mine) - len(shown)
        lines.append(f"{results.title(name)}: {', '.join(words)}{more}" + (f"; {count(rest, 'other declared pair')} not shown to differ." if rest else "."))
    if alike:
        title, (first, second, most, p) = max(alike.items(), key=lambda item: abs(item[1][2].difference))
        lines.append(
            f"No declared pair is shown to differ on {listed(list(alike))} (p after Holm over {tested.size}; largest: {first} {MINUS} "
            f"{second} on {title}, {with_p(most, p)})."
        )
    return lines


def unskilled(results: Results, row: str, column: str) -> str:
    """A warning where even the better row of a pair is not shown to be above guessing."""
    value, chance = results.estimate(row, column), results.score(column).chance
    return f" ({row} itself is not above guessing)" if value is not None and chance is not None and 100 * value.interval.low <= chance else ""


def format_alone(results: Results, better: str, worse: str, column: str) -> str:
    """A remark where the worse row would reach the better one, were all its unreadable answers right."""
    values = [results.estimate(row, column) for row in (better, worse)]
    unread = results.found(worse, column).rates.unparsed
    if None in values or not unread:
        return ""
    high, low = (value.mean for value in values if value is not None)
    return f" (could come from the answers' format alone: {share(unread)} of {worse}'s answers are unreadable)" if low + unread >= high else ""


def latent_lines(results: Results) -> list[str]:
    """Whether accuracy depends on the latents at all: every mode alike, and rows that open no segment."""
    tested = latent_tests(results)
    if not tested:
        return []
    parts = []
    for mode in latent_modes(results):
        mine = {(row, column): found for (row, column, other), found in tested.items() if other == mode}
        if not mine:
            continue
        moved = sorted(((*at, c) for at, (c, p) in mine.items() if p <= LEVEL), key=lambda item: -abs(item[2].difference))
        if moved:
            said = [f"{row} on {results.title(column)} {difference(c)}" for row, column, c in moved[:3]]
            more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
            parts.append(f"{mode}: {', '.join(said)}{more}")
        else:
            (row, column), (most, p) = max(mine.items(), key=lambda item: abs(item[1][0].difference))
            parts.append(f"{mode}: no shown change (largest: {row} on {results.title(column)}, {with_p(most, p)})")
    flips = [flipped(c) for c, _ in tested.values()]
    lines = [
        (f"Mechanism, accuracy when the latents are replaced (p after Holm over {count(len(tested), 'test')}): {'; '.join(parts)}. "
        f"From {share(min(flips))} to {share(max(flips))} of single answers turn right or wrong.")
    ]
    started = [
        f"{row} on {results.title(column)} ({100 * rate:.0f} % do)"
        for row in (label for label, arm in results.arms.items() if arm.latent)
        for column in results.columns
        if results.estimate(row, column) is not None
        and (rate := results.found(row, column).rates.started) is not None
        and rate < 0.5
    ]
    if started:
        lines.append(f"Most answers open no latent segment: {listed(started)}.")
    return lines


BLANK = frozenset({"zeroed", "noise"})
"""Latents that no question has: an answer may change because they look like nothing it was trained on."""


def latent_summary(results: Results) -> str:
    """In how many cells replacing the latents changes accuracy, mode by mode."""
    tested = latent_tests(results)
    said, shown = [], set()
    for mode in latent_modes(results):
        mine = {(row, column): found for (row, column, other), found in tested.items() if other == mode}
        moved = [(abs(c.difference), row, column, c) for (row, column), (c, p) in mine.items() if p <= LEVEL]
        text = f"{mode} in {len(moved)} of {count(len(mine), 'cell')}"
        if moved:
            _, row, column, most = max(moved, key=lambda one: one[0])
            text += f" (most: {row} on {results.title(column)} {difference(most)})"
            shown.add(mode)
        said += [text] if mine else []
    word = "Yes" if shown - BLANK else "In part, their content not shown to matter" if shown else "Not shown"
    return f"{word}: accuracy is shown to change when they are {'; '.join(said)}." if said else ""


def collapses(results: Results) -> list[tuple[list[str], float, float]]:
    """(rows that share a teacher, cosine between two boxes' Z_T, spread of Z_T over boxes), means over the seeds."""
    found: dict[tuple[str, ...], tuple[list[str], float, float]] = {}
    for row, numbers in probes(results).items():
        seeds = [(one["teacher_fed.z_t_cosine"], one["teacher_fed.z_t_std"]) for one in numbers if "teacher_fed.z_t_cosine" in one]
        if seeds:
            cosine, spread = (statistics.fmean(values) for values in zip(*seeds, strict=True))
            found.setdefault(teachers(results.arms[row]), ([], cosine, spread))[0].append(row)
    return list(found.values())


def collapse_line(results: Results) -> str:
    """Whether a teacher's latents of different boxes have become one vector. Rows that share a teacher say it once."""
    found = collapses(results)
    if not found:
        return ""
    same = [f"of {listed(rows)} ({cosine:.3f}, {spread:.3f})" for rows, cosine, spread in found if cosine >= COLLAPSED]
    apart = [f"of {listed(rows)} ({cosine:.3f}, {spread:.3f})" for rows, cosine, spread in found if cosine < COLLAPSED]
    meaning = f"cosine between two boxes' Z_T, at least {COLLAPSED:g} counts; spread of Z_T over boxes"
    said = [f"{what} {listed(where)}" for what, where in (
        ("nearly one vector for all boxes: the teacher", same), ("not: the teacher", apart)
    ) if where]  # fmt: skip
    return f"Collapse ({meaning}): {'; '.join(said)}."


def collapse_answer(results: Results) -> str:
    """The same, as the answer to whether latents differ between inputs."""
    found = collapses(results)
    if not found:
        return ""
    constant = sum(cosine >= COLLAPSED for _, cosine, _ in found)
    word = "Yes" if not constant else "No" if constant == len(found) else "In part"
    said = ", ".join(f"{cosine:.3f} for {listed(rows)}" for rows, cosine, _ in found)
    return f"{word}: cosine between the teacher's latents of two boxes is {said} ({COLLAPSED:g} or more counts as one vector for all boxes)."


def teachers(arm: Arm) -> tuple[str, ...]:
    """Keys of the trainings that the row's Z_T comes from, by seed."""
    found = []
    for job in arm.trainings().values():
        teacher = job.inputs.get("teacher")
        found.append(teacher.key if isinstance(teacher, Job) else job.key)
    return tuple(found)


def audit_line(results: Results) -> str:
    """What does not add up in the printed numbers themselves; sentences of the text are judged as claims."""
    loaded = results.study.loaded
    if loaded is None or not any(row.reported for row in loaded.value.rows):
        return ""
    from harness.audit import Severity, audit
    from harness.audit.findings import by_severity
    from harness.audit.paper import Paper, read_table
    from harness.audit.rules import RULES

    rules = tuple(name for name in RULES if name not in ("claims", "statements"))
    found = [f for f in by_severity(audit(Paper((read_table(loaded),)), rules).findings) if f.severity is not Severity.REMARK]
    if not found:
        return ""
    errors = sum(f.severity is Severity.ERROR for f in found)
    counted = [count(errors, "error")] if errors else []
    if len(found) > errors:
        counted.append(f"{count(len(found) - errors, 'number')} possible only under an assumption (for example, a mean over several runs)")
    said = [f"{f.row} on {results.title(f.column) if f.column in results.columns else f.column}, {f.text}" for f in found[:2]]
    more = f" and {len(found) - 2} more" if len(found) > 2 else ""
    return f"Audit of the paper's printed numbers: {', '.join(counted)}: {'; '.join(said)}{more}. All: run.py audit {results.study.file}"


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
    own = f"on its own numbers {wrong} of the {len(judged)} fail{'s' * (wrong == 1)}" if wrong else f"on its own numbers none of the {len(judged)} fails"
    return f"The paper's claims about this table: {own}; regenerated{scale}, {shown}."


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
