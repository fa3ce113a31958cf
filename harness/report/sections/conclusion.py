"""The head of a report: a paragraph that says what can be concluded, and a short table of questions and answers."""

from __future__ import annotations

import re

from harness.report.numbers.families import base_row, declared, reach
from harness.report.numbers.results import Results
from harness.report.sections.card import card_answer
from harness.report.sections.claims import claims
from harness.report.sections.headline import audit_line, collapse_answer, latent_summary, size
from harness.report.sections.likelihood import likelihood_answer
from harness.report.sections.types import Cell, Column, Table, TableRow
from harness.report.sections.words import MINUS, count, difference, interval, listed, percent, share
from harness.spec.claims import describe
from harness.verdict import Holds
from harness.verdict.claims import LEVEL

ROOM = 10.0
"""Points that a benchmark must leave between guessing and the base model, and between it and 100, to tell rows apart."""


def conclusion(results: Results) -> str:
    """What this run says about the paper's claims, against the base, and what it could have shown at all."""
    tested = declared(results)
    if not tested.size:
        return "Nothing can be concluded yet: no two rows have results."
    scale = " at proxy scale, which says nothing about the paper's model" if results.study.profile.proxy else ""
    judged = [again for _, again in claims(results) if again.outcome is not Holds.NOT_JUDGED]
    counts = {outcome: sum(one.outcome is outcome for one in judged) for outcome in Holds}
    if not judged:
        parts = ["None of the paper's claims about this table could be judged here." if results.study.experiment.claims else ""]
    elif counts[Holds.UNDETERMINED] == len(judged):
        parts = [f"This run does not decide {'the paper' if len(judged) == 1 else 'any of the paper'}'s {count(len(judged), 'claim')}{scale}."]
    else:
        words = {Holds.HOLDS: ("holds", "hold"), Holds.FAILS: ("fails", "fail"), Holds.UNDETERMINED: ("is open", "are open")}
        said = [f"{counts[outcome]} {forms[counts[outcome] != 1]}" for outcome, forms in words.items() if counts[outcome]]
        parts = [f"Of {count(len(judged), 'claim')} of the paper that could be judged here{scale}, {listed(said)}."]
    parts.append(against_base(results))
    if not results.study.experiment.claims:
        parts.append(between_rows(results))
    parts.append(could_show(results))
    return " ".join(part for part in parts if part)


def against_base(results: Results) -> str:
    """Whether any row lies above the base model, by training or by how it is decoded."""
    answer = taught(results, untrained=True)
    if answer.startswith("Yes"):
        return answer.partition(": ")[2]
    return "No row is shown to exceed the base model." if answer else ""


def between_rows(results: Results) -> str:
    """Which declared differences between rows are shown: what a table without claims is about."""
    tested, base = declared(results), base_row(results)
    adjusted = tested.family.adjusted
    pairs = {pair: comparison for pair, comparison in tested.pairs.items() if pair[1] != base}
    if not pairs:
        return ""
    shown = {pair: comparison for pair, comparison in pairs.items() if adjusted[pair] <= LEVEL}
    if not shown:
        return f"Between rows: none of {count(len(pairs), 'declared difference')} is shown."
    first, second, column = largest = max(shown, key=lambda pair: abs(shown[pair].difference))
    named = f"{first} {MINUS} {second} on {results.title(column)} {difference(shown[largest])}"
    return f"Between rows: {len(shown)} of {count(len(pairs), 'declared difference')} shown, largest {named}."


def could_show(results: Results) -> str:
    """Power, in one sentence."""
    tested = declared(results)
    found = {results.title(name): one for name in results.columns if (one := reach(results, name, tested)) is not None}
    if not found:
        return ""
    single = all(comparison.seeds == 1 for comparison in tested.pairs.values())
    recipes = {title: one.recipes for title, one in found.items() if one.recipes is not None}
    if single and recipes:
        return f"{unseen(recipes, 'between recipes ')} With one seed, smaller ones are between checkpoints."
    said = unseen({title: one.shown for title, one in found.items()})
    return f"With one seed it compares checkpoints, not recipes. {said}" if single else said


def unseen(points: dict[str, float], between: str = "") -> str:
    """title -> smallest difference shown four times in five. Few questions or images may show none at all: two shares differ by
    100 points at most."""
    within = [f"{value:.0f} ({title})" if value >= 9.5 else f"{value:.1f} ({title})" for title, value in points.items() if value <= 100]
    beyond = [title for title, value in points.items() if value > 100]
    parts = [f"Differences {between}smaller than about {listed(within)} points would probably have been missed."] if within else []
    return " ".join([*parts, *([f"On {listed(beyond)} no difference {between}of any size could have been shown."] if beyond else [])])


def answers(results: Results) -> Table | None:
    """Questions that a reader brings, each with what the results say."""
    if not declared(results).size:
        return None
    found = {
        **claim_answers(results),
        "Did training teach?": taught(results),
        "Ability or format?": form(results),
        "What do likelihoods add?": likelihood_answer(results),
        "Are latents used?": latent_summary(results),
        "What do latents carry?": card_answer(results),
        "Do latents differ between inputs?": collapse_answer(results),
        "Room?": room(results),
        "The paper's own numbers?": audit_line(results).partition(": ")[2],
    }
    rows = [TableRow(question, (Cell(answer),)) for question, answer in found.items() if answer]
    return Table("answers-short", "What the results say.", (Column("Answer", numeric=False),), tuple(rows), stub="Question")


