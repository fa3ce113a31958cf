"""Whether a table's name is unique. Reports and registrations are named after it, so a copied spec file that keeps the name would overwrite them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.spec.errors import SpecError
from harness.spec.files import EXPERIMENTS, REPOSITORY, load_experiment, written_in

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.store import Store


def check_names(made: Sequence[Plan], store: Store, reports: Path) -> None:
    """Raises SpecError, with a line for each table whose name belongs to another spec file that still exists."""
    lines, owners = [], dict[str, str]()
    for plan in made:
        path, spec = plan.experiment.document.path, plan.experiment.value
        mine = written_in(path)
        claimed = [(owners.setdefault(plan.name, mine), "both would write the same report"), *taken(plan, store, reports)]
        other = next(((owner, what) for owner, what in claimed if owner != mine and there(owner, path)), None)
        if other is not None:
            lines.append(
                f'{plan.experiment.place(spec.kind)}: "{spec.name}" is the name of {other[0]}, and {other[1]}; '
                f'choose another, as in {spec.kind}: "{spec.name}-mine"'
            )
    if lines:
        raise SpecError("\n".join(lines))


def taken(plan: Plan, store: Store, reports: Path) -> Iterator[tuple[str, str]]:
    """(spec file that already uses the plan's name, what would happen to its report or registration)"""
    from harness.plan.registration import FOLDER, name_of, registrations
    from harness.report import paths

    report = paths(plan, reports)["json"]
    try:
        known = json.loads(report.read_text(encoding="utf-8"))
        owner = str(known["spec"]) if "spec" in known else of_project(plan.experiment.value.slug)
        yield owner, f"its report would be replaced ({report.with_suffix('.html')})"
    except (OSError, ValueError, TypeError):
        pass
    if earlier := registrations(store.root / FOLDER / name_of(plan)):
        yield earlier[-1].file, "its registration would be changed"


def of_project(slug: str) -> str:
    """The project's own experiment of that name: it owns a report that does not name its spec file."""
    files = sorted(EXPERIMENTS.glob("*.yaml"))
    return next((written_in(path) for path in files if load_experiment(path).value.slug == slug), "")


def there(owner: str, path: Path) -> bool:
    """Whether the other spec file still exists; one that was renamed or moved has given its name away."""
    folders = [REPOSITORY, *path.resolve().parents[1:2]]
    return bool(owner) and any((folder / owner).is_file() for folder in folders)
