"""One table or figure of a paper, as a person writes it: columns, rows, what was reported, what the text claims."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from harness.characters import shown
from harness.spec.benchmark import Protocol
from harness.spec.claims import Claim
from harness.spec.comparisons import Declared
from harness.spec.errors import show
from harness.spec.recipe import StageName
from harness.spec.reported import ReportedValue
from models.schema import Count, Frozen, Latents, NonNegative

LONGEST_NAME = 60
_FILE_NAME = re.compile(rf"[A-Za-z0-9]([A-Za-z0-9 ._+()-]{{0,{LONGEST_NAME - 2}}}[A-Za-z0-9_+)-])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GIVEN = ("api_key", "base_url", "device", "device_map", "model", "model_version", "num_concurrent", "pretrained")
"""Arguments of lmms-eval's models that a row or a machine gives otherwise."""
_MEANING = {
    "model": "the name to ask for there, as in model: gpt-4o-2024-08-06",
    "adapter": "the lmms-eval model that runs it, as in adapter: internvl3",
}


LONGEST_LABEL = 160
"""Characters of a row's label: a cell of a table, not a paragraph."""


def file_name(text: str) -> str:
    """The text, which becomes part of a file's name in the reports. ValueError for one that could lead elsewhere."""
    if ".." in text or not _FILE_NAME.fullmatch(text):
        raise ValueError(
            f"{show(shown(text, keep=''))} cannot be part of a report's file name; use letters, digits, spaces, . _ + ( ) - "
            f"({LONGEST_NAME} characters at most, a letter or digit first)"
        )
    return text


FileName = Annotated[str, AfterValidator(file_name)]


class Column(Frozen):
    """One score of one benchmark. Written `blink` or `blink.counting`, or as a mapping with a title of its own."""

    benchmark: FileName
    score: str = "overall"
    title: str = ""

    @property
    def name(self) -> str:
        """As written: `blink`, `blink.counting`."""
        return self.benchmark if self.score == "overall" else f"{self.benchmark}.{self.score}"

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        benchmark, _, score = value.partition(".")
        return {"benchmark": benchmark, "score": score or "overall"}


