"""Where teacher and student look: attention maps on training samples, and while the model answers.

On training samples (Figures 3, 5) the slots hold the teacher's latents (fed) or the model's own states (free). While it
answers (Figures 4, 6-8) the model generates as in evaluation; the states of its latent steps are logged and the DAC, which
plays no part in decoding, is asked with them afterwards. The maps are of what happened, not of a second pass.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.backbone import checkpoint as checkpoints
from models.backbone.images import load_image_processor
from models.backbone.model import Backbone
from models.backbone.pictures import Unreadable
from models.config import DecodeSpec, MapsSpec, TrainSpec
from models.evaluation.engine import Engine
from models.evaluation.extract import read_strict
from models.evaluation.questions import MirrorQuestion, boxes_of, number_of_questions, read_questions
from models.evaluation.tasks import tasks_for
from models.evaluation.tasks.paper import paper_prompt
from models.latent.boxes import Cells, box_cells
from models.latent.decoding import decode
from models.latent.prompt import Prompt
from models.loading import load
from models.methods.vreflection.method import region_of
from models.methods.vreflection.modules import BCM, DAC
from models.run import Interrupted, Run
from models.training.collate import Collator
from models.training.data import Sample, read_samples
from models.training.pixels import Live

LARGEST_AREA = 0.25
"""Boxes of more than this share of the picture show little: such samples are passed over."""


def attention_maps(
    run: Run, spec: MapsSpec, *, checkpoint: Path, source: Path, attention: str = "sdpa"
) -> dict[str, Any]:
    """Write attention.npz, maps.json and pictures/ to run.out; returns what maps.json holds.

    source: a training set's folder, or with spec.benchmark its mirror. Arrays are [S, H, W] float32 under
    "<number>.<who>"; who is teacher, student_fed, student_free (training) or teacher, student (answering). A checkpoint
    without a head has no maps of it. attention: transformers' name of the language model's. ValueError when it has neither.
    """
    torch.set_num_threads(run.threads)
    engine = Engine(
        checkpoint, device=run.device, threads=run.threads, precision=spec.precision, attention=attention
    )
    engine.model = _with_heads(checkpoint, spec, engine.model, attention)
    (run.out / "pictures").mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        found = _training(engine, spec, source) if spec.benchmark is None else _answering(run, engine, spec, source)
    arrays, rows = {}, []
    for number, (facts, picture, maps) in enumerate(found):
        file = f"pictures/{number}.png"
        picture.save(run.out / file)
        inside = facts.pop("inside").cpu()
        maps = {who: values.float().cpu() for who, values in maps.items()}
        for who, values in maps.items():
            arrays[f"{number}.{who}"] = values.numpy().reshape(-1, *facts["grid"]).astype(np.float32)
        mass = {who: (values * inside).sum(-1).mean().item() for who, values in maps.items()}
        rows.append({"picture": file, **facts, "in_box": mass, "box_area": inside.float().mean().item()})
        run.log(number + 1, len(found))
    np.savez_compressed(run.out / "attention.npz", **arrays)
    written = {"benchmark": spec.benchmark, "checkpoint": Path(checkpoint).name, "samples": rows}
    (run.out / "maps.json").write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    return written


def _with_heads(checkpoint: Path, spec: MapsSpec, loaded: Backbone, attention: str) -> Backbone:
    """The checkpoint again, with whichever of BCM and DAC its training had."""
    facts = checkpoints.facts(checkpoint)
    if "spec" not in facts:
        raise ValueError(f"{checkpoint} was not trained here: it has neither BCM nor DAC to show")
    spec_of = TrainSpec.model_validate(facts["spec"])
    heads = spec_of.stage.method(spec_of.latent_steps).modules() & {"bcm", "dac"}
    if not heads:
        raise ValueError(f"{checkpoint} has neither BCM nor DAC: it has no attention over a box or a picture to show")
    model = load(
        checkpoint, heads=heads, latent_steps=spec.latent_steps, dtype=loaded.dtype, attn_implementation=attention
    )
    return model.to(loaded.device)


def _training(engine: Engine, spec: MapsSpec, data: Path) -> list[tuple[dict[str, Any], Image.Image, dict[str, Tensor]]]:
    model, stage = engine.model, TrainSpec.model_validate(checkpoints.facts(engine.checkpoint)["spec"]).stage
    samples = read_samples(Path(data), orientation=spec.images.orientation)
    chosen = []
    for number in _spread(len(samples)):
        sample = samples[number]
        if not _readable(sample):
            continue
        if len(sample.images) == 1 and len(sample.boxes) == 1 and _area(sample.boxes[0]) <= LARGEST_AREA:
            chosen.append(sample)
        if len(chosen) == spec.samples:
            break
    collator = Collator(
        engine.tokenizer, Live(load_image_processor(engine.checkpoint, spec.images)), packing="padded",
        slots=stage.slots(spec.latent_steps),
    )  # fmt: skip
    batch = collator(chosen).batch.to(model.device)
    plain = {"rollout": "sequential", "self_fed": 0.0, "slot_gradient": "detached"}
    ways = {"free": "hidden"} | ({"fed": "teacher"} if model.head(BCM) is not None else {})
    moved = torch.tensor(True)
    outs = {
        name: model(
            batch=batch, stage=stage.model_copy(update=plain | {"slot_fill": fill}), latent_steps=spec.latent_steps,
            indicator=moved if getattr(stage, "granularity", "step") == "step" else moved.expand(len(batch)),
            generator=torch.Generator().manual_seed(0),
        )
        for name, fill in ways.items()
    }  # fmt: skip
    any_out = next(iter(outs.values()))
    found = []
    for number, sample in enumerate(chosen):
        height, width = batch.image_grids[number].tolist()
        cells = height * width
        maps = {f"student_{name}": out.a_s[number, :, :cells] for name, out in outs.items() if out.a_s is not None}
        if any_out.a_t is not None:
            maps = {"teacher": any_out.a_t[number, :, :cells]} | maps
        human, gpt = (next(t["value"] for t in sample.conversations if t["from"] == who) for who in ("human", "gpt"))
        facts = {
            "sample": sample.id, "grid": [height, width], "boxes": [list(sample.boxes[0])],
            "question": human.replace("<image>", "").strip(), "answer": gpt.replace("<lvr>", "").strip(),
            "inside": any_out.box_mask[number, :cells],
        }  # fmt: skip
        found.append((facts, sample.images[0].open(), maps))
    return found


def _answering(
    run: Run, engine: Engine, spec: MapsSpec, mirror: Path
) -> list[tuple[dict[str, Any], Image.Image, dict[str, Tensor]]]:
    task = tasks_for(spec.benchmark)[0]
    asked = _questions(Path(mirror), spec.benchmark, task, spec.samples)
    decoding = DecodeSpec(latent_steps=spec.latent_steps, max_new_tokens=spec.max_new_tokens)
    model, found = engine.model, []
    stage = TrainSpec.model_validate(checkpoints.facts(engine.checkpoint)["spec"]).stage
    for doc_id, one in asked.items():
        if run.should_stop():
            raise Interrupted(f"{len(found)} of {len(asked)} questions answered")
        parts = [{"type": "image", "url": picture} for picture in one.images]
        text = paper_prompt(one.text, list(one.options))
        message = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
        (question,) = engine.prepare([message], spec.images, [lambda one=one: list(one.images)])
        held = engine.features_of([question], spec.images)
        features = [held[key] for key in question.images]
        prompt = Prompt(question.input_ids, question.grids, torch.cat(features).to(model.device))
        (given,) = decode(model, [prompt], decoding, tokens=engine.tokens, eos=engine.eos[decoding.ends], keep_latents=True)
        height, width = question.grids[0].tolist()
        boxes = torch.tensor([box[1:] for box in one.boxes if box[0] == 0], dtype=torch.float64)[:1]
        cells = Cells.of(question.grids[:1], torch.zeros(1, dtype=torch.long))
        inside = box_cells(boxes, cells)
        here = features[0].to(device=model.device, dtype=model.dtype)
        maps: dict[str, Tensor] = {}
        if model.head(BCM) is not None:
            region = region_of(here.cpu(), cells, boxes, inside, stage.region, stage.roi_bins)
            region.features = region.features.to(model.device)
            _, attention = model.box_feature_resampler(region.features, region.mask)
            maps["teacher"] = region.spread(attention.cpu())[0]
        if model.head(DAC) is not None and given.hidden is not None and len(given.hidden) >= spec.latent_steps:
            queries = given.hidden[: spec.latent_steps][None].to(model.dtype)
            maps["student"] = model.student_resampler(queries, here[None])[1][0]
        response = engine.tokenizer.decode(given.token_ids, skip_special_tokens=False)
        facts = {
            "sample": f"{task}:{doc_id}", "grid": [height, width], "boxes": boxes.tolist(), "question": one.text,
            "options": list(one.options), "answer": one.target, "prediction": read_strict(response, one.options),
            "response": response, "latent_steps": given.latent_steps, "inside": inside[0],
        }  # fmt: skip
        found.append((facts, one.images[0], maps))
    return found


def _questions(mirror: Path, benchmark: str, task: str, wanted: int) -> dict[int, MirrorQuestion]:
    """Questions with a box in their first picture that is no larger than LARGEST_AREA, evenly spread."""
    boxes = boxes_of(mirror, task)
    chosen = [
        doc_id
        for doc_id in _spread(number_of_questions(mirror, task))
        if (own := boxes.get(doc_id)) and own[0][0] == 0 and _area(own[0][1:]) <= LARGEST_AREA
    ][:wanted]
    if not chosen:
        raise ValueError(f"{benchmark}: no question has an evidence box of at most {LARGEST_AREA:.0%} of its picture")
    return read_questions(mirror, benchmark, task, chosen)


def _readable(sample: Sample) -> bool:
    try:
        return bool([file.open() for file in sample.images])
    except Unreadable:
        return False


def _spread(count: int) -> list[int]:
    """0..count-1 so that any first few of them are spread over the whole range (a van der Corput order)."""
    bits = max(1, (count - 1).bit_length())
    order = (int(f"{at:0{bits}b}"[::-1], 2) for at in range(1 << bits))
    return [at for at in order if at < count]


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
