"""Tokens a second of stage 1 of this project against the release's way of training. `benchmarks.ratios` prints it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoTokenizer

from benchmarks import gpu, real_scale
from models.backbone.model import Backbone
from models.backbone.tokens import IGNORED, add_tokens
from models.latent import losses
from models.latent.batch import Batch
from models.latent.boxes import Cells, box_cells
from models.latent.slots import places
from models.latent.terms import Draws
from models.loading import load
from models.methods.stage import Slots
from models.methods.vreflection.method import region_of
from models.methods.vreflection.modules import BCM
from models.methods.vreflection.spec import Stage1
from models.proxy import BASE_DIR
from models.training.collate import Collator
from models.training.packing import release_groups, shares
from models.training.parse import ImageFile, Sample
from models.training.pixels import Live
from models.training.stage import only_train

SHORTER, ROWS = 8, 4
SIZES = gpu.TINY | {
    "text_config": gpu.TINY["text_config"]
    | {
        "hidden_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 1, "intermediate_size": 2688,
        "vocab_size": 2048,
    },
    "vision_config": gpu.TINY["vision_config"] | {"out_hidden_size": 512},
}  # fmt: skip
"""Against the multiplications of the layers' weights, those of the output layer are 7 % (at 7B: 8 %), and those of attention over a
whole row of 650 tokens 7 % (at 7B, over one of 5,200: 7 %); attended sample by sample, both are less."""


@dataclass(frozen=True)
class Compared:
    """ratios: of each round. tokens: of a sample, on average. padding: of the release's way, as a multiple of the samples' own tokens.
    rate: tokens a second of this project in the last round."""

    ratios: list[float]
    tokens: float
    padding: float
    rate: float
    counted: float | None = None
    """The ratio that `real_scale` counts for the same micro-batches, logits included, without the BCM."""


class Both:
    """A model that is trained in both ways, one after the other.

    checkpoint: loaded in fp32; None: random weights of `SIZES`. folder: for pictures.
    """

    def __init__(self, folder: Path, checkpoint: Path | None = None) -> None:
        torch.manual_seed(0)
        self.folder, self.stage = folder, Stage1()
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint or BASE_DIR)
        add_tokens(self.tokenizer)
        if checkpoint is None:
            model = gpu.build(self.tokenizer, SIZES, "cpu").float()
        else:
            model = load(checkpoint, heads=gpu.HEADS, latent_steps=gpu.LATENT_STEPS, dtype=torch.float32, attn_implementation="sdpa")
        self.model: Backbone = model.train()
        self.model.gradient_checkpointing_disable()
        self.method = self.stage.method(gpu.LATENT_STEPS)
        only_train(self.model, self.method)
        self.optimiser = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-5)
        self._made: dict[int, Sample] = {}

    def compared(self, samples: int, rounds: int) -> Compared:
        """One process: the same samples in both ways, one accumulated step each."""
        lengths = real_scale.lengths_of(samples, seed=1)
        release = [lengths[group].tolist() for group in release_groups(lengths.tolist())]
        packs = [lengths[group].tolist() for group in shares(lengths.tolist(), -(-samples // ROWS))]
        (padded, tokens), (packed, same) = self.batches(release, "padded"), self.batches(packs, "packed")
        if tokens != same:
            raise AssertionError(f"both ways must train the same samples, but one has {tokens} tokens and the other {same}")
        ratios = []
        for _ in range(rounds):
            theirs = sum(self.seconds(padded, self.release_loss)) + self.optimiser_seconds()
            ours = sum(self.seconds(packed, self.own_loss)) + self.optimiser_seconds()
            ratios.append(theirs / ours)
        padding = with_padding(padded) / tokens
        return Compared(ratios, tokens / samples, padding, tokens / ours)

    def in_lockstep(self, rounds: int) -> Compared:
        """As many ranks as `real_scale` has, each round another step: micro-batches timed one after another, and a step takes as long as
        the slowest rank at each of them, and an eighth of AdamW's step, which ranks share out."""
        lengths = real_scale.lengths_of(8000, seed=1)
        steps = zip(real_scale.release(lengths), real_scale.ours(lengths, "tokens"))
        ratios, seen, padded, costs = [], [0, 0], [0, 0], [0.0, 0.0]
        packed = real_scale.few_logits(self.supervised())
        for release, packs in islice(steps, rounds):
            theirs, tokens, sizes = self.step(release, "padded", self.release_loss)
            ours, own, _ = self.step(packs, "packed", self.own_loss)
            ratios.append((own / ours) / (tokens / theirs))
            seen = [seen[0] + own, seen[1] + sum(len(micro) for rank in packs for micro in rank)]
            padded = [padded[0] + sizes, padded[1] + tokens]
            ways = (real_scale.Way("", [release], real_scale.padded), real_scale.Way("", [packs], packed))
            costs = [cost + real_scale.waste(way)[0] for cost, way in zip(costs, ways)]
        return Compared(ratios, seen[0] / seen[1], padded[0] / padded[1], own / ours, costs[0] / costs[1])

    def step(
        self, ranks: Sequence[Sequence[Sequence[int]]], packing: str, loss: Callable[[Batch], torch.Tensor]
    ) -> tuple[float, int, int]:
        """(seconds in lockstep, the samples' own tokens, the same with padding)."""
        taken, tokens, padded = [], 0, 0
        for rank in ranks:
            made, own = self.batches(rank, packing)
            taken.append(self.seconds(made, loss))
            tokens, padded = tokens + own, padded + with_padding(made)
        seconds = np.array(taken).max(0).sum() + self.optimiser_seconds() / len(ranks)
        return seconds, tokens, padded

    def batches(self, groups: Iterable[Sequence[int]], packing: str) -> tuple[list[Batch], int]:
        """Samples of these lengths, an eighth as long, with features of their pictures; and their tokens. packing: of `Collator`."""
        collate = Collator(self.tokenizer, Live(gpu.image_processor()), slots=Slots("fixed", gpu.LATENT_STEPS), packing=packing)
        made, tokens = [], 0
        for group in groups:
            collated = collate([self.sample(length // SHORTER) for length in group])
            batch, tokens = collated.batch, tokens + collated.tokens
            made.append(replace(batch, image_embeds=self.model.vision(batch), pixel_values=None, image_grid_thw=None))
        return made, tokens

    def sample(self, tokens: int) -> Sample:
        """A picture of noise of about so many tokens, a question and a box."""
        if tokens not in self._made:
            side = max(2, round(max(1, tokens - 40) ** 0.5))
            path = self.folder / f"{tokens}.png"
            Image.fromarray(np.random.default_rng(tokens).integers(0, 255, (28 * side, 28 * side, 3), dtype=np.uint8)).save(path)
            turns = ({"from": "human", "value": "<image>\nWhat colour is it?"}, {"from": "gpt", "value": "<lvr>\n<answer> A </answer>"})
            self._made[tokens] = Sample(str(tokens), (ImageFile(str(tokens), path),), turns, ((0.2, 0.3, 0.6, 0.7),), (0,))
        return self._made[tokens]

    def supervised(self) -> int:
        """Tokens of each sample that logits are needed for: all have the same answer."""
        (batch,), _ = self.batches([[real_scale.MEAN]], "packed")
        return int((batch.labels != IGNORED).sum())

    def seconds(self, some: Sequence[Batch], loss: Callable[[Batch], torch.Tensor]) -> list[float]:
        """Of each, forward and backward, the faster of two times; gradients add up. Of the process, not of the clock: of eight ranks the
        slowest counts, and would mostly be the one that another program interrupted or took the caches from."""
        return [min(self._seconds(batch, loss) for _ in range(2)) for batch in some]

    def _seconds(self, batch: Batch, loss: Callable[[Batch], torch.Tensor]) -> float:
        begun = time.process_time()
        loss(batch).backward()
        return time.process_time() - begun

    def optimiser_seconds(self) -> float:
        """One step, and gradients of nothing after it."""
        begun = time.process_time()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return time.process_time() - begun

    def own_loss(self, batch: Batch) -> torch.Tensor:
        return self.method.run(self.model, batch, indicator=torch.tensor(True)).total()

    def release_loss(self, batch: Batch) -> torch.Tensor:
        """The same number by logits of every token in fp32, and a second run of the BCM that half of its loss's gradient goes through."""
        model, stage = self.model, self.stage
        features = model.vision(batch)
        terms = self.method.terms(model, batch, features, model.embed(batch.input_ids, features), Draws(indicator=torch.tensor(True)))
        logits = model.lm_head(terms.hidden).float()
        targets = losses.unsupervised(batch.labels, *places(batch)[:2]).roll(-1, dims=1)
        targets[:, -1] = IGNORED
        cells = Cells.of(batch.image_grids, batch.segment_image)
        region = region_of(features, cells, batch.boxes, box_cells(batch.boxes, cells), stage.region, stage.roi_bins)
        again = model.get_submodule(BCM)(region.features, region.mask)[0].mean()
        ce = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        kept = terms.total()
        return ce + 0.5 * kept + 0.5 * kept.detach() * (1 + again - again.detach())


def with_padding(batches: Iterable[Batch]) -> int:
    """Tokens of them, padding included."""
    return sum(batch.input_ids.numel() for batch in batches)
