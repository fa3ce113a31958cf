"""Reading clips: real files, written and read with PyAV."""

from __future__ import annotations

import weakref
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from models.backbone import clips as clips_module
from models.backbone.clips import (
    ClipFacts,
    chosen,
    examine,
    facts_of,
    glimpses,
    look_at,
    patches_of_clip,
    patches_of_file,
    patches_of_frames,
    pixel_limits,
    read_clip,
    read_frames,
    timed,
)
from models.backbone.pictures import Unreadable
from models.evaluation.clips import ClipReader
from models.schema import Clips
from models.training.parse import ClipFile
from tests.films import turn, write_film, write_song, write_timed

FPS = 10


def grey(picture: Image.Image) -> int:
    return int(np.asarray(picture).mean())


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """40 frames, each grey of 5 times its number."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 84, 56, "bgr0"
        for number in range(40):
            shown = np.full((56, 84, 3), 5 * number, dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        file.mux(stream.encode())
    return path


def test_frames_are_those_of_their_numbers(clip: Path) -> None:
    frames = read_clip(clip, Clips(fps=2))
    assert frames.facts == ClipFacts(40, FPS)
    assert frames.numbers == (0, 6, 11, 17, 22, 28, 33, 39)
    assert [grey(picture) for picture in frames.pictures] == [5 * number for number in frames.numbers]
    assert [grey(picture) for picture in read_frames(clip, [30, 4])] == [150, 20]


def test_frames_at_an_even_rate_lie_where_their_numbers_say(clip: Path, tmp_path: Path) -> None:
    read_frames(clip, [0])[0].save(tmp_path / "0.png")
    assert timed(clip).times is None and timed(clip).drift == timed(tmp_path).drift == 0


def test_a_span_is_cut_out_of_the_clip(clip: Path) -> None:
    frames = read_clip(clip, Clips(fps=2), span=(1.0, 3.0))
    assert (frames.numbers[0], frames.numbers[-1]) == (10, 30) and len(frames.numbers) == 4


def test_seconds_per_grid_are_the_releases_or_measured(clip: Path) -> None:
    assert read_clip(clip, Clips()).seconds_per_grid == 1.0
    assert read_clip(clip, Clips(seconds_per_grid="measured")).seconds_per_grid == pytest.approx(2 * 39 / 3 / FPS)


def test_frames_shrink_to_the_clips_budget() -> None:
    clips = Clips(min_pixels=784, max_pixels=8 * 784, total_pixels=40 * 784)
    assert [pixel_limits(frames, clips)[1] for frames in (4, 20, 100)] == [8 * 784, 4 * 784, int(1.05 * 784)]


def test_the_evaluation_takes_odd_numbers_down_and_one_frame_at_least() -> None:
    clips = Clips(min_frames=1, odd="down")
    assert [len(chosen(ClipFacts(frames, 30.0), clips)) for frames in (3, 90, 151, 300)] == [1, 2, 4, 10]


def test_a_folder_of_pictures_is_a_clip(clip: Path, tmp_path: Path) -> None:
    for number in range(12):
        read_frames(clip, [number])[0].save(tmp_path / f"{number:05d}.png")
    frames = read_clip(tmp_path, Clips())
    assert frames.facts.seconds == 4 and [grey(picture) for picture in frames.pictures] == [0, 20, 35, 55]


def test_patches_are_those_of_the_library(clip: Path, processor) -> None:
    """Of an even number of frames, as transformers' processor of videos makes them."""
    clips = Clips(min_pixels=784, max_pixels=6 * 784)
    frames = read_clip(clip, clips)
    patches, grid = patches_of_clip(processor, frames, clips)
    pictures = torch.stack([torch.from_numpy(np.asarray(p)).permute(2, 0, 1) for p in frames.pictures])
    made = Qwen2VLVideoProcessor(do_resize=False)(videos=[pictures], return_tensors="pt", do_sample_frames=False)
    assert grid.tolist() == made["video_grid_thw"][0].tolist() == [2, 4, 6]
    assert torch.allclose(patches, made["pixel_values_videos"], atol=1e-5)


