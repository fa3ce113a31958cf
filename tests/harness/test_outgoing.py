"""What leaves: no secret, no byte that a terminal obeys."""

import io
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.outgoing import Inert, inert, inert_values, redact
from harness.store import Store
from harness.tracking import where

ROOT = Path(__file__).parents[2]
SECRETS = {
    "MLFLOW_TRACKING_URI": "http://bob:pw-SECRET@host:5000",
    "PROXY_ADDRESS": "http://only-a-token@proxy",
    "OPENAI_API_KEY": "abcdef12345",
    "BASE_URL": "https://u:p%40ss-word@api.example/v1",
    "LAB_TOKEN": "tok/en+12345",
    "ODD_URL": "postgresql://u:half@way/there@db/x",
    "SPACED_URL": "http://u:two words@host",
    "QUERY_URL": "http://host/?pw=queried",
}


@pytest.mark.parametrize(
    "text",
    [
        "MLflow at http://bob:pw-SECRET@host:5000: refused",
        "url='http://bob:pw-SECRET@host:5000/api?x=1'",
        "password pw-SECRET, user bob",
        "http://only-a-token@proxy failed",
        "key abcdef12345 was not taken",
        "https://u:p%40ss-word@api.example/v1 and p@ss-word",
        "tok/en+12345 tok%2Fen%2B12345",
        "half@way/there",
        "http://u:two words@host is not there",
        "http://host/?pw=queried and http://host/?x=1&key=queried",
        "http://a:b-of-nobody@elsewhere/x",
        "Authorization: Bearer aaaa.bbbb.cccc",
        "https://host/x?token=pw-SECRET-2&y=1",
        "sk-" + "a1B2" * 8,
    ],
)
def test_no_secret_is_left(text):
    said = redact(text, SECRETS)
    for secret in (
        "SECRET",
        "only-a-token",
        "abcdef12345",
        "ss-word",
        "12345",
        "half@way",
        "two words",
        "queried",
        "b-of-nobody",
        "aaaa.bbbb",
        "a1B2a1B2",
    ):
        assert secret not in said
    assert "***" in said


@pytest.mark.parametrize(
    "text", ["a@b.org wrote http://host/x", "http://host:5000/#/runs/1", "keys: 3 tokens", "stage1.p=0.3"]
)
def test_what_is_no_secret_stays(text):
    assert redact(text, {"HOME": "/root", "MONKEY": "banana"}) == text


@pytest.mark.parametrize(
    "name, value",
    [("TOKENIZERS_PARALLELISM", "false"), ("USE_TOKEN", "False"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "disabled"), ("SECRETARY", "Ms Bell"), ("MAX_TOKENS", "10000")],
)
def test_a_switch_is_no_secret(name, value):
    text = f'{{"best_shown": {value}}}'
    assert redact(text, {name: value}) == text and inert_values([text], {name: value}) == [text]


