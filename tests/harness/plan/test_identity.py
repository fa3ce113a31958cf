"""Keys: what changes them, what does not, and that nobody changes them by accident."""

import dataclasses
import math
from importlib import import_module
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from harness.identity import canonical, digest
from harness.jobs import Graph, Job, Source
from harness.kinds import KINDS, NAMES
from harness.plan.payload import TAGS, payload
from models.config import (
    CardSpec,
    Clips,
    DecodeSpec,
    EvaluateSpec,
    ExternalMirror,
    FeaturesSpec,
    Images,
    LinkedMirror,
    MapsSpec,
    MeasureSpec,
    ProxyMirror,
    ProxyTraining,
    ProxyTwins,
    TrainingSet,
    TrainSpec,
)
from models.methods.sft.spec import Sft
from models.methods.visreflect.spec import ClueFrames, Crops, Reflect
from models.methods.vreflection.spec import Joint, Stage1, Stage2
from tests.models.test_config import FROZEN

BASE = Source("/somewhere", "0" * 64)

GOLDEN = {
    "data": "5945717bfdaaf17f",
    "mirror": "00e811245524d243",
    "sft": "91c746676f01d437",
    "stage1": "ff8274b9b911eb75",
    "stage2": "b2a858c0b7146608",
    "joint": "efc51a376e2bf24e",
    "reflect": "3b3c9153cc934059",
    "evaluate": "48caba47da2093f0",
    "training set": "5b74374dd756ea28",
    "stock mirror": "3fac5b656212fb3e",
    "features": "a7869b5aa5242d6c",
    "crops": "7ddb14d11d9c19fc",
    "sized crops": "e8e5b8c9c0ebd25f",
    "clips": "6889894f66e1a80b",
    "clues": "47357085a0097e17",
    "ask": "7ef00cc7ede6229c",
    "maps": "ac6255aaa7da75c6",
    "measure": "c63bcadae48730d2",
    "twins": "8da71633be162f65",
    "card": "6c93110cf7bc093c",
}
"""First digits of keys of jobs at schema defaults. If one differs, stored results no longer match: either undo the change
of a schema default, or raise the kind's version in harness.kinds and write the new digits here."""


def jobs() -> dict[str, Job]:
    data = Job("data", payload(ProxyTraining()))
    mirror = Job("mirror", payload(ProxyMirror(benchmark="mmvp")))
    made = {"data": data, "mirror": mirror}
    for stage in (Sft(), Stage1(), Stage2(), Joint(), Reflect()):
        made[stage.kind] = Job("train", payload(TrainSpec(stage=stage, packing="padded")), {"data": data, "init": BASE})
    evaluate = EvaluateSpec(benchmark="mmvp", tasks={"vr_mmvp": "1" * 64})
    made["evaluate"] = Job("evaluate", payload(evaluate), {"checkpoint": made["stage1"], "mirror": mirror})
    made["training set"] = Job("data", payload(TrainingSet()), {"files": BASE, "base": BASE})
    made["stock mirror"] = Job("mirror", payload(LinkedMirror(benchmark="mmvp")), {"files": BASE})
    sized = FeaturesSpec(images=Images(min_pixels=784), crops=Crops(max_tokens=64))
    of_clips = FeaturesSpec(clips=Clips(), clues=ClueFrames())
    for name, spec in (
        ("features", FeaturesSpec()), ("crops", FeaturesSpec(crops=Crops())), ("sized crops", sized),
        ("clips", FeaturesSpec(clips=Clips(fps=2))), ("clues", of_clips),
    ):  # fmt: skip
        made[name] = Job("features", payload(spec), {"data": data, "base": BASE})
    made["ask"] = Job("ask", payload(evaluate), {"checkpoint": BASE, "mirror": mirror})
    made["maps"] = Job("maps", payload(MapsSpec()), {"checkpoint": made["stage1"], "data": data})
    made["twins"] = Job("mirror", payload(ProxyTwins()))
    card = CardSpec(benchmark="mmvp", tasks={"vr_mmvp": "1" * 64}, decode=DecodeSpec(start="forced"))
    made["card"] = Job("card", payload(card), {"checkpoint": made["stage1"], "mirror": made["twins"]})
    made["measure"] = Job("measure", payload(MeasureSpec()), {"checkpoint": made["stage1"]})
    return made


def test_golden_keys():
    assert {name: job.key[:16] for name, job in jobs().items()} == GOLDEN
    assert {job.kind for job in jobs().values()} == set(NAMES), "every kind of job has its golden key"


