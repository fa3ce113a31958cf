"""VisReflect, its image stage: crops, template, one training step, decoding, the reading of answers. Its video stage is beside
this: `visreflect_video`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from models.backbone.model import Backbone
from models.backbone.template import ASSISTANT, build, encode, user_text
from models.backbone.tokens import SpecialTokens
from models.config import DecodeSpec
from models.evaluation.releases import read_visreflect
from models.latent.batch import Batch, Encoded
from models.latent.losses import IGNORED
from models.methods.visreflect.crops import cut
from models.methods.visreflect.release import answer_text, rectangle, too_long
from models.methods.visreflect.spec import Reflect
from models.parity import decoding, training, visreflect_video
from models.parity.reference import (
    OUTPUT,
    TINY,
    Check,
    Files,
    Noted,
    Reference,
    difference,
    pixels_of,
    prompt_about,
    unequal,
)
from models.parity.texts import ByteTokenizer

RELEASE = Reflect(average="slot", crop_rule="nearest", template="front")
MARKERS = {"<BOR>": "<|lvr_start|>", "<VR>": "<|lvr|>", "<EOR>": "<|lvr_end|>"}
"""The release's tokens -> those that have the same roles here."""
CELL_PX = 28
GREY_LEVEL = 1 / 255 / 0.26 / 2
"""One of 255, after normalisation, relative to pixels whose largest value is above 2."""


