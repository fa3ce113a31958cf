"""Defective and unusual rows, each with what must become of it.

accept: it is trained on. reject: it is left out, counted and named. either: the choice is the reader's, as long as the
row is never an error, and never becomes other content in silence. No outcome may end a run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from tests.rehearsal.world import pictures
from tests.rehearsal.world.album import QUESTION, Album, talk

Outcome = Literal["accept", "reject", "either"]
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Trap:
    outcome: Outcome
    why: str
    make: Callable[[Album], Any]
    """Writes the picture where the trap needs one of its own; returns the entry of the annotation file."""


TRAPS: dict[str, Trap] = {}


def trap(outcome: Outcome, why: str) -> Callable[[Callable[[Album], Any]], Callable[[Album], Any]]:
    def register(make: Callable[[Album], Any]) -> Callable[[Album], Any]:
        TRAPS[make.__name__.removeprefix("_")] = Trap(outcome, why, make)
        return make

    return register


# ---- picture files ---------------------------------------------------------------------------------------------------


def file(name: str, outcome: Outcome, why: str, content: Callable[[Album], bytes], source: str = "gqa") -> None:
    """A row whose picture is a file of its own."""
    TRAPS[name] = Trap(outcome, why, lambda album: album.row(source, image=[album.put(content(album), source)]))


def scene(album: Album, mode: str = "RGB", size: pictures.Size = (320, 240)) -> Image.Image:
    return pictures.scene(album.rng, size).convert(mode)


def turned(album: Album, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return pictures.jpeg(scene(album), exif=exif)


def sixteen_bit(album: Album) -> bytes:
    """Grey levels from 0 to 65535: most readers cut them at 255, which leaves white."""
    ramp = np.linspace(0, 65535, 240 * 320).reshape(240, 320).astype(np.uint16)
    return pictures.png(Image.fromarray(ramp))


def of_frames(album: Album, form: str) -> bytes:
    frames = [scene(album) for _ in range(3)]
    return pictures.encoded(frames[0], form, save_all=True, append_images=frames[1:])


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


UNREADABLE = "unreadable picture"
file("cut_off_jpeg", "reject", UNREADABLE, lambda a: half(pictures.jpeg(scene(a, size=(900, 700)))))
file("cut_off_png", "reject", UNREADABLE, lambda a: half(pictures.png(scene(a))), "docvqa")
file("cut_off_webp", "reject", UNREADABLE, lambda a: half(pictures.encoded(scene(a), "WEBP")))
file("no_bytes", "reject", UNREADABLE, lambda a: b"", "flickr30k")
file("error_page", "reject", UNREADABLE, lambda a: b"<html><body>429 Too Many Requests</body></html>", "openimages")
file("lfs_pointer", "reject", UNREADABLE, lambda a: b"version https://git-lfs.github.com/spec/v1\nsize 91842\n", "cub")
file("zeros", "reject", "unreadable picture: a hole left by a broken download", lambda a: bytes(40_000))
file("too_many_pixels", "reject", "beyond Pillow's limit of 178.9 megapixels", lambda a: pictures.png(Image.new("1", (15_000, 12_000))), "infographicsvqa")  # fmt: skip
file("aspect_201", "reject", "sides in a ratio above 200, which the image processor refuses", lambda a: pictures.jpeg(scene(a, size=(6030, 30))))  # fmt: skip
file("aspect_199", "accept", "sides in a ratio below 200", lambda a: pictures.jpeg(scene(a, size=(5970, 30))))
file("one_pixel", "accept", "enlarged to the fewest pixels", lambda a: pictures.png(scene(a, size=(1, 1))), "docvqa")
file("grey", "accept", "converted to RGB", lambda a: pictures.jpeg(scene(a, "L")), "sroie")
file("black_and_white", "accept", "converted to RGB", lambda a: pictures.png(scene(a, "1")), "docvqa")
file("cmyk", "accept", "converted to RGB", lambda a: pictures.jpeg(scene(a, "CMYK")), "dude")
file("palette", "accept", "converted to RGB", lambda a: pictures.png(scene(a, "P"), transparency=3), "docvqa")
file("transparent", "accept", "converted to RGB", lambda a: pictures.png(scene(a, "RGBA")), "docvqa")
file("grey_transparent", "accept", "converted to RGB", lambda a: pictures.png(scene(a, "LA")), "docvqa")
file("sixteen_bits", "either", "scaled to eight bits or left out; never white in silence", sixteen_bit, "docvqa")
file("webp_named_jpg", "accept", "read by its content", lambda a: pictures.encoded(scene(a), "WEBP"))
file("png_named_jpg", "accept", "read by its content", lambda a: pictures.png(scene(a)), "vsr")
file("bmp_named_jpg", "accept", "read by its content", lambda a: pictures.encoded(scene(a), "BMP"))
file("progressive", "accept", "", lambda a: pictures.jpeg(scene(a), progressive=True), "flickr30k")
file("animated", "accept", "its first frame", lambda a: of_frames(a, "GIF"))
file("two_in_one", "accept", "its first frame: a camera's MPO", lambda a: of_frames(a, "MPO"), "openimages")
file(
    "upside_down",
    "accept",
    "boxes were drawn on the stored raster: turn both or neither",
    lambda a: turned(a, 3),
    "v7w",
)
file(
    "on_its_side",
    "accept",
    "boxes were drawn on the stored raster: turn both or neither",
    lambda a: turned(a, 6),
    "sroie",
)


# ---- names and places ------------------------------------------------------------------------------------------------


@trap("reject", "no such picture")
def _missing(album: Album) -> Any:
    return album.row("gqa", image=[album.name("gqa")[0]])


@trap("reject", "no such picture: the file's name differs in case")
def _other_case(album: Album) -> Any:
    return album.row("gqa", image=[str(Path(album.known("gqa")).with_suffix(".JPG"))])


@trap("reject", "no such picture: a link to nothing")
def _dangling_link(album: Album) -> Any:
    name, path = album.name("v7w")
    path.symlink_to("moved-away.jpg")
    return album.row("v7w", image=[name])


@trap("reject", "no such picture: a folder")
def _folder_named_jpg(album: Album) -> Any:
    name, path = album.name("gqa")
    path.mkdir(parents=True)
    return album.row("gqa", image=[name])


@trap("reject", "the release looks in train_0 to train_5 only")
def _openimages_train_6(album: Album) -> Any:
    name = album.put(pictures.jpeg(scene(album)), "openimages", Path("openimages/train_6"))
    return album.row("openimages", image=[name])


@trap("accept", "flat, without shards")
def _openimages_flat(album: Album) -> Any:
    name = album.put(pictures.jpeg(scene(album)), "openimages", Path("openimages"))
    return album.row("openimages", image=[name])


@trap("either", "a data set that the release does not know")
def _thirteenth_source(album: Album) -> Any:
    name = album.put(pictures.jpeg(scene(album)), "gqa", Path("coco/train2017"))
    return album.row(image=[f"viscot/coco/train2017/{Path(name).name}"], dataset="coco")


@trap("accept", "without the prefix viscot/")
def _without_prefix(album: Album) -> Any:
    return album.row("gqa", image=[album.known("gqa").removeprefix("viscot/")])


@trap("accept", "a name instead of a list of one")
def _bare_name(album: Album) -> Any:
    return album.row("flickr30k", image=album.known("flickr30k"))


@trap("accept", "blanks and letters beyond ASCII in the name")
def _name_with_blanks(album: Album) -> Any:
    _, path = album.name("gqa")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("Straße am Meer 7.jpg").write_bytes(pictures.jpeg(scene(album)))
    return album.row("gqa", image=["viscot/gqa/Straße am Meer 7.jpg"])


@trap("either", "a name that leads out of the picture folder")
def _climbing_name(album: Album) -> Any:
    return album.row("gqa", image=["viscot/gqa/../../../../../etc/hostname"])


@trap("reject", "no picture named")
def _null_picture(album: Album) -> Any:
    return album.row("gqa", image=None)


@trap("either", "text alone")
def _no_picture(album: Album) -> Any:
    return album.row(
        "gqa", image=[], bboxes=[], conversations=talk("What is six times seven?", "<answer> 42 </answer>")
    )


@trap("accept", "two pictures with a mark each")
def _two_pictures(album: Album) -> Any:
    names = [album.known("gqa"), album.known("gqa")]
    return album.row("gqa", image=names, conversations=talk(f"<image>\n{QUESTION}", "<lvr>\n<answer> b </answer>"))


@trap("reject", "two pictures, one mark")
def _picture_without_mark(album: Album) -> Any:
    return album.row("gqa", image=[album.known("gqa"), album.known("gqa")])


@trap("reject", "one picture, two marks")
def _mark_without_picture(album: Album) -> Any:
    return album.row("gqa", conversations=talk(f"<image>\n{QUESTION}", "<lvr>\n<answer> b </answer>"))


# ---- boxes -----------------------------------------------------------------------------------------------------------

BOX, OTHER = [0.2, 0.1, 0.6, 0.4], [0.5, 0.5, 0.9, 0.8]
TWO = "<lvr>\nand <lvr>\n<answer> both </answer>"


def boxes(name: str, outcome: Outcome, why: str, *given: Any, answer: str | None = None) -> None:
    """A row with these boxes. answer: what the model says, if it is not one `<lvr>`."""
    talked = {} if answer is None else {"conversations": talk(QUESTION, answer)}
    TRAPS[name] = Trap(outcome, why, lambda album: album.row("gqa", bboxes=list(given), **talked))


boxes("nested_box", "accept", "unwrapped", [BOX])
boxes("thrice_nested_box", "accept", "unwrapped", [[[BOX]]])
boxes("two_boxes_for_two", "accept", "one each", BOX, OTHER, answer=TWO)
boxes("two_boxes_unlike_nested", "accept", "one each, unwrapped", BOX, [OTHER], answer=TWO)
boxes("surplus_box", "either", "skipped, or the first or the union, as the option says", BOX, OTHER)
boxes("surplus_nested_box", "either", "skipped, or the first or the union, as the option says", [BOX, OTHER])
boxes("box_too_few", "reject", "one box for two segments", BOX, answer=TWO)
boxes("no_box", "reject", "no box for the segment")
boxes("nothing_latent", "either", "neither box nor segment: plain text, or skipped", answer="<answer> tree </answer>")
boxes("whole_picture", "accept", "integers are numbers too", [0, 0, 1, 1])
boxes("hairline", "accept", "thin, and not empty", [0.3, 0.3, 0.3008, 0.7])
boxes("slightly_over", "accept", "cut at the picture's edge", [0.4, -0.004, 1.006, 0.9])
boxes("outside", "reject", "wholly outside the picture", [1.02, 0.2, 1.3, 0.5])
boxes("upside_down_box", "reject", "upper and lower edge exchanged", [0.2, 0.7, 0.6, 0.3])
boxes("point", "reject", "without extent", [0.4, 0.4, 0.4, 0.4])
boxes("pixels", "reject", "pixels instead of shares", [40, 60, 200, 180])
boxes(
    "pixels_at_origin",
    "reject",
    "pixels instead of shares, from the corner: clamped, they are the whole picture",
    [0, 0, 320, 240],
)
boxes("percent", "reject", "percent instead of shares", [10, 20, 55.5, 60])
boxes("three_numbers", "reject", "not four numbers", [0.1, 0.2, 0.5])
boxes("five_numbers", "reject", "not four numbers", [0.1, 0.2, 0.5, 0.6, 0.99])
boxes("null_box", "reject", "not four numbers", None)
boxes("infinite_box", "reject", "not finite", [0.1, 0.1, float("inf"), 0.5])
boxes("text_box", "either", "numbers as text", ["0.1", "0.2", "0.5", "0.6"])
boxes("named_corners", "reject", "not four numbers", {"x0": 0.1, "y0": 0.2, "x1": 0.5, "y1": 0.6})


# ---- conversations and entries ---------------------------------------------------------------------------------------


def turns(
    name: str, outcome: Outcome, why: str, *texts: Any, roles: tuple[Any, Any] = ("human", "gpt"), **changes: Any
) -> None:
    TRAPS[name] = Trap(outcome, why, lambda album: album.row("gqa", conversations=talk(*texts, roles=roles), **changes))


SAID = "<lvr>\n<answer> a tree </answer>"
turns("picture_token", "reject", "a special token in a text must not become one", f"{QUESTION} <|image_pad|>", SAID)
turns("slot_token", "either", "a special token in a text must not become one", QUESTION, f"{SAID} <|lvr|>")
turns(
    "vision_tokens",
    "either",
    "a special token in a text must not become one",
    f"{QUESTION} <|vision_start|><|vision_end|>",
    SAID,
)
turns(
    "end_token",
    "either",
    "a special token in a text must not become one",
    f"{QUESTION}<|im_end|>\n<|im_start|>user\nx",
    SAID,
)
turns("far_too_long", "reject", "longer than max_tokens", QUESTION, "<lvr>\n<answer> " + "total 12.50 cash 20.00 change 7.50 " * 1200 + "</answer>")  # fmt: skip
turns("long_talk", "accept", "", QUESTION, SAID, *["Sure?", "<answer> yes </answer>"] * 15)
turns(
    "other_scripts",
    "accept",
    "",
    "<image>\nما هذا؟ 这是什么？ Ça va\u202f? 👩\u200d🌾",
    "<lvr>\n<answer> 一棵树 </answer>",
)
turns("half_a_character", "either", "a lone surrogate is no text", f"{QUESTION} \ud83d", SAID)
turns("zero_byte", "either", "", f"{QUESTION} \0", SAID)
turns("nothing_said", "accept", "", QUESTION, "<lvr>\n<answer>  </answer>")
turns("asked_only", "reject", "no answer", QUESTION)
turns("answers_first", "reject", "the first turn is the model's", QUESTION, SAID, roles=("gpt", "human"))
turns("chat_roles", "either", "roles of another format", QUESTION, SAID, roles=("user", "assistant"))
turns("no_text", "reject", "a turn without text", QUESTION, None)
turns("no_turns", "reject", "no conversation")
turns("more_fields", "accept", "fields that nobody reads", QUESTION, SAID, id="a1", split="train", width=640)


@trap("reject", "no boxes at all")
def _boxes_missing(album: Album) -> Any:
    return {name: value for name, value in album.row("gqa").items() if name != "bboxes"}


@trap("reject", "no entry")
def _null_entry(album: Album) -> Any:
    return None


@trap("reject", "no entry")
def _entry_is_text(album: Album) -> Any:
    return "viscot/gqa/2350.jpg"
