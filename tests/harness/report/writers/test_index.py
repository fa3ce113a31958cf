"""The index says what was found, table by table."""

from __future__ import annotations

import html
import re
import shutil

import pytest

from harness.report import render, up_to_date, write_index
from harness.report.writers.index import read_article
from harness.store import Store
from harness.store import store as store_module
from tests.harness.report.test_report import Page
from tests.harness.report.world import REPOSITORY, fill, make_plan

EXPERIMENTS = REPOSITORY / "experiments"
SPECS = len(list(EXPERIMENTS.glob("*.yaml")))


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Tables 3c (done) and 4 (nothing done), and an overridden 3c; one page over them."""
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.files, "sync_file_system", lambda path: None)
    folder = tmp_path_factory.mktemp("index")
    store = Store(folder / "results")
    done = make_plan(folder, n=40)
    fill(store, done, n=40)
    for plan in (done, make_plan(folder, n=40, table="table4"), make_plan(folder, n=40, overrides=["stage1.p=0.3"])):
        render(plan, store, folder / "reports", formats=("html",))
    write_index(folder / "reports", EXPERIMENTS)
    patch.undo()
    return folder / "reports"


def test_the_index_holds_the_rendered_tables_and_names_the_others(reports):
    page = (reports / "index.html").read_text()
    assert '<dt id="table3c">' in page and '<dt id="table4">' in page
    assert page.index('id="table3c"') < page.index('id="table4"')
    assert page.count("<li>Table") + page.count("<li>Figure") + page.count("<li>Controls") == SPECS - 2
    assert "<code>run.py experiments/table1.yaml</code>" in page


def test_an_overridden_report_is_linked_and_not_among_the_papers_tables(reports):
    page = (reports / "index.html").read_text()
    assert len(re.findall("<dt ", page)) == 2
    assert re.search(r'not among the paper.s tables: <a href="table3c-overridden-\w+\.html">', page)


def test_the_index_shows_each_conclusion_and_leads_to_the_page_behind_it(reports):
    page = html.unescape((reports / "index.html").read_text())
    article = read_article(reports / "table3c.html")
    assert article.finding.startswith("This run") and article.finding in page and 'href="table3c.html"' in page
    assert (article.missing, article.contradicted, article.seeds, article.paper) == (0, 0, 1, True)
    assert read_article(reports / "table4.html").missing and "cells without a value" in page
    assert len(page) < 50_000


def test_a_cell_of_a_page_leads_to_its_job_its_log_and_its_samples(reports):
    page = (reports / "table3c.html").read_text()
    for name in ("log", "samples.jsonl"):
        (address, *_rest) = [a for a in re.findall(r'href="([^"]+)"', page) if a.endswith(name)]
        assert (reports / address).is_file()


def test_the_index_says_findings_and_counts_only_what_is_missing_or_wrong(reports, tmp_path):
    page = html.unescape((reports / "index.html").read_text())
    assert "Differences smaller than about" in page and "12 of 12 cells" not in page and "contradict" not in page
    shutil.copytree(reports, tmp_path / "reports")
    table = tmp_path / "reports" / "table3c.html"
    table.write_text(table.read_text().replace('"contradicted": 0', '"contradicted": 2').replace("report-fingerprint: ", "report-fingerprint: 0", 1))
    write_index(tmp_path / "reports", EXPERIMENTS)
    assert "the paper's own numbers contradict 2 of its claims" in html.unescape((tmp_path / "reports" / "index.html").read_text())


def test_a_report_of_one_seed_links_to_the_same_table_with_more_where_it_exists(tmp_path):
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.files, "sync_file_system", lambda path: None)
    store = Store(tmp_path / "results")
    one, three = make_plan(tmp_path, n=24), make_plan(tmp_path, n=24, seeds=3)
    fill(store, three, n=24)
    patch.undo()
    for folder, other, address in (("", "three", "three/table3c.html"), ("one", "", "../table3c.html")):
        root = tmp_path / f"reports-{folder}"
        single, more = root / folder, root / other
        render(one, store, single)
        assert up_to_date(one, store, single) and read_article(single / "table3c.html").links == {}
        render(three, store, more, formats=("html",))
        assert not up_to_date(one, store, single), "the link is missing"
        render(one, store, single)
        assert up_to_date(one, store, single)
        page = (single / "table3c.html").read_text()
        assert f'<a href="{address}">The same table with 3 seeds</a>' in page and (single / address).is_file()
        assert f"[The same table with 3 seeds]({address.removesuffix('.html')}.md)" in (single / "table3c.md").read_text()
        assert read_article(more / "table3c.html").links == {}, "not the other way round"


def test_a_page_of_an_earlier_version_is_left_out_until_it_is_drawn_again(reports, tmp_path):
    page = tmp_path / "table3c.html"
    page.write_text((reports / "table3c.html").read_text().replace('"contradicted":', '"holding":', 1))
    assert read_article(page) is None


def test_the_index_is_well_formed_loads_nothing_and_names_each_table_once(reports):
    text = (reports / "index.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == [] and all(source.startswith("data:") for source in page.loads)
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(names) == len(set(names))


def test_the_index_is_written_again_only_when_a_page_changed(reports, tmp_path):
    folder = tmp_path / "reports"
    shutil.copytree(reports, folder)
    assert write_index(folder, EXPERIMENTS)[1] is False
    (folder / "table4.html").unlink()
    assert write_index(folder, EXPERIMENTS)[1] is True
    assert "<li>Table 4: " in (folder / "index.html").read_text()


def test_a_folder_of_reports_below_is_named_with_its_tables(reports, tmp_path):
    folder = tmp_path / "reports"
    shutil.copytree(reports, folder)
    (folder / "figures").mkdir()
    (folder / "three seeds").mkdir()
    shutil.copy(reports / "table3c.html", folder / "three seeds")
    assert write_index(folder, EXPERIMENTS)[1] is False, "not yet a folder with an index"
    write_index(folder / "three seeds", EXPERIMENTS)
    assert write_index(folder, EXPERIMENTS)[1] is True
    page = (folder / "index.html").read_text()
    links = '<a href="three%20seeds/index.html">three seeds</a> (<a href="three%20seeds/table3c.html">Table 3c</a>).'
    assert f"<li>Also: {links}</li>" in page
    below = folder / "three seeds" / "table3c.html"
    below.write_text(below.read_text().replace("report-fingerprint: ", "report-fingerprint: 0", 1))
    assert write_index(folder, EXPERIMENTS)[1] is True, "a page below was drawn again"
    assert write_index(folder, EXPERIMENTS)[1] is False
