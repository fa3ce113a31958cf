"""The recipes that ship: nothing is left to a schema default, and what is assumed is said."""

import pytest

from harness.spec.errors import SpecError
from harness.spec.files import EXPERIMENTS, load_recipe
from harness.spec.recipe import OPTIONS, STAGES, expand
from harness.spec.resolve import base, read_recipe
from harness.spec.text import Document

SHIPPED = sorted(path.stem for path in (EXPERIMENTS / "recipes").glob("*.yaml"))
RECIPES = [name for name in SHIPPED if name.startswith("vreflection")]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_leaves_no_option_of_its_method_to_the_schema(name):
    document = load_recipe(name)
    values, others = read_recipe(document), STAGES.keys() - document.data.keys()
    if not any(STAGES[name].clips for name in STAGES.keys() - others):
        others = others | {"clips", "decode_clips"}
    assert [option for option, value in values.items() if value.origin == "schema" and option.split(".")[0] not in others] == []


def options(name: str) -> dict:
    return {key: value.value for key, value in base(load_recipe(name)).untouched.items()}


def test_the_paper_recipe_holds_the_papers_numbers():
    paper = options("vreflection")
    assert (paper["stage1.steps"], paper["stage1.lr"], paper["stage2.steps"], paper["stage2.lr"]) == (
        2500,
        1e-5,
        1250,
        5e-6,
    )
    assert [paper[f"stage1.{n}"] for n in ("lambda_bcm", "align", "p", "bcm_distance")] == [0.1, "bernoulli", 0.5, "l1"]
    assert [paper[f"stage2.{n}"] for n in ("lambda_dac", "lambda_feat", "lambda_attn", "slot_fill")] == [
        0.1,
        1,
        1,
        "student",
    ]


def test_the_release_recipe_holds_the_releases_numbers():
    release = options("vreflection-release")
    assert [release[f"stage1.{n}"] for n in ("align", "lambda_bcm", "bcm_distance", "clamp", "region")] == [
        "split", 0.5, "mse", 10000, "tokens",
    ]  # fmt: skip
    assert (release["stage2.steps"], release["stage2.lr"], release["stage2.query_shift"]) == (2500, 1e-6, 0)
    assert (release["stage1.ce_on_slots"], release["stage2.ce_on_slots"]) == (True, False)


def test_visreflects_recipe_holds_what_its_summary_says():
    method = options("visreflect")
    assert {n: method[f"reflect.{n}"] for n in ("steps", "lr", "weight_decay", "warmup_ratio", "lambda_vr", "schedule")} == {
        "steps": 5000, "lr": 1e-5, "weight_decay": 0, "warmup_ratio": 0.03, "lambda_vr": 0.1, "schedule": "cosine",
    }  # fmt: skip
    assert [method[f"reflect.crop_{n}_tokens"] for n in ("min", "max")] == [16, 128]
    assert [method[f"decode.{n}"] for n in ("latent_steps", "start", "end")] == [1, "forced", "forced"]
    assert [method[f"images.{n}_pixels"] / 28**2 for n in ("min", "max")] == [128, 4096]


def test_the_two_visreflect_recipes_differ_where_the_release_is_known_to():
    paper, release = options("visreflect"), options("visreflect-release")
    differing = {name for name in paper if paper[name] != release[name] and name.split(".")[0] not in STAGES.keys() - {"reflect"}}
    assert differing == {
        "packing", "reflect.global_batch", "reflect.average", "reflect.crop_rule", "reflect.template", "reflect.gradient_scale",
        "decode.start", "decode.max_new_tokens", "decode.count_latents", "decode.cut_latents", "images.processor", "images.orientation",
    }  # fmt: skip
    assert (release["reflect.global_batch"], release["decode.max_new_tokens"], release["decode.start"]) == (128, 32, "emitted")


def test_joint_training_has_stage_ones_budget_and_fill_in_both_recipes():
    for name in RECIPES:
        recipe = options(name)
        for option in ("steps", "lr", "slot_fill", "lambda_bcm", "ce_on_slots"):
            assert recipe[f"joint.{option}"] == recipe[f"stage1.{option}"]


def test_a_bare_name_means_every_section_that_has_it():
    assert expand("p") == ("stage1.p", "joint.p")
    assert expand("latent_steps") == ("latent_steps",)
    assert expand("stage2.tau") == ("stage2.tau",)
    assert "kind" not in OPTIONS["stage1"]


def test_a_misspelt_option_of_a_recipe_names_its_line(tmp_path):
    data = {"shared": {"lamda_bcm": 1}}
    document = Document(tmp_path / "mine.yaml", data, {(): 1, ("shared",): 1, ("shared", "lamda_bcm"): 2})
    with pytest.raises(SpecError, match=r'mine.yaml:2: shared.lamda_bcm: no such field; did you mean "lambda_bcm"\?'):
        read_recipe(document)
