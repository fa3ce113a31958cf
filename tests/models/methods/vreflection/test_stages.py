"""What a stage's forward pass computes, against slow and plain recomputations."""

from dataclasses import replace

import pytest
import torch

from models.latent import losses, rollout, slots
from models.latent.terms import Refused, slot_places
from models.methods.sft.spec import Sft
from models.methods.vreflection.modules import BoxResampler, OwnParameters
from models.methods.vreflection.spec import Joint, Stage1, Stage2, has_teacher
from tests.models.conftest import STEPS, gradients

TRUE = torch.tensor(True)
TEACHER2 = Stage2(slot_fill="teacher")


def close(a, b, tolerance=2e-5):
    assert set(a) == set(b)
    for name in a:
        largest = b[name].abs().max().clamp(min=1e-6)
        assert (a[name] - b[name]).abs().max() / largest < tolerance, name


STAGES = {
    "sft": (Sft(), {}),
    "stage 1": (Stage1(), {"indicator": TRUE}),
    "stage 1, tokens, split": (Stage1(region="tokens", align="split", ce_on_slots=True), {}),
    "stage 2, teacher fill": (TEACHER2, {}),
    "stage 2, two passes": (Stage2(rollout="two_pass"), {}),
    "joint": (Joint(), {"indicator": TRUE}),
}


@pytest.mark.parametrize("name", STAGES)
def test_packed_and_padded_rows_give_the_same_losses_and_gradients(name, model, padded, packed):
    stage, draw = STAGES[name]
    one, other = (model.stage_terms(batch, stage, STEPS, **draw) for batch in (padded, packed))
    close({k: v.detach() for k, v in one.losses.items()}, {k: v.detach() for k, v in other.losses.items()})
    close(gradients(model, one.total()), gradients(model, other.total()), 2e-4)


def slowly(model, batch, choose):
    """Fill slot after slot, each time running the whole sequence anew: what a sequential rollout must equal."""
    embeds = model.embed(batch.input_ids, model.vision(batch))
    row, column = slot_places(batch, STEPS)
    order = batch.segment_start.argsort().tolist()  # earlier segments first
    for segment in order:
        for slot in range(STEPS):
            at = row[segment, slot], column[segment, slot]
            hidden = model.run_language(embeds, batch)
            embeds = embeds.index_put(at, choose(segment, slot, hidden[at[0], at[1] - 1]))
    return model.run_language(embeds, batch)


def test_a_hidden_fill_feeds_every_slot_the_state_before_it_with_gradients_through_all(model, padded):
    terms = model.stage_terms(padded, Stage2(slot_fill="hidden", teacher="none"), STEPS)
    hidden = slowly(model, padded, lambda segment, slot, state: state)
    real = padded.attention_mask
    torch.testing.assert_close(terms.hidden[real], hidden[real], atol=2e-5, rtol=1e-4)
    ce, _ = losses.spoken(model.lm_head, hidden, losses.unsupervised(padded.labels, *slots.places(padded)[:2]), None)
    close(gradients(model, terms.total()), gradients(model, ce), 2e-4)


def test_a_student_fill_feeds_every_slot_what_the_student_sees_from_the_state_before_it(model, padded):
    stage = Stage2(dac_distance="mse")
    terms = model.stage_terms(padded, stage, STEPS)
    fed = {}

    def choose(segment, slot, state):
        offset = padded.image_grids.prod(1).cumsum(0) - padded.image_grids.prod(1)
        image = int(padded.segment_image[segment])
        features = padded.image_embeds[offset[image] : offset[image] + int(padded.image_grids[image].prod())]
        fed[segment, slot], *_ = model.student_resampler(state[None, None], features[None])
        return fed[segment, slot][0, 0]

    hidden = slowly(model, padded, choose)
    real = padded.attention_mask
    torch.testing.assert_close(terms.hidden[real], hidden[real], atol=2e-5, rtol=1e-4)
    z_s = torch.stack([torch.cat([fed[b, s][0] for s in range(STEPS)]) for b in range(len(padded.boxes))])
    torch.testing.assert_close(terms.latents["z_s"], z_s, atol=2e-5, rtol=1e-4)
    ce, _ = losses.spoken(model.lm_head, hidden, losses.unsupervised(padded.labels, *slots.places(padded)[:2]), None)
    distance = (z_s - terms.latents["z_t"]).square().mean()
    close(gradients(model, terms.losses["ce"]), gradients(model, ce), 2e-4)
    close(gradients(model, terms.losses["dac_feat"]), gradients(model, distance), 2e-4)


