"""The six image benchmarks as their repositories have them: parquet files and a card that names configurations and splits.

A handful of questions each, with every column that lmms-eval's stock tasks read, and pictures in the sizes and modes that
occur. HR-Bench and MME-RealWorld-Lite hold their pictures as base64 text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.rehearsal.world import pictures

Rows = list[dict[str, Any]]
Columns = dict[str, Any]
Files = dict[str, tuple[Rows, Columns]]
"""File name in the repository -> its rows, and the types of their columns."""

LETTERS = "ABCDE"
REPOSITORIES: dict[str, tuple[str, Callable[[np.random.Generator], tuple[dict[str, dict[str, str]], Files]]]] = {}
"""Name of the benchmark -> its repository, and what makes it: {configuration: {split: files}} and the files."""


def repository(name: str, repo: str) -> Callable:
    def register(make: Callable) -> Callable:
        REPOSITORIES[name] = repo, make
        return make

    return register


def revision(repo: str, seed: int) -> str:
    """A commit for the hub's cache."""
    return hashlib.sha1(f"{repo} {seed}".encode()).hexdigest()


def write(out: Path, seed: int) -> dict[str, str]:
    """One folder a benchmark under `out`; returns each one's repository."""
    import datasets
    import yaml

    datasets.disable_progress_bars()
    for k, (name, (_, make)) in enumerate(REPOSITORIES.items()):
        configurations, files = make(np.random.default_rng([seed, k]))
        folder = out / name
        for file, (rows, columns) in files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_list(rows, features=datasets.Features(columns)).to_parquet(path)
        listed = [
            {"config_name": configuration, "data_files": [{"split": s, "path": p} for s, p in splits.items()]}
            for configuration, splits in configurations.items()
        ]
        card = yaml.safe_dump({"configs": listed}, sort_keys=False)
        (folder / "README.md").write_text(f"---\n{card}---\n\nA few questions in the form of {name}, for rehearsals.\n")
    return {name: repo for name, (repo, _) in REPOSITORIES.items()}


def column(
    *, texts: Iterable[str] = (), numbers: Iterable[str] = (), images: Iterable[str] = (), lists: Iterable[str] = ()
) -> Columns:
    from datasets import Image, List, Value

    return {
        **{name: Value("string") for name in texts},
        **{name: Value("int64") for name in numbers},
        **{name: Image() for name in images},
        **{name: List(Value("string")) for name in lists},
    }


def picture(rng: np.random.Generator, size: pictures.Size, mode: str = "RGB") -> dict[str, Any]:
    image = pictures.scene(rng, size).convert(mode)
    return {"bytes": pictures.jpeg(image) if mode in ("RGB", "L") else pictures.png(image), "path": None}


def text_picture(rng: np.random.Generator, size: pictures.Size) -> str:
    return base64.b64encode(picture(rng, size)["bytes"]).decode()


@repository("mmvp", "lmms-lab-eval/MMVP")
def mmvp(rng: np.random.Generator):
    """Pairs of pictures under one question with opposite answers. Index counts from 1; 99, 100, 279 and 280 are the labels
    that this copy of the data set has corrected."""
    asked = {
        1: ("Is the butterfly's head towards the camera?", "Yes", "No", "ab"),
        41: ("Are the wheels turned left or right?", "Left", "Right", "ba"),
        99: ("Does the elephant have long or short tusks?", "Long", "Short", "ba"),
        279: ("Is the person standing or sitting?", "Standing", "Sitting", "ba"),
        299: ("Is the lid open?", "Open", "Closed", "ab"),
    }
    rows = [
        {"Index": index + k, "Question": question, "Options": f"(a) {first} (b) {second}",
         "Correct Answer": f"({right[k]})", "image": picture(rng, (224, 224), ("RGB", "RGBA")[index == 41])}
        for index, (question, first, second, right) in asked.items()
        for k in (0, 1)
    ]  # fmt: skip
    columns = column(numbers=["Index"], texts=["Question", "Options", "Correct Answer"], images=["image"])
    return {"default": {"train": "data/train-*"}}, {"data/train-00000-of-00001.parquet": (rows, columns)}


@repository("hrbench4k", "DreamMr/HR-Bench")
def hrbench(rng: np.random.Generator):
    """Two files at the root; every question four times, its options rotated, on one picture as base64 text."""
    files = {}
    for name, size in (("4k", (4032, 3024)), ("8k", (7680, 4320))):
        rows: Rows = []
        for category, question in (
            ("single", "What colour is the umbrella?"),
            ("cross", "Where is the van from the tree?"),
        ):
            image = text_picture(rng, size)
            words = ["Red", "Green", "Blue", "White"] if category == "single" else ["Left", "Right", "Above", "Below"]
            for turn in range(4):
                options = dict(zip(LETTERS, words[turn:] + words[:turn], strict=False))
                right = LETTERS[-turn % 4]
                rows.append({"index": len(rows), "question": question, "answer": right, "category": category, **options,
                             "cycle_category": right, "image": image})  # fmt: skip
        texts = ["question", "answer", "category", *"ABCD", "cycle_category", "image"]
        files[f"hr_bench_{name}.parquet"] = rows, column(numbers=["index"], texts=texts)
    splits = {f"hrbench_{name}": f"hr_bench_{name}.parquet" for name in ("4k", "8k")}
    return {"hrbench_version_split": splits}, files


