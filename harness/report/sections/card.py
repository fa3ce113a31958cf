"""The causal card of each row with latents, and the sentence that sums it up."""

from __future__ import annotations

from collections.abc import Mapping

from harness.report.numbers.card import Card, Effect, cards
from harness.report.numbers.results import Results
from harness.report.sections.likelihood import bounds, nats
from harness.report.sections.tables import scale_word
from harness.report.sections.types import Cell, Column, Section, Table, TableRow, Tone
from harness.report.sections.words import (
    count,
    interval,
    listed,
    p_value,
    percent,
    scaled,
    signed,
    signed_interval,
    with_p,
)
from harness.stats import Comparison
from harness.verdict.claims import LEVEL, shown_p

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Latents replaced (accuracy, against own latents)": {
        "zeroed": "zeros",
        "noise": "noise of the own latents' norm",
        "another": "another question's latents",
        "oracle": "the true box's latents",
        "markers": "the markers alone, no latent step",
        "none": "no latent segment",
    },
    "Input to latent (movement; 1 is the distance between two questions)": {"evidence": "evidence painted over, against a region elsewhere"},
    "Latent to answer (share that gives the twin's right letter)": {"twin": "fed the twin's latents, against another question's", "twin hidden": "the same, the picture masked before the answer"},
    "Picture masked before the answer (accuracy)": {"hidden": "own latents, against another question's"},
    "Linear probe on each latent (held-out accuracy, mean over latents, against the commonest class)": {
        "probe answer": "the right letter",
        "probe option": "the right option's words",
        "probe place": "the ninth of the picture where the box lies",
    },
}
PROBED = {"answer": "the right letter", "option": "the right option", "place": "the place of the evidence"}
NOTES = (
    ("One trained model, its first seed; every question decoded with its segment forced open, so these accuracies are not those of the "
    "main table. Nats: the same difference in log-likelihood (over the options) of the right letter; for the twin, of the twin's. "
    "Bold: p ≤ 0.05 after Holm over the card. Own latents against another question's is the fair test: zeros and noise are inputs that no training saw."),
    ("With the picture masked, the question's own tokens have still seen it, so accuracy above guessing is not the latents' alone; the "
    "difference between own and another question's latents is."),
)


def card_sections(results: Results) -> list[Section]:
    """One folded section, a table a row; nothing where the table asks for no card."""
    found = cards(results)
    if not found:
        return []
    tables = [card_table(label, card, results) for (label, _), card in found.items() if isinstance(card, Card)]
    sentences = [f"{label}: {summary(card) if isinstance(card, Card) else f'no card, {card}'}" for (label, _), card in found.items()]
    return [Section("Causal cards", text=(*sentences, *NOTES), tables=tuple(tables), folded=True, name="cards")]


def card_answer(results: Results) -> str:
    """In how many rows each link of the chain from picture to answer is shown."""
    found = [card for card in cards(results).values() if isinstance(card, Card)]
    if not found:
        return ""
    parts = []
    for name, words in (
        ("evidence", "latents move more with the evidence than with another region"),
        ("another", "accuracy falls with another question's latents"),
        ("twin", "the answer follows a twin's latents"),
    ):
        known = [card for card in found if name in card.tests]
        holding = [card for card in known if shown(card, name) and risen(card, name) == (name != "another")]
        if known:
            parts.append(f"{words} in {len(holding)} of {count(len(known), 'card')}")
    return f"{'; '.join(parts)}." if parts else ""


def shown(card: Card, name: str) -> bool:
    return name in card.tests and card.adjusted[name] <= LEVEL


def risen(card: Card, name: str) -> bool:
    """Whether the intervention is shown to lie above its control."""
    return shown(card, name) and card.tests[name].difference.difference > 0


def summary(card: Card) -> str:
    """What the card says of the chain picture -> latents -> answer, in one sentence. Where nothing is shown it says that, with the
    numbers: few questions show little. Every p is after Holm over the card."""
    parts, p = [], card.adjusted
    if (moved := card.tests.get("evidence")) is not None:
        verb = "move more" if risen(card, "evidence") else "are not shown to move more"
        parts.append(f"latents {verb} with the evidence than with another region ({moved.value.mean:.2f} against {moved.control.mean:.2f}, {shown_p(p['evidence'])})")
    if (other := card.tests.get("another")) is not None:
        verb = "depends" if shown(card, "another") else "is not shown to depend"
        parts.append(f"accuracy {verb} on whose they are (with another question's {with_p(other.difference, p['another'])})")
    if (twin := card.tests.get("twin")) is not None:
        verb = "follows" if risen(card, "twin") else "is not shown to follow"
        parts.append(f"the answer {verb} a twin's ({_against(twin)}, {shown_p(p['twin'])})")
        if risen(card, "twin hidden") and not risen(card, "twin"):
            parts.append(f"it does once the picture is masked ({_against(card.tests['twin hidden'])}, {shown_p(p['twin hidden'])})")
    if (markers := card.tests.get("markers")) is not None:
        verb = "changes" if shown(card, "markers") else "is not shown to change"
        parts.append(f"with the markers alone accuracy {verb} ({with_p(markers.difference, p['markers'])})")
    probes = {name: words for name, words in PROBED.items() if f"probe {name}" in card.tests}
    if probes:
        read = [words for name, words in probes.items() if risen(card, f"probe {name}")]
        parts.append(f"a linear probe reads {listed(read)} from them" if read else f"no linear probe is shown to read {listed(list(probes.values()), 'or')} from them")
    return f"{'; '.join(parts)}."


