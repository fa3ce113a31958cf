"""Rows share what they do not change; that must never show in what a row means."""

import pytest

from harness.spec.files import EXPERIMENTS, load_experiment, load_profile
from harness.spec.recipe import OPTIONS, SECTIONS, Recipe
from harness.spec.resolve import base, recipe_of, resolve

TABLES = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def resolved(table: str, overrides: tuple[str, ...] = ()):
    experiment, profile = load_experiment(EXPERIMENTS / f"{table}.yaml"), load_profile("proxy")
    rows = [i for i, row in enumerate(experiment.value.rows) if row.external is None and row.delta is None]
    starts = {}
    for i in rows:
        recipe = recipe_of(experiment, i)
        starts.setdefault(recipe.path, base(recipe, profile, overrides))
    return [resolve(experiment, i, starts[recipe_of(experiment, i).path]) for i in rows]


@pytest.mark.parametrize("table", TABLES)
def test_options_that_share_sections_are_those_that_validating_every_value_gives(table):
    for row in resolved(table):
        alone = {name: value.value for name, value in row.values.items() if "." not in name}
        for section, names in OPTIONS.items():
            alone[section] = {name: row.values[f"{section}.{name}"].value for name in names}
        assert row.options == Recipe.model_validate(alone)
        assert {name for name, value in row.values.items() if value.origin in ("row", "--set")} == set(row.changed)


def test_rows_share_the_sections_they_do_not_change_and_no_other():
    rows = resolved("table3c", ("decode.max_new_tokens=64",))
    shared = {name: id(getattr(next(row for row in rows if not _sets(row, name)).options, name)) for name in SECTIONS}
    for row in rows:
        assert {name for name in SECTIONS if id(getattr(row.options, name)) != shared[name]} == {name for name in SECTIONS if _sets(row, name)}
        assert row.options.decode.max_new_tokens == 64
    assert any(_sets(row, "stage2") for row in rows)


def _sets(row, section: str) -> bool:
    return any(value.origin == "row" and name.startswith(f"{section}.") for name, value in row.changed.items())
