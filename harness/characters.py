"""Characters that look like others or like nothing: pasted from a web page, a PDF or a chat, they change what a file means."""

from __future__ import annotations

import unicodedata

QUOTES = "“”„‟‘’‚‛«»‹›″′＂＇"
_DASHES = "−–—‐‑‒﹣－"


def invisible(text: str) -> str:
    """The name of the first character that cannot be seen or is told from a space by nobody; "" if there is none."""
    return next((named(c) for c in text if c not in " \n\t" and _unseen(c)), "")


def lookalike(text: str) -> str:
    """The name of the first character that looks like ASCII and is not: quotes, dashes, full-width forms, other digits."""
    return next((named(c) for c in text if not c.isascii() and (_unseen(c) or _resembles(c))), "")


def named(character: str) -> str:
    """ "U+00A0 NO-BREAK SPACE" """
    known = {"\x1b": "ESCAPE", "\x00": "NULL", "\t": "TAB", "\r": "CARRIAGE RETURN", "\n": "LINE FEED"}
    name = known.get(character) or unicodedata.name(character, "a control character")
    return f"U+{ord(character):04X} {name}"


def shown(text: str, keep: str = "\n\t") -> str:
    """The text with what a terminal would act on, or not show, written as an escape: "\\x1b[31m"."""
    bare = text
    for kept in keep:
        bare = bare.replace(kept, "")
    if bare.isprintable():  # quick, where a report's text is long
        return text
    return "".join(c if c in keep or c == " " or not (_unseen(c) and not _space(c)) else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def _space(character: str) -> bool:
    return unicodedata.category(character) == "Zs"


def _unseen(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") or (category == "Zs" and character != " ")


def _resembles(character: str) -> bool:
    plain = unicodedata.normalize("NFKC", character)
    return (
        character in QUOTES or character in _DASHES or character.isdigit() or (plain.isascii() and plain.isprintable())
    )
