"""One checkpoint under interventions: what it answers, how likely the right letter is, how far its latents move."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.card import latents as reading
from models.card.questions import Posed, batches, chosen, painted, regions
from models.config import CardSpec, DecodeSpec
from models.evaluation.engine import Engine, Question
from models.evaluation.extract import read_strict
from models.evaluation.likelihood import of_right
from models.evaluation.rows import clusters
from models.evaluation.tasks import digest
from models.evaluation.tasks.paper import paper_prompt
from models.latent.decoding import Decoded, decode
from models.latent.prefill import Prefill, read
from models.latent.prompt import Prompt
from models.run import Interrupted, Run

Mode = str
"""own, zeroed, noise, another, twin, oracle, markers, none, hidden, hidden_another, hidden_twin."""


def causal_card(
    run: Run, spec: CardSpec, *, checkpoint: Path, mirror: Path, batch_size: int, attention: str = "sdpa"
) -> dict[str, Any]:
    """Write card.json to run.out; returns what it holds.

    Every question is decoded with its segment forced open and

    - own latents; zeros; noise of their norm; those of another question, of its twin, of its true box (`spec.oracle`);
    - the markers alone (no latent step), and no segment at all (`none`);
    - own latents, another question's and the twin's, with the image tokens masked after the segment (`hidden`, `hidden_another`,
      `hidden_twin`).

    Its latents are also taken from the picture with the evidence painted over, and with a region of the same size elsewhere.
    "questions": a row each, {"modes": {mode: {"letter", "correct", "loglik", "loglik_twin"}}, "moved": {"evidence",
    "elsewhere", "twin"}, …}; a movement is the mean distance over the steps, divided by the mean distance between the latents
    of questions on different pictures. ValueError when the tasks are others than those planned with.
    """
    if spec.tasks != (installed := digest(spec.benchmark, "paper")):
        differing = ", ".join(sorted(task for task in installed if spec.tasks.get(task) != installed[task]))
        raise ValueError(f"tasks: {differing} changed since this card was planned; plan it again")
    torch.set_num_threads(run.threads)
    engine = Engine(checkpoint, device=run.device, threads=run.threads, precision=spec.precision, attention=attention)
    keys = chosen(Path(mirror), spec.benchmark, spec.n)
    rows: list[dict[str, Any]] = []
    pictures: list[tuple[str, ...]] = []
    latents: list[Tensor] = []
    for posed in batches(Path(mirror), spec.benchmark, keys, batch_size):
        if run.should_stop():
            raise Interrupted(f"{len(rows)} of {len(keys)} questions asked")
        with torch.inference_mode():
            one = _Batch(engine, spec, posed)
            rows += one.rows()
        pictures += [question.pictures for question in posed]
        latents.append(one.latents.float().cpu())
        engine.forget_answers()
        run.log(len(rows), len(keys))
    found = torch.cat(latents).numpy()
    together(rows, pictures)
    _scale(rows, found)
    targets = {
        "answer": [row["target"] for row in rows],
        "option": [row["option"].casefold() for row in rows],
        "place": [reading.place(row["box"]) for row in rows],
    }
    groups = [row["cluster"] for row in rows]
    card = {
        "benchmark": spec.benchmark,
        "checkpoint": Path(checkpoint).name,
        "latent_steps": spec.decode.latent_steps,
        "questions": rows,
        "probes": {name: reading.probe(found, labels, groups) for name, labels in targets.items()},
        "alike": reading.alike(found, groups),
    }
    run.out.mkdir(parents=True, exist_ok=True)
    (run.out / "card.json").write_text(json.dumps(card, ensure_ascii=False) + "\n")
    return {name: card[name] for name in ("benchmark", "checkpoint", "latent_steps")} | {"n": len(rows)}


def together(rows: list[dict[str, Any]], pictures: Sequence[tuple[str, ...]]) -> None:
    """Each row's cluster: neighbours, and whatever questions share a picture, wherever in the benchmark they stand."""
    shared = {at: (*pictures[at], f"{row['task']} {row['doc_id'] // 2}") for at, row in enumerate(rows)}
    for at, cluster in clusters(shared).items():
        rows[at]["cluster"] = cluster


def _scale(rows: list[dict[str, Any]], latents: np.ndarray) -> None:
    """Movements in units of the mean distance between questions on different pictures."""
    groups = np.array([row["cluster"] for row in rows])
    between = np.mean([
        np.linalg.norm(latents[groups != group][:, None] - latents[groups == group][None], axis=-1).mean() for group in dict.fromkeys(groups)
    ]) if len(set(groups)) > 1 else 0.0
    for row in rows:
        row["moved"] = {name: moved / float(between) for name, moved in row["moved"].items()} if between > 0 else {}


