"""Reading an option letter out of a response: strictly, and the way the public release does it. Torch-free.

Strict grammar. The text read is the content of the last complete `<answer>…</answer>` block; without one, what follows
the last unclosed `<answer>`; without that, the whole response. Special tokens `<|…|>` are removed and white space is
collapsed. With L a letter among the question's options, the first rule that applies decides:

    1. alone       the text is L, `(L)`, `[L]`, `L.`, `L)`, `L:` or `L,`                    either case      "b", "(C)"
    2. leading     it starts with `(L)`, `[L]`, `L.`, `L)` or `L:`, then more               capital          "D. left"
    3. stated      `answer`, then `is`, `:`, `=` or nothing, then L                         either case      "The answer is b."
    4. chosen      the same after `option` or `choice`                                      either case      "I choose option B"
    5. bracketed   `(L)` or `[L]` anywhere                                                  capital          "so (C) it is"
    6. standing    L as a word of its own anywhere                                          capital          "It shows B"

Rules 2 to 6 need one distinct letter: "(A) or (B)" is no answer. In 3, 4 and 6 the word `a`/`A` before another word is
an article ("a dog"), not a letter; a small letter must end its clause; a letter after "not" is struck out.
Everything else is unparsed (None): "none", "", a letter that is no option, an option's text without its letter.

The release (`read_release`) takes the first A–E, in either case, anywhere in the last non-empty block, else anywhere in
the raw response including its markup: "The answer is B" is read as E (from "The"). Kept to compare with its numbers.
"""

from __future__ import annotations

import re
import string

VERSION = 1
"""Enters the identity of an evaluation. Raise it when any reading below changes for any text."""

_BLOCK = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(r"<answer>", re.IGNORECASE)
_SPECIAL = re.compile(r"<\|[^|<>]*\|>")
_STATED, _CHOSEN = (
    re.compile(
        rf"\b(?:{words})s?\b\W{{0,3}}(?:(?:is|be)\b)?\W{{0,3}}(?:(?:option|choice)\b)?\W{{0,3}}(?<![a-z])([a-z])\b(?!['’])",
        re.IGNORECASE,
    )
    for words in ("answer", "option|choice")
)
_STANDING = re.compile(r"(?<![\w'’])(?<!not )(?<!n't )([A-Z])(?![\w'’])")
_CLAUSE_END = re.compile(r"\s*(?:[.,;:!?)\]\n*]|$)")
_NO_ARTICLE = re.compile(r"\s+(?:because|since|as|and|or|but|is)\b")


def last_answer(response: str) -> str | None:
    """The content of the last complete `<answer>` block, stripped; None if there is none."""
    blocks = _BLOCK.findall(response)
    return blocks[-1].strip() if blocks else None


def _text_to_read(response: str) -> str:
    text = last_answer(response)
    if text is None:
        opened = list(_OPENED.finditer(response))
        text = response[opened[-1].end() :] if opened else response
    return " ".join(_SPECIAL.sub(" ", text).split())


def _only(letters: list[str]) -> str | None:
    found = set(letters)
    return found.pop() if len(found) == 1 else None


def _is_letter(match: re.Match[str], text: str) -> bool:
    """Whether a matched single letter stands as a letter, not as the article 'a'."""
    letter, rest = match.group(1), text[match.end(1) :]
    if _CLAUSE_END.match(rest):
        return True
    if letter.islower():
        return False
    return letter != "A" or bool(_NO_ARTICLE.match(rest))


def read_strict(response: str, options: int = 5) -> str | None:
    """The option letter that the response states, upper case, or None. options: how many the question has (A, B, …)."""
    if not 1 <= options <= 26:
        raise ValueError(f"options: {options}; a question has between 1 and 26")
    capitals = string.ascii_uppercase[:options]
    text = _text_to_read(response)
    if alone := re.fullmatch(r"[(\[]?([A-Za-z])[)\]]?[.:,]?", text):
        letter = alone.group(1).upper()
        return letter if letter in capitals else None
    bracketed = re.findall(rf"[(\[]([{capitals}])[)\]]", text)
    if leading := re.match(rf"(?:[(\[]([{capitals}])[)\]]|([{capitals}])[.):])(?=\W|$)", text):
        return _only([leading.group(1) or leading.group(2), *bracketed])
    for pattern in (_STATED, _CHOSEN):
        if stated := [m.group(1).upper() for m in pattern.finditer(text) if _is_letter(m, text)]:
            letter = _only(stated)
            return letter if letter and letter in capitals else None
    if bracketed:
        return _only(bracketed)
    return _only([m.group(1) for m in _STANDING.finditer(text) if m.group(1) in capitals and _is_letter(m, text)])


def read_release(response: str) -> str | None:
    """The letter the public release reads, its errors included; None if there is no A–E at all."""
    text = last_answer(response) or response
    found = re.search(r"[A-E]", text, re.IGNORECASE)
    return found.group(0).upper() if found else None
