"""From recipe, profile, row and command line to the options of one row, each value with where it came from.

Order: schema default, recipe, profile `set`, row `set`; then the profile's `scale` on what recipe and row say; then
`--set`, taken as it stands. So a row is written in the paper's units, and its relation to the baseline survives scaling.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harness.spec.errors import SpecError, unknown, validate
from harness.spec.experiment import Row
from harness.spec.files import Loaded, LoadedExperiment, load_recipe
from harness.spec.profile import Profile
from harness.spec.recipe import GLOBAL, HEADER, OPTIONS, SECTIONS, STAGES, Recipe, expand, leaves
from harness.spec.text import Document, layers, mapping, parse
from models.methods.stage import Earlier, opens_segments

Origin = Literal["schema", "recipe", "profile", "row", "--set"]


@dataclass(frozen=True)
class Value:
    """One option's value. place: how an error about it begins (file, line, field). unscaled: before the profile's factor."""

    value: Any
    origin: Origin
    place: str
    assumed: bool = False
    unscaled: Any = None
    factor: float | None = None

    @property
    def where(self) -> str:
        """`file:line`, or what was typed."""
        return self.place.split(": ")[0]


class NotDefined(SpecError):
    """A row sets an option that its other options never read: under this recipe the row has no meaning."""


@dataclass(frozen=True)
class ResolvedRow:
    """A row with every option decided. values: by dotted name, in the schema's order. undefined: why the row cannot be expressed
    under a recipe not its own."""

    index: int
    row: Row
    options: Recipe
    values: Mapping[str, Value]
    undefined: str = ""
    changed: Mapping[str, Value] = field(default_factory=dict)
    """What the row or the command line sets, in the schema's order."""

    @property
    def label(self) -> str:
        return self.row.label

    @cached_property
    def learns_latents(self) -> bool:
        """Whether any of its stages opens latent segments."""
        return any(opens_segments(self.options.stage(name)) for name in self.row.stages or ())


@dataclass(frozen=True)
class Base:
    """What rows of one recipe start from: recipe and profile, read once."""

    recipe: Document
    values: dict[str, Value]
    scale: dict[str, float]
    overrides: dict[str, Value] = field(default_factory=dict)
    own_recipe: bool = True
    """False when the command line chose another recipe than the experiment's."""

    @cached_property
    def untouched(self) -> dict[str, Value]:
        """The options of a row that sets nothing. Rows share them; never change them."""
        return {name: self.scaled(name, value) for name, value in self.values.items()} | self.overrides

    def scaled(self, name: str, value: Value) -> Value:
        """With the profile's factor; what the profile itself sets stays."""
        if name not in self.scale or value.origin == "profile":
            return value
        return _scaled(value, self.scale[name], name in COUNTED)

    @cached_property
    def sections(self) -> dict[str, Any]:
        """The validated sections of a row that sets nothing, which rows share where they change nothing in them; none where the
        recipe is wrong as it stands, which a row may mend."""
        try:
            options = _validated(self.untouched, self.recipe)
        except SpecError:
            return {}
        return {name: getattr(options, name) for name in SECTIONS}


COUNTED = frozenset(
    name for name in (*GLOBAL, *(f"{s}.{o}" for s, names in OPTIONS.items() for o in names))
    if type((SECTIONS[name.split(".")[0]] if "." in name else Recipe).model_fields[name.split(".")[-1]].default) is int
)  # fmt: skip
"""Options that are whole numbers by their schema, however a recipe writes them."""


def read_recipe(document: Document) -> dict[str, Value]:
    """Every option's value by dotted name, from schema, the recipes that it extends, and itself. A bare name of a recipe stands
    for every stage, whatever the one below says of a single stage; what is assumed below stays so until it is stated anew.

    Raises SpecError for names that are no options.
    """
    values = _schema()
    for layer, own in layers(document):
        _read_layer(layer, own, values)
    return values


