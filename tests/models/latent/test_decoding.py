from dataclasses import replace

import pytest
import torch

from models.backbone import products
from models.backbone.template import positions
from models.config import DecodeSpec
from models.latent import decoding, prefill
from models.latent.decoding import BLOCK, decode, likeliest
from models.latent.feed import derangement
from models.latent.prompt import Prompt
from models.methods.vreflection.spec import Stage1
from tests.models.conftest import EOS, LVR, LVR_END, LVR_START, STEPS, seeing


def run(model, prompts, tokens, **options):
    spec = DecodeSpec(**{"max_new_tokens": 24} | options)
    if spec.latents == "oracle" and prompts[0].oracle is None:
        prompts = seeing(model, prompts)
    return decode(model, prompts, spec, tokens=tokens, eos={EOS}, keep_latents=True)


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.token_ids == b.token_ids
        assert (a.latent_started, a.latent_steps, a.truncated) == (b.latent_started, b.latent_steps, b.truncated)
        assert (a.latents is None) == (b.latents is None)
        if a.latents is not None:
            torch.testing.assert_close(a.latents, b.latents, atol=1e-4, rtol=1e-4)  # step after step widens a rounding
            torch.testing.assert_close(a.hidden, b.hidden, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [4 * BLOCK, 4 * BLOCK + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_likeliest_entry_is_argmaxs_among_equals_and_without_numbers_too(width, dtype):
    logits = torch.randint(-2, 3, (200, width), generator=torch.Generator().manual_seed(0)).to(dtype)  # many equals
    logits[0] = -torch.inf
    logits[1, 300], logits[2, 7] = torch.nan, torch.inf
    assert torch.equal(likeliest(logits), logits.argmax(-1))
    assert likeliest(logits)[:3].tolist() == [0, 300, 7]


@pytest.mark.parametrize("start", ["emitted", "forced"])
def test_any_number_of_decodings_start_from_one_prefill(talkative, prompts, tokens, start):
    prompts = seeing(talkative, prompts[:-1])
    prefill = decoding.read(talkative, prompts, start == "forced", tokens)
    for latents in ("own", "zeroed", "shuffled", "oracle", "own"):
        spec = DecodeSpec(max_new_tokens=80, latents=latents, start=start)
        options = {"tokens": tokens, "eos": {EOS}, "keep_latents": True}
        fresh, again = (
            decode(talkative, prompts, spec, generator=torch.Generator().manual_seed(3), prefill=given, **options)
            for given in (None, prefill)
        )
        same(again, fresh)
    some = [4, 0, 3]
    spec = DecodeSpec(max_new_tokens=24, start=start)
    part = decode(
        talkative, [prompts[k] for k in some], spec, tokens=tokens, eos={EOS}, keep_latents=True, prefill=prefill.rows(some)
    )
    whole = run(talkative, prompts, tokens, start=start)
    assert [answer.token_ids for answer in part] == [whole[k].token_ids for k in some]


@pytest.mark.parametrize("parts", [2048, 40])
@pytest.mark.parametrize("start", ["emitted", "forced"])
def test_prompts_that_go_on_from_a_beginning_answer_as_those_that_were_read_whole(
    talkative, prompts, tokens, start, parts, monkeypatch
):
    """The beginning ends behind the last picture; one prompt is its own beginning, one has none."""
    monkeypatch.setattr(prefill, "READ_TOKENS", {"cpu": parts})
    forced, columns = start == "forced", []
    pictured = [at for at, prompt in enumerate(prompts) if (prompt.input_ids == tokens.image).any()]
    lengths = {at: int((prompts[at].input_ids == tokens.image).nonzero()[-1]) + 1 for at in pictured}
    lengths[pictured[-1]] = len(prompts[pictured[-1]].input_ids)
    beginnings = [replace(prompts[at], input_ids=prompts[at].input_ids[: lengths[at]]) for at in pictured]
    read = dict(zip(pictured, prefill.read(talkative, beginnings, False, tokens).prefixes("cpu"), strict=True))
    assert {at: len(prefix) for at, prefix in read.items()} == lengths
    begun = [read.get(at) for at in range(len(prompts))]
    real = prefill.last_states
    monkeypatch.setattr(prefill, "last_states", lambda model, embeds, *rest: columns.append(embeds.shape[1]) or real(model, embeds, *rest))
    whole = prefill.read(talkative, prompts, forced, tokens)
    assert max(columns) == max(len(p.input_ids) for p in prompts) + forced and (len(columns) > 1) == (parts == 40)
    columns.clear()
    gone_on = prefill.read(talkative, prompts, forced, tokens, begun)
    assert max(columns) == max(len(p.input_ids) + forced - len(prefix or ()) for p, prefix in zip(prompts, begun))
    assert torch.equal(whole.mask, gone_on.mask) and torch.equal(whole.next_position, gone_on.next_position)
    torch.testing.assert_close(gone_on.hidden, whole.hidden, atol=2e-5, rtol=1e-4)
    for ours, theirs in zip(gone_on.buffers, whole.buffers, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            read_ones = (buffer[:, :, : whole.mask.shape[1]].transpose(1, 2)[whole.mask] for buffer in (one, other))
            torch.testing.assert_close(*read_ones, atol=2e-5, rtol=1e-4)
    for latents in ("own", "noise", "own"):
        spec = DecodeSpec(max_new_tokens=24, start=start, latents=latents, max_segments=4)
        one, other = (
            decode(
                talkative, prompts, spec, tokens=tokens, eos={EOS}, keep_latents=True, prefill=given,
                generator=torch.Generator().manual_seed(3),
            )
            for given in (whole, gone_on)
        )  # fmt: skip
        same(other, one)


def test_prompts_read_in_parts_give_the_same_answers(talkative, prompts, tokens, monkeypatch):
    whole = run(talkative, prompts, tokens)
    monkeypatch.setattr(prefill, "READ_TOKENS", {"cpu": 100})
    same(run(talkative, prompts, tokens), whole)


def test_shuffled_takes_own_answers_that_are_known(talkative, prompts, tokens, monkeypatch):
    options = {"tokens": tokens, "eos": {EOS}}
    spec = DecodeSpec(latents="shuffled", max_new_tokens=24)
    fresh = decode(talkative, prompts, spec, generator=torch.Generator().manual_seed(0), **options)
    own = run(talkative, prompts, tokens)
    passes = []
    real = decoding.sources_of
    monkeypatch.setattr(decoding, "sources_of", lambda model, asked, of, *rest: passes.append((of.latents, len(asked))) or real(model, asked, of, *rest))
    again = decode(talkative, prompts, spec, generator=torch.Generator().manual_seed(0), own=own, **options)
    same(again, fresh)
    assert passes and ("own", len(prompts)) not in passes


def test_a_prefill_of_other_prompts_is_refused(talkative, prompts, tokens):
    prefill = decoding.read(talkative, prompts, False, tokens)
    for other, start in ((prompts[:2], "emitted"), (prompts, "forced")):
        with pytest.raises(ValueError, match="not of these prompts"):
            decode(talkative, other, DecodeSpec(start=start), tokens=tokens, eos={EOS}, prefill=prefill)


@pytest.mark.parametrize("start", ["emitted", "forced"])
@pytest.mark.parametrize("latents", ["own", "zeroed", "noise", "oracle"])
def test_a_batch_answers_as_one_prompt_at_a_time(talkative, prompts, tokens, latents, start):
    prompts = prompts[:-1] if latents == "oracle" else prompts
    options = {"latents": latents, "start": start}
    together = run(talkative, prompts, tokens, **options)
    same(together, [run(talkative, [prompt], tokens, **options)[0] for prompt in prompts])
    assert any(answer.latent_started for answer in together)


def test_the_prompts_of_that_comparison_differ_in_when_they_end_and_start(talkative, prompts, tokens):
    answers = run(talkative, prompts, tokens)
    assert len({len(answer.token_ids) for answer in answers}) > 2
    assert {answer.truncated for answer in answers} == {True, False}
    assert len({a.token_ids.index(LVR_START) for a in answers if a.latent_started}) > 1
    assert {answer.latent_started for answer in answers} == {True, False}


def test_after_the_start_token_come_exactly_s_latent_steps_and_then_words(talkative, prompts, tokens):
    for steps in (0, 1, 3, 8):
        for answer in run(talkative, prompts, tokens, latent_steps=steps, start="forced"):
            ids = answer.token_ids
            assert ids[0] == LVR_START and ids[1 : 1 + steps] == steps * [LVR] and ids[1 + steps] != LVR
            assert answer.latent_steps == ids.count(LVR) or steps == 0
            assert answer.latent_started and (steps or answer.latents is None)


def test_own_latents_are_the_previous_states_and_training_feeds_the_same(model, make, tokens, batch_of):
    """`slot_fill: hidden` is decoding, as training: the states at the slots agree."""
    sample = make().sample()
    batch = batch_of([sample], packed=False)
    trained = model.stage_forward(batch, Stage1(slot_fill="hidden"), STEPS, indicator=torch.tensor(True))
    question = sample["ids"][: sample["starts"][0] - 1]
    prompt = Prompt(question, image_grids=sample["grids"], image_embeds=sample["embeds"])
    answer = run(model, [prompt], tokens, start="forced")[0]
    assert torch.equal(answer.latents, answer.hidden)
    torch.testing.assert_close(answer.latents[:STEPS], trained.hidden[0], atol=2e-5, rtol=1e-4)


def test_the_cache_equals_recomputing_the_whole_sequence(model, prompts, tokens):
    prompt = prompts[1]
    answer = run(model, [prompt], tokens, start="forced", latent_steps=3)[0]
    ids = torch.cat([prompt.input_ids, torch.tensor(answer.token_ids)])
    embeds = model.embed(ids[None], prompt.image_embeds)
    at = len(prompt.input_ids) + 1
    embeds[0, at : at + 3] = answer.latents[:3]
    place = positions(ids, prompt.image_grids, tokens.image)[:, None]
    hidden = model.model.language_model(inputs_embeds=embeds, position_ids=place, use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(hidden[at - 1 : at + 2], answer.hidden[:3], atol=2e-5, rtol=1e-4)
    spoken = model.lm_head(hidden[at + 2 : -1]).argmax(-1).tolist()
    assert spoken == answer.token_ids[4:]


def test_zeroed_and_noise_replace_what_is_fed_and_nothing_before_it(talkative, prompts, tokens):
    own = run(talkative, prompts, tokens, start="forced")
    zeroed = run(talkative, prompts, tokens, start="forced", latents="zeroed")
    noise = run(talkative, prompts, tokens, start="forced", latents="noise")
    for a, z, n in zip(own, zeroed, noise):
        assert not z.latents.any()
        torch.testing.assert_close(z.hidden[0], a.hidden[0])
        torch.testing.assert_close(n.latents.norm(dim=-1), n.hidden.norm(dim=-1))
        assert (n.latents[0] - a.latents[0]).abs().max() > 0.1


def test_noise_depends_on_the_questions_seed_alone(model, prompts, tokens):
    one = run(model, prompts, tokens, start="forced", latents="noise")
    other = run(model, prompts[::-1], tokens, start="forced", latents="noise")[::-1]
    same(one, other)
    drawn = [Prompt(p.input_ids, p.image_grids, p.image_embeds) for p in prompts[:2]]
    spec = DecodeSpec(latents="noise", start="forced", max_new_tokens=4)
    a, b = (
        decode(
            model, drawn, spec, tokens=tokens, eos=set(), generator=torch.Generator().manual_seed(s), keep_latents=True
        )
        for s in (0, 1)
    )
    assert not torch.equal(a[0].latents, b[0].latents)


def test_shuffled_feeds_the_donors_own_latents(talkative, prompts, tokens):
    spec = DecodeSpec(latents="shuffled", start="forced", max_new_tokens=24)
    generator = torch.Generator().manual_seed(0)
    shuffled = decode(talkative, prompts, spec, tokens=tokens, eos={EOS}, generator=generator, keep_latents=True)
    own = run(talkative, prompts, tokens, start="forced")
    donors = derangement(len(prompts), torch.Generator().manual_seed(0))
    for at, answer in enumerate(shuffled):
        torch.testing.assert_close(answer.latents[:STEPS], own[donors[at]].latents[:STEPS], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(answer.hidden[0], own[at].hidden[0], atol=1e-5, rtol=1e-4)


def test_every_group_is_shuffled_alike_whatever_else_is_in_the_batch(talkative, prompts, tokens):
    spec = DecodeSpec(latents="shuffled", start="forced", max_new_tokens=12)
    options = {"tokens": tokens, "eos": {EOS}, "keep_latents": True}
    prompts = prompts[:6]
    together = decode(talkative, prompts, spec, generator=torch.Generator().manual_seed(0), groups=[3, 3], **options)
    alone = [
        answer
        for group in (prompts[:3], prompts[3:])
        for answer in decode(talkative, group, spec, generator=torch.Generator().manual_seed(0), **options)
    ]
    same(together, alone)


def test_shuffled_leaves_prompts_without_latents_alone_and_forces_donors_that_start_none(talkative, prompts, tokens):
    spec = DecodeSpec(latents="shuffled", max_new_tokens=24)
    own = run(talkative, prompts, tokens)
    generator = torch.Generator().manual_seed(0)
    shuffled = decode(talkative, prompts, spec, tokens=tokens, eos={EOS}, generator=generator, keep_latents=True)
    forced = run(talkative, prompts, tokens, start="forced")
    donors = derangement(len(prompts), torch.Generator().manual_seed(0))
    for at, (a, b) in enumerate(zip(own, shuffled)):
        assert a.latent_started == b.latent_started
        if not a.latent_started:
            assert a.token_ids == b.token_ids and b.latents is None
            continue
        donor = own[donors[at]] if own[donors[at]].latent_started else forced[donors[at]]
        n = min(STEPS, len(b.latents))
        torch.testing.assert_close(b.latents[:n], donor.latents[:n], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 17])
def test_a_derangement_moves_everybody(n):
    generator = torch.Generator().manual_seed(n)
    for _ in range(20):
        order = derangement(n, generator)
        assert sorted(order) == list(range(n)) and all(order[at] != at for at in range(n))


@pytest.mark.parametrize("region", ["tokens", "roi_align"])
def test_oracle_feeds_the_teachers_latents_of_the_true_box(model, make, tokens, batch_of, region):
    sample = make().sample(grids=((2, 3), (4, 5)), box_images=[1])
    batch = batch_of([sample], packed=False)
    z_t = model.stage_forward(batch, Stage1(region=region), STEPS, indicator=torch.tensor(True)).z_t
    question = sample["ids"][: sample["starts"][0] - 1]
    seen = {"image_grids": sample["grids"], "image_embeds": sample["embeds"]}
    prompt = Prompt(question, **seen, boxes=sample["boxes"], box_image=torch.tensor([1]))
    answer = run(model, seeing(model, [prompt], region=region), tokens, start="forced", latents="oracle")[0]
    torch.testing.assert_close(answer.latents[:STEPS], z_t[0])


def test_latent_steps_count_against_the_budget_only_when_asked(model, prompts, tokens):
    free = run(model, prompts[:1], tokens, start="forced", max_new_tokens=6)[0]
    assert free.truncated and len(free.token_ids) - free.latent_steps == 6
    counted = run(model, prompts[:1], tokens, start="forced", max_new_tokens=12, count_latents=True)[0]
    assert counted.truncated and len(counted.token_ids) == 12
    assert counted.token_ids == free.token_ids[:12]
    cut = run(model, prompts[:1], tokens, start="forced", max_new_tokens=4, count_latents=True)[0]
    assert cut.truncated and cut.token_ids == [LVR_START, LVR, LVR, LVR] and cut.latent_steps == 3


@pytest.mark.parametrize("latents", ["own", "shuffled"])
def test_a_forced_start_may_be_all_that_an_answer_may_hold(talkative, prompts, tokens, latents):
    for answer in run(talkative, prompts, tokens, start="forced", max_new_tokens=1, latents=latents):
        assert answer.token_ids == [LVR_START] and answer.truncated and answer.latents is None


@pytest.mark.parametrize("start", ["emitted", "forced"])
def test_the_first_segment_too_many_cuts_an_answer_off(talkative, prompts, tokens, start):
    """Answers with fewer segments stay as they are; the others end at the start token of the one too many."""
    free = run(talkative, prompts, tokens, start=start, max_new_tokens=48)
    begun = [answer.token_ids.count(LVR_START) for answer in free]
    limit = sorted(begun)[len(begun) // 2]
    assert limit and min(begun) <= limit < max(begun)
    for answer, cut, segments in zip(free, run(talkative, prompts, tokens, start=start, max_new_tokens=48, max_segments=limit), begun):
        if segments <= limit:
            same([cut], [answer])
        else:
            assert cut.truncated and cut.token_ids == answer.token_ids[: len(cut.token_ids)]
            assert cut.token_ids[-1] == LVR_START and cut.token_ids.count(LVR_START) == limit + 1
            assert cut.latent_steps == limit * STEPS


def test_an_end_token_cannot_come_while_latent(model, prompts, tokens):
    """Every token but the slots' ends: the first word after the latent steps does."""
    everything = set(range(320))
    answer = decode(model, prompts, DecodeSpec(), tokens=tokens, eos=everything - {LVR_START})[0]
    assert len(answer.token_ids) == 1 and not answer.truncated
    forced = decode(model, prompts, DecodeSpec(start="forced"), tokens=tokens, eos=everything - {LVR_START})
    assert all(len(a.token_ids) in (STEPS + 2, 2 * STEPS + 3) and a.latent_steps >= STEPS for a in forced)


def test_ended_rows_leave_the_batch(talkative, prompts, tokens):
    sizes = []
    spec = DecodeSpec(max_new_tokens=24)
    decode(talkative, prompts, spec, tokens=tokens, eos={EOS}, on_step=lambda step: sizes.append(len(step.rows)))
    assert sizes[0] == len(prompts) and sizes[-1] < len(prompts) and sizes == sorted(sizes, reverse=True)


def test_live_pixels_decode_as_their_features(model, prompts, tokens):
    pixels = torch.randn(96, 1176, generator=torch.Generator().manual_seed(0))
    grid_thw = torch.tensor([[1, 8, 12]])
    with torch.no_grad():
        features = model.model.visual(pixels, grid_thw).pooler_output
    live = Prompt(prompts[0].input_ids, pixel_values=pixels, image_grid_thw=grid_thw)
    cached = Prompt(prompts[0].input_ids, image_embeds=features, image_grids=torch.tensor([[4, 6]]))
    same(run(model, [live, prompts[1]], tokens), run(model, [cached, prompts[1]], tokens))


def test_what_cannot_be_decoded_is_refused(model, prompts, tokens):
    assert decode(model, [], DecodeSpec(), tokens=tokens, eos=set()) == []
    with pytest.raises(ValueError, match="prompt 0 has none"):
        decode(model, prompts[:1], DecodeSpec(latents="oracle"), tokens=tokens, eos=set())
    with pytest.raises(ValueError, match="at least two prompts"):
        run(model, prompts[:1], tokens, latents="shuffled")
    with pytest.raises(ValueError, match="model.eval"):
        run(model.train(), prompts, tokens)


def test_a_teacher_that_cannot_look_is_refused(model, prompts):
    boxless = Prompt(prompts[0].input_ids, prompts[0].image_grids, prompts[0].image_embeds)
    with pytest.raises(ValueError, match="prompt 0 has none"):
        Stage1().method(STEPS).oracle(model, [boxless], STEPS)
    with pytest.raises(ValueError, match="8 queries, but latent_steps is 4"):
        Stage1().method(STEPS).oracle(model, prompts[:1], 4)
    model.box_feature_resampler = None
    with pytest.raises(ValueError, match="oracle needs a BCM"):
        Stage1().method(STEPS).oracle(model, prompts[:1], STEPS)


def test_end_tokens_stand_in_the_answer_and_markers_are_the_models_own(talkative, prompts, tokens):
    ended = [a for a in run(talkative, prompts, tokens) if not a.truncated]
    assert ended and all(a.token_ids[-1] == EOS and EOS not in a.token_ids[:-1] for a in ended)
    assert all(a.token_ids.count(LVR_END) >= 0 for a in ended)


def test_a_forced_end_follows_the_last_step_and_a_batch_answers_as_one_prompt_at_a_time(talkative, prompts, tokens):
    options = {"start": "forced", "end": "forced", "latent_steps": 1}
    whole = run(talkative, prompts, tokens, **options)
    assert all(answer.token_ids[:3] == [LVR_START, LVR, LVR_END] for answer in whole)
    assert any(answer.token_ids.count(LVR_START) > 1 for answer in whole), "a later segment"
    for answer in whole:
        for at, token in enumerate(answer.token_ids[:-2]):
            assert token != LVR_START or answer.token_ids[at + 1 : at + 3] == [LVR, LVR_END]
    same(whole, [run(talkative, [prompt], tokens, **options)[0] for prompt in prompts])
    left = run(talkative, prompts, tokens, start="forced", latent_steps=1)
    assert any(a.token_ids[2] != LVR_END for a in left), "by itself the model says something else"


def test_a_model_that_may_not_start_answers_as_one_that_never_would(talkative, prompts, tokens):
    silent = run(talkative, prompts, tokens, start="never")
    assert any(answer.latent_started for answer in run(talkative, prompts, tokens))
    assert not any(answer.latent_started or answer.latent_steps for answer in silent)
    same(silent, run(talkative, prompts, tokens, start="never", end="forced", latent_steps=0))
    with torch.no_grad():
        talkative.lm_head.weight[LVR_START] = 0
    same(silent, run(talkative, prompts, tokens))


def test_oracle_latents_that_a_prompt_brings_are_fed_without_a_teacher(talkative, prompts, tokens):
    given = [replace(prompt, boxes=None, oracle=torch.randn(2, 3, 128)) for prompt in prompts]
    talkative.box_feature_resampler = None
    answers = run(talkative, given, tokens, latents="oracle", latent_steps=3, start="forced")
    for prompt, answer in zip(given, answers, strict=True):
        assert torch.equal(answer.latents[:3], prompt.oracle[0]) and not torch.equal(answer.hidden[:3], prompt.oracle[0])
    assert any(torch.equal(a.latents[3:6], p.oracle[1]) for p, a in zip(given, answers) if a.latent_steps >= 6)
    with pytest.raises(ValueError, match="oracle holds 3 for prompt 0, but latent_steps is 4"):
        run(talkative, given, tokens, latents="oracle", latent_steps=4)


@pytest.mark.parametrize("penalty", [1.05, 1.6, 0.8])
def test_the_repetition_penalty_is_that_of_transformers(model, make, tokens, penalty):
    prompts = [Prompt(make(seed).words(length)) for seed, length in enumerate((9, 17, 5))]
    never = replace(tokens, lvr_start=-1)  # a model that does not know the latent tokens, as transformers sees it
    options = {"max_new_tokens": 20, "repetition_penalty": penalty}
    ours = decode(model, prompts, DecodeSpec(**options), tokens=never, eos={EOS})
    without = decode(model, prompts, DecodeSpec(max_new_tokens=20), tokens=never, eos={EOS})
    for prompt, answer in zip(prompts, ours, strict=True):
        whole = model.generate(prompt.input_ids[None], do_sample=False, eos_token_id=EOS, pad_token_id=0, use_cache=True, **options)
        assert answer.token_ids == whole[0, len(prompt.input_ids) :].tolist()
    assert [a.token_ids for a in ours] != [a.token_ids for a in without]


@pytest.mark.parametrize("picked", [False, True])
def test_ids_picked_in_latent_steps_are_penalised_where_that_is_asked_for(talkative, prompts, tokens, picked):
    penalty, (prompt,) = 1.8, prompts[:1]
    steps = []
    spec = DecodeSpec(start="forced", max_new_tokens=8, repetition_penalty=penalty, penalise_picked=picked, latent_steps=3)
    (answer,) = decode(talkative, [prompt], spec, tokens=tokens, eos={EOS}, on_step=steps.append)
    seen, latent, expected = {*prompt.input_ids.tolist(), LVR_START}, 3, [LVR_START]
    with torch.inference_mode():
        for step in steps[: len(answer.token_ids)]:
            logits = talkative.lm_head(step.hidden)[0].float()
            ids = torch.tensor(sorted(seen))
            logits[ids] = torch.where(logits[ids] < 0, logits[ids] * penalty, logits[ids] / penalty)
            token = int(logits.argmax())
            if latent:
                latent, seen = latent - 1, seen | ({token} if picked else set())
                expected.append(LVR)
            else:
                seen.add(token)
                expected.append(token)
                latent = 3 if token == LVR_START else 0
    assert answer.token_ids == expected[: len(answer.token_ids)] and len(set(answer.token_ids)) > 3


def test_a_penalty_that_only_a_checkpoint_knows_is_refused_here(model, prompts, tokens):
    with pytest.raises(ValueError, match="repetition_penalty: checkpoint is for who knows"):
        run(model, prompts, tokens, repetition_penalty="checkpoint")


def test_logits_that_are_kept_whole_are_those_before_penalties(model, make, tokens):
    """Whatever is done to them afterwards: `keep_logits` may return what it is given."""
    prompts = [Prompt(make(seed).words(length)) for seed, length in enumerate((9, 17, 5))]
    spec, steps = DecodeSpec(start="never", max_new_tokens=6, repetition_penalty=1.6), []
    answers = decode(model, prompts, spec, tokens=tokens, eos=set(), keep_logits=lambda logits: logits, on_step=steps.append)
    with torch.inference_mode():
        for number, step in enumerate(steps):
            assert torch.equal(torch.stack([answer.kept[number] for answer in answers]), model.lm_head(step.hidden))


@pytest.mark.skipif(products._library is None, reason="this CPU multiplies bf16 numbers itself")
def test_keys_widened_once_give_the_same_digits_as_widened_for_each_product(talkative, prompts, tokens, monkeypatch):
    model = talkative.to(torch.bfloat16)
    model.set_attn_implementation("eager")
    kinds, widened = [], products.widened
    monkeypatch.setattr(prefill, "widened", lambda tensor: kinds.append(widened(tensor).dtype) or widened(tensor))
    once = run(model, prompts, tokens)
    assert set(kinds) == {torch.float32}
    monkeypatch.setattr(prefill, "widened", lambda tensor: tensor)
    for ours, theirs in zip(once, run(model, prompts, tokens), strict=True):
        assert ours.token_ids == theirs.token_ids
        assert (ours.hidden is None) == (theirs.hidden is None)
        assert ours.hidden is None or torch.equal(ours.hidden, theirs.hidden)
