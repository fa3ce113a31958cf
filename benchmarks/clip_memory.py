"""How much memory the patches of a long clip take, of all its frames at once and of a few at a time, in one run.

    uv run python -m benchmarks.clip_memory --frames 512 --height 1080

Each way runs in a process of its own on the same film, sized as VisReflect's protocol of Video-MME has it (as_is) and as lmms-eval's
own model has it (qwen_vl_utils). Fails when the patches differ in any digit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.page import whole
from harness.spec.files import load_benchmark

WAYS = ("all at once", "a few at a time")
FETCHED = ("as_is", "qwen_vl_utils")
PROCESSOR = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}


def film(path: Path, frames: int, height: int) -> None:
    """A square that moves over grey, two frames a second."""
    import av
    import numpy as np

    width = height * 16 // 9 // 2 * 2
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            shown = np.full((height, width, 3), number % 256, dtype=np.uint8)
            at = 3 * number % (height - 32)
            shown[at : at + 32, at : at + 32] = (255, 0, 0)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        file.mux(stream.encode())


def measure(folder: Path, way: str, fetched: str) -> None:
    """Prints, as JSON, the peak of this process in GiB before and after, and a digest of the patches."""
    from models.backbone import clips
    from models.backbone.images import load_image_processor
    from models.evaluation.clips import ClipReader
    from models.schema import Images

    if way == WAYS[0]:
        clips.AT_ONCE = sys.maxsize
    inference = load_benchmark("videomme").value.inference["paper"]
    reader, processor = ClipReader(inference.clips, fetched), load_image_processor(folder, Images())
    reader.grid(processor, str(folder / "film.mp4"))
    before = peak()
    patches, _ = reader.patches(processor, str(folder / "film.mp4"))
    found = {"before": before, "after": peak(), "patches": patches.nbytes / 2**30, "digest": hashlib.sha256(patches.numpy().data).hexdigest()}
    print(json.dumps(found))


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=whole(2), default=256, help="default: 256")
    parser.add_argument("--height", type=whole(64, multiple=2), default=720, help="default: 720")
    parser.add_argument("--measure", nargs=3, metavar=("FOLDER", "WAY", "FETCHED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(Path(options.measure[0]), *options.measure[1:])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film(folder / "film.mp4", options.frames, options.height)
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        for fetched in FETCHED:
            digests = set()
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.clip_memory", "--measure", name, way, fetched]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
                digests.add(found["digest"])
                print(f"{fetched}, {way}: {found['after']:.2f} GiB at its peak, {found['before']:.2f} before; {found['patches']:.2f} are the patches", flush=True)
            if len(digests) != 1:
                raise SystemExit(f"{fetched}: the patches differ")


if __name__ == "__main__":
    main()
