"""An experiment under a profile: rows × columns × protocols × latents modes × seeds as cells, cells as one graph of jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from harness.identity import digest
from harness.jobs import Graph, Job
from harness.plan.external import ExternalSystem, system_of
from harness.plan.jobs import Checkpoint, JobMaker, TaskDigests, has_latents
from harness.plan.sources import backbone
from harness.spec.benchmark import Benchmark, Protocol
from harness.spec.claims import LessTime
from harness.spec.errors import SpecError, meant, unknown
from harness.spec.experiment import Column, Experiment
from harness.spec.files import Loaded, LoadedExperiment, load_benchmark, load_experiment, load_profile, load_recipe
from harness.spec.profile import Profile
from harness.spec.resolve import Base, ResolvedRow, base, check_overrides, recipe_of, resolve, resolve_base
from harness.spec.text import Document
from models.config import ProxyClipMirror, ProxyMirror
from models.schema import Latents

CARD = "card-"
"""Prefix of a causal card's column; its benchmark follows."""


@dataclass(frozen=True)
class Cell:
    """One number of a table, and its evaluations.

    jobs: (seed, latents mode) → evaluate job. not_run: why none can be run (a row that the recipe cannot express, a row
    of differences, an external system that cannot be asked from here); a stored result still counts.
    """

    row: str
    column: Column
    protocol: Protocol
    jobs: Mapping[tuple[int, str], Job]
    not_run: str = ""

    @property
    def name(self) -> str:
        """Display name, as in "Stage 1 Only / mmvp"; the protocol is added when it is not the paper's."""
        return f"{self.row} / {self.column.name}" + (f" ({self.protocol})" if self.protocol != "paper" else "")

    def by_seed(self, latents: str = "own") -> dict[int, Job]:
        """Seed → evaluate job, of one latents mode."""
        return {seed: job for (seed, mode), job in self.jobs.items() if mode == latents}


@dataclass(frozen=True)
class Plan:
    """rows, columns: those selected, in the table's order. recipe: for rows that name none. recipes: that one, then the rows'
    own. overrides: the `--set` texts. own_recipe: whether the recipe is the experiment's. checkpoints: row label → seed → last
    training, or the base model. base: benchmark → protocol → the base model's evaluation; only under a proxy profile, where it
    shows whether benchmarks are too easy or too hard."""

    experiment: LoadedExperiment
    profile: Loaded[Profile]
    recipe: Document
    recipes: tuple[Document, ...]
    rows: tuple[ResolvedRow, ...]
    columns: tuple[Column, ...]
    benchmarks: Mapping[str, Loaded[Benchmark]]
    seeds: tuple[int, ...]
    protocols: tuple[Protocol, ...]
    cells: tuple[Cell, ...]
    graph: Graph
    checkpoints: Mapping[str, Mapping[int, Checkpoint]]
    base: Mapping[str, Mapping[Protocol, Job]]
    overrides: tuple[str, ...] = ()
    own_recipe: bool = True

    @property
    def name(self) -> str:
        """The stem of the report's files: "table3c"; an overridden plan never takes the paper's table's name."""
        changed = [*sorted(self.overrides), *([] if self.own_recipe else [f"recipe {self.recipe.path.stem}"])]
        return self.experiment.value.slug + (f"-overridden-{digest(changed)[:8]}" if changed else "")

    @property
    def overridden(self) -> bool:
        """Whether the command line changed what the rows mean."""
        return bool(self.overrides) or not self.own_recipe

    @property
    def partial(self) -> bool:
        """Whether rows or columns were left out."""
        spec = self.experiment.value
        return len(self.rows) < len(spec.rows) or len(self.columns) < len(spec.columns)

    def cell(self, row: str, column: str, protocol: Protocol = "paper") -> Cell:
        """By row label and column name. KeyError when there is none."""
        return self._by_name[row, column, protocol]

    def jobs_of(self, cell: Cell) -> tuple[Job, ...]:
        """Every job the cell needs, parents first."""
        return tuple(Graph(cell.jobs.values()))

    def users(self, job: Job) -> tuple[Cell, ...]:
        """The cells that need the job, directly or through others."""
        return self._users.get(job.key, ())

    def rows_of(self, job: Job) -> tuple[str, ...]:
        """Labels of the rows that need the job."""
        return tuple(dict.fromkeys(cell.row for cell in self.users(job)))

    def same_run(self) -> list[tuple[str, ...]]:
        """Groups of rows that are one run under several labels."""
        groups: dict[tuple[str, ...], list[str]] = {}
        decoded: dict[str, list[str]] = {}
        for cell in self.cells:
            decoded.setdefault(cell.row, []).extend(job.key for job in cell.jobs.values())
        for label, by_seed in self.checkpoints.items():
            groups.setdefault((*(c.key for c in by_seed.values()), *sorted(decoded.get(label, []))), []).append(label)
        return [tuple(labels) for labels in groups.values() if len(labels) > 1]

    @cached_property
    def _by_name(self) -> dict[tuple[str, str, str], Cell]:
        return {(cell.row, cell.column.name, cell.protocol): cell for cell in self.cells}

    @cached_property
    def _users(self) -> dict[str, tuple[Cell, ...]]:
        found: dict[str, list[Cell]] = {}

        @cache
        def behind(job: Job) -> tuple[str, ...]:
            """Keys of the job and of everything before it."""
            return tuple(dict.fromkeys((job.key, *(key for parent in job.parents for key in behind(parent)))))

        for cell in self.cells:
            jobs = cell.jobs.values() if not cell.not_run else ()
            for key in dict.fromkeys(key for job in jobs for key in behind(job)):
                found.setdefault(key, []).append(cell)
        return {key: tuple(cells) for key, cells in found.items()}


