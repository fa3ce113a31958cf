"""What a method has to bring, and where nobody may know one."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.methods.registry import PACKAGES, STAGES
from models.methods.stage import opens_segments

REPOSITORY = Path(__file__).parents[3]
BLIND = ("harness", "models/training", "models/evaluation", "models/backbone", "models/latent", "models/adopt.py", "models/loading.py")
CLASSES = {stage.__name__ for stage in STAGES.values()}


@pytest.mark.parametrize("folder", BLIND)
def test_no_module_imports_a_method_or_knows_a_stage_by_name(folder):
    found, kinds = [], folder != "models/backbone"  # a token is called lvr too
    place = REPOSITORY / folder
    for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
            own = any(module.startswith(f"models.methods.{package}") for module in modules for package in PACKAGES)
            if own or (isinstance(node, ast.Name) and node.id in CLASSES) or (kinds and isinstance(node, ast.Constant) and node.value in STAGES):
                found.append(f"{file.relative_to(REPOSITORY)}:{node.lineno}")
    assert found == []


ELSEWHERE = {
    "models/backbone/tokens.py": 3,  # a special token is called lvr, after the paper; every method's slots are written with it
    "models/evaluation/releases/__init__.py": 2,  # how its release reads an answer, for numbers compared with the release's
    "models/schema.py": 2,  # docstrings: which options of decoding, open to every method, are its release's
    "models/methods/registry.py": 1,
}
"""File -> lines with the name, beside its own package and models/parity, which compares every method with its authors' tensors."""
MARKERS = re.compile(r"<(\\?\|?)lvr(_start|_end|_latent_end)?\1>|\blvr_(start|end|latent_end)\b|\btokens\.lvr\b")
"""The special tokens and the data's placeholder: every method's latent segments are written with them."""


def test_lvr_stands_in_its_package_and_in_one_line_of_the_registry():
    found = {}
    for folder in ("harness", "models"):
        for file in sorted((REPOSITORY / folder).rglob("*")):
            name = file.relative_to(REPOSITORY).as_posix()
            if file.suffix not in (".py", ".yaml", ".j2", ".css", ".js", ".html") or name.startswith(("models/methods/lvr/", "models/parity/")):
                continue
            lines = MARKERS.sub("", file.read_text(encoding="utf-8")).splitlines()
            if count := sum("lvr" in line.lower() for line in lines):
                found[name] = count
    assert found == ELSEWHERE
    assert '\n    "lvr",\n' in (REPOSITORY / "models" / "methods" / "registry.py").read_text()
    recipes = [path.name for path in (REPOSITORY / "experiments" / "recipes").glob("*.yaml") if re.search(r"^lvr:", path.read_text(), re.MULTILINE)]
    assert recipes == ["lvr.yaml"]


TOY_SPEC = """
from typing import Literal

from models.methods.stage import Slots, StageSpec


class Toy(StageSpec):
    kind: Literal["toy"] = "toy"
    means = ("mean",)
    pull: float = 1.0

    def slots(self, latent_steps):
        return Slots("fixed", latent_steps)


STAGES = (Toy,)
"""
TOY_METHOD = """
from models.latent import losses
from models.latent.slots import places
from models.latent.terms import Terms
from models.methods.base import Method


class Pull(Method):
    def terms(self, model, batch, features, embeds, draws):
        row, column, _ = places(batch)
        hidden = model.run_language(embeds, batch)
        states = hidden[row, column - 1]
        found = {"mean": losses.mean(states.float().square().mean(-1), draws.num_slots)}
        pairs = states.reshape(len(batch.boxes), self.latent_steps, -1)
        return Terms(found, {"mean": self.stage.pull}, {}, hidden, embeds, {"z_t": pairs.detach(), "hidden": pairs})


method = Pull
"""
TOY = """
import sys
from pathlib import Path
package = Path(sys.argv[1])
import models.methods as methods
methods.__path__.append(str(package))
from models.methods import registry
source = Path(registry.__file__).read_text()
line = '    "lvr",\\n'
assert line in source
exec(compile(source.replace(line, line + '    "toy",\\n'), registry.__file__, "exec"), vars(registry))
from harness.spec.recipe import OPTIONS, expand
from models.config import TrainSpec
spec = TrainSpec.model_validate({"stage": {"kind": "toy", "pull": 2}})
assert spec.stage.pull == 2 and expand("pull") == ("toy.pull",) and "toy" in OPTIONS
print(type(spec.stage.method(8)).__name__)
from harness.plan import plan_experiment
folder = Path(sys.argv[1])
plan = plan_experiment(folder / "table.yaml", "smoke", tasks=lambda benchmark, protocol: {benchmark: protocol}, latents=["own"])
(job,) = (job for job in plan.graph if job.kind == "train")
stage = TrainSpec.model_validate(job.payload).stage
print(stage.kind, stage.pull, *sorted({*job.inputs} & {"features", "data", "init"}))
from models.run import LocalRun
from models.training import train
from tests.models.training.conftest import SMALL, write_base, write_data
for name in ("base", "data"):
    (folder / name).mkdir()
base, data = write_base(folder / "base"), write_data(folder / "data", 4)
run = LocalRun(folder / "out", folder / "checkpoints", metrics=folder / "metrics.jsonl")
stage = stage.model_copy(update={"steps": 2, "global_batch": 2, "lr": 1e-3})
train(run, TrainSpec(stage=stage, latent_steps=3, images=SMALL, packing="padded"), inputs={"init": base, "data": data}, micro_batch=2)
from safetensors.torch import load_file
before, after = (load_file(one / "model.safetensors") for one in (base, folder / "out"))
print(sum(not before[name].equal(after[name]) for name in before) > 0)
import json
print(*sorted({"ce", "mean"} & json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["values"].keys()))
"""


def test_a_method_is_its_package_and_one_line_of_the_registry_and_a_recipe(tmp_path):
    """Which is planned, and trains two steps."""
    package = tmp_path / "toy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "spec.py").write_text(TOY_SPEC)
    (package / "method.py").write_text(TOY_METHOD)
    (tmp_path / "recipes").mkdir()
    recipe = "extends: vreflection\ntitle: Toy\ntoy:\n  steps: 2500\n  lr: 1.0e-5\n  pull: 2.0\n"
    (tmp_path / "recipes" / "toy.yaml").write_text(recipe)
    table = "table: toy\ntitle: Toy\nrecipe: toy\ncolumns: [vstar]\nrows:\n  - Toy: {stages: [toy]}\n"
    (tmp_path / "table.yaml").write_text(table)
    done = subprocess.run([sys.executable, "-c", TOY, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if not line.startswith("[")]
    assert said == ["Pull", "toy 2.0 data features init", "True", "ce mean"], done.stdout + done.stderr


def test_every_stage_answers_what_it_is_asked():
    for kind, stage in STAGES.items():
        one = stage()
        assert one.kind == kind and one.needs()[0].role == "features"
        assert opens_segments(one) == (kind not in ("sft", "sft_video")) and json.dumps(dict(one.readings))
