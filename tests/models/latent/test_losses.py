import pytest
import torch

from models.latent import losses
from models.methods.vreflection import losses as own
from models.methods.vreflection.spec import Stage1

Z = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
H = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1))


def run(indicator=None, **options):
    z, h = Z.clone().requires_grad_(), H.clone().requires_grad_()
    per_box, clamped = own.alignment(z, h, Stage1(**options), indicator)
    per_box.mean().backward()
    return per_box.detach(), z.grad, h.grad, clamped


@pytest.mark.parametrize("distance", ["l1", "mse"])
def test_one_draws_the_model_to_the_teacher_and_zero_the_teacher_to_the_model(distance):
    joint, z_joint, h_joint, _ = run(align="joint", bcm_distance=distance)
    ones, z_one, h_one, _ = run(torch.tensor(True), bcm_distance=distance)
    zeros, z_zero, h_zero, _ = run(torch.tensor(False), bcm_distance=distance)
    assert torch.equal(joint, ones) and torch.equal(joint, zeros)
    assert torch.equal(h_one, h_joint) and not z_one.any()
    assert torch.equal(z_zero, z_joint) and not h_zero.any()


def test_draws_of_single_boxes_move_single_boxes():
    _, z, h, _ = run(torch.tensor([True, False, True]), granularity="sample")
    assert z.flatten(1).any(1).tolist() == [False, True, False]
    assert h.flatten(1).any(1).tolist() == [True, False, True]


def test_split_has_half_the_gradient_of_joint_and_the_same_value():
    joint, z_joint, h_joint, _ = run(align="joint", bcm_distance="mse")
    split, z_split, h_split, _ = run(align="split", bcm_distance="mse")
    torch.testing.assert_close(split, joint)
    torch.testing.assert_close(z_split, 0.5 * z_joint)
    torch.testing.assert_close(h_split, 0.5 * h_joint)


def test_a_clamp_acts_only_beyond_its_bound_and_counts():
    plain, *_ = run(align="joint")
    wide, *_, count = run(align="joint", clamp=1e4)
    assert torch.equal(plain, wide) and count == 0
    tight, *_, count = run(align="joint", clamp=0.5)
    assert count == (Z.abs() > 0.5).sum() + (H.abs() > 0.5).sum() and not torch.equal(tight, plain)


def test_bernoulli_without_a_draw_is_an_error():
    with pytest.raises(ValueError, match="pass indicator"):
        run()


def test_the_kl_is_zero_for_equal_maps_and_sums_over_queries_and_keys():
    t = torch.rand(2, 3, 5).softmax(-1)
    everywhere = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(own.attention_kl(t, t, everywhere, 1e-9, "both"), torch.zeros(2))
    s = torch.rand(2, 3, 5).softmax(-1)
    want = (t * (t / s).log()).sum((1, 2))
    for where in ("both", "student"):
        torch.testing.assert_close(own.attention_kl(t, s, everywhere, 0.0, where), want)


def test_epsilon_in_the_student_only_lifts_nothing_in_the_numerator():
    t, s = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.25, 0.75]]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    both = own.attention_kl(t, s, mask, 0.5, "both")
    student = own.attention_kl(t, s, mask, 0.5, "student")
    torch.testing.assert_close(both, torch.tensor([1.5 / 0.75]).log())
    torch.testing.assert_close(student, torch.tensor([1.0 / 0.75]).log())


def test_padding_adds_nothing_to_the_kl_and_leaves_gradients_finite():
    t = torch.tensor([[[0.6, 0.4, 0.0]]])
    scores = torch.tensor([[[0.3, 0.1, float("-inf")]]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    kl = own.attention_kl(t, scores.softmax(-1), mask, 0.0, "both")
    torch.testing.assert_close(
        kl, own.attention_kl(t[..., :2], scores[..., :2].softmax(-1), mask[:, :2], 0.0, "both")
    )
    kl.sum().backward()
    assert scores.grad[..., :2].isfinite().all()


def test_cross_entropy_over_a_count_adds_up_over_micro_batches():
    logits, targets = torch.randn(7, 11), torch.randint(11, (7,))
    whole = losses.cross_entropy(logits, targets, None)
    parts = losses.cross_entropy(logits[:3], targets[:3], 7) + losses.cross_entropy(logits[3:], targets[3:], 7)
    torch.testing.assert_close(whole, parts)
    with pytest.raises(ValueError, match="no supervised token"):
        losses.cross_entropy(logits[:0], targets[:0], None)
