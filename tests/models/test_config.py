"""Schema defaults are part of every stored result's identity: a changed one changes what old keys mean.

To add a field is free. To change a default here, raise the kind's version in harness/kinds.py.
"""

import pytest
from pydantic import ValidationError

from models.config import (
    CardSpec,
    DecodeSpec,
    EvaluateSpec,
    ExternalMirror,
    ExternalTraining,
    FeaturesSpec,
    Images,
    LinkedMirror,
    MapsSpec,
    MeasureSpec,
    ProxyClipMirror,
    ProxyClips,
    ProxyMirror,
    ProxyTraining,
    ProxyTwins,
    System,
    TimesSpec,
    TrainingSet,
    TrainSpec,
)
from models.methods.lvr.spec import Lvr
from models.methods.sft.spec import Sft, SftVideo
from models.methods.visreflect.spec import ClueFrames, Crops, Reflect, ReflectVideo
from models.methods.vreflection.spec import Joint, Stage1, Stage2
from models.schema import Clips

OPTIMISATION = {
    "steps": 2500, "lr": 1e-5, "weight_decay": 0.1, "decay_norms": False, "warmup_ratio": 0.03, "schedule": "cosine",
    "global_batch": 256, "precision": "bf16", "max_grad_norm": 1.0, "adam_betas": (0.9, 0.999),
}  # fmt: skip
SLOTS = {
    "slot_fill": "teacher", "slot_gradient": "attached", "rollout": "sequential", "self_fed": 0.0, "ce_on_slots": False,
    "region": "roi_align", "roi_bins": 8,
}  # fmt: skip
ALIGNMENT = {"lambda_bcm": 0.1, "align": "bernoulli", "p": 0.5, "granularity": "step", "draw_samples": 4, "bcm_distance": "l1", "bcm_init": "authors", "clamp": 0.0}
DISTILLATION = {
    "lambda_dac": 0.1, "lambda_feat": 1.0, "lambda_attn": 1.0, "dac_distance": "l1", "tau": 1.0, "epsilon": 1e-9,
    "epsilon_in": "both", "query_source": "hidden", "query_shift": 1, "teacher": "stage1",
}  # fmt: skip
IMAGES = {"min_pixels": 100352, "max_pixels": 4014080, "processor": "torchvision", "orientation": "upright"}
DECODE = {
    "latent_steps": 8, "latents": "own", "start": "emitted", "end": "emitted", "max_new_tokens": 512, "count_latents": False,
    "max_segments": None, "repetition_penalty": 1.0, "penalise_picked": False, "ends": "all", "zoom": "none",
    "no_repeat_ngram": 0, "answer": "free", "prefix": "The answer is:", "cut_latents": True, "leave": "steps", "leave_distance": "mse", "leave_below": 0.02,
}  # fmt: skip
FROZEN = {
    Sft: OPTIMISATION | {"kind": "sft"},
    Stage1: OPTIMISATION | SLOTS | ALIGNMENT | {"kind": "stage1"},
    Stage2: OPTIMISATION | SLOTS | DISTILLATION | {"kind": "stage2", "slot_fill": "student"},
    Joint: OPTIMISATION | SLOTS | ALIGNMENT | DISTILLATION | {"kind": "joint", "teacher": "joint"},
    Reflect: OPTIMISATION
    | {"kind": "reflect", "steps": 5000, "weight_decay": 0.0, "lambda_vr": 0.1, "crop_min_tokens": 16, "crop_max_tokens": 128,
       "average": "crop", "crop_rule": "outward", "template": "placeholders", "gradient_scale": 1.0},
    ReflectVideo: OPTIMISATION
    | {"kind": "reflect_video", "steps": 5000, "lr": 1e-6, "weight_decay": 0.0, "global_batch": 8, "lambda_vr": 0.1, "clue_frames": 3,
       "clue_min_tokens": 16, "clue_max_tokens": 64, "passes": "two"},
    ClueFrames: {"most": 3, "min_tokens": 16, "max_tokens": 64},
    Crops: {"min_tokens": 16, "max_tokens": 128, "rule": "outward"},
    Lvr: OPTIMISATION
    | {
        "kind": "lvr", "lambda_lvr": 0.1, "lvr_distance": "mse", "head": "none", "end_marker": True, "latent_end": False,
        "lambda_end": 0.0,
    },
    Images: IMAGES,
    TrainSpec: {
        "latent_steps": 8, "seed": 0, "images": Images(), "vision": "live", "max_tokens": 16384, "packing": "packed", "clips": Clips(),
    },
    Clips: {
        "fps": 1.0, "frames": None, "min_frames": 4, "max_frames": 256, "odd": "nearest", "min_pixels": 128 * 28 * 28, "max_pixels": 256 * 28 * 28,
        "total_pixels": 18000 * 28 * 28, "seconds_per_grid": 1.0, "times": "rate", "orientation": "stored",
    },
    SftVideo: OPTIMISATION | {"kind": "sft_video"},
    ProxyClips: {"source": "proxy_clips", "n": 2700, "seed": 0},
    ProxyClipMirror: {"source": "proxy_clips", "benchmark": "videomme", "n": None, "seed": 0, "split": "test"},
    DecodeSpec: DECODE,
    EvaluateSpec: {"protocol": "paper", "decode": DecodeSpec(), "images": Images(), "precision": "bf16", "seed": 0, "system": None, "fetched": "as_is", "clips": None},
    ProxyTraining: {"source": "proxy", "n": 8000, "seed": 0},
    ExternalTraining: {"source": "external", "surplus_boxes": "skip", "min_usable": 0.9},
    TrainingSet: {
        "source": "external", "commit": None, "surplus_boxes": "skip", "min_usable": 0.9, "images": Images(), "max_tokens": 16384,
        "clips": Clips(),
    },
    ProxyMirror: {"source": "proxy", "n": None, "seed": 0, "split": "test"},
    ExternalMirror: {"source": "external", "revision": "main", "clips": None},
    LinkedMirror: {"source": "external", "tasks": ()},
    System: {"model": None, "arguments": {}},
    FeaturesSpec: {"images": Images(), "clips": None, "crops": None, "clues": None},
    MapsSpec: {
        "benchmark": None, "samples": 6, "latent_steps": 8, "max_new_tokens": 512, "images": Images(), "precision": "bf16",
    },
    CardSpec: {"oracle": False, "n": 400, "images": Images(), "precision": "bf16", "seed": 0},
    ProxyTwins: {"n": 400, "seed": 0, "split": "test"},
    MeasureSpec: {
        "latent_steps": 8, "answers": (10, 20, 30), "prompts": (64,), "context": 1024, "repeats": 20, "precision": "bf16",
        "seed": 0,
    },
    TimesSpec: {"questions": 16, "rounds": 6, "together": 8},
}