def test_keys_by_any_spelling_are_found():
    for name in ("HF_TOKEN", "hf_token", "GithubToken", "LAB_SECRETS", "TOKEN_2", "APIKEY", "API_KEYS", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD_RO"):
        assert redact("it is k33p-it", {name: "k33p-it"}) == "it is ***", name


def test_a_picture_inside_a_page_is_left_as_it_is_whatever_its_bytes_look_like():
    looks_like_a_key = "data:image/png;base64,iVBORw0KGgo+sk" + "a1B2" * 8 + "/abcdef12345+hf" + "c3D4" * 8 + "AA=="
    page = f'<img src="{looks_like_a_key}"> <p>abcdef12345</p> <img src="{looks_like_a_key}">'
    assert redact(page, SECRETS) == f'<img src="{looks_like_a_key}"> <p>***</p> <img src="{looks_like_a_key}">'


def test_bytes_that_look_like_a_key_without_its_mark_stay():
    assert redact("skA1b2" + "c3D4" * 8, {}) == "skA1b2" + "c3D4" * 8


def test_escapes_and_directions_are_written_not_obeyed():
    assert inert("a\x1b[31mred\x07 \u202egnp.exe\x00\x9b1m") == "a\\x1b[31mred\\x07 \\u202egnp.exe\\x00\\x9b1m"
    assert inert("−0.3 · 答案 ✓\n\tü\u00a0x") == "−0.3 · 答案 ✓\n\tü\u00a0x"


@dataclass(frozen=True)
class Piece:
    label: str
    parts: tuple
    value: float = float("nan")


def test_every_text_of_nested_values_is_made_inert_before_a_writer_can_change_its_letters():
    secrets = {"LAB_TOKEN": "se_cr&t<1>"}
    before = Piece("a se_cr&t<1>", (Piece("b", ({"se_cr&t<1>": ["x\x1b[2J"]},)), 3, None))
    after = inert_values(before, secrets)
    assert after.label == "a ***" and after.parts == (replace(before.parts[0], parts=({"***": ["x\\x1b[2J"]},)), 3, None)
    clean = Piece("a", ("b", 2))
    assert inert_values(clean, secrets) is clean


def test_a_guarded_stream_passes_only_inert_text(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:pw-SECRET@host")
    stream = io.StringIO()
    print("at http://bob:pw-SECRET@host\x1b[2J", file=Inert(stream))
    assert stream.getvalue() == "at http://***@host\\x1b[2J\n"


def test_a_closed_output_is_no_error():
    code = "from harness.outgoing import guarded\nwith guarded():\n    print('said to nobody')\n"
    started = [f"{sys.executable} -c \"{code}\" {closed}" for closed in (">&-", "2>&-", ">&- 2>&-")]
    for command in started:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0 and "Traceback" not in done.stderr


def test_a_traceback_of_the_command_line_holds_no_secret(tmp_path):
    code = (
        "from harness.outgoing import guarded\n"
        "with guarded():\n"
        "    raise RuntimeError('http://bob:pw-SECRET@host is not there\\x1b[2J')\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "X_URL": "http://bob:pw-SECRET@host"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1 and "RuntimeError" in done.stderr
    assert "SECRET" not in done.stderr and "\x1b" not in done.stderr


def test_everything_a_report_leaves_is_free_of_the_address_s_password(tmp_path, monkeypatch, capsys):
    """The command as a person types it, on a store that holds nothing: MLflow's address is echoed by several libraries."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:pw-SECRET@127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "run.py", "report", "experiments/table3c.yaml", "--profile", "smoke", "--results", str(tmp_path / "s"), "--reports", str(tmp_path / "r")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(left) >= 5 and b"***@127.0.0.1:9" in b"".join(left)
    assert not any(b"SECRET" in content for content in [*left, done.stdout.encode(), done.stderr.encode()])


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("htp://x", "is of a kind that MLflow does not know"),
        ("s3://bucket/x", "is of a kind that MLflow does not know"),
        ("localhost:5000", "write http://localhost:5000"),
        ("http://", "names no server"),
        ("sqlite://", "sqlite:///PATH"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:x.db", "sqlite:///PATH"),
        ("mssql://u:pw-SECRET@h/db", "uv pip install pyodbc"),
        ("postgresql://u:pw-SECRET@h/db", "uv pip install psycopg"),
        ("postgres://u:pw-SECRET@h/db", "write postgresql://"),
        ("databricks-uc", "write databricks, or databricks://PROFILE"),
        ("http://bob:pw-SECRET@h:port", "write http://HOST:PORT"),
        ("http://h:99999", "write http://HOST:PORT"),
        ("http:// h", "write http://HOST:PORT"),
        ("http://h:5000\nhttp://i", "a line break"),
        ("'http://h:5000'", "write it without them"),
        ("~/mlruns", "write the whole path"),
        ("$HOME/mlruns", "write the whole path"),
        ("sqlite:///$HOME/x.db", "write the whole path"),
        ("file://host/mlruns", "names a host (host); write file:///PATH"),
        ("file", "is a file, where MLflow needs a folder"),
        ("sqlite:///file", "is a file, and no SQLite database"),
        ("sqlite:///cut.db", "is a file, and no SQLite database (database disk image is malformed)"),
        ("sqlite:///pipe", "cannot be read as a file; choose another"),
        ("nonsense", "is no address, and no folder that is there; use http(s)://"),
        ("mlflow.example.org", "(a new one is written ./mlflow.example.org)"),
        ("sqlite:///folder", "is a folder; name a file in it"),
        ("sqlite:///nowhere/x.db", "lies in a folder that is not there"),
    ],
)
def test_an_address_that_mlflow_could_never_use_is_one_line(tmp_path, monkeypatch, address, says):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("a text")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    with closing(sqlite3.connect("whole.db")) as database:
        database.execute("create table runs (id)")
        database.commit()
    Path("cut.db").write_bytes(Path("whole.db").read_bytes()[:3000])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(where.TrackingError, match="MLFLOW_TRACKING_URI: ") as caught:
        where.check(Store(tmp_path))
    assert not Path("nonsense").exists()
    assert says in str(caught.value) and "SECRET" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["", "  ", "sqlite:////tmp/x.db", "sqlite:///x.db", "file:/tmp/mlruns", "file:///tmp/mlruns", "mlruns", "./mlruns", "/tmp/mlruns", "./my runs", "file:///tmp/my%20runs", "sqlite:///my runs.db", "HTTP://h", "databricks", "databricks://me", "http://h:5000", "https://u:p@h/x/"])  # fmt: skip
def test_the_usual_addresses_are_taken(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    where.check(Store(tmp_path))


@pytest.mark.parametrize(("name", "character"), [("p%41p", "PERCENT SIGN"), ("q?q", "QUESTION MARK"), ("n\nl", "LINE FEED")])
def test_a_results_folder_that_mlflow_cannot_address_is_one_line(tmp_path, monkeypatch, name, character):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(where.TrackingError, match=character) as caught:
        where.check(Store(tmp_path / name))
    assert "\n" not in str(caught.value) and "--results" in str(caught.value)


@pytest.mark.parametrize("name", ["a b", "it's", 'q"q', "h#h", "ü 答", "a&b;c", "$(x)", "a:b"])
def test_other_odd_names_are_taken(tmp_path, monkeypatch, name):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    where.check(Store(tmp_path / name))


def test_another_locale_than_utf_8_changes_nothing(tmp_path):
    """ASCII for files, paths and terminal, as under LANG=C with Python's own remedies switched off."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    folder = tmp_path / "répertoire 答"
    done = subprocess.run(
        [sys.executable, "run.py", "audit", "experiments/table3c.yaml"], cwd=ROOT, env=environment, capture_output=True, check=False
    )
    assert done.returncode in (0, 1) and b"Traceback" not in done.stderr
    done.stdout.decode("utf-8")
    words = ["run.py", "plan", "experiments/table3c.yaml", "--profile", "smoke", "--results", str(folder)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0 and b"36 jobs" in done.stdout
