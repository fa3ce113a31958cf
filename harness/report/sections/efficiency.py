"""Table 3(e): what latent steps cost, counted for the 7B configuration and timed on the row's own checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from scipy import stats

from harness.report.numbers.results import Results
from harness.report.numbers.values import JobRef
from harness.report.sections.types import Cell, Chart, Column, Mark, Panel, Section, Table, TableRow
from harness.report.sections.words import count, listed
from harness.stats import Interval

LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """Geometric mean of paired ratios, with its 95 % t-interval on the log scale."""

    value: float
    interval: Interval

    @classmethod
    def of(cls, above: Sequence[float], below: Sequence[float]) -> Ratio:
        """ValueError for fewer than two pairs."""
        logs = [math.log(a / b) for a, b in zip(above, below, strict=True)]
        half = stats.t.ppf((1 + LEVEL) / 2, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
        middle = fmean(logs)
        return cls(math.exp(middle), Interval(math.exp(middle - half), math.exp(middle + half), LEVEL))

    @property
    def more(self) -> str:
        """+43 % [+41, +45]."""
        return f"{self.percent(self.value)} % [{self.percent(self.interval.low)}, {self.percent(self.interval.high)}]"

    @staticmethod
    def percent(ratio: float) -> str:
        return f"{100 * (ratio - 1):+.0f}"


def ratios(timing: Mapping[str, Any]) -> tuple[Ratio, Ratio]:
    """(the whole answer, decoding alone: without reading the prompt). Latent over baseline, repeat by repeat."""
    prefill = median(timing["prefill"])
    rest = [[max(t - prefill, 1e-9) for t in timing[name]] for name in ("latent", "baseline")]
    return Ratio.of(timing["latent"], timing["baseline"]), Ratio.of(*rest)


def efficiency_sections(results: Results) -> tuple[list[str], list[Section], Chart | None]:
    """Headline, sections and chart of an experiment with `measure`."""
    wanted = results.study.experiment.measure
    assert wanted is not None
    headline: list[str] = []
    sections: list[Section] = []
    drawn: Chart | None = None
    for label, arm in results.arms.items():
        job = next((e.job for found in arm.evaluations.values() for e in found), None)
        if job is None or not results.store.is_done(job):
            why = arm.absent or arm.undefined or (str(results.store.status(job)) if job else "no job is planned")
            rows = tuple(
                TableRow(q.title, (Cell(q.baseline), Cell(q.ours), Cell("not run", note=f"not run: {why}", tone="warning")))
                for q in wanted.reported
            )
            headline.append(f"{label}: not measured yet ({why}).")
            sections.append(Section("", tables=(_table(results, label, rows),), name="main"))
            continue
        found = json.loads((results.store.outputs(job) / "measure.json").read_text())
        ref = (results.job_ref(job, None),)
        rows = tuple(
            TableRow(q.title, (Cell(q.baseline), Cell(q.ours), counted(q.of, found, ref))) for q in wanted.reported
        )
        headline += sentences(found, results.study.profile.proxy)
        drawn = drawn or latency_chart(results, found)
        sections.append(Section("", tables=(_table(results, label, rows), latency_table(found, ref)), name="main"))
    return headline, sections, drawn


def latency_chart(results: Results, found: Mapping[str, Any]) -> Chart:
    """How much longer an answer takes, by answer length, with the paper's own arithmetic beside it."""
    answers = sorted({timing["answer"] for timing in found["timings"]})
    labels, steps = {answer: f"{answer} tokens" for answer in answers}, found["latent_steps"]
    panels = []
    for prompt in dict.fromkeys(timing["prompt"] for timing in found["timings"]):
        measured, printed = [], []
        for timing in (t for t in found["timings"] if t["prompt"] == prompt):
            whole, label = ratios(timing)[0], labels[timing["answer"]]
            bounds = Interval(100 * (whole.interval.low - 1), 100 * (whole.interval.high - 1), LEVEL)
            measured.append(Mark(label, 100 * (whole.value - 1), bounds, f"+{100 * (whole.value - 1):.0f} %"))
            share = 100 * steps / timing["answer"]
            printed.append(Mark(label, share, text=f"+{share:.0f} %"))
        panels.append(Panel(f"prompt of {prompt} tokens", tuple(measured), tuple(printed)))
    spec = results.study.experiment
    return Chart(
        f"{spec.kind.capitalize()} {spec.name}: {spec.title}",
        tuple(labels.values()),
        tuple(panels),
        f"Measured here: extra time of a whole answer with S = {steps} latent steps, 95 % interval",
        f"The paper's arithmetic: S = {steps} over the answer's tokens",
        f"in percent · {found['device']} · {results.study.recipe_text} · profile {results.study.profile_name}",
        x=tuple(map(float, answers)),
        x_label="tokens of the answer",
    )


def _table(results: Results, label: str, rows: tuple[TableRow, ...]) -> Table:
    columns = (Column("baseline", "paper", False), Column(label, "paper", False), Column(label, "here", False))
    small = " (proxy scale: a tiny model)" if results.study.profile.proxy else ""
    return Table(
        "main-paper",
        "Inference efficiency. Counts are of the 7B configuration, exact, with no weights; latency is of this profile's own "
        f"checkpoint{small}.",
        columns,
        rows,
        stub="Metric",
    )


