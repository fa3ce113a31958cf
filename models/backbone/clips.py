"""A clip as the vision tower sees it: which frames, their size, and the time between them. PyAV decodes.

A clip is a video file, or a folder of numbered pictures (as in parts of MVBench), `FOLDER_FPS` a second.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from models.backbone.pictures import MOST_ASPECT, Unreadable, open_image
from models.hub import FILMS
from models.schema import Clips, Orientation, Times

if TYPE_CHECKING:
    from torch import Tensor

MISSING = "missing clip"
"""Prefix of the reason where there is no file. Some protocols count that differently from an unreadable file."""
FOLDER_FPS = 3.0
"""Rate of the frames that TVQA, and so MVBench, stores as pictures."""
PICTURES = (".jpg", ".jpeg", ".png")
AT_ONCE = 8
"""Frames that are resized together; whole pairs."""
PAIR = 2
"""Frames in one step of the grid: the tower's temporal patch."""
MOST_DRIFT = 0.25
"""Seconds: half the interval at the usual sampling of 2 frames a second. Clips that drift more are named."""
_INSTANT = 1e-6
"""Seconds: tolerance for a frame's begin, for the rounding of binary fractions."""

T = TypeVar("T")
Span = tuple[float, float]
"""Begin and end in seconds."""


@dataclass(frozen=True)
class ClipFacts:
    """What is known of a clip before its frames are chosen."""

    frames: int
    fps: float
    """The mean rate, as the container states it."""
    times: np.ndarray | None = field(default=None, compare=False, repr=False)
    """[frames + 1] float64: when each frame is shown, in seconds from the first, and when the last one ends. None if the rate
    gives the same to half a frame, if the container has no times, or if they are not asked for."""
    turn: int = field(default=0, compare=False, repr=False)
    """Degrees, counter-clockwise, by which the container says that frames are to be turned for showing; 0 where no frame was decoded."""

    @property
    def seconds(self) -> float:
        return self.frames / self.fps if self.times is None else float(self.times[-1])

    @property
    def drift(self) -> float:
        """Largest distance of a frame's own time from number / rate, in seconds."""
        return 0.0 if self.times is None else _drift(self.times[:-1], self.fps)

    def known_by(self, times: Times) -> ClipFacts:
        """The same with the frames' own times, or by the rate alone (see `Clips.times`)."""
        return self if times == "stamps" else replace(self, times=None)

    def number(self, at: float) -> int:
        """The frame at a moment in seconds: the one shown then, or the nearest if only the rate is known."""
        number = round(at * self.fps) if self.times is None else int(np.searchsorted(self.times, at + _INSTANT, side="right")) - 1
        return min(max(number, 0), self.frames - 1)

    def time(self, number: int) -> float:
        """When a frame is shown, in seconds."""
        return number / self.fps if self.times is None else float(self.times[number])

    def of_first(self, frames: int) -> ClipFacts:
        """The same for a clip that proves to have only so many frames."""
        return replace(self, frames=frames, times=None if self.times is None else self.times[: frames + 1])


@dataclass(frozen=True)
class Frames:
    """Frames of one clip."""

    pictures: tuple[Image.Image, ...]
    """RGB, in the clip's own size, in order."""
    numbers: tuple[int, ...]
    """Their numbers in the clip, from 0."""
    facts: ClipFacts
    seconds_per_grid: float
    """Time from one pair of frames to the next, as mRoPE gets it (see `Clips.seconds_per_grid`)."""

    @property
    def times(self) -> tuple[float, ...]:
        """When each is shown, in seconds."""
        return tuple(self.facts.time(number) for number in self.numbers)


def facts_of(path: Path | str, times: Times = "rate") -> ClipFacts:
    """Frames and rate of a clip: its container's, or counted if that does not say or contradicts itself. times: "stamps" adds
    the frames' own times, which takes reading the whole file. Raises Unreadable."""
    if Path(path).is_dir():
        return ClipFacts(len(_pictures(path)), FOLDER_FPS)
    if times == "rate":
        with _opened(path) as (container, stream):
            if (stated := _stated(container, stream)) is not None:
                return stated
    return timed(path).known_by(times)


