"""Time of latent decoding against zooming on clips, in one run: a ratio, not seconds.

    python -m benchmarks.zoom              # minutes; --write: into benchmarks/zoom.md

The proxy's base model for clips, in fp32, answers questions of the proxy's Video-MME in three ways: directly; with a forced latent
segment of 4 steps (VisReflect's decoding for clips); and by zooming (`decode.zoom: predicted`), which asks for a span, cuts the clip
there, and then asks the question. The ways share no caches, so each encodes the clips that it shows.

The proxy's base was never taught to name spans, so zooming is timed twice: with the model's own answer, and with the middle half of each
clip in place of that answer, so that the second pass has a cut clip to read. Only the latter really zooms. Its first pass is as long
as this model's answer; a model that names spans would decode more tokens.

The ways take turns in each round; the median of the rounds' ratios is reported. Tokens are counted per question: read (in all its
prompts), encoded (by the vision tower) and decoded (one by one, including latent steps). The counts do not depend on the machine, but on
the clips: here a clip is a few tokens in a prompt of many words, while a real clip is thousands of tokens.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.page import about, machine, positive, show
from models.backbone.clips import Span
from models.config import DecodeSpec, Images
from models.evaluation import engine as engines
from models.evaluation import zoom
from models.evaluation.cache import BoundedCache
from models.evaluation.clips import ClipReader
from models.evaluation.engine import Engine
from models.proxy import BASE_DIR
from models.proxy.clip_mirror import write_clip_mirror
from models.schema import Clips

FILE = Path(__file__).with_suffix(".md")
IMAGES, CLIPS = Images(min_pixels=784), Clips(min_pixels=784)
QUESTIONS, ROUNDS, TOGETHER, NEW_TOKENS = 48, 5, 8, 16
PLAIN = DecodeSpec(latent_steps=0, start="never", max_new_tokens=NEW_TOKENS)
WAYS = {
    "plain": PLAIN,
    "latent, 4 steps": PLAIN.model_copy(update={"latent_steps": 4, "start": "forced", "end": "forced"}),
    "zooming, as the model answers": PLAIN.model_copy(update={"zoom": "predicted"}),
    "zooming, to a given span": PLAIN.model_copy(update={"zoom": "predicted"}),
}
LATENT, GIVEN = "latent, 4 steps", "zooming, to a given span"
CLAIM = 0.44
"""VisReflect's abstract: less time than zooming, on videos."""


def questions_of(folder: Path, count: int) -> list[list[dict[str, Any]]]:
    """Conversations about clips of the proxy's Video-MME, as the stock task asks them."""
    import pyarrow.parquet

    write_clip_mirror(folder, n=count, seed=0, split="dev")
    rows = pyarrow.parquet.read_table(next((folder / "videomme").glob("*.parquet"))).to_pylist()
    return [
        [{"role": "user", "content": [
            {"type": "video", "url": str(folder / "data" / f"{row['videoID']}.mp4")},
            {"type": "text", "text": "\n".join([row["question"], *row["options"], "The best answer is:"])},
        ]}]
        for row in rows
    ]  # fmt: skip


def middle(said: str, seconds: float) -> Span:
    """In place of `zoom.span_in`."""
    return seconds / 4, 3 * seconds / 4


@contextmanager
def counting(counts: dict[str, int]) -> Iterator[None]:
    """Counts what every prefill reads, what is decoded, and what the vision tower makes."""
    stream, encode = engines.stream, Engine._encoded_clip

    def counted(model: Any, source: Any, *rest: Any, **options: Any) -> Any:
        def read(running: Any) -> Any:
            if (joining := source(running)) is not None:
                counts["read"] += sum(len(prompt.input_ids) for prompt in joining.prompts)
            return joining

        for answers in stream(model, read, *rest, **options):
            counts["said"] += sum(len(answer.token_ids) for answer in answers.values())
            yield answers

    def encoded(self: Engine, *arguments: Any) -> torch.Tensor:
        made = encode(self, *arguments)
        counts["encoded"] += len(made)
        return made

    engines.stream, Engine._encoded_clip = counted, encoded
    try:
        yield
    finally:
        engines.stream, Engine._encoded_clip = stream, encode


def answered(engine: Engine, chats: list[list[dict[str, Any]]], name: str) -> tuple[float, dict[str, int]]:
    """(seconds, counts) of all questions in one way, with nothing kept from before."""
    engine.forget_answers()
    engine.features = BoundedCache(engine.features.capacity_bytes)
    spec, reader, counts = WAYS[name], ClipReader(CLIPS), dict.fromkeys(("read", "encoded", "said", "whole"), 0)
    read = zoom.span_in
    if name == GIVEN:
        zoom.span_in = middle
    begun = time.perf_counter()
    try:
        with counting(counts):
            for start in range(0, len(chats), TOGETHER):
                some = chats[start : start + TOGETHER]
                reload = [lambda own=chat: [own[0]["content"][0]["url"]] for chat in some]
                questions = engine.prepare(some, IMAGES, reload, encoded=False, reader=reader)
                if spec.zoom == "predicted":
                    found = zoom.zoomed(engine, questions, some, IMAGES, reader, spec.ends)
                    questions = [question for question, _ in found]
                    counts["whole"] += sum("whole" in record for _, record in found)
                engine.answer(questions, spec, IMAGES)
    finally:
        zoom.span_in = read
    return time.perf_counter() - begun, counts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help=f"into {FILE.name}")
    parser.add_argument("--questions", type=positive, default=QUESTIONS, help=f"default: {QUESTIONS}")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help=f"default: {ROUNDS}")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    engine = Engine(BASE_DIR.parent / "base-video", precision="fp32", attention="eager")
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    counts: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        chats = questions_of(Path(folder), options.questions)
        answered(engine, chats[:TOGETHER], GIVEN)  # warm-up
        for _ in range(options.rounds):
            for name in WAYS:
                taken, counts[name] = answered(engine, chats, name)
                seconds[name].append(taken / len(chats))
    page = f"# Latent decoding against zooming on clips\n\nMade by `python -m benchmarks.zoom --write`.\n\n{ABOUT}\n\n{machine()}\n\n"
    page += table(seconds, counts, len(chats)) + "\n"
    show(page, FILE if options.write else None)
    return 0


def table(seconds: dict[str, list[float]], counts: dict[str, dict[str, int]], questions: int) -> str:
    """Each way against zooming to a given span."""
    lines = [
        "| Way | Time / time of zooming | In each round | Seconds per question here | Tokens read | Encoded | Decoded | Answered without zooming |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    ratios = {name: [own / given for own, given in zip(taken, seconds[GIVEN], strict=True)] for name, taken in seconds.items()}
    for name, own in ratios.items():
        each, count = ", ".join(f"{ratio:.2f}" for ratio in own), counts[name]
        whole = f"{count['whole']} of {questions}" if WAYS[name].zoom == "predicted" else "–"
        lines.append(
            f"| {name} | {statistics.median(own):.2f} | {each} | {statistics.median(seconds[name]):.3f} | {count['read'] / questions:.0f} "
            f"| {count['encoded'] / questions:.0f} | {count['said'] / questions:.1f} | {whole} |"
        )
    less = 1 - statistics.median(ratios[LATENT])
    said = f"Here latent decoding takes {less:.0%} less time than zooming to a given span. VisReflect's abstract reports about {CLAIM:.0%} for its own"
    return "\n".join(lines) + f"\n\n{said} model and clips, which this neither confirms nor refutes."


ABOUT = about(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