def schemas_in(annotation: object) -> set[type[BaseModel]]:
    """Every schema that a value of this type may hold."""
    found: set[type[BaseModel]] = set()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        found.add(annotation)
        for field in annotation.model_fields.values():
            found |= schemas_in(field.annotation)
    for inner in get_args(annotation):
        found |= schemas_in(inner)
    return found


def defaults_of(schema: type[BaseModel]) -> set[str]:
    """Fields that a key leaves out at their default."""
    return {name for name, field in schema.model_fields.items() if name not in TAGS and not field.is_required()}


@pytest.mark.parametrize("kind", NAMES)
def test_every_default_that_a_kinds_keys_leave_out_is_pinned(kind):
    module, name = KINDS[kind].schema.split(":")
    for schema in schemas_in(getattr(import_module(module), name)):
        unpinned = defaults_of(schema) - FROZEN.get(schema, {}).keys()
        assert not unpinned, f"{schema.__name__}: add {', '.join(sorted(unpinned))} to FROZEN in tests/models/test_config.py"


@pytest.mark.parametrize("name", GOLDEN)
def test_a_payload_is_read_back_by_its_kinds_schema(name):
    job = jobs()[name]
    assert payload(KINDS[job.kind].spec(job.payload)) == job.payload


def test_keys_of_different_jobs_differ():
    assert len({job.key for job in jobs().values()}) == len(jobs())


@pytest.mark.parametrize(
    "spec",
    [
        TrainSpec(stage=Stage1(p=0.3, lr=6e-4), latent_steps=4, seed=2, images=Images(min_pixels=784), vision="cached"),
        TrainSpec(stage=Stage2(teacher="random", adam_betas=(0.8, 0.9)), packing="padded"),
        TrainSpec(stage=Joint()),
        TrainSpec(stage=Reflect(crop_max_tokens=64), vision="cached"),
        EvaluateSpec(benchmark="blink", protocol="stock", tasks={"a": "b"}, decode=DecodeSpec(latents="oracle")),
        ExternalMirror(benchmark="mmvp", path="x", revision="y"),
    ],
)
def test_a_payload_gives_its_spec_back(spec):
    assert type(spec).model_validate(payload(spec)) == spec


def test_data_of_another_generator_are_other_data_even_where_its_version_is_the_default():
    assert "generator" in payload(ProxyTraining()) and "generator" in payload(ProxyMirror(benchmark="mmvp"))


def test_a_value_at_its_schema_default_is_left_out():
    assert payload(TrainSpec(stage=Stage1(p=0.5), seed=0)) == {"stage": {"kind": "stage1"}}


def test_neither_slug_nor_location_is_part_of_a_key():
    job = Job("train", {"a": 1}, {"init": BASE}, "a name")
    assert job.key == Job("train", {"a": 1}, {"init": Source("elsewhere", BASE.digest)}, "another").key
    assert job == dataclasses.replace(job, slug="third") and len({job, dataclasses.replace(job, slug="third")}) == 1


def test_an_input_changes_the_key_by_role_and_content():
    one, two = Job("data", {"n": 1}), Job("data", {"n": 2})
    keys = {Job("train", {}, inputs).key for inputs in ({"data": one}, {"data": two}, {"other": one}, {})}
    assert len(keys) == 4


def test_numbers_are_known_by_value_and_order_means_nothing():
    assert digest({"a": 1.0, "b": (1, 2)}) == digest({"b": [1, 2.0], "a": 1})
    assert digest({"a": True}) != digest({"a": 1})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_enters_no_key(value):
    with pytest.raises(ValueError, match="cannot be part of an identity"):
        digest({"lr": value})


def test_what_json_has_no_word_for_enters_no_key():
    with pytest.raises(TypeError, match="cannot be part of an identity"):
        digest({"path": object()})
    with pytest.raises(TypeError, match="text keys"):
        digest({1: "a"})


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plain)
def test_canonical_form_is_its_own_canonical_form(value):
    assert canonical(canonical(value)) == canonical(value)


def test_a_graph_holds_each_job_once_and_parents_first():
    data = Job("data", {"n": 1})
    first, twin = Job("train", {"lr": 1}, {"data": data}, "a"), Job("train", {"lr": 1.0}, {"data": data}, "b")
    graph = Graph([first, twin])
    assert [job.kind for job in graph] == ["data", "train"] and len(graph) == 2
    assert graph.children(data) == (first,) and twin in graph and graph[first.key].slug == "a"
