"""Parsing, choosing the verb, and turning expected errors into one line."""

from __future__ import annotations

import argparse
import difflib
import errno
import gc
import importlib
import keyword
import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.places import RESULTS

VERBS = {
    "run": "run what the experiments still need, and write their reports (the default verb)",
    "plan": "show the jobs, what is shared, what is done, and what the rest will cost",
    "diff": "show how two recipes, rows, stores or reports differ",
    "status": "show where jobs stand",
    "logs": "show a job's log",
    "why": "show a cell's value, what it still needs, and what that costs",
    "report": "redraw the reports from stored results; nothing is run",
    "samples": "write a page with every question, its pictures and all answers, to filter and search",
    "cancel": "stop running and waiting jobs",
    "retry": "run failed jobs again, or set damaged ones aside",
    "verify": "compare every finished job, or an exported bundle, with its digests",
    "export": "write the results behind tables into one file, for a reviewer or a colleague",
    "import": "add the results of an exported file to this store",
    "tag": "give jobs a name and a note, or list the names",
    "gc": "list jobs that no named table needs; --delete deletes them",
    "adopt": "take an existing checkpoint as the result of a row's training",
    "release": "release a job whose owner is gone",
    "audit": "check the arithmetic of reported tables",
    "doctor": "check this machine: interpreter, packages, disk, results folder",
    "completion": "print shell code that completes verbs, options and files",
}
"""Verb → help. The verb's module in this folder has `add_arguments(parser)` and `main(options) -> int`."""

_DISK = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close other programs, which have too many files open",
    errno.ENAMETOOLONG: "choose a shorter one",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "choose a folder you may read and write"),
    **dict.fromkeys(
        (errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.EIO, errno.ESTALE),
        "choose a folder you may write",
    ),
}
"""Errno of the file system → what the user can do."""
_EXPECTED = (
    ("harness.spec.errors", "SpecError"),
    ("harness.store.files", "StoreError"),
    ("harness.dispatch", "DispatchError"),
    ("harness.dispatch.slurm.queue", "SchedulerSilent"),
    ("harness.tracking", "TrackingError"),
    ("models.adopt", "Unfit"),
    ("models.training.data", "DataError"),
    ("models.evaluation.external", "BadBenchmark"),
)
"""Errors that are about the user's input or machine, by the module that defines them: shown as a line, not a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    gc.disable()  # garbage collection only slows short commands; `run` turns it on again
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # to look for any reads every installed package's metadata
    try:
        options = _parse(arguments)
        return _verb(options.verb).main(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = _expected(error)
        if line is None:
            raise
        print(line, file=sys.stderr)
        return 2


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, with the nearest known name."""

    def error(self, message: str) -> NoReturn:
        if chosen := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            message += near(chosen[1], re.findall(r"[\w-]+", chosen[2]))
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def near(word: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(names), n=1)
    return f'; did you mean "{found[0]}"?' if found else ""


