"""Reading an option letter out of a response: strictly, and the way the public release does it. Torch-free.

Strict reading. The text read is the content of the last complete `<answer>…</answer>` block; without one, what follows
the last unclosed `<answer>`; without that, the whole response after its `<think>` block (one that never ends holds no
answer). Special tokens `<|…|>`, tags, LaTeX and Markdown marks are removed, full-width forms become plain ones. Then the
first rule that applies decides:

    1. object      a JSON or Python object with an answer key: what stands there          {'answer': 'B'}
    2. boxed       the last \\boxed{…}: what stands there                                  \\boxed{\\text{C}}
    3. alone       nothing but the letter, in either case, in any brackets or quotes       "b", "(C)", "**D**"
    4. text        exactly one option's text, where the options' texts are known           "The answer is red."
    5. final       a letter after `final answer`                                           "Final answer: B"
    6. stated      a letter after `answer`, `choose`, 答案 …, or before `is correct`        "Option C is correct, not A"
    7. item        the text begins as an option does; a list of options says nothing       "D. left"
    8. named       a letter after `option` or `choice`                                     "It shows option B"
    9. enclosed    a letter in brackets                                                    "so (C) it is"
    10. standing   a letter as a word of its own                                           "It shows B"

A letter that the sentence rejects ("not A", "A is wrong", "rather than B", "eliminate B"), asks about or puts under a
condition does not count. Two different letters in one rule, or two offered together ("B or C"), are no answer. An article
"a" and a pronoun "I" are no letters. All else is unparsed (None): "none", "", a letter that is no option.

The release (`read_release`) takes the first A–E, in either case, anywhere in the last non-empty block, else anywhere in
the raw response including its markup: "The answer is B" is read as E (from "The"). Kept to compare with its numbers.

Whoever changes a reading raises `models.evaluation.tasks.version.EXTRACTOR`.
"""

from __future__ import annotations

import ast
import json
import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Any

from models.evaluation.extract.letters import Mention, leading, listed, mentions

LONGEST_OBJECT = 10_000
"""Characters of a text in which an answer object is looked for."""

_BLOCK = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(r"<answer>", re.IGNORECASE)
_SPECIAL = re.compile(r"<\|[^|<>]*\|>")
_THOUGHT_BEGIN, _THOUGHT_END = (re.compile(tag, re.IGNORECASE) for tag in (r"<think(?:ing)?>", r"</think(?:ing)?>"))
_TAG = re.compile(r"</?(?:[a-z]|[A-Za-z]{2,}[\w-]*)(?:\s[^<>]{0,80})?/?>|\[/?(?i:answer|ans|inst)\]")
_STRUCK = re.compile(r"~~.*?~~|\x1b\[[0-9;]*[A-Za-z]")
_EMPHASIS = re.compile(r"(?<!\w)_{1,3}([^_\s]+)_{1,3}(?!\w)")
_LATEX = (
    (re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|mathit|mathbb|operatorname|mbox|hbox|rm|bf)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:rightarrow|to|Rightarrow)\b"), " → "),
    (re.compile(r"\\[()\[\],;!]|\$|\\(?:quad|qquad|displaystyle|left|right)\b"), " "),
)  # fmt: skip
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}?")
_HIDDEN = frozenset(("Cf", "Cc", "Cn", "Co", "Cs"))
_KEY = re.compile(
    r"(?:final|correct|selected|predicted|model|your|my)?[ _-]?(?:answer|choice|option|prediction|letter|label|ans|答案|选项)",
    re.IGNORECASE,
)
_OBJECT = re.compile(r"\{[^{}]*\}")

