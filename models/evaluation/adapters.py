"""lmms-eval's own models, by name, as its files tell: planning asks whether one could run, without importing it. Torch-free."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path

from models.evaluation.tasks import _package_root

_ENTRY = re.compile(r'^    "(\w+)": "\w+",', re.MULTILINE)


@cache
def lacking(name: str) -> str:
    """Why lmms-eval's model `name` cannot be used with what is installed; "" when nothing speaks against it."""
    models = _package_root("lmms_eval") / "models"
    files = [file for kind in ("chat", "simple") if (file := models / kind / f"{name}.py").is_file()]
    if not files:
        known = _ENTRY.findall((models / "__init__.py").read_text(encoding="utf-8"))
        close = difflib.get_close_matches(name, known, n=1)
        return f"lmms-eval has no model {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    absent = [package for package in _imports(files[0]) if importlib.util.find_spec(package) is None]
    if absent:
        return f"lmms-eval's {name} imports {' and '.join(absent)}, which is not installed"
    return ""


def _imports(file: Path) -> list[str]:
    """Top-level packages that a module needs to be imported at all: what stands in a `try` it can do without."""
    found: dict[str, None] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= dict.fromkeys(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found[node.module.partition(".")[0]] = None
    return list(found)
