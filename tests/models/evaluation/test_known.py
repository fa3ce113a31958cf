"""Pictures whose encoded bytes were seen before are not decoded again, and nothing else changes."""

import io
import json
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image, ImageFile

from models.config import DecodeSpec, EvaluateSpec
from models.evaluation import known, lmms_model, stock
from models.evaluation.cache import BoundedCache
from models.evaluation.documents import Document, Recollection
from models.evaluation.known import Facts, KnownPicture
from models.evaluation.lmms_model import pictures_of
from models.evaluation.mirror import load_task
from models.evaluation.orientation import oriented
from models.evaluation.questions import every_question
from models.evaluation.stock import read_every_question
from models.evaluation.tasks import digest
from models.run import LocalRun
from tests.models.evaluation.conftest import encoded, hrbench, picture, png, write_readme, write_split


@pytest.fixture
def counted(monkeypatch):
    """Decoded and hashed pictures, as lists that grow."""
    decoded, hashed, load, content_hash = [], [], ImageFile.ImageFile.load, known.content_hash

    def counting(self):
        if self.tile:
            decoded.append(self.size)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counting)
    monkeypatch.setattr(known, "content_hash", lambda shown: hashed.append(shown.size) or content_hash(shown))
    return decoded, hashed


@contextmanager
def every_row_decoded(monkeypatch):
    """As before anything was remembered: rows are plain dictionaries."""
    real = lmms_model._documents
    with monkeypatch.context() as patched:
        patched.setattr(lmms_model, "_documents", lambda *given: [dict(one) for one in real(*given)])
        yield


@pytest.fixture
def session(checkpoint):
    from models.evaluation import Session

    return Session(checkpoint, precision="fp32")


def evaluated(session, folder, mirror, images, benchmark="hrbench4k", protocol="paper", **options):
    decode = DecodeSpec(max_new_tokens=4, latent_steps=2, start="forced", **{k: v for k, v in options.items() if k == "zoom"})
    spec = EvaluateSpec(
        benchmark=benchmark, protocol=protocol, tasks=digest(benchmark, protocol), decode=decode, images=images, precision="fp32",
        fetched=options.get("fetched", "as_is"),
    )  # fmt: skip
    session.evaluate(LocalRun(folder), spec, mirror=mirror, batch_size=4)
    return (folder / "samples.jsonl").read_bytes()


@pytest.mark.parametrize("options", [{}, {"protocol": "stock"}, {"fetched": "qwen_vl_utils"}])
def test_four_questions_about_a_picture_decode_and_hash_it_once_and_leave_the_same_rows(
    session, mirrors, images, tmp_path, monkeypatch, counted, options
):
    decoded, hashed = counted
    rows = evaluated(session, tmp_path / "new", mirrors["hrbench4k"], images, **options)
    assert len(decoded) == len(hashed) == 2
    session._prepared.clear()
    with every_row_decoded(monkeypatch):
        assert evaluated(session, tmp_path / "old", mirrors["hrbench4k"], images, **options) == rows
    assert len(decoded) == 2 + 8


def test_features_that_are_kept_spare_the_decoding_and_forgotten_ones_take_one(session, mirrors, images, tmp_path, counted):
    decoded, hashed = counted
    session._task("vr_mmvp", mirrors["mmvp"].resolve())  # lmms-eval looks at the first row when it loads a task
    decoded.clear()
    rows = evaluated(session, tmp_path / "one", mirrors["mmvp"], images, "mmvp")
    assert len(decoded) == len(hashed) == 6
    session._prepared.clear()  # as for a checkpoint with another tokenizer
    assert evaluated(session, tmp_path / "two", mirrors["mmvp"], images, "mmvp") == rows
    assert len(decoded) == len(hashed) == 6
    session._task("vr_mmvp", mirrors["mmvp"].resolve())._decoded = BoundedCache(0)
    session._prepared.clear()
    session.engine.features = BoundedCache(0)
    session.engine.forget_answers()
    assert evaluated(session, tmp_path / "three", mirrors["mmvp"], images, "mmvp") == rows
    assert len(decoded) == 6 + 6 and len(hashed) == 6


