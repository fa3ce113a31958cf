"""Visual CoT's files as the release ships them: two annotation files, two meta files, pictures in twelve layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.rehearsal.world.album import SOURCES, Album
from tests.rehearsal.world.traps import TRAPS

ROWS = 600
"""Good rows of the large file: with all traps planted, still more than nine in ten rows are usable."""
SUBSET, FULL = "viscot_1", "viscot_2"
FILES = {SUBSET: "viscot_sroie_dude_lvr_formatted.json", FULL: "viscot_363k_lvr_formatted.json"}
META = "data/meta_data_lvr_sft_stage1_viscot_full.json"
META_SUBSET = "data/meta_data_lvr_sft_stage1.json"


def write(out: Path, traps: list[str], seed: int) -> dict[str, Any]:
    """Write annotations and pictures under `out`. Returns what must become of the rows: every row that is not named is good.

    {"rows": all rows, "planted": {row id: {"trap", "outcome", "why"}}}; a row id is DATA_SET:ENTRY, entries from 0.
    """
    rng = np.random.default_rng(seed)
    album = Album(out / "pictures", rng)
    album.fill(90)
    share = np.array([form.share for form in SOURCES.values()])
    sources = [*SOURCES, *rng.choice(list(SOURCES), ROWS - len(SOURCES), p=share / share.sum())]
    full: list[tuple[Any, str | None]] = [(album.row(str(source)), None) for source in sources]
    for row, _ in full[::3]:
        row["bboxes"] = [row["bboxes"]]  # the large file wraps some of its boxes once more
    for name in traps:
        full.insert(int(rng.integers(len(full))), (TRAPS[name].make(album), name))
    subset = [album.row(("sroie", "dude")[k % 2]) for k in range(24)]

    data = out / "data"
    data.mkdir()
    for name, rows in ((SUBSET, subset), (FULL, [row for row, _ in full])):
        (data / FILES[name]).write_text(json.dumps(rows, indent=2))
    entries = [
        {"ds_name": name, "data_path": f"data/{file}", "image_folder": str(album.folder), "ds_type": "Q_A"}
        for name, file in FILES.items()
    ]
    (out / META).write_text(json.dumps(entries, indent=2))
    (out / META_SUBSET).write_text(json.dumps(entries[:1], indent=2))
    planted = {
        f"{FULL}:{k}": {"trap": name, "outcome": TRAPS[name].outcome, "why": TRAPS[name].why}
        for k, (_, name) in enumerate(full)
        if name is not None
    }
    return {"rows": len(subset) + len(full), "planted": planted}
