"""A study as pages: markdown, LaTeX, HTML and a chart, each cell with what is known about it.

The last step: reads a plan and the store (and run addresses from the tracker); it makes no judgements and runs nothing.
Writers take a frozen `Report` and know nothing else. pandas, matplotlib and jinja2 are imported only here, and
only when something is drawn: `up_to_date` imports none of them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.outgoing import inert, inert_values, redact
from harness.report.numbers.fingerprint import fingerprint, of_choice, stamped
from harness.report.writers.files import replace_file
from harness.report.writers.index import more_seeds, read_article, write_index

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.report.numbers.study import Tracking
    from harness.report.sections.types import Report
    from harness.store import Store

__all__ = ["FORMATS", "paths", "render", "up_to_date", "write_index"]

ENDINGS = {
    "md": ".md",
    "main": "-main.tex",
    "tex": "-full.tex",
    "html": ".html",
    "png": ".png",
    "pdf": ".pdf",
    "json": ".json",
    "csv": ".csv",
}
"""Format -> how its file's name ends. main: the table alone, to be read by a paper; tex: everything."""
FORMATS = tuple(ENDINGS)


def paths(plan: Plan, out_dir: Path) -> dict[str, Path]:
    """Format -> the file that `render` writes."""
    from harness.report.numbers.study import report_name

    return {name: Path(out_dir) / f"{report_name(plan)}{ending}" for name, ending in ENDINGS.items()}


def up_to_date(plan: Plan, store: Store, out_dir: Path, tabular: str = "interval") -> bool:
    """Whether every file is there, was drawn from exactly these specs, results and renderer, and links to the report with more
    seeds, if there is one. tabular: as for `render`."""
    from harness.report.numbers.study import study_of

    study = study_of(plan)
    now = fingerprint(study, store)
    files = paths(plan, out_dir)
    table = files.pop("csv")  # has no place for a stamp; written with the others
    alone = stamped(files.pop("main"))
    if not table.exists() or alone != of_choice(now, tabular) or any(stamped(path) != now for path in files.values()):
        return False
    page = read_article(files["html"])
    return page is None or page.links == more_seeds(study, Path(out_dir))


def render(
    plan: Plan,
    store: Store,
    out_dir: Path,
    tracking: Tracking | None = None,
    formats: Sequence[str] = FORMATS,
    tabular: str = "interval",
) -> list[Path]:
    """Draw the report into out_dir and return its files. Cells without a result say why; nothing is left out.

    tracking: where links to runs come from; None or unreachable is said in the report. An overridden or partial plan is
    drawn into files of its own name. Characters that no installed font has are named on standard error. tabular: what
    stands beside a value in the paper's table, "interval", "half" of it after a plus-minus sign, or "none". Raises OSError
    when out_dir cannot be written.
    """
    _import_libraries()
    from harness.report.numbers.study import study_of
    from harness.report.sections.build import build

    study = study_of(plan)
    report = inert_values(replace(build(study, store, Path(out_dir), tracking), links=more_seeds(study, Path(out_dir))))
    written = []
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    for one in report.drawings:
        (Path(out_dir) / "figures").mkdir(exist_ok=True)
        for suffix, content in (("png", one.png), ("pdf", one.pdf)):
            replace_file(Path(out_dir) / "figures" / f"{one.stem}.{suffix}", content)
    if missing := _missing(report, formats):
        from harness.report.sections.fonts import lacking

        print(lacking(report.name, missing), file=sys.stderr)
    for suffix in formats:
        path = paths(plan, out_dir)[suffix]
        replace_file(path, content_of(report, suffix, tabular))
        written.append(path)
    return written


def _import_libraries() -> None:
    """Import matplotlib and pandas, whatever the environment says. matplotlib would fail at a backend or a locale that is not installed, and
    pandas's numexpr at OMP_NUM_THREADS=4,2; reports open no window and use no numexpr."""
    found = importlib.util.find_spec("matplotlib")
    own = [f"{folder}/mpl-data/matplotlibrc" for folder in (found and found.submodule_search_locations) or ()]
    settings = {"MATPLOTLIBRC": own[0] if own else "", "MPLBACKEND": "agg", "NUMEXPR_NUM_THREADS": "1", "NUMEXPR_MAX_THREADS": "1"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        import matplotlib  # noqa: F401
        import pandas  # noqa: F401
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _missing(report: Report, formats: Sequence[str]) -> str:
    """Characters in the figures that no installed font has."""
    found = "".join(one.missing for one in report.drawings)
    if {"png", "pdf"} & set(formats):
        from harness.report.writers.chart import undrawable

        found += undrawable(report)
    return "".join(sorted(set(found)))


def content_of(report: Report, suffix: str, tabular: str = "interval") -> bytes:
    """The file in one format; each writer is imported only when it is asked for."""
    if suffix in ("png", "pdf"):
        from harness.report.writers import chart

        return chart.png(report) if suffix == "png" else chart.pdf(report)
    if suffix == "md":
        from harness.report.writers.markdown import markdown

        return inert(markdown(report)).encode()
    if suffix in ("json", "csv"):
        from harness.report.writers import machine

        text = machine.as_json(report) if suffix == "json" else machine.as_csv(report)
        return text.encode()  # `render` made its texts inert; here a secret that equals a number would break the file
    if suffix == "main":
        from harness.report.writers.tabular import tabular_alone

        return redact(tabular_alone(report, tabular)).encode()
    if suffix == "tex":
        from harness.report.writers.latex import latex

        return redact(latex(report)).encode()
    from harness.report.writers.html import html

    return inert(html(report)).encode()