class VisReflectReference(Reference):
    title = "VisReflect"
    described = "its image stage under `image.pass1.`, its video stage under `video.pass1.`"
    parts: ClassVar = {"image": "image.pass1.*", "video": "video.pass1.*", "generate": "image_steps*.step_in"}
    described_by: ClassVar = {"image": ("image_batch", "train"), "video": ("video_batch", "train"), "generate": ("generate", "constraint")}
    weights = ("image",)
    reasons: ClassVar = {
        "manifest: torch": "the reference's version",
        "manifest: transformers": "the reference's version",
        "manifest: ids.bytes": "a remark",
        "manifest: ids.vocab": "the embedding's size: its weights would not load otherwise",
        "manifest: constraint.note": "a remark",
        "manifest: *.allowed_ids_by_generated_index": "the same rule as of video_steps4_constrained, whose are compared",
        "manifest: gold_letter": "the right letter of a video question comes from the benchmark's own task",
        "manifest: viscot": "raw Visual CoT: this project reads the records made of it",
        "manifest: row_template": "in words; the rows' ids and labels are compared",
        "manifest: *.vision_tower_calls_per_forward": "dummy pictures that the release encodes while decoding; ours encodes none",
        "manifest: *.new_text": "the text of the ids, which are compared",
        "manifest: video_batch.*": "how the clips of the tiny batch become pixels: compared where the folder has the clips",
        "manifest: train.image*.lm_passes": "one in the image stage",
        "manifest: image_batch.settings_pixels*": "pixel limits of the tiny batch; its pixels are compared",
        "manifest: ids.<|im_start|>": "part of the rows' ids, which are compared",
    }

    left_out: ClassVar = (
        "image: in.pixel_values", "video: in.pixel_values_videos", "video: in.clip_uint8*", "generate: *.prompt_inputs_embeds",
        "generate: *.ids", "manifest: gold_letter", "manifest: viscot",
    )  # fmt: skip

    @classmethod
    def recognises(cls, files: Files) -> bool:
        return any(files.part(cls.parts[name]) is not None for name in ("image", "video"))

    @cached_property
    def ids(self) -> dict[str, int]:
        """Text of a named token -> its id; the release's three by our names."""
        held = self.manifest["ids"]
        return {MARKERS.get(name, name): held[name] for name in held if name not in ("bytes", "vocab")}

    @cached_property
    def tokens(self) -> SpecialTokens:
        ids, none = self.ids, -1  # it has no third marker
        return SpecialTokens(
            ids["<|lvr_start|>"], ids["<|lvr|>"], none, ids["<|lvr_end|>"],
            ids["<|image_pad|>"], ids["<|vision_start|>"], ids["<|vision_end|>"], ids["<|video_pad|>"],
        )  # fmt: skip

    def batch(self) -> Batch:
        """The training rows with their crops."""
        held = self.part("image")
        rows = self.rows(held)
        grids = held["in.vtk_grid"]
        segments = self.segments(rows["input_ids"], rows["attention_mask"])
        boxes = torch.tensor([box for record in self.manifest["image_batch"]["records"] for box in record["bboxes"]])
        return Batch(
            **rows, **segments | {"segment_slots": grids.prod(1) // 4}, boxes=boxes.double(), **_pixels(held),
            encoded={"crops": Encoded(values=held["in.vtk_tokens"], grid_thw=grids)},
        )  # fmt: skip

    def batch_without_crops(self) -> Batch:
        """The same rows, their boxes dropped."""
        held = self.part("image")
        texts = [_written(text) for text in self.manifest["image_batch"]["text_no_crop"]]
        rows = self.rows(padded_rows(texts, ByteTokenizer(self.ids), self.manifest["ids"]["<|endoftext|>"]) | _grids(held))
        none = torch.zeros(0, dtype=torch.long)
        return Batch(
            **rows, segment_row=none, segment_start=none, segment_image=none, segment_sample=none, boxes=torch.zeros(0, 4).double(),
            segment_slots=none, **_pixels(held), encoded={"crops": Encoded(embeds=torch.zeros(0, 1))},
        )  # fmt: skip

    def comparisons(self, attention: str) -> Iterator[Check]:
        yield from _crops(self.manifest.get("crops", []))
        yield from _template(self.manifest.get("templates_image", []))
        cases = self.manifest.get("parse_letter", [])
        yield Check(f"reading answers, {len(cases)} cases", sum(read_visreflect(c["text"]) != c["letter"] for c in cases), 0)
        yield from visreflect_video.checks(self, attention, _written)
        held = self.part("image")
        if not held:
            return
        yield from _rows(self, held)
        yield from _pictures(self, held)
        model = self.model(attention)
        stated, names = self.manifest["train"], {"ce": "ce", "vr": "align"}
        batch = self.batch()
        terms = model.stage_terms(batch, RELEASE, 1)
        yield Check("image: crops as the tower sees them", difference(terms.latents["z_t"].detach(), _firsts(held)), OUTPUT)
        yield Check("image: all embeddings of the crops", difference(model.encode(held["in.vtk_tokens"], held["in.vtk_grid"], None), held["image.vtk_embeds"]), OUTPUT)
        yield from training.outputs(model, batch, terms, held, "image", "image", "pass1.")
        yield from training.losses(model, terms, stated["image"], names, held, "image", "image")
        terms = model.stage_terms(self.batch_without_crops(), RELEASE, 1)
        yield from training.losses(model, terms, stated["image_no_crop"], names, {}, "image_no_crop", "image without crops")
        yield from _decoding(self, model)


def _grids(held: Noted) -> dict[str, Tensor]:
    return {"in.image_grid_thw": held["in.image_grid_thw"]}


def _pixels(held: Noted) -> dict[str, Tensor]:
    """Pixels of the pictures, or (reduced data) the features that the language model was fed."""
    if "in.pixel_values" in held:
        return {"pixel_values": held["in.pixel_values"], "image_grid_thw": held["in.image_grid_thw"]}
    return {"image_embeds": held["image.pass1.inputs_embeds"][held["in.input_ids"] == TINY.image_token_id]}


def _firsts(held: Noted) -> Tensor:
    """[B, 1, D]: every crop's first embedding."""
    counts = held["in.vtk_grid"].prod(1) // 4
    return held["image.vtk_embeds"][counts.cumsum(0) - counts][:, None]


def _written(text: str) -> str:
    """A text of the release with our markers in place of its."""
    for theirs, ours in MARKERS.items():
        text = text.replace(theirs, ours)
    return text


def padded_rows(texts: list[str], tokenizer: ByteTokenizer, pad: int) -> dict[str, Tensor]:
    """Whole rows of text as ids, labels (of what follows the last assistant's header) and mask."""
    parts = [[encode(tokenizer, part) for part in text.rpartition(ASSISTANT)] for text in texts]
    longest = max(sum(map(len, part)) for part in parts)
    ids, labels = torch.full((len(texts), longest), pad), torch.full((len(texts), longest), IGNORED)
    mask = torch.zeros(len(texts), longest, dtype=torch.long)
    for row, (before, header, answer) in enumerate(parts):
        start, end = len(before) + len(header), len(before) + len(header) + len(answer)
        ids[row, :end] = torch.tensor(before + header + answer)
        labels[row, start:end], mask[row, :end] = ids[row, start:end], 1
    return {"in.input_ids": ids, "in.labels": labels, "in.attention_mask": mask}


def _crops(cases: list[dict[str, Any]]) -> Iterator[Check]:
    wrong = 0
    for case in cases:
        found = rectangle(case["box"], *case["image_wh"])
        grid, tokens = None, 0
        if found is not None and not too_long(found):
            least, most = (count * CELL_PX**2 for count in case["tokens_min_max"])
            height, width = smart_resize(found[3] - found[1], found[2] - found[0], CELL_PX, least, most)
            grid, tokens = [1, height * 2 // CELL_PX, width * 2 // CELL_PX], height * width // CELL_PX**2
        wrong += (found and list(found), grid, tokens) != (case["rect"], case["grid_thw"], case["tokens"])
    yield Check(f"boxes to crops, {len(cases)} cases", wrong, 0)


def _template(cases: list[dict[str, Any]]) -> Iterator[Check]:
    wrong = 0
    for case in cases:
        users, answers, slots = [], [], case["crop_tokens"]
        for message in case["conversations"]:
            if message["from"] == "human":
                users.append(user_text(message["value"], [(1, 1)] * message["value"].count("<image>")))
            else:
                answers.append(answer_text(message["value"], slots))
                slots = []
        wrong += users != case["user"] or answers != [_written(text) for text in case["assistant"]]
    yield Check(f"template strings, {len(cases)} cases", wrong, 0)


def _rows(reference: VisReflectReference, held: Noted) -> Iterator[Check]:
    """Ids, labels and mask of the training rows, from the records."""
    stated, wrong = reference.manifest["image_batch"], {"input_ids": 0, "labels": 0, "attention_mask": 0}
    tokenizer, pad = ByteTokenizer(reference.ids), stated["pad_token_id"]
    slots = iter((held["in.vtk_grid"].prod(1) // 4).tolist())
    longest = held["in.input_ids"].shape[1]
    for row, (record, grid) in enumerate(zip(stated["records"], held["in.image_grid_thw"].tolist(), strict=True)):
        made = build(
            tokenizer, reference.tokens, record["conversations"], [(grid[1] // 2, grid[2] // 2)], record["bboxes"],
            latent_steps=[next(slots) for _ in record["bboxes"]], write=answer_text,
        )  # fmt: skip
        short = longest - len(made)
        for name, ours, rest in (
            ("input_ids", made.input_ids, pad), ("labels", made.labels, IGNORED), ("attention_mask", [1] * len(made), 0)
        ):  # fmt: skip
            wrong[name] += unequal(torch.tensor(ours + short * [rest]), held[f"in.{name}"][row])
        wrong["input_ids"] += encode(tokenizer, _written(stated["text"][row])) != made.input_ids
    for name, count in wrong.items():
        yield Check(f"image: {name} of the rows", count, 0)
    differ = stated["image_grid_thw"] != held["in.image_grid_thw"].tolist() or stated["vtk_grid"] != held["in.vtk_grid"].tolist()
    yield Check("image: grids are the manifest's", int(differ), 0)


def _pictures(reference: VisReflectReference, held: Noted) -> Iterator[Check]:
    """Pixels of pictures and crops, from the original pictures, where the folder has them."""
    stated = reference.manifest["image_batch"]
    names = [f"in.image_uint8.{record['image'].rsplit('.', 1)[0]}" for record in stated["records"]]
    if any(name not in held for name in names):
        return
    pictures = [Image.fromarray(held[name].numpy()) for name in names]
    if "in.pixel_values" in held:
        ours = pixels_of(pictures, *stated["settings_pixels"]["image"])
        yield Check("image: pixels of the pictures", difference(ours, held["in.pixel_values"]), OUTPUT)
    shown = [
        cut(picture, box, CELL_PX, "nearest")
        for picture, record in zip(pictures, stated["records"], strict=True)
        for box in record["bboxes"]
    ]
    grids = held["in.vtk_grid"]
    parts = [made.split(grids.prod(1).tolist()) for made in (pixels_of(shown, *stated["settings_pixels"]["crop"]), held["in.vtk_tokens"])]
    for at, (crop, (_, height, width), ours, theirs) in enumerate(zip(shown, grids.tolist(), *parts, strict=True)):
        # One way larger and the other way smaller: which Pillow does first, and so rounds, depends on its version.
        mixed = (width * CELL_PX // 2 - crop.width) * (height * CELL_PX // 2 - crop.height) < 0
        bound = GREY_LEVEL if mixed else OUTPUT
        title = f"image: pixels of crop {at}" + ", to one grey level" * mixed
        yield Check(title, difference(ours, theirs), bound)


def _decoding(reference: VisReflectReference, model: Backbone) -> Iterator[Check]:
    held = reference.part("generate")
    if not held:
        return
    cases = reference.manifest["generate"]
    ids, real = held["image.in.input_ids"], held["image.in.attention_mask"]
    text = _written(cases["image_prompt_text"])
    grid = held["image.in.image_grid_thw"]
    count = int(grid.prod()) // 4
    made = encode(ByteTokenizer(reference.ids), text.replace("<|image_pad|>", "<|image_pad|>" * count))
    yield Check("decoding: ids of the prompt", unequal(torch.tensor(made), ids[0]) + int((real != 1).sum()), 0)
    image = reference.part("image")
    asked = prompt_about(1, ids[0], _pixels(image), image["in.image_grid_thw"])
    same = cases["image_pixels_equal_training_row_1"] and torch.equal(grid, image["in.image_grid_thw"][1:2])
    yield Check("decoding: the picture is training row 1's", int(not same), 0)
    yield from decoding.prompt_checks(model, asked, reference.tokens, held, "image.", "decoding")
    for name in [name for name in cases if name.startswith("image_steps")]:
        stated = cases[name]
        spec = DecodeSpec(
            latent_steps=stated["steps"][0], end="forced", max_new_tokens=stated["max_new_tokens"], count_latents=True,
            cut_latents=False, repetition_penalty=stated["generation_config"].get("repetition_penalty", 1.0),
        )  # fmt: skip
        prompts = [asked] * len(stated["new_ids"])
        eos = {reference.ids["<|im_end|>"]}
        yield from decoding.checks(model, prompts, spec, reference.tokens, eos, stated, held, name)
