"""One written row that stands for several: `sweep: {stage1.p: [0.1, 0.3, 0.5]}` gives a row for each value, two keys the product.

    - p = {p}:   {stages: [stage1], sweep: {stage1.p: [0.1, 0.3]}, x: p, reported: [[69.5, 53.1], [69.8, 53.7]]}

A name in braces in the label stands for the value; what the label does not name is added to it. reported: one list for each
row, in the order of the values (the last key turns fastest). x: the option that is the rows' place on the axis.
"""

from __future__ import annotations

import difflib
import itertools
import re
from typing import Any

from harness.spec import recipe
from harness.spec.experiment import Row

_NAMED = re.compile(r"\{([\w.]+)\}")
MOST_ROWS = 200


def expand(label: str, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(label, body) of each row. Raises ValueError, whose text begins with the field that is wrong."""
    if "sweep" not in body:
        if misspelt := next((name for name in body if _means_sweep(name)), ""):
            raise ValueError(f'{misspelt}: no such field; did you mean "sweep"?')
        return [(label, body)]
    sweep = body["sweep"]
    if not isinstance(sweep, dict) or not sweep or not all(isinstance(v, list) and v for v in sweep.values()):
        raise ValueError("sweep: is written {OPTION: [VALUE, VALUE, …]}, as in sweep: {stage1.p: [0.1, 0.3, 0.5]}")
    if isinstance(body.get("set"), dict) and (both := sorted(sweep.keys() & body["set"].keys())):
        raise ValueError(f"sweep: {both[0]} is in set: too; keep one")
    for option in sweep:
        try:
            recipe.expand(option)
        except ValueError as error:
            raise ValueError(f"sweep.{option}: {error}") from None
    names = _names(list(sweep))
    if unknown := [name for name in _NAMED.findall(label) if name not in names]:
        raise ValueError(f"sweep: the label names {{{unknown[0]}}}, and what varies is {', '.join(sweep)}")
    combinations = list(itertools.product(*sweep.values()))
    if len(combinations) > MOST_ROWS:
        raise ValueError(f"sweep: makes {len(combinations)} rows; a table has at most {MOST_ROWS}")
    reported = _reported(body.get("reported"), len(combinations))
    rest = {key: value for key, value in body.items() if key not in ("sweep", "set", "reported", "x")}
    rows = []
    for at, values in enumerate(combinations):
        chosen = dict(zip(sweep, values, strict=True))
        row = {**rest, "set": {**(body.get("set") or {}), **chosen}}
        row |= {"reported": reported[at]} if reported else {}
        row |= {"x": _axis(body["x"], names, chosen)} if "x" in body else {}
        rows.append((_label(label, names, chosen), row))
    return rows


def _means_sweep(name: str) -> bool:
    close = difflib.get_close_matches(name, ["sweep", *Row.model_fields], n=1)
    return name not in Row.model_fields and close == ["sweep"]


def _names(options: list[str]) -> dict[str, str]:
    """What may stand in braces → the option: its dotted name, and its last part where only one option has it."""
    last = [option.rpartition(".")[2] for option in options]
    return {**{short: option for short, option in zip(last, options) if last.count(short) == 1}, **{o: o for o in options}}


def _label(label: str, names: dict[str, str], chosen: dict[str, Any]) -> str:
    named = {names[name] for name in _NAMED.findall(label)}
    text = _NAMED.sub(lambda found: _text(chosen[names[found[1]]]), label)
    short = {option: name for name, option in reversed(names.items())}
    return ", ".join([text, *(f"{short[option]} = {_text(value)}" for option, value in chosen.items() if option not in named)])


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _reported(written: Any, rows: int) -> list[Any]:
    if written is None:
        return []
    if not isinstance(written, list) or not all(isinstance(one, list) for one in written) or len(written) != rows:
        raise ValueError(f"reported: under sweep: it is a list of {rows} lists, one for each row that it makes; write [] for a row that has none")
    return written


def _axis(written: Any, names: dict[str, str], chosen: dict[str, Any]) -> Any:
    if written not in names:
        raise ValueError(f"x: under sweep: it names the option that is the axis, one of {', '.join(names)}")
    return chosen[names[written]]
