"""Small films for tests: noise that changes from frame to frame, written with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_film(
    path: Path, frames: int = 20, size: tuple[int, int] = (64, 48), seed: int = 0, rate: int = 10, codec: str = "mpeg4"
) -> Path:
    """size: width, height. codec: mpeg4 or png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    tiles = (size[1] // 16, size[0] // 16)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "rgb24" if codec == "png" else "yuv420p"
        for _ in range(frames):
            shown = np.kron(draw.integers(0, 256, (*tiles, 3), dtype=np.uint8), np.ones((16, 16, 1), dtype=np.uint8))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        file.mux(stream.encode())
    return path


def write_timed(path: Path, times: Sequence[float], rate: int = 10, size: tuple[int, int] = (64, 48), codec: str = "libx264") -> Path:
    """Frame k of the film is grey of about 5 k and is shown from times[k] seconds on. rate: what the container is told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, options={"bf": "0", "crf": "1"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 5 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def trim(path: Path, seconds: float) -> Path:
    """The begin of an mp4 is cut off without encoding anew, as `ffmpeg -ss … -c copy` does: its frames stay, marked not to be shown."""
    whole = path.read_bytes()
    (source := path.with_name(f"whole-{path.name}")).write_bytes(whole)
    with av.open(str(source)) as read, av.open(str(path), "w", options={"avoid_negative_ts": "disabled", "use_editlist": "1"}) as file:
        stream = read.streams.video[0]
        copy = file.add_stream_from_template(stream)
        for packet in read.demux(stream):
            if packet.size:
                packet.pts, packet.dts = (at - round(seconds / stream.time_base) for at in (packet.pts, packet.dts))
                packet.stream = copy
                file.mux(packet)
    source.unlink()
    return path


def damage(path: Path, frame: int) -> Path:
    """One frame of a film of png frames can no longer be decoded; the container does not show it."""
    content, at = bytearray(path.read_bytes()), -1
    for _ in range(frame + 1):
        at = content.index(b"IDAT", at + 1)
    content[at + 4 : at + 36] = b"\xff" * 32
    path.write_bytes(content)
    return path


def without_end(path: Path, frames: int) -> Path:
    """A film whose container states all its frames, and of which only so many are left: an mp4 that was not fetched to its end."""
    with av.open(str(path)) as film:
        packets = [packet.size for packet in film.demux(film.streams.video[0]) if packet.size]
    whole = path.with_name(f"whole-{path.name}")
    with av.open(str(path)) as film, av.open(str(whole), "w", options={"movflags": "faststart"}) as made:
        stream = made.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(film.streams.video[0]):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    content = whole.read_bytes()
    path.write_bytes(content[: len(content) - sum(packets[frames:])])
    whole.unlink()
    return path


def in_fragments(path: Path, frames: int = 40, each: int = 10) -> Path:
    """An mp4 in fragments, as recorders write: its header counts the frames of the first one alone."""
    with av.open(str(path), "w", options={"movflags": "frag_keyframe"}) as file:
        stream = file.add_stream("libx264", rate=10, options={"g": str(each), "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * number, np.uint8), format="rgb24")))
        file.mux(stream.encode())
    return path


def cut_off(path: Path, share: float = 0.6) -> Path:
    """Only the begin of a file is left."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def turn(path: Path) -> Path:
    """An mp4 gets a phone's note that it is to be shown a quarter of a turn clockwise; its frames stay as they are."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    content[matrix : matrix + 24] = b"".join((number % (1 << 32)).to_bytes(4, "big") for number in (0, one, 0, -one, 0, 0))
    path.write_bytes(content)
    return path


def restate(path: Path, frames: int) -> Path:
    """An AVI whose header states so many frames, whatever it holds."""
    content = bytearray(path.read_bytes())
    length = content.index(b"strh") + 8 + 32
    content[length : length + 4] = frames.to_bytes(4, "little")
    path.write_bytes(content)
    return path


def write_song(path: Path, cover: bool = True) -> Path:
    """A second of silence, with a picture of its cover."""
    with av.open(str(path), "w") as file:
        sound = file.add_stream("mp3" if path.suffix == ".mp3" else "aac", rate=44100)
        if cover:
            picture = file.add_stream("png", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic.value
            file.mux([*picture.encode(av.VideoFrame(64, 64, "rgb24")), *picture.encode()])
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.int16), format="s16", layout="mono")
        silence.sample_rate = 44100
        file.mux([*sound.encode(silence), *sound.encode()])
    return path
