"""Under protocol stock, a base model answers as lmms-eval's own Qwen2.5-VL does: the same texts, question by question."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.spec.files import load_benchmark
from models.config import DecodeSpec, EvaluateSpec, Images
from models.evaluation.mirror import load_task
from models.evaluation.session import Session
from models.evaluation.tasks import TASKS, digest
from models.run import LocalRun
from tests.models.evaluation.conftest import write_checkpoint

GENERATION = {
    "bos_token_id": 256, "pad_token_id": 256, "do_sample": True, "eos_token_id": [258, 256], "repetition_penalty": 1.3,
    "temperature": 1e-6,
}  # fmt: skip
"""As the hub's, with ids of the tests' tokenizer and a penalty that changes many answers."""
OFTEN = [32, 33, 34, 35, 13, 27, 29, 256, 258, 263]
"""Ids that come often: A to D, three signs, both end tokens, and what would be `<|lvr_start|>` if this model knew it."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model without latent tokens, whose answers end, and some of which hold the id that the latent token would get."""
    folder = write_checkpoint(tmp_path_factory.mktemp("base"), seed=3, latent_tokens=False)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    head = weights["lm_head.weight"]
    head[OFTEN] = 3 * torch.randn(len(OFTEN), head.shape[1], generator=generator)
    save_file({name: value.bfloat16() for name, value in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    return folder


@pytest.fixture(scope="module")
def own(base):
    """lmms-eval's model, in float32."""
    from lmms_eval.models import get_model

    sys.modules.setdefault("decord", types.ModuleType("decord"))  # reads videos, of which there are none
    model = get_model("qwen2_5_vl")(pretrained=str(base), device="cpu", device_map="cpu", batch_size=1)
    assert not model.is_simple, "lmms-eval runs its chat model under this name"
    model._model.float()
    model.clean = lambda: None  # lmms-eval drops the model after each task
    return model


@pytest.fixture(scope="module")
def session(base):
    return Session(base, precision="fp32")


def stock(benchmark: str) -> EvaluateSpec:
    stated = load_benchmark(benchmark).value.inference["stock"]
    decode = DecodeSpec(
        repetition_penalty=stated.repetition_penalty, penalise_picked=stated.penalise_picked, ends=stated.ends, max_new_tokens=7
    )
    images = Images(min_pixels=stated.min_pixels, max_pixels=stated.max_pixels)
    return EvaluateSpec(
        benchmark=benchmark, protocol="stock", tasks=digest(benchmark, "stock"), decode=decode, images=images,
        precision="fp32", fetched=stated.fetched,
    )  # fmt: skip


def answers_of(model, session: Session, task: str, mirror: Path) -> dict[int, str]:
    import lmms_eval.evaluator

    found = lmms_eval.evaluator.simple_evaluate(
        model, tasks=[load_task(task, mirror, "qwen2_5_vl")], task_manager=session._manager, bootstrap_iters=0,
        process_docs_parallel=1, cli_args=types.SimpleNamespace(process_with_media=False),
    )  # fmt: skip
    given = {sample["doc_id"]: sample["resps"][0][0] for sample in found["samples"][task]}
    return {doc: getattr(answer, "text", answer) for doc, answer in given.items()}


@pytest.mark.parametrize("benchmark", sorted(TASKS))
def test_the_base_model_answers_every_question_as_lmms_evals_own_model_does(benchmark, session, own, mirrors, tmp_path):
    result = session.evaluate(LocalRun(tmp_path), stock(benchmark), mirror=mirrors[benchmark], batch_size=3)
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert result["ran_as"]["repetition_penalty"] == 1.3 and result["ran_as"]["end_tokens"] == [258]
    assert not any(row["latent_started"] for row in rows), "a base model opens no latent segment"
    for task in TASKS[benchmark]["stock"]:
        theirs = answers_of(own, session, task, mirrors[benchmark].resolve())
        ours = {row["doc_id"]: row for row in rows if row["task"] == task}
        assert ours.keys() == theirs.keys()
        for doc, answer in theirs.items():
            assert spoken(session, ours[doc]["response"]) == answer, f"{task} {doc}"
    assert benchmark != "blink" or len({row["response"] for row in rows}) > 1, "many pictures, more than one answer"


def spoken(session: Session, response: str) -> str:
    """Without special tokens."""
    for token in session.engine.tokenizer.all_special_tokens:
        response = response.replace(token, "")
    return response