def test_a_zoomed_picture_is_hashed_once_and_its_crop_too(session, images, tmp_path, monkeypatch, counted):
    decoded, hashed = counted
    (folder := tmp_path / "mirror").mkdir()
    hrbench(folder)
    lines = [json.dumps({"doc_id": k, "boxes": [[0.0, 0.0, 0.5, 0.5]]}) for k in range(8)]
    (folder / "boxes.jsonl").write_text("\n".join(lines) + "\n")
    rows = evaluated(session, tmp_path / "new", folder, images, zoom="oracle")
    assert sorted(hashed) == [(32, 32)] * 2 + [(64, 64)] * 2
    assert len(decoded) == 2
    session._prepared.clear()
    with every_row_decoded(monkeypatch):
        assert evaluated(session, tmp_path / "old", folder, images, zoom="oracle") == rows
    assert len(decoded) > 2 + 8


def rows_about(shown, **columns):
    """HR-Bench's rows, one for each picture; columns: of all of them."""
    row = {"question": "What colour is it?", "A": "red", "B": "blue", "C": "x", "D": "y", "answer": "A", "category": "single"}
    return [row | columns | {"index": k, "cycle_category": str(k % 4), "image": one} for k, one in enumerate(shown)]


def task_over(folder, rows, name="vr_hrbench4k", split="hrbench_4k", config="hrbench_version_split", **options):
    folder.mkdir()
    write_readme(folder, [write_split(folder, rows, split, config, **options)])
    task = load_task(name, folder)
    task.build_all_requests(rank=0, world_size=1)
    return task, [pictures_of({name: task.dataset}, request)[0] for request in task.instances]


def test_a_picture_that_depends_on_more_than_its_bytes_is_known_by_all_of_it(tmp_path, counted):
    rows = rows_about([encoded(1)] * 4)
    for row, side in zip(rows, [16, 16, 32, 32], strict=True):
        row["side"] = side
    task, _ = task_over(tmp_path / "mirror", rows)
    real = task.config.doc_to_visual
    task.config.doc_to_visual = lambda doc: [real(doc)[0].crop((0, 0, doc["side"], doc["side"]))]
    task._known.clear()
    decoded, _ = counted
    decoded.clear()
    seen = [pictures_of({"vr_hrbench4k": task.dataset}, request)[0] for request in task.instances]
    assert [one.size for one in seen] == [(16, 16), (16, 16), (32, 32), (32, 32)] and len(decoded) == 2
    assert [one.tobytes() for one in seen] == [picture(1).crop((0, 0, side, side)).tobytes() for side in (16, 16, 32, 32)]


def test_the_same_bytes_turned_and_not_turned_are_two_pictures(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1).crop((0, 0, 64, 32)).save(out := io.BytesIO(), "JPEG", exif=exif)
    cell = {"bytes": out.getvalue(), "path": None}
    row = {"image": cell, "Index": 1, "Question": "Which?", "Options": "(a) Red (b) Blue", "Correct Answer": "(a)"}
    task, (upright,) = task_over(tmp_path / "mirror", [row], "vr_mmvp", "train", None, columns=["image"])
    with oriented("stored"):
        (stored,) = pictures_of({"vr_mmvp": task.dataset}, task.instances[0])
    (again,) = pictures_of({"vr_mmvp": task.dataset}, task.instances[0])
    assert upright.size == again.size == (32, 64) and stored.size == (64, 32)
    assert upright.facts is again.facts is not stored.facts and upright.tobytes() == again.tobytes()


def test_a_picture_that_training_would_refuse_ends_an_evaluation(session, images, tmp_path):
    Image.new("RGBA", (64, 64), (1, 2, 3, 0)).save(out := io.BytesIO(), "PNG")
    cell = {"bytes": out.getvalue(), "path": None}
    row = {"image": cell, "Index": 1, "Question": "Which?", "Options": "(a) Red (b) Blue", "Correct Answer": "(a)"}
    (folder := tmp_path / "mirror").mkdir()
    write_readme(folder, [write_split(folder, [row, row | {"Index": 2}], "train", columns=["image"])])
    with pytest.raises(ValueError, match="wholly transparent"):
        evaluated(session, tmp_path / "out", folder, images, "mmvp")


def test_looking_through_a_mirror_decodes_each_picture_once_and_finds_the_broken_one(tmp_path, monkeypatch, counted):
    decoded, _ = counted
    for name, shown in (("good", [encoded(1)] * 4 + [encoded(2)] * 4), ("bad", [encoded(1)] * 6 + ["AAAA"])):
        (tmp_path / name).mkdir()
        write_readme(tmp_path / name, [write_split(tmp_path / name, rows_about(shown), "hrbench_4k", "hrbench_version_split")])
    every_question(tmp_path / "good", "hrbench4k", "vr_hrbench4k")
    assert len(decoded) == 2
    with pytest.raises(ValueError, match="question 6 cannot be asked"):
        every_question(tmp_path / "bad", "hrbench4k", "vr_hrbench4k")
    assert len(decoded) == 3
    decoded.clear()
    loaded = []
    monkeypatch.setattr(stock, "load_task", lambda *words: loaded.append(load_task(*words)) or loaded[-1])
    assert read_every_question(tmp_path / "good", "stock_hrbench4k").n == 8
    assert len(decoded) == 2 and loaded[0]._decoded.bytes == 3 * 64 * 64, "of the last picture"
    with pytest.raises(ValueError, match="question 6 cannot be asked"):
        read_every_question(tmp_path / "bad", "stock_hrbench4k")


