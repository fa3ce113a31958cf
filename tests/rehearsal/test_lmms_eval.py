"""Protocol `stock` is lmms-eval's own Qwen2.5-VL: the same answers to the same questions, from the same base model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.rehearsal.conftest import Desk
from tests.rehearsal.world import base

pytestmark = pytest.mark.rehearsal


@pytest.fixture(scope="module")
def theirs(world: Path, monkeypatch_module: pytest.MonkeyPatch) -> Any:
    """lmms-eval's chat model, as `--model qwen2_5_vl` makes it but for device and precision."""
    monkeypatch_module.setitem(sys.modules, "decord", ModuleType("decord"))  # reads videos only
    from lmms_eval.models.chat.qwen2_5_vl import Qwen2_5_VL

    name = f"models--{base.REPO.replace('/', '--')}"
    snapshot = world / "hf" / "hub" / name / "snapshots" / base.REVISION
    model = Qwen2_5_VL(pretrained=str(snapshot), device="cpu", device_map="cpu", attn_implementation="sdpa")
    model._model.float()  # in bf16 two orders of summation part at near ties, late in long answers
    return model


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def answers(model: Any, task: str, folder: Path) -> dict[tuple[str, int], str]:
    """What lmms-eval's model says to every question of its stock task."""
    import lmms_eval
    from lmms_eval.api.task import ConfigurableMessagesTask
    from lmms_eval.utils import load_yaml_config

    (path,) = (Path(lmms_eval.__path__[0]) / "tasks").glob(f"*/{task}.yaml")
    config = {**load_yaml_config(str(path)), "dataset_path": str(folder)}
    made = ConfigurableMessagesTask(config=config, model_name="qwen2_5_vl")
    made.build_all_requests(rank=0, world_size=1)
    model.task_dict[task] = made.dataset
    said = model.generate_until(made.instances)
    return {(task, request.doc_id): result.text for request, result in zip(made.instances, said, strict=True)}


def test_stock_answers_are_those_of_lmms_evals_own_model(world: Path, theirs: Any, tmp_path: Path):
    desk, table, profile = Desk(world, tmp_path), tmp_path / "base.yaml", tmp_path / "fp32.yaml"
    table.write_text(
        'table: "base"\ntitle: The base model\nrecipe: vreflection\ncolumns: [mmvp, blink]\nrows:\n  - Base: {stages: []}\n'
    )
    profile.write_text(f"extends: {world / 'profile-full.yaml'}\ntitle: base, fp32\nset: {{precision: fp32}}\n")
    desk.render(str(table), "--profile", str(profile), profile=None)
    ours: dict[tuple[str, int], str] = {}
    for out in desk.outputs("evaluate"):
        for line in (out / "samples.jsonl").read_text().splitlines():
            sample = json.loads(line)
            ours[sample["task"], sample["doc_id"]] = sample["response"]
    stock = {"mmvp": "mmvp", **{f"blink_{task}": "blink" for task in ("counting", "jigsaw", "spatial_relation")}}
    for task, folder in stock.items():
        for key, said in answers(theirs, task, world / "benchmarks" / folder).items():
            assert ours[key].replace("<|im_end|>", "").strip() == said.strip(), key
    assert len(set(ours.values())) > 1
