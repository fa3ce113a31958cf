"""Batched latent decoding (Coconut-style): after `<|lvr_start|>`, S forwards (or fewer, see `DecodeSpec.leave`) are fed a
state instead of a token.

Greedy, with a KV cache and explicit positions. Rows are left-padded, enter latent steps at different times and leave the
batch when they end; the answers are those of one prompt at a time. Knows nothing of texts or benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from models.backbone.model import Backbone
from models.backbone.tokens import SpecialTokens
from models.latent.feed import Feed, Given, LatentStep, donors_of, feed_of, own_state
from models.latent.prefill import Prefill, last_states, read
from models.latent.prompt import Prompt
from models.latent.script import Script, repeating
from models.latent.slots import distances
from models.schema import DecodeSpec

COMPACT_BELOW = 0.75
"""Rows still running, as a share of the batch, at which dropping the others is worth copying the cache."""
LATE_FORWARDS, LATE_SHARE = 64, 0.125
"""After so many forwards, so small a share of the batch that still runs is late."""


@dataclass(eq=False)
class Decoded:
    """What one prompt gave."""

    token_ids: list[int]
    """Generated ids, special tokens included; every latent step stands as one `<|lvr|>`. Ends with the end token, if one came."""
    latent_started: bool
    """Whether `<|lvr_start|>` came, emitted or forced."""
    latent_steps: int
    """Latent steps taken, over all segments."""
    truncated: bool
    """max_new_tokens or max_segments was reached before an end token."""
    latents: Tensor | None = None
    """[steps, D]: what was fed, with keep_latents."""
    hidden: Tensor | None = None
    """[steps, D]: the model's own state before each latent step (at slot i - 1), with keep_latents."""
    kept: Tensor | None = None
    """[n, W]: what `keep_logits` made of the logits behind each token that the model was asked for."""
    kept_at: tuple[int, ...] = ()
    """[n]: the places of these tokens in token_ids; latent steps and a forced `<|lvr_start|>` are none of them."""


@dataclass(eq=False)
class Step:
    """One forward of the rows still in the batch, for `on_step`."""

    rows: list[int]
    """[r]: the prompt of every row."""
    inputs: Tensor
    """[r, D]: the last input embedding."""
    hidden: Tensor
    """[r, D]: the last hidden state."""
    positions: Tensor
    """[r, 4]: (text, t, h, w) of the last input."""


class _Row:
    """The Python side of one running prompt."""

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt
        self.ids: list[int] = []
        self.counted = 0
        """Tokens that count against max_new_tokens."""
        self.left = 0
        """Latent steps still to be taken in this segment; > 0 is latent mode."""
        self.closing = False
        """Whether `<|lvr_end|>` is to follow them, whatever the model says."""
        self.segment = -1
        """Latent segments begun, less one."""
        self.said = 0
        """Tokens since the last latent segment, or since the beginning."""
        self.steps = 0
        self.done = self.truncated = False
        self.latents: list[Tensor] = []
        self.states: list[Tensor] = []
        self.kept: list[Tensor] = []
        self.kept_at: list[int] = []


def decode(
    model: Backbone,
    prompts: list[Prompt],
    spec: DecodeSpec,
    *,
    tokens: SpecialTokens,
    eos: set[int],
    generator: torch.Generator | None = None,
    keep_latents: bool = False,
    on_step: Callable[[Step], None] | None = None,
    prefill: Prefill | None = None,
    groups: Sequence[int] | None = None,
    own: Sequence[Decoded] | None = None,
    leave_late: bool = False,
    keep_logits: Callable[[Tensor], Tensor] | None = None,
    end_vector: Tensor | None = None,
    hide_images: bool = False,
    script: Script | None = None,
) -> list[Decoded | None]:
    """Greedy answers to `prompts`, in order.

    The model emits `<|lvr_start|>` itself, or it is forced as the first token (and stands in token_ids). The state of that
    token is the first latent input; after S of them `<|lvr_end|>` is forced or emitted, and the model decodes normally again
    and may start another segment. start never: it may not open any.
    End tokens cannot come while latent. Latent steps count against max_new_tokens only with `count_latents`. An answer that
    would begin more than max_segments segments is cut off.

    latents: own; zeroed; noise (normal, with the norm of the own latent); shuffled (each row is fed another row's own
    latents: own ones are decoded first; a donor that starts none is forced to); oracle (the prompts'
    own `oracle`).
    groups: numbers of consecutive prompts among which `shuffled` stays; every group is shuffled by the same draw, so what
    else is in the batch does not matter. None: one group. own: for `shuffled`, these prompts' answers with `latents: own`
    and keep_latents, where they are known already.
    leave_late: give up rows that go on long after the others have ended (None in their places), so that the late ones of
    several batches can be decoded together: a loop up to max_new_tokens costs as much for one row as for many. Not with
    `shuffled`.
    end_vector [D]: for `leave: latent`.
    generator (CPU): of the noise and the derangement. on_step sees every forward of the last pass. prefill: of these
    prompts, from `read`, where they are decoded more than once. keep_logits: [k, V] -> [k, W], called with the model's logits
    of every token it is asked for, before penalties and forbidden tokens; `Decoded.kept` holds what it returns. hide_images:
    once a row's latent segment is over, its image tokens are masked from everything that follows. script: for an `answer` that
    is not free; the letters are the prompts'.
    """
    if not prompts:
        return []
    _check(model, prompts, spec, end_vector, script)
    options = {"tokens": tokens, "eos": eos, "on_step": on_step, "keep_logits": keep_logits, "hide_images": hide_images, "script": script}
    with torch.inference_mode():
        if prefill is None:
            prefill = read(model, prompts, spec.start == "forced", tokens)
        if prefill.forced != (spec.start == "forced") or len(prefill.mask) != len(prompts):
            raise ValueError("this prefill is not of these prompts and this start")
        options["prefill"] = prefill
        if spec.latents == "shuffled" and spec.latent_steps:
            donors = donors_of(groups or [len(prompts)], generator)
            return _shuffled(model, prompts, spec, donors, keep_latents, options, own)
        feed = feed_of(model, prompts, spec, generator)
        options["end_vector"] = end_vector
        return _Decoder(model, prompts, spec, feed, keep_latents, leave_late=leave_late, **options).run()


