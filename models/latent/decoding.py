"""Batched latent decoding (Coconut-style): after `<|lvr_start|>`, S forwards (or fewer, see `DecodeSpec.leave`) are fed a
state instead of a token.

Greedy, with a KV cache and explicit positions. Rows are left-padded, enter latent steps at different times and make room for
waiting prompts when they end; the answers equal those of decoding one prompt at a time. Knows nothing of texts or benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbone import samples
from models.backbone.model import Backbone
from models.backbone.tokens import SpecialTokens
from models.latent import refill
from models.latent.feed import FEEDS, LatentStep, donors_of, sources_of
from models.latent.prefill import Prefill, last_states, read
from models.latent.prompt import Prompt
from models.latent.refill import Name
from models.latent.running import Row, Running, joined, stacked
from models.latent.script import Script, repeating
from models.latent.slots import distances
from models.schema import DecodeSpec

BLOCK = 128
"""Of a vocabulary, when its likeliest entry is looked for: a divisor of the true one's 152,064."""


@dataclass(eq=False)
class Decoded:
    """The answer to one prompt."""

    token_ids: list[int]
    """Generated ids, special tokens included; every latent step stands as one `<|lvr|>`. Ends with the end token, if one came."""
    latent_started: bool
    """Whether the answer has `<|lvr_start|>`, emitted or forced."""
    latent_steps: int
    """Latent steps taken, over all segments."""
    truncated: bool
    """max_new_tokens or max_segments was reached before an end token."""
    latents: Tensor | None = None
    """[steps, D]: the latents that were fed, if keep_latents."""
    hidden: Tensor | None = None
    """[steps, D]: the model's own state before each latent step (at slot i - 1), if keep_latents."""
    kept: Tensor | None = None
    """[n, W]: the return values of `keep_logits` for each token that the model predicted."""
    kept_at: tuple[int, ...] = ()
    """[n]: positions of these tokens in token_ids, without latent steps and a forced `<|lvr_start|>`."""


@dataclass(eq=False)
class Step:
    """One forward pass of the rows still in the batch, for `on_step`."""

    rows: list[Name]
    """[r]: the prompt of every row."""
    inputs: Tensor
    """[r, D]: the last input embedding."""
    hidden: Tensor
    """[r, D]: the last hidden state."""
    positions: Tensor
    """[r, 4]: (text, t, h, w) of the last input."""


@dataclass(eq=False)
class Joining:
    """Prompts that begin together, beside others that run already.

    groups: numbers of consecutive prompts among which `shuffled` stays; every group is shuffled by the same draw, so what
    else is in the batch does not matter. None: one group. own: for `shuffled`, these prompts' answers with `latents: own`
    and keep_latents, where they are known already. prefill: of these prompts, from `read`, where they are decoded more than
    once. generator (CPU): of the noise and the derangement.
    """

    names: Sequence[Name]
    prompts: list[Prompt]
    prefill: Prefill | None = None
    groups: Sequence[int] | None = None
    own: Sequence[Decoded] | None = None
    generator: torch.Generator | None = None


def decode(
    model: Backbone,
    prompts: list[Prompt],
    spec: DecodeSpec,
    *,
    generator: torch.Generator | None = None,
    prefill: Prefill | None = None,
    groups: Sequence[int] | None = None,
    own: Sequence[Decoded] | None = None,
    **options: Any,
) -> list[Decoded]:
    """Greedy answers to `prompts`, in order, as one batch. generator, prefill, groups, own: see `Joining`; options: `stream`'s."""
    batches = iter([Joining(range(len(prompts)), prompts, prefill, groups, own, generator)] if prompts else [])
    found: dict[Name, Decoded] = {}
    for ended in stream(model, lambda running: next(batches, None), spec, **options):
        found |= ended
    return [found[at] for at in range(len(prompts))]


