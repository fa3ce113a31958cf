"""Where the numbers come from: what the profile changed, which cells are one run, which options are assumed, which code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.jobs import Job
from harness.kinds import place_of
from harness.report.numbers.results import Results
from harness.report.numbers.study import Arm, Study
from harness.report.sections.types import Cell, Column, Table, TableRow
from harness.report.sections.words import count, listed, seconds
from harness.spec.recipe import SECTIONS, STAGES
from models.config import ClipData, ExternalMirror, ExternalTraining, ProxyClips, ProxyMirror, ProxyTraining

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def value_text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, list)):
        return ", ".join(value_text(v) for v in value)
    return str(value)


def reads(arm: Arm, option: str) -> bool:
    """Whether the row's stages have the option."""
    section, dot, _ = option.partition(".")
    stages = arm.row.stages or ()
    if section == "clips":
        return any(STAGES[stage].clips for stage in stages)
    return not dot or section not in STAGES or section in stages


def scale_table(results: Results) -> Table | None:
    """Every option that the profile changes, beside the recipe's own value."""
    changed: dict[str, dict[tuple[str, str], None]] = {}
    for arm in results.arms.values():
        for name, value in arm.values.items():
            if (value.origin == "profile" or value.factor is not None) and reads(arm, name):
                before = value.unscaled
                if before != value.value:
                    pair = (value_text(before), value_text(value.value) + (f" (×{value.factor:g})" if value.factor else ""))
                    changed.setdefault(name, {})[pair] = None
    if not changed:
        return None
    study = results.study
    rows: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for name, found in changed.items():
        section, dot, option = name.partition(".")
        rows.setdefault((option if dot else section, tuple(found)), []).append(section if dot else "all")
    lines = []
    for (option, values), sections in rows.items():
        where = "" if sections == ["all"] else f" ({', '.join(sections)})"
        paper = " / ".join(dict.fromkeys(before for before, _ in values))
        here = " / ".join(dict.fromkeys(after for _, after in values))
        lines.append(TableRow(f"{option}{where}", (Cell(paper), Cell(here))))
    if study.profile.proxy:
        lines = [*proxy_rows(study, any(reads(arm, "clips.fps") for arm in results.arms.values())), *lines]
    return Table(
        "scale",
        f"What profile {study.profile_name} changes, the same for every arm.",
        (Column(study.recipe_text if len(study.recipes) == 1 else "the row's recipe", numeric=False), Column(f"profile {study.profile_name}", numeric=False)),
        tuple(lines),
        stub="Option",
    )


def seen_by(study: Study) -> str:
    """"on procedural scenes", or what else the models were trained on and asked."""
    profile, benchmarks = study.profile, study.profile.benchmarks
    asked = [benchmarks[name] for name in study.benchmarks if name in benchmarks]
    of_clips = {STAGES[kind].clips for arm in study.arms for kind in arm.row.stages or ()} or {False}
    data = [one for one, read in ((profile.data, False in of_clips), (profile.clips, True in of_clips)) if read and one is not None]
    trained = dict.fromkeys(Path(one.meta).name if isinstance(one, ExternalTraining) else "procedural scenes" for one in data)
    about_scenes = all(isinstance(one, ProxyMirror) for one in asked)
    if set(trained) == {"procedural scenes"} and about_scenes:
        return "on procedural scenes"
    return f"trained on {listed(list(trained))} and asked " + ("about procedural scenes" if about_scenes else "the benchmarks' own questions")


