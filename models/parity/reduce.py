"""The small subset of a reference folder that the tests carry."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from models.parity.reference import STRIDE, Reference, Unknown

SIZE_LIMIT_BYTES = 4_000_000


def reduce(reference: Reference, out: Path | str) -> int:
    """Write the subset of `reference` to `out`; returns its bytes. What is left out is in `reference.left_out`; of a
    gradient matrix every 16th row is kept, all else is whole."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for file, held in reference.files.tensors.items():
        kept = {}
        for key, tensor in held.items():
            if reference.leaves_out(f"{file}: {key}"):
                continue
            short = ".grad." in key and tensor.dim() == 2 and not key.endswith(f"[::{STRIDE}]") and "rows_" not in key
            kept[f"{key}[::{STRIDE}]" if short else key] = tensor[::STRIDE].contiguous() if short else tensor
        if kept:
            save_file(kept, out / f"{file}.safetensors")
    manifest = {key: value for key, value in reference.manifest.items() if not reference.leaves_out(f"manifest: {key}")}
    (out / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n")
    size = sum(file.stat().st_size for file in out.iterdir() if file.suffix in (".json", ".safetensors"))
    if size > SIZE_LIMIT_BYTES:
        raise Unknown(f"{out}: the reduced data have {size} bytes, more than {SIZE_LIMIT_BYTES}")
    return size