def _read_layer(document: Document, own: Any, values: dict[str, Value]) -> None:
    if not isinstance(own, dict):
        raise SpecError(f"{document.where()}: a recipe is a mapping of options")
    sections = {k: v for k, v in own.items() if k not in HEADER}
    for path, value in _written(document, own.get("shared"), ("shared",)):
        for name in _names(document, path, ".".join(map(str, path[1:]))):
            values[name] = Value(value, "recipe", document.place(path))
    for key, block in sections.items():
        if key not in SECTIONS and key not in GLOBAL:
            raise SpecError(
                f"{document.place((key,))}: {unknown('no such field', key, [*HEADER, *GLOBAL, *SECTIONS], 'fields')}"
            )
        for path, value in _written(document, block, (key,)) if key in SECTIONS else [((key,), block)]:
            for name in _names(document, path, ".".join(map(str, path))):
                values[name] = Value(value, "recipe", document.place(path))
    for i, assumed in enumerate(own.get("assumed") or []):
        for name in _names(document, ("assumed", i), str(assumed)):
            values[name] = replace(values[name], assumed=True)


def base(
    recipe: Document, profile: Loaded[Profile] | None = None, overrides: Iterable[str] = (), own_recipe: bool = True
) -> Base:
    """Recipe under a profile; without one, at its own scale. overrides: `--set` texts such as "stage1.p=0.3"."""
    values = read_recipe(recipe)
    _validated(values, recipe)
    scale = _under(values, profile) if profile else {}
    typed: dict[str, Value] = {}
    seen: dict[str, str] = {}
    for text in overrides:
        name = text.partition("=")[0].strip()
        if seen.setdefault(name, text) != text:
            raise SpecError(f"--set {text}: {name} is set already, by --set {seen[name]}; keep one")
        typed |= override(text)
    return Base(recipe, values, scale, typed, own_recipe)


def _under(values: dict[str, Value], profile: Loaded[Profile]) -> dict[str, float]:
    """Puts the profile's `set` into values; returns its factors by dotted name."""
    where, written_in = profile.document, layers(profile.document)
    fixed: dict[str, int] = {}  # by name the last of the profiles that extend each other, the one under all others first, that sets it
    for at, (document, data) in enumerate(written_in):
        for path, value in leaves(mapping(data, "set"), ("set",)):
            for name in _names(document, path, ".".join(map(str, path[1:]))):
                before = values[name].unscaled if name in fixed else values[name].value
                values[name] = Value(value, "profile", document.place(path), unscaled=before)
                fixed[name] = at
    scale: dict[str, float] = {}
    for written in profile.value.clip_scale:  # names are checked in tables of pictures too
        _names(where, ("clip_scale", written), written)
    for written, factor in sorted(profile.value.scale.items(), key=lambda item: "." in item[0]):
        block = "clip_scale" if profile.value.clip_scale.get(written) == factor else "scale"  # in a table with clips they are one
        for name in _names(where, (block, written), written):
            if name in fixed:
                if fixed[name] > max(at for at, (_, data) in enumerate(written_in) if written in mapping(data, block)):
                    continue  # by an heir: its own value, not one that is scaled
                raise profile.error(f"{name} is in set: too ({values[name].where}); keep one", block, written)
            if isinstance(values[name].value, bool) or not isinstance(values[name].value, (int, float)):
                raise profile.error("is no number to scale", block, written)
            scale[name] = factor
    return scale


def override(text: str) -> dict[str, Value]:
    """`stage1.p=0.3` as values by dotted name. Raises SpecError."""
    name, equals, written = text.partition("=")
    place = f"--set {text}"
    if not equals or not name.strip() or not written.strip():
        raise SpecError(f"{place}: is written NAME=VALUE, as in --set stage1.p=0.3")
    try:
        value = parse(written, Path("--set")).data
    except SpecError as error:
        raise SpecError(f"{place}: {str(error).partition(': ')[2]}") from None
    try:
        return {dotted: Value(value, "--set", place) for dotted in expand(name.strip())}
    except ValueError as error:
        raise SpecError(f"{place}: {error}") from None


