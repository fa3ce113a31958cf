"""Print the shell code that completes verbs, options, profiles and files."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FUNCTION = {
    "bash": "{name}() {{ {call} \"$@\"; }}",
    "zsh": "{name}() {{ {call} \"$@\"; }}\nautoload -Uz compinit && compinit",
    "fish": "function {name}; {call} $argv; end",
}  # fmt: skip
"""Shell → the function to complete. A shell completes a command by its first word, which in `uv run run.py` is uv."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=tuple(FUNCTION), help="the shell that will read the output")
    parser.add_argument("--command", metavar="NAME", default="vr", type=_word, help="the name to type (default: vr)")
    parser.epilog = 'Example: eval "$(uv run run.py completion bash)" defines `vr`, which is `uv run run.py`; then type `vr pl` and Tab.'


def main(options: argparse.Namespace) -> int:
    import shtab

    from harness.cli.main import VERBS, parser_of
    from harness.spec.files import EXPERIMENTS

    parser = parser_of(VERBS)
    parser.prog = options.command
    for action in _actions(parser):
        if "--profile" in action.option_strings:
            action.choices = sorted(path.stem for path in (EXPERIMENTS / "profiles").glob("*.yaml"))
        elif action.metavar in ("FILE", "ZIP", "DIR"):
            action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
    call = shlex.join(["uv", "run", "--project", str(CHECKOUT), str(CHECKOUT / "run.py")])
    print(FUNCTION[options.shell].format(name=options.command, call=call))
    sys.stdout.write(shtab.complete(parser, shell=options.shell))
    if options.shell == "bash":  # a file in place of a verb runs it
        print(f"complete -o default -o bashdefault -F _shtab_{options.command.replace('-', '_')} {options.command}")
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
        else:
            yield action


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w-]*", text):
        raise argparse.ArgumentTypeError(f'"{text}" is not a valid command name; use letters, digits, - and _')
    return text
