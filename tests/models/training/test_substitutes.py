"""Samples that fail while a model trains: what takes their place, where that is said, and when it is too much."""

import json

import pytest
from transformers import AutoTokenizer

from models.backbone.images import load_image_processor
from models.backbone.tokens import add_tokens
from models.config import TrainSpec
from models.methods.sft.spec import Sft
from models.methods.stage import Slots
from models.methods.vreflection.spec import Stage1
from models.run import LocalRun
from models.training import cache_features, train
from models.training.collate import Collator
from models.training.data import DataError, read_samples
from models.training.pixels import Live
from models.training.substitutes import ALWAYS_ALLOWED, Substituting, allowed
from tests.models.training.conftest import SMALL

FAST = {"global_batch": 4, "lr": 1e-3, "precision": "fp32"}


def collating(base, data, numbers=None, **options):
    tokenizer, samples = AutoTokenizer.from_pretrained(base), read_samples(data)
    add_tokens(tokenizer)
    collator = Collator(tokenizer, Live(load_image_processor(base, SMALL)), slots=Slots("fixed", 2), packing="padded", **options)
    return Substituting(collator, samples, numbers or range(len(samples)))


def broken(data, *numbers):
    """The data set with these samples' pictures damaged after it was read."""
    for number in numbers:
        (data / "images" / f"{number:03d}_0.png").write_bytes(b"<html>")
    return data


def test_the_next_readable_sample_takes_the_place_and_is_named(base, make_data):
    collate = collating(base, broken(make_data(6), 1, 2, 5))
    found = collate([0, 1, 5])
    assert found.ids == ["toy:0", "toy:3", "toy:0"]
    assert [(one["id"], one["by"]) for one in found.replaced] == [("toy:1", "toy:3"), ("toy:5", "toy:0")]
    assert all("not a readable image" in one["why"] for one in found.replaced)
    alone = collate([1])
    assert alone.ids == ["toy:3"], "whatever else is in the batch"
    assert collate([0, 3, 4]).replaced == []


def test_substitutes_come_from_the_same_part_of_the_data(base, make_data):
    data = broken(make_data(6), 3)
    assert collating(base, data, range(4))([3]).ids == ["toy:0"]  # training's last sample, not a held-out one
    assert collating(base, data, range(3, 6))([3]).ids == ["toy:4"]


def test_a_sample_that_is_too_long_for_this_stage_is_replaced_too(base, make_data):
    collate = collating(base, make_data(3, sides=(64,)), max_tokens=200)
    lengths = [collate([k]).tokens for k in range(3)]
    collate = collating(base, collate.samples.sources[0].annotations.parent, max_tokens=max(lengths) - 1)
    longest = lengths.index(max(lengths))
    found = collate([longest])
    assert found.replaced[0]["id"] == f"toy:{longest}" and "more than max_tokens" in found.replaced[0]["why"]


def test_nothing_readable_is_an_error_with_a_remedy(base, make_data):
    with pytest.raises(DataError, match=r"sample toy:1 and the 3 after it cannot be read .*picture folder is still there"):
        collating(base, broken(make_data(4), 0, 1, 2, 3))([1])


def spec(vision="live"):
    return TrainSpec(stage=Sft(steps=3, **FAST), latent_steps=2, images=SMALL, vision=vision, packing="padded")


def test_a_training_goes_on_says_what_it_replaced_and_trains_on_the_substitutes(base, make_data, tmp_path, capfd):
    data = broken(make_data(12), 0, 7)
    run = LocalRun(tmp_path / "out", metrics=tmp_path / "metrics.jsonl")
    found = train(run, spec(), inputs={"init": base, "data": data}, micro_batch=2)
    named = [json.loads(line) for line in (tmp_path / "out" / "replaced.jsonl").read_text().splitlines()]
    assert found["replaced"] == len(named) > 0
    assert {one["id"] for one in named} <= {"toy:0", "toy:7"} and {one["by"] for one in named} <= {"toy:1", "toy:8"}
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["values"]["replaced"] == len(named)
    assert f"{named[0]['by']} instead of {named[0]['id']}: " in capfd.readouterr().out
    again = train(LocalRun(tmp_path / "again"), spec(), inputs={"init": base, "data": data}, micro_batch=4)
    assert again["replaced"] == found["replaced"], "whatever the micro-batch"


def test_cached_features_leave_out_what_cannot_be_read_and_training_replaces_it(base, make_data, tmp_path):
    data = broken(make_data(12), 0, 7)
    facts = cache_features(LocalRun(tmp_path / "features"), checkpoint=base, data=data, images=SMALL)
    assert sorted(facts["absent"]) == ["toy/000_0.png", "toy/007_0.png"] and facts["count"] == 10
    run = LocalRun(tmp_path / "out")
    found = train(run, spec("cached"), inputs={"init": base, "data": data, "features": tmp_path / "features"}, micro_batch=2)
    assert found["replaced"] > 0


def test_too_many_substitutes_end_the_training_with_a_remedy(base, make_data, tmp_path):
    data = broken(make_data(40), *range(0, 30, 2))
    stage = Stage1(steps=12, **FAST)
    with pytest.raises(DataError, match=rf"more than {ALWAYS_ALLOWED} of the 48 that are drawn; .*see whether the picture folder"):
        train(
            LocalRun(tmp_path / "out"), spec().model_copy(update={"stage": stage}), 
            inputs={"init": base, "data": data}, micro_batch=2,
        )  # fmt: skip
    assert allowed(640_000) == 6400