def test_a_last_odd_frame_is_shown_twice(clip: Path, processor) -> None:
    frames = read_clip(clip, Clips(min_frames=3, max_frames=3))
    patches, grid = patches_of_clip(processor, frames, Clips())
    pair = patches.view(2, -1, 3, 2, 196)[1]
    assert grid[0] == 2 and torch.equal(pair[:, :, 0], pair[:, :, 1])


@pytest.mark.parametrize("content", [b"", b"no film at all" * 100])
def test_a_file_that_is_no_clip_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=r"broken\.mp4: not a readable clip") as found:
        read_clip(path, Clips())
    assert found.value.reason == "unreadable clip"


def test_a_phones_film_is_seen_as_it_is_stored_or_turned_where_that_is_asked_for(tmp_path: Path, processor) -> None:
    film = turn(write_film(tmp_path / "film.mp4", frames=8, size=(96, 64)))
    few = {"fps": 4, "min_pixels": 784, "max_pixels": 12 * 784}
    stored, upright = Clips(**few), Clips(**few, orientation="upright")
    lying, standing = read_clip(film, stored).pictures, read_clip(film, upright).pictures
    assert [picture.size for picture in lying + standing] == 4 * [(96, 64)] + 4 * [(64, 96)]
    for one, other in zip(lying, standing, strict=True):
        assert np.array_equal(np.rot90(np.asarray(one), -1), np.asarray(other)), "clockwise"
    assert look_at(film)[0].turn == examine(film, stored)[0].turn == -90 and look_at(write_film(tmp_path / "other.mp4"))[0].turn == 0
    assert look_at(film)[1] == examine(film, stored)[1] == (96, 64)
    assert look_at(film, "upright")[1] == examine(film, upright)[1] == (64, 96)
    for clips, (height, width) in ((stored, (2, 3)), (upright, (3, 2))):
        reader = ClipReader(clips)
        grid = reader.grid(processor, str(film))
        assert (grid.height, grid.width) == (height, width) and reader.patches(processor, str(film))[1].tolist() == [2, 2 * height, 2 * width]
        assert patches_of_file(processor, film, clips)[1].tolist() == [2, 2 * height, 2 * width]
        clue = ClipFile("a", film, clips).frame(3)
        assert clue == read_frames(film, [3], clips.orientation)[0] and clue.size == (32 * width, 32 * height)


@pytest.mark.parametrize("name", ["song.mp4", "song.mp3"])
def test_sound_with_a_picture_of_its_cover_is_no_clip_of_one_frame(tmp_path: Path, name: str) -> None:
    for read in (facts_of, timed, look_at, lambda path: examine(path, Clips()), lambda path: read_clip(path, Clips())):
        with pytest.raises(Unreadable, match=rf"{name}: not a readable clip \(it has no video stream, only a picture of its cover\)") as found:
            read(write_song(tmp_path / name))
        assert found.value.reason == "unreadable clip"
    with pytest.raises(Unreadable, match=r"\(it has no video stream\)"):
        look_at(write_song(tmp_path / name, cover=False))


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi"])
def test_a_clip_is_examined_in_one_reading_with_what_two_would_find(tmp_path: Path, name: str, monkeypatch) -> None:
    path = write_timed(tmp_path / name, [*(k / 10 for k in range(20)), *range(2, 8)], codec="mpeg4")
    facts, size = look_at(path)
    opened, really = [], av.open
    monkeypatch.setattr(av, "open", lambda *words: opened.append(words) or really(*words))
    found, same = examine(path, Clips(times="stamps"))
    assert len(opened) == 1 and found == facts and same == size == (64, 48)
    assert found.times.tolist() == facts.times.tolist() and found.drift > 1


