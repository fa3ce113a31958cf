"""Systems of others, through lmms-eval's own models, on the same tasks and data as this project's checkpoints.

An endpoint speaks OpenAI's chat-completions protocol; a checkpoint is run by the lmms-eval model that knows it. Their
answers end up in the same rows, and are scored and compared as ours are. What their authors' own code would do beyond
that (tools, agents, templates) is not imitated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models import get_model
from PIL import Image

from models.config import EvaluateSpec, System
from models.evaluation.engine import Answer
from models.evaluation.known import content_of
from models.evaluation.likelihood import AnswerLetters, listed_letters
from models.evaluation.lmms_model import key_of, pictures_of
from models.evaluation.mirror import Task, load_task
from models.evaluation.session import Evaluations
from models.evaluation.shards import Key, Shard
from models.evaluation.tasks import PAPER_TASKS
from models.run import Run

_FAILED = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED")
"""How lmms-eval marks a question that got no answer, in the place of the answer."""
_TRIES, _PAUSE_SECONDS = 5, 2.0
LISTED = 20
"""Likeliest tokens asked for at each place: the most that the protocol allows."""
_PARTS = 4
"""So many batches are asked for between two signs of life."""


class Others(Evaluations):
    """One system.

    model: lmms-eval's, loaded. facts: what result.json says of it, a mapping that may grow while it answers.
    """

    def __init__(self, model: lmms, system: System, facts: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.system, self.facts = model, system, facts

    @classmethod
    def at(cls, address: str, key: str, system: System, requests: int = 1) -> Others:
        """A server. requests: at once. Neither the key nor more of the address than its host is kept in any file."""
        given = {"max_retries": _TRIES, "retry_backoff_s": _PAUSE_SECONDS, "prefix_aware_queue": False}
        given |= system.arguments
        model = get_model(system.adapter)(
            model_version=system.model, base_url=address, api_key=key, num_concurrent=requests, **given
        )
        facts: dict[str, Any] = {"asked_for": system.model, "host": urlsplit(address).hostname, "answered_by": []}
        model.client = _Client(model.client, key, facts)
        return cls(model, system, facts)

    @classmethod
    def of(cls, checkpoint: Path, system: System, device: str = "cpu", threads: int = 1) -> Others:
        """A checkpoint's folder. One question at a time, which every lmms-eval model can, unless `arguments` say otherwise."""
        torch.set_num_threads(threads)
        kind = get_model(system.adapter)
        taken = inspect.signature(kind.__init__).parameters
        given = {"pretrained": str(checkpoint), "device": device, "device_map": device, "batch_size": 1}
        given = {name: value for name, value in given.items() if name in taken} | system.arguments
        reason = "lmms-eval's own models return texts without the probabilities behind them"
        return cls(kind(**given), system, {"adapter": f"{kind.__module__}.{kind.__name__}", "likelihoods": reason})

    def about(self, spec: EvaluateSpec) -> dict[str, Any]:
        reason = self.facts.get("likelihoods")
        facts = {name: value for name, value in self.facts.items() if name != "likelihoods"}
        return {"system": facts} | ({"likelihoods": reason} if reason else {})

    def check(self, spec: EvaluateSpec) -> None:
        if spec.system != self.system:
            raise ValueError(f"system: the spec says {spec.system}, this session was made for {self.system}")

    def load(self, name: str, mirror: Path) -> Task:
        return load_task(name, mirror, model=self.system.adapter, chat=not self.model.is_simple)

    def answering(
        self, run: Run, spec: EvaluateSpec, mirror: Path, tasks: Mapping[str, Task], batch_size: int
    ) -> Questioner:
        self.facts.get("answered_by", []).clear()
        return Questioner(self.model, limit=spec.decode.max_new_tokens, together=_PARTS * batch_size)


@dataclass(frozen=True)
class Seen:
    """images: content hashes of a question's pictures, in prompt order."""

    images: tuple[str, ...]


