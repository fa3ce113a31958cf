"""Where pictures are looked for."""

import os

import pytest

from models.training.places import Finder, NotThere

RELEASE = {
    "viscot/cub/001.Albatross/a.jpg": "cub/CUB_200_2011/images/001.Albatross/a.jpg",
    "viscot/flickr30k/b.jpg": "flickr30k/flickr30k-images/b.jpg",
    "viscot/gqa/c.jpg": "gqa/images/c.jpg",
    "viscot/textcap/d.jpg": "textvqa/train_images/d.jpg",
    "viscot/textvqa/e.jpg": "textvqa/train_images/e.jpg",
    "viscot/v7w/f.jpg": "visual7w/images/f.jpg",
    "viscot/vsr/g.jpg": "vsr/images/g.jpg",
    "viscot/openimages/h.jpg": "openimages/h.jpg",
    "viscot/openimages/i.jpg": "openimages/train_0/i.jpg",
    "viscot/openimages/j.jpg": "openimages/train_5/j.jpg",
    "viscot/dude/k.jpg": "viscot/dude/k.jpg",
    "viscot/dude/l.jpg": "dude/l.jpg",
    "viscot/dude/m.jpg": "dude/DUDE_train-val-test_binaries/images/train/m.jpg",
    "viscot/dude/n.jpg": "dude/viscot/dude/n.jpg",
    "viscot/sroie/o.jpg": "viscot/sroie/o.jpg",
    "viscot/sroie/p.jpg": "sroie/p.jpg",
    "viscot/sroie/q.jpg": "sroie/viscot/sroie/q.jpg",
    "viscot/docvqa/r.png": "docvqa/r.png",
    "viscot/infographicsvqa/s.jpeg": "infographicsvqa/s.jpeg",
    "gqa/t.jpg": "gqa/images/t.jpg",
    "gqa/u.jpg": "gqa/u.jpg",
    "viscot/gqa/v.jpg": "viscot/gqa/v.jpg",
    "other/w.jpg": "other/w.jpg",
    "./x.jpg": "x.jpg",
}


@pytest.mark.parametrize("name", RELEASE)
def test_a_picture_is_found_in_the_releases_places_and_in_flat_ones(tmp_path, name):
    place = tmp_path / RELEASE[name]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"x")
    assert Finder(tmp_path).find(name) == str(place)


def test_a_name_without_a_folder_is_looked_for_by_the_rows_dataset(tmp_path):
    (tmp_path / "gqa" / "images").mkdir(parents=True)
    (tmp_path / "gqa" / "images" / "a.jpg").write_bytes(b"x")
    assert Finder(tmp_path).find("a.jpg", "gqa").endswith("gqa/images/a.jpg")
    with pytest.raises(NotThere):
        Finder(tmp_path).find("a.jpg", "vsr")


def test_an_absolute_name_stands_for_itself(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert Finder(tmp_path / "elsewhere").find(str(tmp_path / "a.jpg")) == str(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["viscot/openimages/a.jpg", "", "b/", "viscot/gqa", "a\0.jpg", "c.jpg"])
def test_what_is_not_there_is_said_with_the_folders_that_were_tried(tmp_path, name):
    (tmp_path / "openimages" / "train_6").mkdir(parents=True)
    (tmp_path / "openimages" / "train_6" / "a.jpg").write_bytes(b"x")
    (tmp_path / "c.jpg").mkdir()  # a folder is no picture
    with pytest.raises(NotThere) as caught:
        Finder(tmp_path).find(name)
    if "openimages" in name:
        assert "looked in viscot/openimages, openimages, openimages/train_0" in str(caught.value)
        assert "train_5" in str(caught.value) and "train_6" not in str(caught.value)


def test_a_folder_is_listed_once_however_many_names_are_looked_up(tmp_path, monkeypatch):
    (tmp_path / "gqa" / "images").mkdir(parents=True)
    for k in range(20):
        (tmp_path / "gqa" / "images" / f"{k}.jpg").write_bytes(b"x")
    calls = []
    monkeypatch.setattr(os, "scandir", lambda path, real=os.scandir: calls.append(path) or real(path))
    monkeypatch.setattr(os.path, "isfile", lambda path: pytest.fail(f"{path} was asked for by itself"))
    finder = Finder(tmp_path)
    for k in range(20):
        finder.find(f"viscot/gqa/{k}.jpg", "gqa")
    assert len(calls) == len(set(calls)) == 3  # viscot/gqa, gqa, gqa/images
