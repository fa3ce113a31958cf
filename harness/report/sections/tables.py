"""The paper's table regenerated, its stock-protocol sister, and its rows compared in pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.report.numbers.families import base_row
from harness.report.numbers.measure import Unmeasured, select
from harness.report.numbers.results import BASE, Results
from harness.report.numbers.values import JobRef
from harness.report.sections.provenance import adopted
from harness.report.sections.types import Cell, Column, Table, TableRow, Tone
from harness.report.sections.words import (
    count,
    interval,
    listed,
    p_value,
    percent,
    scaled,
    sentence,
    share,
    signed,
    signed_interval,
)
from harness.spec.benchmark import Protocol
from harness.spec.reported import Reported
from harness.stats import Comparison, SeedNoise
from harness.verdict import Outcome, Verdict, judge
from harness.verdict.cells import apart
from harness.verdict.claims import LEVEL
from models.config import ProxyMirror
from models.evaluation.boxes import SEVERAL

QuestionId = tuple[str, int]
"""(task, doc_id)"""
TAKEN = {"rate": "evenly spaced by frame number, and so not in time", "stamps": "evenly spaced in time"}
"""`Clips.times` -> how frames of a clip are taken whose frame rate varies."""
_FIRST = 3
"""Questions that a note names of those it counts."""


def _uneven(ids: Sequence[QuestionId], clips: Mapping[str, Any]) -> str:
    return f"{count(len(ids), 'question')} about clips with a variable frame rate, whose frames are {TAKEN[clips.get('times', 'rate')]}"


def _rotated(ids: Sequence[QuestionId], clips: Mapping[str, Any]) -> str:
    seen = "rotated as it says" if clips.get("orientation") == "upright" else "seen unrotated"
    return f"{count(len(ids), 'question')} about clips that their container marks as rotated, {seen}"


def _cut_off(ids: Sequence[QuestionId], _: Mapping[str, Any]) -> str:
    first = ", ".join(f"{task} {doc_id}" for task, doc_id in ids[:_FIRST]) + (", …" if len(ids) > _FIRST else "")
    return f"{count(len(ids), 'question')} with a picture file that is cut off or damaged, read with its missing part blank, as by lmms-eval: {first}"


_NAMED: dict[str, Callable[[Sequence[QuestionId], Mapping[str, Any]], str]] = {"uneven": _uneven, "rotated": _rotated, "cut_off": _cut_off}
"""What a mirror names in its summary -> what is said of such questions and an evaluation's `clips`."""
ABSENT = {"failed": Outcome.FAILED, "not run": Outcome.NOT_RUN, "not defined": Outcome.NOT_DEFINED}


def measured_cell(results: Results, row: str, column: str, protocol: Protocol = "paper") -> Cell:
    """One number with all that is known about it, or why there is none."""
    study, reported = results.study, results.reported(row, column)
    text = reported.text if reported else ""
    jobs = results.jobs(row, column, protocol)
    try:
        found = results.found(row, column, protocol)
    except Unmeasured as problem:
        outcome = ABSENT[problem.state]
        verdict = judge(None, reported, None, proxy=study.profile.proxy, absent=(outcome, str(problem)))
        note = f"{problem.state}: {problem}" if problem.value is None else str(problem)
        shown = problem.state if problem.value is None else percent(problem.value)
        return Cell(shown, note=note, reported=text, verdict=verdict, jobs=jobs, tone="warning")
    value = results.estimate(row, column, protocol)
    assert value is not None
    notes = list(found.lost)
    if part := results.part(column, protocol):
        notes.append(f"part of the benchmark: {part}")
    if value.seeds == 1 and results.trained(row):
        notes.append("one seed: the interval holds item noise only")
    notes += adopted(results, row)
    return Cell(
        display=percent(value.mean),
        value=100 * value.mean,
        detail=interval(value.interval),
        interval=scaled(value.interval),
        n=value.n,
        clusters=value.clusters,
        seeds=value.seeds,
        seed_sd=None if value.seed_sd is None else 100 * value.seed_sd,
        reported=text,
        verdict=verdict_on(results, row, column, reported, protocol),
        rates=found.rates,
        jobs=jobs,
        note="; ".join(notes),
        tone="warning" if found.lost else "plain",
    )


