"""The benchmark for one GPU, run tiny: its code has no GPU to be tried on here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu


def test_the_benchmark_runs_tiny_from_end_to_end_and_says_that_it_is(capsys, tmp_path):
    assert gpu.main(["--tiny", "--steps", "1", "--out", str(tmp_path / "gpu.md")]) == 0
    said = (tmp_path / "gpu.md").read_text()
    assert capsys.readouterr().out.endswith(said)  # DeepSpeed may have said that it found no GPU
    assert "Run tiny on a CPU: the code runs; none of these numbers says anything about 7B." in said
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == [
        "Make the model on the device", "Stage 1, packed: a micro-batch of 4", "Stage 2, sequential: a micro-batch of 4",
        "Write the checkpoint", "Load it", "Answer 16 questions on ordinary pictures", "Answer 2 questions on 4K pictures",
        *(f"One answer with {steps} latent steps" for steps in (0, 1, 2, 4, 8, 16)),
    ]  # fmt: skip
    assert all(float(row[2]) > 0 and float(row[4]) > 0 for row in rows[2:])
    assert not any(row[3] for row in rows[2:]), "a CPU has no MFU"
    assert "questions/s" in said and "the next loss is the same" in said and "flash attention: not measured" in said


def test_without_a_gpu_it_does_not_pretend(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "no GPU is here" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA A800-SXM4-80GB", 312e12), ("NVIDIA H200", 989e12), ("Tesla T4", None)])
def test_the_peak_is_that_of_the_device_or_unknown(monkeypatch, name, peak):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: name)
    assert gpu.peak_flops("cuda") == peak and gpu.peak_flops("cpu") is None


def test_mfu_counts_six_flop_a_trained_parameter_and_token_and_two_a_frozen_one_of_the_tower():
    layers, head, tower = torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 5, bias=False), torch.nn.Linear(4, 4, bias=False)
    tower.requires_grad_(False)
    language = SimpleNamespace(layers=layers)
    model = SimpleNamespace(
        config=SimpleNamespace(text_config=SimpleNamespace(num_hidden_layers=2, hidden_size=10)),
        model=SimpleNamespace(visual=tower, language_model=language), lm_head=head,
        parameters=lambda: [*layers.parameters(), *head.parameters(), *tower.parameters()],
    )  # fmt: skip
    batch = SimpleNamespace(flat=SimpleNamespace(ends=torch.tensor([3, 7])), image_grid_thw=torch.tensor([[1, 2, 4]]))
    assert gpu.model_flops(model, batch) == 6 * 150 * 7 + 3 * 2 * 2 * 10 * (9 + 16) + 2 * 16 * 8
    layers.requires_grad_(False)
    assert gpu.model_flops(model, batch) == (4 * 100 + 6 * 50) * 7 + 3 * 2 * 2 * 10 * (9 + 16) + 2 * 16 * 8