def proxy_rows(study: Study, clips: bool = False) -> list[TableRow]:
    """What replaces the paper's model, training data and benchmarks. clips: whether a row trains on clips."""
    backbone, data, benchmarks = study.profile.backbone, study.profile.data, study.profile.benchmarks
    model = getattr(backbone, "path", None) or getattr(backbone, "repo", "")
    scenes = f"{data.n:,} questions over procedural scenes" if isinstance(data, ProxyTraining) else f"{data.meta} ({data.revision})"
    sizes = {name: one.n for name, one in benchmarks.items() if isinstance(one, ProxyMirror) and one.n}
    asked = [f"{study.benchmarks[name].title} {n:,}" for name, n in sizes.items() if name in study.benchmarks]
    printed = [f"{found.title} {found.scores['overall'].n:,}" for name, found in study.benchmarks.items() if "overall" in found.scores]
    given = [f"{one.path} ({one.revision})" for name, one in benchmarks.items() if isinstance(one, ExternalMirror) and name in study.benchmarks]
    questions = [f"procedural scenes in the same format: {', '.join(asked)}"] if asked else []
    return [
        TableRow("model", (Cell("Qwen2.5-VL-7B-Instruct"), Cell(f"a tiny Qwen2.5-VL ({model})"))),
        TableRow("training data", (Cell("Visual CoT"), Cell(scenes))),
        *([TableRow("training data, clips", (Cell("the recipe's own"), Cell(_clips(study.profile.clips))))] if clips else []),
        TableRow("questions of a benchmark", (Cell(", ".join(printed)), Cell("; ".join([*questions, *given])))),
    ]


def _clips(data: ClipData | None) -> str:
    return f"{data.n:,} questions over procedural clips" if isinstance(data, ProxyClips) else f"{data.meta} ({data.revision})" if data else "none"


def assumed(results: Results) -> list[str]:
    """Options on which a recipe's source is silent, with the values used; of several recipes, each under its name."""
    first, *others = results.study.recipes
    found: dict[str, dict[str, None]] = {}
    for arm in results.arms.values():
        whose = f"{Path(arm.row.recipe).stem if arm.row.recipe else first}: " if others else ""
        for name, value in arm.values.items():
            if value.assumed and value.origin in ("recipe", "schema") and reads(arm, name):
                text = value_text(value.unscaled if value.factor else value.value)
                found.setdefault(whose + short(name), {})[text] = None
    return [f"{name} = {' or '.join(values)}" for name, values in found.items()]


def short(name: str) -> str:
    """`roi_bins` for an option that several stages share, `stage2.lr` for a stage's own."""
    _section, dot, option = name.partition(".")
    if not dot:
        return name
    having = [s for s, model in SECTIONS.items() if option in model.model_fields]
    return option if len(having) > 1 and option not in ("steps", "lr", "slot_fill", "teacher") else name


def same_runs(results: Results) -> tuple[dict[str, str], list[str]]:
    """Row label -> footnote sign, and the footnotes: rows that are one run, rows whose training contains another's, and
    rows whose checkpoint was adopted instead of trained here."""
    finals = {label: arm.trainings() for label, arm in results.arms.items() if arm.trainings()}
    notes: list[str] = []
    marks: dict[str, str] = {}

    def add(rows: tuple[str, ...], text: str) -> None:
        sign = LETTERS[len(notes) % 26]
        for row in rows:
            marks[row] = f"{marks[row]},{sign}" if row in marks else sign
        notes.append(f"{sign}: {text}")

    groups: dict[frozenset[str], list[str]] = {}
    for label, trainings in finals.items():
        groups.setdefault(frozenset(job.key for job in trainings.values()), []).append(label)
    for labels in groups.values():
        if len(labels) > 1:
            decoded = {frozenset(e.job.key for es in results.arms[label].evaluations.values() for e in es) for label in labels}
            same = "the same run" if len(decoded) == 1 else "one training, decoded in different ways"
            add(tuple(labels), f"{listed(labels)} are {same}.")
    for inner, outer in contained(finals):
        job = next(iter(finals[inner].values()))
        add((inner, outer), f"{inner} is the first part of {outer}: one training ({job.key12}), used by both.")
    taken: dict[str, list[str]] = {}
    for label in finals:
        for text in adopted(results, label):
            taken.setdefault(text, []).append(label)
    for text, labels in taken.items():
        add(tuple(labels), text)
    return marks, notes


def contained(finals: Mapping[str, Mapping[int, Job]]) -> list[tuple[str, str]]:
    """Rows whose final trainings, seed by seed, are among what came before another row's: (inner, outer), in the rows' order."""
    place = {label: number for number, label in enumerate(finals)}
    ending: dict[Job, list[str]] = {}
    for label, trainings in finals.items():
        for job in set(trainings.values()):
            ending.setdefault(job, []).append(label)
    found = set()
    for outer, trainings in finals.items():
        before = {seed: ancestors(job) for seed, job in trainings.items()}
        near = {label for jobs in before.values() for job in jobs for label in ending.get(job, ())}
        found |= {(inner, outer) for inner in near if all(job in before.get(seed, ()) for seed, job in finals[inner].items())}
    return sorted(found, key=lambda pair: (*sorted(map(place.__getitem__, pair)), place[pair[0]]))