def recipe_of(experiment: LoadedExperiment, index: int) -> Document:
    """The recipe of a row: its own, else the experiment's.

    Raises SpecError for a recipe that is not there, and for a stage of which the row's own recipe says nothing.
    """
    row, place = experiment.value.rows[index], ("rows", index, "recipe")
    try:
        document = load_recipe(row.recipe or experiment.value.recipe, experiment.document.path.parent)
    except SpecError as error:
        raise experiment.error(str(error), *(place if row.recipe else ("recipe",))) from None
    if row.recipe and isinstance(document.data, dict) and (strange := [stage for stage in row.stages or () if stage not in document.data]):
        there = ", ".join(name for name in STAGES if name in document.data) or "none"
        raise experiment.error(f"recipe {row.recipe} has no stage {strange[0]} (its stages: {there})", "rows", index, "stages")
    return document


def resolve(experiment: LoadedExperiment, index: int, start: Base) -> ResolvedRow:
    """The options of one row. Raises SpecError, naming file and line of the value that is wrong."""
    row = experiment.value.rows[index]
    own: dict[str, Value] = {}
    for path, value in leaves(row.set, ("rows", index, "set")):
        place = experiment.place(*path)
        for name in _row_names(row, ".".join(map(str, path[3:])), place):
            own[name] = start.scaled(name, Value(value, "row", place))
    stated = own | start.overrides
    changed = {name: stated[name] for name in start.untouched if name in stated}
    values = ChainMap(changed, start.untouched)
    try:
        options = _validated(values, start.recipe, start.sections, own)
    except SpecError as error:
        if start.own_recipe or not own:
            raise
        options = _validated(start.untouched, start.recipe)  # or the row is not to blame
        return ResolvedRow(index, row, options, values, _undefined(start, error, values), changed)
    resolved = ResolvedRow(index, row, options, values, changed=changed)
    try:
        _check(experiment, resolved, own)
    except NotDefined as error:
        if start.own_recipe:
            raise
        return replace(resolved, undefined=_undefined(start, error, values))
    return resolved


def _undefined(start: Base, error: SpecError, values: Mapping[str, Value]) -> str:
    """The error without the place it begins with."""
    text = str(error)
    place = next((value.place for value in values.values() if text.startswith(f"{value.place}: ")), "")
    return f"not defined under {start.recipe.path.stem}: {text.removeprefix(place).removeprefix(': ')}"


def check_overrides(start: Base, rows: Iterable[ResolvedRow]) -> None:
    """Raises SpecError for a `--set` that no row reads: it would change names and no result."""
    seen = list(rows)
    for place in dict.fromkeys(value.place for value in start.overrides.values()):
        names = [name for name, value in start.overrides.items() if value.place == place]
        if not any(_reads(row, name) for row in seen for name in names):
            why = next((reason for row in seen for name in names if (reason := _unread_by(row, name))), "")
            raise SpecError(f"{place}: no row uses it" + (f": {why}" if why else "; it belongs to stages that no row has"))


def _reads(row: ResolvedRow, name: str) -> bool:
    section = name.partition(".")[0]
    if section == "clips":
        return any(row.options.stage(stage).clips for stage in row.row.stages or ())
    return section not in STAGES or (section in (row.row.stages or ()) and not _unread_by(row, name))


def _unread_by(row: ResolvedRow, name: str) -> str:
    """Why no stage of the row reads the option, or nothing."""
    section, _, option = name.partition(".")
    unread = row.options.stage(section).unread(option) if section in (row.row.stages or ()) else None
    if unread is None:
        return ""
    value = row.values[f"{section}.{unread.because}"]
    return f"{section}.{unread.because} is {value.value} ({value.where}); {unread.remedy.format(section)}, or drop this"


def resolve_base(start: Base) -> ResolvedRow:
    """The base model itself as a row: no stages, nothing set."""
    return ResolvedRow(-1, Row(label="base model", stages=()), _validated(start.untouched, start.recipe), start.untouched, changed=start.overrides)


def _schema() -> dict[str, Value]:
    values = {name: Value(Recipe.model_fields[name].default, "schema", "schema") for name in GLOBAL}
    for section, names in OPTIONS.items():
        for name in names:
            values[f"{section}.{name}"] = Value(SECTIONS[section].model_fields[name].default, "schema", "schema")
    return values


