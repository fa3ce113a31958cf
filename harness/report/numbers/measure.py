"""From the store's per-question rows to answers and rates; every score is recomputed and compared with the task's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.jobs import Job
from harness.report.numbers.study import Evaluation
from harness.report.numbers.values import Rates
from harness.spec.benchmark import Benchmark, Score
from harness.stats import Answers
from harness.store import State, Store, StoreError

TOLERANCE = 0.01
"""Tolerance in points between a recomputed score and the task's own aggregate (floating point and printing)."""


class Unmeasured(Exception):
    """A run has no usable result. state: "failed", "not run", …; the text says why. value: a share that can be shown all the
    same, and no more than shown."""

    def __init__(self, state: str, reason: str, value: float | None = None) -> None:
        super().__init__(reason)
        self.state, self.value = state, value


@dataclass(frozen=True)
class Measured:
    """One evaluation's rows. frame: a row a question; result: result.json."""

    evaluation: Evaluation
    frame: pd.DataFrame
    result: Mapping[str, Any]

    def scored(self, benchmark: Benchmark, name: str, extract: str = "strict") -> pd.DataFrame:
        """The questions that a score counts, each with what it counts for in `correct`, 0 to 1."""
        score = benchmark.scores[name]
        frame = select(self.frame, score, self.evaluation.job.key12)
        if "scores" in frame:
            return self._by_task(frame, benchmark, name)
        release = extract == "release" and "correct_release" in frame
        return frame.assign(correct=frame["correct_release"]) if release else frame

    def _by_task(self, frame: pd.DataFrame, benchmark: Benchmark, name: str) -> pd.DataFrame:
        """Of a task that the project has no rules for: its own numbers."""
        metric, scale = benchmark.reads(name, benchmark.under(self.evaluation.protocol))
        if why := self.result.get("whole", {}).get(metric):
            value = scale / 100 * float(self.result["aggregates"][metric])
            raise Unmeasured("failed", f"{metric} is no mean over questions, and {why}: no interval, nothing to compare", value)
        if benchmark.scores[name].where.keys() - {"task"} and metric in self.result.get("not_means", ()):
            return self._group(frame, benchmark.scores[name], metric, scale)
        values = frame["scores"].map(lambda scores: scores.get(metric)).astype(float)
        frame = frame.assign(correct=values * scale / 100)[values.notna()]
        if frame.empty:
            given = ", ".join(sorted({name for scores in self.frame["scores"] for name in scores}))
            raise Unmeasured("failed", f"no question has a score {metric}; the task gives {given}")
        if not -1e-9 <= (mean := frame["correct"].mean()) <= 1 + 1e-9:
            raise Unmeasured("failed", f"{metric} is {100 * mean / scale:g} and would be {100 * mean:.1f} percent; write scale: what brings it to percent")
        return frame

    def _group(self, frame: pd.DataFrame, score: Score, metric: str, scale: float) -> pd.DataFrame:
        """Of a metric that is no mean over questions, those of one group, where it is the mean over groups of their shares of right
        answers (of groups without a question: 0). Raises Unmeasured where it is not."""
        whole = self.frame[[metric in scores for scores in self.frame["scores"]]]
        groups, right = whole["groups"].map(lambda own: tuple(own.get(name) for name in score.where)), whole["right"]
        theirs = scale * float(self.result["aggregates"].get(metric, float("nan")))
        shares = right.groupby(groups).mean() if right.notna().all() else pd.Series(dtype=float)
        known = max(len(shares), round(100 * shares.sum() / theirs)) if theirs > 0 else len(shares)
        if shares.empty or not abs(100 * shares.sum() / known - theirs) <= TOLERANCE:
            raise Unmeasured("failed", (
                f"{metric} is no mean over questions, nor over the groups by {', '.join(score.where)} of their shares of right answers, so that a "
                "part of them (where) has no value of it; name a metric that is one"
            ))  # fmt: skip
        counted = frame[frame["id"].isin(set(whole["id"]))]
        return counted.assign(correct=counted["right"])

    def is_mean(self, benchmark: Benchmark, name: str) -> bool:
        """Whether a score is a mean over its questions, so that one question has a score of its own."""
        if "scores" not in self.frame:
            return True
        metric, _ = benchmark.reads(name, benchmark.under(self.evaluation.protocol))
        if benchmark.scores[name].where.keys() - {"task"}:  # else it has no value: `_group`
            return True
        return benchmark.scores[name].aggregate != "task" and metric not in self.result.get("not_means", ())

    def answers(self, benchmark: Benchmark, name: str, extract: str = "strict") -> Answers:
        """The questions that a score counts. With `mean` and `cluster` the mean of the values is the score."""
        score, frame = benchmark.scores[name], self.scored(benchmark, name, extract)
        correct = frame["correct"].to_numpy(dtype=float)
        ids, clusters = tuple(frame["id"]), tuple(frame["cluster"])
        if score.aggregate == "cluster":
            whole = pd.Series(correct).groupby(pd.Index(clusters), sort=False).min()
            return Answers(tuple(whole.index), tuple(whole.index), whole.to_numpy(dtype=float))
        if score.aggregate == "mean":
            correct = correct * _weights(frame, score)
        return Answers(ids, clusters, correct)

    def likelihoods(self, score: Score) -> Answers:
        """Log-likelihood (nats, over the options) of the right letter to each question that a score counts, weighted as its mean
        weights them. Raises Unmeasured where they were not stored."""
        frame = select(self.frame, score, self.evaluation.job.key12)
        if "loglik" not in frame:
            reason = self.result.get("likelihoods") or "it was made before log-likelihoods were stored"
            raise Unmeasured("not measured", f"{self.evaluation.job.name}: {reason}")
        values = frame["loglik"].to_numpy(dtype=float)
        if score.aggregate == "mean":
            values = values * _weights(frame, score)
        return Answers(tuple(frame["id"]), tuple(frame["cluster"]), values)

    def rates(self, score: Score) -> Rates:
        """Of the questions that the score counts: of their answers, and what could not be read of all that count as right or wrong."""
        frame = select(self.frame, score, self.evaluation.job.key12)
        never = frame["rejected"] > 0
        asked, counted = frame[~never], frame[~(never & frame["right"].isna())] if frame["right"].notna().any() else frame

        def mean(name: str, of: pd.DataFrame) -> float | None:
            return float(of[name].mean()) if name in of and len(of) else None

        steps = None
        if "latent_steps" in asked:
            taken = asked["latent_steps"]
            steps = float(taken[taken > 0].mean()) if (taken > 0).any() else 0.0
        return Rates(mean("latent_started", asked), mean("truncated", asked), mean("unparsed", counted), steps, mean("rejected", frame))