def _check(model: Backbone, prompts: list[Prompt], spec: DecodeSpec, end_vector: Tensor | None, script: Script | None) -> None:
    if model.training:
        raise ValueError("decode needs model.eval()")
    if spec.repetition_penalty == "checkpoint":
        raise ValueError("repetition_penalty: checkpoint is for who knows the checkpoint's generation_config; give a number")
    if spec.latents == "oracle" and spec.latent_steps:
        for at, prompt in enumerate(prompts):
            if prompt.oracle is None:
                raise ValueError(f"latents: oracle feeds what a prompt brings with it; prompt {at} has none")
            if (held := prompt.oracle.shape[1]) < spec.latent_steps:
                raise ValueError(f"latents: oracle holds {held} for prompt {at}, but latent_steps is {spec.latent_steps}")
    if spec.answer != "free" and script is None:
        raise ValueError(f"answer: {spec.answer} needs the ids that it puts into answers")
    if spec.answer == "letter" and not all(prompt.letters for prompt in prompts):
        raise ValueError("answer: letter chooses among a question's letters, and a prompt has none; use answer: prefix or free")
    if spec.leave == "latent" and end_vector is None:
        raise ValueError("leave: latent compares states with a learned end vector, which this checkpoint lacks; use leave: steps")


def _shuffled(
    model: Backbone,
    prompts: list[Prompt],
    spec: DecodeSpec,
    donors: list[int],
    keep_latents: bool,
    options: dict[str, Any],
    own: Sequence[Decoded] | None,
) -> list[Decoded]:
    quiet = options | {"on_step": None}
    own_spec = spec.model_copy(update={"latents": "own"})
    own = own or _Decoder(model, prompts, own_spec, own_state, True, **quiet).run()
    first = {at: answer.latents[: spec.latent_steps] for at, answer in enumerate(own) if _complete(answer, spec)}
    wanted = sorted({donors[at] for at, answer in enumerate(own) if answer.latent_started} - set(first))
    if wanted:
        forced = own_spec.model_copy(update={"start": "forced", "max_new_tokens": 2, "count_latents": False})
        asked = [prompts[at] for at in wanted]
        quiet["prefill"] = read(model, asked, True, options["tokens"])
        given = _Decoder(model, asked, forced, own_state, True, **quiet).run()
        first |= {at: answer.latents[: spec.latent_steps] for at, answer in zip(wanted, given)}
    receivers = [at for at, answer in enumerate(own) if answer.latent_started]
    if not receivers:
        return list(own) if keep_latents else [replace(answer, latents=None, hidden=None) for answer in own]
    feed = Given([first[donors[at]][None] for at in receivers])
    options = options | {"prefill": options["prefill"].rows(receivers)}
    again = _Decoder(model, [prompts[at] for at in receivers], spec, feed, keep_latents, **options).run()
    answers = dict(zip(receivers, again))
    return [answers.get(at, replace(answer, latents=None, hidden=None)) for at, answer in enumerate(own)]


def _complete(answer: Decoded, spec: DecodeSpec) -> bool:
    return answer.latent_started and answer.latent_steps >= spec.latent_steps


