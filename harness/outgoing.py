"""Text on its way out, to a terminal, a report, a log or the store: without secrets, and without bytes that a terminal obeys.

`redact` is the one place that knows what a secret is: the part of an address before its `@`, the values of variables whose
names say so, and what libraries print as a key or token. Nothing here knows what the text is about.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, TextIO, TypeVar
from urllib.parse import quote, unquote, urlsplit

from harness.characters import shown

T = TypeVar("T")

HIDDEN = "***"
_NAMES = re.compile(
    r"(?:TOKEN|(?:SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY)S?)(?![A-Za-z])|(?:^|_)KEY$", re.IGNORECASE
)
"""To the end of the word: TOKENIZERS_PARALLELISM and MAX_TOKENS, which many machines set, keep no secret."""
_SHORTEST = 5
"""Characters. A shorter value would match ordinary words."""
_SWITCHES = {"false", "enable", "enabled", "disable", "disabled"}
"""What a variable says that switches something: no secret, and reports are full of such words."""
_ADDRESS = re.compile(r"(?<![A-Za-z0-9])([A-Za-z][A-Za-z0-9+.-]*://)([^\s/?#'\"<>]*)@")
_FIELDS = re.compile(
    r"(?i)([?&;](?:[\w-]*(?:token|secret|password|passwd|passphrase|api[-_]?key|access[-_]?key|signature|sig|credential)|pw|pwd|pass|auth|key)=)[^&\s#'\"<>]+"
)
_HEADER = re.compile(r"(?i)\b((?:authorization['\"]?\s*[:=]\s*['\"]?)?(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}")
_KEYS = re.compile(r"\b(?:(?:sk|hf|gh[pousr]|xox[abp]|glpat)[-_][A-Za-z0-9_-]{20,}|dapi[0-9a-f]{32}|AKIA[0-9A-Z]{16})\b")
_EMBEDDED = re.compile(r"(data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=]+)")
"""A picture inside a page: what looks like a key in it is chance, and a changed character breaks it."""


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with every secret replaced by ***; an address keeps its scheme, host and path."""
    known = _known(tuple(sorted(_suspects(environment))))
    return "".join(part if k % 2 else _redacted(part, known) for k, part in enumerate(_EMBEDDED.split(text)))


def _redacted(text: str, known: re.Pattern[str] | None) -> str:
    if known is not None:
        text = known.sub(HIDDEN, text)
    if "@" in text and "://" in text:
        text = _ADDRESS.sub(rf"\g<1>{HIDDEN}@", text)
    return _KEYS.sub(HIDDEN, _HEADER.sub(rf"\g<1>{HIDDEN}", _FIELDS.sub(rf"\g<1>{HIDDEN}", text)))


def inert(text: str, keep: str = "\n\t") -> str:
    """`redact`, and control, invisible and direction characters written as escapes: "\\x1b[31m"."""
    return shown(redact(text), keep)


def inert_values(value: T, environment: Mapping[str, str] = os.environ) -> T:
    """The same, its texts `inert`: those of tuples, lists, dicts and dataclasses too, however deep.

    For what is printed in a form in which a secret would not be found: its characters escaped or broken over lines, or drawn.
    """
    known = _known(tuple(sorted(_suspects(environment))))

    def made(one: Any) -> Any:
        if isinstance(one, str):
            return shown(_redacted(one, known))
        if isinstance(one, (tuple, list)):
            return type(one)(*map(made, one)) if hasattr(one, "_fields") else type(one)(map(made, one))
        if isinstance(one, dict):
            return {made(key): made(each) for key, each in one.items()}
        if is_dataclass(one) and not isinstance(one, type):
            before = {item.name: getattr(one, item.name) for item in fields(one) if item.init}
            changed = {name: new for name, old in before.items() if (new := made(old)) is not old and new != old}
            return replace(one, **changed) if changed else one
        return one

    return made(value)


def _suspects(environment: Mapping[str, str]) -> set[str]:
    """The values that are secrets: of variables with such names, and what addresses hold before their `@`."""
    found = set()
    for name, value in environment.items():
        if "://" in value and "@" in value:
            found |= _userinfo(value)
        elif _NAMES.search(name) and not value.startswith("/"):
            found.add(value)
    return {value for value in found if len(value) >= _SHORTEST and value.lower() not in _SWITCHES}


def _userinfo(address: str) -> set[str]:
    """Password, or what stands alone there; up to the last `@`, as people write passwords that need quoting and are not."""
    parts = set()
    for one in {*address.split(), address.strip()}:  # several addresses, or one whose password holds a space
        rest = one.partition("://")[2]
        held = rest.rpartition("@")[0]
        user, colon, password = held.partition(":")
        parts |= {password} if colon else {user}
        with contextlib.suppress(ValueError):
            parts |= {urlsplit(one).password or ""}
    return parts


@lru_cache(maxsize=8)
def _known(values: tuple[str, ...]) -> re.Pattern[str] | None:
    """Each value as it is, percent-encoded, and decoded; the longest first."""
    forms = {form for value in values for form in (value, quote(value), quote(value, safe=""), unquote(value)) if len(form) >= _SHORTEST}
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))) if forms else None


class Inert:
    """A text stream whose lines pass through `inert`. underneath: the stream itself, for what draws on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.underneath = stream

    def write(self, text: str) -> int:
        self.underneath.write(inert(text, keep="\n\t\r"))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self.underneath, name)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Meanwhile nothing is printed that is not inert, a traceback included."""
    before = sys.stdout, sys.stderr
    nowhere = io.StringIO()  # for a stream that was closed before we began
    sys.stdout, sys.stderr = Inert(sys.stdout or nowhere), Inert(sys.stderr or nowhere)  # type: ignore[assignment]
    try:
        yield
    except Exception:  # noqa: BLE001 - whatever it is, its text may hold what must not be printed
        print(traceback.format_exc(), end="", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        sys.stdout, sys.stderr = before
