"""Picture files that are not whole, and columns without pictures: what the mirror job says of them."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageFile

from models.evaluation.external import BadBenchmark, link_mirror
from models.evaluation.mirror import load_task
from models.evaluation.questions import every_question
from models.evaluation.stock import asked
from tests.models.evaluation.conftest import write_readme, write_split


def file_of(form, share=1.0, seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out := io.BytesIO(), form)
    return out.getvalue()[: int(share * len(out.getvalue()))]


WHOLE, PNG_HALF, JPEG_HALF = file_of("PNG"), file_of("PNG", 0.5, 1), file_of("JPEG", 0.5, 2)
SHOWN = [WHOLE, JPEG_HALF, file_of("JPEG"), PNG_HALF, JPEG_HALF]


def pope(folder, cells):
    rows = [
        {"id": str(k), "question_id": str(k), "question": f"Is there a thing {k}?", "answer": "yes", "image_source": "coco", "image": cell, "category": "random"}
        for k, cell in enumerate(cells)
    ]
    folder.mkdir()
    pictures = isinstance(cells[0], dict) and cells[0].keys() == {"bytes", "path"}
    write_readme(folder, [write_split(folder, rows, "test", columns=["image"] if pictures else [])])
    return folder


def cell(content):
    return {"bytes": content, "path": None}


def hrbench(folder, shown):
    rows = [
        {"index": k, "question": f"Which is it? ({k})", "answer": "ABCD"[k % 4], "category": "single", "cycle_category": str(k % 4),
         **dict(zip("ABCD", ["one", "two", "three", "four"], strict=True)), "image": base64.b64encode(content).decode()}
        for k, content in enumerate(shown)
    ]  # fmt: skip
    folder.mkdir()
    write_readme(folder, [write_split(folder, rows, "hrbench_4k", "hrbench_version_split")])
    return folder


@pytest.mark.parametrize("task", ["pope", "stock_hrbench4k"])
def test_cut_off_pictures_are_read_as_lmms_eval_does_and_each_of_their_questions_is_named(mirrors, tmp_path, capsys, task):
    folder = pope(tmp_path / "data", [cell(one) for one in SHOWN]) if task == "pope" else hrbench(tmp_path / "data", SHOWN)
    (out := tmp_path / "out").mkdir()
    summary = link_mirror(out, "mine", str(folder), [task])
    named = [line.partition(":")[0] for line in summary["cut_off"]["questions"]]
    assert named == [f"{task} 1", f"{task} 3", f"{task} 4"] and summary["cut_off"]["n"] == 3
    assert all("truncated" in line for line in summary["cut_off"]["questions"])
    assert json.loads((out / "summary.json").read_text()) == summary
    assert f"mine: 3 of 5 questions with a picture file that is cut off or damaged, read with its missing part blank, as by lmms-eval: {task} 1: " in capsys.readouterr().out
    assert ImageFile.LOAD_TRUNCATED_IMAGES, "as lmms-eval sets it"
    loaded = load_task(task, out)
    for number, content in enumerate(SHOWN):
        shown = asked(loaded, number).images[0].convert("RGB")
        assert shown.tobytes() == Image.open(io.BytesIO(content)).convert("RGB").tobytes()


def test_nothing_is_said_of_whole_pictures(mirrors, tmp_path, capsys):
    (out := tmp_path / "out").mkdir()
    assert "cut_off" not in link_mirror(out, "mine", str(pope(tmp_path / "data", [cell(WHOLE), cell(file_of("JPEG"))])), ["pope"])
    assert "cut off" not in capsys.readouterr().out


@pytest.mark.parametrize("lenient", [False, True], ids=["pillow", "lmms-eval"])
def test_the_projects_own_benchmarks_refuse_them_whatever_the_process_has_imported(mirrors, tmp_path, monkeypatch, lenient):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    folder = hrbench(tmp_path / "data", SHOWN)
    said = r"question 1 cannot be asked \(row 1 of hrbench_4k-00000-of-00001\.parquet, column image: no readable picture in the str .*truncated"
    with pytest.raises(ValueError, match=said):
        every_question(folder, "hrbench4k", "vr_hrbench4k")


@pytest.mark.parametrize(
    ("cells", "row", "holds"),
    [
        ([7, 8], 0, "the int '7', where {bytes, path} of a picture file is expected"),
        (["x.png", "y.png"], 0, "the str 'x.png'"),
        ([[1, 2], [3]], 0, "the list '[1, 2]', where {bytes, path} of a picture file is expected"),
        ([{"a": 1}, {"a": 2}], 0, "the dict \"{'a': 1}\", where {bytes, path} of a picture file is expected"),
        ([cell(WHOLE), cell(b"<html>403")], 1, "9 bytes that begin with b'<html>403'"),
        ([cell(WHOLE), cell(None)], 1, "nothing"),
    ],
    ids=["numbers", "names", "lists", "another struct", "a web page", "nothing"],
)
@pytest.mark.parametrize("benchmark", ["mine", "vstar"])
def test_a_column_without_pictures_is_named_with_file_row_and_remedy(mirrors, tmp_path, benchmark, cells, row, holds):
    (out := tmp_path / "out").mkdir()
    if benchmark == "mine":
        folder, tasks, file = pope(tmp_path / "data", cells), ["pope"], "test-00000-of-00001.parquet"
    else:
        folder, tasks, file = vstar(tmp_path / "data", cells), [], "test-00000-of-00001.parquet"
    with pytest.raises(BadBenchmark) as error:
        link_mirror(out, benchmark, str(folder), tasks)
    said = str(error.value)
    assert "\n" not in said and f"row {row} of {file}, column image: no readable picture in {holds}" in said
    assert said.endswith(f"fetch the data set again, or write another folder or name as benchmarks.{benchmark}.path")


def vstar(folder, cells):
    rows = [
        {"image": one, "text": "Which?\n(A) red\n(B) blue", "category": "relative_position", "label": "A", "question_id": str(k)}
        for k, one in enumerate(cells)
    ]
    folder.mkdir()
    pictures = isinstance(cells[0], dict) and cells[0].keys() == {"bytes", "path"}
    write_readme(folder, [write_split(folder, rows, "test", columns=["image"] if pictures else [])])
    return folder
