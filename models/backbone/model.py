"""Qwen2.5-VL with whatever modules a method adds to it. Knows no method, and nothing of latent slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils.generic import is_flash_attention_requested

from models.backbone import samples
from models.backbone.products import widen_products
from models.backbone.rows import Rows, laid_out

widen_products()


class Head(NamedTuple):
    """A module that a method adds to the model."""

    prefix: str
    """Of its keys in a checkpoint, and its attribute on the model."""
    build: Callable[[Any, int], nn.Module]
    """(text_config, latent steps) -> module. A part of it that has bare parameters has `initialise()` too: transformers knows
    nothing of them, and without it they are uninitialised memory after from_pretrained."""


class Backbone(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with the modules of `heads`, by our name of each."""

    def __init__(self, config: Qwen2_5_VLConfig, heads: Mapping[str, Head] | None = None, latent_steps: int = 8) -> None:
        super().__init__(config)
        self.heads = dict(heads or {})
        for head in self.heads.values():
            setattr(self, head.prefix, head.build(config.text_config, latent_steps))
        self.fresh_heads: frozenset[str] = frozenset()
        """Heads that `checkpoint.load` did not find in the files."""
        self.end_vector: Tensor | None = None
        """[D]: what `leave: latent` of decoding compares states with, of a checkpoint that has learned it."""
        self.generation_text: str | None = None
        """generation_config.json of the checkpoint that `checkpoint.load` read; `checkpoint.save` writes it again."""
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if hasattr(module, "initialise"):
            module.initialise()
        else:
            super()._init_weights(module)

    def forward(self, *args, batch: Any = None, stage: Any = None, latent_steps: int = 0, **draws):
        """Qwen2.5-VL's own, or with `batch` a stage's (`stage_forward`): wrappers like DDP and DeepSpeed hook `forward`."""
        if batch is not None:
            return self.stage_forward(batch, stage, latent_steps, **draws)
        return super().forward(*args, **draws)

    def stage_forward(self, batch: Any, stage: Any, latent_steps: int, **draws: Any) -> Any:
        """The stage's losses on one micro-batch, detached but for their sum: a `models.latent.terms.StageOutput`. Arguments as
        of `stage_terms`."""
        return self.stage_terms(batch, stage, latent_steps, **draws).output()

    def stage_terms(self, batch: Any, stage: Any, latent_steps: int, **draws: Any) -> Any:
        """The same with every term's graph: a `models.latent.terms.Terms`. batch: a `models.latent.batch.Batch`; stage: a
        `models.methods.stage.StageSpec`; draws: fields of `models.latent.terms.Draws`."""
        return stage.method(latent_steps).run(self, batch, **draws)

    def head(self, prefix: str) -> nn.Module | None:
        """The module under this name, if the model has it."""
        return getattr(self, prefix, None)

    def vision(self, batch: Any) -> Tensor:
        """Merged vision features [T, D], detached, in the language model's dtype (the frozen tower keeps the dtype it was
        stored in, the trained parts may be float32): cached ones, or the tower's. T is 0 without images."""
        return self.encode(batch.pixel_values, batch.image_grid_thw, batch.image_embeds)

    def encode(self, pixels: Tensor | None, grid_thw: Tensor | None, embeds: Tensor | None) -> Tensor:
        """Of patches, the frozen tower's features after the merger; of features, themselves: [T, D]."""
        visual, like = self.model.visual, self.get_input_embeddings().weight
        if pixels is not None:
            none = len(pixels) == 0
            if none:  # one blank token, for the sake of other ranks (a method's `terms`)
                side, patch = visual.spatial_merge_size, visual.patch_embed
                width = patch.in_channels * patch.temporal_patch_size * patch.patch_size**2
                pixels, grid_thw = pixels.new_zeros(side**2, width), grid_thw.new_tensor([[1, side, side]])
            with torch.no_grad():
                found = visual(pixels.to(visual.dtype), grid_thw).pooler_output.to(like.dtype)
            return found[:0] if none else found
        if embeds is None or not len(embeds):
            return torch.zeros(0, self.config.text_config.hidden_size, dtype=like.dtype, device=like.device)
        return embeds.detach().to(like.dtype)

    def embed(self, input_ids: Tensor, features: Tensor | None) -> Tensor:
        """Input embeddings [R, L, D] with the features [T, D] in the places of image and video tokens."""
        embeds = self.get_input_embeddings()(input_ids)
        places = (input_ids == self.config.image_token_id) | (input_ids == self.config.video_token_id)
        count = int(places.sum())
        if count != (0 if features is None else len(features)):
            raise ValueError(f"{count} image tokens, but {0 if features is None else len(features)} image features")
        if count:
            embeds = embeds.masked_scatter(places[..., None], features.to(embeds.dtype))
        return embeds

    def run_language(self, embeds: Tensor, batch: Rows) -> Tensor:
        """Last hidden states [R, L, D] in one pass, of packed rows too: each sample sees itself alone.

        Flash attention gets all real tokens as one row and is told where each sample begins: from positions alone it would
        find that out in one row only, and let samples of several rows see each other. Padding is not computed there (0 in
        the result). So does other attention that can be told samples apart, with packed rows. Elsewhere transformers derives
        the block-diagonal mask from the text positions, given use_cache=False.
        """
        config, flat = self.model.language_model.config, batch.flat
        flash = is_flash_attention_requested(config)
        if flash or (batch.attention_mask is None and samples.apart(config)):
            hidden = self.model.language_model(
                inputs_embeds=embeds.flatten(0, 1)[flat.places][None],
                position_ids=batch.position_ids[1:].flatten(1)[:, None, flat.places],
                attention_mask=None if flash else samples.NO_MASK,
                use_cache=False,
                **samples.ends_for(config, flat.ends, longest=flat.longest),
            ).last_hidden_state
            return laid_out(hidden[0], flat.places, embeds.shape[:2])
        return self.model.language_model(
            inputs_embeds=embeds,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
