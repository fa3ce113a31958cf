"""VisReflect, its video stage: frames, clue frames, template, one training step of two passes, decoding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from models.backbone.clips import ClipFacts, Frames, chosen, patches_of_clip, pixel_limits
from models.backbone.model import Backbone
from models.backbone.template import ClipGrid, build, encode, positions, tokens_of, user_text
from models.config import DecodeSpec
from models.latent.batch import Batch, Encoded
from models.latent.decoding import decode
from models.latent.losses import IGNORED
from models.latent.prompt import Prompt
from models.latent.script import Script, letter_ids
from models.latent.terms import Terms
from models.latent.twice import TwoPasses
from models.methods.base import with_cross_entropy
from models.methods.visreflect.clues import clue_frames
from models.methods.visreflect.spec import ReflectVideo
from models.methods.visreflect.video import clip_answer, with_own_states
from models.parity import decoding, training
from models.parity.reference import OUTPUT, TINY, Check, Noted, difference, pixels_of, processor_of, unequal
from models.parity.texts import ByteTokenizer
from models.schema import Clips

if TYPE_CHECKING:
    from models.parity.visreflect import VisReflectReference

CELL_PX = 28
GREY_LEVEL = 1 / 255 / 0.26 / 2
WHOLE = (0.0, 0.0, 1.0, 1.0)
EVALUATION = {
    "eval_nframes_fps1_256": Clips(min_frames=1, odd="down"),
    "eval_nframes_fps2_512": Clips(fps=2, max_frames=512, min_frames=1, odd="down"),
}


def checks(reference: VisReflectReference, attention: str, written: Any) -> Iterator[Check]:
    """written: a text of the release -> the same with our markers."""
    stated = reference.manifest
    yield from _clues(stated.get("clue_frames", []))
    yield from _frames(stated.get("context_frames", []))
    yield from _template(stated.get("templates_video", []), written)
    held = reference.part("video")
    if not held:
        return
    yield from _rows(reference, held, written)
    yield from _pictures(reference, held)
    model, named = reference.model(attention), {"ce": "ce", "vr": "align"}
    batch = video_batch(reference)
    yield Check("video: all embeddings of the clue frames", difference(model.encode(held["in.vtk_tokens"], held["in.vtk_grid"], None), held["video.vtk_embeds"]), OUTPUT)
    one = model.stage_terms(batch, ReflectVideo(passes="one"), 1)
    real = batch.attention_mask
    for name, ours in (("inputs_embeds", one.embeds), ("hidden", one.hidden)):
        yield Check(f"video, pass 1: {name}", difference(ours[real].detach(), held[f"video.pass1.{name}"][real]), OUTPUT)
    yield from training.losses(model, one, stated["train"]["video_single_pass"], named, {}, "video_single_pass", "video with one pass")
    both = model.stage_terms(batch, ReflectVideo(), 1)
    yield from training.outputs(model, batch, both, held, "video", "video, pass 2", "pass2.")
    yield from training.losses(model, both, stated["train"]["video"], named, held, "video", "video")
    yield from training.losses(model, without_clues(model, batch), stated["train"]["video_no_clue_frames"], named, {}, "video_no_clue_frames", "video without clue frames")
    passes = {name: stated["train"][name]["lm_passes"] for name in ("video", "video_single_pass", "video_no_clue_frames")}
    yield Check("video: passes", int(passes != {"video": 2, "video_single_pass": 1, "video_no_clue_frames": 2}), 0)
    yield from _decoding(reference, model, written)


def grids_of(held: Noted) -> list[ClipGrid]:
    """Merged grids of the clips."""
    seconds = held["in.second_per_grid_ts"].tolist()
    return [ClipGrid(t, h // 2, w // 2, s) for (t, h, w), s in zip(held["in.video_grid_thw"].tolist(), seconds, strict=True)]


def _base(reference: VisReflectReference, ids: Tensor, labels: Tensor, mask: Tensor) -> dict[str, Any]:
    """Fields of a batch of the two clips."""
    held = reference.part("video")
    grids, place = grids_of(held), torch.zeros(4, *ids.shape, dtype=torch.long)
    for row, own in enumerate(mask):
        real = int(own.sum())
        place[:, row, :real] = positions(ids[row, :real], grids[row : row + 1], reference.ids["<|video_pad|>"])
    return {
        "input_ids": ids, "labels": labels, "position_ids": place, "attention_mask": mask.bool(), "samples": len(ids),
        "image_grids": torch.tensor([grid.stacked for grid in grids]), **_seen(held),
    }  # fmt: skip


def _seen(held: Noted) -> dict[str, Tensor]:
    """Pixels of the clips, or (reduced data) the features that the language model was fed."""
    if "in.pixel_values_videos" in held:
        return {"pixel_values": held["in.pixel_values_videos"], "image_grid_thw": held["in.video_grid_thw"]}
    return {"image_embeds": held["video.pass1.inputs_embeds"][held["in.input_ids"] == TINY.video_token_id]}


def video_batch(reference: VisReflectReference) -> Batch:
    """The training rows with their clue frames."""
    held = reference.part("video")
    fields = _base(reference, held["in.input_ids"], held["in.labels"], held["in.attention_mask"])
    segments = reference.segments(fields["input_ids"], fields["attention_mask"])
    clues = Encoded(values=held["in.vtk_tokens"], grid_thw=held["in.vtk_grid"])
    return Batch(**fields, **segments, boxes=torch.tensor([WHOLE] * len(segments["segment_row"])).double(), encoded={"clues": clues})


def without_clues(model: Backbone, batch: Batch) -> Terms:
    """The release's two passes over rows whose clue frames could not be read: its slots begin as `<VR>`'s own embedding, and
    nothing draws the states towards anything. (This project rejects such a record.)"""
    fed = model.embed(batch.input_ids, model.vision(batch))
    passes = TwoPasses(model, batch)
    fed = with_own_states(batch, fed, passes.first(fed))
    hidden = passes.second(fed)
    return with_cross_entropy(model, batch, Terms({"vr": hidden.new_zeros(())}, {"vr": ReflectVideo().lambda_vr}, {}, hidden, fed, {}))


def _clues(cases: list[dict[str, Any]]) -> Iterator[Check]:
    wrong = sum(clue_frames(c["spans"], ClipFacts(c["total"], c["fps"]), c["n"]) != c["frames"] for c in cases)
    yield Check(f"spans to clue frames, {len(cases)} cases", wrong, 0)


def _frames(cases: list[dict[str, Any]]) -> Iterator[Check]:
    """Which frames, and how large, in training; how many in the evaluation."""
    wrong, clips = 0, Clips()
    for case in cases:
        facts = ClipFacts(case["total_frames"], case["fps"])
        numbers = chosen(facts, clips)
        least, most = pixel_limits(len(numbers), clips)
        size = smart_resize(*case["hw"], CELL_PX, least, most)
        tokens = (len(numbers) + 1) // 2 * size[0] * size[1] // CELL_PX**2
        ours = len(numbers), [numbers[0], numbers[1], numbers[-1]], most, list(size), tokens
        wrong += ours != tuple(case[name] for name in ("nframes", "first_last_idx", "frame_max_pixels", "frame_hw", "tokens"))
        wrong += any(len(chosen(facts, spec)) != case[name] for name, spec in EVALUATION.items())
        wrong += case["settings"] != "fps 1, max_frames 256, 128..256 tokens, max_seq_len 20000"
    yield Check(f"clips to frames, {len(cases)} cases", wrong, 0)


def _template(cases: list[dict[str, Any]], written: Any) -> Iterator[Check]:
    wrong = 0
    for case in cases:
        user = user_text("<video>Q?", [ClipGrid(1, 1, 1, 1.0)])
        wrong += user != case["user"] or clip_answer(case["answer"], [case["tokens"]]) != written(case["assistant"])
    yield Check(f"template strings of clips, {len(cases)} cases", wrong, 0)


def _rows(reference: VisReflectReference, held: Noted, written: Any) -> Iterator[Check]:
    """Ids, labels and mask of the training rows, from the records."""
    stated, grids = reference.manifest["video_batch"], grids_of(held)
    tokenizer, pad, longest = ByteTokenizer(reference.ids), reference.manifest["ids"]["<|endoftext|>"], held["in.input_ids"].shape[1]
    slots = (held["in.vtk_grid"].prod(1) // 4).split([len(own) for own in stated["clue_frame_idx"]])
    wrong = {"input_ids": 0, "labels": 0, "attention_mask": 0}
    for row, (question, answer, _) in enumerate(stated["questions"]):
        turns = [{"from": "human", "value": "<video>" + question}, {"from": "gpt", "value": answer}]
        made = build(tokenizer, reference.tokens, turns, grids[row : row + 1], [WHOLE], latent_steps=[int(slots[row].sum())], write=clip_answer)
        short = longest - len(made)
        for name, ours, rest in (
            ("input_ids", made.input_ids, pad), ("labels", made.labels, IGNORED), ("attention_mask", [1] * len(made), 0)
        ):  # fmt: skip
            wrong[name] += unequal(torch.tensor(ours + short * [rest]), held[f"in.{name}"][row])
        wrong["input_ids"] += encode(tokenizer, written(stated["text"][row])) != made.input_ids
    for name, count in wrong.items():
        yield Check(f"video: {name} of the rows", count, 0)
    same = {"video_grid_thw": "in.video_grid_thw", "vtk_grid": "in.vtk_grid", "second_per_grid_ts": "in.second_per_grid_ts"}
    yield Check("video: grids and seconds are the manifest's", sum(stated[name] != held[tensor].tolist() for name, tensor in same.items()), 0)


def _pictures(reference: VisReflectReference, held: Noted) -> Iterator[Check]:
    """Frames, clue frames and their pixels, from the clips, where the folder has them."""
    stated = reference.manifest["video_batch"]
    if "in.clip_uint8.0" not in held:
        return
    limits, clue_limits = stated["settings_pixels"]["frame"], stated["settings_pixels"]["clue"]
    clips = Clips(fps=stated["fps"], min_pixels=limits[0], max_pixels=limits[1], total_pixels=int(0.9 * stated["max_seq_len"]) * CELL_PX**2)
    sizes = held["in.video_grid_thw"].prod(1).tolist()
    clues, wrong = [], 0
    for at, theirs in enumerate(held["in.pixel_values_videos"].split(sizes)):
        pictures = [Image.fromarray(frame.numpy()) for frame in held[f"in.clip_uint8.{at}"]]
        facts = ClipFacts(len(pictures), stated["fps_of_clip"])
        numbers = chosen(facts, clips)
        own = clue_frames(stated["questions"][at][2], facts, 3)
        wrong += list(numbers) != stated["context_frame_idx"][at] or own != stated["clue_frame_idx"][at]
        frames = Frames(tuple(pictures[number] for number in numbers), numbers, facts, 1.0)
        ours, grid = patches_of_clip(processor_of(*limits), frames, clips)
        wrong += grid.tolist() != held["in.video_grid_thw"][at].tolist()
        yield Check(f"video: pixels of clip {at}, to one grey level", difference(ours, theirs), GREY_LEVEL)
        clues += [pictures[number] for number in own]
        size = smart_resize(pictures[0].height, pictures[0].width, CELL_PX, *clue_limits)
        wrong += list(size) != stated["clue_size_hw"][at]
    yield Check("video: frames, clue frames and sizes", wrong, 0)
    yield Check("video: pixels of the clue frames, to one grey level", difference(pixels_of(clues, *clue_limits), held["in.vtk_tokens"]), GREY_LEVEL)


def _decoding(reference: VisReflectReference, model: Backbone, written: Any) -> Iterator[Check]:
    held = reference.part("generate")
    if "video.in.input_ids" not in held:
        return
    cases, tokenizer, video = reference.manifest["generate"], ByteTokenizer(reference.ids), reference.part("video")
    ids, grids = held["video.in.input_ids"][0], grids_of_prompt(held)
    text = cases["video_prompt_text"]
    made = encode(tokenizer, text.replace("<|video_pad|>", "<|video_pad|>" * tokens_of(grids[0])))
    wrong = unequal(torch.tensor(made), ids) + int((held["video.in.attention_mask"] != 1).sum())
    wrong += cases["video_question_text"] not in text or cases["video_second_per_grid_ts"] != [grids[0].seconds]
    yield Check("decoding, clip: ids of the prompt", wrong, 0)
    same = cases["video_pixels_equal_training_row"] and grids == grids_of(video)[:1]
    yield Check("decoding, clip: it is training row 0's", int(not same), 0)
    grid_thw, seen = video["in.video_grid_thw"][:1], _seen(video)
    seen = {name: value[: {"pixel_values": int(grid_thw.prod()), "image_embeds": tokens_of(grids[0])}.get(name, 1)] for name, value in seen.items()}
    begun = DecodeSpec().prefix
    letters = letter_ids(tokenizer, "ABCDEFGH"[: len(cases["video_choices"])], begun)
    asked = Prompt(ids, letters=letters, image_grids=grids, **seen)
    yield from decoding.prompt_checks(model, asked, reference.tokens, held, "video.", "decoding, clip")
    eos = {reference.ids["<|im_end|>"]}
    script = Script(tuple(encode(tokenizer, begun)), reference.ids["<|im_end|>"])
    yield Check("decoding, clip: the beginning of the answer", int(begun != reference.manifest["constraint"]["prefix"]), 0)
    for name in [name for name in cases if name.startswith("video_steps")]:
        stated = cases[name]
        config, constrained = stated["generation_config"], "constrained" in name
        spec = DecodeSpec(
            latent_steps=stated.get("steps", [0])[0], start="never" if "suppress_tokens" in stated else "emitted",
            end="forced", max_new_tokens=stated.get("max_new_tokens", len(_first(stated["new_ids"]))), count_latents=True, cut_latents=False,
            repetition_penalty=config.get("repetition_penalty", 1.0), no_repeat_ngram=config.get("no_repeat_ngram_size", 0),
            answer="letter" if constrained else "free",
        )  # fmt: skip
        if constrained:
            own = {"script": script, "begin": reference.ids["<|lvr_start|>"]}
            yield from decoding.checks(model, [asked], spec, reference.tokens, eos, stated, held, name, **own)
            forced = spec.model_copy(update={"start": "forced"})
            answer = decode(model, [asked], forced, tokens=reference.tokens, eos=eos, script=script)[0]
            wanted = [reference.tokens.lvr if id == reference.manifest["ids"]["<VR>"] else id for id in _first(stated["new_ids"])]
            yield Check(f"decoding {name}: ids with the start forced", unequal(torch.tensor(answer.token_ids), torch.tensor(wanted)), 0)
        elif "suppress_tokens" in stated:
            yield decoding.baseline(model, asked, spec, reference.tokens, eos, stated, name)
        else:
            yield from decoding.checks(model, [asked], spec, reference.tokens, eos, stated, held, name)
    stated = cases["video_steps4_constrained"]
    yield Check("decoding, clip: allowed ids", _allowed(stated["allowed_ids_by_generated_index"], script, letters, reference), 0)


def grids_of_prompt(held: Noted) -> list[ClipGrid]:
    (t, h, w), seconds = held["video.in.video_grid_thw"][0].tolist(), held["video.in.second_per_grid_ts"][0].item()
    return [ClipGrid(t, h // 2, w // 2, seconds)]


def _first(rows: list) -> list[int]:
    return rows[0] if isinstance(rows[0], list) else rows


def _allowed(theirs: list[list[int]], script: Script, letters: tuple[int, ...], reference: VisReflectReference) -> int:
    """The release's allowed ids behind `<EOR>` and ours, where they differ. It writes `<EOR>` itself, and allows `<VR>` there."""
    held = reference.manifest["ids"]
    begin = 1 + max(at for at, ids in enumerate(theirs) if ids == [held["<VR>"]])
    ours = [script.allowed(said, letters) for said in range(len(theirs) - begin)]
    return sum(sorted(a) != sorted(b) for a, b in zip(ours, theirs[begin:], strict=True)) + (theirs[0] != [held["<BOR>"]])
