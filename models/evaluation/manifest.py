"""Makes `--model vreflection` known to lmms-eval (entry point group `lmms_eval.models`). Torch-free by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The registration lmms-eval asks for; it imports the class only when the model is used."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="vreflection", chat_class_path="models.evaluation.lmms_model.LmmsModel")
