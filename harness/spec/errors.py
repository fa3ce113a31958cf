"""What a person reads when a spec is wrong: one line with file, line, field, what was wrong and what to do.

Turns pydantic's errors into such lines. Knows how models nest, not what they mean.
"""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from harness.characters import lookalike

Path = tuple[str | int, ...]


class SpecError(Exception):
    """A mistake in something a person wrote. `str()` is one line for each mistake."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """`did you mean "x"? (fields: …)` without the noun: the closest choice, or nothing when none is close. Of a row, a word or the
    beginning of its name may be what was meant."""
    word, names = str(word), list(choices)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not close and len(word) > 2:
        parts = {part.lower(): name for name in reversed(names) for part in (name[: len(word)], *name.split())}
        close = [parts[part] for part in difflib.get_close_matches(word.lower(), parts, n=1, cutoff=0.75)]
    return f'; did you mean "{close[0]}"?' if close else ""


def meant(text: str, names: Iterable[str]) -> list[str]:
    """The names that a person may mean: this very one, else those that begin with the text, else those that hold it."""
    names, small = list(dict.fromkeys(names)), text.lower()
    return (
        [name for name in names if name == text]
        or [name for name in names if name.lower().startswith(small)]
        or [name for name in names if small in name.lower()]
    )


def unknown(what: str, word: str, choices: Sequence[str], noun: str) -> str:
    """`no such recipe "x"; did you mean "y"? (recipes: y, z)`."""
    listed = ", ".join(choices) if choices else "none"
    return f"{what}{nearest(word, choices)} ({noun}: {listed})"


def dotted(path: Sequence[str | int]) -> str:
    """("rows", 1, "set") → "rows[1].set"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def validate(model: type[BaseModel], data: Any, place: Callable[[Path, str], str]) -> Any:
    """`model.model_validate(data)`; errors become a SpecError, one line for each mistake.

    place: how the line about a path inside `data` begins: file, line and field. Given the message too: an error about a
    whole section may name the option at fault.
    """
    try:
        made = model.model_validate(data)
        if wrong := {path: place(path, text) + f": {text}" for path, text in _no_numbers(made, data, ())}:
            raise SpecError("\n".join(wrong.values()))
        return made
    except ValidationError as error:
        lines: dict[Path, str] = {}
        items: list[dict[str, Any]] = [{**item, "loc": _untagged(item["loc"], data)} for item in error.errors(include_url=False)]
        meant = {misspelt for item in items if (misspelt := _meant(model, item))}
        for item in items:
            if item["type"] == "missing" and item["loc"] in meant:
                continue  # it is there, misspelt: one mistake, one line
            inside = [other for other in items if other is not item and other["loc"][: len(item["loc"])] == item["loc"]]
            if item["type"] in ("too_short", "literal_error") and any(other["loc"] != item["loc"] for other in inside):
                continue  # what is in it is wrong: it was not counted, or is the choice that was meant
            path = _written(item["loc"], data)
            lines.setdefault(path, f"{place(path, text := explain(model, item))}: {text}")
        raise SpecError("\n".join(dict.fromkeys(lines.values()))) from None


