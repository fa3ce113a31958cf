"""Does this implementation compute what the authors' release computes? `python -m models.parity DIR` prints a table.

Everything in DIR is compared; what is not is named with the reason, and a tensor that no check knows is a failure. DIR holds reference tensors of the release on tiny random configurations (heads, stage1, stage2, generate .safetensors and
manifest.json). Each check is a maximum difference relative to the largest reference value; outputs and losses must agree
to 1e-5, gradients to 1e-4, in fp32. `--reduce OUT` writes the subset that the tests carry.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2_5_VLConfig

from models.config import DecodeSpec, Stage1, Stage2
from models.vreflection import checkpoint
from models.vreflection.batch import Batch
from models.vreflection.boxes import Cells, box_cells
from models.vreflection.decoding import Prompt, decode
from models.vreflection.model import Terms, VReflection
from models.vreflection.modules import BoxResampler, StudentResampler
from models.vreflection.template import assistant_text, positions, user_text
from models.vreflection.tokens import SpecialTokens

OUTPUT, GRADIENT = 1e-5, 1e-4
STRIDE = 16
"""The reduced data keep every 16th row of a gradient; their names end in `[::16]`."""
SIZE_LIMIT_BYTES = 3_000_000

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

TINY = Qwen2_5_VLConfig(
    text_config={
        "vocab_size": 320, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None,
        "rms_norm_eps": 1e-6,  # as in Qwen2.5-VL's published config; the class's own default, 1e-5, is off by 1e-3
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
    },
    vision_config={
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "window_size": 112,
        "fullatt_block_indexes": [1], "out_hidden_size": 128,
    },
    image_token_id=300, video_token_id=301, vision_start_token_id=302, vision_end_token_id=303,
)  # fmt: skip
"""The reference's tiny Qwen2.5-VL."""