def verdict_on(results: Results, row: str, column: str, reported: Reported | None, protocol: Protocol = "paper") -> Verdict:
    """Of a measured cell, against a number that the paper prints in its table or says in its text. Raises Unmeasured."""
    found, value, score = results.found(row, column, protocol), results.estimate(row, column, protocol), results.score(column)
    assert value is not None
    trained = results.trained(row)
    noise, source = borrowed_noise(results, row, column, protocol) if trained and value.seeds == 1 else (None, "")
    return judge(
        value, reported, score.n, proxy=results.study.profile.proxy, delta=float(results.study.experiment.equivalence),
        trained=trained, noise=noise, source=source, part=results.part(column, protocol), counted=score.counted and found.counts,
    )  # fmt: skip


def difference_apart(results: Results, first: str, second: str, column: str) -> tuple[float, float] | None:
    """How far the paper's difference of two rows may lie from the measured one (`verdict.cells.apart`). None where unknown."""
    comparison = results.pair(first, second, column)
    assert comparison is not None
    trained = [row for row in (first, second) if results.trained(row)]
    known = [borrowed_noise(results, row, column, "paper")[0] for row in trained] if comparison.seeds == 1 else []
    parts = [(1.0, noise) for noise in known if noise is not None]
    noise = SeedNoise.combined(parts) if len(parts) == len(trained) else None
    return apart(comparison, noise, same=comparison.n == results.score(column).n, trained=bool(trained))


def borrowed_noise(results: Results, row: str, column: str, protocol: Protocol) -> tuple[SeedNoise | None, str]:
    """For a row of one seed: how far apart seeds lie in the column's other rows, else in the paper's own runs; and whose it is."""
    if (noise := results.seed_noise(row, column, protocol)) is not None:
        return noise, "the column's other rows"
    if (stated := results.study.experiment.spread.get(column)) is not None:
        return SeedNoise((((stated.sd / 100) ** 2, stated.runs - 1.0),)), "the paper's own runs"
    return None, ""


def reported_cell(results: Results, row: str, column: str) -> Cell:
    reported = results.reported(row, column)
    if reported is None:
        return Cell("–", tone="muted")
    return Cell(reported.text, value=None if reported.value is None else float(reported.value), tone="muted")


def delta_cell(results: Results, of: str, over: str, column: str, protocol: Protocol = "paper") -> Cell:
    """A printed row of differences, regenerated as a paired difference."""
    comparison = results.pair(of, over, column, protocol)
    if comparison is None:
        return Cell("not run", note=f"not run: needs {of} and {over}", tone="warning")
    return difference_cell(comparison, f"paired; p = {p_value(comparison.p)}")


def difference_cell(
    comparison: Comparison, note: str, *, beside: str = "", adjusted: float = 1.0, jobs: tuple[JobRef, ...] = ()
) -> Cell:
    """A paired difference in points with its interval. beside: text after the interval. adjusted: p after correction."""
    return Cell(
        signed(comparison.difference),
        100 * comparison.difference,
        f"{signed_interval(comparison.interval)}{beside}",
        scaled(comparison.interval),
        n=comparison.n,
        clusters=comparison.clusters,
        seeds=comparison.seeds,
        note=note,
        jobs=jobs,
        tone="strong" if adjusted <= LEVEL else "plain",
    )


def own_base(results: Results) -> bool:
    """Whether the base model was evaluated beside the rows, being none of them."""
    return base_row(results) == BASE and BASE not in results.arms


