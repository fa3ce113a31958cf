"""The benchmark at real sizes, run tiny: its code has no GPU to be tried on here."""

from __future__ import annotations

from benchmarks.real_size import main


def test_the_benchmark_at_real_sizes_runs_tiny_and_says_so(capsys):
    assert main(["--tiny", "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert "Run tiny on a CPU: the code runs; none of these numbers says anything about 7B." in said
    lines = [line.split("|")[1].strip() for line in said.splitlines() if line.startswith("| ")]
    assert lines[1:] == [
        ":---", "Make the model on the device", "Stage 1, packed: a micro-batch of 4", "Stage 2, sequential: a micro-batch of 4",
        "Write the checkpoint", "Load it", "Answer 2 questions",
    ]  # fmt: skip
    assert "the next loss is the same" in said and "flash attention: not measured" in said


def test_without_a_gpu_it_does_not_pretend(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([]) == 2
    assert "no GPU is here" in capsys.readouterr().err