def timed(path: Path | str) -> ClipFacts:
    """Frames, rate and times of a clip. Reads the whole file to count its frames, except those before a cut, which the
    container tells players not to show. Raises Unreadable."""
    if Path(path).is_dir():
        return facts_of(path)
    with _opened(path) as (container, stream):
        shown = [moment for packet in container.demux(stream) for moment in _shown(packet)]
        return _by_times(path, stream, shown)


def look_at(path: Path | str, orientation: Orientation = "stored") -> tuple[ClipFacts, tuple[int, int]]:
    """(facts as in `timed` with the turn, (width, height) of a frame). Decodes the first frame: after that only a damaged frame can fail.
    orientation: see `Clips`. Raises Unreadable."""
    if Path(path).is_dir():
        return timed(path), _fit(path, read_frames(path, [0])[0].size)
    facts = timed(path)
    with closing(_frames(path)) as frames:
        first = next(frames, None)
    if first is None:
        raise _unreadable(path, "no frame can be decoded")
    return replace(facts, turn=_turn(first)), _fit(path, _size(first, orientation))


def examine(path: Path | str, clips: Clips) -> tuple[ClipFacts, tuple[int, int]]:
    """The same, with every frame decoded and the file read once. Raises Unreadable, also for a clip that ends more than a frame
    and more than `MOST_DRIFT` before its container says: counted in frames if `clips` goes by the rate, else in seconds (an AVI
    also counts gaps as frames); and by the rate for one that goes on for so long after it, as those frames would never be seen."""
    if Path(path).is_dir():
        first, *_ = [open_image(file).size for file in _pictures(path)]
        return facts_of(path), _fit(path, first)
    sizes: list[tuple[int, int]] = []
    turns: list[int] = []
    shown: list[tuple[Any, int]] = []
    with _opened(path) as (container, stream):
        stream.thread_type, stated = "AUTO", _stated(container, stream)
        for packet in container.demux(stream):
            shown += _shown(packet)
            for frame in packet.decode():
                sizes.append(_size(frame, clips.orientation))
                turns.append(_turn(frame))
        facts = _by_times(path, stream, shown)
    if not sizes:
        raise _unreadable(path, "no frame can be decoded")
    facts = replace(facts, turn=turns[0])
    stated = stated or facts
    promised = (stated if clips.times == "rate" else facts).frames
    lacking = promised - len(sizes)
    if (abs(lacking) if clips.times == "rate" else lacking) > max(1, MOST_DRIFT * facts.fps):
        raise _unreadable(path, f"its container states {promised} frames, and {len(sizes)} can be decoded")
    if clips.times == "stamps" and stated.seconds - facts.seconds > max(1 / facts.fps, MOST_DRIFT):
        raise _unreadable(path, f"its container states {stated.seconds:.2f} s, and its frames take {facts.seconds:.2f} s")
    return facts, _fit(path, sizes[0])


def _stated(container: Any, stream: Any) -> ClipFacts | None:
    """Frames and rate that a container states; None if it does not, or contradicts itself: a fragmented mp4 may count those of its
    first fragment alone."""
    rate, count, seconds = _rate(stream), stream.frames, _seconds(container, stream)
    return ClipFacts(count, rate) if rate > 0 and count > 0 and (seconds is None or abs(count - seconds * rate) < 1.5) else None


def _shown(packet: Any) -> list[tuple[Any, int]]:
    """[(begin or None, duration)] of a packet's frame in the stream's units; [] if no frame is shown."""
    return [(packet.pts, packet.duration or 0)] if packet.size and not packet.is_discard else []


def _by_times(path: Path | str, stream: Any, shown: list[tuple[Any, int]]) -> ClipFacts:
    """From the frames' begins and durations. Raises Unreadable."""
    rate, base = _rate(stream), stream.time_base
    if not shown or rate <= 0:
        raise _unreadable(path, f"{len(shown)} frames at {rate:g} a second")
    if base is None or any(begin is None for begin, _ in shown):
        return ClipFacts(len(shown), rate)
    shown = sorted(shown)
    times = np.array([begin - shown[0][0] for begin, _ in shown], dtype=np.float64) * float(base)
    if _drift(times, rate) <= min(0.5 / rate, MOST_DRIFT):
        return ClipFacts(len(shown), rate)
    last = shown[-1][1] * float(base) or times[-1] / max(len(shown) - 1, 1)
    return ClipFacts(len(shown), rate, np.append(times, times[-1] + last))


