"""How documents of each benchmark become prompts and targets, and how an answer is judged."""

import pytest

from models.evaluation.tasks import blink, hrbench, mmerealworld, mmvp, vstar
from models.evaluation.tasks.paper import pair_accuracy

POST = "\nAnswer with the option's letter from the given choices directly."


def mmvp_document(index=1, question="Is it red?", options="(a) Yes (b) No (it is not)", answer="(b)"):
    return {"Index": index, "Question": question, "Options": options, "Correct Answer": answer}


def vstar_document(options="(A) left\n(B) right", **columns):
    return {"text": f"Where is it?\n{options}{POST}", "label": "B", "question_id": "0"} | columns


HRBENCH = {
    "question": "What is it? ",
    "A": "red",
    "B": "blue",
    "C": "x",
    "D": "y",
    "answer": "B",
    "category": "single",
    "index": 0,
}
MME = {
    "question": "What is it?",
    "multi-choice options": ["(A) red", "(B) blue", "（C） none"],
    "answer": "B",
    "category": "Perception/Remote Sensing",
}


@pytest.mark.parametrize(
    ("module", "doc", "text"),
    [
        (mmvp, mmvp_document(), "Is it red?\nOptions:\nA. Yes\nB. No (it is not)"),
        (blink, {"question": "How many?", "choices": ["1", "2"], "answer": "(B)"}, "How many?\nOptions:\nA. 1\nB. 2"),
        (vstar, vstar_document(), "Where is it?\nOptions:\nA. left\nB. right"),
        (hrbench, HRBENCH | {"D": None, "cycle_category": "0"}, "What is it?\nOptions:\nA. red\nB. blue\nC. x"),
        (mmerealworld, MME, "What is it?\nOptions:\nA. red\nB. blue\nC. none"),
    ],
)
def test_a_paper_prompt_is_question_options_and_the_instruction(module, doc, text):
    assert module.prompt(doc) == text + POST
    assert module.target(doc) == "B"


@pytest.mark.parametrize(
    ("index", "question", "corrected", "published"),
    [
        (99, "Does the elephant have long or short tusks?", "(b)", "A"),
        (100, "Does the elephant have long or short tusks?", "(a)", "B"),
        (279, "Is the person standing or sitting?", "(b)", "A"),
        (280, "Is the person standing or sitting?", "(a)", "B"),
        (99, "Is the position of the cup opposite?", "(b)", "B"),
        (279, "Is the position of the cup opposite?", "(b)", "B"),
        (98, "Does the elephant have long or short tusks?", "(b)", "B"),
    ],
)
def test_the_paper_s_mmvp_uses_the_labels_as_first_published(index, question, corrected, published):
    assert mmvp.target(mmvp_document(index, question, answer=corrected)) == published


def test_a_lost_vstar_category_follows_from_the_number_of_options():
    assert vstar.reading.groups(vstar_document()) == {"category": "relative_position"}
    assert vstar.reading.groups(vstar_document("(A) 1\n(B) 2\n(C) 3\n(D) 4")) == {"category": "direct_attributes"}
    assert vstar.reading.groups(vstar_document(category="direct_attributes")) == {"category": "direct_attributes"}


def test_an_answer_counts_in_its_category_and_by_both_readings():
    records = mmerealworld.judge(MME, ["The answer is B"])
    assert set(records) == {"accuracy", "accuracy_release", "perception"}
    assert records["accuracy"]["correct"] and records["accuracy"]["prediction"] == "B"
    assert not records["accuracy"]["correct_release"] and records["accuracy"]["prediction_release"] == "E"


def test_a_letter_that_is_no_option_is_no_answer():
    assert (
        blink.judge({"question": "?", "choices": ["1", "2"], "answer": "(B)"}, ["C"])["accuracy"]["prediction"] is None
    )


def test_a_pair_counts_when_both_questions_are_right():
    records = [
        mmvp.judge(mmvp_document(k + 1, answer="(a)"), [letter])["pair_accuracy"]
        for k, letter in enumerate(["A", "A", "A", "B"])
    ]
    assert pair_accuracy(records) == 0.5
    assert pair_accuracy(records[:1]) == 0.0


@pytest.mark.parametrize(
    ("response", "prediction", "right"),
    [("B", "B", 1), ("It is blue", "B", 1), ("A", "A", 0), ("nothing of the kind", None, 0), ("A or B", None, 0)],
)
def test_the_stock_hrbench_judge_asks_nobody(response, prediction, right, monkeypatch):
    import requests

    def refuse(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(requests, "post", refuse)
    records = hrbench.judge_stock(HRBENCH | {"cycle_category": "0"}, [response])
    assert set(records) == {"single", "average"}
    assert (records["average"]["prediction"], records["average"]["gpt_score"]) == (prediction, right)


def test_pictures_of_sixteen_bits_of_four_colours_and_turned_ones_are_what_training_would_see(tmp_path):
    import io

    import numpy as np
    from PIL import Image

    from models.backbone.pictures import open_image
    from models.evaluation.lmms_model import pictures_of
    from models.evaluation.mirror import load_task
    from models.evaluation.questions import read_questions
    from tests.models.evaluation.conftest import write_readme, write_split

    deep = Image.fromarray((np.arange(56 * 84, dtype=np.uint32).reshape(56, 84) * 13).astype(np.uint16))
    turned = Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 84, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [(deep, "PNG", {}), (turned.convert("CMYK"), "JPEG", {}), (turned, "JPEG", {"exif": exif})]
    rows, expected = [], []
    for number, (picture, kind, options) in enumerate(files, start=1):
        file = tmp_path / f"{number}.{kind.lower()}"
        picture.save(file, kind, **options)
        cell = {"bytes": file.read_bytes(), "path": None}
        rows.append({"image": cell, "Index": number, "Question": "Which?", "Options": "(a) Red (b) Blue", "Correct Answer": "(a)"})
        expected.append(open_image(io.BytesIO(file.read_bytes())))
    (folder := tmp_path / "mirror").mkdir()
    write_readme(folder, [write_split(folder, rows, "train", columns=["image"])])
    task = load_task("vr_mmvp", folder)
    task.build_all_requests(rank=0, world_size=1)
    seen = [pictures_of({"vr_mmvp": task.dataset}, request)[0] for request in task.instances]
    read = [one.images[0] for one in read_questions(folder, "mmvp", "vr_mmvp", [0, 1, 2]).values()]
    for ours, shown, wanted in zip(seen, read, expected, strict=True):
        assert ours.size == shown.size == wanted.size and ours.tobytes() == shown.tobytes() == wanted.tobytes()
    assert np.asarray(seen[0]).mean() < 200 and seen[2].size == (56, 84)
