"""Write a rehearsal world: python -m tests.rehearsal OUT [--seed N] [--traps NAME,NAME,…] [--width 256]"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.rehearsal import world


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.rehearsal", description=world.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("out", type=Path, nargs="?", help="a new or empty folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--traps", help="the only defective rows to plant, comma-separated; '' for none (default: all)")
    parser.add_argument("--width", type=int, default=128, help="hidden size of the base model, a multiple of 128")
    parser.add_argument(
        "--list", action="store_true", help="print the traps and what must become of each, write nothing"
    )
    given = parser.parse_args()
    if given.list:
        print(world.trap_table())
        return
    if given.out is None:
        parser.error("name a folder to write the world to")
    began = time.perf_counter()
    try:
        world.write(given.out, seed=given.seed, traps=names(given.traps), width=given.width)
    except world.WorldError as error:
        parser.exit(2, f"{error}\n")
    size = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file() and not file.is_symlink())
    print(f"{given.out}: {size / 1e6:.0f} MB in {time.perf_counter() - began:.0f} s. Run it with")
    print(
        f"HF_HOME={given.out}/hf HF_HUB_OFFLINE=1 uv run run.py experiments/table3c.yaml --profile {given.out}/profile.yaml"
    )


def names(text: str | None) -> list[str] | None:
    return None if text is None else [name for name in text.split(",") if name]


main()
