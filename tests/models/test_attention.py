"""Maps of a small checkpoint with both heads: on training samples and while it answers."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from models import loading
from models.attention import LARGEST_AREA, attention_maps
from models.backbone import checkpoint as checkpoints
from models.config import Images, MapsSpec, TrainSpec
from models.methods.vreflection.spec import Joint, Stage2
from models.proxy import BASE_DIR
from models.proxy.mirrors import write_mirror
from models.proxy.trainset import write_training_set
from models.run import LocalRun

torch.set_num_threads(1)
SPEC = MapsSpec(samples=2, latent_steps=3, max_new_tokens=12, images=Images(min_pixels=784), precision="fp32")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The proxy's base with fresh heads."""
    import shutil

    folder = tmp_path_factory.mktemp("checkpoint")
    for file in BASE_DIR.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, folder / file.name)
    model = loading.load(BASE_DIR, heads={"bcm", "dac"}, latent_steps=3, dtype=torch.float32)
    spec = TrainSpec(stage=Stage2(), latent_steps=3, packing="padded")
    facts = {"spec": spec.model_dump(mode="json"), "latent_steps": 3, "region": "roi_align", "roi_bins": 8}
    checkpoints.save(model, folder, facts)
    AutoTokenizer.from_pretrained(BASE_DIR).save_pretrained(folder)
    return folder


def looked_at(out, benchmark):
    found = json.loads((out / "maps.json").read_text())
    assert found["benchmark"] == benchmark and len(found["samples"]) == 2
    with np.load(out / "attention.npz") as arrays:
        return found["samples"], dict(arrays)


def test_on_training_samples_the_teacher_stays_in_the_box_and_the_student_sees_the_whole_picture(checkpoint, tmp_path):
    write_training_set(tmp_path / "data", n=24, seed=0)
    attention_maps(LocalRun(tmp_path / "out"), SPEC, checkpoint=checkpoint, source=tmp_path / "data")
    samples, arrays = looked_at(tmp_path / "out", None)
    for number, sample in enumerate(samples):
        assert sample["in_box"].keys() == {"teacher", "student_fed", "student_free"}
        for who in sample["in_box"]:
            values = arrays[f"{number}.{who}"]
            assert values.shape == (3, *sample["grid"]) and np.allclose(values.sum((1, 2)), 1, atol=1e-4)
        # Boxes are exact, so the samples that RoIAlign takes at a box's edge lie half in the tokens beside it.
        assert 0 < sample["in_box"]["student_free"] < 0.8 < sample["in_box"]["teacher"]
        assert (tmp_path / "out" / sample["picture"]).is_file()


def test_while_answering_the_maps_are_of_the_latent_steps_that_happened(checkpoint, tmp_path):
    write_mirror(tmp_path / "mirror", "mmvp", n=24, seed=0, split="test")
    spec = SPEC.model_copy(update={"benchmark": "mmvp"})
    attention_maps(LocalRun(tmp_path / "out"), spec, checkpoint=checkpoint, source=tmp_path / "mirror")
    samples, arrays = looked_at(tmp_path / "out", "mmvp")
    for number, sample in enumerate(samples):
        (box,) = sample["boxes"]
        assert (box[2] - box[0]) * (box[3] - box[1]) <= LARGEST_AREA
        assert ("student" in sample["in_box"]) == (sample["latent_steps"] >= 3)
        assert arrays[f"{number}.teacher"].shape == (3, *sample["grid"])


def test_a_checkpoint_without_heads_has_no_maps(tmp_path):
    with pytest.raises(ValueError, match="neither BCM nor DAC"):
        attention_maps(LocalRun(tmp_path), SPEC, checkpoint=BASE_DIR, source=tmp_path)


def test_maps_are_of_a_model_with_the_attention_that_is_asked_for(checkpoint, monkeypatch, tmp_path):
    asked, load = [], checkpoints.load

    def remembered(*path, **options):
        asked.append(options["attn_implementation"])
        return load(*path, **options)

    monkeypatch.setattr(checkpoints, "load", remembered)
    write_training_set(tmp_path / "data", n=8, seed=0)
    attention_maps(LocalRun(tmp_path / "out"), SPEC, checkpoint=checkpoint, source=tmp_path / "data", attention="eager")
    assert set(asked) == {"eager"}


@pytest.mark.parametrize("granularity", ["microbatch", "sample"])
def test_maps_of_a_stage_that_drew_for_each_sample(granularity, checkpoint, monkeypatch, tmp_path):
    stage = Joint(granularity=granularity)
    facts = checkpoints.facts(checkpoint) | {"spec": TrainSpec(stage=stage, packing="padded").model_dump(mode="json")}
    monkeypatch.setattr(checkpoints, "facts", lambda path: facts)
    write_training_set(tmp_path / "data", n=24, seed=0)
    attention_maps(LocalRun(tmp_path / "out"), SPEC, checkpoint=checkpoint, source=tmp_path / "data")
    assert len(looked_at(tmp_path / "out", None)[0]) == 2
