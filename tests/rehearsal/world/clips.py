"""MVBench, Video-MME and MLVU as lmms-eval finds them: annotations as their repositories have them, clips below an HF_HOME.

Two questions a task, with every column that the stock tasks read. One task of MVBench shows folders of frames, as the real one
does. Some clips are missing or damaged, as after a download that broke off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tests.films import write_film, write_timed

FRAMES_TASK = "episodic_reasoning"
"""Shows folders of numbered pictures."""
MISSING_TASK, BROKEN_TASK = "scene_transition", "state_change"
"""The second clip of the one is not there; that of the other is a page of HTML."""
MISSING_VIDEO = "rehearsal0002"
"""Of Video-MME: its three questions cannot be asked."""
UNEVEN = "count_1.mp4"
"""Of MLVU: its frame rate varies."""


def write(out: Path, hf: Path, seed: int = 0) -> dict[str, str]:
    """One folder of annotations a benchmark under `out`, clips under `hf`; returns each one's repository."""
    mvbench(out / "mvbench", hf / "mvbench_video", seed)
    videomme(out / "videomme", hf / "videomme", seed)
    mlvu(out / "mlvu", hf / "mlvu", seed)
    return {"mvbench": "OpenGVLab/MVBench", "videomme": "lmms-eval/Video-MME", "mlvu": "sy1998/MLVU_dev"}


def mvbench(annotations: Path, clips: Path, seed: int) -> None:
    """A list in JSON a task."""
    from lmms_eval.tasks.mvbench.utils import DATA_LIST

    configurations = {}
    for number, (task, folder) in enumerate(sorted(DATA_LIST.items())):
        rows = []
        for k in range(2):
            name = f"{task}_{k}" + ("" if task == FRAMES_TASK else ".mp4")
            place = clips / folder / name
            if task == FRAMES_TASK:
                _frames(place, seed + k)
            elif (task, k) == (BROKEN_TASK, 1):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text("<html>404 Not Found</html>")
            elif (task, k) != (MISSING_TASK, 1):
                write_film(place, frames=6 + 2 * k, seed=100 * seed + 2 * number + k)
            options = ["to the left", "to the right", "upwards"]
            bounds = {"start": 0.0, "end": 3.0} if task in ("action_sequence", "action_localization") else {}
            rows.append({"video": name, "question": "Which way does it go?", "candidates": options, "answer": options[k], **bounds})
        file = annotations / "json" / f"{task}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows))
        configurations[task] = f"json/{task}.json"  # its card names a file, and no split
    _card(annotations, configurations)


def videomme(annotations: Path, clips: Path, seed: int) -> None:
    """Three questions about each of three videos."""
    rows = []
    for number, (duration, frames) in enumerate((("short", 6), ("medium", 9), ("long", 12))):
        name = f"rehearsal{number:04d}"
        if name != MISSING_VIDEO:
            write_film(clips / "data" / f"{name}.{('mp4', 'mkv')[number % 2]}", frames=frames, seed=100 * seed + 50 + number)
        for k in range(3):
            options = [f"{'ABCD'[i]}. {word}." for i, word in enumerate(("One", "Two", "Three", "Four"))]
            rows.append({
                "video_id": f"{number + 1:03d}", "duration": duration, "domain": "Knowledge", "sub_category": "Astronomy", "url": "",
                "videoID": name, "question_id": f"{number + 1:03d}-{k + 1}", "task_type": "Counting Problem",
                "question": f"How many boxes appear in part {k + 1}?", "options": options, "answer": "ABCD"[(number + k) % 4],
            })  # fmt: skip
    _parquet(annotations / "videomme" / "test-00000-of-00001.parquet", rows)
    _card(annotations, {"videomme": {"test": "videomme/test-*"}})


def mlvu(annotations: Path, clips: Path, seed: int) -> None:
    """Options stand in the question; questions of one type about one video each."""
    rows = []
    for number, kind in enumerate(("anomaly_reco", "count", "ego", "needle", "order", "plotQA", "topic_reasoning")):
        for k in range(1 + number % 2):
            name = f"{kind}_{k}.mp4"
            if name == UNEVEN:
                write_timed(clips / name, [0, 0.1, 0.2, 0.3, 1, 2, 3, 4])
            else:
                write_film(clips / name, frames=8, seed=100 * seed + 70 + 2 * number + k)
            rows.append({
                "video_name": name, "duration": "0.8", "question": "What moves?\n(A) a box\n(B) a dog\n(C) a car\n(D) a sign",
                "candidates": "['a box', 'a dog', 'a car', 'a sign']", "answer": "ABCD"[(number + k) % 4], "task_type": kind,
            })  # fmt: skip
    _parquet(annotations / "data" / "test-00000-of-00001.parquet", rows)
    _card(annotations, {"default": {"test": "data/test-*"}})


def _frames(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for number in range(6):
        Image.fromarray(draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{number + 1:05d}.jpg")


def _parquet(file: Path, rows: list[dict[str, object]]) -> None:
    import datasets

    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(file)


def _card(folder: Path, configurations: Mapping[str, str | dict[str, str]]) -> None:
    """configurations: their files, or these by split."""
    import yaml

    def named(files: str | dict[str, str]) -> str | list[dict[str, str]]:
        return files if isinstance(files, str) else [{"split": split, "path": path} for split, path in files.items()]

    listed = [{"config_name": name, "data_files": named(files)} for name, files in configurations.items()]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n")