def test_a_sequential_rollout_is_the_same_under_gradient_checkpointing_and_eager_attention(model, padded, reference):
    stage = Stage2()
    model.train()
    plain = model.stage_terms(padded, stage, STEPS).total()
    wanted = gradients(model, plain)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    saved = model.stage_terms(padded, stage, STEPS).total()
    close(gradients(model, saved), wanted)
    eager = reference.model("eager")
    close(gradients(eager, eager.stage_terms(padded, stage, STEPS).total()), wanted, 2e-4)


def test_empty_rounds_of_slots_change_nothing(model, padded, monkeypatch):
    """A rank whose rows have fewer segments than another rank's."""
    plain = model.stage_terms(padded, Stage2(), STEPS)
    monkeypatch.setattr(rollout, "_rounds", lambda segment_row: 4)
    more = model.stage_terms(padded, Stage2(), STEPS)
    torch.testing.assert_close(more.total(), plain.total())
    torch.testing.assert_close(more.latents["a_s"], plain.latents["a_s"])
    close(gradients(model, more.total()), gradients(model, plain.total()))


def test_self_fed_samples_are_the_hidden_fills_and_the_others_the_teachers(model, make, batch_of):
    maker = make()
    batch = batch_of([maker.sample(question=3 + n) for n in range(6)], packed=False)
    generator = torch.Generator().manual_seed(4)
    mixed = model.stage_terms(batch, Stage1(self_fed=0.5), STEPS, indicator=TRUE, generator=generator)
    drawn = torch.rand(6, generator=torch.Generator().manual_seed(4)) < 0.5
    assert 0 < drawn.sum() < 6 and mixed.counts["self_fed"] == drawn.sum()
    teacher = model.stage_terms(batch, Stage1(), STEPS, indicator=TRUE)
    hidden = model.stage_terms(batch, Stage1(slot_fill="hidden"), STEPS, indicator=TRUE)
    for at, own in enumerate(drawn.tolist()):
        real = batch.attention_mask[at]
        want, not_this = (hidden, teacher) if own else (teacher, hidden)
        torch.testing.assert_close(mixed.hidden[at, real], want.hidden[at, real], atol=2e-5, rtol=1e-4)
        assert (mixed.hidden[at, real] - not_this.hidden[at, real]).abs().max() > 1e-3


def test_two_passes_fill_from_the_first(model, padded):
    terms = model.stage_terms(padded, Stage1(slot_fill="hidden", rollout="two_pass"), STEPS, indicator=TRUE)
    first = model.stage_terms(padded, Stage1(), STEPS, indicator=TRUE)
    places = slot_places(padded, STEPS)
    torch.testing.assert_close(terms.embeds[places], first.hidden[slot_places(padded, STEPS, 1)])
    student = model.stage_terms(padded, Stage2(rollout="two_pass"), STEPS)
    torch.testing.assert_close(student.embeds[places], student.latents["z_s"])


@pytest.mark.parametrize("source", ["static", "random"])
def test_queries_that_need_no_states_fill_in_one_pass_and_so_may_be_packed(model, padded, packed, source, reference):
    model.vreflection = OwnParameters(128, STEPS)
    torch.nn.init.normal_(model.vreflection.static_queries, generator=torch.Generator().manual_seed(0))
    stage = Stage2(query_source=source)
    runs = [
        model.stage_terms(batch, stage, STEPS, generator=torch.Generator().manual_seed(1)) for batch in (padded, packed)
    ]
    torch.testing.assert_close(runs[0].latents["z_s"], runs[1].latents["z_s"])
    torch.testing.assert_close(runs[0].embeds[slot_places(padded, STEPS)], runs[0].latents["z_s"])
    assert ("vreflection.static_queries" in gradients(model, runs[0].total())) == (source == "static")