_ANSWER = (
    r"(?:answers?|ans|(?:correct|right|best|proper|appropriate)\s+(?:option|choice|letter|one)|"
    r"réponse|respuesta|antwort|resposta|risposta|ответ|答案|答え|正解|正确选项|정답|답)"
)
_PICK = (
    r"(?:choose|chose|chosen|choosing|select|selects|selected|selecting|pick|picks|picked|picking|(?:go|going|went)\s+(?:with|for)|"
    r"opt(?:ed|ing)?\s+for|vote\s+for|settle\s+on|conclude|选择|選擇|选|選)"
)
_LINK = (
    r"(?:(?:[^.!?;\n。！？；]{0,60}?(?:\b(?:is|are|be|was|as|est|es|ist|é|è)\b|是|为|為|は|은|는))?|\s*[:=>→-]+\s*)"
    r"(?:[\s,:]*(?:most|probably|likely|clearly|definitely|certainly|therefore|thus|simply|just|indeed|the|with|for|"
    r"option|choice|letter|answer|选项|选|項|应该|应))*"
)
_GAP = r"[\s:=,>→*_`\"'“”‘’()\[\]{}<\-–—.#。、：「『]{0,8}$"
_FINAL = re.compile(rf"\bfinal\s+{_ANSWER}{_LINK}{_GAP}|最终{_ANSWER}{_LINK}{_GAP}", re.IGNORECASE)
_STATED = re.compile(rf"(?:\b|(?<=[^a-z])){_ANSWER}{_LINK}{_GAP}|(?:\b|(?<=[^a-z])){_PICK}{_LINK}{_GAP}", re.IGNORECASE)
_NAMED = re.compile(rf"(?:\b(?:options?|choices?)(?:\s+(?:is|be))?|选项){_GAP}", re.IGNORECASE)
_LEAD_IN = re.compile(
    rf"^(?:.*\b)?(?:{_ANSWER}\s*(?:is|:|=|是|为)?|it(?:\s+is|['’]s)|this\s+is|that\s+is|i\s+(?:think|believe)|{_PICK})\s*[:\-]?\s*"
    r"(?:it\s+is\s+|it['’]s\s+)?",
    re.IGNORECASE | re.DOTALL,
)


def last_answer(response: str) -> str | None:
    """The content of the last complete `<answer>` block, stripped; None if there is none."""
    blocks = _BLOCK.findall(response)
    return blocks[-1].strip() if blocks else None


def read_strict(response: str, options: int | Sequence[str] = 5) -> str | None:
    """The option letter that the response states, upper case, or None.

    options: the texts of the question's options (A, B, …), or only how many there are. ValueError unless 1 to 26.
    """
    count = options if isinstance(options, int) else len(options)
    if not 1 <= count <= 26:
        raise ValueError(f"options: {count}; a question has between 1 and 26")
    texts = () if isinstance(options, int) else tuple(options)
    letter = _read(_text_to_read(response), string.ascii_uppercase[:count], texts)
    return letter if letter is not None and letter in string.ascii_uppercase[:count] else None


def place_to_read(response: str) -> tuple[int, int]:
    """Start and end of what the strict reading reads."""
    if blocks := list(_BLOCK.finditer(response)):
        return blocks[-1].span(1)
    if opened := list(_OPENED.finditer(response)):
        return opened[-1].end(), len(response)
    ended = list(_THOUGHT_END.finditer(response))
    start = ended[-1].end() if ended else 0
    begun = _THOUGHT_BEGIN.search(response, start)
    return start, begun.start() if begun else len(response)


def _text_to_read(response: str) -> str:
    start, end = place_to_read(response)
    return _plain(response[start:end])


def _plain(text: str) -> str:
    """Full-width forms made plain, invisible characters, special tokens and tags removed, white space collapsed line by line."""
    text = unicodedata.normalize("NFKC", _TAG.sub(" ", _STRUCK.sub(" ", _SPECIAL.sub(" ", text))))
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _HIDDEN)
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, pattern.sub(plain, text))
    text = _EMPHASIS.sub(r"\1", text)
    return "\n".join(line for row in text.splitlines() if (line := " ".join(row.split())))


