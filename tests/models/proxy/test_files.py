"""Mirrors and training set: the stock task code reads them as they are."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from models.proxy import mirrors, prompts
from models.proxy.mirrors import write_mirror
from models.proxy.trainset import write_training_set

ROWS = {"mmvp": 8, "blink": 20, "hrbench4k": 8, "hrbench8k": 4, "vstar": 6, "mmerealworld_lite": 6}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("mirrors")
    return {b: (root / b, write_mirror(root / b, b, n=n, seed=0, split="dev")) for b, n in ROWS.items()}


def load(folder, *config):
    import datasets

    return datasets.load_dataset(str(folder), *config, cache_dir=str(folder / ".cache"))


def boxes(folder):
    return [json.loads(line) for line in (folder / "boxes.jsonl").read_text().splitlines()]


def test_mmvp_rows_are_minimal_pairs_and_stock_code_reads_them(written):
    from lmms_eval.tasks.mmvp import utils

    docs = load(written["mmvp"][0])["train"]
    assert docs.column_names == ["Index", "Question", "Options", "Correct Answer", "image"]
    post = {"post_prompt": prompts.PAPER_POST}
    for k, doc in enumerate(docs):
        text = utils.mmvp_doc_to_text(doc, post)
        assert text.startswith(doc["Question"] + "\nA. ") and "\nB. " in text and text.endswith(prompts.PAPER_POST)
        assert utils.mmvp_doc_to_visual(doc)[0].size == (128, 128)
        twin = docs[k ^ 1]
        assert twin["Question"] == doc["Question"] and twin["Correct Answer"] != doc["Correct Answer"]
        assert utils.mmvp_process_results(doc, [utils.mmvp_doc_to_target(doc)])["mmvp_accuracy"]["is_correct"]
        assert doc["Index"] == k + 1


def test_hrbench_rotates_options_and_stock_code_reads_it(written):
    from lmms_eval.tasks.hrbench import utils

    for name, split in (("hrbench4k", "hrbench_4k"), ("hrbench8k", "hrbench_8k")):
        docs = load(written[name][0], "hrbench_version_split")[split]
        for doc in docs:
            assert utils.hrbench_doc_to_visual(doc)[0].size == (192, 192)
            assert utils.hrbench_doc_to_text(doc).endswith(prompts.HRBENCH_POST)
            assert doc["category"] in ("single", "cross")
        assert sorted(d["answer"] for d in docs.select(range(4))) == ["A", "B", "C", "D"]
        assert len({d[d["answer"]] for d in docs.select(range(4))}) == 1


def test_blink_has_five_configurations_and_stock_code_reads_them(written):
    from lmms_eval.tasks.blink import utils

    folder, report = written["blink"]
    assert set(report["counts"]) == {"Counting", "IQ_Test", "Jigsaw", "Relative_Reflectance", "Spatial_Relation"}
    for subset, count in report["counts"].items():
        docs = load(folder, subset)["val"]
        assert len(docs) == count == len(boxes(folder / subset))
        for doc in docs:
            text = utils.blink_doc_to_text(doc, {"pre_prompt": prompts.BLINK_PRE})
            assert text == prompts.BLINK_PRE.format(", ".join("ABCD"[: len(doc["choices"])])) + doc["prompt"]
            assert len(utils.blink_doc_to_visual(doc)) == (3 if subset == "Jigsaw" else 1)
            assert utils.blink_process_results(doc, [doc["answer"]])["blink_acc"]["is_correct"]


def test_vstar_and_mme_realworld_are_read_by_stock_code(written):
    from lmms_eval.tasks.mme_realworld import utils as mme
    from lmms_eval.tasks.vstar_bench import utils as vstar

    docs = load(written["vstar"][0])["test"]
    assert {d["category"] for d in docs} == {"direct_attributes", "relative_position"}
    for doc in docs:
        assert vstar.vstar_process_results(doc, [doc["label"]])["vstar_overall_acc"]["score"] == 1
        assert "\nA. " in vstar.vstar_doc_to_text(doc)
    docs = load(written["mmerealworld_lite"][0])["train"]
    scored = [mme.mme_realworld_process_results(d, [d["answer"]])["mme_realworld_score"] for d in docs]
    assert mme.mme_realworld_aggregate_results(scored) == 1
    assert mme.mme_realworld_doc_to_text(docs[0]).endswith(prompts.MME_POST)


def test_every_row_has_a_box_inside_its_picture(written):
    for name, (folder, report) in written.items():
        for place in [folder / s for s in report["counts"]] if name == "blink" else [folder]:
            records = boxes(place)
            assert [r["doc_id"] for r in records] == list(range(len(records)))
            for r in records:
                (box,) = r["boxes"]
                assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1 and r["images"] == [0]


def test_dev_test_and_training_share_no_scene(tmp_path, written):
    contents = {}
    for split in ("dev", "test"):
        write_mirror(tmp_path / split, "mmvp", n=20, seed=0, split=split)
        contents[split] = {s for r in boxes(tmp_path / split) for s in r["scenes"]}
    assert not contents["dev"] & contents["test"]
    report = write_training_set(tmp_path / "train", n=60, seed=0)
    pictures = {hashlib.sha256(p.read_bytes()).digest() for p in (tmp_path / "train/images").rglob("*.png")}
    assert len(pictures) == report["images"]
    for name in ("mmvp", "hrbench4k"):
        docs = load(written[name][0], *(["hrbench_version_split"] if name != "mmvp" else []))
        for doc in next(iter(docs.values())):
            if name == "mmvp":
                assert hashlib.sha256(mirrors.png(np.asarray(doc["image"]))).digest() not in pictures


def test_a_bad_request_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown benchmark 'gqa'; known: mmvp"):
        write_mirror(tmp_path, "gqa", seed=0, split="dev")
    with pytest.raises(ValueError, match="rows of 4"):
        write_mirror(tmp_path, "hrbench4k", n=10, seed=0, split="dev")
    with pytest.raises(ValueError, match="'dev' or 'test'"):
        write_mirror(tmp_path, "mmvp", n=2, seed=0, split="train")
    with pytest.raises(ValueError, match="at least one"):
        write_training_set(tmp_path, n=0, seed=0)


def test_the_training_set_is_in_the_releases_format(tmp_path):
    report = write_training_set(tmp_path, n=80, seed=1)
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert set(meta[0]) == {"ds_name", "data_path", "image_folder", "ds_type"}
    entries = json.loads((tmp_path / meta[0]["data_path"]).read_text())
    assert len(entries) == report["questions"] == 80 == sum(report["families"].values())
    for e in entries:
        human, gpt = e["conversations"]
        assert human["value"].count("<image>\n") == len(e["image"])
        assert gpt["value"].startswith("<lvr>\n<answer> ") and gpt["value"].endswith(" </answer>")
        assert gpt["value"].count("<lvr>") == len(e["bboxes"]) == len(e["bbox_images"]) == 1
        for name in e["image"]:
            with Image.open(tmp_path / meta[0]["image_folder"] / name) as picture:
                assert picture.size[0] in (64, 128, 192)
    assert write_training_set(tmp_path / "again", n=80, seed=1)["annotations_sha256"] == report["annotations_sha256"]
