"""The data job on data of others: every row looked at, every picture decoded once, what cannot be used named; the index."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from models.config import ExternalTraining, TrainingSet
from models.training import external
from models.training.data import DataError, read_samples
from models.training.external import NAMED, check_pictures, look, manifest_digest, prepare
from tests.models.training.conftest import SMALL

SPEC = TrainingSet(images=SMALL, min_usable=0.1)


def talk(question="What?", answer="<lvr>\n<answer> A </answer>"):
    return [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]


def row(name="a.png", **changes):
    return {"dataset": "made", "image": [name], "bboxes": [[0.1, 0.1, 0.5, 0.5]], "conversations": talk()} | changes


def written(folder, *rows):
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (56, 40)), ("b.jpg", (80, 64))):
        Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(folder / "pictures" / name)
    (folder / "rows.json").write_text(json.dumps(rows or [row(), row("b.jpg"), row("gone.png")]))
    meta = [{"ds_name": "made", "data_path": "rows.json", "image_folder": "pictures", "ds_type": "Q_A"}]
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder / "meta.json"


def named(out, file="rejected.jsonl", what="reason"):
    return {line["id"]: line[what] for line in map(json.loads, (out / file).read_text().splitlines())}


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_set_is_read_from_its_index_as_it_is_read_from_its_annotations(tmp_path, out, base):
    two = row("b.jpg", image=["a.png", "b.jpg"], bboxes=[[[0.2, 0.2, 1.1, 0.9]], [[0, 0, 1, 1]]], bbox_images=[1, 0],
              conversations=[{"from": "human", "value": "<image><image>Which?"}, {"from": "gpt", "value": "<lvr><lvr> b"}])  # fmt: skip
    meta = written(tmp_path / "set", row(), row("gone.png"), two, row("b.jpg"))
    summary = prepare(out, meta, SPEC, base, threads=2)
    assert (summary["samples"], summary["rejected"], summary["mended"]) == (
        3, {"missing image": 1}, {"box cut at the edge": 1, "boxes not nested once": 1}
    )  # fmt: skip
    assert summary["sources"]["made"]["usable"] == 3 and summary["manifest_sha256"] == manifest_digest(meta)
    assert named(out) == {"made:1": "missing image"}
    assert named(out, "mended.jsonl", "mend") == {"made:2": "box cut at the edge"}
    indexed, plain = read_samples(out), read_samples(meta)
    assert [indexed[k] for k in range(3)] == [plain[k] for k in range(3)]
    assert indexed.columns.sizes.tolist() == [[56, 40, 1], [80, 64, 1]]
    assert not any(file.read_bytes()[:2] == b"\x80\x04" for file in (out / "index").iterdir())


def test_with_an_index_nobody_reads_the_annotations_or_looks_for_pictures_again(tmp_path, out, base, monkeypatch):
    prepare(out, written(tmp_path / "set"), SPEC, base)
    for module, name in (("data", "survey"), ("parse", "entries"), ("places", "_files"), ("data", "tag_of")):
        monkeypatch.setattr(f"models.training.{module}.{name}", lambda *_, of=name, **__: pytest.fail(f"{of} was called"))
    samples = read_samples(out)
    assert [samples[k].id for k in range(len(samples))] == ["made:0", "made:1"]


def test_each_picture_is_decoded_once_however_many_rows_show_it(tmp_path, out, base, monkeypatch):
    seen = []
    monkeypatch.setattr(external, "facts_of", lambda path, real=external.facts_of: seen.append(path) or real(path))
    prepare(out, written(tmp_path / "set", *[row()] * 5, row("b.jpg")), SPEC, base, threads=2)
    assert sorted(path.rpartition("/")[2] for path in seen) == ["a.png", "b.jpg"]


def test_what_only_decoding_or_a_tokenizer_shows_is_rejected_or_mended_by_name(tmp_path, out, base):
    meta = written(
        tmp_path / "set", row(), row("cut.jpg"), row("strip.png"), row("huge.png"), row("deep.png"), row("cmyk.jpg"),
        row("side.jpg"), row(conversations=talk("Is <|image_pad|> here?")), row(conversations=talk(answer="<lvr> <|lvr|>")),
        row(conversations=talk(answer="<lvr> " + "word 12 " * 700)), row(conversations=talk("é" * 20)), row(),
    )  # fmt: skip
    pictures = meta.parent / "pictures"
    (pictures / "cut.jpg").write_bytes((pictures / "b.jpg").read_bytes()[:900])
    Image.new("RGB", (3000, 10)).save(pictures / "strip.png")
    Image.new("1", (20_000, 10_000)).save(pictures / "huge.png")
    Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16)).save(pictures / "deep.png")
    Image.new("CMYK", (40, 40)).save(pictures / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(pictures / "side.jpg", exif=exif)
    spec = SPEC.model_copy(update={"max_tokens": 1200})
    summary = prepare(out, meta, spec, base)
    assert named(out) == {
        "made:1": "unreadable picture", "made:2": "picture shape", "made:3": "picture too large",
        "made:7": "special token", "made:8": "special token", "made:9": "too long",
    }  # fmt: skip
    assert named(out, "mended.jsonl", "mend") == {
        "made:4": "samples of more than 8 bits scaled to 8", "made:5": "CMYK made RGB", "made:6": "turned as its EXIF tag says",
    }  # fmt: skip
    assert summary["samples"] == 6 and sum(summary["rejected"].values()) == 6
    samples = read_samples(out)
    side = next(samples[k] for k in range(len(samples)) if samples[k].id == "made:6")
    assert side.images[0].open().size == (40, 80) and side.boxes == ((0.5, 0.1, 0.9, 0.5),)
    stored = read_samples(out, orientation="stored")
    side = next(stored[k] for k in range(len(stored)) if stored[k].id == "made:6")
    assert side.images[0].open().size == (80, 40) and side.boxes == ((0.1, 0.1, 0.5, 0.5),)


@pytest.mark.parametrize("text", ["<lvr> " + "é" * 150, "<lvr> " + "\u0958" * 100, "<lvr> " + "a b" * 120])
def test_the_bound_on_tokens_never_lets_a_longer_row_through(tmp_path, out, base, text):
    """Qwen's tokenizer composes first, and some letters have more bytes composed than not."""
    from transformers import AutoTokenizer

    from models.training.parse import text_bytes

    turns = talk(answer=text)
    tokens = sum(len(AutoTokenizer.from_pretrained(base)(turn["value"])["input_ids"]) for turn in turns)
    assert tokens <= text_bytes(turns)


