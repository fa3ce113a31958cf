"""The names that scripts outside this project import."""

from models.backbone import images, pictures
from models.training import images as known


def test_the_known_names_are_the_backbones_functions():
    assert known.open_image is pictures.open_image
    assert all(getattr(known, name) is getattr(images, name) for name in set(known.__all__) - {"open_image"})
