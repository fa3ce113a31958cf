import os
from pathlib import Path

import pytest

from harness.spec.errors import SpecError
from harness.spec.text import parse, scalar
from harness.spec.text import read as read_file


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


def refused(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def bomb(levels: int) -> str:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (bomb(9), 5, "more than 50000 values"),
        ("a: 1\nb: &b [*b]\n", 2, "*b refers to a value that contains it"),
        ("b: &b {c: {d: *b}}\n", 1, "*b refers to a value that contains it"),
        ("b: *c\n", 1, "no &c above it"),
        ("a: 1\nb: " + "[" * 200_000 + "]" * 200_000 + "\n", 2, "inside one another"),
        ("a: " + "{b: " * 300 + "1" + "}" * 300 + "\n", 1, "inside one another"),
        ("\n".join("  " * i + f"k{i}:" for i in range(200)), 41, "inside one another"),
        ("a: " + "9" * 5000 + "\n", 1, "5000 digits"),
        ("a: 0." + "0" * 5000 + "1\n", 1, "digits"),
        ("a: 1e400\n", 1, "too large"),
        ("a: 1e-400\n", 1, "too small"),
        ("a: 99999999999999999999\n", 1, "too large"),
        ("a: " + "x" * 100_000 + "\n", 1, "100000 characters"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "the tag !!python"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a: 1\x1b[31m\n", 1, "U+001B ESCAPE"),
        ('a: 1\nb: "\\e[31m"\n', 2, "U+001B ESCAPE"),
        ("a: 1\nstage\u00a0one: 2\n", 2, "U+00A0 NO-BREAK SPACE"),
        ("a: x\u200by\n", 1, "U+200B ZERO WIDTH SPACE"),
        ("a: \u202ex\n", 1, "U+202E RIGHT-TO-LEFT OVERRIDE"),
        ("rows:\n  - {p:\u00a00.3, q: 1}\n  - [\n", 2, "U+00A0 NO-BREAK SPACE"),
        ("rows:\n  - {p： 0.3\n  b: 1\n", 3, "YAML syntax"),
        ("a: “x”\n", 1, "U+201C LEFT DOUBLE QUOTATION MARK"),
        ("*x : 1\n", 1, "no &x above it"),
    ],
)
def test_a_file_from_elsewhere_costs_one_line(text, line, words):
    message = refused(text)
    assert message.startswith(f"spec.yaml:{line}: ") and words in message


def test_aliases_that_stand_for_little_are_read():
    assert read("a: &x [1, 2]\nb: *x\nc: {d: *x}\n").data == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}


@pytest.mark.parametrize("written", ["010", "1_000", "0x10", "1:30", ".inf", "-.inf", ".nan", "NaN", "0o7", "１"])
def test_what_yaml_versions_read_differently_is_no_number(written):
    assert scalar(written) == written


def test_a_byte_order_mark_and_windows_line_ends_mean_nothing(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    assert read_file(file).data == {"a": 1, "b": "x"}


def test_a_file_that_is_no_utf_8_or_no_file_says_so(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(SpecError, match="is not UTF-8 text"):
        read_file(file)
    file.write_bytes(b"a: 1\n" * 2**19)
    with pytest.raises(SpecError, match="at most 1048576"):
        read_file(file)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SpecError, match="not a regular file"):
        read_file(tmp_path / "pipe")


def test_an_invisible_character_in_a_comment_does_no_harm():
    assert read("a: 1 # pasted\u00a0text\n").data == {"a": 1}
