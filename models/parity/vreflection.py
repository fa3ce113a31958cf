"""V-Reflection: its modules alone, both stages' losses and gradients, and latent decoding of any row with any S."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from models.backbone.model import Backbone
from models.backbone.template import assistant_text, user_text
from models.backbone.tokens import SpecialTokens
from models.config import DecodeSpec
from models.evaluation.extract import read_release
from models.latent.batch import Batch
from models.latent.boxes import Cells, box_cells
from models.latent.decoding import decode
from models.latent.prompt import Prompt
from models.latent.terms import Terms
from models.methods.vreflection.modules import BoxResampler, StudentResampler
from models.methods.vreflection.spec import Stage1, Stage2
from models.parity.reference import OUTPUT, Check, Files, Noted, Reference, difference, unequal
from models.parity.training import gradients

RELEASE_STAGE1 = Stage1(
    region="tokens",
    align="split",
    bcm_distance="mse",
    clamp=1e4,
    slot_gradient="detached",
    ce_on_slots=True,
    lambda_bcm=0.5,
)
RELEASE_STAGE2 = Stage2(
    region="tokens", slot_fill="teacher", slot_gradient="detached", dac_distance="mse", epsilon_in="student", query_shift=0,
    lambda_dac=1.0,
)  # fmt: skip

FULL_SIZE = {"hidden_size": 3584, "latent_steps": 8, "parameters": 102_832_128, "bf16_mib": 196.14}
"""Table 3(e)."""

_CASE = re.compile(r"S(\d+)\.row(\d+)")


class VReflectionReference(Reference):
    title = "V-Reflection"
    described = "stage1 and stage2 under `mse.` and `s2.`, decoding under `S<steps>.row<row>.`"
    parts: ClassVar = {"heads": "D*.bcm.queries", "stage1": "mse.*", "stage2": "s2.*", "generate": "S*.row*.step_in"}
    described_by: ClassVar = {
        "heads": ("heads",), "stage1": ("batch", "stage1"), "stage2": ("stage2",), "generate": ("generate",),
    }  # fmt: skip
    weights = ("stage1", "stage2")
    heads = frozenset({"bcm", "dac"})
    reasons: ClassVar = {
        "manifest: torch": "the reference's version",
        "manifest: transformers": "the reference's version",
        "manifest: release_commit": "the reference's version",
        "manifest: restated.*": "what the reference says about its own numbers",
        "manifest: stage2_missing_from_stage1_ckpt": "a message of the release's loader",
        "manifest: packing.*": "how the release fills batches; ours packs by its own rule, which changes no sample's numbers",
        "manifest: *loss_ortho": "logged by the release, in no loss",
        "manifest: *ortho_loss": "logged by the release, in no loss",
        "manifest: *attn_rows_sum_to_1": "follows from the maps",
        "manifest: batch.ids.pad": "what stands under the padding",
        "manifest: batch.ids.vocab": "the embedding's size: its weights would not load otherwise",
    }
    left_out = (
        "heads: *", "generate: image_grid_thw", "generate: pixel_values", "generate: *.ids",
        "*: in.pixel_values", "*: *.logits", "*: *.box_feature_resampler.0", "stage2: s2.image_embeds.0", "stage2: s2.position_ids.0",
        "manifest: heads", "manifest: packing", "manifest: restated", "manifest: stage2_missing_from_stage1_ckpt",
    )  # fmt: skip

    @classmethod
    def recognises(cls, files: Files) -> bool:
        return any(files.part(cls.parts[name]) is not None for name in ("heads", "stage1", "stage2"))

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        queries = self.stage1.get("w.box_feature_resampler.queries")
        self.steps = 8 if queries is None else queries.shape[1]

    @cached_property
    def tokens(self) -> SpecialTokens:
        names = self.manifest["batch"]["ids"]
        return SpecialTokens(
            names["lvr_start"], names["lvr"], names["lvr_latent_end"], names["lvr_end"],
            names["image"], names["vision_start"], names["vision_end"],
        )  # fmt: skip

    @cached_property
    def stage1(self) -> Noted:
        return self.part("stage1")

    @cached_property
    def stage2(self) -> Noted:
        return self.part("stage2")

    def batch(self) -> Batch:
        """The right-padded rows with their boxes."""
        rows = self.rows(self.stage1)
        segments = self.segments(rows["input_ids"], rows["attention_mask"])
        boxes = torch.tensor([box for own in self.manifest["batch"]["boxes"] for box in own], dtype=torch.float64)
        return Batch(**rows, **segments, boxes=boxes, **self.vision())

    def vision(self) -> dict[str, Tensor]:
        """Pixels, or (reduced data) the release's features."""
        if "in.pixel_values" in self.stage1:
            return {"pixel_values": self.stage1["in.pixel_values"], "image_grid_thw": self.stage1["in.image_grid_thw"]}
        return {"image_embeds": self.stage1["mse.image_embeds.0"]}

    def prompts(self, *about: tuple[int, Tensor]) -> list[Prompt]:
        """(row, token ids) each as a prompt about that row's pictures."""
        grid_thw = self.stage1["in.image_grid_thw"]
        live = "in.pixel_values" in self.stage1
        (name, values), *_ = self.vision().items()
        parts = values.split((grid_thw.prod(1) // (1 if live else 4)).tolist())
        first, counts = self.images_of(self.stage1["in.input_ids"], self.stage1["in.attention_mask"].bool())
        made = []
        for row, ids in about:
            own = slice(first[row], first[row] + counts[row])
            made.append(Prompt(ids, image_grid_thw=grid_thw[own], **{name: torch.cat(parts[own])}))
        return made

    def comparisons(self, attention: str) -> Iterator[Check]:
        yield from _heads(self)
        yield from _boxes(self)
        yield from _template(self)
        yield from _answers(self)
        if self.stage1:
            model = self.model(attention, heads=self.heads if self.stage2 else {"bcm"})
            yield from _stage1(self, model)
            if self.stage2:
                yield from _stage2(self, model)
            yield from _decoding(self, model)
        yield from _parameters(self)


def _heads(reference: VReflectionReference) -> Iterator[Check]:
    held = reference.part("heads")
    for width in sorted({int(name[1 : name.index(".")]) for name in held}):
        part = {k.split(".", 1)[1]: held[k] for k in held if k.startswith(f"D{width}.") and ".out." not in k}
        bcm, dac = BoxResampler(width, part["bcm.queries"].shape[1]), StudentResampler(width)
        bcm.load_state_dict({k[4:]: v for k, v in part.items() if k.startswith("bcm.")})
        dac.load_state_dict({k[4:]: v for k, v in part.items() if k.startswith("dac.")})
        with torch.no_grad():
            z_t, a_t = bcm(part["in.feats"], ~part["in.key_padding"])
            z_s, a_s, _ = dac(part["in.H"], part["in.global"], ~part["in.global_padding"])
        for name, ours in (("Z_T", z_t), ("Z_T_noattn", z_t), ("A_T", a_t), ("Z_S", z_s), ("A_S", a_s)):
            if f"D{width}.out.{name}" in held:
                yield Check(f"heads D={width}: {name}", difference(ours, held[f"D{width}.out.{name}"]), OUTPUT)
        stated = reference.manifest["heads"][f"D{width}"]
        counts = [sum(p.numel() for p in head.parameters()) for head in (bcm, dac)]
        wrong = sum(ours != stated[name] for ours, name in zip(counts, ("bcm_params", "dac_params"), strict=True))
        yield Check(f"heads D={width}: parameters {counts}", wrong + (bcm.cross_attn.heads != stated["heads"]), 0)


def _boxes(reference: VReflectionReference) -> Iterator[Check]:
    cases = reference.manifest.get("box_to_tokens", [])
    wrong = sum(tokens_of(case["box"], case["grid"]) != case["idx"] for case in cases)
    yield Check(f"box to tokens, {len(cases)} cases", wrong, 0)


def tokens_of(box: list[float], grid_thw: list[int]) -> list[int]:
    """Merged tokens under a box, on a grid in patches."""
    cells = Cells.of(torch.tensor([grid_thw[1:]]) // 2, torch.tensor([0]))
    return box_cells(torch.tensor([box], dtype=torch.float64), cells)[0].nonzero()[:, 0].tolist()


def _template(reference: VReflectionReference) -> Iterator[Check]:
    held = reference.manifest.get("template")
    if held is None:
        return
    human, gpt = (message["value"] for message in held["in"])
    wrong = 0
    for name in [name for name in held if name.startswith("fixed")]:
        want_user, want_answer = (message["content"] for message in held[name])
        wrong += (user_text(human, [(1, 1)]) != want_user) + (assistant_text(gpt, int(name[5:])) != want_answer)
    two = held["text before <lvr> is dropped"][0]["content"]
    wrong += assistant_text("I look <lvr> and <lvr> so x", 2) != two
    yield Check("template strings", wrong, 0)


def _answers(reference: VReflectionReference) -> Iterator[Check]:
    """How the release reads answers, its errors included (`extract: release`)."""
    cases = reference.manifest.get("answers", [])
    wrong = sum(read_release(case["response"]) != case["release reads"] for case in cases)
    yield Check(f"reading answers, {len(cases)} cases", wrong, 0)


def _stage1(reference: VReflectionReference, model: Backbone) -> Iterator[Check]:
    held, batch = reference.stage1, reference.batch()
    real = batch.attention_mask
    yield from _positions(batch, held, "mse", "stage 1")
    terms = model.stage_terms(batch, RELEASE_STAGE1, reference.steps)
    yield from _language(terms, held, "mse", "stage 1", real)
    yield from _features(model, batch, held, "mse", "stage 1")
    cells = [own.nonzero()[:, 0].tolist() for own in terms.latents["box_mask"]]
    wanted = reference.manifest["batch"]["lvr_tokens"]
    yield Check("stage 1: tokens under the boxes", sum(a != b for a, b in zip(cells, wanted, strict=True)), 0)
    for call in (0, 1):
        name = f"mse.box_feature_resampler.{call}"
        if name in held:
            yield Check(f"stage 1: Z_T, call {call}", difference(terms.latents["z_t"], held[name]), OUTPUT)
    if "mse.logits" in held:
        yield Check("stage 1: logits", difference(model.lm_head(terms.hidden[real]), held["mse.logits"][real]), OUTPUT)
    scalars = reference.manifest["stage1"]["mse"]
    for part, name in (("ce", "loss_ce"), ("bcm", "loss_lvr_resampler")):
        yield from _loss(model, terms.losses[part], scalars, name, held, "mse", f"stage 1: {part}")


def _positions(batch: Batch, held: Noted, prefix: str, title: str) -> Iterator[Check]:
    name, real = f"{prefix}.position_ids.0", batch.attention_mask
    if name in held:
        yield Check(f"{title}: mRoPE positions", unequal(batch.position_ids[1:, real], held[name][:, real]), 0)


def _features(model: Backbone, batch: Batch, held: Noted, prefix: str, title: str) -> Iterator[Check]:
    """F_global of the vision tower; in the reduced data the features are an input."""
    name = f"{prefix}.image_embeds.0"
    if name in held:
        yield Check(f"{title}: F_global", difference(model.vision(batch), held[name]), OUTPUT)


def _stage2(reference: VReflectionReference, model: Backbone) -> Iterator[Check]:
    held, batch = reference.stage2, reference.batch()
    terms = model.stage_terms(batch, RELEASE_STAGE2, reference.steps)
    real = batch.attention_mask
    yield from _language(terms, held, "s2", "stage 2", real)
    yield from _features(model, batch, held, "s2", "stage 2")
    yield from _positions(batch, held, "s2", "stage 2")
    if "s2.logits" in held:
        yield Check("stage 2: logits", difference(model.lm_head(terms.hidden[real]), held["s2.logits"][real]), OUTPUT)
    for name in ("box_feature_resampler.0", "box_feature_resampler.1.0"):
        if f"s2.{name}" in held:
            yield Check(f"stage 2: Z_T, {name}", difference(terms.latents["z_t"], held[f"s2.{name}"]), OUTPUT)
    inside = terms.latents["box_mask"]
    ours = torch.cat([a[:, own].flatten() for a, own in zip(terms.latents["a_t"], inside, strict=True)])
    local = held["s2.box_feature_resampler.1.1"]
    theirs = torch.cat([a[:, : int(own.sum())].flatten() for a, own in zip(local, inside, strict=True)])
    yield Check("stage 2: A_T in the box", difference(ours, theirs), OUTPUT)
    for ours, name in (
        ("z_s", "student_resampler.0.0"),
        ("a_s", "student_resampler.0.1"),
        ("a_t", "aligned_teacher_attn.0"),
    ):
        yield Check(f"stage 2: {ours}", difference(terms.latents[ours], held[f"s2.{name}"]), OUTPUT)
    scalars = reference.manifest["stage2"]["mse"]
    want = torch.tensor(scalars["loss_attn_transfer"])
    yield Check("stage 2: KL", difference(terms.losses["dac_attn"].detach(), want), OUTPUT)
    total = terms.losses["dac_feat"] + terms.losses["dac_attn"]
    yield from _loss(model, terms.losses["ce"], scalars, "loss_ce", held, "s2", "stage 2: ce")
    yield from _loss(model, total, scalars, "loss_lvr_resampler", held, "s2", "stage 2: dac")


def _language(terms: Terms, held: Noted, prefix: str, title: str, real: Tensor) -> Iterator[Check]:
    for name, ours in (("inputs_embeds", terms.embeds), ("hidden", terms.hidden)):
        yield Check(f"{title}: {name}", difference(ours[real], held[f"{prefix}.{name}.0"][real]), OUTPUT)


def _loss(model, loss: Tensor, scalars: Noted, name: str, held: Noted, prefix: str, title: str) -> Iterator[Check]:
    yield Check(f"{title} loss", difference(loss.detach(), torch.tensor(scalars[name])), OUTPUT)
    start = f"grad_l2.{name}."
    norms = {key.removeprefix(start): scalars[key] for key in scalars if key.startswith(start)}
    yield from gradients(model, loss, norms, held, f"{prefix}.grad.{name}.", title)


def _decoding(reference: VReflectionReference, model: Backbone) -> Iterator[Check]:
    held, batch = reference.part("generate"), reference.batch()
    for name in ("pixel_values", "image_grid_thw"):
        if name in held:
            different = not torch.equal(held[name], reference.stage1[f"in.{name}"])
            yield Check(f"decoding: {name} are those of training", int(different), 0)
    keys = sorted({match.group() for name in held if (match := _CASE.match(name))})
    for key in keys:
        slots, row = map(int, _CASE.fullmatch(key).groups())
        if row >= len(batch):
            reference.set_aside |= {
                name: f"row {row} is not among the {len(batch)} training rows, so its pictures are unknown"
                for name in reference.unread()
                if name.split(": ", 1)[1].startswith((f"{key}.", f"generate.{key}."))
            }
            continue
        yield from _decoded(reference, model, held, batch, key, slots, row)


def _decoded(
    reference: VReflectionReference, model: Backbone, held: Noted, batch: Batch, key: str, slots: int, row: int
) -> Iterator[Check]:
    stated = reference.manifest["generate"][key]
    new, given = stated["new_ids"], held[f"{key}.prompt"][0]
    # The release's prompt ends with the start token, and its new ids hold a meaningless one for each latent step.
    about = [(row, given[:-1])]
    others = [at for at in range(len(batch)) if at != row and bool((batch.segment_row == at).any())]
    if others:  # another row, up to its first latent segment
        begin = int(batch.segment_start[batch.segment_row == others[0]].min()) - 1
        about.insert(0, (others[0], batch.input_ids[others[0], :begin]))
    want = [reference.tokens.lvr_start] + slots * [reference.tokens.lvr] + new[slots:]
    spec = DecodeSpec(latent_steps=slots, start="forced", max_new_tokens=len(want), count_latents=True)
    prompts = reference.prompts(*about)
    for asked, how in ((prompts[-1:], "alone"), (prompts, "in a batch")):
        title, steps = f"decoding S={slots} row {row} {how}", []
        answer = decode(model, asked, spec, tokens=reference.tokens, eos=set(), on_step=steps.append)[-1]
        wrong = unequal(torch.tensor(answer.token_ids), torch.tensor(want))
        if f"{key}.ids" in held:
            wrong += held[f"{key}.ids"][0].tolist() != given.tolist() + new
        yield Check(f"{title}: ids", wrong, 0)
        last = len(asked) - 1
        mine = [(step, step.rows.index(last)) for step in steps if last in step.rows]
        places = torch.stack([step.positions[at] for step, at in mine])
        yield Check(f"{title}: positions", unequal(places, held[f"{key}.step_pos(text,t,h,w)"]), 0)
        latent = [bool(torch.equal(now.inputs[a], before.hidden[b])) for (before, b), (now, a) in pairwise(mine)]
        differs = (latent != stated["latent_step_flags(after prefill)"]) + (sum(latent) != stated["num_latent_inputs"])
        yield Check(f"{title}: previous state fed", differs, 0)
        for name, theirs in (("inputs", "step_in"), ("hidden", "step_hidden")):
            ours = torch.stack([getattr(step, name)[at] for step, at in mine])
            yield Check(f"{title}: {name}", difference(ours, held[f"{key}.{theirs}"]), OUTPUT)


def _parameters(reference: VReflectionReference) -> Iterator[Check]:
    """Table 3(e) at the 7B size, without weights: the sums, and every name and shape where the folder has them."""
    with torch.device("meta"):
        heads = (
            BoxResampler(FULL_SIZE["hidden_size"], FULL_SIZE["latent_steps"]),
            StudentResampler(FULL_SIZE["hidden_size"]),
        )
    count = sum(p.numel() for head in heads for p in head.parameters())
    yield Check(f"parameters at 7B: {count:,}", abs(count - FULL_SIZE["parameters"]), 0)
    stated = reference.manifest.get("heads", {}).get("D3584", {})
    for head, name in zip(heads, ("bcm", "dac"), strict=True):
        if f"{name}_keys" in stated:
            ours = {key: list(value.shape) for key, value in head.state_dict().items()}
            wrong = sum(ours.get(k) != stated[f"{name}_keys"][k] for k in stated[f"{name}_keys"])
            wrong += len(ours) != len(stated[f"{name}_keys"])
            wrong += sum(p.numel() for p in head.parameters()) != stated[name]
            yield Check(f"names and shapes at 7B: {name}", wrong, 0)
    if stated:
        wrong = (count != stated["total"]) + (count * 2 / 2**20 != stated["bf16_MiB"])
        wrong += heads[0].cross_attn.heads != stated["heads"]
        yield Check("sums at 7B as the release has them", wrong, 0)
    mib = round(count * 2 / 2**20, 2)
    yield Check(f"bf16 at 7B: {mib} MiB", abs(mib - FULL_SIZE["bf16_mib"]), 0)
