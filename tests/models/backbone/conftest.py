import json

import pytest

from models.backbone.images import load_image_processor
from models.schema import Images
from tests.models.training.conftest import base  # noqa: F401  a checkpoint folder


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    facts = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return load_image_processor(folder, Images())
