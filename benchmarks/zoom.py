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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.page import about, machine, positive, show
from models.config import DecodeSpec, EvaluateSpec, Images
from models.evaluation.tasks import digests_of
from models.evaluation.times import Asked, Counting, Timed, Way, in_turns
from models.proxy import BASE_DIR
from models.proxy.clip_mirror import write_clip_mirror
from models.schema import Clips

FILE = Path(__file__).with_suffix(".md")
QUESTIONS, ROUNDS, NEW_TOKENS = 48, 5, 16
PLAIN = DecodeSpec(latent_steps=0, start="never", max_new_tokens=NEW_TOKENS)
ZOOMING = PLAIN.model_copy(update={"zoom": "predicted"})
LATENT, GIVEN = "latent, 4 steps", "zooming, to a given span"
WAYS = {
    "plain": PLAIN,
    LATENT: PLAIN.model_copy(update={"latent_steps": 4, "start": "forced", "end": "forced"}),
    "zooming, as the model answers": ZOOMING,
    GIVEN: ZOOMING,
}
CLAIM = 0.44
"""VisReflect's abstract: less time than zooming, on videos."""
TASK = "videomme"


def ways() -> dict[str, Way]:
    engine = Counting(BASE_DIR.parent / "base-video", precision="fp32", attention="eager")
    common = {"benchmark": TASK, "protocol": "stock", "tasks": digests_of([TASK]), "images": Images(min_pixels=784), "clips": Clips(min_pixels=784)}
    return {name: Way(engine, EvaluateSpec(decode=decode, **common), given=name == GIVEN) for name, decode in WAYS.items()}


def questions_of(folder: Path, count: int) -> Asked:
    """Of the proxy's Video-MME, as the stock task asks them."""
    write_clip_mirror(folder, n=count, seed=0, split="dev")
    return Asked.of(folder, [TASK], count, together=8)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help=f"into {FILE.name}")
    parser.add_argument("--questions", type=positive, default=QUESTIONS, help=f"default: {QUESTIONS}")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help=f"default: {ROUNDS}")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        asked = questions_of(Path(folder), options.questions)
        made = ways()
        made[GIVEN].answered(asked)  # warm-up
        timed = in_turns(made, asked, options.rounds)
    page = f"# Latent decoding against zooming on clips\n\nMade by `python -m benchmarks.zoom --write`.\n\n{ABOUT}\n\n{machine()}\n\n"
    page += table(timed, len(asked.requests)) + "\n"
    show(page, FILE if options.write else None)
    return 0


def table(timed: dict[str, Timed], questions: int) -> str:
    """Each way against zooming to a given span."""
    lines = [
        "| Way | Time / time of zooming | In each round | Seconds per question here | Tokens read | Encoded | Decoded | Answered without zooming |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    ratios = {name: [own / given for own, given in zip(one.seconds, timed[GIVEN].seconds, strict=True)] for name, one in timed.items()}
    for name, own in ratios.items():
        each, one = ", ".join(f"{ratio:.2f}" for ratio in own), timed[name]
        whole = f"{one.whole} of {questions}" if WAYS[name].zoom == "predicted" else "–"
        lines.append(
            f"| {name} | {statistics.median(own):.2f} | {each} | {statistics.median(one.seconds):.3f} | {one.read / questions:.0f} "
            f"| {one.encoded / questions:.0f} | {one.said / questions:.1f} | {whole} |"
        )
    less = 1 - statistics.median(ratios[LATENT])
    said = f"Here latent decoding takes {less:.0%} less time than zooming to a given span. VisReflect's abstract reports about {CLAIM:.0%} for its own"
    return "\n".join(lines) + f"\n\n{said} model and clips, which this neither confirms nor refutes."


ABOUT = about(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
