"""Which part of the program imports which: rooms form no cycle, models knows no harness, harness loads no tensors early."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def modules(top: str) -> dict[str, Path]:
    """Dotted name → file. A package goes by its own name."""
    found = {}
    for path in sorted((REPOSITORY / top).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str, known: dict[str, Path]) -> str:
    """The package of a module; a module directly below harness/ or models/ is a room by itself."""
    whole = known[module].name == "__init__.py" or module.count(".") == 1
    return module if whole else module.rpartition(".")[0]


def imports(source: str, *, lazy: bool = True) -> Iterator[str]:
    """Names that a module imports, as "package.module.name". lazy: inside functions too. Never what only a type checker sees,
    nor names given to `import_module`: those of the methods' packages, which the registry lists."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)


def rooms(top: str) -> dict[str, dict[str, str]]:
    """Room → room that it imports → one place where it does."""
    known = modules(top)
    graph: dict[str, dict[str, str]] = {}
    for module, path in known.items():
        mine = room_of(module, known)
        for name in imports(path.read_text(encoding="utf-8")):
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name and (theirs := room_of(name, known)) != mine:
                graph.setdefault(mine, {}).setdefault(theirs, f"{module} imports {name}")
    return graph


def cycle_in(graph: dict[str, dict[str, str]]) -> list[str]:
    """The imports that close a cycle, in turn; empty when there is none."""
    try:
        TopologicalSorter({room: graph[room].keys() for room in graph}).prepare()
    except CycleError as error:
        path = error.args[1][::-1]
        return [graph[a][b] for a, b in pairwise(path)]
    return []


@pytest.mark.parametrize("top", ["harness", "models"])
def test_no_rooms_import_each_other_in_a_circle(top):
    cycle = cycle_in(rooms(top))
    assert not cycle, "\n".join(["these imports form a circle:", *cycle])


def test_a_circle_is_found_and_named():
    graph = {"a": {"b": "a.x imports b"}, "b": {"c": "b.y imports c"}, "c": {"a": "c.z imports a"}}
    assert sorted(cycle_in(graph)) == ["a.x imports b", "b.y imports c", "c.z imports a"]
    assert not cycle_in({"a": {"b": "a.x imports b", "c": "a.x imports c"}, "b": {"c": "b.y imports c"}})


def test_imports_inside_functions_count_and_those_for_type_checkers_do_not():
    source = "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    from c import d\n"
    assert sorted(imports(source)) == ["b", "c.d"] and list(imports(source, lazy=False)) == ["b"]


def test_models_never_imports_harness():
    found = [
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in modules("models").values()
        for name in imports(path.read_text(encoding="utf-8"))
        if name.split(".")[0] == "harness"
    ]
    assert not found


def test_harness_imports_no_tensor_library_before_it_needs_one():
    heavy = {"torch", "transformers", "deepspeed", "lmms_eval", "accelerate"}
    found = [
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in modules("harness").values()
        for name in imports(path.read_text(encoding="utf-8"), lazy=False)
        if name.split(".")[0] in heavy
    ]
    assert not found
