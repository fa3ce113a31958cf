"""From one resolved row to jobs: data, mirrors, features, a chain of trainings, evaluations.

The only place that knows which job needs which. Knows nothing about tables: rows come in, jobs go out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.identity import Shared
from harness.jobs import Job, Source
from harness.plan import sources
from harness.plan.external import ExternalSystem
from harness.plan.payload import payload
from harness.plan.training_data import training_set
from harness.spec.benchmark import Benchmark, Inference, Protocol
from harness.spec.errors import unknown
from harness.spec.experiment import Measurement
from harness.spec.files import Loaded, data_set_of
from harness.spec.profile import Profile
from harness.spec.recipe import Decoding
from harness.spec.resolve import ResolvedRow
from models.config import (
    CardSpec,
    DecodeSpec,
    EvaluateSpec,
    ExternalMirror,
    ExternalTraining,
    Images,
    LinkedMirror,
    MapsSpec,
    MeasureSpec,
    ProxyClipMirror,
    ProxyMirror,
    ProxyTwins,
    TimesSpec,
    TrainingSet,
    TrainSpec,
)
from models.evaluation.boxes import SIDECAR, SPANS, is_annotated
from models.evaluation.tasks import dataset_of, tasks_for
from models.evaluation.tasks.index import clips_folder
from models.methods.stage import Earlier, Features, StageSpec, opens_segments
from models.schema import Clips, Latents

Checkpoint = Job | Source
TWINS, AS_READ = "twins", "mmvp"
"""The generated twin questions, and the benchmark whose schema they use."""
MOST_TWINS = 400
"""Questions; fewer if the profile's benchmark has fewer."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
TaskDigests = Callable[[str, Protocol], dict[str, str]]