def test_too_few_usable_rows_end_the_job_with_a_line_for_each_source_that_lacks_something(tmp_path, out, base):
    rows = [row()] * 4 + [row(f"viscot/openimages/{k}.jpg", dataset="openimages") for k in range(5)] + [row("cut.jpg", dataset="gqa")]
    meta = written(tmp_path / "set", *rows)
    (meta.parent / "pictures" / "cut.jpg").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        prepare(out, meta, SPEC.model_copy(update={"min_usable": 0.9}), base)
    first, *others = str(caught.value).splitlines()
    assert "4 of 10 rows are usable (40.0%), min_usable asks for 90%" in first and "5 missing image" in first
    assert len(others) == 4
    assert others[0].startswith("  openimages: 5 of 5 pictures missing; looked in viscot/openimages, openimages, openimages/train_0")
    assert others[1] == "  gqa: 1 of 1 rows unreadable picture"
    assert others[2].startswith(f"  the first: {meta.parent / 'rows.json'}, entry 4: missing image: ") and "openimages/0.jpg" in others[2]
    assert f"entry 9: unreadable picture: {meta.parent / 'pictures/cut.jpg'}: not a readable image" in others[3]
    assert len(named(out)) == 6 and not (out / "index").exists() and not (out / "meta.json").exists()
    assert look(ExternalTraining(meta=str(meta), revision="v1")).lacking.splitlines()[1] == others[0]


