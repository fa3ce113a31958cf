"""A report's page: on a phone, in the dark, on paper, without a network, and with whatever people write."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.outgoing import inert_values
from harness.report import content_of, render, write_index
from harness.report.numbers.study import study_of
from harness.report.sections.build import build
from harness.report.sections.types import Cell, Column, TableRow
from harness.store import Store
from harness.store import store as store_module
from tests.browser.odd import ODD
from tests.harness.report.world import REPOSITORY, fill, make_plan

CONTRAST = """() => {
  const channel = value => (value /= 255) <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const parsed = colour => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const found = parsed(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] > .9) return found;
    }
    return [255, 255, 255];
  };
  const seen = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("script, style")) continue;
    const style = getComputedStyle(element), drawn = element instanceof SVGElement;
    const [a, b] = [light(parsed(drawn ? style.fill : style.color)), light(behind(element))].sort((x, y) => y - x);
    seen.push([(a + .05) / (b + .05), element.tagName + ": " + element.textContent.trim().slice(0, 40)]);
  }
  return seen;
}"""
"""[ratio of WCAG 2, which element] of everything that is written on the page."""
UNFOLDED = "document.querySelectorAll('details.fold').forEach(fold => { fold.open = true; })"
BEYOND = """() => [...document.querySelectorAll("main *")].filter(element => element.checkVisibility() && !element.closest(".pop")
  && !element.parentElement.closest(".scroll, svg") && element.getBoundingClientRect().right > innerWidth + 1)
  .map(element => element.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.files, "sync_file_system", lambda path: None)
    folder = tmp_path_factory.mktemp("pages")
    plan, store = make_plan(folder, n=40), Store(folder / "results")
    fill(store, plan, n=40)
    render(plan, store, folder / "reports", formats=("html",))
    write_index(folder / "reports", REPOSITORY / "experiments")
    patch.undo()
    return plan, store, folder / "reports"


@pytest.fixture(scope="module")
def reports(world):
    return world[2]


@pytest.fixture(scope="module")
def strange(world, tmp_path_factory):
    """The same report with sixty columns and with odd texts wherever a person or a model may write."""
    plan, store, reports = world
    report = build(study_of(plan), store, reports)
    main, *rest = report.sections
    (table,) = main.tables
    columns = tuple(Column(f"{ODD[k % len(ODD)][:60]} {k}", group=f"group {k // 2}") for k in range(60))
    values = (*table.rows[0].cells, *(Cell(f"{k}.0", float(k), "[1.0, 99.0]", note=ODD[k % len(ODD)]) for k in range(54)))
    rows = tuple(TableRow(text, values) for text in ODD)
    wide = replace(table, columns=columns, rows=rows, notes=ODD, caption=" ".join(ODD))
    odd = replace(
        report, title=ODD[3], subtitle=ODD[4], conclusion=" ".join(ODD), warning=ODD[1],
        sections=(replace(main, tables=(wide,), bullets=ODD), *rest),
        chart=replace(report.chart, title=ODD[3], rows=ODD[:4], footer=ODD[4], panels=tuple(
            replace(panel, title=ODD[k + 2], measured=tuple(replace(mark, row=ODD[n]) for n, mark in enumerate(panel.measured)), reported=())
            for k, panel in enumerate(report.chart.panels)
        )),
    )  # fmt: skip
    page = tmp_path_factory.mktemp("odd") / "odd.html"
    page.write_bytes(content_of(inert_values(odd), "html"))
    return page


@pytest.mark.parametrize("name", ["table3c.html", "index.html"])
def test_nothing_is_wider_than_a_phone_folded_or_not(visit, reports, name):
    tab = visit(reports / name, width=400)
    for unfold in ("", UNFOLDED):
        tab.evaluate(unfold)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        assert tab.evaluate(BEYOND) == []


