"""A paper's printed numbers, from spec files, with what is known about each: n, chance, parts, and which rows are one run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from itertools import permutations
from pathlib import Path

from harness.audit.explain import Share
from harness.audit.findings import Finding, Severity
from harness.plan import plan_experiment
from harness.spec.benchmark import Benchmark, Score
from harness.spec.errors import validate
from harness.spec.experiment import Column, Experiment, Row
from harness.spec.files import Loaded, LoadedExperiment, load_benchmark, load_experiment
from harness.spec.profile import HubBackbone, Profile
from harness.spec.reported import Reported
from harness.spec.text import Document, read
from harness.verdict.granularity import Way, behind
from models.config import ExternalMirror, ProxyClips, ProxyTraining
from models.schema import Frozen


@dataclass(frozen=True)
class Printed:
    """One printed number. run: equal for cells that are the same run. own: trained by the paper itself. parts, sizes: the
    scores that make up an overall score, and their questions. usual: how its table prints, where that is known."""

    table: str
    row: Row
    column: Column
    score: Score
    value: Reported
    run: str
    own: bool
    where: str
    parts: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    usual: Way | None = None

    @property
    def title(self) -> str:
        return self.column.name

    @property
    def number(self) -> Decimal:
        assert self.value.value is not None
        return self.value.value

    @property
    def unit(self) -> Fraction:
        """One in the last printed digit."""
        return Fraction(1, 10**self.value.decimals)

    @property
    def is_count(self) -> bool:
        """Whether it should be a count over its questions: exact, and no plain mean by its own definition."""
        return not self.value.approximate and self.score.counted

    @property
    def share(self) -> Share:
        return Share(self.number, self.score.n, counted=self.score.counted, composed=bool(self.sizes))

    def finding(self, rule: str, severity: Severity, text: str, hint: str = "", condition: str = "") -> Finding:
        where = (self.table, self.row.label, self.title)
        return Finding(rule, severity, *where, text, hint, where=self.where, condition=condition)


@dataclass(frozen=True)
class PrintedTable:
    loaded: LoadedExperiment
    benchmarks: Mapping[str, Benchmark]
    runs: Mapping[tuple[str, str], str]

    @property
    def spec(self) -> Experiment:
        return self.loaded.value

    @property
    def label(self) -> str:
        return f"{self.spec.kind.capitalize()} {self.spec.name}"

    def cells(self) -> Iterator[Printed]:
        """Every number that the table prints, differences left out."""
        for index, row in enumerate(self.spec.rows):
            if row.delta is not None:
                continue
            for column, value in zip(self.spec.columns, row.reported):
                if value.value is not None:
                    yield self.cell(index, row, column, value)

    def cell(self, index: int, row: Row, column: Column, value: Reported) -> Printed:
        scores = self.benchmarks[column.benchmark].scores
        score, where = scores[column.score], self.loaded.where("rows", index, "reported")
        parts = next((parts for whole, parts in partitions(dict(scores)) if whole == column.score), ())
        sizes = tuple(scores[part].n for part in parts)
        run = self.runs[row.label, column.name]
        return Printed(self.label, row, column, score, value, run, bool(row.stages), where, parts, sizes, self.usual)

    @cached_property
    def usual(self) -> Way | None:
        """How the table's numbers are printed: the way without which some could not be; None where both are needed, or none."""
        found = set()
        for row in self.spec.rows:
            for column, value in zip(self.spec.columns, row.reported):
                score = self.benchmarks[column.benchmark].scores[column.score]
                single = column.score != "overall" or not any(True for _ in partitions(dict(self.benchmarks[column.benchmark].scores)))
                if row.delta is None and value.value is not None and not value.approximate and single and score.counted:
                    ways = [way for way in (Way.ROUNDED, Way.CUT) if behind(value.value, way).counts(score.n)]
                    found |= set(ways) if len(ways) == 1 else set()
        return found.pop() if len(found) == 1 else None

    def values(self) -> dict[tuple[str, str], Reported]:
        """(row, column) -> as printed, rows of differences included."""
        return {
            (row.label, column.name): value
            for row in self.spec.rows
            for column, value in zip(self.spec.columns, row.reported)
            if value.value is not None
        }