@dataclass
class JobMaker:
    """Makes the jobs of rows under one profile. tasks: (benchmark, protocol) → lmms-eval task name → digest. digests: cache
    file of folders' digests. benchmarks: state the protocols."""

    profile: Loaded[Profile]
    base: Source
    tasks: TaskDigests
    digests: Path | None = None
    _training_sets: dict[str, Source] = field(default_factory=dict)
    benchmarks: Mapping[str, Loaded[Benchmark]] = field(default_factory=dict)
    _made: dict[str, Job] = field(default_factory=dict)
    _data: dict[Any, Job] = field(default_factory=dict)
    _features: dict[tuple[Features, Images, Clips | None, str], Job] = field(default_factory=dict)
    _mirrors: dict[str, Job] = field(default_factory=dict)
    _of_clips: dict[str, bool] = field(default_factory=dict)
    _checkpoints: dict[tuple[int, int], Checkpoint] = field(default_factory=dict)
    _evaluations: dict[tuple[int, int, str, str, str], Job] = field(default_factory=dict)
    _asked: dict[tuple[Any, ...], tuple[Any, Shared]] = field(default_factory=dict)
    """What is asked → (option sections, payload). Keys hold the sections' ids, so the sections are kept alive. Rows that change
    nothing in a section share it (`Base.sections`), and its values' origins."""

    def data(self, row: ResolvedRow, stage: StageSpec | None = None) -> Job:
        """A stage's training set; without a stage, that of pictures. For external data the job depends on the row's picture
        sizes and token limit, and on the base model's tokenizer."""
        clips = stage is not None and stage.clips
        spec = self.profile.value.clips if clips else self.profile.value.data
        if spec is None:
            assert stage is not None, "only clips may be missing"
            raise self.profile.error(
                f'row "{row.row.label}" trains {stage.kind} on clips, but the profile has none; add clips: {{source: proxy_clips}}, '
                "or {source: external, meta: …, revision: …}", "clips")  # fmt: skip
        if not isinstance(spec, ExternalTraining):
            if spec not in self._data:
                self._data[spec] = self._once(Job("data", payload(spec), {}, f"{'clips' if clips else 'scenes'}-{spec.n}"))
            return self._data[spec]
        asked = TrainingSet(
            commit=spec.revision if _COMMIT.fullmatch(spec.revision) else None,
            surplus_boxes=spec.surplus_boxes,
            min_usable=spec.min_usable,
            images=row.options.images,
            max_tokens=row.options.max_tokens,
            clips=row.options.clips if clips else Clips(),
        )
        if spec.meta not in self._training_sets:
            self._training_sets[spec.meta] = training_set(spec, self.digests)
        files = self._training_sets[spec.meta]
        if (asked, files) not in self._data:
            self._data[asked, files] = self._once(Job("data", payload(asked), {"files": files, "base": self.base}, "training-set"))
        return self._data[asked, files]

    def mirror(self, benchmark: str) -> Job:
        """The questions of one benchmark. Raises SpecError when the profile has none."""
        if benchmark not in self._mirrors:
            specs, tasks = self.profile.value.benchmarks, self.foreign(benchmark)
            if benchmark not in specs:
                entry = f"{benchmark}: {{source: external, path: {data_set_of(self.benchmarks[benchmark].value)}}}" if tasks else "one"
                raise self.profile.error(unknown(f"has no entry for {benchmark}; add {entry}", benchmark, list(specs), "entries"), "benchmarks")
            spec = specs[benchmark]
            if isinstance(spec, ProxyMirror):
                if tasks and not isinstance(spec, ProxyClipMirror):
                    entry = f"{{source: external, path: {data_set_of(self.benchmarks[benchmark].value)}}}"
                    raise self.profile.error(f"lmms-eval's {tasks[0]} cannot be generated here; write {entry}", "benchmarks", benchmark)
                job = Job("mirror", payload(spec), {}, f"{benchmark}-{spec.split}")
            else:
                files = sources.benchmark(self.profile, spec, self.digests)
                asked = LinkedMirror(benchmark=benchmark, tasks=tuple(tasks))
                folders = sorted({folder for task in tasks if (folder := clips_folder(task)) is not None})
                clips = sources.clips(self.profile, spec, folders[0]) if folders else None
                job = Job("mirror", payload(asked), {"files": files} | ({"clips": clips} if clips is not None else {}), benchmark)
            self._mirrors[benchmark] = job
        return self._mirrors[benchmark]

    def foreign(self, benchmark: str) -> list[str]:
        """lmms-eval tasks that a benchmark's file names; none for the project's own benchmarks."""
        loaded = self.benchmarks.get(benchmark)
        return list(dict.fromkeys(task for names in loaded.value.tasks.values() for task in names)) if loaded else []

    def features(self, row: ResolvedRow, stage: StageSpec, need: Features) -> Job:
        """Computes the frozen tower's features of the pictures or clips that a stage trains on, or of parts of them."""
        data, options = self.data(row, stage), row.options
        clips = options.clips if stage.clips else None
        asked = (need, options.images, clips, data.key)
        if asked not in self._features:
            wanted = {need.role: payload(need.cut)} if need.cut is not None else {}
            wanted |= {"images": images} if (images := payload(options.images)) else {}
            wanted |= {"clips": payload(clips)} if clips is not None else {}
            self._features[asked] = self._once(Job("features", wanted, {"data": data, "base": self.base}, need.role))
        return self._features[asked]

    def checkpoint(self, row: ResolvedRow, seed: int) -> Checkpoint:
        """The row's last training; the base model for a row without stages."""
        if (row.index, seed) not in self._checkpoints:
            done: dict[str, Checkpoint] = {}
            current: Checkpoint = self.base
            for name in row.row.stages or ():
                current = done[name] = self._train(row, name, seed, current, done)
            self._checkpoints[row.index, seed] = current
        return self._checkpoints[row.index, seed]

    def _train(self, row: ResolvedRow, name: str, seed: int, init: Checkpoint, done: dict[str, Checkpoint]) -> Job:
        options, profile = row.options, self.profile.value
        stage = options.stage(name)
        vision = profile.clip_vision if stage.clips else profile.vision
        fixed = stage.slots(options.latent_steps).of == "fixed"
        spec = TrainSpec(
            stage=stage,
            seed=seed,
            images=options.images,
            vision=vision,
            clips=options.clips if stage.clips else Clips(),
            max_tokens=options.max_tokens,
            packing="padded" if options.latent_steps and stage.rolls_out else options.packing,
            latent_steps=options.latent_steps if fixed else TrainSpec.model_fields["latent_steps"].default,
        )
        inputs: dict[str, Job | Source] = {"data": self.data(row, stage)}
        for need in stage.needs():
            if isinstance(need, Earlier):
                if need.stage in done:
                    inputs[need.role] = done[need.stage]
            elif vision == "cached":
                inputs[need.role] = self.features(row, stage, need)
        inputs["init"] = init
        return self._once(Job("train", payload(spec), inputs, f"{_slug(row, name)}-seed{seed}"))

    def evaluate(self, row: ResolvedRow, seed: int, benchmark: str, protocol: Protocol, latents: Latents) -> Job:
        """One checkpoint on one benchmark under one protocol and one latents mode. Columns of one benchmark share it."""
        name = (row.index, seed, benchmark, protocol, latents)
        if name not in self._evaluations:
            self._evaluations[name] = self._evaluate(row, seed, benchmark, protocol, latents)
        return self._evaluations[name]

    def _evaluate(self, row: ResolvedRow, seed: int, benchmark: str, protocol: Protocol, latents: Latents) -> Job:
        checkpoint, mirror = self.checkpoint(row, seed), self.mirror(benchmark)
        options = row.options
        if self.on(row, benchmark).options.decode.zoom == "oracle" and not self.annotated(benchmark):
            name, spec = SPANS if self.of_clips(benchmark) else SIDECAR, self.profile.value.benchmarks[benchmark]
            folder = sources.benchmark_folder(self.profile, spec) if isinstance(spec, ExternalMirror) else None
            first = min(config or "" for config in self._configurations(benchmark))  # several have a file each
            place = f"as {folder / first / name}" if folder else "to a folder with the data set, written as its path"
            raise self.profile.error(
                f'row "{row.row.label}" zooms to the annotation (zoom: oracle), but {benchmark} has no {name}; add it {place}, or write zoom: predicted',
                "benchmarks", benchmark)  # fmt: skip
        sections = (options.decode, options.decode_clips, options.images, options.clips)
        asked = (benchmark, protocol, latents, *map(id, sections), options.latent_steps, has_latents(row), row.learns_latents)
        if asked not in self._asked:
            self._asked[asked] = sections, Shared(payload(self._asking(self.on(row, benchmark), benchmark, protocol, latents)))
        of = checkpoint.slug if isinstance(checkpoint, Job) else "base"
        slug = "-".join([of, benchmark, protocol] + [latents] * (latents != "own"))
        return self._once(Job("evaluate", self._asked[asked][1], {"checkpoint": checkpoint, "mirror": mirror}, slug))

    def _asking(self, row: ResolvedRow, benchmark: str, protocol: Protocol, latents: Latents) -> EvaluateSpec:
        """All of an evaluation but its checkpoint."""
        options = row.options
        inference = self.inference(benchmark, protocol)
        return EvaluateSpec(
            benchmark=benchmark,
            protocol=protocol,
            tasks=self.tasks(benchmark, protocol),
            decode=DecodeSpec(
                **_segment(row),
                latents=latents,
                max_new_tokens=options.decode.max_new_tokens,
                count_latents=options.decode.count_latents,
                cut_latents=options.decode.cut_latents,
                **(_leaving(options.decode) if has_latents(row) else {}),
                max_segments=options.decode.max_segments,
                zoom=options.decode.zoom,
                **({name: getattr(inference, name) for name in _OF_DECODING} if inference else {})
                | (_clip_answers(row) if self.of_clips(benchmark) else {}),
            ),
            images=pixels(row, inference, protocol) if inference else options.images,
            precision=options.decode.precision,
            fetched=inference.fetched if inference else "as_is",
            clips=_sampling(row, inference, protocol) if self.of_clips(benchmark) else None,
        )

    def of_clips(self, benchmark: str) -> bool:
        """Whether the benchmark asks about clips."""
        if benchmark not in self._of_clips:
            generated = isinstance(self.profile.value.benchmarks.get(benchmark), ProxyClipMirror)
            self._of_clips[benchmark] = generated or any(clips_folder(task) is not None for task in self.foreign(benchmark))
        return self._of_clips[benchmark]

    def on(self, row: ResolvedRow, benchmark: str) -> ResolvedRow:
        """The row as decoded on a benchmark: for clips, `decode_clips` applies."""
        if not self.of_clips(benchmark):
            return row
        stated = {name: value for name in ("latent_steps", "start", "zoom") if (value := getattr(row.options.decode_clips, name)) is not None}
        decode = row.options.decode.model_copy(update=stated)
        values = {**row.values, **{f"decode.{name}": row.values[f"decode_clips.{name}"] for name in stated}}
        return replace(row, options=row.options.model_copy(update={"decode": decode}), values=values)

    def inference(self, benchmark: str, protocol: Protocol) -> Inference | None:
        """How a model is run under the protocol; None where the profile runs models as they are trained."""
        loaded = self.benchmarks.get(benchmark)
        if loaded is None or self.profile.value.inference == "training":
            return None
        return loaded.value.inference.get(protocol)

    def ask(self, asked: ExternalSystem, row: ResolvedRow, benchmark: str, protocol: Protocol) -> Job:
        """An external system on one benchmark under one protocol."""
        assert asked.source is not None
        spec = EvaluateSpec(
            benchmark=benchmark,
            protocol=protocol,
            tasks=self.tasks(benchmark, protocol),
            decode=DecodeSpec(latent_steps=0, max_new_tokens=row.options.decode.max_new_tokens),
            system=asked.system,
        )
        inputs: dict[str, Job | Source] = {"checkpoint": asked.source, "mirror": self.mirror(benchmark)}
        return self._once(Job(asked.kind, payload(spec), inputs, "-".join([_words(asked.name), benchmark, protocol])))

    def maps(self, row: ResolvedRow, seed: int, benchmark: str | None, samples: int) -> Job:
        """Attention of the row's checkpoint on its training samples, or while it answers a benchmark's questions."""
        options, checkpoint = row.options, self.checkpoint(row, seed)
        spec = MapsSpec(
            benchmark=benchmark,
            samples=samples,
            latent_steps=options.latent_steps,
            max_new_tokens=options.decode.max_new_tokens,
            images=options.images,
            precision=options.decode.precision,
        )
        source = {"data": self.data(row)} if benchmark is None else {"mirror": self.mirror(benchmark)}
        of = checkpoint.slug if isinstance(checkpoint, Job) else "base"
        return self._once(Job("maps", payload(spec), {"checkpoint": checkpoint, **source}, f"{of}-{benchmark or 'training'}"))

    def card(self, row: ResolvedRow, seed: int, benchmark: str) -> Job | None:
        """The causal card of the row's checkpoint. benchmark: TWINS for the generated twin questions. None for a benchmark whose
        questions only its lmms-eval task can read."""
        from models.evaluation.tasks import TASKS

        options, checkpoint = row.options, self.checkpoint(row, seed)
        asked = AS_READ if benchmark == TWINS else benchmark
        if asked not in TASKS:
            return None
        spec = CardSpec(
            benchmark=asked,
            tasks=self.tasks(asked, "paper"),
            decode=DecodeSpec(
                **_segment(row) | {"start": "forced"},
                max_new_tokens=options.decode.max_new_tokens,
                count_latents=options.decode.count_latents,
                max_segments=options.decode.max_segments,
            ),
            oracle="oracle" in self.modes(row, asked, ("oracle",)),
            images=options.images,
            precision=options.decode.precision,
        )
        of = checkpoint.slug if isinstance(checkpoint, Job) else "base"
        inputs: dict[str, Job | Source] = {"checkpoint": checkpoint, "mirror": self.twins() if benchmark == TWINS else self.mirror(asked)}
        return self._once(Job("card", payload(spec), inputs, f"{of}-card-{benchmark}"))

    def twins(self) -> Job:
        """Generated twin questions, from the same world as the profile's benchmarks."""
        first = next(spec for spec in self.profile.value.benchmarks.values() if isinstance(spec, ProxyMirror))
        n = min(first.n or MOST_TWINS, MOST_TWINS)
        spec = ProxyTwins(generator=first.generator, n=n - n % 2, seed=first.seed, split=first.split)
        return self._once(Job("mirror", payload(spec), {}, f"twins-{spec.split}"))

    def card_questions(self, benchmarks: Sequence[str]) -> tuple[str, ...]:
        """What the cards ask: generated twins where the profile's benchmarks are generated, else the table's own benchmarks."""
        specs = self.profile.value.benchmarks
        generated = bool(specs) and all(isinstance(spec, ProxyMirror) for spec in specs.values())
        return (TWINS,) if generated else tuple(dict.fromkeys(benchmarks))

    def measure(self, row: ResolvedRow, seed: int, wanted: Measurement) -> Job:
        """What latent steps cost on the row's checkpoint."""
        checkpoint = self.checkpoint(row, seed)
        spec = MeasureSpec(
            latent_steps=row.options.latent_steps,
            answers=wanted.answers,
            prompts=wanted.prompts,
            repeats=wanted.repeats,
            precision=row.options.decode.precision,
        )
        of = checkpoint.slug if isinstance(checkpoint, Job) else "base"
        return self._once(Job("measure", payload(spec), {"checkpoint": checkpoint}, f"{of}-cost"))

    def times(self, row: ResolvedRow, zooming: ResolvedRow, seed: int, benchmark: str, protocol: Protocol) -> Job:
        """The time of a row's answers about clips against that of a row that zooms."""
        asked = [self._asking(self.on(one, benchmark), benchmark, protocol, "own") for one in (row, zooming)]
        spec = TimesSpec(row=asked[0], zooming=asked[1], questions=self.profile.value.timed_questions)
        checkpoint = self.checkpoint(row, seed)
        of = checkpoint.slug if isinstance(checkpoint, Job) else "base"
        inputs = {"checkpoint": checkpoint, "zooming": self.checkpoint(zooming, seed), "mirror": self.mirror(benchmark)}
        return self._once(Job("measure", payload(spec), inputs, f"{of}-time-{benchmark}"))

    def untimed(self, row: ResolvedRow, zooming: ResolvedRow, benchmark: str) -> str:
        """Why the two cannot be timed against each other on a benchmark; "" where they can."""
        if not self.of_clips(benchmark):
            return f"{benchmark} asks about no clips, and time is compared on clips alone (on: …)"
        for one, wanted in ((row, "none"), (zooming, "predicted")):
            if (zoom := self.on(one, benchmark).options.decode.zoom) != wanted:
                return f'row "{one.label}" has decode.zoom: {zoom} on {benchmark}, not {wanted}: less_time compares one pass (less_time) with two (than)'
        return ""

    def modes(self, row: ResolvedRow, benchmark: str, asked: Sequence[Latents]) -> tuple[Latents, ...]:
        """Latent modes applicable to this row: `own` alone if it opens no latent segment; `oracle` only if its last latent stage
        can be fed from a true box and there are boxes."""
        row = self.on(row, benchmark)
        if not has_latents(row):
            return ("own",)
        if not {"shuffled", "oracle"} & set(asked):
            return tuple(asked)
        last = next(stage for stage in reversed(_stages(row)) if opens_segments(stage))
        oracle = last.oracle_allowed(row.options.latent_steps, row.options.decoded_steps)
        oracle = oracle and self.boxed(benchmark)
        given = {"shuffled"} if row.options.decode.leave == "steps" else set()  # needs a fixed number of latents
        given |= {"oracle"} if oracle and row.options.decode.leave == "steps" else set()
        return tuple(mode for mode in asked if mode not in ("shuffled", "oracle") or mode in given)

    def boxed(self, benchmark: str) -> bool:
        """Whether the benchmark comes with true boxes."""
        return not self.of_clips(benchmark) and self.annotated(benchmark)

    def annotated(self, benchmark: str) -> bool:
        """Whether the benchmark comes with true boxes, or with spans for its clips."""
        spec = self.profile.value.benchmarks.get(benchmark)
        if not isinstance(spec, ExternalMirror):
            return True
        folder, name = sources.benchmark_folder(self.profile, spec), SPANS if self.of_clips(benchmark) else SIDECAR
        return folder is not None and is_annotated(folder, name, self._configurations(benchmark))

    def _configurations(self, benchmark: str) -> set[str | None]:
        """Of the data set that its tasks read; None for one without."""
        return {dataset_of(task)[0] for task in self.foreign(benchmark) or tasks_for(benchmark)}

    def _once(self, job: Job) -> Job:
        """The first job with this key: later rows share it, name and all."""
        return self._made.setdefault(job.key, job)