class Questioner(lmms):
    """Hands lmms-eval's requests on to another of its models, part by part, and keeps what was answered.

    limit: new tokens of the paper's tasks; any other task has its own. together: requests handed on at once.
    """

    checkpoint_seconds = 0.0
    """Every part is kept at once: answers of others may cost money."""

    def __init__(self, inner: lmms, *, limit: int, together: int) -> None:
        super().__init__()
        self.inner, self.limit, self.together = inner, limit, together
        self.is_simple = inner.is_simple
        self.accelerator = None
        self.shard = Shard()
        self.prepared: dict[Key, Seen] = {}
        self.answers: dict[Key, Answer] = {}
        self.after_chunk: Callable[[], None] = lambda: None
        self.after_batch: Callable[[], None] = lambda: None

    def clean(self) -> None:
        """lmms-eval would delete the model after generating; a session goes on with it."""

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The responses as they are. ConnectionError when a question got none; the others of its part are kept."""
        self.inner.task_dict = self.task_dict
        for request in requests:
            if key_of(request) not in self.prepared:
                self.prepared[key_of(request)] = Seen(tuple(content_of(p) for p in self._pictures(request)))
                self.after_chunk()
        waiting = [request for request in requests if key_of(request) not in self.answers]
        for part in _parts(waiting, self.together):
            failed = self._hand_on(part)
            self.after_batch()
            if failed:
                raise ConnectionError(
                    f"{len(failed)} of {len(part)} questions got no answer, the first for this reason: {failed[0]}"
                )
        return [self.answers[key_of(request)].response for request in requests]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("tasks scored by likelihood are not supported")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("only single-round tasks are supported")

    def _hand_on(self, part: Sequence[Instance]) -> list[str]:
        """Asks; returns why questions got no answer."""
        for request in part:
            if request.task_name in PAPER_TASKS:
                self._options(request)["max_new_tokens"] = self.limit
        failed = []
        for request, given in zip(part, self.inner.generate_until(list(part)), strict=True):
            response = (given if isinstance(given, str) else given.text) or ""
            if response.startswith(_FAILED):
                failed.append(response.partition("] ")[2] or response)
                continue
            counts = None if isinstance(given, str) else given.token_counts
            tokens = None if counts is None else counts.output_tokens
            limit = self._options(request).get("max_new_tokens")
            cut_off = None if tokens is None or limit is None else tokens >= limit
            letters = getattr(response, "letters", None)
            self.answers[key_of(request)] = Answer(str(response), None, 0, cut_off, tokens, letters)
        return failed

    def _options(self, request: Instance) -> dict[str, Any]:
        """The generation's keyword arguments."""
        return request.args[1 if self.is_simple else 2]

    def _pictures(self, request: Instance) -> list[Image.Image]:
        if self.is_simple:
            _, _, pictures, doc_id, task, split = request.args
            return list(pictures(self.task_dict[task][split][doc_id]))
        return pictures_of(self.task_dict, request)


class _Said(str):
    """A response that carries the option letters' probabilities through lmms-eval, which hands texts on as they are."""

    letters: AnswerLetters | None = None


class _Client:
    """The OpenAI client that lmms-eval made, but for three things: no error shows the key, it is noted who answered, and the
    likeliest tokens are asked for, until the endpoint refuses to give them."""

    def __init__(self, client: Any, key: str, facts: dict[str, Any]) -> None:
        self._client, self._key, self._facts = client, key, facts
        self._answered_by: list[str] = facts["answered_by"]
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    def _create(self, **payload: Any) -> Any:
        asked = {} if "likelihoods" in self._facts else {"logprobs": True, "top_logprobs": LISTED}
        try:
            response = self._client.chat.completions.create(**payload, **asked)
        except Exception as error:  # noqa: BLE001 - lmms-eval catches all of them too, and writes them into the log
            said = str(error).replace(self._key, "<the key>")
            if asked and "logprobs" in said:
                self._facts["likelihoods"] = "the endpoint refuses to give log-probabilities"
                return self._create(**payload)
            raise RuntimeError(said) from None
        choice = response.choices[0]
        if asked and choice.message.content:
            given = getattr(choice.logprobs, "content", None) or []
            text = _Said(choice.message.content)
            text.letters = listed_letters([(one.token, {other.token: other.logprob for other in one.top_logprobs}) for one in given])
            choice.message.content = text
            if text.letters is None:
                self._facts["likelihoods"] = "the endpoint gives no log-probabilities"
        if response.model and response.model not in self._answered_by:
            self._answered_by.append(response.model)
        return response


def _parts(requests: Sequence[Instance], size: int) -> Iterator[Sequence[Instance]]:
    for first in range(0, len(requests), size):
        yield requests[first : first + size]