def _read(text: str, letters: str, texts: tuple[str, ...]) -> str | None:
    """By the first rule that applies; a letter that the text states may lie beyond the options' letters."""
    if (objects := _objects(text)) is not None:
        return _one(_read(value, letters, texts) if isinstance(value, str) else None for value in objects)
    if boxed := list(_BOXED.finditer(text)):
        together = len(boxed) > 1 and re.fullmatch(
            r"[\s$]*(?:or|and|[,/&]|或|和)[\s$]*", text[boxed[-2].end() : boxed[-1].start()]
        )
        return _one(_read(one.group(1).strip(), letters, texts) for one in boxed[-2 if together else -1 :])
    if alone := re.fullmatch(r"[\s(\[{<\"'`“‘*_#>「『-]*(?:(?:option|choice|选项)\s*)?[(\[\"'`*]*([A-Za-z])[\s)\]}>\"'`”’*_.,:;!?。、，：」』-]*", text, re.IGNORECASE):  # fmt: skip
        return alone.group(1).upper()
    if (letter := _by_text(text, texts)) is not None:
        return letter
    found = [one for one in mentions(text) if not one.small or one.letter in letters]
    for cue in (_FINAL, _STATED):
        stated = [one for one in found if _said(cue, text, one) or (cue is _STATED and one.affirmed)]
        if stated := [one for one in stated if not one.rejected]:
            first = leading(text, found)
            first = None if first is None or first.rejected or listed(text, found) or first in stated else first
            return _only([*stated, *([first] if first else [])])
    if listed(text, found):
        return _closing_line(text)
    if first := leading(text, found):
        other = re.fullmatch(r"[ .):\]*\n]*[(\[]?([A-Za-z])[)\].:,]*", text[first.at + 1 :])  # "B. C"
        differs = other is not None and other.group(1).upper() != first.letter
        return None if first.rejected or differs else _only([first])
    named = [one for one in found if _said(_NAMED, text, one) and not one.rejected]
    standing = [one for one in found if not one.rejected and (not one.small or one.enclosed or _closes(text, one))]
    return _only(named or [one for one in standing if one.enclosed] or standing)


def _objects(text: str) -> list[Any] | None:
    """What the text's JSON or Python objects hold under an answer key; None if there is no such object."""
    if len(text) > LONGEST_OBJECT:
        return None
    pairs = [pair for written in _OBJECT.findall(text) for pair in _pairs(written)]
    values = [value for key, value in pairs if isinstance(key, str) and _KEY.fullmatch(key.strip())]
    return [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values] or None


def _pairs(written: str) -> list[tuple[Any, Any]]:
    """Keys and values of one JSON or Python object in order, a key given twice among them; [] for anything else."""
    try:
        return list(json.loads(written, object_pairs_hook=list))
    except (ValueError, RecursionError):
        pass
    try:
        return list(ast.literal_eval(written).items())
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError):
        return []


def _by_text(text: str, texts: tuple[str, ...]) -> str | None:
    """The letter of the one option whose text this is, as it stands or after "the answer is"."""
    if not texts:
        return None
    known = [_bare(option) for option in texts]
    for said in dict.fromkeys((_bare(text), _bare(_LEAD_IN.sub("", text, count=1)))):
        if said and known.count(said) == 1:
            return string.ascii_uppercase[known.index(said)]
    return None


def _bare(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"^(?:the|an?)\s+", "", " ".join(text.split()).strip(" .,:;!?\"'`*_()[]。")).strip()


def _said(cue: re.Pattern[str], text: str, one: Mention) -> bool:
    """Whether the cue stands right before the letter."""
    return cue.search(text[max(0, one.at - 160) : one.at]) is not None


def _closes(text: str, one: Mention) -> bool:
    """Whether a small letter stands for itself: alone on its line, or at the end of a clause ("It is a" may be cut)."""
    rest, before = text[one.at + 1 : one.at + 20], text[max(0, one.at - 20) : one.at]
    ends = one.letter not in "AI" and re.match(r"\s*(?:[.,;!?\n)]|$)", rest)
    alone = re.search(r"(?:^|\n)\W*$", before) and re.match(r"[^\w\n]*(?:\n|$)", rest)
    return bool(ends or alone or re.match(r"\s+(?:rather|instead)\b", rest))


def _closing_line(text: str) -> str | None:
    """The letter that stands alone on the last line, below a list of options."""
    last = text.splitlines()[-1]
    alone = re.fullmatch(r"[(\[*\"'`]*([A-Z])[)\].*\"'`:]*", last)
    return alone.group(1) if alone and "\n" in text else None


def _only(found: Sequence[Mention]) -> str | None:
    return None if any(one.joined for one in found) else _one(one.letter for one in found)


def _one(letters: Any) -> str | None:
    found = set(letters)
    return found.pop() if len(found) == 1 else None


def read_release(response: str) -> str | None:
    """The letter the public release reads, its errors included; None if there is no A–E at all."""
    text = last_answer(response) or response
    found = re.search(r"[A-E]", text, re.IGNORECASE)
    return found.group(0).upper() if found else None
