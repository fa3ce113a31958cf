"""The last step of pretraining: a checkpoint folder with weights, processor, curve, numbers and model card.

`python -m models.proxy.release DIR` measures a folder again and writes its card; with --card it only writes the card, from
the numbers that are there. --remade OTHER keeps the numbers of OTHER, which the same command made from random values, in
DIR/remade, and the card sets them beside its own.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path

import torch

from models.proxy import architecture, measure, readable
from models.proxy.language import PARTS
from models.proxy.processor import build_processor

MEASURED = ("mmvp", "hrbench4k", "blink", "vstar", "hrbench8k", "mmerealworld_lite")
MEASURE_SEED = 0
PICTURED = ("language", "answers", "places", "slots", "kinds")
"""The phases that read pictures."""
COLUMNS = ("mmvp", "hrbench4k", "blink")
"""The columns of the tables that compare arms."""
READABLE_AT = 85.0
"""Percent right from evidence in the slots alone that counts as reading them."""


def write_weights(state: Path, out: Path) -> None:
    """Save a phase's state as a bf16 Qwen2.5-VL checkpoint with its processor."""
    processor = build_processor()
    ids = {n: processor.tokenizer.convert_tokens_to_ids(n) for n in architecture.TOKENS_IN_CONFIG}
    model = architecture.build(ids, 0)
    model.load_state_dict(torch.load(state, weights_only=True)["model"])
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    out.mkdir(parents=True, exist_ok=True)
    model.bfloat16().save_pretrained(out)
    processor.save_pretrained(out)


def curve(metrics: Path, png: Path) -> None:
    """Draw the training curve: losses and accuracies over the phases that read pictures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    language, before = [], 0  # the phases one after another on one axis
    for phase in PICTURED:
        own = [r for r in records if r["phase"] == phase]
        language += [{**r, "step": r["step"] + before} for r in own]
        before += max((r["step"] for r in own), default=0)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    trained = [r for r in language if "loss" in r]
    for key in ("loss", *(f"{part}_loss" for part in PARTS)):
        known = [r for r in trained if key in r]
        left.plot([r["step"] for r in known], [r[key] for r in known], label=key)
    left.set(xlabel=f"step of the phases {', '.join(PICTURED)}", ylabel="loss (nats)", yscale="log")
    left.legend()
    right.plot([r["step"] for r in trained], [r["train_accuracy"] for r in trained], color="0.6", label="training, all prompts")
    examined = [r for r in language if any(k.startswith("dev/") for k in r)]
    for key in sorted({k for r in examined for k in r if k.startswith("dev/")}):
        right.plot([r["step"] for r in examined], [r[key] for r in examined], marker=".", lw=1, label=key)
    right.set(xlabel=f"step of the phases {', '.join(PICTURED)}", ylabel="share of right answers", ylim=(0, 1))
    right.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(png, dpi=90)
    pyplot.close(figure)


def write_base(state: Path, out: Path) -> None:
    """Write the whole folder. Measures every benchmark on dev and on test once, so it takes some minutes."""
    write_weights(state, out)
    write_numbers(out)


def write_numbers(out: Path) -> None:
    """Curve, measured.jsonl, readable.jsonl and the card of a checkpoint folder."""
    curve(out / "metrics.jsonl", out / "curve.png")
    model, tokens = measure.load(out)
    slots = [*readable.table(model, tokens, clean=True), *readable.table(model, tokens, clean=False)]
    (out / "readable.jsonl").write_text("".join(json.dumps(r) + "\n" for r in slots))
    results = []
    for name in MEASURED:
        for split in ("dev", "test"):
            results.append(measure.measure(model, tokens, name, split, MEASURE_SEED))  # type: ignore[arg-type]
            print(json.dumps(results[-1]), flush=True)
    (out / "measured.jsonl").write_text("".join(json.dumps(r) + "\n" for r in results))
    write_card(out)


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_card(out: Path) -> None:
    """README.md from measured.jsonl, readable.jsonl and, where they are known, the numbers of tables in arms.json."""
    from safetensors import safe_open

    with safe_open(out / "model.safetensors", "pt") as weights:
        parameters = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    arms = json.loads((out / "arms.json").read_text()) if (out / "arms.json").exists() else []
    results, again = _lines(out / "measured.jsonl"), out / "remade"
    beside = made_again(results, _lines(again / "measured.jsonl"), _lines(again / "readable.jsonl"), _minutes(again)) if again.is_dir() else ""
    (out / "README.md").write_text(card(results, _lines(out / "readable.jsonl"), arms, parameters, beside))


def keep_remade(other: Path, out: Path) -> None:
    """Numbers and training log of another making, for the card; its weights stay where they are."""
    (out / "remade").mkdir(exist_ok=True)
    for name in ("measured.jsonl", "readable.jsonl"):
        shutil.copyfile(other / name, out / "remade" / name)
    last = {r["phase"]: r for r in _lines(other / "metrics.jsonl") if "seconds" in r}
    phases = [{key: last[name][key] for key in ("phase", "step", "loss", "seconds")} for name in last]
    (out / "remade" / "phases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in phases))


def _minutes(again: Path) -> float:
    return sum(r["seconds"] for r in _lines(again / "phases.jsonl")) / 60


def made_again(results: list[dict], remade: list[dict], slots: list[dict], minutes: float) -> str:
    """A section of the card: accuracies and properties of a second making beside the first."""
    own = {(r["benchmark"], r["split"]): r for r in results}
    rows = ["| benchmark | split | this base | made again | difference |", "|---|---|---|---|---|"]
    for r in remade:
        first = own[r["benchmark"], r["split"]]
        rows.append(
            f"| {r['benchmark']} | {r['split']} | {first['accuracy']} [{first['low']}, {first['high']}] | "
            f"{r['accuracy']} [{r['low']}, {r['high']}] | {r['accuracy'] - first['accuracy']:+.1f} |"
        )
    properties = [f"- *{p['property']}*: {'holds' if p['holds'] else '**does not hold**'}. {p['found']}." for p in measured_properties(remade, slots)]
    said = [
        "## Made again from random values",
        f"The command was run through once more, from random values, with {minutes:.0f} minutes of training on two cores that also did other work. Its weights are",
        "not shipped; its numbers are in `remade/`.",
        "",
        *rows,
        "",
        "What the second base has of the properties that a base alone decides:",
        "",
        *properties,
        "",
        "",
    ]
    return "\n".join(said)


_CARD = """---
base_model: none
tags: [qwen2_5_vl, proxy]
---
# Proxy base: a Qwen2.5-VL of {parameters:.2f} M parameters in a world of coloured shapes

