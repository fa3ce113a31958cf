"""Batched latent decoding (Coconut-style): after `<|lvr_start|>`, exactly S forwards are fed a state instead of a token.

Greedy, with a KV cache and explicit positions. Rows are left-padded, enter latent steps at different times and leave the
batch when they end; the answers are those of one prompt at a time. Knows nothing of texts or benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from models.config import DecodeSpec
from models.vreflection import oracle
from models.vreflection.cache import BufferLayer
from models.vreflection.model import VReflection
from models.vreflection.prefill import Prefill
from models.vreflection.template import positions
from models.vreflection.tokens import SpecialTokens

READ_TOKENS = 2048
"""On a CPU, about so many tokens of prompts go through the layers at once: what they need then stays in its caches."""
COMPACT_BELOW = 0.75
"""Rows still running, as a share of the batch, at which dropping the others is worth copying the cache."""
LATE_FORWARDS, LATE_SHARE = 64, 0.125
"""After so many forwards, so small a share of the batch that still runs is late."""


@dataclass(eq=False)
class Prompt:
    """One question, tokenised, image tokens already expanded. No, one or several images."""

    input_ids: Tensor
    """[L] int64"""
    image_grids: Tensor | None = None
    """[I, 2] merged (height, width); taken from `image_grid_thw` if None."""
    image_embeds: Tensor | None = None
    """[T, D] features after the merger, instead of pixel_values."""
    pixel_values: Tensor | None = None
    image_grid_thw: Tensor | None = None
    boxes: Tensor | None = None
    """[b, 4] float64, for `latents: oracle`; the k-th latent segment looks at box k, later ones at the last."""
    box_image: Tensor | None = None
    """[b]: image of every box; None is the first."""
    oracle: Tensor | None = None
    """[b, at least S, D]: what `latents: oracle` feeds for each box, in place of the BCM's Z_T."""
    seed: int | None = None
    """Of this question's noise, whatever the batch; None draws one from decode's generator."""


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
        self.steps = 0
        self.done = self.truncated = False
        self.latents: list[Tensor] = []
        self.states: list[Tensor] = []


def decode(
    model: VReflection,
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
) -> list[Decoded | None]:
    """Greedy answers to `prompts`, in order.

    The model emits `<|lvr_start|>` itself, or it is forced as the first token (and stands in token_ids). The state of that
    token is the first latent input; after S of them `<|lvr_end|>` is forced or emitted, and the model decodes normally again
    and may start another segment. start never: it may not open any.
    End tokens cannot come while latent. Latent steps count against max_new_tokens only with `count_latents`. An answer that
    would begin more than max_segments segments is cut off.

    latents: own; zeroed; noise (normal, with the norm of the own latent); shuffled (each row is fed another row's own
    latents: own ones are decoded first; a donor that starts none is forced to); oracle (Z_T of the true box, by the BCM, or
    the prompts' own `oracle`).
    groups: numbers of consecutive prompts among which `shuffled` stays; every group is shuffled by the same draw, so what
    else is in the batch does not matter. None: one group. own: for `shuffled`, these prompts' answers with `latents: own`
    and keep_latents, where they are known already.
    leave_late: give up rows that go on long after the others have ended (None in their places), so that the late ones of
    several batches can be decoded together: a loop up to max_new_tokens costs as much for one row as for many. Not with
    `shuffled`.
    generator (CPU): of the noise and the derangement. on_step sees every forward of the last pass. prefill: of these
    prompts, from `read`, where they are decoded more than once.
    """
    if not prompts:
        return []
    _check(model, prompts, spec)
    options = {"tokens": tokens, "eos": eos, "on_step": on_step}
    with torch.inference_mode():
        if prefill is None:
            prefill = read(model, prompts, spec.start == "forced", tokens)
        if prefill.forced != (spec.start == "forced") or len(prefill.mask) != len(prompts):
            raise ValueError("this prefill is not of these prompts and this start")
        options["prefill"] = prefill
        if spec.latents == "shuffled" and spec.latent_steps:
            donors = _donors(groups or [len(prompts)], generator)
            return _shuffled(model, prompts, spec, donors, keep_latents, options, own)
        feed = _feed(model, prompts, spec, generator)
        return _Decoder(model, prompts, spec, feed, keep_latents, leave_late=leave_late, **options).run()


