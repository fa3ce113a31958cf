"""The language of spec files as a page, from the schemas that read them: `python -m harness.spec.language` writes it.

A field's meaning is the text that stands under it in the code, or in its class's docstring; so the page cannot say anything else.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from harness.spec import claims, comparisons, profile
from harness.spec.benchmark import Benchmark, Inference, Score
from harness.spec.experiment import Column, Delta, Experiment, External, Maps, Measurement, Plot, Quantity, Row, Spread
from harness.spec.files import REPOSITORY
from harness.spec.recipe import SECTIONS, STAGES, Recipe
from models.config import ExternalMirror, ExternalTraining, ProxyClips, ProxyMirror, ProxyTraining

PAGE = REPOSITORY / "docs" / "spec-language.md"
HEAD = """\
# The language of spec files

<!-- Written by `python -m harness.spec.language` from the schemas; change those, not this page. -->

Four kinds of YAML file say everything: an **experiment** is a table or figure, a **recipe** holds every option of a method, a
**profile** says at which scale and on which machine, a **benchmark** says how questions are asked and counted. An unknown key,
a value out of range or a wrong name is one line with file, line, field and what to do. Names are looked up beside the
experiment first (`recipes/`, `profiles/`, `benchmarks/` in its folder), then in the project's own `experiments/`.

A recipe and a profile may begin with `extends: NAME` and then list only what they change; in a recipe, `shared:` holds options
of several stages, and a bare name such as `lr` stands for every stage that has it. A row may hold
`sweep: {stage1.p: [0.1, 0.3]}`, which makes a row for each value (two keys: their product); a name in braces in its label,
`p = {p}`, stands for the value, `reported:` is then one list for each row, and `x: p` puts the value on the axis.

A row may name a recipe of its own, `recipe: NAME`, so that rows of several methods stand in one table (`experiments/methods.yaml`).
It then starts from that recipe instead of the experiment's, under the same profile; its stages are that recipe's, and what `--recipe`
names is for the other rows. Columns, seeds and training data stay those of the experiment and the profile.
"""


def sections() -> Iterator[tuple[str, str, list[type[BaseModel]]]]:
    """(heading, a sentence, schemas)"""
    yield "Experiment", "`experiments/*.yaml`: one table or figure.", [
        Experiment, Column, Row, External, Delta, Plot, Maps, Measurement, Quantity, Spread,
    ]  # fmt: skip
    yield "Claims", "Entries of `claims:`, each known by its first key.", sorted(claims.FORMS.values(), key=lambda c: c.__name__)
    yield "Comparisons", "Entries of `comparisons:`, each known by its key.", list(comparisons.FORMS.values())
    yield "Recipe", "`experiments/recipes/*.yaml`. Options of the whole recipe, then those of each section.", [Recipe, *SECTIONS.values()]
    yield "Profile", "`experiments/profiles/*.yaml`: the same graph at another scale.", [
        profile.Profile, profile.LocalBackbone, profile.HubBackbone, ProxyTraining, ExternalTraining, ProxyClips, ProxyMirror,
        ExternalMirror, profile.Resources, profile.LocalDispatch, profile.SlurmDispatch,
    ]  # fmt: skip
    yield "Benchmark", "`experiments/benchmarks/*.yaml`.", [Benchmark, Score, Inference]


def page() -> str:
    parts = [HEAD]
    names: dict[type[BaseModel], str] = {}
    names |= {schema: f"`{section}:`" for section, schema in SECTIONS.items()}
    names |= {schema: f"stage `{name}`" for name, schema in STAGES.items()}
    for heading, sentence, schemas in sections():
        parts.append(f"## {heading}\n\n{sentence}\n")
        for schema in schemas:
            whole, said = _split(schema)
            parts.append(f"### {names.get(schema, schema.__name__)}\n\n" + (f"{whole}\n\n" if whole else "") + f"{_table(schema, said)}\n")
    return "\n".join(parts)


def _split(schema: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """(what a class's docstring says of the whole, field → what it says of the field). Fields begin as `name: ` or `a, b: `."""
    text = " ".join(inspect.cleandoc(schema.__doc__ or "").split())
    word = "|".join(sorted(schema.model_fields, key=len, reverse=True))
    parts = re.split(rf"(?:^|(?<=[.:;] ))((?:{word})(?:, (?:{word}))*): ", text) if word else [text]
    found = {name: said.strip() for names, said in zip(parts[1::2], parts[2::2]) for name in names.split(", ")}
    return parts[0].strip(), found


def _table(schema: type[BaseModel], said: dict[str, str]) -> str:
    meanings = said | _meanings(schema)
    lines = ["| key | value | left out | meaning |", "| :-- | :-- | :-- | :-- |"]
    for name, field in schema.model_fields.items():
        if field.annotation in SECTIONS.values() or (name == "kind" and schema in STAGES.values()):  # a section is named, not tagged
            continue
        cells = (f"`{field.alias or name}`", _type(field.annotation, field.metadata), _default(field), meanings.get(name, ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _meanings(schema: type[BaseModel]) -> dict[str, str]:
    """Field → the text under it in the code, of the class and of those that it is made of."""
    found: dict[str, str] = {}
    for kind in reversed(schema.__mro__):
        if not (issubclass(kind, BaseModel) and kind.__module__.split(".")[0] in ("harness", "models")):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        except OSError:  # made of the registered stages when it is imported: its text is that of the class below it
            continue
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:]):
            said = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and said:
                found[field.target.id] = " ".join(text.value.value.split())  # type: ignore[attr-defined]
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.default if field.default is not PydanticUndefined else field.default_factory()  # type: ignore[call-arg, misc]
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (tuple, list, dict, str)) and not value:
        return "empty"
    return f"`[{', '.join(map(str, value))}]`" if isinstance(value, (tuple, list)) else f"`{value}`"


def _type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    bounds = _bounds(metadata)
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inside[0], inside[1:]) + bounds
    if origin is Literal:
        return " or ".join(f"`{str(choice).lower() if isinstance(choice, bool) else choice}`" for choice in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(one) for one in inside if one is not type(None)))
    if origin in (tuple, list):
        return "a list of " + (_type(inside[0]) if inside[-1] is ... or len(set(inside)) == 1 else " and ".join(map(_type, inside)))
    if origin is dict:
        return f"a mapping of {_type(inside[0])} to {_type(inside[1])}"
    words = {str: "text", int: "a whole number", float: "a number", bool: "`true` or `false`", Any: "a value"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation))) + bounds


def _bounds(metadata: Iterable[Any]) -> str:
    flat = [one for entry in metadata for one in (getattr(entry, "metadata", None) or [entry])]
    signs = [(Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<")]
    said = [f"{sign} {getattr(one, name):g}" for one in flat for kind, name, sign in signs if isinstance(one, kind)]
    said += [f"at least {one.min_length}" for one in flat if isinstance(one, MinLen)]
    return f" {' and '.join(said)}" if said else ""


def write(path: Path = PAGE) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
    print(f"written: {PAGE}")