def _weights(frame: pd.DataFrame, score: Score) -> np.ndarray:
    """[n], of mean 1: the groups of a `mean` score weigh alike, however many questions each has."""
    groups = frame["groups"].map(lambda g: g.get(score.over)).astype(object)
    sizes = groups.map(groups.value_counts()).to_numpy(dtype=float)
    return len(frame) / (groups.nunique() * sizes)


def select(frame: pd.DataFrame, score: Score, job: str) -> pd.DataFrame:
    """The rows that a score counts. Raises Unmeasured when there is none: a silent 0 of 0 would be a wrong score."""
    if not score.where and len(frame):
        return frame
    samples = ({"task": name, "groups": groups} for (name, _), groups in zip(frame["id"], frame["groups"]))
    keep = np.fromiter(map(score.keeps, samples), dtype=bool, count=len(frame))
    if not keep.any():
        held: dict[str, dict[str, None]] = {}
        for groups in frame["groups"]:
            for name in score.where.keys() & groups.keys():
                held.setdefault(name, {})[groups[name]] = None
        known = "; ".join(f"{name} is one of {', '.join(values)}" for name, values in held.items())
        raise Unmeasured("failed", f"no sample of {job} has {dict(score.where)}" + (f" ({known})" if known else ""))
    return frame[keep]