def _check(model: VReflection, prompts: list[Prompt], spec: DecodeSpec) -> None:
    if model.training:
        raise ValueError("decode needs model.eval()")
    if spec.repetition_penalty == "checkpoint":
        raise ValueError("repetition_penalty: checkpoint is for who knows the checkpoint's generation_config; give a number")
    if spec.latents == "oracle" and spec.latent_steps:
        oracle.check(model, prompts, spec)


@dataclass(frozen=True)
class Asked:
    """A latent step about to be taken."""

    prompt: int
    segment: int
    step: int


Feed = Callable[[list[Asked], Tensor], Tensor]
"""(latent steps of k rows, their own latents [k, D]) -> what is fed [k, D]."""


def _own(asked: list[Asked], states: Tensor) -> Tensor:
    return states


def _zeroed(asked: list[Asked], states: Tensor) -> Tensor:
    return torch.zeros_like(states)


def _feed(model: VReflection, prompts: list[Prompt], spec: DecodeSpec, generator: torch.Generator | None) -> Feed:
    if spec.latents == "zeroed":
        return _zeroed
    if spec.latents == "noise":
        return _Noise(prompts, generator)
    if spec.latents == "oracle" and spec.latent_steps:
        return _Given(_oracle(model, prompts))
    return _own


class _Noise:
    """N(0, 1) scaled to the own latent's norm; a stream of its own per prompt, so that batches do not matter."""

    def __init__(self, prompts: list[Prompt], generator: torch.Generator | None) -> None:
        drawn = torch.randint(2**62, (len(prompts),), generator=generator).tolist()
        seeds = [seed if prompt.seed is None else prompt.seed for prompt, seed in zip(prompts, drawn)]
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, asked: list[Asked], states: Tensor) -> Tensor:
        width = states.shape[-1]
        noise = torch.stack([torch.randn(width, generator=self.streams[a.prompt]) for a in asked]).to(states.device)
        scale = states.float().norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
        return (noise * scale).to(states.dtype)


class _Given:
    """Latents [segments, S, D] known beforehand, one tensor per prompt; later segments take the last."""

    def __init__(self, latents: list[Tensor]) -> None:
        self.latents = latents

    def __call__(self, asked: list[Asked], states: Tensor) -> Tensor:
        given = [self.latents[a.prompt] for a in asked]
        return torch.stack([g[min(a.segment, len(g) - 1), a.step] for g, a in zip(given, asked)]).to(states.dtype)


def _oracle(model: VReflection, prompts: list[Prompt]) -> list[Tensor]:
    """[b, S, D] of every prompt: its own, or Z_T of the true boxes."""
    if all(prompt.oracle is not None for prompt in prompts):
        return [prompt.oracle.to(model.device) for prompt in prompts]
    images = [len(_grids(prompt, model.model.visual.spatial_merge_size)) for prompt in prompts]
    return oracle.by_teacher(model, prompts, *_vision(model, prompts), images)


def _donors(groups: Sequence[int], generator: torch.Generator | None) -> list[int]:
    """Whose latents each prompt is fed."""
    if min(groups) < 2:
        raise ValueError("latents: shuffled feeds another question's latents; it needs at least two prompts in a batch")
    state = None if generator is None else generator.get_state()
    donors: list[int] = []
    for size in groups:
        if state is not None:
            generator.set_state(state)
        first = len(donors)
        donors += [first + other for other in derangement(size, generator)]
    return donors


