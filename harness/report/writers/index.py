"""`index.html`: what was found, table by table, with a link to each table's page.

Reads what each page says of itself in a comment, so that the index costs no second look at any sample and stays small.
Tables of `experiments/` that were not rendered here are named.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.identity import digest
from harness.report.numbers.fingerprint import STAMP, renderer, stamped
from harness.report.writers.files import replace_file

if TYPE_CHECKING:
    from harness.report.numbers.study import Study
    from harness.report.sections.types import Report

_ARTICLE = re.compile(r"<!-- index: (\{.*?\}) -->")


@dataclass(frozen=True)
class Article:
    """One table's part of the index. finding: the report's conclusion. missing: cells without a value. contradicted: claims of the
    paper that fail on its own numbers. links: as in `Report`. paper: neither overridden nor partial."""

    name: str
    label: str
    title: str
    subtitle: str
    profile: str
    seeds: int
    finding: str
    missing: int
    contradicted: int
    links: dict[str, str]
    paper: bool

    @property
    def file(self) -> str:
        return f"{self.name}.html"


@dataclass(frozen=True)
class Waiting:
    """An experiment without a page. file: as a person types it."""

    label: str
    title: str
    file: str


def front_matter(report: Report) -> str:
    """What the index must know of a page, as JSON that may stand in a comment of HTML."""
    from harness.verdict import Holds  # imports numpy, which checking for current pages does not need

    tables = {section.name: section.tables for section in report.sections}
    main = tables["main"][0]
    own = [
        cell
        for row in main.rows
        if not row.label.endswith("(not a row of the paper)")
        for column, cell in zip(main.columns, row.cells)
        if column.title in ("proxy", "measured")
    ]
    own = own or [cell for table in tables["main"] for row in table.rows for cell in row.cells if cell.jobs]
    claims = [row for table in tables.get("claims", ()) for row in table.rows]
    facts = {
        "name": report.name,
        "label": report.label,
        "title": report.title,
        "subtitle": report.subtitle,
        "profile": report.profile,
        "seeds": report.seeds,
        "finding": report.conclusion or next(iter(report.headline), ""),
        "missing": sum(cell.value is None and cell.tone == "warning" for cell in own),
        "contradicted": sum(row.cells[1].display == Holds.FAILS for row in claims),
        "links": report.links,
        "paper": report.paper,
    }
    text = json.dumps(facts, ensure_ascii=True)
    return text.replace("-", "\\u002d").replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def read_article(page: Path) -> Article | None:
    """None for a file that is no table's page of this renderer."""
    found = _ARTICLE.search(page.read_text(encoding="utf-8"))
    if found is None:
        return None
    facts: dict[str, Any] = json.loads(found[1])
    if facts.keys() != {field.name for field in fields(Article)}:
        return None  # a page that an earlier version left; drawing its table again replaces it
    return Article(**facts)


def more_seeds(study: Study, folder: Path) -> dict[str, str]:
    """Words -> address, from `folder`, of the report of the same table under the same profile with the most seeds, where one
    with more than this study's lies in the folder above or in one below."""
    best: tuple[int, str] = (study.seeds, "")
    for page in (folder.parent / f"{study.name}.html", *sorted(folder.glob(f"*/{study.name}.html"))):
        if page.is_file() and (found := read_article(page)) and found.profile == study.profile_name and found.seeds > best[0]:
            best = (found.seeds, os.path.relpath(page, folder))
    return {f"The same table with {best[0]} seeds": best[1]} if best[1] else {}


def index_fingerprint(
    pages: Iterable[Path], specs: Iterable[Path], samples: Iterable[Path] = (), inner: Iterable[Path] = ()
) -> str:
    """Of what the index is made from; reads only the pages' stamps."""
    return digest(
        {
            "renderer": renderer(),
            "pages": {page.name: stamped(page) or "" for page in pages},
            "samples": [page.name for page in samples],
            "inner": {f"{page.parent.name}/{page.name}": stamped(page) or "" for page in inner},
            "specs": {spec.name: hashlib.sha256(spec.read_bytes()).hexdigest() for spec in specs},
        }
    )


def write_index(reports: Path, experiments: Path) -> tuple[Path, bool]:
    """Write `index.html` of all pages in `reports`, in the order of the specs in `experiments`; (file, whether it changed).

    Raises OSError when it cannot be written.
    """
    path = reports / "index.html"
    pages = sorted(page for page in reports.glob("*.html") if page != path)
    specs = sorted(experiments.glob("*.yaml"))
    samples = sorted((reports / "samples").glob("*.html"))
    inner = sorted(page for found in reports.glob("*/index.html") for page in found.parent.glob("*.html"))
    now = index_fingerprint(pages, specs, samples, inner)
    if stamped(path) == now:
        return path, False
    from harness.report.writers.html import environment

    articles = [article for page in pages if (article := read_article(page)) is not None]
    order, waiting = _known(specs, {article.name for article in articles})
    articles.sort(key=lambda article: order.get(article.name, len(order)))
    text = environment().get_template("index.html.j2").render(
        stamp=f"{STAMP} {now}",
        articles=[article for article in articles if article.paper],
        others=[article for article in articles if not article.paper],
        waiting=waiting,
        samples=[page.stem for page in samples],
        also=_also(inner),
    )
    replace_file(path, text.encode())
    return path, True


def _also(inner: Iterable[Path]) -> dict[str, list[Article]]:
    """Folder -> its tables: folders of `reports` that are reports of their own, as of the same table with other seeds."""
    found: dict[str, list[Article]] = {}
    for page in inner:
        if page.name != "index.html" and (article := read_article(page)) is not None:
            found.setdefault(page.parent.name, []).append(article)
    return found


def _known(specs: Iterable[Path], rendered: set[str]) -> tuple[dict[str, int], list[Waiting]]:
    """Report name -> its place, tables before figures before controls; and the experiments without a page."""
    from harness.spec.files import load_experiment
    from harness.spec.text import shown

    loaded = [(path, load_experiment(path).value) for path in specs]
    loaded.sort(key=lambda one: ("table", "figure", "controls").index(one[1].kind))
    order = {spec.slug: place for place, (_, spec) in enumerate(loaded)}
    missing = [
        Waiting(f"{spec.kind.capitalize()} {spec.name}", spec.title, shown(path))
        for path, spec in loaded
        if spec.slug not in rendered
    ]
    return order, missing
