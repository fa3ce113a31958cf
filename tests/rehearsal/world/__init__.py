"""A rehearsal world in OUT:

hf/              an HF_HOME: base model and benchmarks as huggingface_hub caches them, clips as lmms-eval unpacks them
benchmarks/      the same benchmarks as plain folders
data/, pictures/ Visual CoT in the release's layout, with defective rows among the good ones
expected.json    what must become of each defective row
profile.yaml     the profile a800 at this size; profile-full.yaml: with the release's picture sizes
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.rehearsal.world import base, benchmarks, clips, profiles, viscot
from tests.rehearsal.world.hub import into_cache
from tests.rehearsal.world.traps import TRAPS


class WorldError(ValueError):
    """The world cannot be written as asked; one line."""


def write(out: Path, *, seed: int = 0, traps: list[str] | None = None, width: int = 128) -> None:
    """Write a world. traps: names from `TRAPS`; None plants all. The same seed and library versions give the same world."""
    chosen = list(TRAPS) if traps is None else traps
    if unknown := sorted(set(chosen) - set(TRAPS)):
        raise WorldError(f"unknown traps: {', '.join(unknown)}; `--list` prints them")
    if width < 128 or width % 128:
        raise WorldError(f"width {width}: M-RoPE sections [16, 24, 24] need heads of 128, so a multiple of 128")
    if out.exists() and any(out.iterdir()):
        raise WorldError(f"{out} is not empty; name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    out, hub = out.resolve(), out.resolve() / "hf" / "hub"

    model = out / ".base"
    base.write(model, width, seed)
    into_cache(hub, "model", base.REPO, base.REVISION, model)
    shutil.rmtree(model)

    repositories = benchmarks.write(out / "benchmarks", seed) | clips.write(out / "benchmarks", out / "hf", seed)
    for name, repo in repositories.items():
        into_cache(hub, "dataset", repo, benchmarks.revision(repo, seed), out / "benchmarks" / name)

    expected = viscot.write(out, chosen, seed)
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    profiles.write(out)


def trap_table() -> str:
    """Every trap: its name, what must become of its row, and why."""
    return "\n".join(f"{trap.outcome:7} {name:28} {trap.why}" for name, trap in TRAPS.items())
