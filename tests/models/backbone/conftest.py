from tests.models.training.conftest import base  # noqa: F401  a checkpoint folder