def plan_experiment(
    experiment: Path | str | LoadedExperiment,
    profile: str | Loaded[Profile] = "proxy",
    *,
    recipe: str | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    seeds: int | None = None,
    protocols: Sequence[Protocol] = (),
    latents: Sequence[Latents] = (),
    overrides: Iterable[str] = (),
    digests: Path | None = None,
    tasks: TaskDigests | None = None,
) -> Plan:
    """Plan one experiment. Raises SpecError, one line for each mistake, before anything is computed.

    recipe: replaces the experiment's, for rows that name none. rows, columns: only these, by name or a unique part of one.
    seeds, protocols, latents: replace the profile's; the table's protocol and `own` latents are always included. overrides:
    "stage1.p=0.3". digests: cache file for checkpoints' digests. tasks: where task digests come from (default:
    `models.evaluation.tasks.digest`).
    """
    if not isinstance(experiment, LoadedExperiment):
        experiment = load_experiment(Path(experiment))
    folder, spec = experiment.document.path.parent, experiment.value
    if isinstance(profile, str):
        profile = load_profile(profile, folder)
    profile = reading(profile, (column.benchmark for column in spec.columns))
    try:
        written = load_recipe(recipe or spec.recipe, folder)
    except SpecError as error:
        raise SpecError(f"--recipe: {error}") if recipe else experiment.error(str(error), "recipe") from None
    overrides = tuple(overrides)
    own_recipe = recipe is None or recipe == spec.recipe
    start = base(written, profile, overrides, own_recipe)
    starts: dict[str | None, Base] = {None: start}
    chosen_columns = _select([c.name for c in spec.columns], columns, "--columns", "columns")
    chosen_rows = _select([r.label for r in spec.rows], rows, "--rows", "rows")
    benchmarks = _benchmarks(experiment, folder)
    maker = JobMaker(profile, backbone(profile, digests), _task_digests(benchmarks, tasks), digests, benchmarks=benchmarks)
    used_seeds = tuple(range(seeds or profile.value.seeds))
    used_protocols = tuple(dict.fromkeys((spec.protocol, *(protocols or profile.value.protocols))))
    modes = tuple(dict.fromkeys(("own", *(latents or (*profile.value.latents, *spec.latents)))))
    chosen = [(i, one.recipe) for i, one in enumerate(spec.rows) if one.label in chosen_rows]
    if recipe and all(name for _, name in chosen):
        raise SpecError(f"--recipe {recipe}: no row uses it: each names its own (recipe: in the row)")
    for i, name in chosen:
        if name not in starts:
            starts[name] = base(recipe_of(experiment, i), profile, overrides)
    resolved = [resolve(experiment, i, starts[name]) for i, name in chosen]
    check_overrides(start, resolved)
    selected = tuple(column for column in spec.columns if column.name in chosen_columns)
    cells: list[Cell] = []
    checkpoints: dict[str, dict[int, Checkpoint]] = {}
    for row in resolved:
        delta, asked, reason = row.row.delta, None, row.undefined
        if delta is not None:
            reason = f"{delta.of} minus {delta.over}"
        elif row.row.external is not None:
            asked = system_of(row.row.external, profile, folder, digests)
            reason = asked if isinstance(asked, str) else asked.absent
        elif not reason:
            checkpoints[row.label] = {seed: maker.checkpoint(row, seed) for seed in used_seeds}
        for column in selected:
            benchmark = benchmarks[column.benchmark].value
            for protocol in (p for p in used_protocols if p in benchmark.protocols or p == spec.protocol):
                aside = protocols or latents or profile.value.asks_aside(column.benchmark)
                if protocol != spec.protocol and not aside:
                    continue
                under = benchmark.under(protocol)
                if isinstance(asked, ExternalSystem):
                    jobs = _answers(maker, asked, row, column, under, used_seeds)
                else:
                    wanted = (modes if aside else ("own", *spec.latents)) if protocol == "paper" else ("own",)
                    side = used_seeds[: profile.value.side_seeds]
                    kept = used_seeds if protocol == spec.protocol else side
                    jobs = {} if reason else _evaluations(maker, row, column, under, kept, side, wanted)
                cells.append(Cell(row.label, column, protocol, jobs, reason))
        if row.label in checkpoints:
            cells += _shown_instead(maker, row, spec, used_seeds[0])
            if spec.card and has_latents(row):
                cells += _cards(maker, row, spec, selected, used_seeds[0])
    overridden = bool(overrides) or not own_recipe
    cells += _times(maker, experiment, {row.label: row for row in resolved}, chosen_columns, used_seeds[0], overridden)
    own: dict[str, dict[Protocol, Job]] = {}
    if profile.value.proxy and checkpoints:
        untrained = resolve_base(start)
        shown = {column.name for column in selected}
        for name, protocol in dict.fromkeys((c.column.benchmark, c.protocol) for c in cells if c.column.name in shown):
            under = benchmarks[name].value.under(protocol)
            own.setdefault(name, {})[protocol] = maker.evaluate(untrained, 0, name, under, "own")
    graph = Graph(
        [job for cell in cells if not cell.not_run for job in cell.jobs.values()]
        + [job for jobs in own.values() for job in jobs.values()]
    )
    return Plan(
        experiment, profile, written, tuple({s.recipe.path: s.recipe for s in starts.values()}.values()), tuple(resolved), selected, benchmarks, used_seeds, used_protocols, tuple(cells),
        graph, checkpoints, own, overrides, own_recipe,
    )  # fmt: skip


