"""Reading the authors' format: what is accepted, what is rejected with which reason, what is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from models.training import jsonlist
from models.training.data import DataError, read_samples
from models.training.parse import Form, Rejected, Source, parse


def entry(**changes) -> dict:
    base = {
        "dataset": "toy",
        "image": ["a.png"],
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "<lvr>\n<answer> a cup </answer>"},
        ],
        "bboxes": [[0.1, 0.2, 0.5, 0.6]],
    }
    return base | changes


def write(folder: Path, entries: list, text: str | None = None) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / "images" / "a.png")
    (folder / "annotations.json").write_text(json.dumps(entries) if text is None else text)
    meta = [{"ds_name": "toy", "data_path": "annotations.json", "image_folder": "images", "ds_type": "Q_A"}]
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_an_entry_becomes_a_sample(tmp_path):
    samples = read_samples(write(tmp_path, [entry(), entry(image="a.png")]))
    assert len(samples) == 2
    sample = samples[1]
    assert sample.id == samples.name(1) == "toy:1"
    assert sample.images[0].key == "toy/a.png" and sample.images[0].path.is_file()
    assert sample.conversations[0] == {"from": "human", "value": "<image>\nWhat is it?"}
    assert sample.boxes == ((0.1, 0.2, 0.5, 0.6),) and sample.box_image == (0,)


def test_several_images_and_boxes_keep_their_image(tmp_path):
    conversations = [
        {"from": "human", "value": "<image>\n<image>\nCompare."},
        {"from": "gpt", "value": "<lvr> and <lvr>\n<answer> same </answer>"},
    ]
    two = entry(
        image=["a.png", "a.png"],
        conversations=conversations,
        bboxes=[[0, 0, 1, 1], [-0.1, 0, 0.5, 1.2]],
        bbox_images=[1, 0],
    )
    samples = read_samples(write(tmp_path, [two]))
    assert samples[0].box_image == (1, 0)
    assert samples[0].boxes[1] == (0.0, 0.0, 0.5, 1.0)
    assert samples.summary.clamped_boxes == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": ["b.png"]}, "missing image"),
        ({"bboxes": [[0.5, 0.2, 0.1, 0.6]]}, "bad box"),
        ({"bboxes": [[0.5, 0.2, 0.5, 0.6]]}, "bad box"),
        ({"bboxes": [[0.5, 0.2, 0.6]]}, "bad box"),
        ({"bboxes": [[1.1, 0.2, 1.6, 0.4]]}, "bad box"),
        ({"bboxes": []}, "box count"),
        ({"bbox_images": [1]}, "bad box image"),
        ({"image": []}, "image count"),
        ({"image": [""]}, "missing image"),
        ({"image": ["a\0.png"]}, "missing image"),
        ({"bboxes": [[0, 0, 40, 50]]}, "bad box"),
        ({"bboxes": [[0, 0, 2, 2]]}, "bad box"),
        ({"bboxes": [[12.5, 20, 55.5, 60]]}, "bad box"),
        ({"bboxes": [[float("nan"), 0.1, 0.5, 0.6]]}, "bad box"),
        ({"bboxes": [[0.1, 0.1, float("inf"), 0.6]]}, "bad box"),
        ({"bboxes": [[True, 0.1, 0.5, 0.6]]}, "bad box"),
        ({"bboxes": [None]}, "bad box"),
        ({"bboxes": [{"x0": 0.1}]}, "bad box"),
        ({"bboxes": [["0.1", "0.1", "wide", "0.6"]]}, "bad box"),
        ({"bboxes": [[10**400, 0.1, 0.5, 0.6]]}, "bad box"),
        ({"bboxes": [[0.1] * 8]}, "bad box"),
        ({"bboxes": [[]]}, "box count"),
        ({"bboxes": [[0.1, 0.1, 0.5, 0.6], [0.2, 0.2, 0.6, 0.7]]}, "box count"),
        ({"bboxes": [[[0.1, 0.1, 0.5, 0.6], [0.2, 0.2, 0.6, 0.7]]]}, "box count"),
        ({"conversations": [{"from": "human", "value": "<image>\ud83d"}, {"from": "gpt", "value": "<lvr>"}]}, "malformed entry"),
        ({"conversations": [{"from": "gpt", "value": "<lvr>"}, {"from": "human", "value": "<image>"}]}, "bad roles"),
        ({"conversations": [{"from": "bot", "value": "<image>"}]}, "bad roles"),
        ({"conversations": "hello"}, "malformed entry"),
        ({"bboxes": {"a": 1}}, "malformed entry"),
    ],
)
def test_a_bad_sample_is_rejected_by_name_and_reason(tmp_path, changes, reason):
    report = tmp_path / "report"
    samples = read_samples(write(tmp_path, [entry(), entry(**changes), entry()]), report=report)
    assert len(samples) == 2 and [samples.name(i) for i in range(2)] == ["toy:0", "toy:2"]
    assert samples.summary.rejected == {reason: 1}
    line = json.loads((report / "rejected.jsonl").read_text())
    assert (line["id"], line["reason"]) == ("toy:1", reason) and line["detail"]
    assert json.loads((report / "reading.json").read_text())["rejected"] == {reason: 1}


def test_a_missing_meta_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"meta\.json: no such file; give a meta JSON"):
        read_samples(tmp_path)


def test_a_missing_annotation_file_names_the_meta_entry_and_field(tmp_path):
    write(tmp_path, [entry()])
    (tmp_path / "annotations.json").unlink()
    with pytest.raises(DataError, match=r"meta\.json: entry 0, field 'data_path': 'annotations\.json' does not exist"):
        read_samples(tmp_path)


def test_an_unknown_kind_lists_the_choices(tmp_path):
    write(tmp_path, [entry()])
    meta = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps([meta[0] | {"ds_type": "Q_IMG"}]))
    with pytest.raises(DataError, match=r"field 'ds_type': 'Q_IMG' is not known; choices: Q_A"):
        read_samples(tmp_path)


@pytest.mark.parametrize(
    ("text", "entry_number"),
    [("5", 0), ("[{}, {]", 1), ('[{"a": 1}, {"b": ', 1), ('[{"a": 1}', 1), ('[{"a": "x', 0), ("", 0)],
)
def test_broken_json_names_file_and_entry(tmp_path, text, entry_number):
    with pytest.raises(DataError, match=rf"annotations\.json: entry {entry_number}, near byte \d+: "):
        read_samples(write(tmp_path, [], text))


def test_nothing_usable_is_an_error_with_the_first_reason(tmp_path):
    with pytest.raises(DataError, match=r"no usable sample of 1 \(1 box count\); the first: .*annotations\.json, entry 0: box count: 0 boxes for 1 <lvr>; correct"):
        read_samples(write(tmp_path, [entry(bboxes=[])]))


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_streaming_gives_the_same_entries_whatever_the_chunk(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(jsonlist, "CHUNK_BYTES", chunk)
    texts = ["plain", 'quote " and \\ slash', "naïve 漢字 🙂", "[{,}]", ""]
    rows = [entry(dataset=text) for text in texts]
    for text in (json.dumps(rows), json.dumps(rows, ensure_ascii=False, indent=2)):
        write(tmp_path, [], text)
        raw = (tmp_path / "annotations.json").read_bytes()
        found = list(jsonlist.entries(tmp_path / "annotations.json"))
        assert [value for _, _, value in found] == rows
        assert [json.loads(raw[start : start + size]) for start, size, _ in found] == rows
        assert read_samples(tmp_path)[2].id == "toy:2"


BOX, OTHER = (0.1, 0.2, 0.5, 0.6), (0.3, 0.1, 0.9, 0.4)
TWO = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "<lvr>\nand <lvr>\n<answer> both </answer>"}]


@pytest.mark.parametrize(
    "boxes", [[BOX], [[BOX]], [[[[BOX]]]], list(BOX), [["0.1", "0.2", "0.5", "0.6"]]], ids=["plain", "nested", "deep", "bare", "text"]
)
def test_a_box_is_found_at_any_depth_and_as_text(tmp_path, boxes):
    assert read_samples(write(tmp_path, [entry(bboxes=boxes)]))[0].boxes == (BOX,)


@pytest.mark.parametrize("boxes", [[BOX, OTHER], [BOX, [OTHER]], [[BOX, OTHER]], [[[BOX]], [OTHER]]])
def test_as_many_boxes_as_placeholders_are_one_each_however_they_are_nested(tmp_path, boxes):
    assert read_samples(write(tmp_path, [entry(bboxes=boxes, conversations=TWO)]))[0].boxes == (BOX, OTHER)


@pytest.mark.parametrize("boxes", [[BOX, OTHER], [[BOX, OTHER]], [[[BOX], OTHER]]])
@pytest.mark.parametrize(("surplus", "expected"), [("skip", None), ("first", BOX), ("union", (0.1, 0.1, 0.9, 0.6))])
def test_a_named_option_says_what_becomes_of_more_boxes_than_placeholders(tmp_path, boxes, surplus, expected):
    source, number = Source("toy", Form(tmp_path), tmp_path), 0
    if expected is None:
        with pytest.raises(Rejected, match="box count: 2 boxes for 1 <lvr>"):
            parse(json.loads(json.dumps(entry(bboxes=boxes))), source, number, ["a.png"], surplus=surplus)
    else:
        sample = parse(json.loads(json.dumps(entry(bboxes=boxes))), source, number, ["a.png"], surplus=surplus)
        assert sample.boxes == (expected,) and any("several boxes" in mend for mend in sample.mends)


def test_surplus_boxes_of_one_group_go_to_their_own_placeholder(tmp_path):
    source = Source("toy", Form(tmp_path), tmp_path)
    three = json.loads(json.dumps(entry(bboxes=[[BOX, OTHER], [OTHER]], conversations=TWO)))
    assert parse(three, source, 0, ["a.png"], surplus="first").boxes == (BOX, OTHER)
    assert parse(three, source, 0, ["a.png"], surplus="union").boxes == ((0.1, 0.1, 0.9, 0.6), OTHER)
    with pytest.raises(Rejected, match="box count: 3 boxes for 2"):  # which of three belong together is not said
        parse(json.loads(json.dumps(entry(bboxes=[BOX, OTHER, BOX], conversations=TWO))), source, 0, ["a.png"], surplus="union")


def test_a_row_without_box_and_placeholder_is_kept_and_counted(tmp_path):
    plain = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "<answer> x </answer>"}]
    summary = read_samples(write(tmp_path, [entry(), entry(bboxes=[], conversations=plain)])).summary
    assert (summary.samples, summary.boxless) == (2, 1)


def test_several_lists_json_lines_and_a_byte_order_mark_are_read_to_the_end(tmp_path):
    rows = [entry(dataset=name) for name in "abcd"]
    lists = json.dumps(rows[:2]) + "\n" + json.dumps(rows[2:])
    for text in (lists, "\ufeff" + lists, "\n".join(map(json.dumps, rows)) + "\n", json.dumps(rows[:3]) + json.dumps(rows[3])):
        samples = read_samples(write(tmp_path, [], text))
        assert [samples[k].id for k in range(len(samples))] == ["toy:0", "toy:1", "toy:2", "toy:3"]
        assert sorted(samples.summary.sources) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("tail", ["]", "trailing", '[{"dataset": ', "\0", "}"])
def test_bytes_after_the_list_are_an_error_never_dropped(tmp_path, tail):
    with pytest.raises(DataError, match=r"annotations\.json: entry [12], near byte \d+: "):
        read_samples(write(tmp_path, [], json.dumps([entry()]) + tail))


def test_a_number_without_end_is_an_error_that_names_the_entry(tmp_path):
    with pytest.raises(DataError, match=r"annotations\.json: entry 1, near byte \d+: "):
        read_samples(write(tmp_path, [], "[{}, " + "9" * 5000 + "]"))
