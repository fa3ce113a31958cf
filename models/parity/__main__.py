"""`python -m models.parity DIR`: one line for every check, and what was not compared and why."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from models import parity
from models.parity.reduce import reduce


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m models.parity",
        description=parity.__doc__.split("\n")[0],
        epilog="Only what DIR holds is checked: a reference result missing from DIR is one check fewer, not a failure; --checks N "
        "makes it one. The authors' releases give 98 checks (V-Reflection), 212 (LVR) and 181 (VisReflect).",
    )
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument(
        "--attention", choices=["eager", "sdpa"], default="eager", help="implementation to check (eager)"
    )
    parser.add_argument("--checks", metavar="N", type=int, default=0, help="how many there must be; fewer is a failure")
    parser.add_argument("--reduce", metavar="OUT", type=Path, help="write the tests' subset of DIR instead of checking")
    options = parser.parse_args(arguments)
    try:
        reference = parity.open_reference(options.folder)
        if options.reduce:
            print(f"{reduce(reference, options.reduce)} bytes in {options.reduce}")
            return 0
        return report(reference, options.attention, options.checks)
    except parity.Unknown as why:
        print(why, file=sys.stderr)
        return 2


def report(reference: parity.Reference, attention: str, wanted: int = 0) -> int:
    """Print the table; returns 1 if any check failed, or if there were fewer than `wanted`."""
    total = failed = 0
    print(f"{reference.title}: {reference.files.folder}")
    for check in reference.checks(attention):
        total, failed = total + 1, failed + (not check.passed)
        verdict = "ok" if check.passed else "FAILED"
        print(f"{check.name:78s} {check.difference:9.2e}  (at most {check.tolerance:.0e})  {verdict}", flush=True)
    unread = reference.unread()
    for reason, names in sorted(_by_reason(unread).items()):
        print(f"not compared, {len(names)}: {_some(names)} ({reason})")
    said = f"{total} checks: all agree" if not failed else f"{failed} of {total} checks failed"
    print(f"{said}; not compared: {len(unread)}")
    if total < wanted:
        print(f"{wanted} checks were asked for, {total} were made: the folder has lost reference results")
    return 1 if failed or total < wanted else 0


def _by_reason(unread: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, why in sorted(unread.items()):
        found.setdefault(why or "no check knows it", []).append(name)
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)


if __name__ == "__main__":
    sys.exit(main())