class External(Frozen):
    """A system that this project does not train. One of four ways:

    endpoint, model: a server that speaks OpenAI's chat-completions protocol, and the name asked for there. `endpoint` and
    `key` are the *names* of the environment variables that hold its address and its key.
    repo, adapter: a checkpoint on the hub, run by lmms-eval's model of that name. revision: a commit; left out, the one
    that the hub's cache on this machine holds as `main`.
    checkpoint, adapter: the same from a folder, relative to the experiment's.
    not_run: why it cannot be evaluated at all.

    arguments: of lmms-eval's model (`--model_args`), where its own defaults are not what is meant.
    """

    endpoint: str | None = None
    key: str = "OPENAI_API_KEY"
    model: str | None = None
    repo: str | None = None
    revision: str | None = None
    checkpoint: str | None = None
    adapter: str | None = None
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    not_run: str | None = None

    @field_validator("endpoint", "key")
    @classmethod
    def _a_variable(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            example = "OPENAI_BASE_URL" if info.field_name == "endpoint" else "OPENAI_API_KEY"
            raise ValueError(
                f"must be the name of an environment variable, as in {info.field_name}: {example}; "
                "addresses and keys stand in no file"
            )
        return value

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := [name for name in value if name in _GIVEN]:
            raise ValueError(f"{', '.join(taken)}: is given by the row's other fields, the environment or the profile")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> External:
        ways = [name for name in ("endpoint", "repo", "checkpoint", "not_run") if getattr(self, name)]
        if len(ways) != 1:
            have = f"has {' and '.join(ways)}" if ways else "has none"
            raise ValueError(f"needs one of endpoint, repo, checkpoint, not_run; it {have}")
        wanted = {"endpoint": "model", "repo": "adapter", "checkpoint": "adapter"}.get(ways[0])
        if wanted and not getattr(self, wanted):
            raise ValueError(f"{ways[0]}: needs {wanted}: too, {_MEANING[wanted]}")
        for name, way in (("model", "endpoint"), ("revision", "repo")):
            if getattr(self, name) and ways[0] != way:
                raise ValueError(f"{name}: belongs to {way}:, not to {ways[0]}:")
        if self.adapter and not wanted == "adapter":
            raise ValueError(f"adapter: belongs to repo: or checkpoint:, not to {ways[0]}:")
        return self


class Delta(Frozen):
    """A row of differences that a table prints: `of` minus `over`."""

    of: str
    over: str


class Row(Frozen):
    """stages: what is trained, in order, from the base model; [] is the base model itself. set: what differs from the
    recipe. reported: one value for each column, in the table's order. x: the row's place on a figure's axis."""

    label: str
    stages: tuple[StageName, ...] | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    recipe: str | None = None
    """A recipe for this row only, instead of the experiment's, so that rows of several methods can share a table."""
    external: External | None = None
    delta: Delta | None = None
    reported: tuple[ReportedValue, ...] = ()
    group: str = ""
    """The heading under which the table lists the row."""
    cells: dict[str, str] = Field(default_factory=dict)
    """Texts for the table's descriptive columns ("BCM": "✓")."""
    x: float | None = None
    note: str = ""

    @field_validator("label")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.strip() or len(value) > LONGEST_LABEL or any(c in value for c in "\n\t"):
            raise ValueError(f"a row's label is one line of 1 to {LONGEST_LABEL} characters, without tabs")
        return value

    @field_validator("stages")
    @classmethod
    def _once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value and len(frozenset(value)) != len(value):
            raise ValueError(f"a stage is listed twice: {', '.join(value)}")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Row:
        given = [name for name in ("stages", "external", "delta") if getattr(self, name) is not None]
        if len(given) != 1:
            have = f"has {' and '.join(given)}" if given else "has none"
            raise ValueError(f"needs one of stages, external, delta; it {have} (stages: [] is the base model)")
        for name in ("set", "recipe"):
            if getattr(self, name) and self.stages is None:
                raise ValueError(f"{name}: belongs to a row that we train (stages: …), not to {given[0]}:")
        return self


class Plot(Frozen):
    """A line plot over the rows' `x`. log: the axis's scale."""

    x: str
    log: bool = False


class Maps(Frozen):
    """Attention maps of every row, for training samples and for questions of these benchmarks."""

    benchmarks: tuple[str, ...] = Field(min_length=1)
    samples: Count = 6
    """How many of each, evenly spread; none is chosen by its result."""


class Quantity(Frozen):
    """A line of an efficiency table, as the paper prints it. of: what is counted or measured here beside it."""

    of: Literal["resamplers", "parameters", "memory", "flops", "steps", "mechanism", "latency"]
    title: str
    baseline: str
    ours: str


class Measurement(Frozen):
    """Inference cost of every row, compared with the same model without latent steps. answers, prompts: lengths in tokens."""

    answers: tuple[Count, ...] = (10, 20, 30)
    prompts: tuple[Count, ...] = (64,)
    repeats: Count = 20
    reported: tuple[Quantity, ...]


class Spread(Frozen):
    """Spread of the paper's own runs of one row on a column: sd in points, and the number of runs."""

    sd: NonNegative
    runs: Annotated[int, Field(ge=2)]


class Experiment(Frozen):
    """table, figure, controls: one of them names the experiment ("3c").

    source: where in the paper. protocol: whose scores the table shows. equivalence: ±points within which a measured and
    a reported value count as consistent. cells: headings of the rows' descriptive columns.
    """

    table: FileName | None = None
    figure: FileName | None = None
    controls: FileName | None = None
    title: str
    source: str = ""
    recipe: str = "vreflection"
    protocol: Protocol = "paper"
    equivalence: NonNegative = 2.0
    noise_from: Literal["store", "table"] = "store"
    """Trainings from which seed noise is estimated: all in the store, so that two rows have the same interval in every table, or only
    this table's, so that its report does not depend on what else the store holds. Registered with the table."""
    latents: tuple[Latents, ...] = ()
    """Latents modes that the experiment is about, besides the profile's own."""
    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = Field(min_length=1)
    cells: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    comparisons: tuple[Declared, ...] = ()
    """The comparisons that the table is about; for the default see `harness.spec.comparisons.comparisons_of`."""
    full: str | None = None
    """The row with the table's full method, if the claims do not show which one it is."""
    spread: dict[str, Spread] = Field(default_factory=dict)
    """Column → standard deviation between the paper's own runs, where the paper gives it."""
    plot: Plot | None = None
    maps: Maps | None = None
    card: bool = False
    """Whether each row with latents gets a causal card, which takes extra jobs for the first seed."""
    measure: Measurement | None = None
    """What the experiment measures instead of accuracies; it then has no columns."""
    notes: tuple[str, ...] = ()
    footnotes: dict[str, str] = Field(default_factory=dict)
    """Footnote sign → its text."""

    @model_validator(mode="after")
    def _named(self) -> Experiment:
        given = [kind for kind in ("table", "figure", "controls") if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError('needs one of table, figure, controls to name it, as in table: "3c"')
        shown = [name for name in ("columns", "maps", "measure") if getattr(self, name)]
        if len(shown) != 1:
            have = f"has {' and '.join(shown)}" if shown else "has none"
            raise ValueError(f"needs one of columns, maps, measure; it {have}")
        if self.card and not self.columns:
            raise ValueError("card: belongs to a table with columns")
        return self

    @property
    def kind(self) -> Literal["table", "figure", "controls"]:
        return "table" if self.table else "figure" if self.figure else "controls"

    @property
    def name(self) -> str:
        """ "3c"."""
        return self.table or self.figure or self.controls or ""

    @property
    def slug(self) -> str:
        """ "table3c": the stem of its reports' file names."""
        return self.kind + self.name.replace(" ", "-")

    @property
    def any_reported(self) -> bool:
        """Whether a paper's values stand beside the rows; a comparison of our own has none."""
        return any(row.reported for row in self.rows)

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)