def reading(profile: Loaded[Profile], benchmarks: Iterable[str]) -> Loaded[Profile]:
    """The profile; with what it has for tables with clips, if one of these benchmarks generates clips."""
    value = profile.value
    if not any(isinstance(value.benchmarks.get(name), ProxyClipMirror) for name in benchmarks):
        return profile
    beside = {name: spec for name, spec in value.beside_clips.items() if isinstance(value.benchmarks.get(name), ProxyMirror)}
    changed = {
        "backbone": value.clip_backbone or value.backbone, "benchmarks": {**value.benchmarks, **beside},
        "scale": {**value.scale, **value.clip_scale},
    }  # fmt: skip
    return replace(profile, value=value.model_copy(update=changed))


def _task_digests(benchmarks: Mapping[str, Loaded[Benchmark]], given: TaskDigests | None) -> TaskDigests:
    from models.evaluation.tasks import digest, digests_of

    def of(benchmark: str, protocol: Protocol) -> dict[str, str]:
        named = benchmarks[benchmark].value.tasks.get(protocol) if benchmark in benchmarks else None
        return digests_of(named) if named else (given or digest)(benchmark, protocol)

    return of


def merged(plans: Iterable[Plan]) -> Graph:
    """One graph of several experiments; shared jobs are in it once."""
    return Graph(job for plan in plans for job in plan.graph)


def _evaluations(
    maker: JobMaker, row: ResolvedRow, column: Column, protocol: Protocol, seeds: Sequence[int], side: Sequence[int],
    modes: Sequence[Latents],
) -> dict[tuple[int, str], Job]:
    """side: the seeds that get modes other than `own`."""
    wanted = maker.modes(row, column.benchmark, modes)
    return {
        (seed, mode): maker.evaluate(row, seed, column.benchmark, protocol, mode)
        for seed in seeds
        for mode in wanted
        if mode == "own" or seed in side
    }


def _answers(
    maker: JobMaker, asked: ExternalSystem, row: ResolvedRow, column: Column, protocol: Protocol, seeds: Sequence[int]
) -> dict[tuple[int, str], Job]:
    """An external system has no seed: one evaluation serves all seeds."""
    if asked.source is None:
        return {}
    job = maker.ask(asked, row, column.benchmark, protocol)
    return {(seed, "own"): job for seed in seeds}


