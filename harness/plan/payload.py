"""The part of a spec that enters a job's identity: the fields that differ from the schema's defaults, and the tags."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

TAGS = frozenset({"kind", "source", "generator"})
"""Fields that say which schema the others belong to, or which version made the data: kept although they are at their
default, because a new default means new data."""


def payload(spec: BaseModel) -> dict[str, Any]:
    """JSON-ready; `type(spec).model_validate(payload(spec)) == spec`. A new field at its default changes no payload."""
    result: dict[str, Any] = {}
    for name, optional, default in _fields(type(spec)):
        value = getattr(spec, name)
        if not (optional and value == default):
            result[name] = _plain(value)
    return result


@cache
def _fields(schema: type[BaseModel]) -> tuple[tuple[str, bool, Any], ...]:
    """(name, whether it is left out at its default, default)"""
    return tuple((n, n not in TAGS and not f.is_required(), f.default) for n, f in schema.model_fields.items())


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return payload(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