def test_missing_files_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="none.mp4"):
        read_clip(tmp_path / "none.mp4", Clips())
    with pytest.raises(Unreadable, match="without pictures"):
        read_clip(tmp_path, Clips())


def test_a_clip_that_was_cut_off_is_sampled_over_the_frames_it_has(clip: Path, tmp_path: Path) -> None:
    """Its container counts frames that cannot be decoded."""
    path = tmp_path / "half.mkv"
    path.write_bytes(clip.read_bytes()[: len(clip.read_bytes()) // 2])
    frames = read_clip(path, Clips())
    assert frames.numbers[-1] < 39 and frames.numbers[-1] == frames.facts.frames - 1
    assert [grey(picture) for picture in frames.pictures] == [5 * number for number in frames.numbers]


@pytest.mark.parametrize("codec", ["ffv1", "mpeg4"])
def test_frames_for_people_are_those_of_their_seconds_wherever_a_decoder_must_begin(tmp_path, codec):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 64, {"ffv1": "bgr0", "mpeg4": "yuv420p"}[codec], 12
        for number in range(40):
            shown = np.full((64, 64, 3), 6 * number, dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        file.mux(stream.encode())
    found = glimpses(path, 4)
    assert [round(seconds, 2) for seconds, _ in found] == [0, 1.3, 2.6, 3.9]
    assert [picture for _, picture in found] == read_frames(path, [0, 13, 26, 39]), "which decodes from the first frame on"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(Unreadable, match="clip.mkv: not a readable clip"):
        glimpses(path, 4)


@pytest.mark.parametrize("count", [1, 8, 9, 21, 40])
def test_frames_taken_a_few_at_a_time_have_the_patches_of_all_at_once(monkeypatch, processor, count: int) -> None:
    rng = np.random.default_rng(0)
    shown = [Image.fromarray(rng.integers(0, 256, (97, 131, 3), dtype=np.uint8)) for _ in range(count)]
    limits = (784, 8 * 784)
    few, grid = patches_of_frames(processor, iter(shown), count, limits)
    monkeypatch.setattr(clips_module, "AT_ONCE", 100)
    every, same = patches_of_frames(processor, iter(shown), count, limits)
    assert torch.equal(few, every) and grid.tolist() == same.tolist() and grid[0] == (count + 1) // 2


def test_of_a_long_clip_a_few_frames_are_in_memory_at_a_time(monkeypatch, clip: Path, processor) -> None:
    alive: list[weakref.ref] = []
    most, decoded = [0], clips_module._decoded

    def watched(path, wanted, orientation):
        for picture in decoded(path, wanted, orientation):
            alive.append(weakref.ref(picture))
            most[0] = max(most[0], sum(one() is not None for one in alive))
            yield picture

    monkeypatch.setattr(clips_module, "_decoded", watched)
    clips = Clips(frames=40, min_pixels=784, max_pixels=6 * 784)
    patches, grid, seconds = patches_of_file(processor, clip, clips)
    assert grid.tolist() == [20, 4, 6] and seconds == 1.0
    assert clips_module.AT_ONCE <= most[0] <= 2 * clips_module.AT_ONCE, "with those that the processor has not let go of"
    frames = read_clip(clip, clips)
    assert len(frames.pictures) == 40 and torch.equal(patches, patches_of_clip(processor, frames, clips)[0])


def test_patches_of_a_clip_that_was_cut_off_are_of_the_frames_it_has(clip: Path, processor, tmp_path: Path) -> None:
    path = tmp_path / "half.mkv"
    path.write_bytes(clip.read_bytes()[: len(clip.read_bytes()) // 2])
    clips = Clips(frames=20, min_pixels=784, max_pixels=6 * 784)
    patches, grid, _ = patches_of_file(processor, path, clips)
    expected, same = patches_of_clip(processor, read_clip(path, clips), clips)
    assert torch.equal(patches, expected) and grid.tolist() == same.tolist()