def _written(document: Document, block: Any, path: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], Any]]:
    if block is None:
        return []
    if not isinstance(block, dict):
        raise SpecError(f"{document.place(path)}: must be a mapping of options")
    return [((*path, key), value) for key, value in block.items()]


def _names(document: Document, path: tuple[str | int, ...], name: str) -> tuple[str, ...]:
    try:
        return expand(name)
    except ValueError as error:
        raise SpecError(f"{document.place(path)}: {error}") from None


def _row_names(row: Row, name: str, place: str) -> tuple[str, ...]:
    """The options a row's `set` reaches: those of its own stages, of decoding and images."""
    try:
        found = expand(name)
    except ValueError as error:
        raise SpecError(f"{place}: {error}") from None
    stages = row.stages or ()
    reached = tuple(n for n in found if n.split(".")[0] not in STAGES or n.split(".")[0] in stages)
    if not reached:
        section, some = (found[0].split(".")[0], "it") if len(found) == 1 else (f"stage with {name}", "one")
        raise SpecError(
            f"{place}: the row has no {section} (stages: [{', '.join(stages)}]); add {some} to stages or drop this"
        )
    return reached


def _scaled(value: Value, factor: float, counted: bool) -> Value:
    """Decimal arithmetic, so that 1e-5 × 60 is 0.0006 in every key; counts are rounded and stay at least 1.

    What is no number stays as it is, to be refused with the place where it is written.
    """
    if isinstance(value.value, bool) or not isinstance(value.value, (int, float)):
        return value
    exact = Decimal(str(value.value)) * Decimal(str(factor))
    scaled = max(1, round(exact)) if counted and exact > 0 else round(exact) if counted else float(exact)
    return replace(value, value=scaled, unscaled=value.value, factor=factor)


def _validated(values: Mapping[str, Value], recipe: Document, shared: Mapping[str, Any] | None = None, own: Iterable[str] = ()) -> Recipe:
    """shared: sections that are validated already, taken unless `own` names an option of theirs."""
    touched = {name.partition(".")[0] for name in own}
    data: dict[str, Any] = {name: section for name, section in (shared or {}).items() if name not in touched}
    for section, names in OPTIONS.items():
        if section not in data:
            data[section] = {option: values[f"{section}.{option}"].value for option in names}
    data |= {name: values[name].value for name in GLOBAL}

    def place(path: tuple[str | int, ...], message: str) -> str:
        name = ".".join(str(part) for part in path[:2])
        if name in values:
            return values[name].place
        inside = {key: value for key, value in values.items() if key.startswith(f"{name}.")}
        for origin in ("--set", "row", "profile"):
            written = {key: value for key, value in inside.items() if value.origin == origin}
            named = [value for key, value in written.items() if key.partition(".")[2] in message]
            if named or (written and origin != "profile"):
                return (named or list(written.values()))[0].place
        return recipe.place(path[:1])

    return validate(Recipe, data, place)


def _check(experiment: LoadedExperiment, resolved: ResolvedRow, own: Iterable[str]) -> None:
    """What a row's options demand of each other and of its stages."""
    stages, options, values = resolved.row.stages or (), resolved.options, resolved.values
    if stages and options.latent_steps == 0 and experiment.value.kind != "controls":
        raise SpecError(
            f"{values['latent_steps'].place}: 0 leaves no latent state to align; use 1 or more "
            "(0 is a control: allowed in a file with controls: instead of table:)"
        )
    for at, kind in enumerate(stages):
        for need in options.stage(kind).needs():
            if not isinstance(need, Earlier) or need.stage in stages[:at]:
                continue
            other = next((name for name in need.others if name in stages[:at]), need.without)
            raise SpecError(
                f"{experiment.place('rows', resolved.index)}: {kind}.{need.option} is {need.stage} but the "
                f"row has no {need.stage} before {kind}: add {need.stage}, or set {kind}.{need.option}: {other}"
            )
    for name in own:
        if reason := _unread_by(resolved, name):
            raise NotDefined(f"{values[name].place}: is never read: {reason}")