def test_a_phone_keeps_the_rows_names_in_sight_while_it_scrolls_a_table(visit, reports):
    tab = visit(reports / "table3c.html", width=400)
    box = "document.querySelector('table.main-paper').closest('.scroll')"
    assert tab.evaluate(f"{box}.scrollWidth - {box}.clientWidth") > 100
    tab.evaluate(f"{box}.scrollLeft = 100")
    names = tab.locator("table.main-paper tbody th").all()
    assert len(names) == 5 and all(abs(name.bounding_box()["x"] - tab.evaluate(f"{box}.getBoundingClientRect().x")) < 1 for name in names)
    on_top = tab.evaluate("""() => [...document.querySelectorAll('table.main-paper tbody th')].every(name => {
        name.scrollIntoView({block: 'center'});
        const at = name.getBoundingClientRect();
        return name.contains(document.elementFromPoint(at.right - 4, at.top + at.height / 2));
    })""")
    assert on_top, "a number is drawn over a row's name"


def test_a_table_that_scrolls_sideways_says_so_and_one_that_fits_does_not(visit, reports):
    said = """() => [...document.querySelectorAll('.scroll')].filter(box => box.checkVisibility()).map(box => [
        box.scrollWidth > box.clientWidth + 1,
        getComputedStyle(box.querySelector('caption'), '::after').content.includes('scrolls sideways')])"""
    for width in (400, 1280):
        tab = visit(reports / "table3c.html", width=width)
        tab.evaluate(UNFOLDED)
        for _ in range(30):  # on a busy machine the page notices a new size late
            tab.wait_for_timeout(300)
            found = tab.evaluate(said)
            if all(wide == told for wide, told in found):
                break
        assert all(wide == told for wide, told in found), found
        assert [True, True] in found if width == 400 else [False, False] in found


@pytest.mark.parametrize("width", [800, 1000, 1200])
def test_no_word_of_a_claim_is_broken(visit, reports, width):
    tab = visit(reports / "table3c.html", width=width)
    tab.evaluate(UNFOLDED)
    broken = tab.evaluate("""() => {
      const found = [], range = document.createRange();
      const walk = document.createTreeWalker(document.querySelector('table.claims'), NodeFilter.SHOW_TEXT);
      for (let node = walk.nextNode(); node; node = walk.nextNode()) {
        if (node.parentElement.closest('.pop')) continue;
        for (const { 0: word, index } of node.textContent.matchAll(/[A-Za-z]+/g)) {
          range.setStart(node, index); range.setEnd(node, index + word.length);
          if (range.getClientRects().length > 1) found.push(word);
        }
      }
      return found;
    }""")
    assert broken == []


def test_a_phone_sees_whole_captions_and_whole_answers(visit, reports):
    tab = visit(reports / "table3c.html", width=400)
    tab.evaluate(UNFOLDED)
    for part in ("caption", "table.prose td", "table.prose th"):
        for one in tab.locator(part).all():
            if one.is_visible():
                box = one.bounding_box()
                assert box["x"] >= 0 and box["x"] + box["width"] <= 400, one.inner_text()[:60]


def test_a_phone_gets_the_chart_with_one_panel_on_a_line_in_letters_that_can_be_read(visit, reports):
    wide, narrow = (visit(reports / "table3c.html", width=width) for width in (1280, 400))
    for tab, shown, hidden in ((wide, ".wide", ".narrow"), (narrow, ".narrow", ".wide")):
        assert tab.locator(f".chart {shown}").is_visible() and not tab.locator(f".chart {hidden}").is_visible()
        smallest = tab.evaluate(f"Math.min(...[...document.querySelectorAll('.chart {shown} text')].map(one => one.getBoundingClientRect().height))")
        assert smallest >= 8
    assert "Joint Train" in narrow.locator(".chart .narrow").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["table3c.html", "index.html"])
def test_everything_written_stands_out_from_what_is_behind_it(visit, reports, name, scheme):
    tab = visit(reports / name, scheme=scheme)
    tab.evaluate(UNFOLDED)
    seen = tab.evaluate(CONTRAST)
    assert len(seen) > (100 if name == "table3c.html" else 5)
    assert [one for one in seen if one[0] < 4.5] == []


