"""The second metric: mean log-likelihood of the right option's letter at the answer position, compared as accuracy is.

It moves before an answer flips, and an unreadable answer has one too. What the answer position is, and over what a letter's
probability is normalised, stands in `models.evaluation.likelihood`.
"""

from __future__ import annotations

from harness.report.numbers.families import declared
from harness.report.numbers.measure import Unmeasured, select
from harness.report.numbers.results import Results
from harness.report.sections.formats import shown_rows
from harness.report.sections.types import Cell, Column, Table, TableRow
from harness.report.sections.words import MINUS, count, p_value, share
from harness.spec.benchmark import Protocol
from harness.stats import Comparison, Interval
from harness.verdict.claims import LEVEL


def nats(value: float, sign: bool = False) -> str:
    """Two decimals; a rounded zero has no sign."""
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", MINUS)


def bounds(interval: Interval, sign: bool = False) -> str:
    return f"[{nats(interval.low, sign)}, {nats(interval.high, sign)}]"


def likelihood_table(results: Results, protocol: Protocol = "paper") -> Table | None:
    """Per row and column: the metric with its interval, the same over the whole vocabulary, and how often a letter was written.
    None where nothing of it was stored."""
    seen = results.likelihoods
    columns = [
        column
        for name in results.columns
        for column in (
            Column("over the options", results.title(name)),
            Column("over all tokens", results.title(name)),
            Column("letter written", results.title(name)),
        )
    ]
    rows, known, lacking = [], False, {}
    for row in shown_rows(results):
        cells: list[Cell] = []
        for name in results.columns:
            value = seen.estimate(row, name, protocol)
            if value is None:
                if results.estimate(row, name, protocol) is not None:
                    lacking[row] = _why(seen, row, name, protocol)
                cells += [Cell("–", tone="muted")] * 3
                continue
            known = True
            whole, written, bounded = _beside(seen, row, name, protocol)
            note = f"{share(bounded)} of the answers: a letter that the endpoint did not list counts as its least listed token" if bounded else ""
            cells += [
                Cell(nats(value.mean), value.mean, bounds(value.interval), value.interval, n=value.n, seeds=value.seeds, note=note),
                Cell(nats(whole), whole),
                Cell(share(written), 100 * written),
            ]
        rows.append(TableRow(row, tuple(cells)))
    if not known:
        return None
    return Table(
        f"likelihood-{protocol}",
        "Mean log-likelihood of the right option's letter where the model answered, in nats: 0 is certainty, and guessing among k "
        f"options gives {MINUS}ln k ({MINUS}0.69 for two, {MINUS}1.39 for four).",
        tuple(columns),
        tuple(rows),
        stub="Row",
        notes=(
            ("Over the options: the right letter's share among the question's option letters, which an answer in another form does "
            "not lower. Over all tokens: its probability itself, which it does. Letter written: answers with a token of their own "
            "for the letter that is read; for the others it is where a letter would have stood. From the passes that decoded the "
            "answers, before any repetition penalty."),
            *(f"{row}: {reason}." for row, reason in lacking.items()),
        ),
    )


def _beside(seen: Results, row: str, column: str, protocol: Protocol) -> tuple[float, float, float]:
    """Means over all seeds' answers: over the vocabulary, share with a written letter, share that a list's end bounds."""
    found = seen.found(row, column, protocol)
    frames = [select(one.frame, found.score, one.evaluation.job.key12) for one in found.by_job.values()]
    names = ("loglik_vocabulary", "letter_written", "loglik_bound")
    whole, written, bounded = (sum(frame[name].sum() for frame in frames) / sum(map(len, frames)) for name in names)
    return float(whole), float(written), float(bounded)


def _why(seen: Results, row: str, column: str, protocol: Protocol) -> str:
    try:
        seen.found(row, column, protocol)
    except Unmeasured as problem:
        return str(problem)
    return "unknown"


def likelihood_pairs(results: Results, protocol: Protocol = "paper") -> Table | None:
    """The table's declared pairs by this metric."""
    tested = declared(results.likelihoods, protocol)
    if not tested.pairs:
        return None
    adjusted = tested.family.adjusted
    found = {(f"{a} {MINUS} {b}", name): (c, adjusted[a, b, name]) for (a, b, name), c in tested.pairs.items()}
    rows = [
        TableRow(label, tuple(_cell(*found[label, name]) if (label, name) in found else Cell("–", tone="muted") for name in results.columns))
        for label in dict.fromkeys(label for label, _ in found)
    ]
    return Table(
        f"likelihood-pairs-{protocol}",
        f"The declared pairs by log-likelihood over the options, in nats with the uncorrected 95 % interval; p after Holm over these "
        f"{count(tested.size, 'test')}, bold where it is at most 0.05. A second reading of the same answers: it is corrected by itself, "
        "and no claim is judged by it.",
        tuple(Column(results.title(name)) for name in results.columns),
        tuple(rows),
        stub="Comparison",
    )


def _cell(comparison: Comparison, adjusted: float) -> Cell:
    return Cell(
        nats(comparison.difference, sign=True),
        comparison.difference,
        f"{bounds(comparison.interval, sign=True)} p {p_value(adjusted).replace('<', '< ')}",
        comparison.interval,
        n=comparison.n,
        clusters=comparison.clusters,
        seeds=comparison.seeds,
        note=f"{comparison.test} p = {p_value(comparison.p)} uncorrected",
        tone="strong" if adjusted <= LEVEL else "plain",
    )


def likelihood_answer(results: Results) -> str:
    """What it says that accuracy does not: pairs that it alone tells apart, and pairs that the two order differently. "" where
    it says nothing new."""
    ours, theirs = declared(results), declared(results.likelihoods)
    if not theirs.pairs:
        return ""
    by_accuracy = {pair: c.difference for pair, c in ours.pairs.items() if ours.family.adjusted[pair] <= LEVEL}
    shown = {pair: c for pair, c in theirs.pairs.items() if theirs.family.adjusted[pair] <= LEVEL}
    against = [pair for pair, c in shown.items() if pair in by_accuracy and c.difference * by_accuracy[pair] < 0]
    new = sorted((pair for pair in shown if pair not in by_accuracy), key=lambda pair: -abs(shown[pair].difference))
    parts = []
    for pairs, words in ((against, "order by likelihood against their order by accuracy"), (new, "told apart by likelihood and not by accuracy")):
        if not pairs:
            continue
        said = [f"{a} {MINUS} {b} on {results.title(name)} {nats(shown[a, b, name].difference, sign=True)} {bounds(shown[a, b, name].interval, sign=True)}" for a, b, name in pairs[:2]]
        more = f" and {len(pairs) - 2} more" if len(pairs) > 2 else ""
        parts.append(f"{count(len(pairs), 'pair')} {words}: {'; '.join(said)}{more}")
    return f"{'; '.join(parts)} (nats)." if parts else ""