class Version(argparse.Action):
    """Prints the version of the code that runs here, and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str, **words: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **words)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        import tomllib

        from harness.worker.provenance import code

        project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
        now = code()
        commit = f"commit {now['commit'][:12]}{' with changes' if now['dirty'] else ''}" if now["commit"] else "not a git checkout"
        print(f"{project['name']} {project['version']} ({commit})")
        raise SystemExit(0)


def _parse(arguments: list[str]) -> argparse.Namespace:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in VERBS:
        word = arguments[0]
        if "." not in word and os.sep not in word and not os.path.exists(word):
            from harness.spec.errors import SpecError, unknown

            raise SpecError(unknown(f'no such verb or file "{word}"', word, list(VERBS), "verbs"))
        arguments.insert(0, "run")
    elif arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version"):
        arguments.insert(0, "run")
    parser = parser_of([word for word in arguments[:1] if word in VERBS])
    options, unknown_words = parser.parse_known_args(arguments)
    if unknown_words:
        word = next((word for word in unknown_words if word.startswith("-")), "").partition("=")[0]
        known = Parser(add_help=False)
        _verb(options.verb).add_arguments(known)
        remedy = near(word, known._option_string_actions) if word else "; put names before the options"
        parser.error(f"unrecognized arguments: {' '.join(unknown_words)}{remedy}")
    return options


def parser_of(verbs: Collection[str]) -> Parser:
    """The command line. verbs: those whose modules are imported for their options."""
    parser = Parser(
        prog="run.py",
        description="Runs the V-Reflection experiments and writes their tables. Each cell is a spec; each result is stored once.",
        usage="run.py FILE… [options]  |  run.py VERB …",
        epilog="run.py VERB --help explains a verb. Example: run.py experiments/table3c.yaml",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=Version, help="show the version, the commit and whether the code was changed since")
    choice = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, prog="run.py")
    for verb, text in VERBS.items():
        sub = choice.add_parser(verb, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        if verb in verbs:
            _verb(verb).add_arguments(sub)
    return parser


def _verb(name: str):
    return importlib.import_module(f"harness.cli.{name}" + "_" * keyword.iskeyword(name))


def _expected(error: Exception) -> str | None:
    """One line for an error that the user can fix; None for a bug."""
    for module, name in _EXPECTED:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in ("harness", "models"):
        return f"{error.name} is not installed here; start with `uv run run.py …`, or see `run.py doctor`"
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"{error.filename or 'a file, or where the output goes'}: {error.strerror}; {_DISK[error.errno]} (--results DIR, --reports DIR)"
    return None


def add_selection(parser: argparse.ArgumentParser, files: str = "+") -> None:
    """Arguments of the verbs that plan: files, profile, selection, overrides."""
    parser.add_argument("files", nargs=files, metavar="FILE", help="experiments (experiments/*.yaml), or folders of them")
    parser.add_argument("--profile", default="proxy", metavar="P", help="profile's name or file (default: proxy)")
    parser.add_argument("--recipe", metavar="R", help="use this recipe instead of the experiment's")
    parser.add_argument("--rows", nargs="+", action="extend", default=[], metavar="ROW", help="only these rows")
    parser.add_argument("--columns", nargs="+", action="extend", default=[], metavar="COLUMN", help="only these columns")
    parser.add_argument("--seeds", type=count, metavar="N", help="number of seeds (default: the profile's)")
    parser.add_argument("--protocols", nargs="+", action="extend", default=[], choices=("paper", "stock"), help="protocols to evaluate under (default: the profile's)")
    parser.add_argument(
        "--latents", nargs="+", action="extend", default=[], choices=("own", "zeroed", "noise", "shuffled", "oracle"),
        help="kinds of latents in the evaluations (default: the profile's)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="NAME=VALUE",
        help="override an option in every row, as in stage1.p=0.3; such results never enter the paper's table",
    )  # fmt: skip
    add_results(parser)


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=folder_name, default=RESULTS, metavar="DIR", help=f"the store (default: {RESULTS})"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON (docs/json.md lists its fields)")


def folder_name(text: str) -> Path:
    """An empty text, which is what an unset shell variable gives, does not mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a folder (. is the current one)")
    return Path(text)


MOST_SEEDS = 1000
"""Far more than anyone trains; a typing error must not fill the memory."""


def whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number; use 0 or more")
    return int(text)


def at_least_one(text: str) -> int:
    if whole(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small; use 1 or more")
    return int(text)


def seed_number(text: str) -> int:
    if whole(text) >= MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{text} is not a seed; use 0 to {MOST_SEEDS - 1}")
    return int(text)


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seeds; use 1 or more, at most {MOST_SEEDS}")
    return int(text)


def plans(options: argparse.Namespace) -> list:
    """The plans of the files that were named, in order."""
    from harness.plan import plan_experiment

    return [
        plan_experiment(
            file, options.profile, recipe=options.recipe, rows=options.rows, columns=options.columns,
            seeds=options.seeds, protocols=options.protocols, latents=options.latents, overrides=options.overrides,
            digests=options.results / ".digests.json",
        )
        for file in experiment_files(options.files)
    ]  # fmt: skip


def experiment_files(named: Sequence[str]) -> list[Path]:
    """Replaces folders by the experiments in them. Raises SpecError for a folder without any, and for an empty name, which is what an
    unset shell variable gives."""
    from harness.spec.errors import SpecError

    found: list[Path] = []
    if not all(name.strip() for name in map(str, named)):
        raise SpecError("an experiment's name is empty; name a file or a folder (. is the current one)")
    for name in map(Path, named):
        if name.is_dir() and not os.access(name, os.R_OK | os.X_OK):
            raise SpecError(f"{name}: cannot be read (Permission denied)")
        inside = sorted(name.glob("*.yaml")) if name.is_dir() else [name]
        if not inside:
            raise SpecError(f"{name}: holds no experiments (*.yaml)")
        found += inside
    return list(dict.fromkeys(found))