def test_no_latent_steps_leave_the_cross_entropy_alone(model, make, batch_of):
    none = make(steps=0)
    batch = batch_of([none.sample(), none.sample(question=3)], packed=False)
    for stage in (Stage1(), Stage2(), Joint()):
        assert set(model.stage_terms(batch, stage, 0).losses) == {"ce"}


@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.parametrize("grids", [((4, 6),), ()])
@pytest.mark.parametrize(
    "stage",
    [
        Stage1(), Stage1(region="tokens", self_fed=0.5), Stage1(align="split", clamp=1e4), Joint(), Stage2(), TEACHER2,
        Stage2(rollout="two_pass"), Stage2(slot_fill="hidden", teacher="none"), Stage2(query_source="random"),
        Stage2(query_source="static"),
    ],
)  # fmt: skip
def test_a_batch_without_boxes_goes_through_every_module_and_moves_only_the_cross_entropy(
    model, make, batch_of, stage, grids, rounds, monkeypatch
):
    """rounds: the most boxes of a sample on another rank."""
    monkeypatch.setattr(rollout, "_rounds", lambda segment_row: rounds)
    model.vreflection = OwnParameters(128, STEPS) if stage.kind == "stage2" and stage.query_source == "static" else None
    calls = []
    for name in ("box_feature_resampler", "student_resampler"):
        getattr(model, name).cross_attn.register_forward_hook(lambda *args, name=name: calls.append(name))
    batch = batch_of([make().sample(segments=0, grids=grids), make(seed=1).sample(segments=0, grids=grids)], False)
    terms = model.stage_terms(batch, stage, STEPS, indicator=TRUE, generator=torch.Generator().manual_seed(0))
    assert terms.losses["ce"] > 0 and all(value == 0 for name, value in terms.losses.items() if name != "ce")
    heads = {"box_feature_resampler"} if has_teacher(stage) else set()
    heads |= {"student_resampler"} if stage.kind != "stage1" and has_teacher(stage) else set()
    assert set(calls) == heads
    terms.total().backward()
    alone = model.stage_terms(batch, Sft(), STEPS).total()
    wanted = gradients(model, alone)
    close(wanted, {name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.any()})
    moved = heads - {"box_feature_resampler"} if stage.kind == "stage2" else heads
    for name in moved:
        for own, parameter in getattr(model, name).named_parameters():
            assert parameter.grad is not None and not parameter.grad.any(), f"{name}.{own}"


def test_a_live_batch_without_images_runs_the_tower_too(model, make, batch_of):
    batch = replace(
        batch_of([make().sample(segments=0, grids=())], False), image_embeds=None, pixel_values=torch.zeros(0),
        image_grid_thw=torch.zeros(0, 3, dtype=torch.long),
    )  # fmt: skip
    calls = []
    model.model.visual.register_forward_hook(lambda *args: calls.append(args))
    live = model.stage_forward(batch, Stage1(), STEPS, indicator=TRUE)
    cached = model.stage_forward(replace(batch, pixel_values=None), Stage1(), STEPS, indicator=TRUE)
    assert len(calls) == 1 and torch.equal(live.loss, cached.loss)


def test_hooks_that_know_dictionaries_find_the_loss(model, padded):
    """DeepSpeed's look for tensors in tuples, lists and dictionaries, and put what they made of them back."""
    from deepspeed.runtime.zero.utils import apply_to_tensors_only

    out = model.stage_forward(padded, Stage1(), STEPS, indicator=TRUE)
    loss, seen = out.loss, []
    again = apply_to_tensors_only(lambda tensor: seen.append(tensor) or 2 * tensor, out)
    assert any(tensor is loss for tensor in seen) and torch.equal(again.loss, 2 * loss) and again.loss.requires_grad
    assert {"ce", "bcm"} <= again.parts.keys()


def test_losses_of_micro_batches_add_up_to_the_steps(model, make, batch_of):
    maker = make()
    samples = [maker.sample(question=n, answer=a) for n, a in ((3, 2), (5, 7), (4, 4))]
    whole = model.stage_forward(batch_of(samples, False), Stage1(), STEPS, indicator=TRUE)
    items, boxes = whole.parts["ce_tokens"], whole.parts["boxes"]
    parts = [
        model.stage_forward(batch_of(some, False), Stage1(), STEPS, indicator=TRUE, num_items=items, num_boxes=boxes)
        for some in (samples[:2], samples[2:])
    ]
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss)


