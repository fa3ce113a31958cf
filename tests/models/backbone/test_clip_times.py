"""Clips whose frames do not lie where the container's rate says: read by that rate, as the release does, or by the frames' own times."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from models.backbone.clips import (
    ClipFacts,
    chosen,
    examine,
    facts_of,
    glimpses,
    look_at,
    read_clip,
    read_frames,
    seconds_per_grid,
    timed,
)
from models.evaluation.clips import ClipReader
from models.methods.visreflect.clues import clue_frames
from models.schema import Clips
from tests.films import in_fragments, trim, write_film, write_timed

STAMPS = Clips(times="stamps")
BURST = [k / 10 for k in range(20)] + [2.0 + k for k in range(10)]
"""Ten frames a second for two seconds, then one: 30 frames in about 11 s (the last is held for about as long as its container says)."""


def shown(pictures) -> list[int]:
    """Numbers of the frames, by their grey."""
    return [round(float(np.asarray(picture).mean()) / 5) for picture in pictures]


@pytest.fixture(scope="module", params=["mp4", "mkv"])
def burst(tmp_path_factory, request) -> Path:
    return write_timed(tmp_path_factory.mktemp("burst") / f"burst.{request.param}", BURST)


def test_a_span_takes_the_frames_that_are_shown_in_it(burst: Path) -> None:
    by_rate, by_times = facts_of(burst), facts_of(burst, "stamps")
    assert by_times.frames == by_rate.frames == 30
    assert clue_frames([(5, 7)], by_times, 3) == [23, 24, 25], "which begin after 5, 6 and 7 seconds"
    assert not any(5 <= BURST[number] <= 7 for number in clue_frames([(5, 7)], by_rate, 3))
    assert clue_frames([(5.4, 5.9)], by_times, 3) == [23], "one frame is shown all the while"
    assert shown(read_clip(burst, STAMPS, (5, 7)).pictures) == [23, 24, 25]


def test_several_spans_share_the_clue_frames_by_their_seconds(burst: Path) -> None:
    facts = facts_of(burst, "stamps")
    assert clue_frames([(0, 1), (3, 5)], facts, 3) == [0, 21, 23], "by frames the first would have two"


def test_frames_are_evenly_spaced_in_time_and_a_held_one_is_taken_again(burst: Path) -> None:
    frames = read_clip(burst, Clips(times="stamps", fps=2, seconds_per_grid="measured"))
    moments = np.linspace(0, 11, len(frames.numbers))
    assert list(frames.numbers) == [max(k for k, at in enumerate(BURST) if at <= moment + 1e-6) for moment in moments]
    assert shown(frames.pictures) == list(frames.numbers) and len(set(frames.numbers)) < len(frames.numbers)
    assert frames.times == tuple(pytest.approx(BURST[number], abs=1e-3) for number in frames.numbers)
    assert frames.seconds_per_grid == pytest.approx(2 * 11 / (len(moments) - 1))


def test_at_an_even_rate_both_ways_take_the_same_frames(tmp_path: Path) -> None:
    for name, rate in (("a.mkv", 25), ("b.mp4", 30)):
        path = write_film(tmp_path / name, frames=2 * rate, rate=rate)
        assert timed(path).times is None and facts_of(path, "stamps") == facts_of(path)
        for span in (None, (0.1, 0.7), (0.3, 1.9), (1.0, 9.0)):
            assert read_clip(path, Clips(fps=4, times="stamps"), span).numbers == read_clip(path, Clips(fps=4), span).numbers


def test_a_container_that_states_a_wrong_rate_is_read_by_its_frames_times(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mkv", [k / 10 for k in range(40)], rate=1000)
    by_rate, by_times = facts_of(path), facts_of(path, "stamps")
    assert (by_rate.fps, by_rate.seconds) == (1000, 0.04)
    assert by_times.seconds == pytest.approx(3.9, abs=0.1) and by_times.drift == pytest.approx(3.9, abs=0.05)
    assert clue_frames([(1, 2)], by_times, 3) == [10, 15, 20] and clue_frames([(1, 2)], by_rate, 3) == [39]
    assert shown(read_clip(path, Clips(fps=2, times="stamps")).pictures) == [0, 5, 11, 16, 22, 27, 33, 39]
    assert [at for at, _ in glimpses(path, 4)] == pytest.approx([0, 1.3, 2.6, 3.9], abs=0.15), "people see the whole clip"


def test_an_mp4_in_fragments_is_seen_to_its_end(tmp_path: Path) -> None:
    path = in_fragments(tmp_path / "a.mp4")
    with av.open(str(path)) as file:
        assert file.streams.video[0].frames == 10, "what its header counts"
    assert facts_of(path) == facts_of(path, "stamps") == look_at(path)[0] == examine(path, Clips())[0] == ClipFacts(40, 10)
    assert read_clip(path, Clips()).numbers == (0, 13, 26, 39) and clue_frames([(2, 3)], facts_of(path), 3) == [20, 25, 30]


@pytest.mark.parametrize("name", ["a.avi", "a.webm", "a.mov"])
def test_other_containers_are_read_by_times_too(tmp_path: Path, name: str) -> None:
    path = write_timed(tmp_path / name, BURST, codec="libvpx" if name.endswith("webm") else "mpeg4")
    facts = look_at(path)[0]
    assert facts.frames == 30 and facts.drift > 1 and facts.number(5) == 23 and facts.number(10.9) == 28 and facts.number(99) == 29


def test_an_evaluation_by_times_sees_the_frames_that_are_shown_at_even_moments(burst: Path, processor) -> None:
    clips = Clips(fps=1, min_pixels=28 * 28, max_pixels=56 * 56)
    by_rate, by_times = ClipReader(clips), ClipReader(clips.model_copy(update={"times": "stamps"}))
    for reader in (by_rate, by_times):
        grid, (patches, sizes) = reader.grid(processor, str(burst)), reader.patches(processor, str(burst))
        assert sizes.tolist() == [grid.steps, 2 * grid.height, 2 * grid.width] and len(patches) == sizes.prod()
    facts = by_times.facts(str(burst))
    assert by_rate.facts(str(burst)).times is None and len(facts.times) == 31
    seen = ClipReader(clips.model_copy(update={"times": "stamps"})).patches(processor, str(burst))[0]
    steps = seen.view(by_times.grid(processor, str(burst)).steps, -1).mean(dim=1)
    numbers = chosen(facts, by_times.clips)
    pairs = [(numbers[k] + numbers[min(k + 1, len(numbers) - 1)]) / 2 for k in range(0, len(numbers), 2)]
    assert np.corrcoef(steps.numpy(), pairs)[0, 1] > 0.9999


def test_frames_that_a_cut_hides_are_not_counted(tmp_path: Path) -> None:
    """`ffmpeg -ss … -c copy` keeps the frames from the key frame to the cut in the file, and players do not show them."""
    path = trim(write_timed(tmp_path / "a.mp4", [k / 10 for k in range(40)]), 1.0)
    facts, _ = look_at(path)
    first, last = read_frames(path, [0, facts.frames - 1])
    assert shown([first]) == [10] and shown([last])[0] in (38, 39) and facts.frames in (29, 30)
    assert facts_of(path).frames == facts.frames and facts_of(path).seconds == pytest.approx(3, abs=0.2)


def test_what_mrope_is_told_follows_the_frames_own_times() -> None:
    facts = ClipFacts(4, 10.0, np.array([0, 1, 5, 6, 8.0]))
    assert facts.seconds == 8 and facts.drift == pytest.approx(5.7)
    assert seconds_per_grid(facts, (0, 1, 2, 3), Clips(seconds_per_grid="sampled")) == 4
    assert seconds_per_grid(facts, (0, 3), Clips(seconds_per_grid="measured")) == 12
    assert facts.known_by("rate").seconds == 0.4 and facts.of_first(2).seconds == 5
