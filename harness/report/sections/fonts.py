"""Fonts of the charts: matplotlib's own, and behind it installed ones for characters that it has no glyphs for, such as Chinese."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.font_manager import fontManager, get_font

OWN = "DejaVu Sans"
PREFERRED = ("Noto Sans CJK", "Noto Sans", "Source Han Sans", "WenQuanYi", "Droid Sans Fallback", "IPA", "Takao", "PingFang", "Microsoft YaHei")
"""How names of fonts begin that are taken before others, as they suit a chart."""
BOXES = ("Last Resort", "Adobe Blank")
"""Fonts that have a glyph for everything, and show nothing with it."""


@contextmanager
def showing(texts: Iterable[str], **settings: Any) -> Iterator[None]:
    """Figures drawn inside show these texts as they are written: a dollar sign is a dollar sign. settings: matplotlib's, besides. What a
    person's matplotlibrc or style says does not count, so that the same report is the same bytes everywhere."""
    written = {"text.parse_math": False, "font.family": families(texts)[0], **settings}
    log = logging.getLogger("matplotlib.font_manager")
    before = log.level
    with rc_context(), warnings.catch_warnings():
        rcdefaults()
        rcParams.update(written)
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `lacking` says it
        log.setLevel(logging.ERROR)  # that such a font has no bold is no news to anyone
        try:
            yield
        finally:
            log.setLevel(before)


def families(texts: Iterable[str]) -> tuple[list[str], str]:
    """(fonts that show the texts, the first before the others; the characters that no installed font has)"""
    names, missing = _families("".join(sorted({c for text in texts for c in text if c.isprintable()})))
    return list(names), missing


@lru_cache(maxsize=16)
def _families(characters: str) -> tuple[tuple[str, ...], str]:
    missing = set(characters) - _covered(OWN)
    names = [OWN]
    for name in _others() if missing else ():
        if found := missing & _covered(name):
            names.append(name)
            missing -= found
        if not missing:
            break
    return tuple(names), "".join(sorted(missing))


def _others() -> list[str]:
    """Installed families, in an order that does not depend on where their files lie."""
    names = {font.name for font in fontManager.ttflist if font.name != OWN and not font.name.startswith(BOXES)}
    return sorted(names, key=lambda name: (next((k for k, begin in enumerate(PREFERRED) if name.startswith(begin)), len(PREFERRED)), name))


@cache
def _covered(name: str) -> frozenset[str]:
    """The characters that a family has glyphs for."""
    return frozenset(map(chr, get_font(fontManager.findfont(name, fallback_to_default=False)).get_charmap()))


def lacking(where: str, missing: str) -> str:
    """One line for a person: what could not be drawn, and the remedy."""
    named = ", ".join(missing[:8]) + (", …" if len(missing) > 8 else "")
    return f"{where}: no installed font has {named}, so boxes are drawn instead: install one (apt-get install fonts-noto-cjk), then draw again (--force)"