def test_of_many_sources_that_lack_rows_the_worst_are_named_and_the_others_counted(tmp_path, out, base):
    rows = [row(f"gone/{k}.jpg", dataset=f"source {n}") for n in range(40) for k in range(1 + (n == 7))]
    with pytest.raises(DataError) as caught:
        prepare(out, written(tmp_path / "set", row(), *rows), SPEC.model_copy(update={"min_usable": 0.9}), base)
    _first, worst, *others, last, example = str(caught.value).splitlines()
    assert worst.startswith("  source 7: 2 of 2 pictures missing") and len(others) == NAMED - 1
    assert last == "  and 35 more sources, which lack 35 rows together" and ", entry 1: missing image: " in example


def test_a_placeholder_in_the_wrong_turn_is_kept_as_text_and_its_row_is_named(tmp_path, out, base):
    question, answer = talk("Where is the <lvr> mark?"), talk(answer="<lvr>\nSee <image>. <answer> A </answer>")
    summary = prepare(out, written(tmp_path / "set", row(), row(conversations=question), row(conversations=answer)), SPEC, base)
    assert named(out, "mended.jsonl", "mend") == {
        "made:1": "<lvr> in a question kept as text", "made:2": "<image> in an answer kept as text",
    }  # fmt: skip
    assert summary["samples"] == 3
    samples = read_samples(out)
    assert [turn["value"] for turn in samples[1].conversations] == [turn["value"] for turn in question]


def test_a_folder_of_broken_pictures_is_noticed_before_any_job(tmp_path):
    meta = written(tmp_path / "set", *[row(f"{k}.jpg") for k in range(10)])
    for k in range(10):
        (meta.parent / "pictures" / f"{k}.jpg").write_bytes(b"<html>")
    found = look(ExternalTraining(meta=str(meta), revision="v1"))
    assert found.lacking == "" and len(found.some) == 10
    with pytest.raises(DataError, match=r"10 of 10 pictures looked at cannot be used; the first: .*/0\.jpg: not a readable"):
        check_pictures(found.some, found.films, str(meta), 0.9)


def test_annotations_changed_after_the_data_job_are_an_error_not_other_samples(tmp_path, out, base):
    meta = written(tmp_path / "set")
    prepare(out, meta, SPEC, base)
    rows = meta.with_name("rows.json")
    rows.write_text(" " + rows.read_text())
    with pytest.raises(DataError, match=r"rows\.json: \d+ bytes, \d+ when it was indexed"):
        read_samples(out)


def digest(meta, **options):
    return look(ExternalTraining(meta=str(meta), revision="v1", **options)).digest


def test_the_same_data_in_another_place_has_the_same_digest(tmp_path):
    first, moved = (written(tmp_path / name) for name in ("a", "b"))
    assert digest(first) == digest(moved) and manifest_digest(first) == manifest_digest(moved)


def test_other_annotations_or_pictures_that_come_go_or_change_give_another_digest(tmp_path):
    meta = written(tmp_path / "set")
    pictures, seen = meta.parent / "pictures", [digest(meta)]
    shutil.copy(pictures / "a.png", pictures / "gone.png")
    seen.append(digest(meta))
    (pictures / "gone.png").write_bytes(b"")
    seen.append(digest(meta))
    (pictures / "b.jpg").unlink()
    seen.append(digest(meta))
    meta.with_name("rows.json").write_text(meta.with_name("rows.json").read_text().replace("0.5", "0.6"))
    seen.append(digest(meta))
    assert len(set(seen)) == 5


def test_data_that_is_not_what_was_pinned_is_refused_with_both_digests(tmp_path):
    meta = written(tmp_path / "set")
    with pytest.raises(DataError, match=f"{manifest_digest(meta)}.*{'0' * 64}"):
        look(ExternalTraining(meta=str(meta), revision="0" * 64))
