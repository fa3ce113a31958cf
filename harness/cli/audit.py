"""`run.py audit [FILE…]`: check the arithmetic of reported tables; nothing is run and no result is read."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="specs, or folders of specs (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON (docs/json.md lists its fields)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there is an error")


def main(options: argparse.Namespace) -> int:
    from harness.audit import Severity, audit, read_paper
    from harness.spec.files import EXPERIMENTS

    found = audit(read_paper(spec_files(options.files or [EXPERIMENTS])))
    print(found.json() if options.json else found.text())
    return int(options.strict and any(finding.severity is Severity.ERROR for finding in found.findings))


def spec_files(given: list[Path]) -> list[Path]:
    """The given files; for a folder, its experiments and the statements of papers in it. Raises SpecError if it has none."""
    from harness.spec.errors import SpecError

    files: list[Path] = []
    for path in given:
        found = [*sorted(path.glob("*.yaml")), *sorted(path.glob("statements/*.yaml"))] if path.is_dir() else [path]
        if not found:
            raise SpecError(f"{path}: holds no experiments (*.yaml)")
        files += found
    return files
