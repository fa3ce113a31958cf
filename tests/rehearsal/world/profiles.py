"""The profile a800 at this size: the same sources in the same formats, a handful of steps, two CPU cores."""

from __future__ import annotations

from pathlib import Path

from tests.rehearsal.world import viscot

LIMIT = "  images.max_pixels: 200704   # 256 tokens, for two cores; profile-full.yaml has the release's 5120\n"
PROFILE = """\
# Written by `python -m tests.rehearsal`. Run it with HF_HOME={out}/hf HF_HUB_OFFLINE=1
extends: a800
title: rehearsal (the hub's formats at tiny widths, CPU)
proxy: true

data: {{source: external, meta: {out}/{meta}, revision: rehearsal}}
comparisons: false

set:
{limit}  decode.max_new_tokens: 16
scale:
  steps: 0.0016            # 4 in stage 1, 2 in stage 2
  global_batch: 0.03125    # 8

resources:
  data: {{cpus: 1, memory_gb: 2, minutes: 10}}
  mirror: {{cpus: 1, memory_gb: 2, minutes: 10}}
  train: {{cpus: 1, gpus: 0, processes: 1, memory_gb: 6, minutes: 60, micro_batch: {micro_batch}, attention: sdpa, gradient_checkpointing: true, deepspeed: null}}
  evaluate: {{cpus: 1, gpus: 0, memory_gb: 4, minutes: 60, batch_size: {batch_size}, cache_share: null, attention: sdpa}}
  maps: {{cpus: 1, gpus: 0, memory_gb: 4, minutes: 60, attention: sdpa}}
  measure: {{cpus: 1, gpus: 0, memory_gb: 4, minutes: 60, attention: sdpa, alone: true}}
dispatch: {{kind: local, slots: 2}}
"""


def write(out: Path) -> None:
    small, full = {"limit": LIMIT, "micro_batch": 2, "batch_size": 4}, {"limit": "", "micro_batch": 1, "batch_size": 1}
    for name, values in (("profile.yaml", small), ("profile-full.yaml", full)):
        (out / name).write_text(PROFILE.format(out=out, meta=viscot.META, **values))
