"""A benchmark's data as a folder: the lmms-eval tasks that read it."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from functools import partial
from pathlib import Path
from threading import Lock
from types import FunctionType
from typing import Any

from datasets import Value
from datasets import config as datasets_config
from lmms_eval.api.task import ConfigurableMessagesTask, ConfigurableTask
from lmms_eval.utils import load_yaml_config
from PIL import Image

from models.evaluation.cache import BoundedCache
from models.evaluation.clips import missing_clip
from models.evaluation.documents import Document, Recollection
from models.evaluation.known import Facts, KnownPicture
from models.evaluation.orientation import applied
from models.evaluation.tasks import yaml_path
from models.schema import Orientation

_ENCODED_PICTURES = ("image", "bytes")
"""Columns that hold a picture as base64 text in HR-Bench and MME-RealWorld."""

_DECODED_BYTES = 1 << 29
"""Pixels that a task keeps of pictures it showed last: zooming and oracle latents ask for them again soon. Five pictures of 8K."""

_ENDINGS = (".mp4", ".MP4", ".mkv")
"""Of the clips that Video-MME's task looks for."""


class _Pixels(list[Image.Image]):
    @property
    def nbytes(self) -> int:
        return sum(one.width * one.height * len(one.getbands()) for one in self)


class _OverFolder:
    """An lmms-eval task over a local folder.

    lmms-eval repeats a failed load or score five times and reports a RetryError; here nothing can change between
    attempts, so the first error is raised as it is. Base64 pictures are left out where lmms-eval leaves pictures out.
    Pictures of a `Document` are decoded once for all rows that show the same.
    """

    process_results = ConfigurableTask.process_results.__wrapped__

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        self._known: dict[Orientation, Recollection[tuple[Facts, ...]]] = defaultdict(Recollection)
        self._decoded, self._lock = BoundedCache(_DECODED_BYTES), Lock()
        ConfigurableTask.download.__wrapped__(self, dataset_kwargs)
        for split, docs in self.dataset_no_image.items():
            encoded = [c for c in _ENCODED_PICTURES if isinstance(docs.features.get(c), Value)]
            self.dataset_no_image[split] = docs.remove_columns(encoded)

    def doc_to_visual(self, doc: dict[str, Any]) -> Any:
        """What a question shows. Raises pictures.Unreadable for a clip that is missing."""
        if not isinstance(doc, Document):
            return self.own_visuals(doc)
        known = self._known[applied()]
        if (facts := known.of(doc)) is None:
            shown = self.own_visuals(read := doc.unread())
            if not (isinstance(shown, list) and all(isinstance(one, Image.Image) for one in shown)):
                return shown
            pictures = [KnownPicture.of(one) for one in shown]
            known.keep(read, facts := tuple(one.facts for one in pictures))
            self._keep(facts, shown)
            return pictures
        return [KnownPicture(own, partial(self._again, facts, doc, number)) for number, own in enumerate(facts)]

    def _again(self, facts: tuple[Facts, ...], doc: Document, number: int) -> Image.Image:
        """One of the pictures that a row shows."""
        with self._lock:
            shown = self._decoded.get(facts) if facts in self._decoded else None
        if shown is None:
            self._keep(facts, shown := self.own_visuals(doc.unread()))
        return shown[number]

    def keep_newest_pixels(self) -> None:
        """For whoever asks for no picture again: of those decoded, the last question's alone are kept."""
        self._decoded = BoundedCache(0)

    def _keep(self, facts: tuple[Facts, ...], shown: list[Image.Image]) -> None:
        with self._lock:
            self._decoded.put(facts, _Pixels(shown))

    def own_visuals(self, doc: dict[str, Any]) -> Any:
        """Some tasks leave the program where a clip is missing; here the question is named. Raises pictures.Unreadable."""
        try:
            return super().doc_to_visual(doc)
        except SystemExit as left:
            said = re.search(r"path:\s*(.+?) does not exist", str(left.code))
            path = Path(said[1] if said else str(left.code))
            # lmms-eval looks for other endings by replacing "mp4" wherever it stands in the whole path.
            for other in (path.with_suffix(end) for end in _ENDINGS if path.suffix):
                if other.exists():
                    return [str(other)]
            raise missing_clip(str(path)) from None


class MirrorTask(_OverFolder, ConfigurableMessagesTask):
    """For models that take a conversation."""

    # lmms-eval takes a .webm for sound; of the data sets that come as clips, some are such files.
    _AUDIO_EXTS = ConfigurableMessagesTask._AUDIO_EXTS - {".webm"}


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
    options = config.get("dataset_kwargs") or {}
    if options.get("video"):  # else lmms-eval would look for an archive on the hub, and unpack it
        mirror = mirror.absolute()
        config["doc_to_visual"] = looking_in(config["doc_to_visual"], mirror, options["cache_dir"])
        options = {}
    options = {**options, "cache_dir": str(cache_of(mirror))}
    kind = MirrorTask if chat else SimpleMirrorTask
    return kind(config={**config, "dataset_path": str(mirror), "dataset_kwargs": options}, model_name=model)


def looking_in(function: Any, mirror: Path, folder: str) -> Any:
    """A task's function that finds its clips in `mirror`, where lmms-eval's finds them in HF_HOME/`folder`: the same code over
    its module's names, those of that folder replaced."""
    known = function.__globals__
    home = os.path.join(known["base_cache_dir"], folder)
    moved = {name: str(mirror) for name, value in known.items() if isinstance(value, str) and value == home}
    names = {**known, **moved, "base_cache_dir": str(mirror.parent), "cache_name": mirror.name}
    return FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


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