@dataclass
class _Batch:
    """Some questions under every intervention."""

    engine: Engine
    spec: CardSpec
    posed: Sequence[Posed]
    latents: Tensor = field(init=False)
    """[n, S, D]: their own."""

    def rows(self) -> list[dict[str, Any]]:
        """The rows of card.json; `latents` holds the questions' own afterwards."""
        questions = self._prepare([list(one.asked.images) for one in self.posed])
        prompts = self._prompts(questions)
        forced = read(self.engine.model, prompts, True, self.engine.tokens)
        decoding = self.engine.stated(self.spec.decode.model_copy(update={"start": "forced", "latents": "own"}))
        own = self._decode(prompts, decoding, forced, keep_latents=True)
        self.latents = torch.stack([one.latents[: decoding.latent_steps] for one in own])
        given = decoding.model_copy(update={"latents": "oracle"})
        another = self._fed(prompts, self._others())
        answers: dict[Mode, Mapping[int, Decoded]] = {
            "own": dict(enumerate(own)),
            "another": dict(enumerate(self._decode(another, given, forced))),
            "hidden": dict(enumerate(self._decode(prompts, decoding, forced, hide_images=True))),
            "hidden_another": dict(enumerate(self._decode(another, given, forced, hide_images=True))),
        }
        for mode in ("zeroed", "noise"):
            answers[mode] = dict(enumerate(self._decode(prompts, decoding.model_copy(update={"latents": mode}), forced)))
        answers["markers"] = dict(enumerate(self._decode(prompts, decoding.model_copy(update={"latent_steps": 0}), forced)))
        plain = decoding.model_copy(update={"start": "never", "latent_steps": 0})
        answers["none"] = dict(enumerate(self._decode(prompts, plain, read(self.engine.model, prompts, False, self.engine.tokens))))
        place = {one.key: at for at, one in enumerate(self.posed)}
        twins = {at: place[one.twin] for at, one in enumerate(self.posed) if one.twin is not None}
        of_twin = {at: self.latents[twin] for at, twin in twins.items()}
        answers["twin"] = self._some(prompts, given, forced, of_twin)
        answers["hidden_twin"] = self._some(prompts, given, forced, of_twin, hide_images=True)
        boxed = [at for at, one in enumerate(self.posed) if one.asked.boxes]
        if self.spec.oracle and boxed:
            answers["oracle"] = self._oracle(questions, prompts, given, forced, boxed)
        moved = self._moved(questions, twins)
        return [self._row(at, answers, moved[at]) for at in range(len(self.posed))]

    def _prepare(self, pictures: Sequence[list[Image.Image]], of: Sequence[int] | None = None) -> list[Question]:
        conversations = []
        for at, own in zip(of if of is not None else range(len(self.posed)), pictures, strict=True):
            asked = self.posed[at].asked
            parts: list[dict[str, Any]] = [{"type": "image", "url": picture} for picture in own]
            parts.append({"type": "text", "text": paper_prompt(asked.text, list(asked.options))})
            conversations.append([{"role": "user", "content": parts}])
        return self.engine.prepare(conversations, self.spec.images, [lambda own=own: own for own in pictures])

    def _prompts(self, questions: Sequence[Question], of: Sequence[int] | None = None) -> list[Prompt]:
        """of: which of the batch's questions these are, for the seeds of their noise."""
        held = self.engine.features_of(questions, self.spec.images)
        return [
            Prompt(
                question.input_ids,
                question.grids,
                torch.cat([held[key] for key in question.images]).to(self.engine.device) if question.images else None,
                seed=self.spec.seed * 1_000_003 + self.posed[at].key[1],
            )
            for at, question in zip(of if of is not None else range(len(self.posed)), questions, strict=True)
        ]

    def _decode(self, prompts: list[Prompt], spec: DecodeSpec, prefill: Prefill, **options: Any) -> list[Decoded]:
        engine = self.engine
        return decode(
            engine.model, prompts, spec, tokens=engine.tokens, eos=engine.eos[spec.ends], prefill=prefill,
            generator=torch.Generator().manual_seed(self.spec.seed), keep_logits=engine.letters, **options,
        )  # fmt: skip

    def _others(self) -> list[Tensor]:
        """For every question the latents of one about other pictures, as far away in the batch as there is."""
        n = len(self.posed)
        found = []
        for at, one in enumerate(self.posed):
            apart = sorted(range(n), key=lambda other: abs((other - at) % n - n // 2))
            donor = next((other for other in apart if not set(one.pictures) & set(self.posed[other].pictures) and self.posed[other].key != one.twin), None)
            if donor is None:
                raise ValueError(f"{one.key[0]} {one.key[1]}: no other question of its batch is about another picture; raise batch_size")
            found.append(self.latents[donor])
        return found

    @staticmethod
    def _fed(prompts: Sequence[Prompt], latents: Sequence[Tensor]) -> list[Prompt]:
        return [
            Prompt(p.input_ids, p.image_grids, p.image_embeds, seed=p.seed, oracle=own[None]) for p, own in zip(prompts, latents, strict=True)
        ]

    def _some(
        self, prompts: list[Prompt], spec: DecodeSpec, prefill: Prefill, latents: Mapping[int, Tensor], **options: Any
    ) -> dict[int, Decoded]:
        """Only these questions, fed these latents."""
        if not latents:
            return {}
        at = list(latents)
        fed = self._fed([prompts[one] for one in at], list(latents.values()))
        return dict(zip(at, self._decode(fed, spec, prefill.rows(at), **options), strict=True))

    def _oracle(
        self, questions: Sequence[Question], prompts: list[Prompt], spec: DecodeSpec, prefill: Prefill, boxed: list[int]
    ) -> dict[int, Decoded]:
        """Fed the latents of their true boxes, as `latents: oracle` is in an evaluation."""
        boxes = {
            at: (
                torch.tensor([box[1:] for box in self.posed[at].asked.boxes], dtype=torch.float64),
                torch.tensor([box[0] for box in self.posed[at].asked.boxes]),
            )
            for at in boxed
        }
        fed = self.engine.with_true_boxes(
            [prompts[at] for at in boxed], [questions[at] for at in boxed], [boxes[at] for at in boxed], spec, self.spec.images
        )
        return dict(zip(boxed, self._decode(fed, spec, prefill.rows(boxed)), strict=True))

    def _moved(self, questions: Sequence[Question], twins: Mapping[int, int]) -> list[dict[str, float]]:
        """How far each question's latents lie from those with a part of the picture painted over, and from its twin's."""
        moved: list[dict[str, float]] = [{} for _ in self.posed]
        for at, twin in twins.items():
            moved[at]["twin"] = self._distance(at, self.latents[twin])
        known = {at: found for at, one in enumerate(self.posed) if (found := regions(one)) is not None}
        short = self.spec.decode.model_copy(update={"start": "forced", "latents": "own", "max_new_tokens": 2, "count_latents": False})
        for number, name in enumerate(("evidence", "elsewhere")):
            if not known:
                break
            pictures = [[painted(self.posed[at].asked.images[0], boxes[number]), *self.posed[at].asked.images[1:]] for at, boxes in known.items()]
            prompts = self._prompts(self._prepare(pictures, list(known)), list(known))
            prefill = read(self.engine.model, prompts, True, self.engine.tokens)
            found = self._decode(prompts, self.engine.stated(short), prefill, keep_latents=True)
            for at, one in zip(known, found, strict=True):
                moved[at][name] = self._distance(at, one.latents[: self.latents.shape[1]])
        return moved

    def _distance(self, at: int, other: Tensor) -> float:
        return float((self.latents[at].float() - other.float()).norm(dim=-1).mean())

    def _row(self, at: int, answers: Mapping[Mode, Mapping[int, Decoded]], moved: dict[str, float]) -> dict[str, Any]:
        one = self.posed[at]
        target = one.asked.target.strip("() .").upper()
        other = next((p.asked.target.strip("() .").upper() for p in self.posed if p.key == one.twin), None)
        index = "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(target)
        box = next((box[1:] for box in one.asked.boxes if box[0] == 0), None)
        modes = {mode: self._said(found[at], one, target, other) for mode, found in answers.items() if at in found}
        return {
            "task": one.key[0], "doc_id": one.key[1], "target": target, "twin_target": other,
            "option": one.asked.options[index] if index < one.letters else target, "box": box, "modes": modes, "moved": moved,
        }  # fmt: skip

    def _said(self, decoded: Decoded, one: Posed, target: str, other: str | None) -> dict[str, Any]:
        answer = self.engine.answer_of(decoded, self.spec.decode)
        letter = read_strict(answer.response, one.asked.options)
        found = {"letter": letter, "correct": letter == target, "loglik": of_right(answer.letters, target, one.letters).get("loglik")}
        return found | ({"loglik_twin": of_right(answer.letters, other, one.letters).get("loglik")} if other else {})
