import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from models import loading
from models.backbone import checkpoint
from models.methods.sft.spec import Sft
from models.methods.vreflection.modules import HEADS
from models.methods.vreflection.spec import Joint, Stage1, Stage2
from models.parity.reference import TINY

FP32 = {"latent_steps": 8, "dtype": torch.float32}


@pytest.fixture
def folder(model, tmp_path):
    """A stage-2 checkpoint: both heads."""
    checkpoint.save(model, tmp_path / "saved", {"latent_steps": 8, "region": "tokens", "roi_bins": 4})
    return tmp_path / "saved"


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights) or weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_what_is_saved_is_loaded(model, folder):
    again = loading.load(folder, heads={"bcm", "dac"}, **FP32)
    theirs = again.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())
    assert again.fresh_heads == frozenset() and not again.training
    assert json.loads((folder / "vreflection.json").read_text())["latent_steps"] == 8


def test_keys_are_the_authors_and_plain_transformers_opens_the_language_model(model, folder, padded):
    keys = set(load_file(folder / "model.safetensors"))
    assert "box_feature_resampler.queries" in keys and "student_resampler.cross_attn.in_proj_weight" in keys
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    plain, found = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"] and all("resampler" in key for key in found["unexpected_keys"])
    assert torch.equal(plain.lm_head.weight, model.lm_head.weight)


def test_heads_that_are_not_asked_for_stay_out(folder):
    model = loading.load(folder, heads=set(), **FP32)
    assert not any(hasattr(model, head.prefix) for head in HEADS.values())


def test_fresh_heads_are_initialised_as_published_and_follow_the_seed(folder):
    def drop(weights):
        return {k: v for k, v in weights.items() if "resampler" not in k}

    rewrite(folder, drop)
    state = torch.random.get_rng_state()
    one, two, other = (loading.load(folder, heads={"bcm", "dac", "static"}, seed=seed, **FP32) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.fresh_heads == {"bcm", "dac", "static"}
    assert 0.018 < one.box_feature_resampler.queries.std() < 0.022
    assert 0.018 < one.vreflection.static_queries.std() < 0.022
    for head in (one.box_feature_resampler, one.student_resampler):
        bound = (6 / (4 * 128)) ** 0.5
        assert 0.9 * bound < head.cross_attn.in_proj_weight.abs().max() <= bound
        assert not head.cross_attn.in_proj_bias.any() and not head.cross_attn.out_proj.bias.any()
        assert head.output_norm.weight.eq(1).all() and not head.output_norm.bias.any()
    pairs = [(dict(one.named_parameters())[n], p) for n, p in two.named_parameters()]
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.box_feature_resampler.queries, other.box_feature_resampler.queries)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.language_model.norm.weight") is None, "model.language_model.norm.weight is missing"),
        (
            lambda w: w.pop("student_resampler.output_norm.bias") is None,
            "student_resampler.output_norm.bias is missing",
        ),
        (lambda w: w.update({"model.extra": torch.zeros(2)}), "extra is unexpected"),
        (lambda w: w.update({"student_resampler.extra": torch.zeros(2)}), "student_resampler.extra is unexpected"),
        (lambda w: w.update({"lm_head.weight": torch.zeros(7, 128)}), r"lm_head.weight has shape \(7, 128\), expected"),
    ],
)
def test_keys_that_do_not_fit_are_refused_by_name(change, message, folder):
    rewrite(folder, lambda weights: change(weights) and None)
    with pytest.raises(ValueError, match=message):
        loading.load(folder, heads={"bcm", "dac"}, **FP32)


def test_another_number_of_latent_steps_is_refused(folder):
    with pytest.raises(ValueError, match=r"queries has shape \(1, 8, 128\), expected \(1, 4, 128\)"):
        loading.load(folder, heads={"bcm"}, latent_steps=4, dtype=torch.float32)
    with pytest.raises(ValueError, match="unknown heads teacher; there are bcm, dac, static"):
        loading.load(folder, heads={"teacher"}, **FP32)


def test_key_names_of_older_checkpoints_and_shards_are_read(model, tmp_path):
    old = {
        name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): value.clone()
        for name, value in model.state_dict().items()
    }
    TINY.save_pretrained(tmp_path)
    names = sorted(old)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: old[name] for name in held}, tmp_path / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    again = loading.load(tmp_path, heads={"bcm", "dac"}, **FP32).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_a_stage_names_the_heads_it_uses():
    assert Sft().method(8).modules() == set()
    assert Stage1().method(8).modules() == {"bcm"}
    assert Stage2().method(8).modules() == Joint().method(8).modules() == {"bcm", "dac"}
    assert Stage2(teacher="none").method(8).modules() == {"dac"}
    assert Stage2(teacher="none", slot_fill="hidden").method(8).modules() == set()
    assert Stage2(query_source="static").method(8).modules() == {"bcm", "dac", "static"}