A `Qwen2_5_VLForConditionalGeneration` (vision depth 4, width 128, patch 8, merge 2; decoder 6 layers, width 192, untied
embeddings), made from random values by

    python -m models.proxy.pretrain --out DIR

on two CPU cores in about an hour and a half when they are free. It answers multiple-choice questions about small procedural
pictures with an option letter, `<answer> A </answer>`. It exists so that training recipes can be compared on a laptop;
its accuracies say nothing about those of a large model.

## What a comparison of recipes needs, and what this base and world give
{properties}

## How it was trained
1. *vision* (900 steps): tower and merger alone, with dense heads per merged token (attributes, place, marker, background).
2. *text* (600): the decoder alone looks up which option states a word, and what a sentence says of an object.
3. *language* (700), 4. *answers* (900) and 5. *places* (700): the decoder on the frozen tower, six questions per picture, each
   a conversation of its own behind a shared prefix; few objects and open answers first, crowded pictures and letters later;
   prompts of every evaluation protocol. A scaffold of five losses shows where to look, what is there, where to fetch it, how
   the answer reads and which option says so (`models/proxy/language.py`); its weight is zero in the last part of every
   phase. Without it, letters stayed at chance.
6. *slots* (600): latent segments. In a quarter of the rows another scene's picture is shown and the evidence's merged tokens
   fill the slots, so that only they hold the answer. Where a segment is written, the state before each slot is drawn to the
   token that fills it (mean square + 1 - cosine), the segment is opened by the model itself, and in part of the second half
   the slots hold the model's own states. Evidence never stands in the slots of counting, two-hop, extreme or compare
   questions: that reading carries over to those is what is measured.
7. *kinds* (450): the same, with jigsaws, patterns and yes-or-no questions in BLINK's fixed order.

Everything is drawn in full contrast. The worlds of fine-tuning and evaluation are shifted: contrast .25 to .6 and noise 1 to
1.6 times as strong (`benchmarks.SHIFT`). Phases 6 and 7 started from the bf16 weights of the base of generator
2, made by phases 1 to 5 while evidence had a margin of 8 pixels. `metrics.jsonl` holds all phases. A slow test runs every phase
for a few steps from random values (`tests/models/proxy/test_pretrain.py`).

{beside}## Measured
Greedy, the paper's prompt, percent right with 95 % Wilson intervals; `partial` is the share of questions of families answered
in part (from 5 above chance to 90). Questions of `dev` and `test` share no scene with training or each other
(`models/proxy/splits.py`). `dev` was looked at during development, `test` once.

