"""The lmms-eval chat model `vreflection`: batched latent decoding behind lmms-eval's interface.

Requests are sorted by prompt length and decoded in batches; prepared prompts and picture features are kept, so that
decoding the same questions again starts at once. Decoding is greedy, whatever a task's YAML says about sampling.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image

from models.backbone.clips import MISSING, Span
from models.backbone.pictures import Unreadable, as_rgb
from models.config import DecodeSpec, Fetched, Images
from models.evaluation import zoom
from models.evaluation.boxes import Places
from models.evaluation.clips import ClipReader
from models.evaluation.documents import Document, encoded
from models.evaluation.engine import MEDIA, Answer, Asked, Engine, Question
from models.evaluation.extract import last_answer
from models.evaluation.known import KnownPicture, changed, content_of
from models.evaluation.shards import Elsewhere, Key, Shard
from models.evaluation.tasks import TASKS
from models.latent.refill import PART, Queue, parts_of
from models.schema import Clips

Boxes = Mapping[Key, tuple[torch.Tensor, torch.Tensor]]
"""By question: boxes [b, 4] float64 (normalised x0, y0, x1, y1), and each box's image index [b]."""

_PAPER_TASKS = {task for protocols in TASKS.values() for task in protocols["paper"]}
_DOCUMENTS_AT_ONCE = 16
"""Questions whose new pictures are encoded together."""
_DOCUMENTS_IN_TURN = 4
"""Consecutive documents read by one thread of one rank, so that a picture with four questions (HR-Bench) is decoded once."""
_TOLD_OF_MISSING = "visreflect_"
"""Prefix of the tasks that get MISSING as the answer where a clip is missing."""
_LISTEN_SECONDS = 0.2
_SHUFFLED_TOGETHER = 16
"""Questions that exchange latents. Fixed, because batch_size must not change a result."""
_STOCK_MAX_NEW_TOKENS = 128
"""Default of lmms-eval's own Qwen2.5-VL chat model, for tasks without a limit (HR-Bench)."""
_SPECIAL = re.compile(r"<\|[^|<>]*\|>")


def stock_text(response: str) -> str:
    """What a stock task receives: the content of the last `<answer>` block, else the response without special tokens.

    Stock parsers expect bare answers: in "<answer> B </answer>" some of them read the A of "answer", which would
    measure the template, not the model. A model that writes no block is judged on its whole text.
    """
    block = last_answer(response)
    return _SPECIAL.sub("", response).strip() if block is None else block