@pytest.mark.parametrize(
    "reading",
    [
        dict, lambda doc: {**doc}, lambda doc: doc | {}, lambda doc: doc.copy(), lambda doc: dict(doc.items()),
        lambda doc: dict(zip(doc, doc.values(), strict=True)), lambda doc: {name: doc.get(name) for name in doc},
        lambda doc: {name: doc.pop(name) for name in list(doc)}, lambda doc: json.loads(json.dumps(doc)),
    ],
)  # fmt: skip
def test_a_document_is_a_dictionary_however_it_is_read_and_knows_what_was_read(reading):
    given = Document({"image": "abc", "n": 1}, {"image": str.upper})
    assert reading(given) == {"image": "ABC", "n": 1} and given.columns_read == {"image", "n"}
    assert not (fresh := given.unread()).columns_read and fresh["image"] == "ABC" and fresh.columns_read == {"image"}
    assert fresh.get("none", 7) == 7 and "n" in fresh and len(fresh) == 2 and fresh.columns_read == {"image"}


def test_only_what_was_read_has_to_agree_and_what_cannot_be_compared_never_does():
    found = Recollection()
    cell = {"bytes": png(picture(1)), "path": "a.png"}
    read = Document({"image": cell, "n": 1, "shown": [picture(2)]}, {})
    assert read["image"] and found.of(read) is None
    found.keep(read, "kept")
    assert found.of(Document({"image": cell | {"path": "b.png"}, "n": 2}, {})) == "kept"
    assert found.of(Document({"image": {"bytes": png(picture(3)), "path": "a.png"}, "n": 1}, {})) is None
    assert found.of(Document({"image": cell["bytes"].hex(), "n": 1}, {})) is None
    assert read["shown"]
    found.keep(read, "with a list of pictures")
    assert found.of(read.unread()) == "kept"


def test_a_picture_in_a_file_of_its_own_is_another_once_the_file_is(tmp_path):
    (file := tmp_path / "a.png").write_bytes(png(picture(1)))
    found, cell = Recollection(), {"bytes": None, "path": str(file)}
    read = Document({"image": cell}, {})
    assert read["image"]
    found.keep(read, "kept")
    assert found.of(Document({"image": cell}, {})) == "kept"
    file.write_bytes(png(picture(2, 80)))
    assert found.of(Document({"image": cell}, {})) is None


def test_a_known_picture_is_decoded_when_its_pixels_are_asked_for_and_behaves_like_any():
    shown, asked = picture(1), []
    facts = KnownPicture.of(shown).facts
    ways = [
        np.asarray, Image.Image.tobytes, lambda one: one.crop((0, 0, 8, 8)).tobytes(), lambda one: one.convert("L").tobytes(),
        lambda one: one.resize((9, 9)).tobytes(), lambda one: one.getpixel((3, 4)), lambda one: one.copy().tobytes(),
        lambda one: Image.merge("RGB", one.split()).tobytes(), lambda one: png(one),
    ]  # fmt: skip
    for number, way in enumerate(ways):
        one = KnownPicture(facts, lambda: asked.append(1) or shown)
        assert one.size == (64, 64) and (one.width, one.height, one.mode) == (64, 64, "RGB") and len(asked) == number
        assert np.array_equal(way(one), way(shown)) and len(asked) == number + 1
    one.putpixel((0, 0), (1, 2, 3))
    assert shown.tobytes() == picture(1).tobytes() and one.getpixel((0, 0)) == (1, 2, 3), "its pixels are its own"
    palette = shown.quantize(7)
    again = KnownPicture(KnownPicture.of(palette).facts, lambda: palette)
    assert again.mode == "P" and again.convert("RGB").tobytes() == palette.convert("RGB").tobytes()


def test_a_picture_that_comes_out_differently_the_second_time_is_an_error():
    with pytest.raises(RuntimeError, match="came out as"):
        KnownPicture(Facts((64, 64), "RGB"), lambda: picture(1, 32)).load()
