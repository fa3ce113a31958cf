"""`run.py diff A B`: how two recipes or rows differ, option by option; or how two stores, or two runs of a table, differ."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.cli import runs
from harness.cli.main import add_json, add_results
from harness.cli.words import as_json, columns
from harness.plan.plan import reading
from harness.spec.errors import SpecError, meant, unknown
from harness.spec.files import load_experiment, load_profile, load_recipe
from harness.spec.recipe import OPTIONS, STAGES
from harness.spec.resolve import Value, base, recipe_of, resolve

ABSENT = "–"
_LOSS_OR_LENGTH = re.compile(r"\.(lambda\w*|steps|lr|teacher|slot_fill)$")
Side = tuple[str, Mapping[str, Value]]
"""A name and the options."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "a recipe (name or file), a row as FILE:ROW (experiments/table3c.yaml:Joint), a results folder, or a report's JSON file"
    parser.add_argument("a", metavar="A", help=text)
    parser.add_argument("b", metavar="B", help="the same; a row of A's file may be written as :ROW")
    parser.add_argument("--table", nargs="+", action="extend", metavar="FILE", help="with two results folders: compare this table's cells instead of all jobs")
    parser.add_argument("--all", action="store_true", help="list every option of a stage that only one side has, not just its losses and length")
    parser.add_argument("--profile", metavar="P", help="under this profile (default: the paper's own scale; with --table: proxy)")
    add_json(parser)
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    if options.table or runs.is_run(options.a) or runs.is_run(options.b):
        text, data = runs.main(options)
        print(as_json(data) if options.json else text)
        return 0
    file = options.a.partition(".yaml:")[0] + ".yaml" if ".yaml:" in options.a else ""
    second = file + options.b if options.b.startswith(":") else options.b
    left, right = side(options.a, options.profile), side(second, options.profile)
    print(as_json(record(left, right)) if options.json else difference(left, right, everything=options.all))
    return 0


def side(text: str, profile: str | None) -> Side:
    """A recipe's or a row's options. Raises SpecError."""
    scale = load_profile(profile) if profile else None
    path, is_row, label = text.partition(".yaml:")
    if not is_row:
        recipe = load_recipe(text)
        if "rows" in recipe.data:
            raise SpecError(f'{text}: is a table; name one of its rows, as in "{text}:{next(iter(row_labels(recipe.data)), "ROW")}"')
        values = base(recipe, scale).untouched
        silent = STAGES.keys() - recipe.data.keys()  # stages of another method
        return text, {name: value for name, value in values.items() if name.split(".")[0] not in silent}
    experiment = load_experiment(Path(f"{path}.yaml"))
    labels = [row.label for row in experiment.value.rows]
    found = meant(label, labels)
    if len(found) != 1:
        raise SpecError(f"{experiment.document.name}: " + unknown(f'no row "{label}"', label, labels, "rows"))
    index = labels.index(found[0])
    scale = scale and reading(scale, (column.benchmark for column in experiment.value.columns))
    row = resolve(experiment, index, base(recipe_of(experiment, index), scale))
    stages = row.row.stages or ()
    kept = {n: v for n, v in row.values.items() if n.split(".")[0] not in STAGES or n.split(".")[0] in stages}
    return found[0], {"stages": Value(list(stages), "row", experiment.where("rows", index)), **kept}


def row_labels(data: Any) -> Iterator[str]:
    """Labels in the text of a table that is not validated yet."""
    rows = data["rows"]
    yield from (str(label) for row in (rows if isinstance(rows, list) else ()) if isinstance(row, dict) for label in row)


def difference(left: Side, right: Side, *, everything: bool = False) -> str:
    """One line for each option that differs; an option that differs in the same way in every stage is listed once. For a stage that
    only one side has, its losses and length are shown, with a dash for the other side. everything: all its options."""
    from harness.cli.explain import text

    (a, ours), (b, theirs) = left, right
    names = ["stages"] * ("stages" in ours) + [name for name in ours if name in theirs and name != "stages"]
    pairs: dict[str, tuple[str, str]] = {}
    for name in names:
        one, other = (_shown(values.get(name), text) for values in (ours, theirs))
        if one.rstrip("*") != other.rstrip("*"):
            pairs[name] = (one, other)
    for option in dict.fromkeys(name.partition(".")[2] for name in pairs if "." in name):
        everywhere = [f"{section}.{option}" for section, options in OPTIONS.items() if option in options]
        everywhere = [name for name in everywhere if name in names]
        if len(everywhere) > 1 and len({pairs.get(name) for name in everywhere}) == 1 and everywhere[0] in pairs:
            same = pairs[everywhere[0]]
            pairs = {
                (option if n == everywhere[0] else n): p
                for n, p in pairs.items()
                if n == everywhere[0] or n not in everywhere
            }
            pairs[option] = same
    alone = {name: (_shown(value, text), ABSENT) for name, value in lone(ours, theirs)}
    alone |= {name: (ABSENT, _shown(value, text)) for name, value in lone(theirs, ours)}
    shown = {name: pair for name, pair in alone.items() if everything or _LOSS_OR_LENGTH.search(name)}
    pairs |= shown
    if not pairs:
        return f"{a} and {b} do not differ"
    table = columns([("", a, b), *((name, *values) for name, values in pairs.items())])
    marked = any(cell.endswith("*") for values in pairs.values() for cell in values)
    rest = len(alone) - len(shown)
    more = f"\n  and {rest} more options of stages that only one side has (--all lists them)" if rest else ""
    return table + more + ("\n  * assumed: the source does not state it, so the value is ours" if marked else "")


def record(left: Side, right: Side) -> dict[str, Any]:
    """As JSON: every option that differs, including options of a stage that only one side has. only: that side, or null."""
    (a, ours), (b, theirs) = left, right
    alone = {name: "a" for name, _ in lone(ours, theirs)} | {name: "b" for name, _ in lone(theirs, ours)}
    found = []
    for name in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(name), theirs.get(name)
        if name in alone or (one is not None and other is not None and one.value != other.value):
            plain = {side: None if value is None else value.value for side, value in (("a", one), ("b", other))}
            assumed = [side for side, value in (("a", one), ("b", other)) if value is not None and value.assumed and value.origin == "recipe"]
            found.append({"option": name, **plain, "only": alone.get(name), "assumed": assumed})
    return {"a": a, "b": b, "options": found}


def lone(ours: Mapping[str, Value], theirs: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """Options set in the stages that only our side has."""
    sections = {name.partition(".")[0] for name in theirs}
    for name, value in ours.items():
        section = name.partition(".")[0]
        if section in STAGES and section not in sections and value.value is not None:
            yield name, value


def _shown(value: Value | None, text: object) -> str:
    if value is None:
        return ABSENT
    return text(value.value) + ("*" if value.assumed and value.origin == "recipe" else "")  # type: ignore[operator]
