"""What a method has to bring, and where nobody may know one."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.methods.registry import PACKAGES, STAGES
from models.methods.stage import opens_segments

REPOSITORY = Path(__file__).parents[3]
BLIND = ("harness", "models/training", "models/evaluation", "models/backbone", "models/latent")
CLASSES = {stage.__name__ for stage in STAGES.values()}


@pytest.mark.parametrize("folder", BLIND)
def test_no_module_imports_a_method_or_knows_a_stage_by_name(folder):
    found, kinds = [], folder != "models/backbone"  # a token is called lvr too
    for file in sorted((REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
            own = any(module.startswith(f"models.methods.{package}") for module in modules for package in PACKAGES)
            if own or (isinstance(node, ast.Name) and node.id in CLASSES) or (kinds and isinstance(node, ast.Constant) and node.value in STAGES):
                found.append(f"{file.relative_to(REPOSITORY)}:{node.lineno}")
    assert found == []


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
"""


def test_a_method_is_its_package_and_one_line_of_the_registry(tmp_path):
    package = tmp_path / "toy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "spec.py").write_text(
        "from typing import Literal\n\nfrom models.methods.stage import Slots, StageSpec\n\n\n"
        "class Toy(StageSpec):\n    kind: Literal['toy'] = 'toy'\n    pull: float = 1.0\n\n"
        "    def slots(self, latent_steps):\n        return Slots('fixed', latent_steps)\n\n\nSTAGES = (Toy,)\n"
    )
    (package / "method.py").write_text("from models.methods.base import Method\n\n\nclass Pull(Method):\n    pass\n\n\nmethod = Pull\n")
    done = subprocess.run([sys.executable, "-c", TOY, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Pull", done.stderr


def test_every_stage_answers_what_it_is_asked():
    for kind, stage in STAGES.items():
        one = stage()
        assert one.kind == kind and one.needs()[0].role == "features"
        assert opens_segments(one) == (kind != "sft") and json.dumps(dict(one.readings))
