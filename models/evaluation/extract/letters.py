"""Option letters inside a sentence: where they stand, which of them the sentence rejects, which it offers together.

Knows nothing about answer tags or about how many options a question has; `extract` decides what a reading means.
The text is NFKC-normalised with line breaks kept. Torch-free.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

_WORD = r"[^\W\u2e80-\u9fff\uac00-\ud7af]"
"""A character of a word in a script that separates words; Chinese, Japanese and Korean touch a letter without a space."""
_LETTER = re.compile(
    rf"(?<!{_WORD})(?<!°)(?<!{_WORD}[-.&+'’])([A-Za-z])(?!{_WORD}|['’]{_WORD}|-{_WORD}|&[A-Za-z](?!{_WORD})|\.{_WORD}(?!{_WORD})|[+#])",
    re.IGNORECASE,
)
_OPEN, _CLOSE = r"[(\[{<\"'`“‘*_「『《]", r"[)\]}>\"'`”’*_」』》]"
_CLAUSE_END = re.compile(rf"{_CLOSE}*\s*(?:[.,;:!?)\]。，；：！？、\n—–/&]|$|[\u2e80-\u9fff\uac00-\ud7af])")
_AFTER_LETTER = re.compile(
    r"\s+(?:because|since|as|and|or|nor|but|is|isn['’]?t|was|are|over|rather|instead|not|vs\.?|versus|to|through|seems|looks|"
    r"appears|matches|fits|would|could|can|cannot|can['’]?t|does|doesn['’]?t|then|→|->|=|<|>|\(or|(?-i:[A-H]))(?!\w)",
    re.IGNORECASE,
)
"""What follows `A` only where it is a letter: no article stands before these words."""
_AFTER_I = re.compile(r"\s+(?:or|nor|is|isn['’]?t|over|rather|instead|vs\.?|versus)(?!\w)", re.IGNORECASE)
""" `I` is a pronoun before any other word."""

_NEGATIVE = r"(?:wrong|incorrect|false|trap|least\s+\w+|less\s+likely|second[- ]best|worst|unlikely|rejected|eliminated|excluded)"
_BUT = (
    r"(?:\s*[,:]?\s*(?:be|being|is|it['’]s|it|that|the|any|of|think|believe|say|answer|correct|right|option|choice|letter|either|necessarily|likely|"
    r"both|choose|pick|select|go|with|for))*"
)
_REJECTED_BEFORE = re.compile(
    r"(?:\bnot|n['’]t|\bnever|\bneither|\bnor|\bcannot|\bno\s+longer|\bhardly|\bunlikely(?:\s+to)?|\bdoubt\w*|\bno(?=\s+(?:answer|option|choice|letter)\b)|"
    rf"\b{_NEGATIVE}\s+(?:answer|option|choice|letter|one)s?(?:\s+(?:is|are|was|were))?[\s:=]*|\b(?:wrong|incorrect)\s*:|(?:\A|\n)\s*[✗✘❌×]|"
    r"\bexcept(?:ing)?|\b(?:any|every|all|any\w+|every\w+)\s+but|\bexclud\w+|\beliminat\w+|\bdiscard\w*|\breject\w*|"
    r"\b(?:rule|rules|ruled|ruling)\s+out|\brather\s+than|\binstead\s+of|\bover|\bunlike|\bopposed\s+to|\bother\s+than|"
    r"\bbesides|\bapart\s+from|\bwithout|\bcontrary\s+to|[≠¬]|!=|不是|排除了?|而非|并非|不可能是|不会是|不會是|未必是?|不一定是?|不见得是?|不止是?|不仅是?|除了?|ではなく|"
    r"(?:不(?:应该?|該|该|宜|会|會|要|可以?|能|敢)?|别|勿|没有?)(?:选择?|選擇?)|(?:错误|錯誤|不正确|不正確)的?(?:答案|选项|選項)(?:是|为|為|:)?)"
    rf"{_BUT}\s*{_OPEN}*\s*$",
    re.IGNORECASE,
)
_IS = r"(?:is|was|are|were|seems?|looks?|appears?)(?:\s+to\s+be)?(?:\s+(?:\w+ly|both|all|also|just))?"
_REJECTED_AFTER = re.compile(
    rf"[\s.:]*{_CLOSE}*[\s.:]*(?:option\s+|answer\s+|choice\s+)?"
    r"(?:(?:is|was|are|were|does|do|did|can|could|would|should|has|have)(?:\s+not\b|n['’]?t\b)|cannot\b(?!\s+be\s+(?:determined|seen|told|answered|inferred|identified|known|judged))|"
    r"(?:can|could|should|must|would|may|might)\s+be\s+(?:eliminated|excluded|ruled\s+out|discarded|rejected|wrong|incorrect|false)|"
    rf"{_IS}\s+(?:an?\s+|the\s+)?(?:wrong|incorrect|false|invalid|out\b|impossible|eliminated|excluded|ruled\s+out|unlikely|"
    rf"distractor|neither|trap\b|tempting|{_NEGATIVE}\b)|\(?(?:wrong|incorrect|false)\b|[✗✘❌×]|"
    r"(?:选项|選項|項|项)?(?:的?(?:描述|说法|說法|表述|陈述|内容|答案))?(?:是|都|也|均|明显|显然|并)*"
    r"(?:错|錯|不对|不對|不正确|不正確|不是|不符|不成立|不准确|不合|有误|被?排除|可以排除|可排除|应排除|以外|之外)|は(?:間違|違|誤)|ではな)",
    re.IGNORECASE,
)
_AFFIRMED = re.compile(
    rf"[\s.:]*{_CLOSE}*[\s.:]*(?:{_IS}\s+(?:(?:the|my|our)\s+)?(?:(?:most|only|single)\s+)?(?:\w+ly\s+)?"
    r"(?:correct|right|best|true|accurate|appropriate|answer|choice|one\b|likely|suitable)|[✓✔✅]|"
    r"(?:选项|項|项)?(?:是)?(?:正确|正確|对的|對的)|が正解|이\s*정답)",
    re.IGNORECASE,
)
_JOIN = re.compile(
    rf"\s+|[\s.:]*{_CLOSE}*\s*\(?(?:,?\s*(?:and/or|or|and|nor|and\s+also|as\s+well\s+as|plus|vs\.?|versus|to|through|then|oder|und|ou|et|y|"
    rf"o)(?!\w)|[,/&|+→、，;；~<>]|->|-|和|或者|或|与|與|及|跟|还是|還是|か)\s*(?:(?:maybe|perhaps|possibly|alternatively|both|either|even)\s+)?"
    rf"(?:(?:option|choice|answer|letter|选项)s?\s*)?{_OPEN}*\s*",
    re.IGNORECASE,
)
_PLURAL = re.compile(r"\W*(?:are|were|do|can|could|should|must|都|均|皆|全)")
_AND = re.compile(r"\b(?:and|or|nor)\b|[&/、和或与]", re.IGNORECASE)
_QUESTION = re.compile(
    r"(?:^|(?<=[.!?\n]))\s*(?:so\s+|but\s+|hmm,?\s+|wait,?\s+)?(?:is|are|could|should|would|can|does|do|did|was|which|what|why|how)\b"
    r"[^.!?\n]*\?|(?:^|(?<=[.!?\n]))[^.!?\n]*(?:是不是|吗)[^.!?\n]*\?",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|unless|when)\b[^.!?\n]*\b(?:otherwise|else)\b[^.!?\n]*|(?:如果|若|假如|要是)[^。.!?\n]*(?:否则|否則|不然)[^。.!?\n]*|"
    r"\b(?:if|unless|whether|suppose|supposing|assume|assuming|had)\b[^,.;!?\n]*|\b(?:otherwise|or\s+else)\b[^.;!?\n]*|(?:如果|若是|假如|要是|否则|否則)[^,.;!?\n]*",
    re.IGNORECASE,
)
_ITEM = re.compile(r"[.、](?:\s+[a-z0-9]|\s*[\u2e80-\u9fff\uac00-\ud7af])")
_MARK = re.compile(r"\s*[.):：、]|[)\]]")
_NAMES_A_THING = re.compile(
    r"\b(?:vitamin|hepatitis|plan|grade|gate|lane|building|terminal|platform|exit|room|seat|studio|blood\s+type)s?\s+$",
    re.IGNORECASE,
)
_DEGREES = re.compile(r"[0-9] ?°? ?$")
_NOTE_OR_SEAT = re.compile(r"\s+(?:minor|major|flat|sharp|seat)\b")
"""Letters that belong to the word beside them: "vitamin C", "20 C", "B minor"."""

REACH = 120
"""Characters before and after a letter that are looked at: every phrase above is shorter."""


@dataclass(frozen=True)
class Mention:
    """One letter of a text. at: its index there. rejected: "not A", "A is wrong". joined: "A or B", two of them offered."""

    letter: str
    at: int
    small: bool = False
    enclosed: bool = False
    rejected: bool = False
    joined: bool = False
    affirmed: bool = False
    """ "B is correct" """


def mentions(text: str) -> list[Mention]:
    """The letters of a text in order; an article "a" and a pronoun "I" are none."""
    found = [_at(match, text) for match in _LETTER.finditer(text)]
    asked = {i for pattern in (_QUESTION, _CONDITION) for match in pattern.finditer(text) for i in range(*match.span())}
    here = [one for one in found if one is not None and one.at not in asked]
    return _together(here, text)


def _at(match: re.Match[str], text: str) -> Mention | None:
    letter, at, rest = match.group(1), match.start(1), text[match.end(1) : match.end(1) + REACH]
    before = text[max(0, at - REACH) : at]
    if _NAMES_A_THING.search(before) or _NOTE_OR_SEAT.match(rest) or (letter in "CF" and _DEGREES.search(before)):
        return None
    enclosed = bool(re.search(r"[(\[{\"'`“‘*「]$", before) and re.match(r"[)\]}\"'`”’*」]", rest))
    rejected = bool(_REJECTED_BEFORE.search(before) or _REJECTED_AFTER.match(rest))
    ends = bool(_CLAUSE_END.match(rest))
    goes_on = (_AFTER_I if letter in "iI" else _AFTER_LETTER).match(rest)
    if not enclosed and letter in "aAiI" and not ends and not goes_on and not rejected:
        named = re.search(
            r"\b(?:option|choice|letter)s?\W{0,3}$|(?:选项|选|答案[是为]?)\W{0,3}$", before, re.IGNORECASE
        )
        if not named or (letter == "a" and re.match(r"\s+\w", rest)):
            return None
    affirmed = bool(_AFFIRMED.match(rest)) and not rejected
    return Mention(letter.upper(), at, letter.islower(), enclosed, rejected, affirmed=affirmed)


def _together(found: list[Mention], text: str) -> list[Mention]:
    """Neighbours with only "or", a comma and the like between them share a rejection, or are joined."""
    found = list(found)
    between = [text[one.at + 1 : other.at] for one, other in pairwise(found)]
    links = [len(words) < REACH and _JOIN.fullmatch(words) is not None for words in between]
    ends_in_and, listing = [False] * len(links), False
    for i in reversed(range(len(links))):
        listing = ends_in_and[i] = links[i] and (listing or _AND.search(between[i]) is not None)
    for i, linked in enumerate(links):  # "neither A nor B", "rule out A, B and D"; but "not A, B" means B
        if linked and found[i].rejected and ends_in_and[i]:
            found[i + 1] = replace(found[i + 1], rejected=True)
    plural = False
    for i in reversed(range(len(links))):  # "A, B and C are wrong"
        plural = links[i] and (plural or bool(found[i + 1].rejected and _PLURAL.match(text, found[i + 1].at + 1)))
        if plural:
            found[i] = replace(found[i], rejected=True)
    for i, linked in enumerate(links):
        one, other = found[i], found[i + 1]
        if linked and one.letter != other.letter and not one.rejected and not other.rejected:
            found[i], found[i + 1] = replace(one, joined=True), replace(other, joined=True)
    return found


def listed(text: str, found: list[Mention]) -> bool:
    """Whether the text restates options ("A. red B. blue"): two letters or more that begin an item each."""
    items = [one for one in found if _begins_item(text, one) and not one.rejected]
    return len({one.letter for one in items}) > 1


def leading(text: str, found: list[Mention]) -> Mention | None:
    """The letter with which the text begins as an item does: "D. left", "(C) red"."""
    if not found or not re.fullmatch(r"[\s>*#_(\[\"'`-]*", text[: found[0].at]):
        return None
    return found[0] if _begins_item(text, found[0]) else None


def _begins_item(text: str, one: Mention) -> bool:
    before = text[max(0, one.at - REACH) : one.at]
    mark = _MARK.match(text, one.at + 1)
    if mark is None:
        return False
    if (len(before) == one.at and not before.rstrip(" (*[\"'`_-")) or re.search(r"[\n,;:(\[][ (*\[\"'`_-]*$", before):
        return True
    return mark.group().strip() in (")", "]", ":") or bool(_ITEM.match(text, one.at + 1))