def _against(test: Effect) -> str:
    return f"{percent(test.value.mean)} % against {percent(test.control.mean)} %"


def card_table(label: str, card: Card, results: Results) -> Table:
    rows = [
        TableRow(words, _cells(card.tests[name], card.adjusted[name], _note(card, name)), group=group)
        for group, lines in GROUPS.items()
        for name, words in lines.items()
        if name in card.tests
    ]
    cosine = card.cosine
    rank, spread, most = card.rank
    blank = Cell("–", tone="muted")
    rows += [
        TableRow("cosine between questions on different pictures", (Cell(f"{cosine.mean:.3f}", cosine.mean, f"[{cosine.interval.low:.3f}, {cosine.interval.high:.3f}]"), blank, blank, blank), group="Collapse"),
        TableRow("effective rank (rises with the number of questions: compare cards of as many)", (Cell(f"{rank:.1f}", rank, f"[{spread.low:.1f}, {spread.high:.1f}]" if spread else ""), Cell(f"at most {most}"), blank, blank), group="Collapse"),
    ]
    asked = "generated twin questions" if card.name == "twins" else f"questions of {results.study.benchmarks[card.name].title if card.name in results.study.benchmarks else card.name}"
    return Table(
        f"card-{card.name}-{list(results.arms).index(label)}",
        f"{label}: {len(card.questions):,} {asked}, {percent(card.own.mean)} % {interval(card.own.interval)} right with own latents{scale_word(results)}.",
        (Column("with it"), Column("control"), Column("difference"), Column("nats")),
        tuple(rows),
        stub="Intervention",
        notes=tuple(_lacking(card)),
    )


def _cells(test: Effect, adjusted: float, note: str) -> tuple[Cell, ...]:
    tone: Tone = "strong" if adjusted <= LEVEL else "plain"
    p = f" p {p_value(adjusted).replace('<', '< ')}"
    if test.share:
        value, control = (Cell(percent(one.mean), 100 * one.mean, interval(one.interval), scaled(one.interval), n=one.n, note=note) for one in (test.value, test.control))
        c = test.difference
        apart = Cell(signed(c.difference), 100 * c.difference, f"{signed_interval(c.interval)}{p}", scaled(c.interval), n=c.n, clusters=c.clusters, tone=tone)
    else:
        value, control = (Cell(f"{one.mean:.2f}", one.mean, bounds(one.interval), one.interval, n=one.n) for one in (test.value, test.control))
        apart = _plain(test.difference, p, tone)
    return value, control, apart, _plain(test.nats) if test.nats else Cell("–", tone="muted")


def _plain(c: Comparison, p: str = "", tone: Tone = "plain") -> Cell:
    return Cell(nats(c.difference, sign=True), c.difference, f"{bounds(c.interval, sign=True)}{p}", c.interval, n=c.n, clusters=c.clusters, tone=tone)


def _note(card: Card, name: str) -> str:
    if not name.startswith("probe "):
        return ""
    return "latent by latent: " + ", ".join(percent(value) for value in card.by_step(name.removeprefix("probe ")))


def _lacking(card: Card) -> list[str]:
    """What these questions do not allow."""
    said = []
    if "twin" not in card.tests:
        said.append("no two neighbouring questions are twins (same words and options, another picture, another answer), so latents were not transplanted")
    if "evidence" not in card.tests:
        said.append("no question has an evidence box of at most a quarter of its picture, so no region was painted over")
    if "oracle" not in card.tests:
        said.append("the true box's latents are not defined for this row or these questions")
    missing = [name for name in ("answer", "option", "place") if f"probe {name}" not in card.tests]
    if missing:
        said.append(f"too few questions a class for a probe of {listed(missing)}")
    return [f"Not possible here: {'; '.join(said)}."] if said else []