NOT_COMPARED = {
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
"""Pattern of a name in DIR → why no check reads it."""

FULL_SIZE = {"hidden_size": 3584, "latent_steps": 8, "parameters": 102_832_128, "bf16_mib": 196.14}
"""Table 3(e)."""


@dataclass(frozen=True)
class Check:
    """One compared thing. difference: maximum relative difference, or the number of unequal items if tolerance is 0."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance  # NaN fails


class Noted(dict):
    """A dict that knows which of its items were read."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        super().__init__(held)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def unread(self) -> Iterator[str]:
        """Names of what was not read, "outer.inner" for dicts in it."""
        for name, value in self.items():
            if isinstance(value, Noted) and value:
                yield from (f"{name}.{inner}" for inner in value.unread())
            elif name not in self.read:
                yield name


class Reference:
    """The files of DIR, and the release's weights and inputs in our classes."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest = json.loads((self.folder / "manifest.json").read_text(), object_hook=Noted)
        self._held: dict[str, Noted] = {"manifest": self.manifest}
        self.steps = 8
        names = self.manifest["batch"]["ids"]
        self.tokens = SpecialTokens(
            names["lvr_start"], names["lvr"], names["lvr_latent_end"], names["lvr_end"],
            names["image"], names["vision_start"], names["vision_end"],
        )  # fmt: skip

    def tensors(self, name: str) -> Noted:
        """The tensors of NAME.safetensors; empty if the (optional) file is not there."""
        if name not in self._held:
            file = self.folder / f"{name}.safetensors"
            self._held[name] = Noted(load_file(file) if file.exists() else {})
        return self._held[name]

    def unread(self) -> dict[str, str]:
        """"file: name" → why it is not compared, of all that no check has read; "" where nobody knows why."""
        found = {}
        for file, held in self._held.items():
            for name in held.unread():
                full = f"{file}: {name}"
                found[full] = next((why for pattern, why in NOT_COMPARED.items() if fnmatchcase(full, pattern)), "")
        return found

    @cached_property
    def stage1(self) -> dict[str, Tensor]:
        return self.tensors("stage1")

    @cached_property
    def stage2(self) -> dict[str, Tensor]:
        return self.tensors("stage2")

    def model(self, attn_implementation: str = "eager") -> VReflection:
        """The tiny model with the release's weights, through a checkpoint folder as any other."""
        weights = {k[2:]: held[k] for held in (self.stage1, self.stage2) for k in held if k.startswith("w.")}
        with tempfile.TemporaryDirectory() as folder:
            TINY.save_pretrained(folder)
            save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
            return checkpoint.load(
                folder, heads={"bcm", "dac"}, latent_steps=self.steps, dtype=torch.float32,
                attn_implementation=attn_implementation,
            )  # fmt: skip

    def batch(self) -> Batch:
        """The two right-padded rows with three boxes."""
        ids, mask = self.stage1["in.input_ids"], self.stage1["in.attention_mask"].bool()
        grid_thw = self.stage1["in.image_grid_thw"]
        grids = grid_thw[:, 1:] // 2
        place = torch.zeros(4, *ids.shape, dtype=torch.long)
        for row, own in enumerate(mask):
            real = int(own.sum())
            place[:, row, :real] = positions(ids[row, :real], grids[row : row + 1], self.tokens.image)
        row, column = (ids == self.tokens.lvr_start).nonzero(as_tuple=True)
        boxes = torch.tensor([box for own in self.manifest["batch"]["boxes"] for box in own], dtype=torch.float64)
        return Batch(
            input_ids=ids, labels=self.stage1["in.labels"], position_ids=place, attention_mask=mask, image_grids=grids,
            segment_row=row, segment_start=column + 1, segment_image=row, segment_sample=row, boxes=boxes, samples=len(ids),
            **self.vision(),
        )  # fmt: skip

    def vision(self) -> dict[str, Tensor]:
        """Pixels, or (reduced data) the release's features."""
        if "in.pixel_values" in self.stage1:
            return {"pixel_values": self.stage1["in.pixel_values"], "image_grid_thw": self.stage1["in.image_grid_thw"]}
        return {"image_embeds": self.stage1["mse.image_embeds.0"]}

    def prompts(self, first: Tensor, second: Tensor) -> list[Prompt]:
        """Two token sequences as prompts about the first and the second image."""
        grid_thw = self.stage1["in.image_grid_thw"]
        live = "in.pixel_values" in self.stage1
        (name, values), *_ = self.vision().items()
        parts = values.split((grid_thw.prod(1) // (1 if live else 4)).tolist())
        return [
            Prompt(ids, image_grid_thw=grid_thw[at : at + 1], **{name: part})
            for at, (ids, part) in enumerate(zip((first, second), parts))
        ]


def checks(reference: Reference, attn_implementation: str = "eager") -> Iterator[Check]:
    """Every check that the reference's files allow; the last one is that nothing in them was passed over."""
    yield from _heads(reference)
    yield from _boxes(reference)
    yield from _template(reference)
    yield from _answers(reference)
    model = reference.model(attn_implementation)
    yield from _stage1(reference, model)
    yield from _stage2(reference, model)
    yield from _decoding(reference, model)
    yield from _parameters(reference)
    unknown = sorted(name for name, why in reference.unread().items() if not why)
    yield Check(f"nothing passed over{': ' * bool(unknown)}{', '.join(unknown)}", len(unknown), 0)


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def _heads(reference: Reference) -> Iterator[Check]:
    held = reference.tensors("heads")
    for width in sorted({int(name[1 : name.index(".")]) for name in held}):
        part = {k.split(".", 1)[1]: held[k] for k in held if k.startswith(f"D{width}.") and ".out." not in k}
        bcm, dac = BoxResampler(width, reference.steps), StudentResampler(width)
        bcm.load_state_dict({k[4:]: v for k, v in part.items() if k.startswith("bcm.")})
        dac.load_state_dict({k[4:]: v for k, v in part.items() if k.startswith("dac.")})
        with torch.no_grad():
            z_t, a_t = bcm(part["in.feats"], ~part["in.key_padding"])
            z_s, a_s, _ = dac(part["in.H"], part["in.global"], ~part["in.global_padding"])
        for name, ours in (("Z_T", z_t), ("Z_T_noattn", z_t), ("A_T", a_t), ("Z_S", z_s), ("A_S", a_s)):
            yield Check(f"heads D={width}: {name}", _difference(ours, held[f"D{width}.out.{name}"]), OUTPUT)
        stated = reference.manifest["heads"][f"D{width}"]
        counts = [sum(p.numel() for p in head.parameters()) for head in (bcm, dac)]
        unequal = sum(ours != stated[name] for ours, name in zip(counts, ("bcm_params", "dac_params"), strict=True))
        yield Check(f"heads D={width}: parameters {counts}", unequal + (bcm.cross_attn.heads != stated["heads"]), 0)


def _boxes(reference: Reference) -> Iterator[Check]:
    wrong = 0
    cases = reference.manifest["box_to_tokens"]
    for case in cases:
        grids = torch.tensor([case["grid"][1:]]) // 2
        cells = Cells.of(grids, torch.tensor([0]))
        inside = box_cells(torch.tensor([case["box"]], dtype=torch.float64), cells)
        wrong += inside[0].nonzero()[:, 0].tolist() != case["idx"]
    yield Check(f"box to tokens, {len(cases)} cases", wrong, 0)


def _template(reference: Reference) -> Iterator[Check]:
    held = reference.manifest["template"]
    human, gpt = (message["value"] for message in held["in"])
    want_user, want_answer = (message["content"] for message in held["fixed8"])
    two = held["text before <lvr> is dropped"][0]["content"]
    wrong = (user_text(human, [(1, 1)]) != want_user) + (assistant_text(gpt, 8) != want_answer)
    wrong += assistant_text("I look <lvr> and <lvr> so x", 2) != two
    yield Check("template strings", wrong, 0)


def _answers(reference: Reference) -> Iterator[Check]:
    """How the release reads answers, its errors included (`extract: release`)."""
    from models.evaluation.extract import read_release

    cases = reference.manifest.get("answers", [])
    wrong = sum(read_release(case["response"]) != case["release reads"] for case in cases)
    yield Check(f"reading answers, {len(cases)} cases", wrong, 0)


def _stage1(reference: Reference, model: VReflection) -> Iterator[Check]:
    held, batch = reference.stage1, reference.batch()
    real = batch.attention_mask
    theirs = held["mse.position_ids.0"][:, real]
    yield Check("mRoPE positions", int((batch.position_ids[1:, real] != theirs).sum()), 0)
    terms = model.stage_terms(batch, RELEASE_STAGE1, reference.steps)
    yield from _language(terms, held, "mse", "stage 1", real)
    yield from _features(model, batch, held, "mse", "stage 1")
    cells = [own.nonzero()[:, 0].tolist() for own in terms.latents["box_mask"]]
    wanted = reference.manifest["batch"]["lvr_tokens"]
    yield Check("stage 1: tokens under the boxes", sum(a != b for a, b in zip(cells, wanted, strict=True)), 0)
    for call in (0, 1):
        name = f"mse.box_feature_resampler.{call}"
        if name in held:
            yield Check(f"stage 1: Z_T, call {call}", _difference(terms.latents["z_t"], held[name]), OUTPUT)
    logits = model.lm_head(terms.hidden[real])
    if "mse.logits" in held:
        yield Check("stage 1: logits", _difference(logits, held["mse.logits"][real]), OUTPUT)
    scalars = reference.manifest["stage1"]["mse"]
    for part, name in (("ce", "loss_ce"), ("bcm", "loss_lvr_resampler")):
        yield from _loss(model, terms.losses[part], scalars, name, held, "mse", f"stage 1: {part}")


def _features(model: VReflection, batch: Batch, held: Noted, prefix: str, title: str) -> Iterator[Check]:
    """F_global of the vision tower; in the reduced data the features are an input."""
    name = f"{prefix}.image_embeds.0"
    if name in held:
        yield Check(f"{title}: F_global", _difference(model.vision(batch), held[name]), OUTPUT)


def _stage2(reference: Reference, model: VReflection) -> Iterator[Check]:
    held, batch = reference.stage2, reference.batch()
    terms = model.stage_terms(batch, RELEASE_STAGE2, reference.steps)
    real = batch.attention_mask
    yield from _language(terms, held, "s2", "stage 2", real)
    yield from _features(model, batch, held, "s2", "stage 2")
    if "s2.position_ids.0" in held:
        unequal = int((batch.position_ids[1:, real] != held["s2.position_ids.0"][:, real]).sum())
        yield Check("stage 2: mRoPE positions", unequal, 0)
    if "s2.logits" in held:
        yield Check("stage 2: logits", _difference(model.lm_head(terms.hidden[real]), held["s2.logits"][real]), OUTPUT)
    for name in ("box_feature_resampler.0", "box_feature_resampler.1.0"):
        if f"s2.{name}" in held:
            yield Check(f"stage 2: Z_T, {name}", _difference(terms.latents["z_t"], held[f"s2.{name}"]), OUTPUT)
    inside = terms.latents["box_mask"]
    ours = torch.cat([a[:, own].flatten() for a, own in zip(terms.latents["a_t"], inside, strict=True)])
    local = held["s2.box_feature_resampler.1.1"]
    theirs = torch.cat([a[:, : int(own.sum())].flatten() for a, own in zip(local, inside, strict=True)])
    yield Check("stage 2: A_T in the box", _difference(ours, theirs), OUTPUT)
    for ours, name in (
        ("z_s", "student_resampler.0.0"),
        ("a_s", "student_resampler.0.1"),
        ("a_t", "aligned_teacher_attn.0"),
    ):
        yield Check(f"stage 2: {ours}", _difference(terms.latents[ours], held[f"s2.{name}"]), OUTPUT)
    scalars = reference.manifest["stage2"]["mse"]
    want = torch.tensor(scalars["loss_attn_transfer"])
    yield Check("stage 2: KL", _difference(terms.losses["dac_attn"].detach(), want), OUTPUT)
    total = terms.losses["dac_feat"] + terms.losses["dac_attn"]
    yield from _loss(model, terms.losses["ce"], scalars, "loss_ce", held, "s2", "stage 2: ce")
    yield from _loss(model, total, scalars, "loss_lvr_resampler", held, "s2", "stage 2: dac")


def _language(terms: Terms, held: dict[str, Tensor], prefix: str, title: str, real: Tensor) -> Iterator[Check]:
    for name, ours in (("inputs_embeds", terms.embeds), ("hidden", terms.hidden)):
        yield Check(f"{title}: {name}", _difference(ours[real], held[f"{prefix}.{name}.0"][real]), OUTPUT)


def _loss(model, loss: Tensor, scalars: dict, name: str, held: dict, prefix: str, title: str) -> Iterator[Check]:
    """The loss, its gradients where DIR holds them, and the norms of gradients (None: no gradient at all)."""
    yield Check(f"{title} loss", _difference(loss.detach(), torch.tensor(scalars[name])), OUTPUT)
    parameters = dict(model.named_parameters())
    norms = {k.split(f"{name}.", 1)[1]: scalars[k] for k in scalars if k.startswith(f"grad_l2.{name}.")}
    found = torch.autograd.grad(loss, [parameters[k] for k in norms], retain_graph=True, allow_unused=True)
    gradients = dict(zip(norms, found))
    stray = [k for k, norm in norms.items() if (norm is None) != (gradients[k] is None or not gradients[k].any())]
    yield Check(f"{title}: parameters without gradient", len(stray), 0)
    for parameter, norm in norms.items():
        if norm is None:
            continue
        ours = gradients[parameter]
        short = parameter.removeprefix("model.language_model.")
        yield Check(f"{title} grad norm {short}", _difference(ours.norm(), torch.tensor(norm)), GRADIENT)
        key = f"{prefix}.grad.{name}.{parameter}"
        if key in held:
            yield Check(f"{title} grad {short}", _difference(ours, held[key]), GRADIENT)
        elif f"{key}[::{STRIDE}]" in held:
            yield Check(f"{title} grad {short}", _difference(ours[::STRIDE], held[f"{key}[::{STRIDE}]"]), GRADIENT)


def _decoding(reference: Reference, model: VReflection) -> Iterator[Check]:
    held, batch = reference.tensors("generate"), reference.batch()
    for name in ("pixel_values", "image_grid_thw"):
        if name in held:
            unequal = not torch.equal(held[name], reference.stage1[f"in.{name}"])
            yield Check(f"decoding: {name} are those of training", int(unequal), 0)
    other = batch.input_ids[1, : int(batch.segment_start[1]) - 1]  # the second row up to its first latent segment
    for key in ("S8.row0", "S1.row0"):
        slots, new = int(key[1]), reference.manifest["generate"][key]["new_ids"]
        # The release's prompt ends with the start token, and its new ids hold a meaningless one for each latent step.
        prompt, second = reference.prompts(held[f"{key}.prompt"][0, :-1], other)
        want = [reference.tokens.lvr_start] + slots * [reference.tokens.lvr] + new[slots:]
        spec = DecodeSpec(latent_steps=slots, start="forced", max_new_tokens=len(want), count_latents=True)
        for prompts, title in (([prompt], "alone"), ([second, prompt], "in a batch")):
            steps = []
            answer = decode(model, prompts, spec, tokens=reference.tokens, eos=set(), on_step=steps.append)[-1]
            wrong = sum(a != b for a, b in zip(answer.token_ids, want, strict=True))
            if f"{key}.ids" in held:
                wrong += held[f"{key}.ids"][0].tolist() != held[f"{key}.prompt"][0].tolist() + new
            yield Check(f"decoding S={slots} {title}: ids", wrong, 0)
            last = len(prompts) - 1
            mine = [(step, step.rows.index(last)) for step in steps if last in step.rows]
            places = torch.stack([step.positions[at] for step, at in mine])
            unequal = int((places != held[f"{key}.step_pos(text,t,h,w)"]).sum())
            yield Check(f"decoding S={slots} {title}: positions", unequal, 0)
            latent = [bool(torch.equal(now.inputs[a], before.hidden[b])) for (before, b), (now, a) in pairwise(mine)]
            stated = reference.manifest["generate"][key]
            unequal = (latent != stated["latent_step_flags(after prefill)"]) + (sum(latent) != stated["num_latent_inputs"])
            yield Check(f"decoding S={slots} {title}: previous state fed", unequal, 0)
            for name, theirs in (("inputs", "step_in"), ("hidden", "step_hidden")):
                ours = torch.stack([getattr(step, name)[at] for step, at in mine])
                yield Check(f"decoding S={slots} {title}: {name}", _difference(ours, held[f"{key}.{theirs}"]), OUTPUT)


def _parameters(reference: Reference) -> Iterator[Check]:
    """Table 3(e) at the 7B size, without weights: the sums, and every name and shape where DIR has them."""
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
            unequal = sum(ours.get(k) != stated[f"{name}_keys"][k] for k in stated[f"{name}_keys"])
            unequal += len(ours) != len(stated[f"{name}_keys"])
            unequal += sum(p.numel() for p in head.parameters()) != stated[name]
            yield Check(f"names and shapes at 7B: {name}", unequal, 0)
    if stated:
        unequal = (count != stated["total"]) + (count * 2 / 2**20 != stated["bf16_MiB"]) + (heads[0].cross_attn.heads != stated["heads"])
        yield Check("sums at 7B as the release has them", unequal, 0)
    mib = round(count * 2 / 2**20, 2)
    yield Check(f"bf16 at 7B: {mib} MiB", abs(mib - FULL_SIZE["bf16_mib"]), 0)


def reduce(folder: Path | str, out: Path | str) -> int:
    """Write the subset of `folder` that the tests carry to `out`; returns its bytes. Weights and outputs are whole."""
    source, out = Reference(folder), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name, prefix, left_out in (
        ("stage1", "mse", ("in.pixel_values", "logits", "box_feature_resampler.0")),
        ("stage2", "s2", ("logits", "image_embeds.0", "box_feature_resampler.0", "position_ids.0")),
        ("generate", "", ("image_grid_thw", "pixel_values", ".ids")),
    ):
        kept = {}
        for key, tensor in source.tensors(name).items():
            if key.startswith(f"{prefix}.grad."):
                short = tensor[::STRIDE] if tensor.dim() == 2 else tensor
                kept[f"{key}[::{STRIDE}]" if tensor.dim() == 2 else key] = short.contiguous()
            elif not key.endswith(left_out):
                kept[key] = tensor
        save_file(kept, out / f"{name}.safetensors")
    names = (
        "torch",
        "transformers",
        "release_commit",
        "batch",
        "stage1",
        "stage2",
        "generate",
        "box_to_tokens",
        "template",
        "answers",
    )
    manifest = {key: source.manifest[key] for key in names}
    (out / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n")
    size = sum(file.stat().st_size for file in out.iterdir())
    if size > SIZE_LIMIT_BYTES:
        raise ValueError(f"the reduced data have {size} bytes, more than {SIZE_LIMIT_BYTES}")
    return size


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.parity", description=__doc__.split("\n")[0])
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument(
        "--attention", choices=["eager", "sdpa"], default="eager", help="implementation to check (eager)"
    )
    parser.add_argument("--reduce", metavar="OUT", type=Path, help="write the tests' subset of DIR instead of checking")
    options = parser.parse_args(arguments)
    if options.reduce:
        print(f"{reduce(options.folder, options.reduce)} bytes in {options.reduce}")
        return 0
    failed, reference = 0, Reference(options.folder)
    for check in checks(reference, options.attention):
        failed += not check.passed
        verdict = "ok" if check.passed else "FAILED"
        print(f"{check.name:78s} {check.difference:9.2e}  (at most {check.tolerance:.0e})  {verdict}", flush=True)
    for reason, names in sorted(_by_reason(reference.unread()).items()):
        print(f"not compared: {names} ({reason})")
    print("all agree" if not failed else f"{failed} checks failed")
    return 1 if failed else 0


def _by_reason(unread: Mapping[str, str]) -> dict[str, str]:
    """Reason → what it holds for, in a few words."""
    found: dict[str, list[str]] = {}
    for name, why in sorted(unread.items()):
        found.setdefault(why, []).append(name)
    return {why: ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3) for why, names in found.items() if why}


if __name__ == "__main__":
    sys.exit(main())
