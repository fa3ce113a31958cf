"""A recipe: every option of the method with a value, each with its source. `models.config` says what the options mean.

The language of names, used by recipes, profiles, rows and `--set` alike: `stage1.p` is one option of one stage; a bare
`p` is that option in every section that has it; `latent_steps` and other recipe-wide options stand alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from harness.spec.errors import unknown
from models.methods.registry import STAGES
from models.methods.stage import StageSpec
from models.schema import ANSWER_PREFIX, Clips, Count, Frozen, Images, Positive, Zoom

if TYPE_CHECKING:
    StageName = str
else:
    StageName = Literal[tuple(STAGES)]
"""Kinds of stage, as rows name them."""


class Decoding(Frozen):
    """How checkpoints are decoded; the part of a `DecodeSpec` that a recipe chooses."""

    latent_steps: Annotated[int, Field(ge=0)] | None = None
    """Of decoding; null = those of training."""
    start: Literal["emitted", "forced", "never"] = "emitted"
    """Read by rows with a latent stage; any other model answers as it does by itself, unless the row says otherwise."""
    end: Literal["emitted", "forced"] = "emitted"
    max_new_tokens: Count = 512
    count_latents: bool = False
    cut_latents: bool = True
    """Whether max_new_tokens may end an answer among its latent steps; read where they count."""
    leave: Literal["steps", "latent", "free"] = "steps"
    """When a latent segment ends, see `DecodeSpec.leave`."""
    leave_distance: Literal["mse", "mae", "cosine"] = "mse"
    leave_below: Positive = 0.02
    max_segments: Count | None = None
    """Latent segments an answer may hold; null = no limit but max_new_tokens."""
    zoom: Zoom = "none"
    """predicted: crop where a first pass says to look, and answer with both; oracle: where the benchmark's annotation says. See
    `DecodeSpec.zoom`."""
    precision: Literal["bf16", "fp32"] = "bf16"


class ClipDecoding(Frozen):
    """What is different where a benchmark asks about clips. latent_steps, start: null = as `decode` says. repetition_penalty: null = as
    the protocol says. answer, prefix, repetition_penalty and no_repeat_ngram are read as `decode.start` is, see `DecodeSpec` for what they mean."""

    latent_steps: Annotated[int, Field(ge=0)] | None = None
    start: Literal["emitted", "forced", "never"] | None = None
    answer: Literal["free", "prefix", "letter"] = "free"
    prefix: Annotated[str, Field(min_length=1)] = ANSWER_PREFIX
    """The words before the letter, as the training data have them. Read unless `answer` is free."""
    repetition_penalty: Positive | None = None
    no_repeat_ngram: Annotated[int, Field(ge=0)] = 0
    zoom: Zoom | None = None
    """Cuts the clip to a span; null = as `decode` says."""


class _Recipe(Frozen):
    """The resolved options of one row: what training and evaluation jobs are made of."""

    latent_steps: Annotated[int, Field(ge=0)] = 8
    """S of training, for stages that have S slots in every segment."""
    max_tokens: Count = 16384
    packing: Literal["packed", "padded"] = "packed"
    extract: Literal["strict", "release"] = "strict"
    """Which reading of an answer a cell counts; both are made from the same outputs and stored."""
    decode: Decoding = Decoding()
    decode_clips: ClipDecoding = ClipDecoding()
    images: Images = Images()
    clips: Clips = Clips()

    @property
    def decoded_steps(self) -> int:
        """Latent steps of decoding: its own, else those of training."""
        return self.latent_steps if self.decode.latent_steps is None else self.decode.latent_steps

    def stage(self, name: str) -> StageSpec:
        """The options of one kind of stage."""
        return getattr(self, name)


if TYPE_CHECKING:
    Recipe = _Recipe
else:
    Recipe = create_model("Recipe", __base__=_Recipe, __doc__=_Recipe.__doc__, **{name: (stage, stage()) for name, stage in STAGES.items()})
"""With a section for every kind of stage, by its name."""


SECTIONS: dict[str, type[Frozen]] = {**STAGES, "decode": Decoding, "decode_clips": ClipDecoding, "images": Images, "clips": Clips}
GLOBAL = tuple(name for name in Recipe.model_fields if name not in SECTIONS)
HEADER = ("extends", "title", "source", "shared", "assumed")
"""Keys of a recipe file that are no options. `extends` names another recipe, of which this one lists what it changes; `shared`
holds options of several stages; `assumed` lists options on which the paper is silent, so that the value is ours."""


def options(section: str) -> tuple[str, ...]:
    """The option names of a section, without the tag that names the stage itself."""
    return tuple(name for name in SECTIONS[section].model_fields if name != "kind")


OPTIONS: dict[str, tuple[str, ...]] = {section: options(section) for section in SECTIONS}


def expand(name: str) -> tuple[str, ...]:
    """The dotted names that `name` stands for. Raises ValueError (`no such field; did you mean …`)."""
    section, dot, option = name.partition(".")
    if dot:
        if section not in SECTIONS:
            raise ValueError(unknown(f'no such section "{section}"', section, list(SECTIONS), "sections"))
        if option not in OPTIONS[section]:
            raise ValueError(unknown("no such field", option, OPTIONS[section], "fields"))
        return (name,)
    if name in GLOBAL:
        return (name,)
    found = tuple(f"{s}.{name}" for s, names in OPTIONS.items() if name in names)
    if not found:
        if name in SECTIONS:
            raise ValueError(f"is a section; name an option in it, as in {name}.{OPTIONS[name][0]}")
        every = dict.fromkeys([*GLOBAL, *SECTIONS, *(o for names in OPTIONS.values() for o in names)])
        raise ValueError(unknown("no such field", name, list(every), "fields"))
    return found


def leaves(data: dict[str, Any], prefix: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    """(path, value) of a mapping whose nested mappings are sections: {stage2: {p: 1}} and {stage2.p: 1} alike."""
    found: list[tuple[tuple[str | int, ...], Any]] = []
    for key, value in data.items():
        if isinstance(value, dict) and value:  # an empty one is no section, and no option's value either
            found += leaves(value, (*prefix, key))
        else:
            found.append(((*prefix, key), value))
    return found