def _rate(stream: Any) -> float:
    return float(stream.average_rate or stream.guessed_rate or 0)


def _seconds(container: Any, stream: Any) -> float | None:
    """A clip's length by its container; None if that does not say."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _drift(times: np.ndarray, rate: float) -> float:
    return float(np.abs(times - np.arange(len(times)) / rate).max())


def is_clip(path: Path | str) -> bool:
    """Whether a file of a data set is a clip, not a picture, by its name."""
    return os.path.splitext(path)[1].lower() in FILMS


def read_clip(path: Path | str, clips: Clips, span: Span | None = None) -> Frames:
    """The frames that `clips` takes of a clip, or of a span of it. Raises Unreadable, naming the file."""
    facts, numbers, pictures = _used(path, clips, span, lambda shown, count: tuple(shown))
    return Frames(pictures, numbers, facts, seconds_per_grid(facts, numbers, clips))


def patches_of_file(processor: Any, path: Path | str, clips: Clips) -> tuple[Tensor, Tensor, float]:
    """`patches_of_clip` of the frames that `clips` takes, and their `Frames.seconds_per_grid`. Only a few full-size frames are in
    memory at a time. Raises Unreadable."""
    facts, numbers, (patches, grid) = _used(
        path, clips, None, lambda shown, count: patches_of_frames(processor, shown, count, pixel_limits(count, clips))
    )
    return patches, grid, seconds_per_grid(facts, numbers, clips)


def _fit(path: Path | str, size: tuple[int, int]) -> tuple[int, int]:
    """The size itself. Raises Unreadable if the processor refuses such frames."""
    if max(size) > MOST_ASPECT * min(size):
        raise _unreadable(path, f"{size[0]} x {size[1]} pixels, more than {MOST_ASPECT} times as long as wide")
    return size


def read_frames(path: Path | str, numbers: Iterable[int], orientation: Orientation = "stored") -> list[Image.Image]:
    """Single frames of a clip by number, in the order asked for. Raises Unreadable."""
    wanted = list(numbers)
    found = dict(zip(sorted(set(wanted)), frames_in_turn(path, set(wanted), orientation), strict=True))
    return [found[number] for number in wanted]


def frames_near(path: Path | str, numbers: Sequence[int], orientation: Orientation = "stored") -> dict[int, Image.Image]:
    """Frames of a clip by number, decoded in one pass; the last one stands for frames that the container states and that cannot
    be decoded. Raises Unreadable."""
    try:
        return dict(zip(sorted(set(numbers)), _decoded(path, set(numbers), orientation), strict=True))
    except _Shorter as shorter:
        there = {number: min(number, shorter.frames - 1) for number in numbers}
    found = dict(zip(sorted(set(there.values())), _decoded(path, set(there.values()), orientation), strict=True))
    return {number: found[near] for number, near in there.items()}


def frames_in_turn(path: Path | str, numbers: Iterable[int], orientation: Orientation = "stored") -> Iterator[Image.Image]:
    """Yields frames of a clip in the order shown, as they are decoded. Raises Unreadable."""
    wanted = list(numbers)
    try:
        yield from _decoded(path, wanted, orientation)
    except _Shorter as shorter:
        raise _unreadable(path, f"it has {shorter.frames} frames, and number {max(wanted)} is asked for") from None


def glimpses(path: Path | str, count: int) -> list[tuple[float, Image.Image]]:
    """(seconds, picture) of `count` frames for people, evenly spread over a clip; only the parts around them are decoded.
    Raises Unreadable."""
    facts = facts_of(path)
    numbers = chosen(facts, Clips(frames=count))
    if Path(path).is_dir():
        return [(number / facts.fps, picture) for number, picture in zip(numbers, read_frames(path, numbers), strict=True)]
    with _opened(path) as (container, stream):
        begin, step = stream.start_time or 0, (_seconds(container, stream) or facts.seconds) / facts.frames
        found = {}
        for number in numbers:
            container.seek(begin + round(number * step / stream.time_base), stream=stream)
            last = None
            for last in container.decode(stream):
                if last.pts is None or (last.pts - begin) * stream.time_base >= (number - 0.5) * step:
                    break
            if last is not None:
                found[float(((last.pts or 0) - begin) * stream.time_base)] = last.to_image()
    if not found:
        raise _unreadable(path, "no frame can be decoded")
    return sorted(found.items())


def chosen(facts: ClipFacts, clips: Clips, span: Span | None = None) -> tuple[int, ...]:
    """Numbers of the frames that `clips` takes: evenly spaced from the first to the last of the clip, or of a span. If the facts
    hold the frames' own times, the moments are evenly spaced, and a frame shown at several of them is taken several times."""
    low, high = sorted(span) if span is not None else (0.0, facts.time(facts.frames - 1))
    first, last = facts.number(low), facts.number(high)
    there = last - first + 1
    if facts.times is None:
        return tuple(first + round(at) for at in np.linspace(0, last - first, _count(there, there / facts.fps, clips)).tolist())
    low, high = (min(max(at, 0.0), facts.seconds) for at in (low, high))
    seconds = facts.seconds if span is None else high - low
    count = _count(max(there, int(seconds * clips.fps)), seconds, clips)
    return tuple(facts.number(at) for at in np.linspace(low, high, count).tolist())


