"""The viewer of questions: its filters say what they mean, it keeps its place, and what models write is inert."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from harness.report.viewer import files
from harness.report.viewer.answers import UNREADABLE, Answer, Run, Sheet
from models.evaluation import questions
from models.evaluation.questions import MirrorQuestion
from models.proxy.films import write_film
from tests.browser.odd import ODD, RIGHT_TO_LEFT
from tests.browser.test_report_page import BEYOND, CONTRAST

ROWS = ("Base model", "Stage 1 Only", "Joint Train", "Two-stage (Ours)")
LATENTS = ("own", "zeroed", "shuffled", "oracle")
HEAD = {"label": "Table 3c", "title": "Training stages", "profile": "invented", "protocol": "paper"}


def invented(name: str, n: int, seeds: int = 3) -> Sheet:
    """n questions to which every row gave answers drawn at random; kinds alternate."""
    draws = random.Random(name)
    runs = []
    for row in ROWS:
        for latents in LATENTS if row != "Base model" else ("own",):
            for seed in range(seeds if latents == "own" and row != "Base model" else 1):
                answers = []
                for k in range(n):
                    said = draws.choice(["A", "A", "B", "C", UNREADABLE])
                    text = ODD[k % len(ODD)] if k < 16 else f"<answer> {said} </answer>"
                    answers.append(Answer(said, said == "A", text, 8, k % 7 == 0, -draws.random()))
                runs.append(Run(row, latents, seed, SimpleNamespace(name=f"{row}-{latents}-{seed}"), tuple(answers)))
    column = SimpleNamespace(name=name, benchmark=name)
    kinds = tuple((("category", ("counting", "colour")[k % 2]),) for k in range(n))
    return Sheet(column, name.upper(), n, tuple((f"vr_{name}", k) for k in range(n)), ("A",) * n, kinds, tuple(runs), Path("nowhere"))


def question(doc: int) -> MirrorQuestion:
    odd = ODD[doc % len(ODD)] if doc < 16 else f"What is the colour of thing {doc}?"
    pictures = tuple(Image.new("RGB", (96, 64), (40 * k, doc % 256, doc // 256)) for k in range(1 + doc % 3))
    return MirrorQuestion(odd, (odd, "blue", "red", "green"), "A", pictures, ((0, 0.25, 0.25, 0.75, 0.5),))


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("viewer")
    write_film(folder / "clip.mp4", np.repeat(np.arange(0, 240, 20, dtype=np.uint8), 64 * 64 * 3).reshape(12, 64, 64, 3))
    of_clips = {40: replace(question(40), images=(), clips=(str(folder / "clip.mp4"),)), 41: replace(question(41), images=(), clips=("gone.mp4",))}
    patch.setattr(questions, "each_question", lambda mirror, benchmark, task, docs: ((doc, of_clips.get(doc, question(doc))) for doc in docs))
    path = folder / "samples" / "table3c.html"
    sheets = [invented("mmvp", 60), invented("blink", 1000), invented("hrbench", 1000)]
    files.write(path, HEAD, sheets)
    patch.undo()
    return SimpleNamespace(path=path, mmvp=sheets[0], blink=sheets[1])


def arrived(tab):
    tab.wait_for_selector("#question .answer pre")
    return tab


def until(tab, expression: str) -> None:
    """Asks again and again from here: the page's own rules forbid the `eval` of Playwright's wait_for_function."""
    deadline = time.monotonic() + 30
    while not tab.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.02)


def listed(tab) -> list[int]:
    until(tab, "document.documentElement.dataset.ready === location.hash")  # a new address is drawn a task later
    return [int(one) for one in tab.evaluate("[...document.querySelectorAll('#list a')].map(link => link.dataset.at)")]


def opened(visit, viewer, fragment: str = "", **options):
    return arrived(visit(viewer.path, fragment=fragment, **options))


def right(sheet, row, latents="own", seed=0):
    run = next(run for run in sheet.runs if (run.row, run.latents, run.seed) == (row, latents, seed))
    return [answer.right for answer in run.answers]


def test_what_is_shown_is_what_the_filters_say(visit, viewer):
    tab = opened(visit, viewer)
    tab.select_option("[name=a]", "Joint Train")
    tab.select_option("[name=b]", "Stage 1 Only")
    a, b = right(viewer.mmvp, "Joint Train"), right(viewer.mmvp, "Stage 1 Only")
    expected = {
        "all": [True] * 60, "flips": [x != y for x, y in zip(a, b)], "lost": [x and not y for x, y in zip(a, b)],
        "gained": [y and not x for x, y in zip(a, b)], "right": a, "wrong": [not x for x in a],
        "both-right": [x and y for x, y in zip(a, b)], "both-wrong": [not (x or y) for x, y in zip(a, b)],
    }  # fmt: skip
    for show, fits in expected.items():
        tab.select_option("[name=show]", show)
        assert listed(tab) == [k for k, one in enumerate(fits) if one], show
        assert tab.inner_text("#counts").startswith(f"{sum(fits)} of 60 questions.")
    said = {run: [x.prediction for x in next(r for r in viewer.mmvp.runs if (r.row, r.latents, r.seed) == (run, "own", 0)).answers] for run in ("Joint Train", "Stage 1 Only")}
    tab.select_option("[name=show]", "other-answer")
    assert listed(tab) == [k for k, (x, y) in enumerate(zip(*said.values())) if x != y]
    tab.select_option("[name=show]", "unreadable")
    assert listed(tab) == [k for k, x in enumerate(said["Joint Train"]) if x == UNREADABLE]


def test_kind_search_seed_and_latents_narrow_it_further(visit, viewer):
    tab = opened(visit, viewer)
    tab.select_option("[name=show]", "right")
    own = right(viewer.mmvp, "Two-stage (Ours)")
    assert listed(tab) == [k for k in range(60) if own[k]]
    tab.select_option("[name=seed]", "2")
    other = right(viewer.mmvp, "Two-stage (Ours)", seed=2)
    assert listed(tab) == [k for k in range(60) if other[k]] and other != own
    tab.select_option("[name=am]", "shuffled")
    shuffled = right(viewer.mmvp, "Two-stage (Ours)", "shuffled")
    assert listed(tab) == [k for k in range(60) if shuffled[k]]
    assert "latents shuffled, seed 0" in tab.inner_text(".answer h3 >> nth=0"), "the only seed that it was done for"
    tab.select_option("[name=kind]", label="category: colour")
    assert listed(tab) == [k for k in range(60) if shuffled[k] and k % 2]
    tab.select_option("[name=show]", "all")
    tab.fill("[name=q]", "THING 4 colour")
    assert listed(tab) == [k for k in range(17, 60, 2) if "4" in str(k)]
    tab.fill("[name=q]", "no such words")
    assert listed(tab) == [] and "No question fits" in tab.text_content("#list")  # inner_text: nothing until it was painted
    tab.click("button[type=reset]")
    until(tab, "document.querySelectorAll('#list a').length == 60")  # a new address is a new task of the page


def test_a_clip_is_four_frames_with_their_seconds_and_one_that_is_gone_is_named(visit, viewer):
    tab = opened(visit, viewer, "#n=40")
    assert tab.locator("#question .pictures figcaption").all_inner_texts() == ["0.0 s", "2.0 s", "3.5 s", "5.5 s"]
    until(tab, "[...document.querySelectorAll('#question .pictures img')].every(image => image.naturalWidth > 0)")
    assert "Not shown" not in tab.inner_text("#question")
    tab = opened(visit, viewer, "#n=41")
    assert tab.locator("#question .pictures img").count() == 0
    assert "Not shown: gone.mp4: not a readable clip" in tab.inner_text("#question")


def test_a_reload_and_going_back_return_to_the_same_question_and_filters(visit, viewer):
    tab = opened(visit, viewer)
    tab.select_option("[name=column]", "blink")
    tab.select_option("[name=show]", "flips")
    tab.fill("[name=q]", "thing 7")
    tab.click("#list li:nth-child(3) a")
    arrived(tab)
    before = (tab.url, listed(tab), tab.inner_text("#question h2"), tab.inner_text("[aria-current]"))
    tab.reload()
    arrived(tab)
    assert (tab.url, listed(tab), tab.inner_text("#question h2"), tab.inner_text("[aria-current]")) == before
    assert tab.input_value("[name=q]") == "thing 7" and tab.input_value("[name=column]") == "blink"
    tab.click("#list li:nth-child(5) a")
    until(tab, "document.querySelector('#list li:nth-child(5) [aria-current]')")
    tab.go_back()
    until(tab, "document.querySelector('#list li:nth-child(3) [aria-current]')")
    assert tab.inner_text("#question h2") == before[2]
    tab.go_back()
    until(tab, "document.querySelector('#list li:nth-child(1) [aria-current]')")
    assert tab.input_value("[name=show]") == "flips"


def test_keys_step_through_what_is_listed_and_leave_fields_alone(visit, viewer):
    tab = opened(visit, viewer, "#show=wrong")
    places = listed(tab)
    def at():
        return int(tab.get_attribute("[aria-current]", "data-at"))
    assert at() == places[0]
    for key, place in (("j", 1), ("ArrowRight", 2), ("k", 1), ("k", 0), ("k", 0)):
        tab.keyboard.press(key)
        assert at() == places[place], (key, place)
    tab.keyboard.press("/")
    tab.keyboard.type("jk")
    assert tab.input_value("[name=q]") == "jk" and tab.evaluate("document.activeElement.name") == "q"
    tab.keyboard.press("Escape")
    assert tab.evaluate("document.activeElement.name") != "q"
    tab.click("button[type=reset]")
    assert tab.locator(".picture i").first.is_visible()
    tab.keyboard.press("e")
    assert not tab.locator(".picture i").first.is_visible()


def test_a_question_shows_its_pictures_its_answer_and_what_every_row_said(visit, viewer):
    tab = opened(visit, viewer, "#n=20&a=Joint+Train&b=Base+model")
    assert tab.inner_text(".asked") == "What is the colour of thing 20?" and tab.inner_text(".options .target").endswith("(the answer)")
    pictures = tab.locator(".picture img")
    assert pictures.count() == 3
    until(tab, "[...document.querySelectorAll('.picture img')].every(one => one.naturalWidth === 96)")
    box, frame = tab.locator(".picture i").bounding_box(), pictures.first.bounding_box()
    assert abs(box["x"] - frame["x"] - frame["width"] / 4) < 3 and abs(box["width"] - frame["width"] / 2) < 3
    first = next(run for run in viewer.mmvp.runs if run.row == "Joint Train").answers[20]
    assert tab.inner_text(".answer pre >> nth=0") == first.response
    assert f"{first.loglik:.3f}".rstrip("0") in tab.inner_text(".answer >> nth=0")
    marks = tab.evaluate("[...document.querySelectorAll('table.all tbody tr')].map(row => [...row.cells].slice(1).map(cell => cell.childElementCount))")
    assert marks == [[1, 0, 0, 0], [3, 1, 1, 1], [3, 1, 1, 1], [3, 1, 1, 1]]
    tab.click("table.all tbody tr:nth-child(2) td:nth-child(3)")
    arrived(tab)
    assert tab.inner_text(".answer h3 >> nth=0") == "First · Stage 1 Only, latents zeroed, seed 0"


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("number", range(len(ODD)))
def test_what_data_and_models_write_is_text_and_stays_inside(visit, viewer, number, width):
    tab = opened(visit, viewer, f"#n={number}", width=width)
    assert tab.title() == "Table 3c: question by question"
    assert tab.locator("#question .asked *, #question pre *, #question bdi *, #list .start *").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= width and tab.evaluate(BEYOND) == []
    assert not set("\x1b\x00\u202e") & set(tab.inner_text("#question"))
    if ODD[number] == RIGHT_TO_LEFT:
        assert tab.evaluate("getComputedStyle(document.querySelector('.asked')).direction") == "rtl"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_written_stands_out(visit, viewer, scheme):
    seen = opened(visit, viewer, "#n=20", scheme=scheme).evaluate(CONTRAST)
    assert len(seen) > 50 and [one for one in seen if one[0] < 4.5] == []


def test_only_what_is_looked_at_is_loaded_and_a_thousand_questions_are_listed_in_parts(visit, viewer):
    tab = opened(visit, viewer, "#column=blink")
    loaded = [url.rpartition("/samples/")[2] for url in visit.requests]
    assert sorted(one for one in loaded if one.endswith(".js")) == ["table3c/blink-0.js", "table3c/blink.js"]
    assert len([one for one in loaded if "/pictures/" in one]) <= 3
    assert len(listed(tab)) == 400
    tab.click("#list .more")
    assert len(listed(tab)) == 1000
    tab.goto(f"{viewer.path.as_uri()}#column=blink&n=950")
    arrived(tab)
    assert len(listed(tab)) > 950 and tab.locator("[aria-current]").count() == 1
    assert viewer.path.stat().st_size < 100_000
    folder = viewer.path.with_suffix("")
    assert (folder / "blink.js").stat().st_size < 1_000_000 and max(part.stat().st_size for part in folder.glob("*-*.js")) < 1_000_000


def test_a_missing_file_is_said_on_the_page(visit, viewer, tmp_path):
    page = tmp_path / "alone.html"
    page.write_text(viewer.path.read_text())
    tab = visit(page)
    tab.wait_for_selector("#question .banner")
    assert tab.inner_text("#question .banner") == "table3c/mmvp.js cannot be read; it belongs beside this page"
    visit.complaints.clear()