_OF_DECODING = ("repetition_penalty", "penalise_picked", "ends")


def pixels(row: ResolvedRow, inference: Inference, protocol: Protocol) -> Images:
    """The protocol's pixel limits. Under `paper`, limits stated in a profile, a row or --set win, since a machine may be too
    small for the protocol; the report says so. `stock` always has lmms-eval's own."""
    stated = {
        limit: getattr(row.options.images, limit)
        for limit in ("min_pixels", "max_pixels")
        if protocol == "paper" and row.values[f"images.{limit}"].origin in ("profile", "row", "--set")
    }
    limits = {"min_pixels": inference.min_pixels, "max_pixels": inference.max_pixels} | stated
    return row.options.images.model_copy(update=limits)


def _sampling(row: ResolvedRow, inference: Inference | None, protocol: Protocol) -> Clips:
    """How clips are sampled: as in training, or as the protocol says. What a profile, a row or --set states wins, as in
    `pixels`."""
    given = row.options.clips
    if inference is None or inference.clips is None:
        return given
    names = type(given).model_fields
    stated = {n: getattr(given, n) for n in names if protocol == "paper" and row.values[f"clips.{n}"].origin in ("profile", "row", "--set")}
    return inference.clips.model_copy(update=stated)


def has_latents(row: ResolvedRow) -> bool:
    """Whether the row's model opens latent segments; if not, zeroed or oracle latents mean nothing."""
    return row.options.decoded_steps > 0 and row.options.decode.start != "never" and row.learns_latents