def test_the_dark_page_is_dark_and_so_is_its_chart(visit, reports):
    tab = visit(reports / "table3c.html", scheme="dark")
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, dark[4:-1].split(","))) < 150
    papers = tab.evaluate("[...document.querySelectorAll('.chart .wide svg path')].map(one => getComputedStyle(one).fill)")
    assert dark in papers and "rgb(255, 255, 255)" not in papers


def test_the_page_reads_conclusion_table_chart_answers_and_then_folds(visit, reports):
    tab = visit(reports / "table3c.html")
    parts = [".conclusion", "table.main-paper", ".chart .wide", "table.answers-short", "details.fold"]
    tops = [tab.locator(part).first.bounding_box()["y"] for part in parts]
    assert tops == sorted(tops)
    assert tab.locator("table.main-paper").bounding_box()["y"] < 400, "the table begins on the first screen"
    assert tab.locator("details.fold[open]").count() == 0
    assert tab.locator("table.answers-short tbody tr").last.inner_text().startswith("The paper's own numbers?")


def test_paper_shows_what_is_folded_and_not_what_a_click_opens(visit, reports):
    tab = visit(reports / "table3c.html", scheme="dark")
    tab.locator("table.main-paper summary").first.click()
    assert tab.locator(".pop").first.is_visible()
    tab.emulate_media(media="print", color_scheme="dark")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not tab.locator(".pop").first.is_visible()
    assert tab.locator("table.jobs").is_visible() and tab.locator(".chart .wide").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details.fold[open]").count() == 0


def test_a_cell_opens_beside_itself_inside_the_window_and_closes_by_key(visit, reports):
    tab = visit(reports / "table3c.html", width=400, height=700)
    tab.locator("table.main-paper summary").nth(1).click()
    box = tab.locator("details.cell[open] .pop").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 400 and box["y"] >= 0 and box["y"] + box["height"] <= 700
    tab.keyboard.press("Escape")
    assert tab.locator("details.cell[open]").count() == 0


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_a_sorted_view_has_an_address_and_keeps_missing_values_last(visit, reports, order):
    tab = visit(reports / "table3c.html", fragment=f"#sort=table3c-main-paper:1:{order}")
    values = tab.evaluate("[...document.querySelectorAll('table.main-paper tbody tr')].map(row => row.cells[1].dataset.value)")
    numbers = [float(value) for value in values]
    assert len(numbers) == 5 and numbers == sorted(numbers, reverse=order == "descending")
    assert tab.locator(f"table.main-paper th[aria-sort={order}]").count() == 1


def test_odd_texts_stay_texts_and_sixty_columns_stay_inside_their_box(visit, strange):
    for width in (400, 1280):
        tab = visit(strange, width=width)
        assert tab.title() != "owned" and tab.locator("main img").count() == 0
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(BEYOND) == []
        assert tab.locator("table.main-paper thead tr:last-child th").count() == 61
        assert "\u202e" not in tab.content(), "a direction mark turns what follows it around"


def test_what_slips_into_a_page_does_not_run(visit, reports, tmp_path):
    page = tmp_path / "slipped.html"
    page.write_text((reports / "table3c.html").read_text().replace("<main>", "<main><p id='p' onclick='document.title=1'>x</p>", 1))
    tab = visit(page)
    title = tab.title()
    tab.click("#p")
    tab.evaluate("document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.org/x.png'}))")
    tab.wait_for_timeout(200)
    assert tab.title() == title
    said = "\n".join(visit.complaints)
    assert "inline event handler violates" in said and "https://example.org/x.png' violates" in said
    visit.complaints.clear()


def test_the_index_says_findings_and_is_small(visit, reports):
    tab = visit(reports / "index.html")
    assert (reports / "index.html").stat().st_size < 1_000_000
    assert tab.locator("#table3c").is_visible() and "Differences smaller than about" in tab.inner_text("main")
    tab.click("#table3c a")
    assert tab.title().startswith("Table 3c")
