"""What the statistics and the audit are worth, by simulation, written to benchmarks/statistics.md.

    python -m benchmarks.evidence           # every section, minutes
    python -m benchmarks.evidence audit     # this one again; the others stay as they are

A section is one function that returns markdown. Seeds are fixed: the same code writes the same file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

FILE = Path(__file__).with_name("statistics.md")

SECTIONS = {
    "tests": ("Tests between rows", "benchmarks.simulated_tables:section"),
    "verdicts": ("Verdicts against a reported value", "benchmarks.simulated_tables:verdict_section"),
    "audit": ("Audit of printed tables", "benchmarks.audit_recall:section"),
}
"""Name → (heading, module:function)."""


def section(name: str) -> Callable[[], str]:
    module, _, function = SECTIONS[name][1].partition(":")
    return getattr(import_module(module), function)


def write(names: list[str], file: Path = FILE) -> None:
    """Those sections anew, the others as the file has them."""
    text = file.read_text() if file.exists() else ""
    kept = dict(re.findall(r"<!-- (\w+):begin -->\n(.*?)<!-- \1:end -->\n", text, re.DOTALL))
    for name in names:
        kept[name] = f"## {SECTIONS[name][0]}\n\n{section(name)()}\n"
    blocks = [f"<!-- {name}:begin -->\n{kept[name]}<!-- {name}:end -->\n" for name in SECTIONS if name in kept]
    head = "# Statistics and audit, by simulation\n\nWritten by `python -m benchmarks.evidence`.\n\n"
    file.write_text(head + "\n".join(blocks))


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in SECTIONS]:
        print(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    write(names or list(SECTIONS))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
