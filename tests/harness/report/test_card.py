"""Causal cards in a report: numbers, the sentence that sums one up, and what is not possible."""

from __future__ import annotations

import re

import numpy as np
import pytest

from harness.report import render
from harness.report.numbers.card import Card, cards
from harness.report.numbers.results import Results
from harness.report.numbers.study import study_of
from harness.report.sections.card import card_answer, card_table, summary
from harness.store import Store
from harness.store import store as store_module
from models.card.latents import alike
from tests.harness.report.world import fill, make_plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.files, "sync_file_system", lambda path: None)
    folder = tmp_path_factory.mktemp("cards")
    plan, store = make_plan(folder, n=60, table="related/cards"), Store(folder / "results")
    fill(store, plan, n=60)
    patch.undo()
    return folder, plan, store


@pytest.fixture(scope="module")
def results(made):
    folder, plan, store = made
    return Results(study_of(plan), store, folder / "reports")


def test_a_card_s_numbers_are_its_rows_means_and_paired_differences(results):
    card = cards(results)["Joint Train", "twins"]
    rows = card.questions
    own, another = ([row["modes"][mode]["correct"] for row in rows] for mode in ("own", "another"))
    test = card.tests["another"]
    assert test.value.mean == pytest.approx(sum(another) / 80) and test.control.mean == pytest.approx(sum(own) / 80)
    assert test.difference.difference == pytest.approx((sum(another) - sum(own)) / 80) and test.difference.clusters == 40
    assert test.nats.difference == pytest.approx(-1.7 * (sum(own) - sum(another)) / 80)
    moved = card.tests["evidence"].difference
    assert moved.difference == pytest.approx(sum(row["moved"]["evidence"] - row["moved"]["elsewhere"] for row in rows) / 80)
    assert set(card.adjusted) == set(card.tests) and all(card.adjusted[name] >= card.tests[name].difference.p for name in card.tests)


def test_the_sentence_says_what_is_shown_and_only_that(results):
    found = cards(results)
    joint, stage1 = summary(found["Joint Train", "twins"]), summary(found["Stage 1 Only", "twins"])
    assert "latents move more with the evidence" in joint and "the answer follows a twin's" in joint and "accuracy depends on whose they are (with another question's −" in joint
    assert "latents are not shown to move more" in stage1 and "the answer is not shown to follow a twin's (0.0 % against 0.0 %, p = 1.00)" in stage1
    assert re.search(r"accuracy is not shown to change \(0\.0 \[−[\d., +]+\], p = 1\.00\)", stage1), "an interval is uncorrected: without its p it misleads"
    assert "with the markers alone accuracy is not shown to change (0.0 [−" in stage1 and "a linear probe reads the right letter from them" in stage1


def test_the_head_counts_the_links_of_the_chain(results):
    said = card_answer(results)
    assert "latents move more with the evidence than with another region in 1 of 4 cards" in said
    assert "the answer follows a twin's latents in 1 of 4 cards" in said


def test_what_the_questions_do_not_allow_is_said(results):
    card = cards(results)["Joint Train", "twins"]
    table = card_table("Joint Train", card, results)
    assert any("the true box's latents are not defined" in note and "probe of option and place" in note for note in table.notes)
    assert [row.group for row in table.rows][-2:] == ["Collapse", "Collapse"] and table.rows[-1].cells[0].display == "7.5"


def test_every_format_shows_the_cards(made):
    folder, plan, store = made
    render(plan, store, folder / "reports")
    page = (folder / "reports" / "table3c-card.md").read_text()
    assert "Causal cards" in page and "What do latents carry?" in page and "evidence painted over" in page
    assert "the answer follows a twin" in (folder / "reports" / "table3c-card.html").read_text()


def test_the_interval_of_the_cosine_covers_that_of_all_questions_of_the_kind():
    random = np.random.default_rng(1)

    def latents(n: int) -> np.ndarray:
        shared = np.repeat(random.normal(size=(n // 2, 1, 16)), 2, axis=0) * np.abs(random.normal(size=(n, 1, 1)))
        return 0.5 + 0.7 * shared + 0.5 * random.normal(size=(n, 2, 16))

    def card(n: int) -> Card:
        questions = [{"task": "t", "doc_id": i, "cluster": f"pair {i // 2}"} for i in range(n)]
        return Card("twins", {"questions": questions, "alike": alike(latents(n), [row["cluster"] for row in questions])})

    truth = card(2000).cosine.mean
    covered = sum(truth in card(80).cosine.interval for _ in range(200))
    assert covered >= 180, f"{covered} of 200; rows of cosines counted as independent cover 124"