def stream(
    model: Backbone,
    source: Callable[[list[Name]], Joining | None],
    spec: DecodeSpec,
    *,
    tokens: SpecialTokens,
    eos: set[int],
    keep_latents: bool = False,
    on_step: Callable[[Step], None] | None = None,
    keep_logits: Callable[[Tensor], Tensor] | None = None,
    end_vector: Tensor | None = None,
    hide_images: bool = False,
    script: Script | None = None,
    refilled: bool = False,
) -> Iterator[dict[Name, Decoded]]:
    """Greedy answers to prompts that keep coming, by name, as they end.

    source: given the names of the rows that are running, returns prompts to start beside them, or None; see `refill.run`.

    The model emits `<|lvr_start|>` itself, or it is forced as the first token (and stands in token_ids). The state of that
    token is the first latent input; after S of them `<|lvr_end|>` is forced or emitted, and the model decodes normally again
    and may start another segment. start never: it may not open any.
    End tokens cannot come while latent. Latent steps count against max_new_tokens only with `count_latents`. An answer that
    would begin more than max_segments segments is cut off.

    latents: own; zeroed; noise (normal, with the norm of the own latent); shuffled (each row is fed another row's own
    latents: own ones are decoded first; a donor that starts none is forced to); oracle (the prompts'
    own `oracle`).
    refilled: prompts may come while others run. False: only to an empty batch, whose padding then stays as it is.
    end_vector [D]: for `leave: latent`. on_step sees every forward, with `shuffled` those of the last pass. keep_logits:
    [k, V] -> [k, W], called with the model's logits of every token it is asked for, before penalties and forbidden tokens;
    `Decoded.kept` holds what it returns. hide_images: once a row's latent segment is over, its image tokens are masked from
    everything that follows. script: for an `answer` that is not free; the letters are the prompts'.
    """
    if model.training:
        raise ValueError("decode needs model.eval()")
    if spec.repetition_penalty == "checkpoint":
        raise ValueError("repetition_penalty: checkpoint is for who knows the checkpoint's generation_config; give a number")
    if spec.answer != "free" and script is None:
        raise ValueError(f"answer: {spec.answer} needs the ids that it puts into answers")
    if spec.leave == "latent" and end_vector is None:
        raise ValueError("leave: latent compares states with a learned end vector, which this checkpoint lacks; use leave: steps")
    decoder = _Decoder(model, spec, tokens, eos, keep_latents, on_step, keep_logits, end_vector, hide_images, script, refilled)
    yield from refill.run(decoder, source, refill.REFILL_BELOW if refilled else refill.SHRINK_BELOW)


def likeliest(logits: Tensor) -> Tensor:
    """`logits.argmax(-1)` of [k, V]: [k], of equals the first. On a CPU torch looks at one number after another; by blocks, only at
    those of the block that holds the largest, which takes a fifth of the time."""
    if logits.device.type != "cpu" or logits.shape[-1] % BLOCK:
        return logits.argmax(-1)
    blocks = logits.unflatten(-1, (-1, BLOCK))
    chosen = blocks.amax(-1).argmax(-1)
    return chosen * BLOCK + blocks[torch.arange(len(blocks)), chosen].argmax(-1)


def _check(prompts: list[Prompt], spec: DecodeSpec) -> None:
    if spec.latents == "oracle" and spec.latent_steps:
        for at, prompt in enumerate(prompts):
            if prompt.oracle is None:
                raise ValueError(f"latents: oracle feeds what a prompt brings with it; prompt {at} has none")
            if (held := prompt.oracle.shape[1]) < spec.latent_steps:
                raise ValueError(f"latents: oracle holds {held} for prompt {at}, but latent_steps is {spec.latent_steps}")
    if spec.answer == "letter" and not all(prompt.letters for prompt in prompts):
        raise ValueError("answer: letter chooses among a question's letters, and a prompt has none; use answer: prefix or free")


def _others_latents(
    more: Joining, prefill: Prefill, spec: DecodeSpec, decoded: Callable[..., list[Decoded]]
) -> tuple[list[Decoded], dict[int, Tensor]]:
    """(own answers, latents [1, S, D] that another prompt gives to each that starts any). decoded: gives answers with their
    latents."""
    donors = donors_of(more.groups or [len(more.prompts)], more.generator)
    own_spec = spec.model_copy(update={"latents": "own"})
    own = more.own or decoded(more.prompts, own_spec, prefill)
    first = {at: answer.latents[: spec.latent_steps] for at, answer in enumerate(own) if _complete(answer, spec)}
    receivers = [at for at, answer in enumerate(own) if answer.latent_started]
    if wanted := sorted({donors[at] for at in receivers} - set(first)):
        forced = own_spec.model_copy(update={"start": "forced", "max_new_tokens": 2, "count_latents": False})
        given = decoded([more.prompts[at] for at in wanted], forced)
        first |= {at: answer.latents[: spec.latent_steps] for at, answer in zip(wanted, given)}
    return list(own), {at: first[donors[at]][None] for at in receivers}


def _complete(answer: Decoded, spec: DecodeSpec) -> bool:
    return answer.latent_started and answer.latent_steps >= spec.latent_steps