def _count(there: int, seconds: float, clips: Clips) -> int:
    """How many frames are taken of `there` frames that take `seconds`."""
    if clips.frames is not None:
        return max(1, PAIR * (min(clips.frames, there) // PAIR))
    count = seconds * clips.fps
    if clips.odd == "nearest":
        count = max(count, clips.min_frames)
    count = PAIR * (round(count / PAIR) if clips.odd == "nearest" else int(count / PAIR))
    return max(1, min(max(count, clips.min_frames), clips.max_frames, there))


def pixel_limits(frames: int, clips: Clips) -> tuple[int, int]:
    """(least, most) pixels of each frame, so that together they keep to the clip's budget."""
    most = min(clips.max_pixels, max(clips.total_pixels / frames * PAIR, 1.05 * clips.min_pixels))
    return clips.min_pixels, int(most)


def grid_of_clip(processor: Any, path: Path | str, size: tuple[int, int], clips: Clips) -> tuple[int, int, int]:
    """Merged (steps, height, width) of a clip with frames of `size` (width, height), without its pixels. Raises Unreadable."""
    from models.backbone.images import grid_of

    frames = len(chosen(facts_of(path, clips.times), clips))
    least, most = pixel_limits(frames, clips)
    height, width = grid_of(processor, *size, limits=(least, most))
    return (frames + 1) // PAIR, height, width


def patches_of_clip(processor: Any, frames: Frames, clips: Clips) -> tuple[Tensor, Tensor]:
    """Patches [t * h * w, 3 * 2 * side²] float32 of a clip, and its grid [3] (t, h, w) in patches.

    processor: the checkpoint's, for pictures. An odd number of frames is made even by repeating the last one.
    """
    count = len(frames.pictures)
    return patches_of_frames(processor, frames.pictures, count, pixel_limits(count, clips))


def patches_of_frames(processor: Any, shown: Iterable[Image.Image], count: int, limits: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The same of `count` frames in order. limits: least and most pixels of each. Frames are taken `AT_ONCE` at a time, so that
    a long clip is never in memory at full size; each is resized alone, so this changes no digit."""
    import torch

    waiting, steps, found, at = iter(shown), (count + 1) // PAIR, torch.empty(0), 0
    height = width = 0
    while pictures := list(islice(waiting, AT_ONCE)):
        pictures += pictures[-1:] * (len(pictures) % PAIR)
        made = processor(images=pictures, size=dict(zip(("shortest_edge", "longest_edge"), limits)), return_tensors="pt")
        _, height, width = made["image_grid_thw"][0].tolist()
        # The processor makes each picture a pair of equal frames; one of the two is taken.
        single = made["pixel_values"].view(len(pictures), height * width, 3, PAIR, -1)[:, :, :, 0]
        pairs = torch.stack([single[0::PAIR], single[1::PAIR]], dim=3).flatten(2)
        if not at:
            found = pairs.new_empty((steps, *pairs.shape[1:]))
        found[at : at + len(pairs)] = pairs
        at += len(pairs)
    return found.flatten(0, 1), torch.tensor([steps, height, width])


class _Shorter(Exception):
    def __init__(self, frames: int) -> None:
        self.frames = frames


def _used(
    path: Path | str, clips: Clips, span: Span | None, use: Callable[[Iterator[Image.Image], int], T]
) -> tuple[ClipFacts, tuple[int, ...], T]:
    """(facts, numbers, what `use` makes of the frames that `clips` takes and their count)."""
    facts = facts_of(path, clips.times)
    while True:
        numbers = chosen(facts, clips, span)
        try:
            return facts, numbers, use(_decoded(path, numbers, clips.orientation), len(numbers))
        except _Shorter as found:  # the container promised more frames than there are
            facts = facts.of_first(found.frames)


def seconds_per_grid(facts: ClipFacts, numbers: Sequence[int], clips: Clips) -> float:
    """Time from one pair of these frames to the next, as mRoPE gets it."""
    if isinstance(clips.seconds_per_grid, float):
        return clips.seconds_per_grid
    if clips.seconds_per_grid == "sampled":
        return PAIR * facts.seconds / len(numbers)
    return PAIR * (facts.time(numbers[-1]) - facts.time(numbers[0])) / max(len(numbers) - 1, 1)


def _decoded(path: Path | str, numbers: Iterable[int], orientation: Orientation) -> Iterator[Image.Image]:
    """In order; a number asked for twice is yielded twice."""
    wanted = Counter(numbers)
    last = max(wanted)
    if Path(path).is_dir():
        files = _pictures(path)
        if last >= len(files):
            raise _Shorter(len(files))
        yield from (open_image(files[number]) for number in sorted(wanted.elements()))
        return
    count = 0
    for count, frame in enumerate(_frames(path), 1):
        if count - 1 in wanted:
            yield from [_picture(frame, orientation)] * wanted[count - 1]
            if count - 1 == last:
                return
    if not count:
        raise _unreadable(path, "no frame can be decoded")
    raise _Shorter(count)


def _turn(frame: Any) -> int:
    """`ClipFacts.turn`, in steps of 90."""
    return 90 * round(frame.rotation / 90)


def _size(frame: Any, orientation: Orientation) -> tuple[int, int]:
    """(width, height) of `_picture`."""
    return (frame.height, frame.width) if orientation == "upright" and _turn(frame) % 180 else (frame.width, frame.height)


def _picture(frame: Any, orientation: Orientation) -> Image.Image:
    picture, turn = frame.to_image(), _turn(frame)
    return picture.rotate(turn, expand=True) if orientation == "upright" and turn else picture


def _frames(path: Path | str) -> Generator[Any]:
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        yield from container.decode(stream)


def _pictures(path: Path | str) -> list[Path]:
    files = sorted(file for file in Path(path).iterdir() if file.suffix.lower() in PICTURES)
    if not files:
        raise _unreadable(path, f"a folder without pictures ({', '.join(PICTURES)})")
    return files


class _opened:
    """The container and its first video stream that is not a cover picture; PyAV's errors become Unreadable."""

    def __init__(self, path: Path | str) -> None:
        self.path = path

    def __enter__(self) -> tuple[Any, Any]:
        import av

        try:
            self.container = av.open(str(self.path))
        except (av.FFmpegError, OSError, ValueError) as why:
            raise _unreadable(self.path, _words(why)) from None
        videos = self.container.streams.video
        film = next((one for one in videos if not one.disposition & av.stream.Disposition.attached_pic), None)
        if film is None:
            self.container.close()
            raise _unreadable(self.path, "it has no video stream" + (", only a picture of its cover" if videos else ""))
        return self.container, film

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        import av

        self.container.close()
        if isinstance(error, av.FFmpegError):
            raise _unreadable(self.path, _words(error)) from None


def _words(error: Exception) -> str:
    """Without FFmpeg's number, and without the path, which is already named."""
    return getattr(error, "strerror", None) or str(error)


def _unreadable(path: Path | str, why: str) -> Unreadable:
    return Unreadable(path, "unreadable clip", f"not a readable clip ({why}); replace the file or take its sample out")