def _stages(row: ResolvedRow) -> list[StageSpec]:
    return [row.options.stage(name) for name in row.row.stages or ()]


def _leaving(decode: Decoding) -> dict[str, Any]:
    """When a segment ends; with the distance options only if `leave: latent`."""
    names = ("leave", "leave_distance", "leave_below") if decode.leave == "latent" else ("leave",)
    return {name: getattr(decode, name) for name in names}


def _segment(row: ResolvedRow) -> dict[str, Any]:
    """How the row's model starts, fills and ends its latent segment. A recipe forces this only on rows that learn latents: the
    base model and vanilla SFT decode freely unless the row or --set says otherwise."""
    decode, learned = row.options.decode, row.learns_latents

    def read(option: str) -> bool:
        return learned or row.values[f"decode.{option}"].origin in ("row", "--set")

    steps = row.options.decoded_steps if read("latent_steps") else row.options.latent_steps
    found: dict[str, Any] = {"latent_steps": steps}
    return found | {option: getattr(decode, option) for option in ("start", "end") if read(option)}


def _clip_answers(row: ResolvedRow) -> dict[str, Any]:
    """How answers about clips are constrained, for rows that learn latents or set it themselves."""
    given, learned = row.options.decode_clips, row.learns_latents
    found = {}
    for name in ("answer", "repetition_penalty", "no_repeat_ngram"):
        value = getattr(given, name)
        if value is not None and (learned or row.values[f"decode_clips.{name}"].origin in ("row", "--set")):
            found[name] = value
    if found.get("answer", "free") != "free":
        found["prefix"] = given.prefix
    return found


def _slug(row: ResolvedRow, stage: str) -> str:
    """The stage and what the row sets in it: "stage2-teacher-random"."""
    parts = [stage]
    for name, value in row.changed.items():
        section, _, option = name.partition(".")
        if section == stage or (name == "latent_steps" and opens_segments(row.options.stage(stage))):
            text = str(value.unscaled if value.unscaled is not None else value.value)
            parts += [(option or name).replace("_", "-"), text]
    return _words("-".join(parts))


def _words(text: str) -> str:
    """Fit for a folder's name."""
    return "".join(c if c.isalnum() or c in "-." else "-" for c in text.lower())[:60]
