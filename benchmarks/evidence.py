"""What the statistics and the audit are worth, by simulation, written to benchmarks/statistics.md.

    python -m benchmarks.evidence                  # every section; about ten minutes on one core
    python -m benchmarks.evidence audit --seed 7   # this section again, on other draws; the others stay as they are
    python -m benchmarks.evidence --share 0.05     # a twentieth of the repetitions, to try it out

A section is one function (seed, share) -> markdown. Constants of the statistics (`CAUTION`, `FEW_SEEDS`, `DIFFERS_LEVEL`) were
chosen on the seeds that the tests use, so figures from those seeds would flatter them. The command draws from `SEED` instead,
which nothing was tuned on; if a figure from it misses its bar, change the statistic, then raise `SEED`. The same seed and code
write the same file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.page import above_zero, page_file, whole

FILE = Path(__file__).with_name("statistics.md")
SEED = 2
"""Of the committed file. 0 would give the audit the very papers of its tests."""

SECTIONS = {
    "tests": ("Tests between rows", "benchmarks.simulated_tables:section"),
    "verdicts": ("Verdicts against a reported value", "benchmarks.simulated_tables:verdict_section"),
    "audit": ("Audit of printed tables", "benchmarks.audit_recall:section"),
}
"""Name → (heading, module:function)."""


def section(name: str) -> Callable[[int, float], str]:
    module, _, function = SECTIONS[name][1].partition(":")
    return getattr(import_module(module), function)


def write(names: Sequence[str], file: Path = FILE, seed: int = SEED, share: float = 1.0) -> None:
    """Those sections anew, each written when it is done; the others as the file has them."""
    for name in names:
        text = section(name)(seed, share).strip("\n")
        drawn = f"Seed {seed}" + (f", {share:g} of the repetitions" if share != 1 else "")
        block = f"## {SECTIONS[name][0]}\n\n{text}\n\n{drawn}.\n"
        kept = dict(re.findall(r"<!-- (\w+):begin -->\n(.*?)<!-- \1:end -->\n", file.read_text(), re.DOTALL)) if file.exists() else {}
        kept[name] = block
        blocks = [f"<!-- {name}:begin -->\n{kept[name]}<!-- {name}:end -->\n" for name in SECTIONS if name in kept]
        head = "# Statistics and audit, by simulation\n\nWritten by `python -m benchmarks.evidence`.\n\n"
        file.write_text(head + "\n".join(blocks))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description="Write benchmarks/statistics.md.")
    parser.add_argument("names", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; all of them by default")
    parser.add_argument("--seed", type=whole(0), default=SEED, help=f"of every simulation, 0 or more (default {SEED}; 0: the audit gets the papers of its tests)")
    parser.add_argument("--share", type=above_zero, default=1.0, help="of the repetitions, to try the command out (default 1)")
    parser.add_argument("--to", type=page_file, default=FILE, metavar="FILE", help="default: benchmarks/statistics.md")
    given = parser.parse_args(argv)
    if unknown := [name for name in given.names if name not in SECTIONS]:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if given.share > 1:
        parser.error(f"argument --share: {given.share:g} is more than all repetitions; give 1 or less")
    write(given.names or list(SECTIONS), given.to, given.seed, given.share)
    return 0


if __name__ == "__main__":
    sys.exit(main())
