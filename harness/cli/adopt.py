"""`run.py adopt DIR FILE ROW`: take an existing checkpoint as the result of a row's training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.main import add_results, seed_number
from harness.cli.stored import open_store
from harness.cli.words import plural
from harness.jobs import Job, Source, trainings
from harness.spec.errors import SpecError, unknown
from models.hub import cached_snapshot

if TYPE_CHECKING:
    from harness.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a checkpoint: transformers folder, or bare weights")
    parser.add_argument("file", metavar="FILE", help="the experiment, as in experiments/table3c.yaml")
    parser.add_argument("row", metavar="ROW", help='the row, as in "Two-stage (Ours)"')
    parser.add_argument("--note", required=True, metavar="TEXT", help="what it is and who trained it; reports show it")
    parser.add_argument("--origin", default="", metavar="URL", help="where it was published (default: DIR itself)")
    parser.add_argument("--stage", metavar="STAGE", help="the stage that this checkpoint finishes (default: the row's last)")
    parser.add_argument("--seed", type=seed_number, default=0, metavar="N", help="the job's seed (default: 0)")
    parser.add_argument("--base", type=Path, metavar="DIR", help="take config, tokenizer and processor from here if DIR lacks them (default: the profile's base model)")  # fmt: skip
    parser.add_argument("--profile", default="proxy", metavar="P", help="profile's name or file (default: proxy)")
    parser.add_argument("--recipe", metavar="R", help="use this recipe instead of the experiment's")
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    from harness.plan import plan_experiment
    from harness.store import AlreadyDone
    from harness.worker.adopt import adopt

    if not options.note.strip():
        raise SpecError("--note: is empty; say what the checkpoint is and who trained it")
    if options.seed < 0:
        raise SpecError(f"--seed: {options.seed} is not a seed; use 0 or more")
    plan = plan_experiment(
        options.file, options.profile, recipe=options.recipe, rows=[options.row], seeds=options.seed + 1,
        digests=options.results / ".digests.json",
    )  # fmt: skip
    job = training(plan, options.seed, options.stage)
    store = open_store(options.results)
    if done := store.done(job):
        how = f"adopted from {done['adopted']['from']}" if "adopted" in done else "trained here"
        raise AlreadyDone(f"{job.name}: already has a result ({how}); nothing was adopted; to use another store: --results DIR")
    facts = adopt(
        store, job, options.folder, base=options.base or local_base(job), origin=options.origin, note=options.note.strip()
    )
    print(f"adopted: {facts['from']} as {job.kind} {job.name}")
    print(f"  weights    {plural(facts['tensors'], 'tensor')}, sha256 {facts['sha256']}")
    print(f"  by         {facts['by']}: {facts['note']}")
    print(f"  in         {store.outputs(job)}")
    return 0


def training(plan: Plan, seed: int, stage: str | None) -> Job:
    """The training of the row's given stage, or of its last. Raises SpecError when there is none."""
    (row,) = plan.rows
    last = plan.checkpoints.get(row.label, {}).get(seed)
    if not isinstance(last, Job):
        reason = row.undefined or "it has no stages"
        raise SpecError(f'{plan.experiment.document.name}: row "{row.label}" trains nothing here ({reason}); name another row')
    chain = {job.payload["stage"]["kind"]: job for job in trainings(last)}
    if stage is not None and stage not in chain:
        raise SpecError("--stage: " + unknown(f'row "{row.label}" has no stage "{stage}"', stage, list(chain), "stages"))
    return chain[stage] if stage else last


def local_base(job: Job) -> Path | None:
    """The folder of the base model that the job's chain starts from; None if it is not on this machine."""
    source: Job | Source = job
    while isinstance(source, Job):
        source = source.inputs["init"]
    assert isinstance(source, Source)
    if source.location.startswith("hub:"):
        repository, _, revision = source.location.removeprefix("hub:").partition("@")
        return cached_snapshot(repository, revision)[0]
    return Path(source.location) if Path(source.location).is_dir() else None