def _shuffled(
    model: VReflection,
    prompts: list[Prompt],
    spec: DecodeSpec,
    donors: list[int],
    keep_latents: bool,
    options: dict[str, Any],
    own: Sequence[Decoded] | None,
) -> list[Decoded]:
    quiet = options | {"on_step": None}
    own_spec = spec.model_copy(update={"latents": "own"})
    own = own or _Decoder(model, prompts, own_spec, _own, True, **quiet).run()
    first = {at: answer.latents[: spec.latent_steps] for at, answer in enumerate(own) if _complete(answer, spec)}
    wanted = sorted({donors[at] for at, answer in enumerate(own) if answer.latent_started} - set(first))
    if wanted:
        forced = own_spec.model_copy(update={"start": "forced", "max_new_tokens": 2, "count_latents": False})
        asked = [prompts[at] for at in wanted]
        quiet["prefill"] = read(model, asked, True, options["tokens"])
        given = _Decoder(model, asked, forced, _own, True, **quiet).run()
        first |= {at: answer.latents[: spec.latent_steps] for at, answer in zip(wanted, given)}
    receivers = [at for at, answer in enumerate(own) if answer.latent_started]
    if not receivers:
        return list(own) if keep_latents else [replace(answer, latents=None, hidden=None) for answer in own]
    feed = _Given([first[donors[at]][None] for at in receivers])
    options = options | {"prefill": options["prefill"].rows(receivers)}
    again = _Decoder(model, [prompts[at] for at in receivers], spec, feed, keep_latents, **options).run()
    answers = dict(zip(receivers, again))
    return [answers.get(at, replace(answer, latents=None, hidden=None)) for at, answer in enumerate(own)]


def _complete(answer: Decoded, spec: DecodeSpec) -> bool:
    return answer.latent_started and answer.latent_steps >= spec.latent_steps


def derangement(n: int, generator: torch.Generator | None) -> list[int]:
    """A random cyclic permutation of 0..n-1 (n >= 2): nobody stays in place (Sattolo)."""
    order = list(range(n))
    for at in range(n - 1, 0, -1):
        other = int(torch.randint(at, (1,), generator=generator))
        order[at], order[other] = order[other], order[at]
    return order


def _vision(model: VReflection, prompts: list[Prompt]) -> tuple[Tensor | None, Tensor]:
    """(features [T, D] of all images in order or None, merged grids [I, 2])."""
    merge = model.model.visual.spatial_merge_size
    features, grids = [], []
    live = [p for p in prompts if p.image_embeds is None and p.pixel_values is not None]
    seen: dict[int, Tensor] = {}
    if live:
        grid_thw = torch.cat([p.image_grid_thw for p in live]).to(model.device)
        pixels = torch.cat([p.pixel_values for p in live]).to(device=model.device, dtype=model.model.visual.dtype)
        merged = model.model.visual(pixels, grid_thw).pooler_output
        sizes = [int(p.image_grid_thw.prod(1).sum()) // merge**2 for p in live]
        seen = {id(p): part for p, part in zip(live, merged.split(sizes))}
    for prompt in prompts:
        if prompt.image_embeds is None and prompt.pixel_values is None:
            continue
        features.append(seen[id(prompt)] if id(prompt) in seen else prompt.image_embeds.to(model.device))
        grids.append(_grids(prompt, merge))
    if not features:
        return None, torch.zeros(0, 2, dtype=torch.long)
    return torch.cat(features), torch.cat(grids)


def _grids(prompt: Prompt, merge: int) -> Tensor:
    if prompt.image_grids is not None:
        return prompt.image_grids.cpu()
    if prompt.image_grid_thw is not None:
        return prompt.image_grid_thw[:, 1:].cpu() // merge
    return torch.zeros(0, 2, dtype=torch.long)


def _following(place: Tensor) -> Tensor:
    """[4, 1]: the position after those of a prompt [4, L]."""
    return torch.stack([place[0, -1:] + 1, *(3 * [place[1:].max()[None] + 1])])


def read(model: VReflection, prompts: list[Prompt], forced: bool, tokens: SpecialTokens) -> Prefill:
    """Run the prompts, left-padded, with `<|lvr_start|>` behind each if its start is forced."""
    prompt_ids = [prompt.input_ids.cpu() for prompt in prompts]
    merge = model.model.visual.spatial_merge_size
    placed = [positions(i, _grids(p, merge), tokens.image) for i, p in zip(prompt_ids, prompts)]
    if forced:
        start = torch.tensor([tokens.lvr_start])
        prompt_ids = [torch.cat([ids, start]) for ids in prompt_ids]
        placed = [torch.cat([place, _following(place)], 1) for place in placed]
    longest = max(len(ids) for ids in prompt_ids)
    shape = (len(prompt_ids), longest)
    input_ids = torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.bool)
    place = torch.zeros(4, *shape, dtype=torch.long)
    for at, (ids, own) in enumerate(zip(prompt_ids, placed)):
        input_ids[at, longest - len(ids) :] = ids
        mask[at, longest - len(ids) :] = True
        place[:, at, longest - len(ids) :] = own
    mask = mask.to(model.device)
    next_position = torch.stack([place[0, :, -1], *(3 * [place[1:].amax((0, 2))])]).to(model.device)
    with torch.inference_mode():
        features, _ = _vision(model, prompts)
        embeds, place = model.embed(input_ids.to(model.device), features), place.to(model.device)
        at_once = max(1, READ_TOKENS // longest) if model.device.type == "cpu" else len(prompts)
        hidden, read_layers = [], []
        for part in torch.arange(len(prompts)).split(at_once):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            cache = Cache(layers=[BufferLayer() for _ in model.model.language_model.layers])
            hidden.append(_language(model, embeds[rows], mask[rows], place[:, rows], cache).clone())
            read_layers.append([layer.buffers for layer in cache.layers])
        buffers = [tuple(map(torch.cat, zip(*parts))) for parts in zip(*read_layers)]
    return Prefill(forced, mask, next_position, embeds[:, -1].clone(), torch.cat(hidden), buffers)


def _language(model: VReflection, embeds: Tensor, mask: Tensor, place: Tensor, cache: Cache) -> Tensor:
    """The last hidden states [r, D] after these inputs [r, n, D]."""
    return model.model.language_model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True
    ).last_hidden_state[:, -1]