def _no_numbers(made: Any, data: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """What pydantic took for a number although nobody wrote one: true, "1_000", "inf"."""
    if isinstance(made, BaseModel) and isinstance(data, dict):
        for name, keys in _written_as(type(made)):
            for key in keys:
                if key in data and not _sure(found := getattr(made, name), value := data[key]):
                    yield from _no_numbers(found, value, (*path, key))
    elif isinstance(made, dict) and isinstance(data, dict):
        for key in made.keys() & data.keys():
            yield from _no_numbers(made[key], data[key], (*path, key))
    elif isinstance(made, (list, tuple)) and isinstance(data, (list, tuple)) and len(made) == len(data):
        for i, (one, written) in enumerate(zip(made, data, strict=True)):
            yield from _no_numbers(one, written, (*path, i))
    elif isinstance(made, (int, float)) and not isinstance(made, bool):
        wanted = "a whole number" if isinstance(made, int) else "a number"
        if isinstance(data, (bool, str)):
            yield path, f"must be {wanted}, not {show(data)}{_why(data)}"
        elif not math.isfinite(made):
            yield path, f"must be a finite number, not {show(made)}"


def _sure(made: Any, value: Any) -> bool:
    """Whether there is plainly no number in it that nobody wrote: quick, since a large table has a hundred thousand values."""
    return type(made) in _NO_NUMBERS or (made is value and (type(made) is int or isinstance(made, BaseModel)))


_NO_NUMBERS = {str, bool, type(None)}


@cache
def _written_as(model: type[BaseModel]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each field with the keys under which it may be written."""
    return tuple((name, tuple(dict.fromkeys((name, field.alias or name)))) for name, field in model.model_fields.items())


def _why(value: Any) -> str:
    """What about a text keeps it from being the number that it looks like; "" where it does not look like one."""
    if not isinstance(value, str):
        return ""
    if odd := lookalike(value):
        return f" (it holds {odd})"
    if re.fullmatch(r"[-+]?\d+(,\d+)+(\.\d+)?([eE][-+]?\d+)?", value):
        return " (write a decimal point, and nothing between thousands)"
    if re.fullmatch(r"[-+]?\d[\d_]*(\.\d+)?([eE][-+]?\d+)?", value):
        return " (write digits without quotes, underscores or leading zeros)"
    if re.fullmatch(r"[-+]?\d+(\.\d+)?\s?[kKmM%]", value):
        return " (write it out, without a unit)"
    return ""


def _meant(model: type[BaseModel], item: Any) -> Path | None:
    """The field that an unknown name probably stands for."""
    if item["type"] != "extra_forbidden":
        return None
    *parent, name = item["loc"]
    close = difflib.get_close_matches(str(name), fields_at(model, tuple(parent)), n=1, cutoff=0.6)
    return (*parent, close[0]) if close else None


def _untagged(loc: Path, data: Any) -> Path:
    """pydantic's location without what it calls the members of a union, such as `literal['zero1','zero2']` and `dict[…]`."""
    return _without(loc, data, lambda part, _: isinstance(part, str) and bool(re.match(r"(literal|dict|list|tuple|union)\[", part)))


def _written(loc: Path, data: Any) -> Path:
    """pydantic's location without the union tags that no person wrote."""
    return _without(loc, data, lambda part, there: part == "[key]" or part is not loc[-1] or _is_tag(part, there))


def _without(loc: Path, data: Any, tag: Callable[[str | int, Any], bool]) -> Path:
    """A location without those parts that are no key or index of `data` there, and of which `tag` says so, given part and data."""
    path: list[str | int] = []
    for part in loc:
        if part in (range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()):
            data = data[part]
        elif tag(part, data):
            continue
        path.append(part)
    return tuple(path)


def _is_tag(part: str | int, data: Any) -> bool:
    return isinstance(data, dict) and part in (data.get("kind"), data.get("source"))


def explain(model: type[BaseModel], item: Any) -> str:
    """What was wrong and what to do, for one of pydantic's errors."""
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    name = str(item["loc"][-1]) if item["loc"] else ""
    if kind == "extra_forbidden":
        return unknown("no such field", name, fields_at(model, item["loc"][:-1]), "fields")
    if kind == "missing":
        return "is missing; add it"
    if name == "[key]":
        keys = [get_args(kind)[0] for kind in _walk(model, item["loc"][:-2]) if get_origin(kind) is dict]
        return unknown("no such name", str(value), [str(c) for key in keys for c in get_args(key)], "names")
    if kind == "literal_error":
        choices = [str(c) for c in choices_at(model, item["loc"])] or [context["expected"]]
        return unknown(f"{show(value)} is not a valid choice", str(value), choices, "choices")
    if kind == "union_tag_invalid":
        choices = [c.strip(" '") for c in context["expected_tags"].split(",")]
        return unknown(
            f"{context['discriminator'].strip(chr(39))}: {show(context['tag'])} is not a valid choice",
            context["tag"],
            choices,
            "choices",
        )
    if kind == "union_tag_not_found":
        return f"needs {context['discriminator'].strip(chr(39))}: to say which kind it is"
    bound = {"greater_than": ">", "greater_than_equal": "at least", "less_than": "<", "less_than_equal": "at most"}.get(
        kind
    )
    if bound:
        if isinstance(value, str):
            return f"must be a number, not {show(value)}{_why(value)}"
        limit = next(v for k, v in context.items() if k in ("gt", "ge", "lt", "le"))
        return f"{show(value)} is out of range: must be {bound} {show(limit)}"
    wanted = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "string": "text",
        "list": "a list",
        "tuple": "a list",
        "dict": "a mapping",
        "model": "a mapping of fields",
    }.get(kind.split("_")[0])
    if wanted and kind.split("_", 1)[-1] in ("type", "parsing", "from_float", "parsing_size", "attributes_type"):
        return f"must be {wanted}, not {show(value)}{_why(value) if 'number' in wanted else ''}"
    if kind == "too_short" and context.get("actual_length") == 0:
        return "is empty; it needs one entry or more"
    if kind == "value_error":
        return str(context["error"])
    return item["msg"][0].lower() + item["msg"][1:]


def show(value: Any) -> str:
    """A value as a person would write it, short."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, dict):
        return "a mapping"
    text = f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def fields_at(model: type[BaseModel], loc: Path) -> list[str]:
    """The field names of the model that stands at `loc` inside `model`."""
    return [n for found in _models(_walk(model, loc)) for n in names(found)]


def choices_at(model: type[BaseModel], loc: Path) -> list[Any]:
    """The choices of the Literal that stands at `loc`."""
    return [choice for kind in _walk(model, loc) for choice in (get_args(kind) if get_origin(kind) is Literal else ())]


def names(model: type[BaseModel]) -> list[str]:
    """A model's field names as written in YAML: tags that the file's own place already tells are left out."""
    return [f.alias or n for n, f in model.model_fields.items()]


def _walk(annotation: Any, loc: Path) -> list[Any]:
    """The annotations that may stand at `loc`."""
    here = _options(annotation)
    for part in loc:
        below: list[Any] = []
        for option in here:
            if isinstance(option, type) and issubclass(option, BaseModel):
                tag = next((f.default for n, f in option.model_fields.items() if n in ("kind", "source")), None)
                if part == tag:
                    below.append(option)
                elif part in (found := {f.alias or n: f for n, f in option.model_fields.items()}):
                    below += _options(found[part].annotation)
            elif get_origin(option) in (list, dict, tuple):
                below += _options(get_args(option)[-1] if get_args(option)[-1] is not ... else get_args(option)[0])
        here = below
    return here


def _options(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [o for a in get_args(annotation) for o in _options(a)]
    return [annotation]


def _models(annotations: Iterable[Any]) -> list[type[BaseModel]]:
    return [a for a in annotations if isinstance(a, type) and issubclass(a, BaseModel)]
