"""Data sets of lmms-eval tasks that the project does not know, with the columns that they have on the hub, a few questions each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.models.evaluation.conftest import image_cell, write_readme, write_split

POPE = [("yes", "random"), ("no", "random"), ("yes", "popular"), ("no", "popular"), ("yes", "adversarial"), ("no", "adversarial")]


def pope(folder: Path, questions: int = 12) -> None:
    """lmms-lab-encoder/POPE: yes or no, six questions on every picture, two of each category."""
    rows = [
        {"id": str(k), "question_id": str(k + 1), "question": f"Is there a thing {k} in the image?", "answer": answer,
         "image_source": f"COCO_val2014_{k // 6:012d}", "image": image_cell(k // 6), "category": category}
        for k in range(questions)
        for answer, category in [POPE[k % 6]]
    ]  # fmt: skip
    write_readme(folder, [write_split(folder, rows, "test", columns=["image"])])


def mmstar(folder: Path) -> None:
    """Lin-Chen/MMStar: four options, categories of two levels; its average is a mean over the finer ones."""
    kinds = [("math", "geometry"), ("math", "geometry"), ("math", "numeric commonsense and calculation"), ("coarse perception", "image emotion")]
    rows = [
        {"index": k, "question": f"Which is it?\nOptions: A: one, B: two, C: three, D: four ({k})", "image": image_cell(20 + k),
         "answer": "ABCD"[k % 4], "category": category, "l2_category": finer,
         "meta_info": {"source": "MMBench", "split": "val", "image_path": f"images/{k}.jpg"}}
        for k in range(8)
        for category, finer in [kinds[k % 4]]
    ]  # fmt: skip
    write_readme(folder, [write_split(folder, rows, "val", columns=["image"])])


def docvqa(folder: Path) -> None:
    """lmms-lab-encoder/DocVQA: free text, several right answers, two questions on every page."""
    rows = [
        {"questionId": str(k), "question": f"What is line {k}?", "question_types": ["form"], "image": image_cell(40 + k // 2),
         "docId": k // 2, "ucsf_document_id": "abcd0001", "ucsf_document_page_no": "1", "answers": [f"answer {k}", f"Answer {k}."],
         "data_split": "val"}
        for k in range(6)
    ]  # fmt: skip
    write_readme(folder, [write_split(folder, rows, "validation", "DocVQA", columns=["image"])])


def textvqa(folder: Path) -> None:
    """lmms-lab-encoder/textvqa: ten people's answers; beside its score the task writes a file for a server."""
    rows: list[dict[str, Any]] = [
        {"image_id": f"{k:04x}", "question_id": k, "question": "what word is shown?", "question_tokens": ["what"], "image": image_cell(60 + k),
         "image_width": 64, "image_height": 64, "flickr_original_url": "", "flickr_300k_url": "",
         "answers": ["stop"] * (2 + k) + ["halt"] * (8 - k), "image_classes": ["Sign"], "set_name": "val", "ocr_tokens": ["STOP"]}
        for k in range(4)
    ]  # fmt: skip
    write_readme(folder, [write_split(folder, rows, "validation", columns=["image"])])


def chartqa(folder: Path) -> None:
    """lmms-lab-encoder/ChartQA: numbers within 5 %, questions of people and of a machine."""
    rows = [
        {"type": "human_test" if k % 2 else "augmented_test", "question": f"What is the value of bar {k}?", "answer": str(10 * (k + 1)),
         "image": image_cell(80 + k // 2)}
        for k in range(6)
    ]  # fmt: skip
    write_readme(folder, [write_split(folder, rows, "test", columns=["image"])])


def mme(folder: Path) -> None:
    """lmms-lab-encoder/MME: pairs of questions on one picture; each score is a sum over categories, up to 2000 and 800."""
    kinds = ["existence", "existence", "count", "code_reasoning"]
    rows = [
        {"question_id": f"{category}/{k // 2:04d}.png", "image": image_cell(90 + k // 2), "question": f"Is it {k}? Please answer yes or no.",
         "answer": "No" if k % 2 else "Yes", "category": category}
        for k in range(16)
        for category in [kinds[k // 2 % 4]]
    ]  # fmt: skip
    write_readme(folder, [write_split(folder, rows, "test", columns=["image"])])


WRITERS = {"pope": pope, "mmstar": mmstar, "docvqa_val": docvqa, "textvqa_val": textvqa, "chartqa": chartqa, "mme": mme}
"""lmms-eval's task → what writes its data set."""