@dataclass(eq=False)
class _Decoder:
    """A running batch, as `refill.run` drives it."""

    model: Backbone
    spec: DecodeSpec
    tokens: SpecialTokens
    eos: set[int]
    keep: bool
    on_step: Callable[[Step], None] | None
    keep_logits: Callable[[Tensor], Tensor] | None
    end_vector: Tensor | None
    hide_images: bool
    script: Script | None
    refilled: bool
    batch: Running | None = None

    @property
    def rows(self) -> list[Row]:
        return self.batch.rows if self.batch else []

    @torch.inference_mode()
    def join(self, more: Joining | None) -> dict[Name, Decoded]:
        """Drops rows that have ended and adds the new ones, each after its first token or first latent step."""
        ended: dict[Name, Decoded] = {}
        new = self._begun(more, ended) if more else None
        self.batch = joined([batch for batch in (self.batch, new) if batch], trim=self.refilled)
        return ended

    @torch.inference_mode()
    def step(self) -> dict[Name, Decoded]:
        """One more input per row."""
        batch = self.batch
        batch.mask = F.pad(batch.mask, (0, 1), value=True)
        batch.next_position = batch.next_position + 1
        hidden = last_states(self.model, batch.inputs[:, None], batch.mask, batch.next_position[..., None], batch.cache)
        return self._advance(batch, batch.inputs, hidden)

    def _begun(self, more: Joining, ended: dict[Name, Decoded]) -> Running | None:
        """The new rows; any that end at once are put into `ended`."""
        _check(more.prompts, self.spec)
        names, prompts, forced = list(more.names), more.prompts, self.spec.start == "forced"
        prefill = more.prefill or read(self.model, prompts, forced, self.tokens)
        if prefill.forced != forced or len(prefill.mask) != len(prompts):
            raise ValueError("this prefill is not of these prompts and this start")
        sources = sources_of(self.model, prompts, self.spec, more.generator)
        if self.spec.latents == "shuffled" and self.spec.latent_steps:
            own, given = _others_latents(more, prefill, self.spec, self._alone)
            ended |= {name: replace(answer, latents=None, hidden=None) for name, answer in zip(names, own) if not answer.latent_started}
            if not given:
                return None
            names, prompts, sources = [names[at] for at in given], [prompts[at] for at in given], list(given.values())
            prefill = prefill.rows(list(given))
        rows = [Row(*one) for one in zip(names, prompts, sources, strict=True)]
        penalised = self.spec.repetition_penalty != 1
        known = stacked([prompt.input_ids for prompt in prompts]).to(self.model.device) if penalised else None
        eager = self.model.model.language_model.config._attn_implementation in samples.ADDITIVE
        batch = Running.behind(prefill, rows, known, eager)
        if forced:
            for row in rows:
                self._emit(row, self.tokens.lvr_start)
            self._see(batch, list(range(len(rows))), torch.full((len(rows),), self.tokens.lvr_start))
            ended |= {row.name: self._result(row) for row in rows if row.done}  # it was the one token allowed
        ended |= self._advance(batch, prefill.inputs, prefill.hidden)
        return batch

    def _alone(self, prompts: list[Prompt], spec: DecodeSpec, prefill: Prefill | None = None) -> list[Decoded]:
        """Answers with their latents, decoded in a separate batch."""
        return decode(
            self.model, prompts, spec, prefill=prefill, tokens=self.tokens, eos=self.eos, keep_latents=True,
            keep_logits=self.keep_logits, hide_images=self.hide_images, script=self.script,
        )  # fmt: skip

    def _advance(self, batch: Running, inputs: Tensor, hidden: Tensor) -> dict[Name, Decoded]:
        """Take the states [r, D] behind the last inputs [r, D], and find the next inputs; returns the answers that end with it."""
        if self.on_step is not None:
            self.on_step(Step([row.name for row in batch.rows], inputs, hidden, batch.next_position.T))
        running = [row for row in batch.rows if not row.done]
        latent = [at for at, row in enumerate(batch.rows) if not row.done and row.left]
        speaking = [at for at, row in enumerate(batch.rows) if not row.done and not row.left]
        penalised = batch.seen is not None and self.spec.penalise_picked
        if latent and (penalised or self.spec.leave == "free"):
            picked = self._pick(batch, self.model.lm_head(hidden[latent]), latent)
            if penalised:
                self._see(batch, latent, picked)
            if self.spec.leave == "free":
                latent, speaking = self._freed(batch, latent, picked.tolist(), speaking)
        if speaking:
            logits = self.model.lm_head(hidden[speaking])
            if self.keep_logits is not None:
                found = self.keep_logits(logits)
                if found.untyped_storage().data_ptr() == logits.untyped_storage().data_ptr():
                    found = found.clone()  # penalties are written into these
                for at, kept in zip(speaking, found):
                    batch.rows[at].kept.append(kept)
                    batch.rows[at].kept_at.append(len(batch.rows[at].ids))
            picked = self._pick(batch, logits, speaking).tolist()
            for at, token in zip(speaking, picked):
                self._emit(batch.rows[at], self.tokens.lvr_end if batch.rows[at].closing else token)
            self._see(batch, speaking, torch.tensor([batch.rows[at].ids[-1] for at in speaking]))
        # A row that has just emitted `<|lvr_start|>` is fed that token now; its latent steps follow.
        last = torch.tensor([row.ids[-1] for row in batch.rows], device=hidden.device)
        batch.inputs = self.model.get_input_embeddings()(last)
        if latent:
            self._think(batch, latent, hidden[latent])
        return {row.name: self._result(row) for row in running if row.done}

    def _think(self, batch: Running, latent: list[int], states: Tensor) -> None:
        """One latent step of these rows, whose own latents are `states` [k, D]."""
        rows = [batch.rows[at] for at in latent]
        asked = [LatentStep(row.source, row.segment, self.spec.latent_steps - row.left) for row in rows]
        fed = FEEDS[self.spec.latents](asked, states)
        batch.inputs[latent] = fed.to(batch.inputs.dtype)
        ends = self._near_end(states)
        for at, row in enumerate(rows):
            self._take(row, fed[at], states[at])
            row.left = 0 if ends[at] else row.left
        if self.hide_images:
            self._hide(batch, [at for at in latent if not batch.rows[at].left])

    def _freed(self, batch: Running, latent: list[int], picked: list[int], speaking: list[int]) -> tuple[list[int], list[int]]:
        """(rows in a latent segment, rows that decode tokens), after rows that picked `<|lvr_end|>` have left their segment."""
        left = {at for at, token in zip(latent, picked) if token == self.tokens.lvr_end}
        for at in left:
            batch.rows[at].left = 0
        return [at for at in latent if at not in left], sorted([*speaking, *left])

    def _near_end(self, states: Tensor) -> list[bool]:
        """Whether each of these latent rows leaves its segment with the step that its state [k, D] is fed in."""
        if self.spec.leave != "latent":
            return [False] * len(states)
        end = self.end_vector.to(states).expand_as(states)
        return (distances(states, end, self.spec.leave_distance) < self.spec.leave_below).tolist()

    def _pick(self, batch: Running, logits: Tensor, rows: list[int]) -> Tensor:
        """The most likely id [k] for each of these rows from its logits [k, V]; lvr_start is excluded where it is not allowed."""
        if self.spec.start == "never":
            logits[:, self.tokens.lvr_start] = -torch.inf
        if batch.seen is not None:
            logits, penalty, known = logits.float(), self.spec.repetition_penalty, batch.seen[rows]
            held = logits.gather(1, known)
            logits.scatter_(1, known, torch.where(held < 0, held * penalty, held / penalty))
        for at, number in enumerate(rows):
            self._restrict(logits[at], batch.rows[number])
        return likeliest(logits)

    def _restrict(self, logits: Tensor, row: Row) -> None:
        """Masks in place the entries of one row's logits [V] that `no_repeat_ngram` and `answer` forbid."""
        if self.spec.no_repeat_ngram:
            ids = row.prompt.input_ids.tolist() + row.ids
            logits[list(repeating(ids, self.spec.no_repeat_ngram))] = -torch.inf
        if self.spec.answer == "free" or row.left:
            return
        letters = row.prompt.letters if self.spec.answer == "letter" else None
        allowed = self.script.allowed(row.said, letters)
        if allowed is None:
            return
        if row.segment < 0 and not row.said and self.spec.start == "emitted":
            allowed = (*allowed, self.tokens.lvr_start)
        kept = logits[list(allowed)].clone()
        logits.fill_(-torch.inf)
        logits[list(allowed)] = kept

    @staticmethod
    def _see(batch: Running, rows: list[int], ids: Tensor) -> None:
        """Records that these ids [k] are in the answers of these rows."""
        if batch.seen is not None:
            column = batch.seen[:, -1].clone()
            column[rows] = ids.to(column.device)
            batch.seen = torch.cat([batch.seen, column[:, None]], 1)

    def _emit(self, row: Row, token: int) -> None:
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

    def _has_all_segments(self, row: Row) -> bool:
        """Whether the row has just started more segments than it may."""
        return self.spec.max_segments is not None and row.segment >= self.spec.max_segments

    def _hide(self, batch: Running, rows: list[int]) -> None:
        """Mask these rows' image tokens in the cache."""
        batch.mask = batch.mask.clone()  # the prefill's own is shared with other decodings
        for at in rows:
            ids, begin = batch.rows[at].prompt.input_ids, batch.mask.shape[1] - batch.rows[at].columns
            shown = (ids != self.tokens.image) & (ids != self.tokens.video)
            batch.mask[at, begin : begin + len(ids)] &= shown.to(batch.mask.device)

    def _take(self, row: Row, fed: Tensor, state: Tensor) -> None:
        """Records one latent step."""
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

    def _result(self, row: Row) -> Decoded:
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