{table}

By subset, test:

{subsets}

What slots do to answers (`python -m models.proxy.readable`, development questions; *other picture*: only the slots can tell;
*wrote*: own first slot nearest to the evidence among the picture's tokens):

{slots}

Curve: `curve.png`, from `metrics.jsonl`. Weights bf16. Licence Apache-2.0.
"""


def at_chance(row: dict) -> bool:
    """Whether random slots are not shown to tell anything: the interval reaches chance, a quarter."""
    return measure.wilson(round(row["random"] / 100 * row["n"]), row["n"])[0] <= 0.25


def measured_properties(results: list[dict], slots: list[dict]) -> list[dict[str, str | bool]]:
    """The two properties that the base alone decides: slots are readable, and there is room on every column."""
    blind = [r for r in slots if r["blind"] and r["world"] == "clean" and r["kind"] in ("extreme", "two_hop")]
    room = [r for r in results if r["split"] == "dev" and r["benchmark"] in COLUMNS]
    return [
        {"property": "slots are readable",
         "asked": f"other picture, evidence in the slots, kinds not taught so: at least {READABLE_AT:.0f} %, random slots at chance (25 %)",
         "found": "; ".join(f"{r['kind']} {r['evidence']}, random {r['random']}" for r in blind),
         "holds": bool(blind) and all(r["evidence"] >= READABLE_AT and at_chance(r) for r in blind),
         "command": "python -m models.proxy.readable models/proxy/base --clean"},
        {"property": "room",
         "asked": "every column: lower bound at least chance + 10, upper bound at most 80, at least half of the questions answered in part",
         "found": "; ".join(f"{r['benchmark']} {r['accuracy']} [{r['low']}, {r['high']}], chance {r['chance']}, partial {r['partial']}" for r in room),
         "holds": len(room) == len(COLUMNS) and all(r["low"] >= r["chance"] + 10 and r["high"] <= 80 and r["partial"] >= 50 for r in room),
         "command": "python -m models.proxy.measure models/proxy/base --split dev"},
    ]  # fmt: skip


def card(results: list[dict], slots: list[dict], arms: list[dict], parameters: int, beside: str = "") -> str:
    """The model card from measured results; `arms` are properties that need trained arms, in the form of
    `measured_properties`, beside: the section of `made_again`."""
    rows = ["| benchmark | split | n | accuracy | 95 % | chance | partial |", "|---|---|---|---|---|---|---|"]
    rows += [
        f"| {r['benchmark']} | {r['split']} | {r['n']} | {r['accuracy']} | {r['low']}–{r['high']} | {r['chance']} | {r['partial']} |"
        for r in results
    ]
    subsets = ["| benchmark | subset | n | accuracy |", "|---|---|---|---|"]
    subsets += [
        f"| {r['benchmark']} | {key.removeprefix('subset/').removeprefix('family/')} | {value[1]} | {value[0]} |"
        for r in results if r["split"] == "test" for key, value in r.items()
        if key.startswith("subset/") and r["benchmark"] != "mmvp" or key.startswith("family/") and r["benchmark"] == "mmvp"
    ]
    properties = ["| property | asked | found | holds | measured by |", "|---|---|---|---|---|"]
    properties += [
        f"| {p['property']} | {p['asked']} | {p['found']} | {'yes' if p['holds'] else '**no: missing**'} | `{p['command']}` |"
        for p in [*measured_properties(results, slots), *arms]
    ]
    modes = ["| world | kind | picture | n | " + " | ".join(readable.MODES) + " | wrote |", "|" + "---|" * (len(readable.MODES) + 5)]
    modes += [
        f"| {r['world']} | {r['kind']} | {'other' if r['blind'] else 'own'} | {r['n']} | "
        + " | ".join(str(r[mode]) for mode in readable.MODES) + f" | {r['wrote']} |"
        for r in slots
    ]
    return _CARD.format(
        parameters=parameters / 1e6, properties="\n".join(properties), table="\n".join(rows), subsets="\n".join(subsets), slots="\n".join(modes),
        beside=beside,
    )


def main() -> None:
    """Measure a folder again, or only write its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--card", action="store_true", help="from the stored numbers")
    parser.add_argument("--remade", type=Path, metavar="OTHER", help="set the numbers of OTHER beside, made anew; implies --card")
    options = parser.parse_args()
    if options.remade:
        keep_remade(options.remade, options.folder)
    torch.set_num_threads(1)
    (write_card if options.card or options.remade else write_numbers)(options.folder)


if __name__ == "__main__":
    main()
