"""What a stage of any method says about itself. Torch-free: plans, recipes and reports ask it, and know no method by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Literal

from models.schema import Frozen, Optimisation

if TYPE_CHECKING:
    from models.methods.base import Method, Pieces


@dataclass(frozen=True)
class Slots:
    """How many latent slots a segment of a training sample has."""

    of: Literal["none", "fixed", "box", "piece", "pieces"]
    """none: the template has no latent segments; fixed: `count` each; box: one for each merged token under the segment's box;
    piece: one for each merged token of the piece that is cut out for it; pieces: of all pieces of its sample, which has one
    segment."""
    count: int = 0


class Cut(Frozen):
    """Pieces of a sample's pictures that the frozen vision tower encodes on their own, and how large it sees them."""

    def pieces(self) -> Pieces:
        """What cuts them out. Imports torch."""
        raise NotImplementedError


@dataclass(frozen=True)
class Features:
    """A need: the vision tower's features of every training picture, or of pieces of them. Computed by a job of their own where
    a profile caches them, else in training."""

    role: str
    cut: Cut | None = None


@dataclass(frozen=True)
class Earlier:
    """A need: the checkpoint of an earlier stage of the row, beside the one that training starts from."""

    role: str
    stage: str
    """Kind of the stage."""
    option: str
    """The stage's option that asks for it."""
    others: tuple[str, ...]
    """Values of the option that name other stages."""
    without: str
    """A value of the option that needs no earlier stage."""


Need = Features | Earlier

PICTURES = Features("features")


@dataclass(frozen=True)
class Unread:
    """An option means nothing because of another one."""

    because: str
    """Name of the other option."""
    remedy: str
    """`{}` stands for the stage's name."""


class StageSpec(Optimisation):
    """One stage of training: its options, and what they ask of the rest of the project.

    The forward pass is `method` in the module beside the stage's own `spec`: method(stage, latent_steps) -> Method.
    """

    kind: str = ""
    means: ClassVar[tuple[str, ...]] = ()
    """Names of the losses and other means that a forward pass gives beside `ce`."""
    counts: ClassVar[tuple[str, ...]] = ()
    """Names of what it counts."""
    readings: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Number in the diagnostics -> (heading, group of headings) in reports."""
    reading_note: ClassVar[str] = ""
    """What a reader has to know of those numbers."""
    clips: ClassVar[bool] = False
    """Whether its samples are clips, not pictures."""
    oracle_words: ClassVar[str] = "by what the true evidence box puts into the slots (oracle)"
    """What `latents: oracle` feeds, in a report's words."""

    def slots(self, latent_steps: int) -> Slots:
        """latent_steps: S of the recipe."""
        raise NotImplementedError

    def needs(self) -> tuple[Need, ...]:
        """Inputs beside the data and the checkpoint that training starts from."""
        return (PICTURES,)

    @property
    def rolls_out(self) -> bool:
        """Whether training fills the slots one after another. Such rows are padded, one sample each: samples packed into one
        row have no common slot columns."""
        return False

    @property
    def slot_targets(self) -> bool:
        """Whether slots are targets of the cross-entropy."""
        return False

    @property
    def marks_end(self) -> bool:
        """Whether the template writes `<|lvr_latent_end|>` behind the slots."""
        return False

    def averaged(self, mean: str) -> Literal["boxes", "slots"]:
        """What one of `means` is a mean over."""
        return "boxes"

    def unread(self, option: str) -> Unread | None:
        """Why the option means nothing here; None if it is read."""
        return None

    def oracle_allowed(self, trained: int, decoded: int) -> bool:
        """Whether the true box gives something to feed; trained, decoded: latent steps of training and of decoding."""
        return False

    def method(self, latent_steps: int) -> Method:
        """What computes the stage. Imports torch."""
        package = type(self).__module__.rpartition(".")[0]
        return import_module(f"{package}.method").method(self, latent_steps)


def opens_segments(stage: StageSpec) -> bool:
    """Whether a model learns to open latent segments in this stage."""
    return stage.slots(1).of != "none"

