"""The frozen tower: computed in batches, stored, and read back equal to the live one."""

from __future__ import annotations

import json

import pytest
import torch

from models import loading
from models.backbone.images import encode_images, load_image_processor, open_image, patches_of, tower
from models.config import Images
from models.run import Interrupted, LocalRun
from models.training.data import read_samples
from models.training.features import FeatureStore, cache_features
from tests.models.training.conftest import SMALL


def files_of(samples):
    return {file.key: file for number in range(len(samples)) for file in samples[number].images}.values()


def load(base, dtype=torch.float32):
    return loading.load(base, heads=(), latent_steps=0, dtype=dtype)


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (48, 112)])
@torch.no_grad()
def test_the_batched_tower_gives_what_transformers_gives(base, size):
    model = load(base)
    h, w = size[0] // 8, size[1] // 8
    grid = torch.tensor([[1, h, w]] * 3)
    patches = torch.randn(3 * h * w, 3 * 2 * 8 * 8)
    live = model.model.visual(patches, grid).pooler_output
    torch.testing.assert_close(tower(model.model.visual, patches, grid), live, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_images_of_mixed_sizes_come_back_in_order(base):
    model = load(base)
    grids = torch.tensor([[1, 8, 8], [1, 4, 6], [1, 8, 8], [1, 6, 4]])
    patches = [torch.randn(int(g.prod()), 3 * 2 * 8 * 8) for g in grids]
    found = encode_images(model, patches, grids, max_patches=64)
    for own, grid, tokens in zip(patches, grids, found, strict=True):
        torch.testing.assert_close(tokens, model.model.visual(own, grid[None]).pooler_output, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_cached_features_equal_the_live_tower(base, make_data, tmp_path, dtype):
    checkpoint = base
    if dtype == "bfloat16":
        checkpoint = tmp_path / "base"
        load(base, torch.bfloat16).save_pretrained(checkpoint)
        load_image_processor(base, SMALL).save_pretrained(checkpoint)
    data = make_data(6, several=True)
    facts = cache_features(LocalRun(tmp_path / "features"), checkpoint=checkpoint, data=data, images=SMALL)
    assert facts["dtype"] == dtype and facts["count"] == 9
    store, samples = FeatureStore(tmp_path / "features"), read_samples(data)
    store.check(SMALL)
    model, processor = load(checkpoint, getattr(torch, dtype)), load_image_processor(checkpoint, SMALL)
    for file in files_of(samples):
        (patches,), grid = patches_of(processor, [open_image(file.path)])
        live = model.model.visual(patches, grid).pooler_output
        held = store[file.key]
        assert held.dtype == live.dtype == getattr(torch, dtype)
        assert store.grid(file.key) == (int(grid[0, 1]) // 2, int(grid[0, 2]) // 2)
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 0.05, "atol": 0.02}
        torch.testing.assert_close(held, live, **tolerance)


def test_shards_are_split_and_found(base, make_data, tmp_path, monkeypatch):
    monkeypatch.setattr("models.training.features.SHARD_BYTES", 20_000)
    data = make_data(5)
    facts = cache_features(LocalRun(tmp_path / "f"), checkpoint=base, data=data, images=SMALL)
    assert facts["shards"] > 1
    monkeypatch.undo()
    cache_features(LocalRun(tmp_path / "g"), checkpoint=base, data=data, images=SMALL)
    split, whole = FeatureStore(tmp_path / "f"), FeatureStore(tmp_path / "g")
    for file in files_of(read_samples(data)):
        assert torch.equal(split[file.key], whole[file.key])


def test_wrong_features_are_refused_by_name(base, make_data, tmp_path):
    cache_features(LocalRun(tmp_path / "f"), checkpoint=base, data=make_data(2), images=SMALL)
    store = FeatureStore(tmp_path / "f")
    with pytest.raises(KeyError, match="no features of image 'toy/other.png'"):
        store["toy/other.png"]
    with pytest.raises(ValueError, match="compute them anew"):
        store.check(Images())
    with pytest.raises(FileNotFoundError, match="features.json"):
        FeatureStore(tmp_path)


def test_a_stop_request_ends_the_pass(base, make_data, tmp_path):
    run = LocalRun(tmp_path / "f", stop=True)
    with pytest.raises(Interrupted):
        cache_features(run, checkpoint=base, data=make_data(2), images=SMALL)


def test_progress_and_rejections_are_written(base, make_data, tmp_path):
    data = make_data(3)
    (data / "images" / "001_0.png").unlink()
    run = LocalRun(tmp_path / "f", metrics=tmp_path / "metrics.jsonl")
    facts = cache_features(run, checkpoint=base, data=data, images=SMALL)
    assert facts["rejected"] == {"missing image": 1} and facts["count"] == 2
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (line["step"], line["total"]) == (2, 2) and line["values"]["images_per_second"] > 0


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match="a.png: not a readable image"):
        open_image(tmp_path / "a.png")