def adopted(results: Results, row: str) -> list[str]:
    """One sentence for each of the row's trainings whose result was taken over from elsewhere."""
    found: dict[str, None] = {}
    arm = results.arms.get(row)
    for job in arm.trainings().values() if arm else ():
        for training in (job, *sorted(ancestors(job), key=lambda job: job.key)):
            facts = (results.store.done(training) or {}).get("adopted")
            if facts and training.kind == "train":
                stage = training.payload["stage"]["kind"]
                found[
                    f"adopted, not trained here: {stage} ({training.key12}) is the checkpoint {facts['from']}, sha256 "
                    f"{facts['sha256'][:12]}, registered by {facts['by']}: {facts['note']}."
                ] = None
    return list(found)


def ancestors(job: Job) -> set[Job]:
    found: set[Job] = set()
    waiting = list(job.parents)
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting.extend(parent.parents)
    return found


def overridden(results: Results) -> list[str]:
    """What the command line set, with the value it replaced."""
    found: dict[str, None] = {}
    for arm in results.arms.values():
        for name, value in arm.values.items():
            if value.origin == "--set" and reads(arm, name):
                found[f"{name} = {value_text(value.value)}"] = None
    return list(found)


def provenance(results: Results) -> list[str]:
    """Code, versions, machines and cost behind the report, from the DONE files."""
    jobs = results.study.jobs()
    done = {key: record for key, job in jobs.items() if (record := results.store.done(job)) is not None}
    kinds = Counter(jobs[key].kind for key in done)
    lines = [
        f"{count(len(done), 'job')} of {len(jobs)} done: "
        + (", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())) or "none")
        + f"; {seconds(sum(r.get('seconds', 0) for r in done.values()))} of computing in all."
    ]
    commits = Counter(commit_text(record.get("code")) for record in done.values())
    if commits:
        lines.append("Code: " + ", ".join(f"{text} ({count(n, 'job')})" for text, n in commits.most_common()) + ".")
    versions: dict[str, set[str]] = {}
    for record in done.values():
        for name, version in (record.get("versions") or {}).items():
            versions.setdefault("list of installed packages sha256" if name == "all packages" else name, set()).add(str(version))
    if versions:
        lines.append("Versions: " + ", ".join(f"{n} {' / '.join(sorted(v))}" for n, v in sorted(versions.items())) + ".")
    hardware = Counter(text for record in done.values() if (text := hardware_text(record)))
    if hardware:
        lines.append("Hardware: " + ", ".join(f"{text} ({count(n, 'job')})" for text, n in hardware.most_common()) + ".")
    return lines


def commit_text(code: Any) -> str:
    if isinstance(code, dict) and code.get("commit"):
        return str(code["commit"])[:12] + (" with uncommitted changes" if code.get("dirty") else "")
    return str(code)[:12] if code else "unknown commit"


def hardware_text(record: dict[str, Any]) -> str:
    hardware = record.get("hardware") or record.get("device")
    if isinstance(hardware, dict):
        return ", ".join(f"{value_text(value)}" for value in hardware.values() if value not in (None, "", 0))
    return str(hardware) if hardware else ""


def job_table(results: Results) -> Table:
    """Every job, so that a printed report alone says what to look for."""
    rows = []
    for job in sorted(results.study.jobs().values(), key=lambda job: (place_of(job.kind), job.name)):
        status = "done" if results.store.is_done(job) else str(results.store.status(job).state)
        rows.append(TableRow(job.name, (Cell(job.kind), Cell(job.key12, note=job.key), Cell(status))))
    return Table(
        "jobs",
        "Jobs behind this report. A key is the sha256 of everything that affects the job's result.",
        (Column("kind", numeric=False), Column("key", numeric=False), Column("state", numeric=False)),
        tuple(rows),
        stub="Job",
    )


