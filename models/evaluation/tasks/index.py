"""lmms-eval's tasks as its files describe them: by name, with the data set they read and what they are made of.

Torch-free, and lmms_eval is not imported: planning asks here whether a task exists and whether it can be a column.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

OWN = Path(__file__).parent / "yaml"
"""Tasks of this project: the paper's protocol, and HR-Bench without its judge."""
_NAME = re.compile(r"^(task|group):[ \t]*[\"']?([\w.+-]+)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)
_FUNCTION = "!function "
_ASKS_A_JUDGE = re.compile(r"\b(openai|anthropic|llm_judge|get_server|requests\.post|OPENAI_API_KEY|DashScope)\b", re.IGNORECASE)
SHOWN = 5


class BadTask(ValueError):
    """A task that cannot be a column. One line: what is wrong, the near names or the remedy."""


@cache
def package_root(name: str) -> Path:
    """The folder of an installed top-level package, which is not imported."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"package {name!r} is not installed; the stock tasks come from it", name=name)
    return Path(found.submodule_search_locations[0])


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML with `!function module.name` kept as the string "!function module.name"."""


_Loader.add_constructor("!function", lambda loader, node: f"{_FUNCTION}{loader.construct_scalar(node)}")


def _read(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader) or {}


def expanded(path: Path) -> dict[str, Any]:
    """A task's YAML with its `include:` merged in, shallowly, as lmms-eval does."""
    config = _read(path)
    merged: dict[str, Any] = {}
    for included in reversed(_included(config, path)):
        merged |= expanded(included)
    return merged | config


def function_files(path: Path) -> set[Path]:
    """The Python files of every `!function` that the task names, its includes among them."""
    config = _read(path)
    found = set().union(*map(function_files, _included(config, path)))
    return found | {_file_of(name, path.parent)[0] for name in _functions(config)}


def _included(config: dict[str, Any], path: Path) -> list[Path]:
    """Takes `include:` out of the mapping."""
    names = config.pop("include", None) or []
    return [path.parent / name for name in ([names] if isinstance(names, str) else names)]


def _functions(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_functions, value.values()))
    if isinstance(value, list):
        return set().union(*map(_functions, value))
    if isinstance(value, str) and value.startswith(_FUNCTION):
        return {value.removeprefix(_FUNCTION)}
    return set()


def _file_of(name: str, folder: Path) -> tuple[Path, str]:
    """`!function a.b.name`: (a.b.py beside the YAML, else the file of module a.b; name)."""
    module, _, function = name.rpartition(".")
    beside = folder / f"{module}.py"
    if beside.is_file():
        return beside, function
    top, *rest = module.split(".")
    return package_root(top).joinpath(*rest).with_suffix(".py"), function


def path_of(task: str) -> Path:
    """The YAML file of a task. Raises BadTask with the near names."""
    own = OWN / f"{task}.yaml"
    if own.is_file():
        return own
    likely = package_root("lmms_eval") / "tasks" / task / f"{task}.yaml"
    if likely.is_file() and ("task", task) in _NAME.findall(likely.read_text(encoding="utf-8")):
        return likely
    tasks, groups = _files()
    found = tasks.get(task, ())
    if len(found) == 1:
        return found[0]
    if found:
        named = " and ".join(file.name for file in found)
        raise BadTask(f'lmms-eval defines the task "{task}" twice, in {named}; name another')
    if task in groups:
        raise BadTask(f'"{task}" is a group of lmms-eval\'s, not a task; name its tasks: {", ".join(_members(groups[task]))}')
    near = difflib.get_close_matches(task, tasks, n=SHOWN, cutoff=0.6)
    near += [name for name in sorted(tasks) if name.startswith(task.partition("_")[0]) and name not in near][: SHOWN - len(near)]
    raise BadTask(f'lmms-eval has no task "{task}"' + (f"; near it are {', '.join(near)}" if near else f"; it has {len(tasks):,} others"))


@cache
def _files() -> tuple[dict[str, tuple[Path, ...]], dict[str, Path]]:
    """(task → its files, group → its file). Only the lines that give names are read: two thousand files in 0.2 s."""
    tasks: dict[str, tuple[Path, ...]] = {}
    groups: dict[str, Path] = {}
    for folder, _, names in os.walk(package_root("lmms_eval") / "tasks"):
        for name in sorted(names):
            if name.endswith(".yaml"):
                file = Path(folder, name)
                given = dict(_NAME.findall(file.read_text(encoding="utf-8", errors="replace")))
                if "task" in given:
                    tasks[given["task"]] = (*tasks.get(given["task"], ()), file)
                elif "group" in given:
                    groups[given["group"]] = file
    return tasks, groups


def _members(file: Path) -> list[str]:
    listed = expanded(file).get("task") or []
    return [str(one.get("task") or one.get("group")) if isinstance(one, dict) else str(one) for one in listed]


def data_set(task: str) -> tuple[str, str | None, str]:
    """(repository, configuration or None, split) whose rows are the task's questions. Raises BadTask."""
    config = expanded(path_of(task))
    split = config.get("test_split") or config.get("validation_split")
    if not config.get("dataset_path") or not split:
        raise BadTask(f'the task "{task}" names no data set with a test or validation split; it cannot be a column')
    return config["dataset_path"], config.get("dataset_name"), split


