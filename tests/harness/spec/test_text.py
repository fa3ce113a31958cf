from pathlib import Path

import pytest

from harness.spec.errors import SpecError
from harness.spec.text import parse, scalar


def read(text: str):
    return parse(text, Path("spec.yaml"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1e-5", 1e-5), ("1.0e-5", 1e-5), ("5", 5), ("-0.5", -0.5), (".5", 0.5), ("on", "on"), ("no", "no"), ("3c", "3c"),
     ("1_000", "1_000"), ("~", None), ("null", None), ("true", True), ("1:30", "1:30"), ("0x1F", "0x1F")],
)  # fmt: skip
def test_a_plain_word_means_what_it_looks_like(written, meant):
    assert scalar(written) == meant and type(scalar(written)) is type(meant)


def test_quotes_keep_a_number_a_text():
    assert read('table: "3"').data == {"table": "3"}


def test_reported_values_keep_their_decimals():
    assert read("rows: [{reported: [72.0, ~15, -, 70.0]}]").data["rows"][0]["reported"] == ["72.0", "~15", "-", "70.0"]


def test_every_key_and_item_knows_its_line():
    document = read("title: x\nrows:\n  - a: 1\n  - b:\n      c: 2\n")
    assert document.line("rows", 1, "b", "c") == 5
    assert document.line("rows", 0) == 3
    assert document.line("rows", 1, "b", "missing") == 4
    assert document.where("title") == "spec.yaml:1"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1, 2\nb: 3\n", 2, "in `b: 3`"),
        ("a: 1\n\tb: 2\n", 2, "a tab in the indentation"),
        ("a: 1\na: 2\n", 2, '"a" is given twice (first on line 1)'),
        ("title: x: y\n", 1, "needs quotes"),
        ("a: 'open\n", 2, "quote"),
        ("? [1]\n: 2\n", 1, "a key must be a word"),
    ],
)
def test_broken_yaml_is_one_line_with_the_place(text, line, words):
    with pytest.raises(SpecError) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith(f"spec.yaml:{line}: ") and words in message and "\n" not in message


def test_an_empty_file_says_so():
    with pytest.raises(SpecError, match="is empty"):
        read("# nothing\n")
