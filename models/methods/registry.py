"""The methods that there are, and the stages that they bring. Torch-free.

A method is a package here: `spec` holds its stages (`STAGES`), and what its samples' pictures are cut into (`CUTS`), if
anything; `method` computes them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from models.methods.stage import Cut, StageSpec

PACKAGES = (
    "sft",
    "vreflection",
    "visreflect",
    "lvr",
)

_SPECS = [import_module(f"models.methods.{package}.spec") for package in PACKAGES]

STAGES: dict[str, type[StageSpec]] = {
    stage.model_fields["kind"].default: stage for spec in _SPECS for stage in spec.STAGES
}
"""By kind."""

CUTS: dict[str, type[Cut]] = {role: cut for spec in _SPECS for role, cut in getattr(spec, "CUTS", {}).items()}
"""By the role of the features in a training's inputs."""

if TYPE_CHECKING:
    Stage = StageSpec
else:
    Stage = Annotated[Union[tuple(STAGES.values())], Field(discriminator="kind")]