def metrics_named(task: str) -> list[str]:
    """The metrics that a task's YAML lists, the headline first."""
    listed = expanded(path_of(task)).get("metric_list") or []
    return [str(one["metric"]).removeprefix(_FUNCTION).rpartition(".")[2] for one in listed]


def clips_folder(task: str) -> str | None:
    """The folder below HF_HOME in which lmms-eval looks for the task's clips; None for a task that shows none. Raises BadTask for
    one whose code looks elsewhere."""
    path = path_of(task)
    config = expanded(path)
    options = config.get("dataset_kwargs") or {}
    if not options.get("video"):
        return None
    hook = str(config.get("doc_to_visual") or "").removeprefix(_FUNCTION)
    file, _ = _file_of(hook, path.parent)
    if "base_cache_dir" not in (_top_level(file)[0] if file.is_file() else {}):
        raise BadTask(f'the task "{task}" shows clips, and its code ({file.name}) does not say in which folder it looks for them, so that no other can be named')
    return str(options["cache_dir"])


def check(task: str) -> None:
    """Raises BadTask for a task that cannot be answered here: unknown, of another form of output, or judged by a model."""
    config = expanded(path_of(task))
    data_set(task)
    clips_folder(task)
    form = config.get("output_type", "generate_until")
    if form != "generate_until":
        raise BadTask(f'the task "{task}" is of output_type {form}; latent decoding answers in text, so only generate_until can be a column')
    if judge := _judge(path_of(task)):
        raise BadTask(f'the answers of "{task}" are judged by a model on the network ({judge}); evaluations have no network')


def _judge(path: Path) -> str:
    """ "utils.py: NAME" of a function that scores an answer and asks a model; "" where none does."""
    config = _read(path)
    included = _included(config, path)
    scoring = [config.get("process_results"), *(one.get("aggregation") for one in config.get("metric_list") or [] if one)]
    for name in sorted(set().union(*map(_functions, scoring))):
        file, function = _file_of(name, path.parent)
        if file.is_file() and _reaches_a_judge(file, function):
            return f"{file.name}: {function}"
    return next(filter(None, map(_judge, included)), "")


def _reaches_a_judge(file: Path, name: str, seen: set[tuple[Path, str]] | None = None) -> bool:
    """Whether a function, or anything of lmms-eval's that it uses by name, names a client of a judge."""
    seen = set() if seen is None else seen
    if (file, name) in seen:
        return False
    seen.add((file, name))
    defined, imported = _top_level(file)
    if name in imported:
        module, original = imported[name]
        other = _module_file(module, file)
        return bool(_ASKS_A_JUDGE.search(f"{module}.{original}")) or (other is not None and _reaches_a_judge(other, original, seen))
    if name not in defined:
        return False
    node = defined[name]
    return bool(_ASKS_A_JUDGE.search(ast.unparse(node))) or any(
        _reaches_a_judge(file, used.id, seen) for used in ast.walk(node) if isinstance(used, ast.Name)
    )


@cache
def _top_level(file: Path) -> tuple[dict[str, ast.AST], dict[str, tuple[str, str]]]:
    """(name → what defines it, name → (module, name there)) at the top level of a file."""
    defined: dict[str, ast.AST] = {}
    imported: dict[str, tuple[str, str]] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined[node.name] = node
        elif isinstance(node, ast.Assign):
            defined |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name: (node.module or "", alias.name) for alias in node.names}
    return defined, imported


def _module_file(module: str, beside: Path) -> Path | None:
    """The file of a module of lmms-eval's, or of one beside the file; None for any other's."""
    inside = module.removeprefix("lmms_eval.") if module.startswith("lmms_eval.") else ""
    path = package_root("lmms_eval").joinpath(*inside.split(".")) if inside else beside.parent / module
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


def columns_read(task: str) -> tuple[str, ...]:
    """Columns without which no question of the task can be asked: what its `doc_to_…` functions take from a document come what may."""
    path = path_of(task)
    config = expanded(path)
    if config.get("process_docs"):
        return ()  # the documents are made of the data set's rows, not the rows themselves
    found: dict[str, None] = {}
    for hook in ("doc_to_visual", "doc_to_text"):
        for name in _functions(config.get(hook)):
            file, function = _file_of(name, path.parent)
            if file.is_file():
                found |= dict.fromkeys(_subscripts(file, function))
    return tuple(found)


def _subscripts(file: Path, function: str) -> list[str]:
    """The constants by which a function subscripts its first argument, outside of any condition."""
    body = _top_level(file)[0].get(function)
    if not isinstance(body, ast.FunctionDef) or not body.args.args:
        return []
    document, found = body.args.args[0].arg, []
    waiting: list[ast.AST] = list(body.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, (ast.If, ast.Try, ast.IfExp, ast.For, ast.While, ast.BoolOp, ast.Lambda, ast.comprehension, ast.FunctionDef)):
            continue
        if isinstance(node, ast.Return):
            waiting += [node.value] if node.value else []
            continue
        of_document = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == document
        if of_document and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            found.append(node.slice.value)
        waiting += ast.iter_child_nodes(node)
    return found