@dataclass(eq=False)
class _Decoder:
    """One pass over a batch of prompts."""

    model: Backbone
    prompts: list[Prompt]
    spec: DecodeSpec
    feed: Feed
    keep: bool
    tokens: SpecialTokens
    eos: set[int]
    prefill: Prefill
    on_step: Callable[[Step], None] | None = None
    leave_late: bool = False
    keep_logits: Callable[[Tensor], Tensor] | None = None
    end_vector: Tensor | None = None
    hide_images: bool = False
    script: Script | None = None
    rows: list[_Row] = field(default_factory=list)
    seen: Tensor | None = None
    """[r, V] bool: ids of prompt and answer, where they are penalised."""

    def run(self) -> list[Decoded | None]:
        every = self.rows = [_Row(at) for at in range(len(self.prompts))]
        hidden = self._start()
        forwards = 0
        while (inputs := self._advance(hidden)) is not None:
            late = self.leave_late and forwards >= LATE_FORWARDS
            if late and sum(not row.done for row in self.rows) <= LATE_SHARE * len(every):
                break
            hidden = self._forward(*self._compact(inputs))
            forwards += 1
        return [self._result(row) if row.done else None for row in every]

    def _start(self) -> Tensor:
        """Stand behind the prompts; returns the last hidden states [r, D]."""
        given = self.prefill
        self.mask, self.next_position, self.cache = given.mask, given.next_position, given.cache()
        if self.spec.repetition_penalty != 1:
            self.seen = torch.zeros(
                len(self.prompts), self.model.lm_head.out_features, dtype=torch.bool, device=given.hidden.device
            )
            for at, prompt in enumerate(self.prompts):
                self.seen[at, prompt.input_ids.to(self.seen.device)] = True
        if given.forced:
            for row in self.rows:
                self._emit(row, self.tokens.lvr_start)
            self._see(list(range(len(self.rows))), torch.full((len(self.rows),), self.tokens.lvr_start))
        if self.on_step is not None:
            self.on_step(Step(list(range(len(self.rows))), given.inputs, given.hidden, given.next_position.T))
        return given.hidden

    def _forward(self, inputs: Tensor) -> Tensor:
        """One more input [r, D] per row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(inputs), 1)], 1)
        self.next_position = self.next_position + 1
        hidden = last_states(self.model, inputs[:, None], self.mask, self.next_position[..., None], self.cache)
        if self.on_step is not None:
            self.on_step(Step([row.prompt for row in self.rows], inputs, hidden, self.next_position.T))
        return hidden

    def _advance(self, hidden: Tensor) -> Tensor | None:
        """Take the states [r, D] of the last inputs; returns the next inputs [r, D], or None when every row has ended."""
        latent = [at for at, row in enumerate(self.rows) if not row.done and row.left]
        speaking = [at for at, row in enumerate(self.rows) if not row.done and not row.left]
        penalised = self.seen is not None and self.spec.penalise_picked
        if latent and (penalised or self.spec.leave == "free"):
            picked = self._pick(self.model.lm_head(hidden[latent]), latent)
            if penalised:
                self._see(latent, picked)
            if self.spec.leave == "free":
                latent, speaking = self._freed(latent, picked.tolist(), speaking)
        if speaking:
            logits = self.model.lm_head(hidden[speaking])
            if self.keep_logits is not None:
                for at, kept in zip(speaking, self.keep_logits(logits)):
                    self.rows[at].kept.append(kept)
                    self.rows[at].kept_at.append(len(self.rows[at].ids))
            picked = self._pick(logits, speaking).tolist()
            for at, token in zip(speaking, picked):
                self._emit(self.rows[at], self.tokens.lvr_end if self.rows[at].closing else token)
            self._see(speaking, torch.tensor([self.rows[at].ids[-1] for at in speaking]))
        if not latent and all(row.done for row in self.rows):
            return None
        # A row that has just emitted `<|lvr_start|>` is fed that token now; its latent steps follow.
        last = torch.tensor([row.ids[-1] for row in self.rows], device=hidden.device)
        inputs = self.model.get_input_embeddings()(last)
        if latent:
            rows, states = [self.rows[at] for at in latent], hidden[latent]
            asked = [LatentStep(row.prompt, row.segment, self.spec.latent_steps - row.left) for row in rows]
            fed = self.feed(asked, states)
            inputs[latent] = fed.to(inputs.dtype)
            ends = self._near_end(states)
            for at, row in enumerate(rows):
                self._take(row, fed[at], states[at])
                row.left = 0 if ends[at] else row.left
            if self.hide_images:
                self._hide([at for at in latent if not self.rows[at].left])
        return None if all(row.done for row in self.rows) else inputs

    def _freed(self, latent: list[int], picked: list[int], speaking: list[int]) -> tuple[list[int], list[int]]:
        """(rows still latent, rows that speak), once those that picked `<|lvr_end|>` have left their segment."""
        left = {at for at, token in zip(latent, picked) if token == self.tokens.lvr_end}
        for at in left:
            self.rows[at].left = 0
        return [at for at in latent if at not in left], sorted([*speaking, *left])

    def _near_end(self, states: Tensor) -> list[bool]:
        """Whether each of these latent rows leaves its segment with the step that its state [k, D] is fed in."""
        if self.spec.leave != "latent":
            return [False] * len(states)
        end = self.end_vector.to(states).expand_as(states)
        return (distances(states, end, self.spec.leave_distance) < self.spec.leave_below).tolist()

    def _pick(self, logits: Tensor, rows: list[int]) -> Tensor:
        """The likeliest id [k] of each of these rows by its logits [k, V]; lvr_start is none where it may not come."""
        if self.spec.start == "never":
            logits[:, self.tokens.lvr_start] = -torch.inf
        if self.seen is not None:
            logits, penalty = logits.float(), self.spec.repetition_penalty
            logits = torch.where(self.seen[rows], torch.where(logits < 0, logits * penalty, logits / penalty), logits)
        for at, number in enumerate(rows):
            self._restrict(logits[at], self.rows[number])
        return logits.argmax(-1)

    def _restrict(self, logits: Tensor, row: _Row) -> None:
        """Rule out in place, of one row's logits [V], what `no_repeat_ngram` and `answer` forbid."""
        if self.spec.no_repeat_ngram:
            ids = self.prompts[row.prompt].input_ids.tolist() + row.ids
            logits[list(repeating(ids, self.spec.no_repeat_ngram))] = -torch.inf
        if self.spec.answer == "free" or row.left:
            return
        letters = self.prompts[row.prompt].letters if self.spec.answer == "letter" else None
        allowed = self.script.allowed(row.said, letters)
        if allowed is None:
            return
        if row.segment < 0 and not row.said and self.spec.start == "emitted":
            allowed = (*allowed, self.tokens.lvr_start)
        kept = logits[list(allowed)].clone()
        logits.fill_(-torch.inf)
        logits[list(allowed)] = kept

    def _see(self, rows: list[int], ids: Tensor) -> None:
        """These ids [k] are in the answers of these rows now."""
        if self.seen is not None:
            self.seen[rows, ids.to(self.seen.device)] = True

    def _emit(self, row: _Row, token: int) -> None:
        row.ids.append(token)
        row.counted += 1
        starts = token == self.tokens.lvr_start
        row.said = 0 if starts or row.closing or token == self.tokens.lvr_end else row.said + 1
        row.segment += starts
        row.closing = starts and self.spec.end == "forced"
        if token in self.eos:
            row.done = True
        elif row.counted >= self.spec.max_new_tokens or (starts and self._has_all_segments(row)):
            row.done = row.truncated = True
        elif starts:
            row.left = self.spec.latent_steps

    def _has_all_segments(self, row: _Row) -> bool:
        """Whether the segment it has just begun is one too many."""
        return self.spec.max_segments is not None and row.segment >= self.spec.max_segments

    def _hide(self, rows: list[int]) -> None:
        """Mask these rows' image tokens in the cache."""
        self.mask = self.mask.clone()  # the prefill's own is shared with other decodings
        for at in rows:
            ids = self.prompts[self.rows[at].prompt].input_ids
            end = len(self.prefill.mask[0]) - self.prefill.forced
            self.mask[at, end - len(ids) : end] &= ((ids != self.tokens.image) & (ids != self.tokens.video)).to(self.mask.device)

    def _take(self, row: _Row, fed: Tensor, state: Tensor) -> None:
        """Book one latent step."""
        row.left -= 1
        row.steps += 1
        row.ids.append(self.tokens.lvr)
        if self.keep:
            row.latents.append(fed)
            row.states.append(state)
        if self.spec.count_latents:
            row.counted += 1
            if row.counted >= self.spec.max_new_tokens and self.spec.cut_latents:
                row.done = row.truncated = True

    def _compact(self, inputs: Tensor) -> tuple[Tensor]:
        """Drop ended rows once enough have ended."""
        running = [at for at, row in enumerate(self.rows) if not row.done]
        if len(running) > COMPACT_BELOW * len(self.rows):
            return (inputs,)
        keep = torch.tensor(running, device=inputs.device)
        self.rows = [self.rows[at] for at in running]
        self.mask, self.next_position = self.mask[keep], self.next_position[:, keep]
        self.seen = None if self.seen is None else self.seen[keep]
        self.cache.batch_select_indices(keep)
        return (inputs[keep],)

    def _result(self, row: _Row) -> Decoded:
        kept = self.keep and row.latents
        return Decoded(
            row.ids,
            row.segment >= 0,
            row.steps,
            row.truncated,
            torch.stack(row.latents) if kept else None,
            torch.stack(row.states) if kept else None,
            torch.stack(row.kept).cpu() if row.kept else None,
            tuple(row.kept_at),
        )
