"""What is wrong with a tracking address, told before anything is computed. Nothing is connected to, and MLflow is not imported."""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

DRIVERS = {"postgresql": ("psycopg", "psycopg2"), "mysql": ("mysqlclient", "MySQLdb", "pymysql"), "mssql": ("pyodbc",)}
"""Kind of database → what to install, and the modules any of which will do."""
KNOWN = "use http(s)://, sqlite:///, postgresql://, mysql:// or a folder"


def problem(uri: str) -> str:
    """What follows "MLFLOW_TRACKING_URI: ADDRESS …", with the remedy; "" for an address that MLflow can use."""
    if uri[0] in "'\"" and uri[-1] == uri[0]:
        return "stands in quotes; write it without them"
    if any(c < " " for c in uri):
        return "holds a line break or another control character; write one line"
    scheme, colon, _ = uri.partition(":")
    kind = scheme.lower().partition("+")[0] if colon else ""
    if kind in DRIVERS:
        missing = not any(importlib.util.find_spec(name) for name in DRIVERS[kind])
        return f"needs a driver that is not installed: uv pip install {DRIVERS[kind][0]}" if missing else ""
    if (kind or uri).startswith("databricks"):
        return databricks(kind or uri)
    if kind in CHECKS:
        return CHECKS[kind](uri)
    if kind == "postgres":
        return "is of a kind that MLflow does not know; write postgresql://"
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        return f"has no scheme; write http://{uri}"
    if kind and "/" not in scheme and not Path(uri).exists():
        return f"is of a kind that MLflow does not know; {KNOWN}"
    if "/" not in uri and uri not in (".", "mlruns") and not os.path.lexists(uri) and not written_short(uri):
        return f"is no address, and no folder that is there; {KNOWN} (a new one is written ./{uri})"
    return folder(uri)


def server(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        named = bool(parts.hostname) and not re.search(r"\s", uri)
        return "" if named and parts.port != 0 else "names no server; write http://HOST:PORT"
    except ValueError:
        return "names no server and port; write http://HOST:PORT"


def database(uri: str) -> str:
    """Of a SQLite file: what stands before its `?`."""
    path = uri.partition(":")[2].partition("?")[0]
    if not path.startswith("///"):
        return "is no database's address; write sqlite:///PATH, or sqlite:////PATH from the root"
    if path in ("///", "///:memory:"):
        return "is a database in memory, gone with each process; write sqlite:///PATH"
    file = Path(path.removeprefix("///"))
    if unexpanded := written_short(str(file)):
        return unexpanded
    if file.is_dir():
        return "is a folder; name a file in it, as in sqlite:///PATH/mlflow.db"
    if not file.parent.is_dir():
        return "lies in a folder that is not there; make it first"
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        return "cannot be written; choose another"
    if not file.exists():
        return ""
    if not file.is_file() or not os.access(file, os.R_OK):
        return "cannot be read as a file; choose another"
    try:
        with closing(sqlite3.connect(file.absolute().as_uri() + "?mode=ro", uri=True)) as opened:
            opened.execute("select count(*) from sqlite_master")
    except sqlite3.OperationalError:  # in use just now, or in a state that a writer puts right
        return ""
    except sqlite3.DatabaseError as error:
        return f"is a file, and no SQLite database ({error}); choose another"
    return ""


def file_uri(uri: str) -> str:
    from urllib.request import url2pathname  # brings the HTTP client with it

    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        return f"names a host ({parts.netloc}); write file:///PATH, or the folder alone"
    return folder(url2pathname(parts.path))


def folder(path: str) -> str:
    if unexpanded := written_short(path):
        return unexpanded
    there = Path(path).absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        return "is a file, where MLflow needs a folder; a database is written sqlite:///PATH"
    return "" if os.access(there, os.W_OK | os.X_OK) else "cannot be written; choose a folder that you may write"


def written_short(path: str) -> str:
    """~ and $HOME are the shell's: MLflow would make folders of these names."""
    short = (path.startswith("~") or "$" in path) and not os.path.lexists(path)
    return "is not written out (~ and $ mean nothing here); write the whole path" if short else ""


def databricks(kind: str) -> str:
    if kind != "databricks":
        return "is no address of runs; write databricks, or databricks://PROFILE"
    missing = importlib.util.find_spec("databricks") is None
    return "needs a package that is not installed: uv pip install databricks-sdk" if missing else ""


CHECKS: dict[str, Callable[[str], str]] = {"http": server, "https": server, "sqlite": database, "file": file_uri}
