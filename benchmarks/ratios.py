"""How much faster this project answers and trains than the plain way, in one run on a CPU: ratios, not seconds.

    python -m benchmarks.ratios            # about forty minutes; --write: into benchmarks/ratios.md

**Answers.** Questions of MMVP and HR-Bench (four rotations of each picture) from the proxy's mirrors. The plain way prepares each
question with the checkpoint's own processor and calls transformers' `generate` with it alone. Here the same questions are prepared
and decoded by the model behind lmms-eval, in one batch. Both decode greedily in fp32, and their answers must be equal. An evaluation here
also computes how likely each option letter was at each token, a pass over the whole vocabulary that `generate` does not make; one row
leaves that out, so that both ways compute the same. Two models:

- *Rehearsal size*, for which the goal is stated: the base model of the rehearsal world (`tests/rehearsal`), with 0.7 million weights in
  its layers and 19 million in an output layer of the true vocabulary (152,064 entries). Pictures have 144 tokens.
- *The proxy's base*: 2.7 million weights in its layers, 0.2 million in the output layer. Pictures have 64 or 144 tokens.

Pictures and prompts keep a CPU core busy with arithmetic, alone or in a batch, so there batching saves only what the four rotations share
and what each call costs in Python. New tokens are different: one row at a time, the true output layer's 78 MB are read from memory for
each token, and in a batch once for all rows. That is why the ratio grows with the answers' length, why answers of four tokens stay
below the goal, and why the proxy, whose weights fit into the caches, gains only the Python of its steps. A question whose answer runs to
the limit also holds the batch up to its end. On a GPU every layer's weights are read from memory; `benchmarks.real_scale` counts that.

**Training.** Accumulated steps of stage 1, features of pictures known; lengths are those of `benchmarks.real_scale`, an eighth as long.
The release's way pads groups of at most four samples, computes logits of every token in fp32, and runs the BCM twice. Here samples are
shared out by length and packed into one row, which sdpa attends sample by sample, and logits are computed where a token is supervised.
Tokens are those of the samples, without padding.

- *Eight ranks*: a random model in which output layer and attention have about the shares of all multiplications that they have at 7B,
  whose rows are eight times as long. Each rank's micro-batches are timed one after another in one process, and the times are put together: a
  step takes as long as the slowest rank at each micro-batch, as in `benchmarks.real_scale`, and an eighth of AdamW's step. Nothing runs in
  parallel, and no communication is timed. Each of its ratios is of another step. Beside it: the ratio of all multiplications of the same
  steps at 7B, logits included (the release's for every token), the BCM left out.
- *One process*: the same model, the same samples in both ways, so that nothing waits for another rank.
- *One process, rehearsal size*: the true vocabulary over tiny layers. The output layer is nearly the whole model, so this flatters.

Both ways take turns, so that whatever else the machine does slows them alike, and are timed in seconds of this process's core; the
median of the rounds' ratios is reported.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import ratios_answers, ratios_training
from benchmarks.page import about, machine, positive, show, whole
from models.config import Images
from models.proxy import BASE_DIR
from tests.rehearsal.world import base

FILE = Path(__file__).with_suffix(".md")
QUESTIONS, SAMPLES, ROUNDS, STEPS = 64, 64, 2, 2
"""STEPS: of eight ranks, in each round. They differ more than other rounds, with how unevenly the release's groups fall."""
REHEARSAL, PROXY = Images(max_pixels=256 * 28 * 28), Images(min_pixels=784)
WIDTH = 128


@dataclass(frozen=True)
class Row:
    """goal: None where none is stated for it."""

    what: str
    ratios: list[float]
    goal: float | None
    how: str

    def __str__(self) -> str:
        middle = statistics.median(self.ratios)
        goal = "–" if self.goal is None else f"≥ {self.goal:g}" + ("" if middle >= self.goal else " (**not reached**)")
        return f"| {self.what} | {middle:.1f} | {', '.join(f'{ratio:.1f}' for ratio in self.ratios)} | {goal} | {self.how} |"


def answered(which: str, goal: float | None, own: ratios_answers.Compared, questions: int) -> Row:
    how = f"{questions} questions in one batch, {own.prompt:.0f} tokens a prompt and {own.answer:.1f} an answer; all answers are equal"
    return Row(f"Questions a second, {which}", own.ratios, goal, f"{how}; {own.rate:.1f} a second here")


def rows(folder: Path, questions: int, samples: int, rounds: int) -> Iterator[Row]:
    rehearsal = folder / "rehearsal"
    base.write(rehearsal, WIDTH, seed=0)
    chats = ratios_answers.questions_of(folder, questions)
    for where, checkpoint, images, goal in (("rehearsal size", rehearsal, REHEARSAL, 8), ("the proxy's base", BASE_DIR, PROXY, None)):
        for ends in (True, False):
            both = ratios_answers.Both(checkpoint, images, ends)
            length = "as long as the model makes them" if ends else f"{ratios_answers.NEW_TOKENS} tokens each"
            yield answered(f"{where}, answers {length}", goal, both.compared(chats, rounds), len(chats))
        if goal is not None:
            both.without_likelihoods()
            yield answered(f"{where}, answers {length}, without letters' likelihoods", goal, both.compared(chats, rounds), len(chats))
    model = ratios_training.Both(folder)
    for what, both, found, goal in (
        ("eight ranks put together", "", model.in_lockstep(STEPS * rounds), 2),
        ("one process", "the same samples in both ways, ", model.compared(samples, rounds), 2),
        ("one process, rehearsal size", "the same, ", ratios_training.Both(folder, rehearsal).compared(samples, rounds), None),
    ):
        how = f"{both}{found.tokens:.0f} tokens a sample, {found.padding:.2f} times as many with the release's padding"
        counted = "" if found.counted is None else f"; multiplications of the same steps at 7B, counted: {found.counted:.2f}"
        yield Row(f"Tokens a second of training in stage 1, {what}", found.ratios, goal, f"{how}{counted}; {found.rate:,.0f} a second here")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help=f"into {FILE.name}")
    parser.add_argument("--questions", type=whole(8, multiple=8), default=QUESTIONS, help=f"a multiple of 8; default: {QUESTIONS}")
    parser.add_argument("--samples", type=positive, default=SAMPLES, help=f"of training in one process; default: {SAMPLES}")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help=f"default: {ROUNDS}")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines = ["| What | Ratio | of each round | Goal | How |", "| :-- | --: | --: | --: | :-- |"]
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder), options.questions, options.samples, options.rounds):
            lines.append(str(row))
            print(row, flush=True)
    page = f"# Ratios measured in one run\n\nMade by `python -m benchmarks.ratios --write`.\n\n{ABOUT}\n\n{machine()}\n\n" + "\n".join(lines) + "\n"
    show(page, FILE if options.write else None)
    return 0


ABOUT = about(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
