"""A report as one HTML page that needs nothing else: style, script and chart are inside."""

from __future__ import annotations

import base64
import hashlib
import io
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness.report.numbers.fingerprint import STAMP
from harness.report.sections.types import Cell, Column, Report
from harness.report.sections.words import LINKS, share
from harness.report.writers.chart import WIDTHS, svg
from harness.report.writers.index import front_matter
from harness.report.writers.signs import with_signs

FRONT = ("main", "answers")
"""The sections above the drawings."""


def html(report: Report) -> str:
    """The whole page."""
    drawings = [(one, base64.b64encode(reduced(one.png)).decode()) for one in report.drawings]
    chart = [(width, Markup(svg(report.chart, width))) for width in WIDTHS] if report.chart else []
    return environment().get_template("page.html.j2").render(
        report=report,
        chart=chart,
        drawings=drawings,
        stamp=f"{STAMP} {report.fingerprint}",
        front=FRONT,
        links=LINKS,
        front_matter=Markup(front_matter(report)),
        **trusted_script("page.js"),
    )


def trusted_script(*names: str) -> dict[str, Any]:
    """The scripts of a page and the digest by which its security policy lets them run: nothing else that a page holds can."""
    text = "\n" + "".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"script": Markup(text), "script_digest": f"sha256-{digest}"}


def reduced(png: bytes) -> bytes:
    """As JPEG, which for noisy pictures is a fifth of the size; a page holds several. The PNG is saved beside the
    page."""
    from PIL import Image

    content = io.BytesIO()
    with Image.open(io.BytesIO(png)) as drawn:
        drawn.convert("RGB").save(content, format="JPEG", quality=80, subsampling=0, optimize=True, progressive=True)
    return content.getvalue()


@cache
def environment() -> jinja2.Environment:
    """Where the templates are, and what they may call."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters.update(heads=heads, grouped=grouped, facts=facts, with_signs=with_signs)
    return made


def heads(columns: tuple[Column, ...]) -> list[tuple[str, int, str]]:
    """(group, width, its first column's note) over neighbouring columns."""
    found = []
    for group, neighbours in groupby(columns, key=lambda column: column.group):
        members = list(neighbours)
        found.append((group, len(members), members[0].note))
    return found


def grouped(rows):
    """(group, rows) in order."""
    return [(group, list(members)) for group, members in groupby(rows, key=lambda row: row.group)]


def facts(cell: Cell) -> list[tuple[str, str]]:
    """What a click on a cell opens, as (name, text)."""
    found: list[tuple[str, str]] = []
    if cell.interval is not None:
        found.append((f"{100 * cell.interval.level:.0f} % interval", f"{cell.interval.low:.2f} to {cell.interval.high:.2f}"))
    if cell.n:
        clusters = f" in {cell.clusters:,} images" if cell.clusters and cell.clusters != cell.n else ""
        found.append(("Questions", f"{cell.n:,}{clusters}"))
    if cell.seeds:
        spread = f", sd between them {cell.seed_sd:.2f}" if cell.seed_sd is not None else ""
        found.append(("Seeds", f"{cell.seeds}{spread}"))
    if cell.reported:
        found.append(("Paper", cell.reported))
    if cell.verdict is not None:
        found.append(("Verdict", cell.verdict.text))
    if cell.rates is not None:
        rates = cell.rates
        steps = f" ({rates.latent_steps:.1f} steps)" if rates.latent_steps else ""
        found.append(("Latent segment opened", share(rates.started) + steps))
        found.append(("Cut off / unreadable", f"{share(rates.truncated)} / {share(rates.unparsed)}"))
    if cell.note and (cell.verdict is None or cell.note != cell.verdict.text):
        found.append(("Note", cell.note))
    return found
