"""The tensor side of the project: the method, its training, its evaluation, and the proxy world.

Nothing in here knows about tables, jobs, schedulers or reports, and nothing in here imports `harness`.
`models.config` is free of torch, so that the planning side can nest its schemas; every other module may be heavy.
"""

import os

# A fresh tensor of a few megabytes costs a page fault for each 4 KB: with the true vocabulary, a third of the time of a training step on a
# CPU. torch asks for pages of 2 MB where this is set before its first tensor, and the system grants them. No result changes.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