@dataclass(eq=False)
class _Decoder:
    """One pass over a batch of prompts."""

    model: VReflection
    prompts: list[Prompt]
    spec: DecodeSpec
    feed: Feed
    keep: bool
    tokens: SpecialTokens
    eos: set[int]
    prefill: Prefill
    on_step: Callable[[Step], None] | None = None
    leave_late: bool = False
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
        hidden = _language(self.model, inputs[:, None], self.mask, self.next_position[..., None], self.cache)
        if self.on_step is not None:
            self.on_step(Step([row.prompt for row in self.rows], inputs, hidden, self.next_position.T))
        return hidden

    def _advance(self, hidden: Tensor) -> Tensor | None:
        """Take the states [r, D] of the last inputs; returns the next inputs [r, D], or None when every row has ended."""
        latent = [at for at, row in enumerate(self.rows) if not row.done and row.left]
        speaking = [at for at, row in enumerate(self.rows) if not row.done and not row.left]
        if latent and self.seen is not None and self.spec.penalise_picked:
            self._see(latent, self._pick(hidden, latent))
        if speaking:
            picked = self._pick(hidden, speaking).tolist()
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
            asked = [Asked(row.prompt, row.segment, self.spec.latent_steps - row.left) for row in rows]
            fed = self.feed(asked, states)
            inputs[latent] = fed.to(inputs.dtype)
            for at, row in enumerate(rows):
                self._take(row, fed[at], states[at])
        return None if all(row.done for row in self.rows) else inputs

    def _pick(self, hidden: Tensor, rows: list[int]) -> Tensor:
        """The likeliest id [k] of each of these rows; lvr_start is none where it may not come."""
        logits = self.model.lm_head(hidden[rows])
        if self.spec.start == "never":
            logits[:, self.tokens.lvr_start] = -torch.inf
        if self.seen is not None:
            logits, penalty = logits.float(), self.spec.repetition_penalty
            logits = torch.where(self.seen[rows], torch.where(logits < 0, logits * penalty, logits / penalty), logits)
        return logits.argmax(-1)

    def _see(self, rows: list[int], ids: Tensor) -> None:
        """These ids [k] are in the answers of these rows now."""
        if self.seen is not None:
            self.seen[rows, ids.to(self.seen.device)] = True

    def _emit(self, row: _Row, token: int) -> None:
        row.ids.append(token)
        row.counted += 1
        starts = token == self.tokens.lvr_start
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
            if row.counted >= self.spec.max_new_tokens:
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
        )