BLINK = {
    "Art_Style": 3, "Counting": 1, "Forensic_Detection": 4, "Functional_Correspondence": 2, "IQ_Test": 1, "Jigsaw": 3,
    "Multi-view_Reasoning": 2, "Object_Localization": 1, "Relative_Depth": 1, "Relative_Reflectance": 1,
    "Semantic_Correspondence": 2, "Spatial_Relation": 1, "Visual_Correspondence": 2, "Visual_Similarity": 3,
}  # fmt: skip
"""Configuration -> pictures of a question."""
BLINK_OPTIONS = {
    "Spatial_Relation": ["yes", "no"],
    "Jigsaw": ["the second image", "the third image"],
    "Relative_Reflectance": ["A is darker", "B is darker", "About the same"],
}
REPORTED = ("Counting", "IQ_Test", "Jigsaw", "Relative_Reflectance", "Spatial_Relation")


@repository("blink", "BLINK-Benchmark/BLINK")
def blink(rng: np.random.Generator):
    """Fourteen configurations with up to four pictures a question; the answers of the test split are hidden."""
    texts = ["idx", "question", "sub_task", "answer", "prompt", "explanation"]
    columns = column(texts=texts, images=[f"image_{k}" for k in (1, 2, 3, 4)], lists=["choices"])
    files, configurations = {}, {}
    for task, count in BLINK.items():
        choices = BLINK_OPTIONS.get(task, ["2", "3", "4", "5"])
        for split, questions in (("val", 3 if task in REPORTED else 1), ("test", 1)):
            rows = []
            for k in range(questions):
                question = f"Which of the options fits picture {k + 1}?"
                listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
                shown = {
                    f"image_{i}": picture(rng, (480, 360), "L" if i == 2 else "RGB") if i <= count else None
                    for i in (1, 2, 3, 4)
                }
                rows.append({
                    "idx": f"{split}_{task}_{k + 1}", "question": question, "sub_task": task, **shown, "choices": choices,
                    "answer": f"({LETTERS[k % len(choices)]})" if split == "val" else "hidden",
                    "prompt": f"{question}\nSelect from the following choices.\n{listed}\n", "explanation": "",
                })  # fmt: skip
            files[f"{task}/{split}-00000-of-00001.parquet"] = rows, columns
        configurations[task] = {split: f"{task}/{split}-*" for split in ("val", "test")}
    return configurations, files


@repository("vstar", "lmms-lab-encoder/vstar-bench")
def vstar(rng: np.random.Generator):
    """Question, options and instruction are one text."""
    asked = [
        ("direct_attributes", "What is the material of the glove?", ["rubber", "cotton", "kevlar", "leather"]),
        ("relative_position", "Is the dog on the left or right side of the bench?", ["left", "right"]),
    ]
    rows = [
        {"image": picture(rng, (2000, 1400)), "category": category, "label": LETTERS[k % len(options)], "question_id": str(2 * k + n),
         "text": "\n".join([question, *(f"({letter}) {word}" for letter, word in zip(LETTERS, options, strict=False)),
                            "Answer with the option's letter from the given choices directly."])}
        for k in range(2)
        for n, (category, question, options) in enumerate(asked)
    ]  # fmt: skip
    columns = column(images=["image"], texts=["text", "category", "label", "question_id"])
    return {"default": {"test": "data/test-*"}}, {"data/test-00000-of-00001.parquet": (rows, columns)}


@repository("mmerealworld_lite", "yifanzhang114/MME-RealWorld-lite-lmms-eval")
def mmerealworld(rng: np.random.Generator):
    """Five options, pictures as base64 text in `bytes`, several files."""
    kinds = [("Perception/Autonomous_Driving", "motion"), ("Reasoning/Diagram and Table", "Diagram"), ("Perception/OCR with Complex Context", "license")]  # fmt: skip
    columns = column(numbers=["index"], texts=["bytes", "path", "question", "answer", "category", "l2-category"], lists=["multi-choice options"])  # fmt: skip
    files = {}
    for shard in range(3):
        rows = []
        for k in range(2):
            number = 2 * shard + k
            category, finer = kinds[number % len(kinds)]
            options = [
                f"({letter}) {word}" for letter, word in zip(LETTERS, ("2", "4", "6", "8", "Not visible"), strict=True)
            ]
            rows.append({
                "bytes": text_picture(rng, (1600, 1200)), "path": f"{number}.jpg", "index": number,
                "question": "How many cars are on the road?", "multi-choice options": options, "answer": LETTERS[number % 5],
                "category": category, "l2-category": finer,
            })  # fmt: skip
        files[f"data/train-{shard:05d}-of-00003.parquet"] = rows, columns
    return {"default": {"train": "data/train-*"}}, files
