"""What a method computes: the contract between a stage's own forward pass and training, evaluation and diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from PIL import Image
from torch import Tensor

from models.backbone.model import Head
from models.backbone.template import Writer
from models.latent import losses
from models.latent.slots import places
from models.latent.terms import Draws, Terms
from models.methods.stage import StageSpec
from models.schema import Images

if TYPE_CHECKING:
    from models.backbone.model import Backbone
    from models.latent.batch import Batch
    from models.latent.prompt import Prompt
    from models.training.data import Sample
    from models.training.order import Order


class Piece(Protocol):
    """A part of a sample's picture."""

    key: str
    """The same on every machine."""


class Pieces(Protocol):
    """What is cut out of pictures for the frozen tower to encode on its own, one piece for each box."""

    def of(self, sample: Sample) -> Sequence[Piece]:
        """In the order of the sample's boxes."""
        ...

    def processor(self, checkpoint: Path | str, images: Images) -> Any:
        """The checkpoint's image processor for them."""
        ...

    def open(self, piece: Piece, processor: Any) -> Image.Image | None:
        """As RGB; None where a box has no piece, and so no slots."""
        ...

    def cut(self, picture: Image.Image, box: Sequence[float], processor: Any) -> Image.Image | None:
        """What lies under a box of any picture."""
        ...


Encode = Callable[[Pieces], list[list[Tensor]]]
"""Embeddings [n, D] of the piece under each true box of each prompt."""


class Method:
    """One stage with its number of latent steps S. As it stands: no latent slots, no modules, cross-entropy alone."""

    heads: ClassVar[Mapping[str, Head]] = {}
    """Every module that a stage of the method can use, by our name of it."""

    def __init__(self, stage: StageSpec, latent_steps: int) -> None:
        self.stage, self.latent_steps = stage, latent_steps

    def modules(self) -> frozenset[str]:
        """Names of the modules that the stage uses and its checkpoint holds."""
        return frozenset()

    def trainable(self) -> frozenset[str]:
        """Those that train, beside the language model."""
        return self.modules()

    def decoded_with(self) -> frozenset[str]:
        """Those that decoding asks, for `oracle` or for an end vector."""
        return frozenset()

    def end_vector(self, model: Backbone) -> Tensor | None:
        """[D]: what `leave: latent` of decoding compares states with, if the stage learns it."""
        return None

    def check(self) -> None:
        """Raise `Refused` for options that contradict each other whatever the batch."""

    def begin(self, model: Backbone, init: Path, inputs: Mapping[str, Path]) -> None:
        """Take what comes from another checkpoint than `init`. inputs: by the roles of the stage's needs."""

    def indicator(self, order: Order, step: int, micro: int) -> Tensor | None:
        """The stage's own draw for one micro-batch: `Draws.indicator`."""
        return None

    def extra_pixels(self) -> dict[str, Pieces]:
        """By role, what is encoded beside the samples' own pictures."""
        return {}

    def writer(self) -> Writer | None:
        """How answers are written, if not by `template.assistant_text`."""
        return None

    def terms(self, model: Backbone, batch: Batch, features: Tensor, embeds: Tensor, draws: Draws) -> Terms:
        """Every loss but the cross-entropy, with its graph.

        features [T, D] of the batch's pictures, embeds [R, L, D] with them in place. A batch without boxes, or without
        pictures, goes through the same modules as any other, with empty tensors: its terms are 0, with gradients of 0. Ranks
        that share parameters (ZeRO-3) gather them module by module, and one that left a module out would wait for ever.
        """
        return Terms({}, {}, {}, model.run_language(embeds, batch), embeds, {})

    def run(self, model: Backbone, batch: Batch, **draws: Any) -> Terms:
        """`terms` and the cross-entropy. draws: fields of `Draws`."""
        given = Draws(**draws)
        features = model.vision(batch)
        terms = self.terms(model, batch, features, model.embed(batch.input_ids, features), given)
        return with_cross_entropy(model, batch, terms, self.stage.slot_targets, given.num_items)

    def oracle(self, model: Backbone, prompts: Sequence[Prompt], latent_steps: int, encode: Encode | None = None) -> list[Tensor]:
        """[b, at least S, D] of every prompt: what its true boxes put into the slots. Raises ValueError where that cannot be."""
        raise ValueError(f"latents: oracle means nothing after {self.stage.kind}: nothing there looks at a box")

    def probes(self, model: Backbone) -> dict[str, Method]:
        """How the slots are filled when held-out samples are looked at, by name; "" alone is as in training. Two names are
        compared with each other: `teacher_fed`, what the true box gives, and `free_running`, the model's own states."""
        return {"": self}

    def probe_indicator(self, samples: int) -> Tensor | None:
        """`Draws.indicator` of a held-out batch."""
        return None


def with_cross_entropy(
    model: Backbone, batch: Batch, terms: Terms, slot_targets: bool = False, count: float | Tensor | None = None
) -> Terms:
    """The same terms and the mean cross-entropy over `count` supervised tokens, or the batch's own."""
    labels = batch.labels
    if not slot_targets:
        labels = losses.unsupervised(labels, *places(batch)[:2])
    if terms.unsupervised is not None:
        labels = losses.unsupervised(labels, *terms.unsupervised)
    ce, tokens = losses.spoken(model.lm_head, terms.hidden, labels, count)
    terms.losses = {"ce": ce} | terms.losses
    terms.weights["ce"] = 1.0
    sizes = {"boxes": len(batch.boxes), "slots": batch.slots}
    terms.counts |= {"ce_tokens": tokens} | {name: torch.tensor(size, device=ce.device) for name, size in sizes.items()}
    return terms