def _shown_instead(maker: JobMaker, row: ResolvedRow, spec: Experiment, seed: int) -> list[Cell]:
    """Cells for outputs other than accuracy: attention maps, cost. First seed only."""
    jobs: dict[str, Job | str] = {}
    if spec.maps:
        for benchmark in (None, *spec.maps.benchmarks):
            why = "only lmms-eval's code can read its questions" if benchmark and maker.foreign(benchmark) else ""
            if benchmark and not why and not maker.boxed(benchmark):
                why = f"{benchmark} has no evidence boxes (boxes.jsonl beside the data set)"
            found = f"not possible here: {why}" if why else maker.maps(row, seed, benchmark, spec.maps.samples)
            jobs[benchmark or "training samples"] = found
    if spec.measure:
        jobs["cost"] = maker.measure(row, seed, spec.measure)
    return [
        Cell(
            row.label,
            Column(benchmark=name),
            spec.protocol,
            {} if isinstance(job, str) else {(seed, "own"): job},
            job if isinstance(job, str) else "",
        )
        for name, job in jobs.items()
    ]


def _cards(maker: JobMaker, row: ResolvedRow, spec: Experiment, columns: Sequence[Column], seed: int) -> list[Cell]:
    """The row's causal cards, of the first seed."""
    found = []
    for name in maker.card_questions([column.benchmark for column in columns]):
        job = maker.card(row, seed, name)
        absent = "" if job else f"not possible here: a card needs options, and only lmms-eval's task can read {name}"
        found.append(Cell(row.label, Column(benchmark=f"{CARD}{name}"), spec.protocol, {(seed, "own"): job} if job else {}, absent))
    return found


def time_column(number: int, benchmark: str) -> str:
    """Name of the column of a claim about time, by the claim's number in its table, from 1."""
    return f"time-{number}-{benchmark}"


def _times(
    maker: JobMaker, experiment: LoadedExperiment, rows: Mapping[str, ResolvedRow], columns: Sequence[str], seed: int, overridden: bool
) -> list[Cell]:
    """Cells of the claims about time, in the row that takes less; first seed only. Raises SpecError for rows or columns that cannot be
    timed, unless the command line made them so."""
    spec, found = experiment.value, []
    for i, claim in enumerate(spec.claims):
        if not isinstance(claim, LessTime) or any(name not in rows for name in claim.rows):
            continue
        row, zooming = rows[claim.less_time], rows[claim.than]
        for name in dict.fromkeys(one.benchmark for one in spec.columns if one.name in columns and (claim.on == "all" or one.name in claim.on)):
            why = row.undefined or zooming.undefined or maker.untimed(row, zooming, name)
            if why and not overridden:
                raise experiment.error(why, "claims", i)
            job = {} if why else {(seed, "own"): maker.times(row, zooming, seed, name, spec.protocol)}
            found.append(Cell(row.label, Column(benchmark=time_column(i + 1, name)), spec.protocol, job, why))
    return found


def _select(known: list[str], wanted: Sequence[str], flag: str, noun: str) -> list[str]:
    """Resolves each text to the known name that it means (`meant`)."""
    chosen: list[str] = []
    for text in wanted:
        found = meant(text, known)
        if len(found) != 1:
            if found:
                raise SpecError(f'{flag}: "{text}" fits {" and ".join(found)}; write more of the name')
            raise SpecError(f"{flag}: " + unknown(f'no {noun[:-1]} "{text}"', text, known, noun))
        chosen += found
    return chosen or known


def _benchmarks(experiment: LoadedExperiment, folder: Path) -> dict[str, Loaded[Benchmark]]:
    """Every benchmark of a column or of maps, loaded. Raises SpecError at the column."""
    loaded: dict[str, Loaded[Benchmark]] = {}
    for i, column in enumerate(experiment.value.columns):
        if column.benchmark not in loaded:
            try:
                loaded[column.benchmark] = load_benchmark(column.benchmark, folder)
            except SpecError as error:
                if "no such" not in str(error).split(";")[0]:
                    raise
                raise experiment.error(str(error), "columns", i) from None
        scores = loaded[column.benchmark].value.scores
        if column.score not in scores:
            what = f'{column.benchmark} has no score "{column.score}"'
            raise experiment.error(unknown(what, column.score, list(scores), "scores"), "columns", i)
    for name in experiment.value.maps.benchmarks if experiment.value.maps else ():
        try:
            loaded[name] = load_benchmark(name, folder)
        except SpecError as error:
            raise experiment.error(str(error), "maps") from None
    return loaded