def main_table(results: Results, protocol: Protocol, marks: dict[str, str]) -> Table:
    """measured and reported side by side, unless nothing is reported; the verdict only where the profile allows one."""
    study, proxy = results.study, results.study.profile.proxy
    own_protocol = protocol == study.experiment.protocol
    with_reported = own_protocol and study.experiment.any_reported
    names = results.columns_under(protocol)
    columns: list[Column] = [Column(heading, numeric=False) for heading in study.experiment.cells]
    for name in names:
        group = results.title(name)
        columns.append(Column("proxy" if proxy else "measured", group))
        if with_reported:
            columns.append(Column("paper", group))
        if with_reported and not proxy:
            columns.append(Column("verdict", group, numeric=False))
    rows = []
    if own_base(results):
        cells: list[Cell] = [Cell("") for _ in study.experiment.cells]
        for name in names:
            cells.append(measured_cell(results, BASE, name, protocol))
            cells += [Cell("–", tone="muted")] * (len(columns[-1:]) and with_reported)
            cells += [Cell("")] * (with_reported and not proxy)
        rows.append(TableRow(f"{BASE} (not a row of the paper)", tuple(cells)))
    for label, arm in results.arms.items():
        cells = [Cell(arm.row.cells.get(heading, "")) for heading in study.experiment.cells]
        for name in names:
            delta = arm.row.delta
            own = (
                delta_cell(results, delta.of, delta.over, name, protocol)
                if delta
                else measured_cell(results, label, name, protocol)
            )
            cells.append(own)
            if with_reported:
                cells.append(reported_cell(results, label, name))
            if with_reported and not proxy:
                verdict = own.verdict
                cells.append(Cell(verdict.label if verdict else "", note=verdict.text if verdict else ""))
        rows.append(TableRow(label, tuple(cells), marks.get(label, ""), arm.row.group))
    label = f"{study.experiment.kind.capitalize()} {study.experiment.name}"
    scale = "; columns marked proxy were measured at proxy scale" if proxy else ""
    rows, reasons = with_reasons(rows)
    footnotes = study.experiment.footnotes if own_protocol else {}
    return Table(
        f"main-{protocol}",
        f"{label}: {sentence(study.experiment.title)} Accuracy in percent with 95 % interval, protocol {protocol}{scale}.",
        tuple(columns),
        tuple(rows),
        stub="Row",
        notes=(*reasons, *(f"{sign} {text}" for sign, text in footnotes.items())),
    )


def with_reasons(rows: list[TableRow]) -> tuple[list[TableRow], list[str]]:
    """Why cells have no value: in the cell where it is said once, as a numbered note where several cells share it."""
    absent = [cell.note for row in rows for cell in row.cells if cell.value is None and cell.tone == "warning"]
    shared = [note for note in dict.fromkeys(absent) if absent.count(note) > 1]

    def marked(cell: Cell) -> Cell:
        if cell.value is not None or cell.tone != "warning":
            return cell
        if cell.note in shared:
            return replace(cell, display=f"{cell.display} ({shared.index(cell.note) + 1})")
        return replace(cell, inline=True)

    notes = [f"({number}) {note}" for number, note in enumerate(shared, start=1)]
    return [replace(row, cells=tuple(map(marked, row.cells))) for row in rows], notes


def column_note(results: Results, column: str, protocol: Protocol) -> str:
    """n, seeds and chance of one column: "1,000 questions in 500 images, 3 seeds; guessing gives 50.0"."""
    found = [e for label in results.arms if (e := results.estimate(label, column, protocol)) is not None]
    level = results.score(column).chance
    chance = "chance unknown" if level is None else f"guessing gives {level:.1f}"
    if not found:
        return chance
    sizes = sorted({(e.n, e.clusters) for e in found})
    seeds = sorted({e.seeds for e in found})
    n, clusters = sizes[-1]
    things = f" in {count(clusters, results.seen(column))}" if clusters != n else ""
    many = " to ".join(map(str, (seeds[0], seeds[-1]))) if len(seeds) > 1 else str(seeds[0])
    asked = f"part of the benchmark: {part}" if (part := results.part(column, protocol)) else count(n, "question")
    return f"{asked}{things}, {many} seed{'s' * (many != '1')}; {chance}"