_MEANS: dict[tuple[str, ...], float | None] = {}
RECENT = 16
"""Evaluations that are kept after their mean was taken, as most are read for their own cell next. No more: a store holds more
runs than a report shows."""


@dataclass
class Reader:
    """Reads each evaluation once."""

    store: Store
    _cache: dict[str, Measured | Unmeasured] = field(default_factory=dict)
    _recent: dict[str, Measured] = field(default_factory=dict)

    def read(self, evaluation: Evaluation) -> Measured:
        """Raises Unmeasured when the job is not done or its files are not what they should be."""
        key = evaluation.job.key
        if key not in self._cache:
            try:
                self._cache[key] = self._recent.pop(key) if key in self._recent else self._read(evaluation)
            except Unmeasured as problem:
                self._cache[key] = problem
        found = self._cache[key]
        if isinstance(found, Unmeasured):
            raise found
        return found

    def mean(self, evaluation: Evaluation, benchmark: Benchmark, score: str, extract: str, metric: str = "accuracy") -> float | None:
        """Of a score's values; None where the run has none that can be trusted. Remembered for the next report of the command,
        since what is done never changes."""
        name = (str(self.store.root), evaluation.job.key, repr(benchmark.scores[score]), extract, metric)
        if name not in _MEANS:
            try:
                one = self._once(evaluation)
                check_aggregate(one, benchmark, score)
                asked = benchmark.scores[score]
                found = one.answers(benchmark, score, extract) if metric == "accuracy" else one.likelihoods(asked)
                _MEANS[name] = float(found.values.mean())
            except Unmeasured:
                _MEANS[name] = None
        return _MEANS[name]

    def _once(self, evaluation: Evaluation) -> Measured:
        """For a mean. Raises Unmeasured."""
        key = evaluation.job.key
        if key in self._cache:
            return self.read(evaluation)
        if key not in self._recent:
            self._recent[key] = self._read(evaluation)
            if len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
        return self._recent[key]

    def _read(self, evaluation: Evaluation) -> Measured:
        job = evaluation.job
        if not self.store.is_done(job):
            raise Unmeasured(*self.why(job))
        out = self.store.outputs(job)
        try:
            rows = read_rows(out / "samples.jsonl")
            result = json.loads((out / "result.json").read_text())
        except (OSError, ValueError) as error:
            raise Unmeasured("failed", f"{job.name}: {self._shown(str(error))}") from None
        return Measured(evaluation, rows, result)

    def named_by_mirror(self, job: Job, names: Iterable[str]) -> dict[str, frozenset[tuple[str, int]]]:
        """names: keys of the summary of an evaluation's mirror, such as uneven -> (task, doc_id) of the questions that it lists there;
        none are known where the mirror is not here."""
        mirror = job.inputs.get("mirror")
        try:
            summary = json.loads((self.store.outputs(mirror) / "summary.json").read_text()) if isinstance(mirror, Job) else {}
        except (OSError, ValueError, StoreError):
            summary = {}
        return {name: frozenset(map(_question_of, summary.get(name, {}).get("questions", ()))) for name in names}

    def why(self, job: Any) -> tuple[str, str]:
        """(state, reason) of a job that is not done."""
        status = self.store.status(job)
        if status.state is State.DAMAGED:
            return "failed", f"damaged: {status.reason}"
        if status.state is State.FAILED:
            return "failed", f"{job.kind} {job.name}: {self._shown(status.reason)}"
        if status.state is State.BLOCKED:
            culprit, reason = self._culprit(job)
            return "failed", f"{culprit.kind} {culprit.name}: {self._shown(reason)}"
        return "not run", f"{job.name} is {status.state}"

    def _shown(self, reason: str) -> str:
        """Strips the parent folder of the store or the working directory: a report does not reveal where it was
        made."""
        for folder in (self.store.root.parent, Path.cwd(), Path.home()):
            reason = reason.replace(f"{folder}/", "") if folder != Path("/") else reason
        return reason

    def _culprit(self, job: Any) -> tuple[Any, str]:
        """The failed or damaged ancestor that blocks the job."""
        for parent in job.parents:
            status = self.store.status(parent)
            if status.state in (State.FAILED, State.DAMAGED):
                return parent, status.reason
            if status.state is State.BLOCKED:
                return self._culprit(parent)
        return job, "a parent failed"


