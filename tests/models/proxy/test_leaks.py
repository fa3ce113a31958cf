"""The right letter cannot be told from where the evidence lies: boxes that give answers away would make oracle latents
look useful."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from models.proxy import benchmarks, pairs, puzzles, questions
from models.proxy.questions import Question
from models.proxy.splits import stream

ASKED = 4000
ALLOWED = 0.03
"""Above the share of the commonest letter."""


def collected(source: str) -> list[Question]:
    kind, _, name = source.partition(" ")
    rng, found = stream("dev", 7, len(source)), []
    while len(found) < ASKED:
        if kind == "puzzle":
            found.append(puzzles.PUZZLES[name](rng).question)
            continue
        scene = benchmarks.sample_scene(rng, benchmarks.MARKED if name == "reflectance" else benchmarks.USUAL)
        if kind == "question":
            asked = benchmarks.ask_family(rng, scene, name)
            found += [asked] if asked is not None else []
        else:
            pair = pairs.MAKERS[name](rng, scene)
            found += pair.questions if pair is not None else ()
    return found[:ASKED]


def above_majority(asked: list[Question]) -> float:
    """How much better than always saying the commonest letter the best of two classifiers is, by cross-validation.

    The letters of questions with the same options in the same order are told apart by the options too: a box that shows
    which side is meant is evidence, not a leak, only while options are shuffled.
    """
    boxes = np.array([[*q.box, q.image, len(q.options)] for q in asked])
    return by_classifier(boxes, np.array([q.letter for q in asked]))


def by_classifier(known: np.ndarray, letters: np.ndarray) -> float:
    """The same from any `known` [n, features]."""
    majority = max(np.mean(letters == letter) for letter in set(letters))
    models = (KNeighborsClassifier(25), DecisionTreeClassifier(min_samples_leaf=25, random_state=0))
    return max(np.mean(cross_val_predict(model, known, letters, cv=5) == letters) for model in models) - majority


SOURCES = (
    *(f"question {name}" for name in questions.ALL), *(f"pair {name}" for name in pairs.MAKERS), *(f"puzzle {name}" for name in puzzles.PUZZLES),
)  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_a_box_alone_does_not_tell_the_letter(source):
    assert above_majority(collected(source)) <= ALLOWED


def test_the_check_finds_a_box_that_is_the_right_candidate():
    by_letter = defaultdict(int)
    leaking = []
    for question in collected("puzzle pattern"):
        by_letter[question.letter] += 1
        place = (ord(question.letter) - ord("A")) / 4
        leaking.append(Question(question.family, question.text, question.options, question.answer, (place, 0.6, place + 0.1, 0.7)))
    assert len(by_letter) == 4
    assert above_majority(leaking) > 0.5
