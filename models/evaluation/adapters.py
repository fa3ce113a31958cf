"""lmms-eval's own models, by name, as its files tell: planning asks whether one could run, without importing it. Torch-free."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path

from models.evaluation.tasks.index import package_root

_ENTRY = re.compile(r'^    "(\w+)": "\w+",', re.MULTILINE)


@cache
def lacking(name: str) -> str:
    """Why lmms-eval's model `name` cannot be used with what is installed; "" when nothing speaks against it."""
    models = package_root("lmms_eval") / "models"
    files = [file for kind in ("chat", "simple") if (file := models / kind / f"{name}.py").is_file()]
    if not files:
        known = _ENTRY.findall((models / "__init__.py").read_text(encoding="utf-8"))
        close = difflib.get_close_matches(name, known, n=1)
        return f"lmms-eval has no model {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    absent = sorted(package for package in _packages(files[0], set()) if importlib.util.find_spec(package) is None)
    if absent:
        return f"lmms-eval's {name} imports {' and '.join(absent)}, which is not installed"
    return ""


def _packages(file: Path, seen: set[Path]) -> set[str]:
    """Top-level packages without which a module of lmms-eval cannot be imported, through its own modules too."""
    seen.add(file)
    found: set[str] = set()
    for module in _imports(file):
        own = package_root("lmms_eval").joinpath(*module.split(".")[1:]).with_suffix(".py")
        if not module.startswith("lmms_eval.models."):
            found.add(module.partition(".")[0])
        elif own.is_file() and own not in seen:
            found |= _packages(own, seen)
    return found


def _imports(file: Path) -> list[str]:
    """Modules that a file imports come what may: what stands in a `try` it can do without."""
    found: list[str] = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return found
