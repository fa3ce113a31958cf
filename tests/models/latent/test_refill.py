"""Waiting questions take the places of answers that have ended, and every answer stays the one that its prompt gets alone."""

from __future__ import annotations

import pytest
import torch

from models.backbone.cache import BLOCK, right_aligned
from models.config import DecodeSpec
from models.latent.decoding import Joining, decode, read, stream
from models.latent.prefill import Prefill
from models.latent.refill import Queue, parts_of, run
from models.latent.script import Script
from tests.models.conftest import EOS, LVR_END, seeing
from tests.models.latent.test_decoding import same

MOST_NEW = 24


@pytest.fixture
def uninitialised_is_nan():
    """Memory that nobody has written shows in the answers."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def columns(prompts):
    return lambda at: len(prompts[at].input_ids) + MOST_NEW


def room(prompts, rows):
    """Of so many of the longest."""
    return rows * max(map(columns(prompts), range(len(prompts))))


def streamed(model, prompts, spec, groups, fitting, **options):
    """(answers in order, rows of each forward)."""
    waiting, forwards, found = Queue(groups, columns(prompts), fitting), [], {}

    def source(running):
        names = waiting.next(running)
        sizes = [len(group) for group in groups if group[0] in names]
        generator = torch.Generator().manual_seed(4)
        return Joining(names, [prompts[at] for at in names], groups=sizes, generator=generator) if names else None

    for ended in stream(model, source, spec, on_step=lambda step: forwards.append(step.rows), eos={EOS}, keep_latents=True, refilled=True, **options):
        assert not found.keys() & ended.keys()
        found |= ended
    return [found[at] for at in range(len(prompts))], forwards


def mixed(forwards):
    """Forwards of rows that did not begin together."""
    begun = {}
    for number, rows in enumerate(forwards):
        for row in rows:
            begun.setdefault(row, number)
    return [rows for rows in forwards if len({begun[row] for row in rows}) > 1]


PREFIX = Script((40, 41), EOS)
CASES = {
    "own": {},
    "forced": {"start": "forced"},
    "never": {"start": "never"},
    "forced end": {"end": "forced", "latent_steps": 2},
    "latents counted": {"count_latents": True, "start": "forced"},
    "few segments": {"max_segments": 1},
    "zeroed": {"latents": "zeroed"},
    "noise": {"latents": "noise"},
    "oracle": {"latents": "oracle"},
    "penalty": {"repetition_penalty": 1.3, "penalise_picked": True},
    "no repetition": {"no_repeat_ngram": 2},
    "prefix": {"answer": "prefix", "start": "forced"},
    "free": {"leave": "free", "start": "forced"},
}


@pytest.mark.parametrize("case", CASES)
def test_rows_that_join_a_running_batch_answer_as_they_do_alone(case, talkative, prompts, tokens, uninitialised_is_nan):
    spec = DecodeSpec(max_new_tokens=MOST_NEW, **CASES[case])
    options = {"tokens": tokens, "script": PREFIX if spec.answer == "prefix" else None}
    if spec.latents == "oracle":
        prompts = seeing(talkative, prompts[:-1])
    if spec.leave == "free":
        with torch.no_grad():
            near = decode(talkative, prompts[:1], spec.model_copy(update={"leave": "steps"}), eos={EOS}, keep_latents=True, **options)
            talkative.lm_head.weight[LVR_END] = 50 * near[0].hidden[2]
    alone = [decode(talkative, [prompt], spec, eos={EOS}, keep_latents=True, **options)[0] for prompt in prompts]
    together, forwards = streamed(talkative, prompts, spec, [[at] for at in range(len(prompts))], room(prompts, 2), **options)
    same(together, alone)
    assert mixed(forwards) and max(map(len, forwards)) < len(prompts)


@pytest.mark.parametrize("start", ["emitted", "forced"])
def test_groups_that_join_exchange_latents_as_they_do_alone(start, talkative, prompts, tokens):
    prompts, groups = prompts[:6], [[0, 1], [2, 3], [4, 5]]
    spec = DecodeSpec(max_new_tokens=MOST_NEW, latents="shuffled", start=start)
    together, forwards = streamed(talkative, prompts, spec, groups, room(prompts, 3), tokens=tokens)
    options = {"tokens": tokens, "eos": {EOS}, "keep_latents": True}
    alone = [
        answer
        for group in groups
        for answer in decode(talkative, [prompts[at] for at in group], spec, generator=torch.Generator().manual_seed(4), **options)
    ]
    same(together, alone)
    assert mixed(forwards)
    assert {answer.latent_started for answer in together} == ({True, False} if start == "emitted" else {True})


def test_pictures_are_hidden_behind_each_rows_own_latents(talkative, prompts, tokens):
    prompts = prompts[:-1]
    spec = DecodeSpec(max_new_tokens=MOST_NEW, start="forced")
    hidden, forwards = streamed(talkative, prompts, spec, [[at] for at in range(len(prompts))], room(prompts, 3), tokens=tokens, hide_images=True)
    options = {"tokens": tokens, "eos": {EOS}, "keep_latents": True}
    same(hidden, [decode(talkative, [prompt], spec, hide_images=True, **options)[0] for prompt in prompts])
    assert mixed(forwards)
    assert [a.token_ids for a in hidden] != [a.token_ids for a in decode(talkative, prompts, spec, **options)]


def test_a_row_that_goes_on_keeps_its_place_and_the_cache_is_no_wider_than_the_rows_in_it_need(talkative, prompts, tokens, monkeypatch):
    from models.latent import decoding

    shapes, real = [], decoding.last_states
    monkeypatch.setattr(decoding, "last_states", lambda model, embeds, mask, *rest: shapes.append(tuple(mask.shape)) or real(model, embeds, mask, *rest))
    many = 8 * prompts[:6]
    spec = DecodeSpec(max_new_tokens=MOST_NEW)
    whole = [decode(talkative, [prompt], spec, tokens=tokens, eos={EOS}, keep_latents=True)[0] for prompt in prompts[:6]]
    shapes.clear()
    together, _ = streamed(talkative, many, spec, [[at] for at in range(len(many))], room(many, 6), tokens=tokens)
    assert [answer.token_ids for answer in together] == 8 * [answer.token_ids for answer in whole]
    longest = max(len(prompt.input_ids) + len(answer.token_ids) for prompt, answer in zip(prompts, whole))
    assert len(shapes) > longest and max(width for _, width in shapes) < longest + max(len(answer.token_ids) for answer in whole)
    assert sum(rows for rows, _ in shapes) <= 1.3 * 8 * sum(len(answer.token_ids) - 1 for answer in whole), "few rows are idle"


def test_prompts_read_in_several_batches_are_one_prefill(talkative, prompts, tokens):
    whole = read(talkative, prompts, False, tokens)
    order = [5, 0, 1, 4, 3]
    parts = [read(talkative, [prompts[at] for at in some], False, tokens) for some in ([0, 1, 2], [3, 4, 5, 6])]
    together = Prefill.joined([parts[1].rows([2]), parts[0].rows([0, 1]), parts[1].rows([1, 0])])
    for spec in (DecodeSpec(max_new_tokens=MOST_NEW), DecodeSpec(max_new_tokens=MOST_NEW, latents="noise")):
        options = {"tokens": tokens, "eos": {EOS}, "keep_latents": True}
        same(
            decode(talkative, [prompts[at] for at in order], spec, prefill=together, **options),
            decode(talkative, [prompts[at] for at in order], spec, prefill=whole.rows(order), **options),
        )


def test_prompts_are_read_at_once_as_long_as_they_and_their_padding_fit():
    assert parts_of([2, 3, 3, 4, 30, 1, 1], 12) == [slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 7)]
    assert parts_of([5], 1) == [slice(0, 1)]


def test_what_is_aligned_to_the_right_has_zeros_before_it(uninitialised_is_nan):
    short, long = torch.full((2, 1, 3, 4), 1.0), torch.full((1, 1, 5, 4), 2.0)
    aligned = right_aligned([short, long])
    assert aligned.shape == (3, 1, 5 + BLOCK, 4)
    assert aligned[:, 0, :5, 0].tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [2, 2, 2, 2, 2]]


def test_a_queue_gives_what_fits_beside_the_running_ones_and_in_order():
    sizes = {"a": 10, "b": 10, "c": 20, "d": 20, "e": 90, "f": 10}
    queue = Queue([["a"], ["b"], ["c", "d"], ["e"], ["f"]], sizes.__getitem__, room=80)
    assert queue.next([]) == ["a", "b", "c", "d"], "4 rows of 20 columns"
    assert queue.next(["c"]) == [], "e takes too much beside another"
    assert queue.next([]) == ["e"], "but begins alone"
    assert queue.next(["e"]) == []
    assert queue.next([]) == ["f"] and queue.next([]) == []


class Counted:
    """A batch whose rows say so many tokens each."""

    class Row:
        def __init__(self, name, left):
            self.name, self.left = name, left

        @property
        def done(self):
            return self.left == 0

    def __init__(self):
        self.rows, self.carried = [], []

    def join(self, more):
        new = [self.Row(name, left - 1) for name, left in (more or {}).items()]
        self.rows = [row for row in self.rows + new if not row.done]
        return {row.name: None for row in new if row.done}

    def step(self):
        self.carried.append(len(self.rows))
        running = [row for row in self.rows if not row.done]
        for row in running:
            row.left -= 1
        return {row.name: None for row in running if row.done}


def test_places_are_filled_once_enough_are_free_and_ended_rows_are_dropped_when_nothing_waits():
    batch, asked = Counted(), []
    waiting = iter([{"a": 2, "b": 3, "c": 4, "d": 9}, {"e": 1, "f": 3}])
    ended = [name for some in run(batch, lambda running: asked.append(running) or next(waiting, None)) for name in some]
    assert ended == ["a", "e", "b", "c", "f", "d"]
    assert asked == [[], ["b", "c", "d"], ["c", "d", "f"], ["d"], []]
    assert batch.carried == [4, 4, 3, 1, 1, 1, 1, 1]
