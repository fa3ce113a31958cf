"""lmms-eval finds the model by name."""

import subprocess
import sys


def test_lmms_eval_s_registry_resolves_vreflection_to_the_chat_model():
    from lmms_eval import models

    from models.evaluation.lmms_model import LmmsModel

    resolved = models.MODEL_REGISTRY_V2.resolve("vreflection")
    assert (resolved.model_type, resolved.class_name) == ("chat", "LmmsModel")
    assert models.get_model("vreflection") is LmmsModel
    assert LmmsModel.is_simple is False


def test_the_manifest_module_imports_neither_torch_nor_lmms_eval():
    code = "import sys, models.evaluation.manifest; print([m for m in ('torch', 'lmms_eval') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
