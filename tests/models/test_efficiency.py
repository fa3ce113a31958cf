"""Table 3(e): exact counts at the paper's size, and decodings of exactly the length that is timed."""

import pytest
import torch
from transformers import Qwen2_5_VLConfig

from models import loading
from models.backbone import checkpoint as checkpoints
from models.backbone.tokens import SpecialTokens
from models.config import MeasureSpec
from models.efficiency import FULL_SIZE, account, measure, time_answers
from models.proxy import BASE_DIR as BASE
from models.run import LocalRun

torch.set_num_threads(1)


def test_the_counts_at_7b_are_the_papers_with_no_weights_and_no_flops_beside():
    found = account(Qwen2_5_VLConfig(**FULL_SIZE), latent_steps=8, context=256)
    assert found.heads == 102_832_128 and round(found.heads_bf16_mib, 2) == 196.14
    assert found.language == 7_070_619_136 and found.parameters == 8_292_166_656
    assert f"{found.heads / found.language:.2%}" == "1.45%"
    assert found.step_flops_with_heads == found.step_flops
    text = FULL_SIZE["text_config"]
    embedding = text["vocab_size"] * text["hidden_size"]
    linear = 2 * (found.language - embedding + embedding)  # every weight once, the embedding's place taken by lm_head's
    attention = 4 * 257 * text["hidden_size"] * text["num_hidden_layers"]
    assert found.step_flops == pytest.approx(linear + attention, rel=1e-3)


def test_what_is_timed_is_the_answers_length_with_and_without_the_segment():
    from transformers import AutoTokenizer

    model = loading.load(BASE, heads=(), latent_steps=4, dtype=torch.float32)
    tokens = SpecialTokens.of(AutoTokenizer.from_pretrained(BASE))
    timing = time_answers(model, tokens, MeasureSpec(latent_steps=4, repeats=3, precision="fp32"), 16, 5, "cpu")
    assert [len(x) for x in (timing.prefill, timing.baseline, timing.latent)] == [3, 3, 3]
    assert min(timing.latent) > min(timing.baseline) > min(timing.prefill) > 0


def test_what_is_timed_has_the_attention_that_is_asked_for(monkeypatch, tmp_path):
    asked, load = [], checkpoints.load

    def remembered(*path, **options):
        asked.append(options["attn_implementation"])
        return load(*path, **options)

    monkeypatch.setattr(checkpoints, "load", remembered)
    spec = MeasureSpec(latent_steps=2, answers=(2,), prompts=(8,), context=8, repeats=1, precision="fp32")
    found = measure(LocalRun(tmp_path), spec, checkpoint=BASE, attention="eager")
    assert asked == ["eager"] and found["attention"] == "eager"