def main_notes(results: Results, protocol: Protocol) -> tuple[str, ...]:
    """Column by column what was asked; under the paper's own table also what the numbers may be used for."""
    study = results.study
    notes = []
    for name in results.columns_under(protocol):
        column = results.columns[name]
        benchmark = study.benchmarks[column.benchmark]
        words = benchmark.protocols.get(benchmark.under(protocol), "") if column.score == "overall" else ""
        read = f"; {'asked and read as: ' if study.profile.proxy else ''}{words}" if words else ""
        generated = isinstance(study.profile.benchmarks.get(column.benchmark), ProxyMirror)
        title = f"{results.title(name)}{' (stand-in on procedural scenes)' if generated else ''}"
        notes.append(f"{title}: {column_note(results, name, protocol)}{read}{jackknifed(results, name, protocol)}{unasked(results, name, protocol)}{named_by_mirror(results, name, protocol)}{unzoomed(results, name, protocol)}.")
    if protocol != study.experiment.protocol:
        return tuple(notes)
    if study.profile.proxy:
        notes.append(
            f"Profile {study.profile_name}: {study.profile.title}. Proxy values say nothing about the paper's"
            + ("; they stand side by side to show what was claimed, and no cell gets a verdict." if study.experiment.any_reported else ".")
        )
    arms = [results.estimate(label, name, protocol) for label in results.arms for name in results.columns]
    seeds = max((e.seeds for e in arms if e), default=0)
    if seeds == 1:
        notes.append("One seed: intervals hold item noise only. Differences are between these trained models, not recipes.")
    elif seeds > 1:
        notes.append(
            f"Intervals hold item noise (questions, clustered by {listed(shared(results), 'or')}) and seed noise (t over seeds: each row's own variance, moderated by that "
            f"of all trainings of the column in {'the store' if study.experiment.noise_from == 'store' else 'this table'}; rows that share a "
            "training are compared seed by seed)."
        )
        notes.append(f"Standard deviation between seeds, in points: {'; '.join(spreads(results, protocol))}.")
    notes += study.experiment.notes
    notes += [f"{label}: {arm.row.note}" for label, arm in results.arms.items() if arm.row.note]
    return (*notes, *answered_by(results, protocol))


def shared(results: Results) -> list[str]:
    """What questions of the table share: clips, images or both."""
    return sorted({results.seen(name) for name in results.columns})


def jackknifed(results: Results, column: str, protocol: Protocol) -> str:
    """Of a column whose metric is no mean over questions, what its interval is."""
    spec = results.columns[column]
    benchmark = results.study.benchmarks[spec.benchmark]
    for row in results.measured_rows(column, protocol):
        if not all(one.is_mean(benchmark, spec.score) for one in results.found(row, column, protocol).measured):
            return f"; not a mean over questions: its interval and differences come from the jackknife, leaving out one {results.seen(column)} at a time"
    return ""


def unasked(results: Results, column: str, protocol: Protocol) -> str:
    """Of a column of clips, how many of its questions nobody could ask."""
    for row in results.measured_rows(column, protocol):
        found = results.found(row, column, protocol)
        if found.rates.rejected:
            one = next(iter(found.measured))
            lost = select(one.frame, found.score, one.evaluation.job.key12)["rejected"]
            return f"; {int(lost.sum())} of {len(lost)} questions were never asked: their clips are missing or cannot be read (rejected in samples.jsonl)"
    return ""


def named_by_mirror(results: Results, column: str, protocol: Protocol) -> str:
    """How many of a column's questions show what its mirror has named (`_NAMED`), and how it is read: once for all rows that read it
    alike."""
    said: dict[str, dict[str, str]] = {what: {} for what in _NAMED}
    for row in results.measured_rows(column, protocol):
        found = results.found(row, column, protocol)
        one = next(iter(found.measured))
        job = one.evaluation.job
        named = results.reader.named_by_mirror(job, _NAMED)
        asked = sorted(select(one.frame, found.score, job.key12)["id"]) if any(named.values()) else []
        for what, words in _NAMED.items():
            if ids := [id for id in asked if id in named[what]]:
                said[what][row] = f"{words(ids, job.payload.get('clips', {}))} ({what} in the mirror's summary.json)"
    parts = []
    for by_row in said.values():
        alike: dict[str, list[str]] = {}
        for row, text in by_row.items():
            alike.setdefault(text, []).append(row)
        parts += [f"; {text}" if len(alike) == 1 else f"; {listed(rows)}: {text}" for text, rows in alike.items()]
    return "".join(parts)