def counted(of: str, found: Mapping[str, Any], ref: tuple[JobRef, ...]) -> Cell:
    """One line of the table, from the counts of the 7B configuration or this checkpoint's timings."""
    full = found["full_size"]
    heads, step = full["heads"], full["step_flops"]
    if of == "resamplers":
        text, note = "none", "decoding never calls BCM or DAC; a checkpoint is loaded without them"
    elif of == "parameters":
        text = f"{heads / 1e6:.2f}M (+{heads / full['language']:.2%})"
        note = (
            f"{heads:,} over the language model's {full['language']:,} without lm_head; of the whole checkpoint's "
            f"{full['parameters']:,} it is {heads / full['parameters']:.2%}"
        )
    elif of == "memory":
        text = f"{full['heads_bf16_mib']:.2f} MiB (+{heads / full['parameters']:.2%})"
        note = (
            "only if the heads are loaded, which decoding does not need. The share is of the whole checkpoint in bf16; "
            f"of the language model without lm_head it is {heads / full['language']:.2%}"
        )
    elif of == "flops":
        extra = full["step_flops_with_heads"] - step
        text, note = str(extra), f"a decoding step has {step:,} FLOPs at {full['context']} tokens, with the heads or without"
    elif of == "steps":
        steps = found["latent_steps"] + 2
        text = f"{steps} forwards (S = {found['latent_steps']} and two boundary tokens)"
        note = f"{steps * step:,} FLOPs, {steps * step / full['prefill_flops']:.1%} of reading {full['context']} tokens"
    elif of == "mechanism":
        text, note = "the last hidden state is the next input", "KV-cached, one forward a step, like any token"
    else:
        low, high = _range([ratios(t)[0] for t in found["timings"]])
        text, note = f"{low} % to {high} %", "of the whole answer; each with its interval in the table below"
    return Cell(text, note=note, jobs=ref)


def _range(found: Sequence[Ratio]) -> tuple[str, str]:
    values = sorted(found, key=lambda ratio: ratio.value)
    return Ratio.percent(values[0].value), Ratio.percent(values[-1].value)


def latency_table(found: Mapping[str, Any], ref: tuple[JobRef, ...]) -> Table:
    rows = []
    steps = found["latent_steps"]
    for timing in found["timings"]:
        whole, decoding = ratios(timing)
        answer = timing["answer"]
        rows.append(
            TableRow(
                f"{answer} tokens after a prompt of {timing['prompt']}",
                (
                    Cell(f"{1000 * median(timing['baseline']):.1f}", 1000 * median(timing["baseline"])),
                    Cell(f"{1000 * median(timing['latent']):.1f}", 1000 * median(timing["latent"])),
                    *(Cell(r.more, 100 * (r.value - 1), jobs=ref, n=len(timing["baseline"])) for r in (whole, decoding)),
                    Cell(f"+{100 * steps / answer:.0f} %", 100 * steps / answer),
                    Cell(f"+{100 * (steps + 2) / answer:.0f} %", 100 * (steps + 2) / answer),
                ),
            )
        )
    repeats = len(found["timings"][0]["baseline"])
    return Table(
        "latency",
        f"Latency with S = {steps} latent steps over the same answer without, {repeats} paired repeats, 95 % interval; "
        f"{found['device']}, {count(found['threads'], 'thread')}, {found['precision']}, "
        f"{found.get('attention', 'sdpa')} attention, batch 1.",
        (
            Column("ms, without"), Column("ms, with"), Column("whole answer", "measured increase"),
            Column("decoding alone", "measured increase"), Column("S / tokens", "arithmetic"),
            Column("(S + 2) / tokens", "arithmetic"),
        ),
        tuple(rows),
        stub="Answer",
        notes=(
            "S / tokens is the paper's arithmetic: 8/10 = 80 %, and 8/32 = 25 % for 30 tokens and two boundary tokens.",
            "The whole answer includes reading the prompt, which latent steps do not lengthen: the longer the prompt, the smaller the increase.",
            ("Milliseconds are medians, of this device and this checkpoint; an increase is the geometric mean of the repeats' own "
            "ratios, and only that says something about another."),
        ),
    )  # fmt: skip


def sentences(found: Mapping[str, Any], proxy: bool) -> list[str]:
    full = found["full_size"]
    by_prompt = {t["prompt"]: [x for x in found["timings"] if x["prompt"] == t["prompt"]] for t in found["timings"]}
    spans = []
    for prompt, timings in by_prompt.items():
        ends = [timings[0], timings[-1]]
        spans.append(
            f"after a prompt of {prompt}: "
            + listed([f"{ratios(t)[0].more} for {t['answer']} tokens ({ratios(t)[1].more} of decoding alone)" for t in ends])
        )
    return [
        (f"BCM and DAC: {full['heads']:,} parameters, {full['heads_bf16_mib']:.2f} MiB in bf16: "
        f"{full['heads'] / full['language']:.2%} of the language model without lm_head, {full['heads'] / full['parameters']:.2%} of "
        "the whole checkpoint. They add no FLOP to a decoding step."),
        f"The paper's 25 % to 80 % is arithmetic, S over the answer's tokens. Measured on {found['device']} "
        f"{'at proxy scale, with a tiny model' if proxy else 'with this checkpoint'}: " + "; ".join(spans) + ".",
    ]
