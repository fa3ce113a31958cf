"""Training and evaluation see the same picture, under either rule."""

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as Feature
from PIL import Image

from models.backbone.pictures import open_image
from models.evaluation.orientation import oriented


@pytest.mark.parametrize("orientation", ["upright", "stored"])
@pytest.mark.parametrize("tag", [1, 3, 6, 8])
def test_a_benchmarks_picture_is_the_picture_that_training_would_see(tmp_path, orientation, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.linear_gradient("L").convert("RGB").resize((64, 32)).save(tmp_path / "a.jpg", exif=exif)
    docs = Dataset.from_dict({"image": [str(tmp_path / "a.jpg")]}, features=Features({"image": Feature()}))
    with oriented(orientation):
        seen = docs[0]["image"].convert("RGB")
    assert np.array_equal(np.asarray(seen), np.asarray(open_image(tmp_path / "a.jpg", orientation)))
    with pytest.raises(ZeroDivisionError), oriented(orientation):
        raise ZeroDivisionError
    assert docs[0]["image"].size == open_image(tmp_path / "a.jpg").size, "and afterwards as before"
