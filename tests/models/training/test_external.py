import json

import pytest
from PIL import Image

from models.config import ExternalTraining
from models.training.data import DataError, read_samples
from models.training.external import link_training_set, manifest_digest


def written(folder, box=(0.1, 0.1, 0.5, 0.5)):
    (folder / "pictures").mkdir(parents=True)
    Image.new("RGB", (56, 56)).save(folder / "pictures" / "a.png")
    entry = {
        "dataset": "made", "image": ["a.png"], "bboxes": [list(box)],
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "<lvr>\n<answer> A </answer>"}],
    }  # fmt: skip
    (folder / "rows.json").write_text(json.dumps([entry, {**entry, "image": ["gone.png"]}]))
    meta = [{"ds_name": "made", "data_path": "rows.json", "image_folder": "pictures", "ds_type": "Q_A"}]
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder / "meta.json"


def test_an_external_set_is_checked_counted_and_readable_from_where_it_was_linked(tmp_path):
    meta, out = written(tmp_path / "set"), tmp_path / "out"
    out.mkdir()
    summary = link_training_set(out, ExternalTraining(meta=str(meta), revision=manifest_digest(meta)))
    assert (summary["samples"], summary["rejected"]) == (1, {"missing image": 1})
    assert read_samples(out)[0].images[0].path.is_file()
    assert json.loads((out / "rejected.jsonl").read_text())["id"] == "made:1"


def test_the_same_data_in_another_place_has_the_same_digest_and_other_data_has_not(tmp_path):
    first, moved, other = (written(tmp_path / name) for name in ("a", "b", "c"))
    other.with_name("rows.json").write_text(other.with_name("rows.json").read_text().replace("0.5", "0.6"))
    assert manifest_digest(first) == manifest_digest(moved) != manifest_digest(other)


def test_data_that_is_not_what_was_pinned_is_refused_with_both_digests(tmp_path):
    meta, out = written(tmp_path / "set"), tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match=f"{manifest_digest(meta)}.*{'0' * 64}"):
        link_training_set(out, ExternalTraining(meta=str(meta), revision="0" * 64))