def test_live_pixels_and_cached_features_are_one(model, reference):
    batch = reference.batch()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(120, 1176, generator=generator)
    grid_thw = reference.stage1["in.image_grid_thw"]
    live = replace(batch, image_embeds=None, pixel_values=pixels, image_grid_thw=grid_thw)
    cached = replace(batch, image_embeds=model.vision(live))
    one, other = (model.stage_forward(b, TEACHER2, STEPS) for b in (live, cached))
    assert torch.equal(one.loss, other.loss)
    assert not any(name.startswith("model.visual") for name in gradients(model, one.loss))


def test_what_diagnostics_read_has_no_graph(model, padded):
    output = model.stage_forward(padded, Joint(), STEPS, indicator=TRUE)
    assert output.loss.requires_grad
    tensors = [output.z_t, output.z_s, output.a_t, output.a_s, output.hidden, *output.parts.values()]
    assert not any(t.requires_grad for t in tensors)
    assert set(output.parts) >= {"ce", "bcm", "dac_feat", "dac_attn", "ce_tokens", "boxes", "clamped"}
    torch.testing.assert_close(output.a_t.sum(-1), torch.ones(4, STEPS))


def test_bfloat16_autocast_runs_and_stays_near_fp32(model, padded):
    want = model.stage_forward(padded, Stage2(), STEPS)
    with torch.autocast("cpu", torch.bfloat16):
        got = model.stage_forward(padded, Stage2(), STEPS)
    got.loss.backward()
    assert abs(got.loss - want.loss) / want.loss < 0.05


@pytest.mark.parametrize(
    ("stage", "which", "reason"),
    [
        (Stage2(), "packed", "packing: padded, or rollout: two_pass"),
        (Stage1(self_fed=0.5), "packed", "packing: padded"),
        (Stage1().model_copy(update={"slot_fill": "student"}), "padded", "which stage1 does not train"),
        (Joint().model_copy(update={"slot_fill": "student", "query_shift": 0}), "padded", "is circular"),
        (
            Stage2(slot_fill="student", teacher="none").model_copy(update={"rollout": "two_pass"}),
            "padded",
            "teacher: none; use rollout: sequential",
        ),
        (Stage2(query_source="static"), "padded", "heads including 'static'"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_reason(stage, which, reason, model, padded, packed):
    with pytest.raises(Refused, match=reason):
        model.stage_forward({"padded": padded, "packed": packed}[which], stage, STEPS, indicator=TRUE)


def test_missing_heads_and_another_number_of_steps_are_refused(model, padded):
    with pytest.raises(Refused, match="the BCM has 8 queries, but latent_steps is 4"):
        model.stage_forward(padded, Stage1(), 4, indicator=TRUE)
    model.student_resampler = None
    with pytest.raises(Refused, match="heads including 'dac'"):
        model.stage_forward(padded, TEACHER2, STEPS)
    model.box_feature_resampler = None
    with pytest.raises(Refused, match="heads including 'bcm'"):
        model.stage_forward(padded, Stage1(), STEPS, indicator=TRUE)


def test_a_bcm_that_passes_through_begins_with_the_normalised_mean_of_the_box():
    torch.manual_seed(0)
    bcm = BoxResampler(128, 4)
    torch.nn.init.normal_(bcm.queries, std=0.02)
    torch.nn.init.xavier_uniform_(bcm.cross_attn.in_proj_weight)
    torch.nn.init.zeros_(bcm.cross_attn.in_proj_bias)
    bcm.pass_through()
    features = torch.randn(3, 5, 128)
    z_t, _ = bcm(features)
    mixed, expected = features.mean(1, keepdim=True), torch.nn.functional.layer_norm
    assert torch.nn.functional.cosine_similarity(z_t, expected(mixed, (128,)), dim=-1).min() > 0.9
    alone, _ = bcm(features[:, :1])
    assert torch.allclose(alone, expected(features[:, :1], (128,), eps=1e-6).expand(-1, 4, -1), atol=1e-5)