GENERATION = """{
  "bos_token_id": 1,
  "pad_token_id": 1,
  "do_sample": true,
  "eos_token_id": [
    2,
    1
  ],
  "repetition_penalty": 1.05,
  "temperature": 0.000001,
  "transformers_version": "4.49.0"
}
"""


def as_on_the_hub(model, folder):
    """The checkpoint as the hub has Qwen2.5-VL-7B-Instruct: one flat config, rope_scaling, bf16 shards with key names of old."""
    text, vision = model.config.text_config, model.config.vision_config
    flat = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "torch_dtype": "bfloat16",
        "hidden_act": "silu", "use_cache": True, "use_sliding_window": False, "sliding_window": 32768, "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": text.rope_parameters["mrope_section"]},
        "transformers_version": "4.41.2", "tie_word_embeddings": False, "max_window_layers": text.num_hidden_layers,
        **{name: getattr(text, name) for name in (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "rms_norm_eps", "max_position_embeddings")},
        **{name: getattr(model.config, name) for name in (
            "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")},
        "vision_config": {"in_chans": 3, "spatial_patch_size": 14, **{name: getattr(vision, name) for name in (
            "depth", "hidden_size", "intermediate_size", "num_heads", "out_hidden_size", "patch_size", "window_size",
            "spatial_merge_size", "fullatt_block_indexes", "temporal_patch_size")}},
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(flat))
    (folder / "generation_config.json").write_text(GENERATION)
    weights = {
        name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): value.bfloat16().clone()
        for name, value in model.state_dict().items()
        if "resampler" not in name
    }
    placed = {name: f"model-{at % 5 + 1:05d}-of-00005.safetensors" for at, name in enumerate(weights)}
    for shard in sorted(set(placed.values())):
        held = {name: value for name, value in weights.items() if placed[name] == shard}
        save_file(held, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return weights


def test_a_base_in_the_hubs_form_loads_with_our_heads_and_keeps_its_generation_config(model, tmp_path):
    weights = as_on_the_hub(model, tmp_path / "hub")
    loaded = loading.load(tmp_path / "hub", heads={"bcm", "dac"}, **FP32)
    assert loaded.fresh_heads == {"bcm", "dac"}
    assert torch.equal(loaded.lm_head.weight, weights["lm_head.weight"].float())
    assert torch.equal(loaded.model.language_model.norm.weight, weights["model.norm.weight"].float())
    assert loaded.config.text_config.rope_parameters["mrope_section"] == [4, 6, 6]
    assert loaded.generation_config.repetition_penalty == 1.05 and loaded.generation_config.eos_token_id == [2, 1]
    loaded.bfloat16()
    checkpoint.save(loaded, tmp_path / "saved", {})
    written = (tmp_path / "saved" / "config.json").read_text() + (tmp_path / "saved" / "generation_config.json").read_text()
    assert "heads" not in written.replace("num_heads", "").replace("attention_heads", "").replace("value_heads", "")
    assert "latent_steps" not in written
    assert (tmp_path / "saved" / "generation_config.json").read_text() == GENERATION


def test_the_parts_of_a_saved_configuration_say_the_dtype_of_the_weights(model, tmp_path):
    as_on_the_hub(model, tmp_path / "hub")
    loaded = loading.load(tmp_path / "hub", heads={"bcm"}, **FP32)
    gathered = {name: value.bfloat16() for name, value in loaded.state_dict().items()}
    checkpoint.save(loaded, tmp_path / "gathered", {}, gathered)
    for parameter in loaded.parameters():
        parameter.data = parameter.data.bfloat16()
    checkpoint.save(loaded, tmp_path / "own", {})
    for folder in ("gathered", "own"):
        written = json.loads((tmp_path / folder / "config.json").read_text())
        assert {part["dtype"] for part in (written, written["text_config"], written["vision_config"])} == {"bfloat16"}
        plain, found = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert {parameter.dtype for parameter in plain.parameters()} == {torch.bfloat16}
        assert not found["missing_keys"] and all("box_feature" in key for key in found["unexpected_keys"])