def claim_answers(results: Results) -> dict[str, str]:
    """Claims of order, which are what a table is usually for; column by column the pair that decides. The whole stands under
    the claims."""
    found = {}
    words = {Holds.HOLDS: "Yes", Holds.FAILS: "No", Holds.UNDETERMINED: "Undetermined"}
    for reported, again in claims(results):
        if again.outcome in words and reported.claim.form in ("best", "greater", "unimodal", "increasing", "margin", "close"):
            deciding = [part for part in again.parts if part.outcome is again.outcome][:3]
            said = [(results.title(part.column), first_test(part.text)) for part in deciding]
            found[f"{minus(describe(reported.claim))}?"] = f"{words[again.outcome]}: {by_column(said)}."
    return found


_RESULT = re.compile(r"(?P<compared>.*) = (?P<result>[-+\N{MINUS SIGN}]?\d[\d.]* \[.*)")
"""Of a test's words, from the last " = " before an interval: rows are called "S = 8" too."""


def by_column(tests: list[tuple[str, str]]) -> str:
    """(column, "A \N{MINUS SIGN} B = +1.0 [0.2, 1.8], p = 0.02") as words; what is compared is said once where it is the same everywhere."""
    known = [(column, found["compared"], found["result"]) for column, test in tests if (found := _RESULT.match(test))]
    compared = {one for _, one, _ in known}
    if len(known) == len(tests) and len(compared) == 1:
        return f"{compared.pop()}: {'; '.join(f'{column} {result}' for column, _, result in known)}"
    return "; ".join(f"{column}: {test}" for column, test in tests)


def first_test(text: str) -> str:
    """Of a claim's arithmetic the first test: "A - B = 1.0 [0.2, 1.8], p = 0.02"."""
    test, found, rest = text.partition(", p ")
    return minus(f"{test}{found}{rest.partition(',')[0]}")


def minus(text: str) -> str:
    """With the sign that a report writes."""
    return text.replace(" - ", f" {MINUS} ").replace("[-", f"[{MINUS}").replace(" -", f" {MINUS}")


def taught(results: Results, *, untrained: bool = False) -> str:
    """Whether rows exceed the checkpoint they were trained from. untrained: the others count too, such as the base model that zooms."""
    tested, base = declared(results), base_row(results)
    adjusted = tested.family.adjusted
    mine = [
        (row, column, c, adjusted[row, second, column])
        for (row, second, column), c in tested.pairs.items()
        if second == base and (untrained or results.arms[row].row.stages)
    ]
    if not mine:
        return ""
    above = [one for one in mine if one[3] <= LEVEL and one[2].difference > 0]
    below = [one for one in mine if one[3] <= LEVEL and one[2].difference < 0]
    word = "Yes" if above else "No" if below else "Undetermined"
    text = f"{word}: {len(above)} of {count(len(mine), 'cell')} {'is' if len(above) == 1 else 'are'} above the base model, {len(below)} below"
    if above or below:
        row, column, comparison, _ = max(above or below, key=lambda one: abs(one[2].difference))
        text += f", largest {row} on {results.title(column)} {difference(comparison)}"
    return f"{text}."


def form(results: Results) -> str:
    """Whether what is shown could come from unreadable answers alone."""
    tested = declared(results)
    adjusted = tested.family.adjusted
    shown = [(pair, c) for pair, c in tested.pairs.items() if adjusted[pair] <= LEVEL]
    if not shown:
        return ""
    doubtful = []
    for (first, second, column), comparison in shown:
        better, worse = (first, second) if comparison.difference > 0 else (second, first)
        lost = results.found(worse, column).rates.unparsed or 0.0
        if lost and lost >= abs(comparison.difference):
            doubtful.append(f"{better} above {worse} on {results.title(column)} by {size(comparison)} ({share(lost)} unreadable)")
    if doubtful:
        more = f" and {len(doubtful) - 3} more" if len(doubtful) > 3 else ""
        return f"{len(doubtful)} of {count(len(shown), 'shown difference')} could come from the answers' format alone: {'; '.join(doubtful[:3])}{more}."
    return f"Ability: {'all' if len(shown) > 1 else 'the'} {count(len(shown), 'shown difference')} would remain if every unreadable answer were right."


def room(results: Results) -> str:
    """Whether the base model leaves room below and above it on each benchmark: shown by its interval, or only not refuted."""
    label = base_row(results)
    if label is None:
        return ""
    tight, unsure, known = [], [], 0
    for name in results.columns:
        value = results.estimate(label, name)
        if value is None:
            continue
        known += 1
        chance = results.score(name).chance
        if chance is None:
            unsure.append(f"{results.title(name)} (base {percent(value.mean)}, chance unknown)")
        elif not chance + ROOM <= 100 * value.mean <= 100 - ROOM:
            tight.append(f"{results.title(name)} (base {percent(value.mean)}, guessing {chance:.1f})")
        elif 100 * value.interval.low < chance + ROOM or 100 * value.interval.high > 100 - ROOM:
            unsure.append(f"{results.title(name)} (base {percent(value.mean)} {interval(value.interval)}, guessing {chance:.1f})")
    if not known:
        return ""
    if tight or unsure:
        return " ".join([*([f"Little on {listed(tight)}."] if tight else []), *([f"Not shown on {listed(unsure)}."] if unsure else [])])
    return f"Yes: the base model lies {ROOM:g} points or more from guessing and from 100 everywhere."
