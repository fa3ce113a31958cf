"""Every stage that there is. Torch-free."""

from __future__ import annotations

from typing import Annotated, Union

from pydantic import Field

from models.methods.sft.spec import Sft
from models.methods.visreflect.spec import Reflect
from models.methods.vreflection.spec import Joint, Stage1, Stage2

AnyStage = Union[Sft, Stage1, Stage2, Joint, Reflect]
Stage = Annotated[AnyStage, Field(discriminator="kind")]
