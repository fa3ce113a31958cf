"""A benchmark's data as a folder: the lmms-eval tasks that read it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from datasets import Value
from datasets import config as datasets_config
from lmms_eval.api.task import ConfigurableMessagesTask, ConfigurableTask
from lmms_eval.utils import load_yaml_config

from models.evaluation.tasks import yaml_path

_ENCODED_PICTURES = ("image", "bytes")
"""Columns that hold a picture as base64 text in HR-Bench and MME-RealWorld."""


class _OverFolder:
    """An lmms-eval task over a local folder.

    lmms-eval repeats a failed load or score five times and reports a RetryError; here nothing can change between
    attempts, so the first error is raised as it is. Base64 pictures are left out where lmms-eval leaves pictures out.
    """

    process_results = ConfigurableTask.process_results.__wrapped__

    def doc_to_visual(self, doc: dict[str, Any]) -> Any:
        """A clip that the task names relative to the data set's folder is named in full."""
        shown, folder = super().doc_to_visual(doc), Path(self.config.dataset_path)
        return [str(folder / one) if isinstance(one, str) else one for one in shown] if isinstance(shown, list) else shown

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        ConfigurableTask.download.__wrapped__(self, dataset_kwargs)
        for split, docs in self.dataset_no_image.items():
            encoded = [c for c in _ENCODED_PICTURES if isinstance(docs.features.get(c), Value)]
            self.dataset_no_image[split] = docs.remove_columns(encoded)


class MirrorTask(_OverFolder, ConfigurableMessagesTask):
    """For models that take a conversation."""


class SimpleMirrorTask(_OverFolder, ConfigurableTask):
    """For lmms-eval's older models, which take a text and pictures."""


Task = MirrorTask | SimpleMirrorTask


def load_task(name: str, mirror: Path, model: str = "vreflection", chat: bool = True) -> Task:
    """The task as its YAML describes it, over the data set in `mirror`. FileNotFoundError if there is no such folder.

    model: lmms-eval's name of the model, for which a stock task may have a prompt of its own. chat: see the two classes.
    """
    if not mirror.is_dir():
        raise FileNotFoundError(f"{name}: no data set folder {mirror}")
    config = load_yaml_config(str(yaml_path(name)))
    options = {**(config.get("dataset_kwargs") or {}), "cache_dir": str(cache_of(mirror))}
    kind = MirrorTask if chat else SimpleMirrorTask
    return kind(config={**config, "dataset_path": str(mirror), "dataset_kwargs": options}, model_name=model)


def cache_of(mirror: Path) -> Path:
    """Where `datasets` may keep its conversion of this folder, and of no other.

    `datasets` knows a local folder by its last name alone when its README states configs, so that a second mirror in
    another `out/` would be answered from the first one's cache, silently. Here the cache goes by the files themselves.
    """
    state = hashlib.sha256()
    for file in sorted(f for f in mirror.rglob("*") if f.is_file()):
        stat = file.stat()
        state.update(f"{file.relative_to(mirror)}\0{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return Path(datasets_config.HF_DATASETS_CACHE) / "mirrors" / state.hexdigest()[:16]
