"""The release's tiny Qwen2.5-VL as a fixture, and batches made for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.backbone.model import Backbone
from models.backbone.template import positions
from models.backbone.tokens import SpecialTokens
from models.latent.batch import Batch
from models.latent.prompt import Prompt
from models.methods.vreflection.spec import Stage1
from models.parity import Reference, open_reference

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
IMAGE, VISION_START, VISION_END = 300, 302, 303
LVR_START, LVR, LVR_END = 305, 306, 308
EOS = 289
STEPS = 8


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference() -> Reference:
    return open_reference(GOLDEN)


@pytest.fixture(scope="session")
def tokens(reference: Reference) -> SpecialTokens:
    return reference.tokens


@pytest.fixture
def model(reference: Reference) -> Backbone:
    """A fresh copy (tests may change it), with sdpa attention."""
    return reference.model("sdpa")


class Maker:
    """Samples for the tiny model: [images with random features, question, (segment, words) per box]."""

    def __init__(self, seed: int = 0, steps: int = STEPS) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.steps = steps

    def words(self, n: int) -> torch.Tensor:
        return torch.randint(10, 290, (n,), generator=self.generator)

    def sample(self, grids=((4, 6),), question: int = 6, segments: int = 1, answer: int = 5, box_images=None) -> dict:
        """One sample; answers, markers and slots are supervised."""
        ids, labels, starts = [self.words(2)], [torch.full((2,), -100)], []
        for height, width in grids:
            ids.append(torch.tensor([VISION_START] + height * width * [IMAGE] + [VISION_END]))
        ids.append(self.words(question))
        labels.append(torch.full((sum(map(len, ids[1:])),), -100))
        for _ in range(segments):
            starts.append(sum(map(len, ids)) + 1)
            piece = torch.cat([torch.tensor([LVR_START] + self.steps * [LVR] + [LVR_END]), self.words(answer)])
            ids.append(piece)
            labels.append(piece)
        if not segments:
            ids.append(self.words(answer))
            labels.append(ids[-1])
        low = 0.5 * torch.rand(segments, 2, generator=self.generator, dtype=torch.float64)
        high = low + 0.2 + 0.3 * torch.rand(segments, 2, generator=self.generator, dtype=torch.float64)
        tokens = sum(height * width for height, width in grids)
        return {
            "ids": torch.cat(ids), "labels": torch.cat(labels), "grids": torch.tensor(grids, dtype=torch.long).reshape(-1, 2), "starts": starts,
            "boxes": torch.cat([low, high], 1), "images": box_images or segments * [0],
            "embeds": 0.5 * torch.randn(tokens, 128, generator=self.generator),
        }  # fmt: skip

    def prompt(self, **options) -> Prompt:
        sample = self.sample(**options)
        return Prompt(sample["ids"], image_grids=sample["grids"], image_embeds=sample["embeds"], boxes=sample["boxes"])


def collate(samples: list[dict], packed: bool | list[list[int]]) -> Batch:
    """The same samples, one a row and right-padded, or all in one row, or packed into these rows of sample numbers."""
    every = list(range(len(samples)))
    groups = packed if isinstance(packed, list) else [every] if packed else [[k] for k in every]
    samples, inside = [samples[k] for group in groups for k in group], [len(group) for group in groups]
    row_of = [row for row, count in enumerate(inside) for _ in range(count)]
    shape = (len(groups), max(sum(len(s["ids"]) for s, r in zip(samples, row_of) if r == row) for row in range(len(groups))))
    ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
    place, mask = torch.arange(shape[1]).expand(4, *shape).clone(), torch.zeros(shape, dtype=torch.bool)
    rows, starts, counts, images, owners, image_offset, used = [], [], [], [], [], 0, [0] * len(groups)
    for at, (s, row) in enumerate(zip(samples, row_of)):
        n, column = len(s["ids"]), used[row]
        here = slice(column, column + n)
        ids[row, here], labels[row, here], mask[row, here] = s["ids"], s["labels"], True
        place[:, row, here] = positions(s["ids"], s["grids"], IMAGE)
        rows += len(s["starts"]) * [row]
        starts += [column + start for start in s["starts"]]
        counts += [int((s["ids"][start:] == LVR_END).int().argmax()) for start in s["starts"]]
        images += [image_offset + image for image in s["images"]]
        owners += len(s["starts"]) * [at]
        used[row], image_offset = column + n, image_offset + len(s["grids"])
    for row, end in enumerate(used):
        place[:, row, end:] -= end
    return Batch(
        input_ids=ids, labels=labels, position_ids=place, attention_mask=None if packed else mask,
        image_grids=torch.cat([s["grids"] for s in samples]), segment_row=torch.tensor(rows, dtype=torch.long),
        segment_start=torch.tensor(starts, dtype=torch.long), segment_slots=torch.tensor(counts, dtype=torch.long), segment_image=torch.tensor(images, dtype=torch.long),
        segment_sample=torch.tensor(owners, dtype=torch.long), boxes=torch.cat([s["boxes"] for s in samples]),
        samples=len(samples), image_embeds=torch.cat([s["embeds"] for s in samples]),
    )  # fmt: skip


@pytest.fixture
def make() -> type[Maker]:
    return Maker


@pytest.fixture
def padded() -> Batch:
    """Three samples of different lengths and grids; the second has two boxes on two images."""
    maker = Maker()
    samples = [
        maker.sample(),
        maker.sample(grids=((2, 3), (3, 2)), question=3, segments=2, box_images=[1, 0]),
        maker.sample(grids=((3, 5),), question=9, answer=2),
    ]
    return collate(samples, packed=False)


@pytest.fixture
def packed() -> Batch:
    """The samples of `padded` in one row."""
    maker = Maker()
    samples = [
        maker.sample(),
        maker.sample(grids=((2, 3), (3, 2)), question=3, segments=2, box_images=[1, 0]),
        maker.sample(grids=((3, 5),), question=9, answer=2),
    ]
    return collate(samples, packed=True)


@pytest.fixture
def prompts(make):
    """Mixed lengths, grids and numbers of images; boxes for the oracle."""
    maker = make(steps=0)
    shapes = [{"grids": ((4, 6),)}, {"grids": ((2, 3), (3, 2)), "question": 11}, {"grids": ((3, 5),), "question": 2}]
    made = []
    for at, shape in enumerate(shapes * 2):
        sample = maker.sample(**shape, segments=1)
        ids = sample["ids"][: sample["starts"][0] - 1]
        seeded = {
            "image_grids": sample["grids"],
            "image_embeds": sample["embeds"],
            "boxes": sample["boxes"],
            "seed": at,
        }
        made.append(Prompt(ids, **seeded))
    made.append(Prompt(maker.words(5), boxes=made[0].boxes, seed=9))
    return made


@pytest.fixture
def talkative(model):
    """Speaks its start token now and then, and ends at different times: answers worth comparing."""
    with torch.no_grad():
        model.lm_head.weight[LVR_START] *= 8
        model.lm_head.weight[EOS] *= 2.5
    return model


@pytest.fixture
def batch_of():
    return collate


def gradients(model: Backbone, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of every parameter that has one that is not zero."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {name: grad for name, grad in zip(named, found) if grad is not None and grad.any()}


def without(batch: Batch, **changes) -> Batch:
    return replace(batch, **changes)


def seeing(model: Backbone, prompts: list[Prompt], **options) -> list[Prompt]:
    """The prompts with what a stage-1 model's teacher makes of their boxes, for `latents: oracle`."""
    with torch.inference_mode():
        given = Stage1(**options).method(STEPS).oracle(model, prompts, STEPS)
    return [replace(prompt, oracle=own) for prompt, own in zip(prompts, given, strict=True)]
