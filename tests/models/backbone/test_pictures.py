"""Picture files: what is read, how it becomes RGB, and what is refused with the file's name."""

import io

import numpy as np
import pytest
from datasets import Image as Feature
from PIL import Image, ImageFile

from models.backbone.images import grid_of, load_image_processor, patches_of
from models.backbone.pictures import Unreadable, facts_of, open_image, tag_of, turned
from models.config import Images

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def scene(size=(48, 32)):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))


def encoded(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


BROKEN = {
    "cut off jpeg": encoded(scene(), "JPEG")[:300],
    "cut off png": encoded(scene(), "PNG")[:300],
    "empty": b"",
    "a web page": b"<html>403 Forbidden</html>",
    "zeros": bytes(5000),
    "a broken chunk": encoded(scene(), "PNG")[:60] + bytes(400),
}


@pytest.mark.parametrize("lenient", [False, True], ids=["pillow", "lmms-eval"])
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_by_name_whatever_pillow_was_told(tmp_path, content, lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    (tmp_path / "broken.jpg").write_bytes(content)
    for read in (open_image, facts_of):
        with pytest.raises(Unreadable, match=r"broken\.jpg: not a readable image") as caught:
            read(tmp_path / "broken.jpg")
        assert caught.value.reason == "unreadable picture"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_a_strip_and_a_bomb_are_refused_by_name_before_they_are_decoded(tmp_path):
    Image.new("RGB", (2010, 10)).save(tmp_path / "strip.png")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png")
    with pytest.raises(Unreadable, match=r"strip\.png: 2010 x 10 pixels, more than 200 times") as strip:
        open_image(tmp_path / "strip.png")
    with pytest.raises(Unreadable, match=r"huge\.png: .*200000000 pixels") as huge:
        open_image(tmp_path / "huge.png")
    assert (strip.value.reason, huge.value.reason) == ("picture shape", "picture too large")
    Image.new("RGB", (2000, 10)).save(tmp_path / "long.png")
    assert open_image(tmp_path / "long.png").size == (2000, 10)


@pytest.mark.parametrize(
    ("samples", "name"),
    [
        ((RAMP * 65535).astype(np.uint16), "a.png"),
        ((RAMP * 4095).astype(np.uint16), "a.png"),  # 12 bits in a container of 16
        ((RAMP * 255).astype(np.uint16), "a.png"),
        ((RAMP * 65535).astype(np.int32), "a.tif"),
        (RAMP.astype(np.float32), "a.tif"),
        ((RAMP * 255).astype(np.float32), "a.tif"),
    ],
)
def test_an_even_ramp_of_more_than_eight_bits_stays_an_even_ramp(tmp_path, samples, name):
    Image.fromarray(samples).save(tmp_path / name)
    found = np.asarray(open_image(tmp_path / name))[..., 0].astype(float) / 255
    assert np.abs(found - RAMP).max() < 1.5 / 255
    assert facts_of(tmp_path / name).mends == ("samples of more than 8 bits scaled to 8",)


@pytest.mark.parametrize("value", [np.nan, -5.0, 1e9])
def test_samples_outside_every_scale_are_refused(tmp_path, value):
    Image.fromarray(np.full((40, 40), value, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(Unreadable, match=r"a\.tif: its samples reach from"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("mode", "form"), [("L", "JPEG"), ("1", "PNG"), ("CMYK", "JPEG"), ("P", "GIF"), ("RGBA", "PNG"), ("LA", "PNG")])
def test_other_modes_become_rgb(tmp_path, mode, form):
    (tmp_path / "a").write_bytes(encoded(scene().convert(mode), form))
    assert open_image(tmp_path / "a").mode == "RGB"


@pytest.mark.parametrize("form", ["RGBA", "LA", "P"])
def test_a_picture_of_which_nothing_can_be_seen_is_refused_not_read_as_white(tmp_path, form):
    blank = Image.new("RGBA", (40, 40), (200, 0, 0, 0))
    speck = blank.copy()
    speck.putpixel((3, 3), (200, 0, 0, 255))
    for name, picture in (("blank.png", blank), ("speck.png", speck)):
        picture.convert(form).save(tmp_path / name, **({"transparency": 0} if form == "P" and name == "blank.png" else {}))
    for read in (open_image, facts_of):
        with pytest.raises(Unreadable, match=r"blank\.png: wholly transparent") as caught:
            read(tmp_path / "blank.png")
        assert caught.value.reason == "unreadable picture"
    assert open_image(tmp_path / "speck.png").mode == "RGB"


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff"])
def test_of_several_frames_or_pages_the_first_is_taken_and_that_is_said(tmp_path, name):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if name == "a.webp" else {}))
    assert open_image(tmp_path / name).getpixel((5, 5)) == (255, 0, 0)
    assert facts_of(tmp_path / name).mends == ("first of several pages" if name == "a.tiff" else "first frame of an animation",)
    frames[0].save(tmp_path / f"still-{name}")
    assert facts_of(tmp_path / f"still-{name}").mends == ()


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_upright_is_the_picture_that_evaluation_sees_and_its_box_covers_the_same_pixels(tmp_path, tag, form):
    picture = Image.new("RGB", (120, 80), "white")
    picture.paste("red", (12, 8, 48, 24))
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / "a"
    path.write_bytes(encoded(picture, form, exif=exif, **({"lossless": True} if form == "WEBP" else {})))
    upright, stored = open_image(path), open_image(path, "stored")
    seen = Feature().decode_example({"path": str(path), "bytes": None}).convert("RGB")
    assert np.array_equal(np.asarray(upright), np.asarray(seen))
    assert stored.size == (120, 80) and facts_of(path).tag == tag == tag_of(path)
    x0, y0, x1, y1 = turned((0.1, 0.1, 0.4, 0.3), tag)
    width, height = upright.size
    inside = np.asarray(upright)[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]
    assert inside.shape[0] * inside.shape[1] == 36 * 16
    assert (np.abs(inside.astype(int) - (255, 0, 0)).max(axis=-1) < 60).mean() > 0.95


@pytest.mark.parametrize("size", [(10, 10), (300, 200), (31, 977), (1, 1)])
def test_the_grid_of_a_size_is_the_grid_of_its_pixels(base, size):
    processor = load_image_processor(base, Images(min_pixels=32 * 32, max_pixels=256 * 256))
    _, grids = patches_of(processor, [scene(size)])
    assert grid_of(processor, *size) == (int(grids[0, 1]) // 2, int(grids[0, 2]) // 2)