@pytest.mark.parametrize("model", FROZEN, ids=lambda model: model.__name__)
def test_a_default_that_keys_leave_out_is_frozen(model):
    fields = model.model_fields
    assert {name: fields[name].default for name in FROZEN[model]} == FROZEN[model]


REFUSED = {
    "a probability": (Stage1, {"p": 1.5}, "less than or equal to 1"),
    "a share": (Stage2, {"self_fed": -0.1}, "greater than or equal to 0"),
    "a weight": (Stage1, {"lambda_bcm": -1}, "greater than or equal to 0"),
    "a temperature": (Stage2, {"tau": 0}, "greater than 0"),
    "bins": (Stage1, {"roi_bins": 0}, "greater than or equal to 1"),
    "steps": (Sft, {"steps": 0}, "greater than or equal to 1"),
    "S": (TrainSpec, {"stage": Stage1(), "latent_steps": -1}, "greater than or equal to 0"),
    "an unknown name": (Stage1, {"lamda_bcm": 1}, "Extra inputs are not permitted"),
    "a shift": (Stage2, {"query_shift": 2}, "Input should be 0 or 1"),
    "a fill from itself": (Stage2, {"query_shift": 0}, "is circular"),
    "a fill from itself in joint training": (Joint, {"slot_fill": "student", "query_shift": 0}, "is circular"),
    "a fill by whom the stage does not train": (Stage1, {"slot_fill": "student"}, "which stage1 does not train; use teacher or hidden"),
    "a first pass from nobody": (Stage2, {"teacher": "none", "rollout": "two_pass"}, "two_pass starts from teacher-filled slots"),
    "a fill from nobody": (Stage2, {"teacher": "none", "slot_fill": "teacher"}, "teacher: none cannot fill the slots"),
    "a frozen teacher in joint training": (Joint, {"teacher": "stage1"}, "Input should be 'joint'"),
    "an end vector without its place": (Lvr, {"latent_end": True, "end_marker": False}, "set end_marker: true"),
    "a distance from no end vector": (Lvr, {"lambda_end": 0.1}, "set latent_end: true, or lambda_end: 0"),
    "a given latent for nobody knows how many steps": (DecodeSpec, {"latents": "oracle", "leave": "free"}, "use leave: steps"),
    "crops of no size": (Reflect, {"crop_min_tokens": 129}, "crop_min_tokens 129 is above crop_max_tokens 128"),
    "clue frames of no size": (ReflectVideo, {"clue_min_tokens": 65}, "clue_min_tokens 65 is above clue_max_tokens 64"),
    "slots of a stage that has crops": (Reflect, {"slot_fill": "teacher"}, "Extra inputs are not permitted"),
    "packed rows filled one after another": (TrainSpec, {"stage": Stage2()}, "packing: packed cannot roll out its slots"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_no_sense_is_refused_with_the_reason(what):
    model, values, reason = REFUSED[what]
    with pytest.raises(ValidationError, match=reason):
        model(**values)
