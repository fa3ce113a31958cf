"""What every schema here is made of, and what a decode is. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Orientation = Literal["upright", "stored"]
Times = Literal["rate", "stamps"]
Zoom = Literal["none", "predicted", "oracle"]


class Frozen(BaseModel):
    """Immutable, and strict about names: an unknown key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Optimisation(Frozen):
    """AdamW with linear warm-up; what every stage shares."""

    steps: Count = 2500
    lr: Positive = 1e-5
    weight_decay: NonNegative = 0.1
    decay_norms: bool = False
    """Apply weight decay to norms and biases too (the release does)."""
    warmup_ratio: Probability = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    global_batch: Count = 256
    """Sequences per optimiser step over all ranks (8 GPUs x 4 instances x 8 accumulation)."""
    precision: Literal["bf16", "fp32"] = "bf16"
    max_grad_norm: Positive = 1.0
    adam_betas: tuple[float, float] = (0.9, 0.999)


class Images(Frozen):
    """How pixels become tokens. The processor backend is pinned: torchvision and PIL differ by up to 0.27 after normalisation."""

    min_pixels: Count = 128 * 28 * 28
    max_pixels: Count = 5120 * 28 * 28
    processor: Literal["torchvision", "pil"] = "torchvision"
    orientation: Orientation = "upright"
    """Of pictures with an EXIF orientation. upright: turned as the tag says, as `datasets` decodes benchmarks' pictures, boxes
    with them (they are drawn on the stored raster); stored: as the raster lies in the file (the release's training)."""


class Clips(Frozen):
    """Which frames of a clip become tokens, and how many. The defaults are those of VisReflect's training."""

    fps: Positive = 1.0
    frames: Count | None = None
    """So many of every clip instead, evenly spaced (lmms-eval: 32); of a shorter one all, less one if they are odd."""
    min_frames: Count = 4
    max_frames: Count = 256
    odd: Literal["nearest", "down"] = "nearest"
    """Frames are taken in pairs. nearest: an odd number goes to the nearest multiple of 2 (release's training); down: to the one
    below (release's evaluation)."""
    min_pixels: Count = 128 * 28 * 28
    """Of a frame."""
    max_pixels: Count = 256 * 28 * 28
    total_pixels: Count = 18000 * 28 * 28
    """Of all pairs of frames: a frame of a long clip becomes smaller, down to 1.05 of `min_pixels` (release: 0.9 of a sequence
    of 20,000 tokens)."""
    seconds_per_grid: Positive | Literal["measured", "sampled"] = 1.0
    """Time from one pair of frames to the next, as mRoPE is told of it. 1.0 whatever the clip: the release; measured: the true
    one, of the frames that were taken; sampled: the clip's length divided by its pairs, as transformers' processor has it."""
    times: Times = "rate"
    """How seconds become frames. rate: number = seconds x the container's mean rate (release); stamps: the frame that is shown at
    that moment by the frames' own presentation times, which differs where the rate varies or the container states a wrong one."""
    orientation: Orientation = "stored"
    """Of films whose container says that frames are to be turned for showing, as phones' do. stored: as frames lie in the file, as
    torchvision reads them; upright: turned in steps of 90 degrees, as players, decord and newer versions of TorchCodec show them."""

    @model_validator(mode="after")
    def _ordered(self) -> Clips:
        for what, least, most in (("frames", self.min_frames, self.max_frames), ("pixels", self.min_pixels, self.max_pixels)):
            if least > most:
                raise ValueError(f"min_{what} {least} is above max_{what} {most}; no clip fits that")
        return self


Latents = Literal["own", "zeroed", "noise", "shuffled", "oracle"]


ANSWER_PREFIX = "The answer is:"
"""What VisReflect's data about clips write before the letter."""


class DecodeSpec(Frozen):
    """Latent decoding: what the model is fed in its S latent steps, and when it stops."""

    latent_steps: Annotated[int, Field(ge=0)] = 8
    latents: Latents = "own"
    """own: previous last hidden state; zeroed; noise: N(0,1) scaled to the own latent's norm; shuffled: another question's;
    oracle: what the true box puts into the slots."""
    start: Literal["emitted", "forced", "never"] = "emitted"
    """Whether the model must emit `<|lvr_start|>` itself, is made to begin with it, or may not (zero steps: no latent segment)."""
    end: Literal["emitted", "forced"] = "emitted"
    """Whether the model must emit `<|lvr_end|>` itself, or it follows the last latent step."""
    max_new_tokens: Count = 512
    count_latents: bool = False
    """Whether latent steps count against max_new_tokens (the release counts them)."""
    cut_latents: bool = True
    """Whether max_new_tokens may end an answer among its latent steps. false: only at a token, as in the loops of LVR's and
    VisReflect's releases. Read where latent steps count."""
    leave: Literal["steps", "latent", "free"] = "steps"
    """When a latent segment ends. steps: after S steps. latent: one step after the state has come within `leave_below` of the
    checkpoint's learned end vector, or after S. free: when the model picks `<|lvr_end|>`, or after S (LVR's release has no
    such limit and need not stop)."""
    leave_distance: Literal["mse", "mae", "cosine"] = "mse"
    """Between a state and the end vector: the mean over D of the square or absolute difference, or 1 - cos."""
    leave_below: Positive = 0.02
    max_segments: Count | None = None
    """Latent segments an answer may hold: a further `<|lvr_start|>` cuts it off. None: as many as max_new_tokens allows,
    each of S + 1 forwards for one token counted."""
    repetition_penalty: Positive | Literal["checkpoint"] = 1.0
    """Divides the positive logits, and multiplies the negative ones, of every id of prompt and answer, as transformers does;
    checkpoint: what the evaluated checkpoint's generation_config.json says."""
    penalise_picked: bool = False
    """Whether an id that the model would pick in a latent step counts as an id of the answer there (it does in the release)."""
    no_repeat_ngram: Annotated[int, Field(ge=0)] = 0
    """Ids in a row, of prompt and answer, that may not occur twice, as transformers does; 0: any (VisReflect's release: 3 for its
    video baseline of zero steps)."""
    answer: Literal["free", "prefix", "letter"] = "free"
    """What may be said behind the latent segment. free: anything; prefix: the text `prefix` and then anything; letter: `prefix`,
    one of the question's letters, and the end (VisReflect's release, for videos)."""
    prefix: Annotated[str, Field(min_length=1)] = ANSWER_PREFIX
    """How a held answer begins: the words that training data put before the letter (here VisReflect's). Read unless `answer` is free."""
    zoom: Zoom = "none"
    """predicted: a pass before the answer asks for a box (of a clip: a span), and the answer is given with the picture cropped (the
    clip cut) there beside the whole; oracle: the annotated box or span is taken, without that pass. A question without one that can
    be used is answered from the whole alone, and counted. predicted, of several pictures: the pass names the picture, too; one about several
    clips, or clips and pictures, is answered from the whole."""
    ends: Literal["all", "tokenizer"] = "all"
    """What ends an answer: the end tokens of generation_config.json and of the tokenizer, or the tokenizer's alone."""

    @model_validator(mode="after")
    def _given_latents(self) -> DecodeSpec:
        if self.leave != "steps" and self.latents in ("shuffled", "oracle"):
            raise ValueError(f"latents: {self.latents} feeds S given latents; use leave: steps instead of {self.leave}")
        return self
