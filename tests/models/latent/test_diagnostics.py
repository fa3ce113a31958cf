import math

import pytest
import torch

from models.latent import diagnostics
from models.methods.sft.spec import Sft
from models.methods.vreflection.spec import Joint, Stage1, Stage2
from tests.models.conftest import STEPS


def test_collapse_shows_in_std_and_centred_cosine_where_the_raw_cosine_misleads():
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(40, 4, 32, generator=generator)
    slots = torch.randn(1, 4, 32, generator=generator).expand(40, -1, -1)
    healthy, collapsed, shifted = own, slots + 1e-3 * own, own + 5.0
    assert diagnostics.instance_std(healthy) > 0.9 and diagnostics.instance_std(collapsed) < 0.01
    assert diagnostics.pairwise_cosine(collapsed, centred=True) > 0.99
    assert diagnostics.pairwise_cosine(shifted, centred=False) > 0.9  # healthy, yet
    assert abs(diagnostics.pairwise_cosine(shifted, centred=True)) < 0.1


def test_the_pairwise_cosine_is_the_plain_mean_over_pairs():
    x = torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(1))
    pairs = [torch.cosine_similarity(x[i], x[j], dim=-1).mean() for i in range(5) for j in range(5) if i != j]
    assert diagnostics.pairwise_cosine(x, centred=False) == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)
    assert math.isnan(diagnostics.pairwise_cosine(x[:1], centred=False))


def test_the_centred_cosine_follows_what_is_particular_to_a_box():
    generator = torch.Generator().manual_seed(2)
    z, noise = (torch.randn(40, 4, 32, generator=generator) for _ in range(2))
    assert diagnostics.centred_cosine(2 * z + 3, z) == pytest.approx(1.0, abs=1e-5)
    assert abs(diagnostics.centred_cosine(noise + 3, z + 3)) < 0.1


def test_uniform_attention_puts_the_boxs_area_in_the_box():
    mask = torch.zeros(1, 12, dtype=torch.bool)
    mask[0, 2:5] = True
    keys = torch.ones(1, 12, dtype=torch.bool)
    keys[0, 10:] = False
    uniform = keys.float()[:, None] / 10
    assert diagnostics.mass_in_box(uniform, mask) == pytest.approx(0.3)
    assert diagnostics.box_area(mask, keys) == pytest.approx(0.3)


@pytest.mark.parametrize("stage", [Stage1(), Stage2(), Joint(slot_fill="hidden")])
def test_the_mechanism_is_measured_on_whatever_a_stage_holds(stage, model, padded):
    found = diagnostics.mechanism(model.stage_forward(padded, stage, STEPS, indicator=torch.tensor(True)))
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())
    assert found["teacher_in_box"] > found["box_area"] and {"z_t_std", "hidden_std", "hidden_z_t_cosine"} <= set(found)
    assert ("student_in_box" in found) == ("z_s_std" in found) == (stage.kind != "stage1")
    assert diagnostics.mechanism(model.stage_forward(padded, Sft(), STEPS)) == {}


def test_the_exposure_gap_compares_teacher_fed_with_free_running_states(model, padded):
    draw = {"indicator": torch.tensor(True)}
    fed = model.stage_forward(padded, Stage1(), STEPS, **draw).hidden
    free = model.stage_forward(padded, Stage1(slot_fill="hidden"), STEPS, **draw).hidden
    torch.testing.assert_close(fed[:, 0][[0, 3]], free[:, 0][[0, 3]], atol=2e-5, rtol=1e-4)  # before any latent
    assert diagnostics.exposure(fed, free)["exposure_gap"] > 0.01
    same = diagnostics.exposure(fed, fed)
    assert same["exposure_gap"] == 0 and same["exposure_cosine"] == pytest.approx(1, abs=1e-5)