class LmmsModel(lmms):
    """One checkpoint under one decoding.

    checkpoint: a folder, or a loaded Engine. fields: of DecodeSpec and Images, also as strings, as lmms-eval's command line
    passes them. A paper task (`vr_*`) gets the full response and `max_new_tokens`; any other task gets `stock_text` and the
    limit of its own YAML. batch_size: how many of the longest questions are decoded at once; more of the shorter ones fit into
    the same cache. cache_share: the cache may take this share of the GPU memory that the model leaves free, if that is more;
    questions then also join as answers end. shard: the questions that this process answers. fetched: how pictures are changed
    before the checkpoint's processor sees them. clips: which frames of a clip are seen, and at what size. A question whose clip
    cannot be read is never asked: its answer is empty and says why (`Answer.rejected`). boxes: for `latents: oracle`. places:
    for `zoom: oracle`. instead: see `zoom.zoomed`.
    """

    is_simple = False

    def __init__(
        self,
        checkpoint: str | Path | Engine,
        *,
        device: str | None = None,
        batch_size: int | str | None = 16,
        max_batch_size: int | None = None,
        cache_share: float | None = None,
        precision: str = "bf16",
        threads: int = 1,
        seed: int = 0,
        decode: DecodeSpec | None = None,
        images: Images | None = None,
        boxes: Boxes | None = None,
        places: Mapping[Key, Places] | None = None,
        shard: Shard | None = None,
        fetched: Fetched = "as_is",
        clips: Clips | None = None,
        instead: Callable[[float], Span] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__()
        del max_batch_size  # lmms-eval passes it; batch_size decides
        loaded = isinstance(checkpoint, Engine)
        self.engine = (
            checkpoint if loaded else Engine(checkpoint, device=device or "cpu", threads=threads, precision=precision)
        )
        of_decode = {name: fields.pop(name) for name in DecodeSpec.model_fields if name in fields}
        of_images = {name: fields.pop(name) for name in Images.model_fields if name in fields}
        if fields:
            choices = ", ".join([*DecodeSpec.model_fields, *Images.model_fields])
            raise ValueError(f"unknown model argument {', '.join(fields)}; choose from {choices}")
        self.decode = decode or DecodeSpec.model_validate(of_decode)
        self.images = images or Images.model_validate(of_images)
        self.boxes: Boxes = boxes or {}
        self.places = places or {}
        self.instead = instead
        self.seed = int(seed)
        self.shard = shard or Shard()
        self.fetched: Fetched = fetched
        self.reader = ClipReader(clips or Clips(), fetched)
        self.batch_size = int(batch_size or 16)
        self.cache_share = cache_share
        self.accelerator = None  # one process, one device: nothing for lmms-eval to gather
        self.prepared: dict[Key, Question] = {}
        self.answers: dict[Key, Answer] = {}
        self._requests: dict[Key, Instance] = {}
        self._reported = 0
        self._zoomed: dict[Key, tuple[Question, zoom.Record]] = {}
        self.after_chunk: Callable[[], None] = lambda: None
        """Called whenever more questions are prepared."""
        self.after_batch: Callable[[], None] = lambda: None
        """Called whenever more questions are answered. Both may raise to stop."""

    @property
    def device(self) -> str:
        return self.engine.device

    def clean(self) -> None:
        """Does nothing: lmms-eval would delete the model, which the session still needs."""

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer every request. `answers` fills up batch by batch; what it already holds is not decoded again."""
        self._requests |= {key_of(r): r for r in requests}
        self._prepare(requests)
        self._reject({key_of(r): self.prepared[key_of(r)].rejected for r in requests})
        limits = {key_of(r): self._max_new_tokens(r) for r in requests if not self.prepared[key_of(r)].rejected}
        waiting = sorted(limits, key=lambda key: (limits[key], len(self.prepared[key].input_ids), key))
        self._answer(waiting, limits)
        self._hear_the_rest(waiting)
        return [self._handed_over(key_of(r)) for r in requests]

    def _hear_the_rest(self, keys: Sequence[Key]) -> None:
        """Rank 0 waits for the other ranks' answers; the others raise Elsewhere."""
        if self.shard.rank:
            raise Elsewhere
        while any(key not in self.answers for key in keys):
            heard = self.shard.hear()
            self.answers |= heard
            if heard:
                self.after_batch()
            else:
                self._wait()

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("latent decoding generates text; tasks scored by likelihood are not supported")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("only single-round tasks are supported")

    def _max_new_tokens(self, request: Instance) -> int:
        if request.task_name in _PAPER_TASKS:
            return self.decode.max_new_tokens
        return int(request.args[2].get("max_new_tokens") or _STOCK_MAX_NEW_TOKENS)

    def _answer(self, keys: Sequence[Key], limits: Mapping[Key, int]) -> None:
        """Answers this process's questions, one token limit after another, in the order of `keys`.

        Without `cache_share` the batches are fixed: in bf16 the neighbours in a batch can tip a close decision, and stored results
        must stay valid. With it, questions join a running batch as answers end.
        """
        groups = self._groups(keys, limits)
        room: float = self.batch_size * max((self._columns(key, limits[key]) for key in keys), default=0)
        if self.cache_share is None:
            parts = joining = self._batches(groups, limits, room)
        else:
            parts = [group[cut] for group in groups for cut in parts_of([self._columns(k, limits[k]) for k in group], PART * room)]
            joining = groups if self._shuffles else parts
            room = max(room, self.engine.cache_tokens(self.cache_share))
        members = [[self.prepared[key] for key in group] for group in joining]
        shown = [{picture for question in own for picture in question.images} for own in members]
        mine = self.shard.balanced(joining, shown, [sum(len(q.input_ids) for q in own) for own in members])
        unknown = [group for group in mine if any(key not in self.answers for key in group)]
        sizes = [_sizes_in(groups), _sizes_in(parts)]
        for limit in sorted({limits[group[0]] for group in unknown}):
            together = [group for group in unknown if limits[group[0]] == limit]
            waiting = Queue(together, partial(self._columns, limit=limit), room, refill=self.cache_share is not None)
            self._decode(waiting, sizes, limit)

    def _batches(self, groups: list[list[Key]], limits: Mapping[Key, int], room: float) -> list[list[Key]]:
        """Merges groups of one token limit into batches that fit into `room` (rows times columns of the cache), even if every
        answer reaches its limit."""
        if not self._shuffles and self.batch_size < _SHUFFLED_TOGETHER:
            size = self.batch_size
            groups = [group[i : i + size] for group in groups for i in range(0, len(group), size)]
        batches: list[list[Key]] = []
        for group in groups:
            last = batches[-1] if batches else []
            together = [*last, *group]
            if last and limits[last[0]] == limits[group[0]] and len(together) * max(self._columns(k, limits[k]) for k in together) <= room:
                last += group
            else:
                batches.append([*group])
        return batches

    @property
    def _shuffles(self) -> bool:
        return self.decode.latents == "shuffled" and self.decode.latent_steps > 0

    def _groups(self, keys: Sequence[Key], limits: Mapping[Key, int]) -> list[list[Key]]:
        """The questions in groups of one token limit.

        `shuffled` gives a question the latents of another one in its group. The group size is fixed, so that batch_size cannot
        change a result. No group holds two questions about one picture, since their latents are about the same thing. All latents
        modes have the same groups, so that they read prompts in the same parts and can reuse what was kept.
        """
        groups: list[list[Key]] = []
        open_groups: list[list[Key]] = []
        for key in keys:
            fitting = (g for g in open_groups if limits[g[0]] == limits[key] and not self._shares_picture(key, g))
            group = next(fitting, None)
            if group is None:
                group = []
                groups.append(group)
                open_groups.append(group)
            group.append(key)
            if len(group) == _SHUFFLED_TOGETHER:
                open_groups.remove(group)
        return self._no_lonely(groups) if self._shuffles else groups

    def _columns(self, key: Key, limit: int) -> int:
        """The most tokens that a question and its answer take."""
        return len(self.prepared[key].input_ids) + limit

    def _no_lonely(self, batches: list[list[Key]]) -> list[list[Key]]:
        """A question alone in its batch joins one without its picture. ValueError if there is none."""
        together = [batch for batch in batches if len(batch) > 1]
        for (key,) in (batch for batch in batches if len(batch) == 1):
            host = next((batch for batch in reversed(together) if not self._shares_picture(key, batch)), None)
            if host is None:
                raise ValueError(
                    f"latents: shuffled needs questions on different pictures; {key[0]} {key[1]} finds no other"
                )
            host.append(key)
        return together

    def _shares_picture(self, key: Key, batch: list[Key]) -> bool:
        own = set(self.prepared[key].images)
        return any(own.intersection(self.prepared[other].images) for other in batch)

    def _prepare(self, requests: Sequence[Instance]) -> None:
        new = [r for r in requests if key_of(r) not in self.prepared]
        own = new if self.shard.alone else [r for run in self.shard.mine(_parts(new, _DOCUMENTS_IN_TURN)) for r in run]
        encoded_at_once = max(_DOCUMENTS_AT_ONCE, self.engine.threads)
        read_at_once = encoded_at_once * -(-self.engine.threads * _DOCUMENTS_IN_TURN // encoded_at_once)
        found: dict[Key, Question] = {}
        for part in _parts(own, read_at_once):
            for questions in self._questions(part, encoded_at_once):
                found |= questions
                self.prepared |= questions
                self.after_chunk()
        if new and not self.shard.alone:
            told = {key: replace(question, reload=list) for key, question in found.items()}
            heard = {key: one for own in self.shard.exchange(told, self._wait) for key, one in own.items()}
            self.prepared |= {key_of(r): replace(heard[key_of(r)], reload=self._reload(r)) for r in new}

    def _questions(self, part: list[Instance], encoded_at_once: int) -> Iterator[dict[Key, Question]]:
        """Prepares some requests. The engine's threads read documents, and decode and hash pictures."""
        with self.engine.pictures() as each:
            read = each(self._conversations, _parts(part, _DOCUMENTS_IN_TURN))
            found = {key: one for own in read for key, one in own.items()}
            for some in _parts(part, encoded_at_once):
                reload = {key_of(request): self._reload(request) for request in some}
                own = {key: found.pop(key) for key in reload}
                unread = {key: Question.unasked(one) for key, one in own.items() if isinstance(one, Unreadable)}
                conversations = {key: one for key, one in own.items() if not isinstance(one, Unreadable)}
                questions = self.engine.prepare(
                    list(conversations.values()), self.images, [reload[key] for key in conversations],
                    encoded=self.shard.alone, reader=self.reader, each=each,
                )  # fmt: skip
                yield unread | dict(zip(conversations, questions, strict=True))

    def _conversations(self, requests: list[Instance]) -> dict[Key, list[dict[str, Any]] | Unreadable]:
        found: dict[Key, list[dict[str, Any]] | Unreadable] = {}
        for request, document in zip(requests, _documents(self.task_dict, requests), strict=True):
            try:
                found[key_of(request)] = messages = _messages(request, document, self.fetched)
            except Unreadable as error:
                found[key_of(request)] = error
                continue
            for part in (part for message in messages for part in message["content"]):
                if part["type"] == "image" and isinstance(part["url"], KnownPicture):
                    content_of(part["url"])  # hashed here once, not again in the thread of each question about it
        return found

    def _reload(self, request: Instance) -> Callable[[], list[Any]]:
        """Does not refer to self, because questions outlive it."""
        return partial(pictures_of, self.task_dict, request, self.fetched)

    def _wait(self) -> None:
        time.sleep(_LISTEN_SECONDS)
        self.after_chunk()

    def _reject(self, reasons: Mapping[Key, str | None]) -> None:
        """Gives each question that cannot be asked its empty answer."""
        self.answers |= {key: Answer.never_asked(why) for key, why in reasons.items() if why is not None}

    def _readable(self, keys: list[Key]) -> list[Key]:
        """Leaves out questions whose clip proves to be damaged once all its frames are decoded."""
        found = {}
        for key in (key for key in keys if self.prepared[key].has_clips):
            try:
                self.engine.features_of([self.prepared[key]], self.images)
            except Unreadable as error:
                found[key] = Question.unasked(error).rejected
        self._reject(found)
        self.shard.tell({key: self.answers[key] for key in found})
        return [key for key in keys if key not in found]

    def _decode(self, waiting: Queue, sizes: Sequence[Callable[[Sequence[Key]], list[int]]], limit: int) -> None:
        """Answers questions of one token limit. sizes: two functions as `_sizes_in` makes them, for groups and for parts that are
        read at once."""
        self._reported = len(self.answers)

        def more(running: list[Key]) -> Asked | None:
            self._report()
            while keys := waiting.next(running):
                if keys := self._readable(keys):
                    return self._asked(keys, *(size(keys) for size in sizes))
            return None

        for answers in self.engine.stream(more, self.decode.model_copy(update={"max_new_tokens": limit}), self.images, waiting.refill):
            zooms = {key: self._zoomed.pop(key)[1] for key in answers if key in self._zoomed}
            answers |= {key: replace(answers[key], zoom=record) for key, record in zooms.items()}
            self.shard.tell(answers)
            self.answers |= answers
        self._report()

    def _report(self) -> None:
        """Reports progress if there is any since the last call."""
        self.answers |= self.shard.hear()
        if len(self.answers) > self._reported:
            self._reported = len(self.answers)
            self.after_batch()

    def _asked(self, keys: list[Key], groups: list[int], parts: list[int]) -> Asked:
        """The next questions for the engine."""
        boxes = None
        if self.decode.latents == "oracle":
            if without := [f"{task} {doc}" for task, doc in keys if (task, doc) not in self.boxes]:
                raise ValueError(f"latents: oracle needs a box for every question; none for {', '.join(without[:3])}")
            boxes = [self.boxes[key] for key in keys]
        self._zoom(keys)
        return Asked(
            keys,
            [self._zoomed[key][0] if key in self._zoomed else self.prepared[key] for key in keys],
            boxes=boxes,
            seeds=[self._seed_of(key) for key in keys],
            groups=groups,
            parts=parts,
        )

    def _zoom(self, batch: Sequence[Key]) -> None:
        """Zooms those of a batch that are not zoomed yet: where a first pass says, or where the annotation is."""
        new = [key for key in batch if key not in self._zoomed] if self.decode.zoom != "none" else []
        if not new:
            return
        chats = [self._conversations([self._requests[key]])[key] for key in new]
        asked = [self.prepared[key] for key in new]
        if self.decode.zoom == "oracle":
            places = [self.places.get(key, {}) for key in new]
            found = zoom.annotated(self.engine, asked, chats, places, self.images, self.reader)
        else:
            found = zoom.zoomed(self.engine, asked, chats, self.images, self.reader, self.decode.ends, self.instead)
        self._zoomed |= dict(zip(new, found, strict=True))

    def _seed_of(self, key: Key) -> int:
        """A question's own seed, so that its noise does not depend on its batch."""
        return int.from_bytes(hashlib.blake2b(f"{self.seed}/{key[0]}/{key[1]}".encode(), digest_size=7).digest())

    def _handed_over(self, key: Key) -> str:
        answer = self.answers[key]
        if answer.rejected and answer.rejected.startswith(MISSING) and key[0].startswith(_TOLD_OF_MISSING):
            return MISSING
        response = answer.response
        if key[0] in _PAPER_TASKS:
            return response
        # A model that does not know our template: as lmms-eval's own model would return it.
        return _SPECIAL.sub("", response) if self.engine.plain else stock_text(response)


def _sizes_in(lists: Sequence[Sequence[Key]]) -> Callable[[Sequence[Key]], list[int]]:
    """A function from keys to the lengths of their runs within one list."""
    number = {key: at for at, own in enumerate(lists) for key in own}
    return lambda keys: [len(list(run)) for _, run in groupby(keys, key=number.__getitem__)]


def _documents(tasks: Mapping[str, Any], requests: Sequence[Instance]) -> list[Document]:
    """The requests' rows. A paper task gets its pictures as training reads them: `convert("RGB")` would turn 16-bit ones
    white. A stock task gets what lmms-eval gives it. Consecutive rows of one split are read at once."""
    task, split = requests[0].args[4:6]
    ids = [r.doc_id for r in requests]
    same = all(r.args[4:6] == (task, split) for r in requests)
    if not (same and ids == list(range(ids[0], ids[0] + len(ids)))):
        return [_documents(tasks, [r])[0] for r in requests]
    rows, decode = encoded(tasks[task][split])
    if requests[0].task_name in _PAPER_TASKS:
        decode = {column: partial(_as_trained, one) for column, one in decode.items()}
    columns = rows[ids[0] : ids[-1] + 1]
    return [Document(dict(zip(columns, values, strict=True)), decode) for values in zip(*columns.values(), strict=True)]


def _as_trained(decode: Callable[[Any], Image.Image], cell: Any) -> Image.Image:
    """ValueError for a picture that training would refuse; it ends the evaluation, like one that cannot be decoded."""
    try:
        return as_rgb(decode(cell))
    except Unreadable as error:
        raise ValueError(str(error)) from None


def _parts(requests: Sequence[Instance], size: int) -> list[Sequence[Instance]]:
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def pictures_of(tasks: Mapping[str, Any], request: Instance, fetched: Fetched = "as_is") -> list[Any]:
    """A request's pictures and the paths of its clips."""
    conversation = _messages(request, _documents(tasks, [request])[0], fetched)
    return [part["url"] for message in conversation for part in message["content"] if part["type"] in MEDIA]


def key_of(request: Instance) -> Key:
    return request.task_name, request.doc_id


def _messages(request: Instance, doc: dict[str, Any], fetched: Fetched) -> list[dict[str, Any]]:
    """The conversation, with pictures as the processor should see them. ValueError for anything but text, pictures and paths of
    whole clips."""
    messages = request.args[1](doc)
    for part in (part for message in messages for part in message["content"]):
        if part["type"] not in ("text", *MEDIA) or (part["type"] == "video" and not isinstance(part["url"], str)):
            raise ValueError(
                f"{request.task_name}: question {request.doc_id} shows {part['type']} {part.get('url')}, and only text, pictures and "
                "files of whole clips can be shown here"
            )
    if fetched == "as_is":
        return messages
    return [
        {**m, "content": [{**p, "url": changed(p["url"], fetched, _fetched)} if p["type"] == "image" else p for p in m["content"]]}
        for m in messages
    ]


def _fetched(picture: Image.Image) -> Image.Image:
    from qwen_vl_utils import fetch_image

    return fetch_image({"image": picture})
