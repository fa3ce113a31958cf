"""Every `run.py` command that README and docs/ show is one that the program takes."""

from __future__ import annotations

import re
import shlex

import pytest

from harness.cli.main import _parse
from tests.docs.pages import DOCS

PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
_COMMAND = re.compile(r"^ {4}(?:\w+=\S+ )*uv run run\.py (.*?)(?:  +#.*)?$", re.MULTILINE)


def shown() -> list[tuple[str, str]]:
    return [(page.name, text) for page in PAGES for text in _COMMAND.findall(page.read_text(encoding="utf-8"))]


def test_there_are_commands_to_look_at():
    assert len(shown()) > 20


@pytest.mark.parametrize(("page", "text"), shown())
def test_a_shown_command_is_understood_and_the_files_that_it_names_are_there(page, text):
    words = shlex.split(text)
    options = _parse(list(words))
    for name in map(str, getattr(options, "files", None) or []):
        made_by_another = name.endswith(".zip") or name.startswith("OUT")
        assert made_by_another or (DOCS.parent / name).exists(), f"{page}: {name} is not there"
    assert options.verb