def partitions(scores: dict[str, Score]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(whole, parts): scores that split the overall questions by the values of one group."""
    whole = scores.get("overall")
    if whole is None or whole.where or whole.aggregate == "cluster":
        return
    by_group: dict[str, list[str]] = defaultdict(list)
    for name, score in scores.items():
        if len(score.where) == 1 and score.aggregate == "micro":
            by_group[next(iter(score.where))].append(name)
    for names in by_group.values():
        if len(names) > 1 and sum(scores[name].n for name in names) == whole.n:
            yield "overall", tuple(names)


class Said(Frozen):
    """One sentence of the text. about: the thing; says: what is said of it, in words that two sentences can share.

    settings: numbers of the set-up; with percent, whether one of them is just a ratio of two. note: what they are.
    """

    about: str
    says: str
    quote: str = ""
    source: str = ""
    percent: tuple[float, ...] = ()
    settings: tuple[float, ...] = ()
    note: str = ""


class Sentences(Frozen):
    """A file of sentences: what a paper says in words, so that it can be held against itself."""

    title: str = ""
    statements: tuple[Said, ...]


@dataclass(frozen=True)
class Statement:
    """A sentence and where it stands (file:line)."""

    said: Said
    where: str

    @property
    def about(self) -> str:
        return self.said.about

    @property
    def says(self) -> str:
        return self.said.says

    @property
    def quote(self) -> str:
        return self.said.quote

    @property
    def source(self) -> str:
        return self.said.source

    def ratios(self) -> Iterator[tuple[str, str]]:
        """(percentage, ratio) of each stated percentage that is a ratio of two settings, as printed."""
        for number in self.said.percent:
            for a, b in permutations(self.said.settings, 2):
                if round(100 * a / b) == number:
                    yield f"{number:g}", f"{a:g}/{b:g}"
                    break


@dataclass(frozen=True)
class Paper:
    """The tables that are audited together: rows of different tables may be one run. files: as a person would type them."""

    tables: tuple[PrintedTable, ...]
    statements: tuple[Statement, ...] = ()
    files: tuple[str, ...] = ()

    def cells(self) -> Iterator[Printed]:
        """Every number that the paper prints. Controls are not the paper's: what they repeat of it is no second witness."""
        for table in self.tables:
            if table.spec.kind != "controls":
                yield from table.cells()


def distinct(paper: Paper) -> Iterator[tuple[Printed, str]]:
    """Every number of every run once, with the other tables that print it: " (also in Table 3c, Table 4)"."""
    groups: dict[tuple[str, Decimal], list[Printed]] = defaultdict(list)
    for cell in paper.cells():
        groups[cell.run, cell.number].append(cell)
    for cells in groups.values():
        others = list(dict.fromkeys(cell.table for cell in cells[1:] if cell.table != cells[0].table))
        yield cells[0], f" (also in {', '.join(others)})" if others else ""


def read_paper(paths: Iterable[Path]) -> Paper:
    """The experiments, and the sentences, in these files. Raises SpecError."""
    tables, statements, files = [], [], []
    for path in paths:
        document = read(path)
        files.append(document.name)
        if isinstance(document.data, dict) and "statements" in document.data:
            sentences = validate(Sentences, document.data, document.place)
            statements += [Statement(s, document.where("statements", i)) for i, s in enumerate(sentences.statements)]
        else:
            tables.append(read_table(load_experiment(path)))
    return Paper(tuple(tables), tuple(statements), tuple(files))


def read_table(loaded: LoadedExperiment) -> PrintedTable:
    """One table with its benchmarks, and each cell's run: the key of its evaluation job, planned at no particular scale."""
    folder = loaded.document.path.parent
    names = dict.fromkeys(column.benchmark for column in loaded.value.columns)
    benchmarks = {name: load_benchmark(name, folder).value for name in names}
    plan = plan_experiment(loaded, neutral_profile([*names, *(loaded.value.maps.benchmarks if loaded.value.maps else ())]), tasks=lambda benchmark, protocol: {benchmark: protocol})
    runs: dict[tuple[str, str], str] = {}
    for row in loaded.value.rows:
        for column in loaded.value.columns:
            cell = next((c for c in plan.cells if (c.row, c.column.name) == (row.label, column.name)), None)
            jobs = cell.by_seed() if cell else {}
            runs[row.label, column.name] = (
                f"{jobs[0].key}.{column.score}" if jobs else f"{row.label.strip().lower()} on {column.name}"
            )
    return PrintedTable(loaded, benchmarks, runs)


def neutral_profile(benchmarks: Iterable[str]) -> Loaded[Profile]:
    """The recipe as it stands: a profile that changes nothing, so that equal keys mean the paper's own equal runs."""
    profile = Profile(
        title="as printed",
        backbone=HubBackbone(repo="the paper's own", revision="as printed"),
        data=ProxyTraining(),
        clips=ProxyClips(),
        benchmarks={name: ExternalMirror(benchmark=name, path=name, revision="as printed") for name in benchmarks},
    )
    return Loaded(profile, Document(Path("as-printed.yaml"), {}))
