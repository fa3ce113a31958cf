"""LVR: tokens under a box, template, one training step with its variants, decoding, the reading of answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from models.backbone.model import Backbone
from models.backbone.template import assistant_text, build, user_text
from models.backbone.tokens import SpecialTokens
from models.config import DecodeSpec
from models.evaluation.releases import read_lvr
from models.latent.batch import Batch
from models.latent.slots import places
from models.latent.terms import Terms
from models.methods.base import with_cross_entropy
from models.methods.lvr import method
from models.methods.lvr.modules import fresh_end_vector, make_head
from models.methods.lvr.spec import Lvr
from models.parity import decoding, training
from models.parity.reference import Check, Files, Noted, Reference, difference, pixels_of, prompt_about, unequal
from models.parity.texts import ByteTokenizer

VARIANTS = {
    "naive": Lvr(),
    "naive_mae": Lvr(lvr_distance="mae"),
    "naive_cosine": Lvr(lvr_distance="cosine"),
    "latent_end": Lvr(latent_end=True),
    "latent_end_with_mode_switch_loss": Lvr(latent_end=True, lambda_end=0.1),
    "head_simple": Lvr(head="simple"),
    "head_glu": Lvr(head="glu"),
}
END = "lvr_latent_end_emb"
_REFUSED = "a sample that is refused here when the data are read"


class LvrReference(Reference):
    title = "LVR"
    described = "training under `naive.`, its variants under `head_glu.` and the like, decoding under `steps4.` and the like"
    parts: ClassVar = {"train": "naive.*", "variants": "w.*lvr_*", "generate": "*.step_in"}
    described_by: ClassVar = {
        "train": ("batch", "train", "ce"), "generate": ("generate",),
        "variants": ("variants", "latent_end_init_norm", "latent_end_batch_equals_default_batch"),
    }  # fmt: skip
    weights = ("train",)
    reasons: ClassVar = {
        "manifest: torch": "the reference's version",
        "manifest: transformers": "the reference's version",
        "manifest: ids.bytes": "a remark",
        "manifest: ids.vocab": "the embedding's size: its weights would not load otherwise",
        "manifest: row_template": "in words; the rows' ids and labels are compared",
        "manifest: generate.note": "a remark",
        "manifest: batch.keys": "names of the release's batch",
        "manifest: several_boxes.*": "the release takes another row's tokens for several boxes in a batch, or fails; ours looks "
        "at each box's own picture",
        "manifest: format_reward": "of the second stage, reinforcement learning, which is not part of this project",
        "manifest: generate.free_as_released.error": "the release fails here",
        "manifest: generate.latent_no_budget_given.error": "the release fails here; ours always has a limit",
        "manifest: generate.free_never_ends.fact": "the release never stops here; ours leaves after the given number of steps",
        "manifest: *.loss_lvr_fct": "which distance, as the case's name says",
        "manifest: *.loss_mode_switch": "None, or compared with its case",
        "manifest: *.kwargs*": "the case's options, as its name says",
        "train: in.image_uint8.c": "a picture that no row shows",
    }

    left_out: ClassVar = (
        "train: in.pixel_values", "train: in.image_uint8.*", "train: in.image_grid", "generate: in.pixel_values", "generate: prompt_inputs_embeds",
        "generate: *.step_logits", "generate: *.ids", "variants: *.logits_at_supervised", "variants: *.supervised_rows_positions", "variants: head_*.hidden",
        "variants: *.inputs_embeds", "generate: steps8.step_*", "manifest: several_boxes", "manifest: format_reward",
    )  # fmt: skip

    @classmethod
    def recognises(cls, files: Files) -> bool:
        return files.part(cls.parts["train"]) is not None

    @cached_property
    def ids(self) -> dict[str, int]:
        held = self.manifest["ids"]
        return {name: held[name] for name in held if name not in ("bytes", "vocab")}

    @cached_property
    def tokens(self) -> SpecialTokens:
        ids = self.ids
        names = ("lvr_start", "lvr", "lvr_latent_end", "lvr_end", "image_pad", "vision_start", "vision_end")
        return SpecialTokens(*(ids[f"<|{name}|>"] for name in names))

    def seen(self) -> dict[str, Tensor]:
        """Pixels of the pictures, or (reduced data) their features."""
        held = self.part("train")
        if "in.pixel_values" in held:
            return {"pixel_values": held["in.pixel_values"], "image_grid_thw": held["in.image_grid_thw"]}
        return {"image_embeds": held["naive.image_embeds"]}

    def batch(self) -> Batch:
        rows = self.rows(self.part("train"))
        boxes = [box for record in self.manifest["batch"]["records"] for box in record["bboxes"]]
        slots = [len(tokens) for tokens in self.manifest["batch"]["lvr_tokens"]]
        return Batch(
            **rows, **self.segments(rows["input_ids"], rows["attention_mask"]) | {"segment_slots": torch.tensor(slots)}, **self.seen(),
            boxes=torch.tensor(boxes, dtype=torch.float64),
        )  # fmt: skip

    def comparisons(self, attention: str) -> Iterator[Check]:
        yield from _boxes(self)
        yield from _template(self)
        cases = self.manifest.get("read_answer", [])
        wrong = sum((read_lvr(case["response"]) == case["label"]) != case["correct"] for case in cases)
        yield Check(f"reading answers, {len(cases)} cases", wrong, 0)
        held = self.part("train")
        if not held:
            return
        yield from _rows(self, held)
        model = self.model(attention)
        yield from _training(self, model)
        yield from _decoding(self, model)


def _boxes(reference: LvrReference) -> Iterator[Check]:
    """The packed data set's rule. What it gives no token for is refused here."""
    cases = reference.manifest.get("box_to_tokens", [])
    wrong, compared = 0, 0
    for at, case in enumerate(cases):
        x0, y0, x1, y1 = case["box"]
        if not (x0 < x1 and y0 < y1):
            reference.set_aside[f"manifest: box_to_tokens[{at}]"] = f"an empty or inverted box: {_REFUSED}"
            continue
        compared += 1
        found = method.tokens_under(case["box"], tuple(side // 2 for side in case["grid"][1:]))
        wrong += found != case["packed_dataset"]
    yield Check(f"box to tokens, {compared} cases", wrong, 0)
    if cases:
        reference.set_aside["manifest: box_to_tokens[].unpacked_dataset_and_mapper"] = "another rule, of a path that the release cannot run"


def _template(reference: LvrReference) -> Iterator[Check]:
    cases, compared, wrong = reference.manifest.get("templates", []), 0, 0
    for case in cases:
        texts = [message["value"] for message in case["conversations"]]
        counts = [len(tokens) for tokens in case["lvr_token_idxs"] or []]
        placeholders = [text.count("<lvr>") for text in texts[1::2]]
        fixed = case["kwargs"].get("fixed_num_of_lvr_tokens")
        why = None
        if fixed is None and sum(placeholders) != len(counts):
            why = f"placeholders and boxes do not match: {_REFUSED}"
        elif 0 in counts:
            why = f"an empty box: {_REFUSED}"
        elif sum(map(bool, placeholders)) > 1:
            why = "the release begins with the first box again in every answer; ours goes on with the next"
        elif any("\n<image>" in text and not text.startswith("<image>") for text in texts[::2]):
            why = "the release takes away a newline before a picture inside a question; ours keeps it"
        if why is not None:
            reference.set_aside[f'manifest: templates "{case["case"]}"'] = why
            continue
        compared += 1
        marker = fixed is None and case["kwargs"].get("latent_end_token", False) is not None
        users = [user_text(text, [(1, 1)] * text.count("<image>")) for text in texts[::2]]
        answers = [assistant_text(text, counts if fixed is None else fixed, marker) for text in texts[1::2]]
        wrong += users != case["user"] or answers != case["assistant"]
    yield Check(f"template strings, {compared} cases", wrong, 0)


def _rows(reference: LvrReference, held: Noted) -> Iterator[Check]:
    """Ids, labels and mask of the training rows from the records, and pixels from the pictures where the folder has them."""
    stated = reference.manifest["batch"]
    tokenizer, grids = ByteTokenizer(reference.ids), (held["in.image_grid_thw"][:, 1:] // 2).tolist()
    pad, longest = stated["pad_token_id"], held["in.input_ids"].shape[1]
    wrong = {"input_ids": 0, "labels": 0, "attention_mask": 0}
    for row, (record, grid, tokens) in enumerate(zip(stated["records"], grids, stated["lvr_tokens"], strict=True)):
        made = build(
            tokenizer, reference.tokens, record["conversations"], [tuple(grid)], record["bboxes"],
            latent_steps=[len(tokens)], end_marker=True,
        )  # fmt: skip
        short = longest - len(made)
        for name, ours, rest in (
            ("input_ids", made.input_ids, pad), ("labels", made.labels, -100), ("attention_mask", [1] * len(made), 0)
        ):  # fmt: skip
            wrong[name] += unequal(torch.tensor(ours + short * [rest]), held[f"in.{name}"][row])
        wrong["input_ids"] += tokenizer(stated["text"][row])["input_ids"] != made.input_ids
        wrong["input_ids"] += method.tokens_under(record["bboxes"][0], tuple(grid)) != tokens
    for name, count in wrong.items():
        yield Check(f"{name} of the rows", count, 0)
    yield Check("grids are the manifest's", int(stated["image_grid_thw"] != held["in.image_grid_thw"].tolist()), 0)
    names = [f"in.image_uint8.{record['image'].rsplit('.', 1)[0]}" for record in stated["records"]]
    if all(name in held for name in (*names, "in.pixel_values")):
        pictures = [Image.fromarray(held[name].numpy()) for name in names]
        yield Check("pixels of the pictures", difference(pixels_of(pictures, 3136, 12_845_056), held["in.pixel_values"]), training.OUTPUT)


def _training(reference: LvrReference, model: Backbone) -> Iterator[Check]:
    held, variants, batch = reference.part("train"), reference.part("variants"), reference.batch()
    yield Check("features", difference(model.vision(batch), held["naive.image_embeds"]), training.OUTPUT)
    stated = {name: cases[name] for cases in map(reference.manifest.get, ("train", "variants")) if cases for name in cases}
    ce = reference.manifest.get("ce", {})
    for name, case in stated.items():
        if name not in VARIANTS or (not variants and name not in reference.manifest["train"]):
            continue
        stage = VARIANTS[name]
        modules = _modules(reference, stage, variants)
        for own in modules.values():
            own.requires_grad_()
        whole = _Whole(model, modules)
        terms = whole.terms(batch, stage)
        if name == "naive" and ce:
            yield from _targets(batch, terms, ce)
        files = variants if any(key.startswith(f"{name}.") for key in variants) else held
        yield from training.outputs(model, batch, terms, files, name, name, states=whole.heads_output(batch, terms))
        names = {"lvr": "lvr", "ce": "ce"} | ({"lvr_end": "mode_switch"} if stage.latent_end else {})
        yield from training.losses(whole, terms, case, names, files, name, name)
    norm = reference.manifest.get("latent_end_init_norm")
    if norm is not None:
        width = model.config.text_config.hidden_size
        yield Check("norm of a fresh end vector", abs(fresh_end_vector(width).norm().item() / norm - 1), training.OUTPUT)
    if "latent_end_batch_equals_default_batch" in reference.manifest:
        same = reference.manifest["latent_end_batch_equals_default_batch"]
        yield Check("the end vector changes no text", int(not same), 0)


def _modules(reference: LvrReference, stage: Lvr, variants: Noted) -> dict[str, nn.Module | nn.Parameter]:
    """The stage's optional modules with the folder's weights, under the release's names."""
    found: dict[str, Any] = {}
    if stage.head != "none":
        prefix = f"w.{stage.head}.lvr_head."
        weights = {name.removeprefix(prefix): variants[name] for name in variants if name.startswith(prefix)}
        width = reference.part("train")["naive.hidden"].shape[-1]
        inner = weights["gate_proj.weight"].shape[0] if stage.head == "glu" else 0
        found["lvr_head"] = make_head(stage.head, width, inner)
        found["lvr_head"].load_state_dict(weights)
    if stage.latent_end:
        found[END] = nn.Parameter(variants[f"w.{END}"].clone())
    return found


class _Whole:
    """The model with the stage's own modules, for a forward pass and for gradients."""

    def __init__(self, model: Backbone, modules: Mapping[str, Any]) -> None:
        self.model, self.modules = model, modules

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.model.named_parameters()
        for name, module in self.modules.items():
            if isinstance(module, nn.Module):
                yield from ((f"{name}.{inner}", parameter) for inner, parameter in module.named_parameters())
            else:
                yield name, module

    def heads_output(self, batch: Batch, terms: Terms) -> Tensor:
        """The last states with the head's output before every slot: the release takes its logits there, which are no targets."""
        if "lvr_head" not in self.modules:
            return terms.hidden
        row, column, _ = places(batch)
        return terms.hidden.index_put((row, column - 1), self.modules["lvr_head"](terms.hidden[row, column - 1]))

    def terms(self, batch: Batch, stage: Lvr) -> Terms:
        features = self.model.vision(batch)
        embeds = self.model.embed(batch.input_ids, features)
        found = method.terms(
            self.model, batch, stage, features, embeds, head=self.modules.get("lvr_head"), end=self.modules.get(END)
        )
        return with_cross_entropy(self.model, batch, found)


def _targets(batch: Batch, terms: Terms, ce: Noted) -> Iterator[Check]:
    """Which ids the cross-entropy supervises."""
    labels = batch.labels.index_put(terms.unsupervised, torch.tensor(-100))[:, 1:]
    ours = labels[labels != -100].tolist()
    yield Check("targets of the cross-entropy", int(ours != ce["supervised_targets_after_mask"]) + int(len(ours) != ce["n"]), 0)


def _decoding(reference: LvrReference, model: Backbone) -> Iterator[Check]:
    held, cases = reference.part("generate"), reference.manifest.get("generate")
    if not held or cases is None:
        return
    train, ids = reference.part("train"), held["in.input_ids"][0]
    grid = held["in.image_grid_thw"]
    made = ByteTokenizer(reference.ids)(cases["prompt_text"].replace("<|image_pad|>", "<|image_pad|>" * (int(grid.prod()) // 4)))
    wrong = unequal(torch.tensor(made["input_ids"]), ids) + int((held["in.attention_mask"] != 1).sum()) + (len(ids) != cases["prompt_len"])
    yield Check("decoding: ids of the prompt", wrong, 0)
    seen = {"pixel_values": held["in.pixel_values"], "image_grid_thw": grid} if "in.pixel_values" in held else reference.seen()
    asked = prompt_about(0, ids, seen, grid if "pixel_values" in seen else train["in.image_grid_thw"])
    yield from decoding.prompt_checks(model, asked, reference.tokens, held, "", "decoding")
    for name in cases:
        if not isinstance(cases.get(name), dict) or "new_ids" not in cases[name]:
            continue
        stated, given = cases[name], cases[name]["kwargs"]
        strategy = given.get("decoding_strategy", "free")
        latent = int(max(stated["num_latent_inputs"], *given.get("lvr_steps", [64])))
        spec = DecodeSpec(
            latent_steps=latent, leave=strategy, max_new_tokens=stated["max_new_tokens"], count_latents=True, cut_latents=False,
            repetition_penalty=stated["repetition_penalty"] or 1.0, penalise_picked=True,
            leave_distance=given.get("criterion", "mse"), leave_below=given.get("lvr_end_threshold", 0.02),
        )  # fmt: skip
        options = {}
        if strategy == "latent":
            own = f"{name}.{END}"
            options["end_vector"] = held[own] if own in held else _end_vector(held, name)
        yield from decoding.checks(
            model, [asked], spec, reference.tokens, {reference.ids["<|im_end|>"]}, stated, held, name, **options
        )


def _end_vector(held: Noted, name: str) -> Tensor:
    """That of `latent_hit` for its cases of another distance, else one that no state comes near to."""
    hit = next((key for key in held if key.endswith(f".{END}") and name.startswith(key.split(".")[0])), None)
    if hit is not None:
        return held[hit]
    width = next(held[key] for key in held if key.endswith(".step_hidden")).shape[-1]
    return torch.full((width,), 1e3)
