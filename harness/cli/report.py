"""`run.py report FILE…`: redraw the reports from stored results; nothing is run."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.main import add_selection, folder_name, plans
from harness.cli.names import check_names
from harness.cli.screen import screen
from harness.cli.stored import damage, open_store
from harness.cli.words import command, listed
from harness.spec.errors import SpecError

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.store import Store


REPORTS = "default: reports; for a profile other than proxy: reports/PROFILE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--reports", type=folder_name, metavar="DIR", help=REPORTS)
    parser.add_argument(
        "--tabular", choices=("interval", "half", "none"), default="interval",
        help="what follows a value in NAME-main.tex: its interval, ± half its width, or nothing (default: interval)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="redraw reports that are up to date, too")
    parser.add_argument("--empty", action="store_true", help="allow a report with values to be replaced by one without any")


def main(options: argparse.Namespace) -> int:
    from harness.cli.run import ensure_writable
    from harness.cli.tracking import tracker
    from harness.plan import merged

    reports = reports_folder(options)
    store = open_store(options.results)
    made = plans(options)
    check_names(made, store, reports)
    with store.one_look():
        if not options.empty:
            keep_values(made, store, reports, options)
        ensure_writable(reports)
        damaged = damage(store, merged(made))
        write(made, store, reports, tracker(store), force=options.force, tabular=options.tabular)
    print("\n".join(damaged), end="\n" * bool(damaged), file=sys.stderr)
    return 2 if damaged else 0


def keep_values(made: list[Plan], store: Store, reports: Path, options: argparse.Namespace) -> None:
    """Raises SpecError where a report with values would be replaced by one without any: most likely this is the wrong store."""
    from harness.report import paths
    from harness.store.integrity import NOT_DONE

    emptied = []
    for plan in made:
        results = (job for cell in plan.cells for job in cell.jobs.values())
        if all(store.examined(job) == NOT_DONE for job in results) and shows_values(paths(plan, reports)["json"]):
            emptied.append(str(paths(plan, reports)["html"]))
    if emptied:
        what = "holds no result of these tables" if options.results.is_dir() else "no such results folder"
        again = command(*options.files, profile=options.profile)
        raise SpecError(
            f"{options.results}: {what}, and {listed(emptied)} would lose every value; name the folder with the results (--results DIR), "
            f"compute them ({again}), or say --empty"
        )


def shows_values(report: Path) -> bool:
    """Whether a report's JSON file has a value in any cell."""
    try:
        return any(cell["value"] is not None for cell in json.loads(report.read_text(encoding="utf-8"))["cells"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def write(made: list[Plan], store: Store, reports: Path, tracking: Any = None, force: bool = False, tabular: str = "interval") -> None:
    """Draws reports that are out of date, then the index page, and prints where they are."""
    from harness.report import paths, render, up_to_date, write_index
    from harness.spec.files import EXPERIMENTS

    for plan in made:
        current = not force and up_to_date(plan, store, reports, tabular)
        current = current and not reachable_again(paths(plan, reports)["md"], tracking)
        if not current:
            gc.enable()  # a drawn report leaves hundreds of MiB in reference cycles
            render(plan, store, reports, tracking, tabular=tabular)
        files = paths(plan, reports)
        print(screen(json.loads(files["json"].read_text(encoding="utf-8"))))
        others = ", ".join(path.name.removeprefix(plan.name) for name, path in files.items() if name != "html")
        print(f"\n{'unchanged' if current else 'written'}: {files['html']}\n  beside it: {others}\n")
    index, changed = write_index(reports, EXPERIMENTS)
    print(f"{'written' if changed else 'unchanged'}: {index}, what was found, table by table")


def reachable_again(markdown: Path, tracking: Any) -> bool:
    """Whether the report says that MLflow could not be reached, and now it can."""
    if tracking is None or "MLflow could not be reached" not in markdown.read_text(encoding="utf-8"):
        return False
    try:
        tracking.links([])
    except OSError:
        return False
    return True


def reports_folder(options: argparse.Namespace) -> Path:
    """Where reports go: the default profile's into reports/, which is committed; others into a folder in it."""
    if options.reports is not None:
        return options.reports
    profile = Path(options.profile).stem
    return Path("reports") if profile == "proxy" else Path("reports") / profile