def unzoomed(results: Results, column: str, protocol: Protocol) -> str:
    """Of the rows that zoom, how many questions of a column were answered from the whole picture or clip alone."""
    said = []
    for row in results.measured_rows(column, protocol):
        found = results.found(row, column, protocol)
        once = {one.evaluation.job.key12: one.frame for one in found.measured}  # seeds of a row without training share one evaluation
        frames = [select(frame, found.score, key) for key, frame in once.items()]
        if all(frame["unzoomed"].notna().any() for frame in frames):
            whole, asked = int(sum(frame["unzoomed"].sum() for frame in frames)), sum(frame["unzoomed"].count() for frame in frames)
            several = sum(int((frame["whole"] == SEVERAL).sum()) for frame in frames)
            why = f", {several} as they show several pictures{', the others' if several < whole else ''}" if several else ","
            want = " for want of a usable box or span" if several < whole or not several else ""
            said.append(f"; {row}: {whole} of {asked} questions were answered without zooming{why}{want} (zoom in samples.jsonl)")
    return "".join(said)


def spreads(results: Results, protocol: Protocol) -> list[str]:
    """Column by column, how far apart each row's seeds lie."""
    return [
        f"{results.title(name)} {', '.join(f'{row} {sd:.1f}' for row, sd in found.items())}"
        for name in results.columns
        if (found := results.seed_spread(name, protocol))
    ]


def answered_by(results: Results, protocol: Protocol) -> list[str]:
    """For each evaluated external system: who answered, as its evaluations recorded it."""
    notes = []
    for label, arm in results.arms.items():
        said: dict[str, None] = {}
        for name in results.columns if arm.row.external else ():
            try:
                measured = results.found(label, name, protocol).measured
            except Unmeasured:
                continue
            for one in measured:
                system, adapter = one.result.get("system") or {}, one.evaluation.job.payload["system"]["adapter"]
                names = ", ".join(system.get("answered_by") or ()) or "its checkpoint"
                where = f" at {system['host']}" if system.get("host") else ""
                said[f"answered by {names}{where}, through lmms-eval's {adapter}"] = None
        if said:
            alike = "prompt, reading and questions" if protocol == "paper" else "the questions"
            notes.append(f"{label}: {'; '.join(said)}; {alike} are those of the other rows.")
    return notes


def scale_word(results: Results) -> str:
    """For captions: a table may be copied out of its page."""
    return "; proxy scale" if results.study.profile.proxy else ""


# --- answers --------------------------------------------------------------------------------------------------------


def answer_table(results: Results, protocol: Protocol = "paper") -> Table:
    """How the answers came about: without these rates a dead latent path looks like no effect."""
    columns = []
    for name in dict.fromkeys(c.benchmark for c in results.study.columns):
        title = results.study.benchmarks[name].title
        columns += [Column("started", title), Column("truncated", title), Column("unparsed", title)]
    rows = []
    by_benchmark = {c.benchmark: c.name for c in reversed(results.study.columns)}
    order = list(dict.fromkeys(c.benchmark for c in results.study.columns))
    labels = [label for label, arm in results.arms.items() if arm.row.delta is None and not arm.silent]
    for label in ([BASE] if own_base(results) else []) + labels:
        cells: list[Cell] = []
        for benchmark in order:
            try:
                rates = results.found(label, by_benchmark[benchmark], protocol).rates
            except Unmeasured as problem:
                cells += [Cell(problem.state, note=str(problem), tone="muted")] + [Cell("–", tone="muted")] * 2
                continue
            shown: list[tuple[float | None, Tone]] = [
                (rates.started, "plain"),
                (rates.truncated, "warning" if (rates.truncated or 0) > 0.01 else "plain"),
                (rates.unparsed, "warning" if (rates.unparsed or 0) > 0.01 else "plain"),
            ]
            cells += [Cell(share(value), None if value is None else 100 * value, tone=tone) for value, tone in shown]
        rows.append(TableRow(label, tuple(cells)))
    return Table(
        f"answers-{protocol}",
        "Share of answers that opened a latent segment (<|lvr_start|> emitted), that were cut off at the limit of tokens or of "
        "latent segments, and that held no readable option letter (counted as wrong).",
        tuple(columns),
        tuple(rows),
        stub="Row",
    )