NUMBERS = ("correct", "correct_release", "latent_started", "latent_steps", "truncated", "loglik", "loglik_vocabulary", "letter_written")


def _question_of(line: str) -> tuple[str, int]:
    """ "TASK DOC_ID: what is wrong with it" """
    task, _, doc_id = line.partition(":")[0].rpartition(" ")
    return task, int(doc_id)


def read_rows(path: Path) -> pd.DataFrame:
    """samples.jsonl as id (task, doc_id), cluster, groups, `unparsed`, `rejected`, `unzoomed` (no number where nothing zooms), `whole` (why not), `right` (no number where nobody says), `scores` by metric where the task has its own, and
    whichever of NUMBERS every row has, as floats.

    Raises ValueError naming the line that is no sample.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines:
        raise ValueError(f"{path.name}: holds no sample")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            row["task"], row["doc_id"], row["cluster"], row["correct"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name}:{number}: is no sample: {error!r}") from None
        rows.append(row)
    scores = {"scores": pd.Series([row["scores"] for row in rows], dtype=object)} if all("scores" in row for row in rows) else {}
    columns: dict[str, Any] = {
        "id": pd.Series([(row["task"], row["doc_id"]) for row in rows], dtype=object),
        "cluster": pd.Series([(row["task"], row["cluster"]) for row in rows], dtype=object),
        "groups": pd.Series([row.get("groups") or {} for row in rows], dtype=object),
        "unparsed": np.array([row.get("prediction") is None for row in rows], dtype=float),
        "rejected": np.array(["rejected" in row for row in rows], dtype=float),
        "unzoomed": np.array(["whole" in row["zoom"] if row.get("zoom") else np.nan for row in rows], dtype=float),
        "right": pd.Series([None if row["correct"] is None else float(row["correct"]) for row in rows], dtype=float),
        "whole": pd.Series([(row.get("zoom") or {}).get("whole", "") for row in rows], dtype=object),
        "loglik_bound": np.array([bool(row.get("loglik_bound")) for row in rows], dtype=float),
        **scores,
    }
    for name in NUMBERS:
        if all(row.get(name) is not None for row in rows):
            columns[name] = np.array([row[name] for row in rows], dtype=float)
    return pd.DataFrame(columns)


def check_aggregate(measured: Measured, benchmark: Benchmark, score_name: str) -> None:
    """Raises Unmeasured when the task's own aggregate is another number than the samples give."""
    protocol = benchmark.under(measured.evaluation.protocol)
    score = benchmark.scores[score_name]
    name = score.metric.get(protocol)
    if name is None:
        return
    aggregates = measured.result.get("aggregates", {})
    if name not in aggregates:
        listed = ", ".join(sorted(aggregates)) or "none"
        raise Unmeasured("failed", f"the task reports no {name} (it reports: {listed})")
    theirs = float(aggregates[name]) * (score.scale or benchmark.scale.get(protocol, 1.0))
    ours = 100 * float(measured.answers(benchmark, score_name).values.mean())
    if abs(theirs - ours) > TOLERANCE:
        raise Unmeasured(
            "failed",
            f"{measured.evaluation.job.name}: the samples give {ours:.3f}, the task's {name} says {theirs:.3f}; "
            "neither is shown until they agree",
        )
