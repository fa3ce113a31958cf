"""VisReflect's own way of asking V*, BLINK, HR-Bench and Video-MME, and of reading what comes back."""

import json
import re

import pytest

from harness.spec.files import EXPERIMENTS, load_benchmark
from models.config import DecodeSpec, EvaluateSpec
from models.evaluation.tasks import digests_of, index
from models.evaluation.tasks.visreflect import blink_prompt, hrbench_prompt, target, vstar_prompt
from models.run import LocalRun
from models.schema import Clips, Images
from tests.models.evaluation.conftest import replace_decoding

BENCHMARKS = {"visreflect_vstar": 1, "visreflect_blink": 14, "visreflect_hrbench4k": 1, "visreflect_hrbench8k": 1}
ASKED = "\nOutput the letter of the correct answer only."


def test_a_question_ends_in_the_releases_instruction_and_no_other():
    old = "\nAnswer with the option's letter from the given choices directly."
    assert vstar_prompt({"text": "What is it?\n(A) red\n(B) blue" + old}) == "What is it?\n(A) red\n(B) blue" + ASKED
    assert blink_prompt({"prompt": "How many?\nSelect one.\n(A) 1\n(B) 2\n"}) == "How many?\nSelect one.\n(A) 1\n(B) 2" + ASKED
    asked = hrbench_prompt({"question": "Where?", "A": "left", "B": "right", "C": None, "D": float("nan")})
    assert asked == "Where?\n(A)left\n(B)right" + ASKED
    assert [target({"label": "B"}), target({"answer": "(C)"}), target({"answer": "a"})] == ["B", "C", "A"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_column_is_made_of_tasks_that_can_be_asked(name):
    benchmark = load_benchmark(name, EXPERIMENTS / "related").value
    tasks = benchmark.tasks["paper"]
    assert len(set(tasks)) == BENCHMARKS[name]
    for task in tasks:
        index.check(task)
        config = index.expanded(index.path_of(task))
        assert (config["task"], config["generation_kwargs"]["max_new_tokens"]) == (task, 32)
        assert index.metrics_named(task) == ["accuracy"]
    subsets = {index.data_set(task)[1] for task in tasks}
    assert len(subsets) == len(tasks)


@pytest.mark.parametrize(
    ("task", "folder"), [("visreflect_vstar", "vstar"), ("visreflect_hrbench4k", "hrbench4k"), ("visreflect_blink_counting", "blink")]
)
def test_answers_are_read_as_the_release_reads_them(task, folder, checkpoint, mirrors, images, tmp_path, monkeypatch):
    from models.evaluation import Session
    from models.latent.decoding import Decoded

    session, prompts = Session(checkpoint, precision="fp32"), []

    def say(asked, spec, tokens, eos):
        ids = session.engine.tokenizer("I think it is B", add_special_tokens=False)["input_ids"]
        prompts.extend(session.engine.tokenizer.decode(one.input_ids) for one in asked)
        return [Decoded([*ids, *eos], False, 0, False) for _ in asked]

    replace_decoding(monkeypatch, say)
    spec = EvaluateSpec(
        benchmark="mine", protocol="paper", tasks=digests_of([task]), decode=DecodeSpec(latent_steps=2), images=images, precision="fp32"
    )
    result = session.evaluate(LocalRun(tmp_path), spec, mirror=mirrors[folder], batch_size=64)
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert prompts and all(ASKED.strip() + "<|im_end|>" in prompt for prompt in prompts)
    assert {row["scores"]["accuracy"] for row in rows} == {0.0}, "it is read as I"
    assert result["aggregates"]["accuracy"] == 0


def test_a_question_about_a_clip_is_asked_with_the_clip_of_its_own_folder(tmp_path):
    from models.evaluation import Session
    from models.proxy import BASE_DIR
    from models.proxy.clip_mirror import write_clip_mirror

    write_clip_mirror(tmp_path / "mirror", n=6, seed=0, split="dev")
    spec = EvaluateSpec(
        benchmark="videomme", protocol="paper", tasks=digests_of(["visreflect_videomme"]),
        decode=DecodeSpec(latent_steps=2, start="forced", end="forced", answer="letter", max_new_tokens=24),
        images=Images(min_pixels=784), clips=Clips(fps=2, min_pixels=784), precision="fp32",
    )  # fmt: skip
    session = Session(BASE_DIR, precision="fp32")
    session.evaluate(LocalRun(tmp_path / "out"), spec, mirror=tmp_path / "mirror", batch_size=4)
    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and {row["groups"]["duration"] for row in rows} <= {"short", "medium", "long"}
    assert len({row["cluster"] for row in rows}) == len({path.name for path in (tmp_path / "mirror" / "data").iterdir()})
    assert all(row["latent_started"] and row["latent_steps"] == 2 for row in rows)
    assert all(re.search("The answer is: [A-D]", row["response"]) for row in rows)
