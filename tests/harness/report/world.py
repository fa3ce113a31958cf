"""A results folder as real jobs would leave it, through the real plan and the real store, with invented answers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from pytest import MonkeyPatch

from benchmarks.invented import leave
from harness.jobs import Job
from harness.plan import Plan, plan_experiment
from harness.spec import load_profile
from harness.store import Store, files

REPOSITORY = Path(__file__).resolve().parents[3]

PROFILE = """\
title: proxy (a test's invention)
proxy: {proxy}
backbone: {{source: hub, repo: somebody/tiny, revision: 0123456789abcdef}}
data: {{source: proxy, n: 64, seed: 0}}
benchmarks:
  mmvp: {{source: proxy, n: {n}}}
  hrbench4k: {{source: proxy, n: {n}}}
  blink: {{source: proxy, n: {n}}}
set: {{precision: fp32}}
scale: {{steps: 0.08, lr: 60, lambda_bcm: 10}}
seeds: {seeds}
side_seeds: {side_seeds}
side_benchmarks: {side_benchmarks}
protocols: [paper, stock]
latents: [own, zeroed, shuffled, oracle]
"""

SKILL = {"stage1": 0.58, "stage2-teacher-random": 0.55, "joint": 0.60, "stage2": 0.64}
"""Chance of a right answer by the training's slug; the truth that a report should recover."""
TASKS = {
    "mmvp": ["vr_mmvp"],
    "hrbench4k": ["vr_hrbench4k"],
    "blink": ["vr_blink_counting", "vr_blink_jigsaw", "vr_blink_iq_test"],
}


def make_plan(
    folder: Path, *, n: int = 400, seeds: int = 1, side_seeds: str | int = "null", proxy: bool = True, table: str = "table3c",
    side_benchmarks: str = "null", **options,
) -> Plan:
    folder.mkdir(parents=True, exist_ok=True)
    asked = PROFILE.format(n=n, seeds=seeds, side_seeds=side_seeds, side_benchmarks=side_benchmarks, proxy=str(proxy).lower())
    (folder / "invented.yaml").write_text(asked)
    return plan_experiment(
        REPOSITORY / "experiments" / f"{table}.yaml",
        load_profile(str(folder / "invented.yaml")),
        tasks=lambda benchmark, protocol: {f"{protocol}_{benchmark}": "0" * 64},
        **options,
    )


def skill(job: Job) -> float:
    payload = job.payload
    training = job.inputs["checkpoint"]
    slug = training.slug.rpartition("-seed")[0] if isinstance(training, Job) else "base"
    value = SKILL.get(slug, 0.57)
    latents = payload.get("decode", {}).get("latents", "own")
    value += {"own": 0, "zeroed": -0.01, "noise": -0.02, "shuffled": -0.06, "oracle": 0.09}[latents] * (slug != "base")
    return value + {"mmvp": 0.05, "blink": -0.02}.get(payload["benchmark"], 0.0)


def samples(job: Job, n: int) -> list[dict]:
    """Questions two to an image; an image's difficulty is shared by all rows, answers are drawn by the job's own seed."""
    benchmark = job.payload["benchmark"]
    shared = np.random.default_rng(zlib.crc32(benchmark.encode()))
    difficulty = np.repeat(shared.choice([-0.2, 0.2], size=(n + 1) // 2), 2)[:n]
    own = np.random.default_rng(zlib.crc32(job.key.encode()))
    stock = job.payload.get("protocol", "paper") == "stock"
    rows = []
    for i in range(n):
        tasks = TASKS[benchmark]
        task = tasks[i * len(tasks) // n]
        right = bool(own.random() < skill(job) + difficulty[i])
        unparsed = not right and own.random() < 0.01
        rows.append(
            {
                "task": task.removeprefix("vr_") if stock else task,
                "doc_id": i,
                "cluster": f"{benchmark}-{i // 2}",
                "groups": {
                    "category": "single" if i % 4 < 2 else "cross",
                    "task": task.removeprefix("vr_"),
                    "cycle": str(i % 4),
                    "pair": str(i // 2),
                },
                "target": "A",
                "prediction": "A" if right else None if unparsed else "B",
                "correct": right,
                "response": "<|lvr_start|>A<|im_end|>",
                "latent_started": bool(own.random() < 0.97),
                "latent_steps": 8,
                "truncated": bool(own.random() < 0.002),
                "new_tokens": 9,
            }
        )
        if job.payload.get("system") is None:
            rows[-1] |= {"loglik": -0.4 - 1.2 * (not right) - 0.01 * (i * 7 % 10), "letter_written": not unparsed}
            rows[-1]["loglik_vocabulary"] = rows[-1]["loglik"] - 0.05
        if not stock:
            rows[-1] |= {"prediction_release": "A" if right else "B", "correct_release": right}
    return rows


def write_evaluation(out: Path, job: Job, n: int) -> None:
    rows = samples(job, n)
    (out / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mean = sum(row["correct"] for row in rows) / n
    names = {"mmvp": "mmvp_accuracy", "blink": "blink_acc", "hrbench4k": "average"}
    name = names[job.payload["benchmark"]] if job.payload.get("protocol", "paper") == "stock" else "accuracy"
    result = {"benchmark": job.payload["benchmark"], "n": n, "aggregates": {name: mean}, "seconds": 3.2}
    (out / "result.json").write_text(json.dumps(result))


def write_card(out: Path, job: Job, n: int = 80) -> None:
    """Joint training's answers follow their latents, and its latents the evidence; the others' do neither."""
    random, follows = np.random.default_rng(zlib.crc32(job.key.encode())), "joint" in job.slug
    questions = []
    for i in range(n):
        right = bool(random.random() < 0.7)
        other = bool(random.random() < (0.3 if follows else 0.7)) if not right or follows else right
        modes = {
            mode: {"letter": "A" if correct else "C", "correct": correct, "loglik": -0.3 if correct else -2.0, "loglik_twin": -2.0}
            for mode, correct in {
                "own": right, "zeroed": right, "noise": right, "another": other, "markers": right, "none": right, "hidden": right,
                "hidden_another": right,
            }.items()
        }
        modes["twin"] = {"letter": "B" if follows and random.random() < 0.8 else "C", "correct": False, "loglik": -2.0, "loglik_twin": -0.4}
        modes["hidden_twin"] = modes["twin"]
        moved = {"evidence": 0.6 + 0.1 * random.random() if follows else 0.2, "elsewhere": 0.2 + 0.01 * random.random(), "twin": 0.5}
        questions.append({
            "task": "vr_mmvp", "doc_id": i, "cluster": f"vr_mmvp {i // 2}", "target": "A", "twin_target": "B", "option": "red",
            "box": [0, 0, 0.2, 0.2], "modes": modes, "moved": moved,
        })  # fmt: skip
    hits = [[int(random.random() < 0.9) for _ in range(n)] for _ in range(2)]
    probes = {"answer": {"kept": list(range(n)), "hits": hits, "chance": [[i % 4 == 0 for i in range(n)]]}, "option": None, "place": None}
    alike = {"cosine": [0.5 + 0.01 * (i % 7) for i in range(n)], "effective_rank": 7.5, "effective_rank_se": 0.5, "most": n - 1}
    card = {"benchmark": "mmvp", "checkpoint": "it", "latent_steps": 2, "questions": questions, "probes": probes, "alike": alike}
    (out / "card.json").write_text(json.dumps(card))


def write_training(out: Path, job: Job) -> None:
    random = np.random.default_rng(zlib.crc32(job.key.encode()))
    numbers = {
        "teacher_fed.ce": 0.7,
        "teacher_fed.z_t_std": 0.6 + 0.2 * random.random(),
        "teacher_fed.z_t_cosine": 0.4 if "joint" in job.slug else 0.991,
        "teacher_fed.z_t_centred_cosine": 0.1 * random.random(),
        "teacher_fed.teacher_in_box": 0.9,
        "free_running.student_in_box": 0.2 + 0.3 * random.random(),
        "teacher_fed.box_area": 0.182,
        "exposure_gap": random.random(),
    }
    if "stage1" in job.slug:
        del numbers["free_running.student_in_box"]
    (out / "diagnostics.json").write_text(json.dumps({"probe": numbers, "probe_samples": 64, "seconds": 1.5}))


def fill(store: Store, plan: Plan, *, n: int = 400, failing: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> None:
    """Run every job of the plan. failing, skip: beginnings of the names of jobs that fail or never run. What is invented need not
    survive a power cut."""
    with MonkeyPatch.context() as patch:
        patch.setattr(files, "synced", lambda descriptor: None)
        patch.setattr(files, "sync_file_system", lambda folder: None)
        _fill(store, plan, n, failing, skip)


def _fill(store: Store, plan: Plan, n: int, failing: tuple[str, ...], skip: tuple[str, ...]) -> None:
    for job in plan.graph:
        if store.is_done(job) or any(job.name.startswith(name) for name in skip):
            continue
        if any(not store.is_done(parent) for parent in job.parents):
            continue
        if any(job.name.startswith(name) for name in failing):
            store.ensure(job)
            attempt = store.begin_attempt(job)
            attempt.log.write_text("it ran\n")
            attempt.fail("code", "ValueError", "loss is NaN at step 17")
            continue
        writers: dict[str, Callable[[Path], None]] = {
            "evaluate": partial(write_evaluation, job=job, n=n),
            "train": partial(write_training, job=job),
            "card": partial(write_card, job=job),
        }
        leave(store, job, writers.get(job.kind), seconds=12.0, versions={"torch": "2.13.0", "transformers": "5.23.0"})
