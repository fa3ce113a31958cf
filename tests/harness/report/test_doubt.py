"""What a report says where little can be shown: few questions, missing seeds, differences that are not shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.report import render
from harness.store import Store
from harness.store import store as store_module
from tests.harness.report.world import fill, make_plan


@pytest.fixture(scope="module", autouse=True)
def quick_disks():
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.files, "sync_file_system", lambda path: None)
    yield
    patch.undo()


def page(folder: Path, *, skip: tuple[str, ...] = (), n: int = 40, **options) -> str:
    plan, store = make_plan(folder, n=n, **options), Store(folder / "results")
    fill(store, plan, n=n, skip=skip)
    render(plan, store, folder / "reports", formats=("md",))
    return next((folder / "reports").glob("*.md")).read_text()


def test_no_report_names_a_gap_that_shares_cannot_have(tmp_path):
    made = page(tmp_path, n=4)
    assert re.search(r"On [^.]*MMVP[^.]* no difference of any size could have been shown\.", made.partition("<details>")[0])
    assert "between these trained models, among 21 tests: none of any size on MMVP" in made
    assert all(float(gap.replace(",", "")) <= 100 for gap in re.findall(r"([\d.,]+) points on", made))


def test_pairs_over_fewer_seeds_than_the_others_are_named_and_one_seed_says_nothing_of_recipes(tmp_path):
    made = page(tmp_path, seeds=3, skip=("joint-seed2-mmvp-paper", "stage1-seed1-hrbench4k-paper", "stage1-seed2-hrbench4k-paper"))
    assert "- Over 2 seeds that both rows have, not 3: Joint Train − Two-stage (Ours) on MMVP and Joint Train − Base model on MMVP." in made
    assert (
        "- Over 1 seed that both rows have, not 3; the difference, its interval and p are of these trained models, not of recipes: "
        "Stage 1 Only − Two-stage (Ours) on HRBench-4K and Stage 1 Only − Base model on HRBench-4K."
    ) in made
    assert "that both rows have, not" not in page(tmp_path / "all", seeds=2)


def test_a_difference_that_is_not_shown_has_its_p_beside_the_uncorrected_interval(tmp_path):
    made = page(tmp_path)
    (largest,) = re.findall(r"No declared pair is shown to differ .*?largest: [^;]*?(\], p [=<] [\d.]+)\)", made)
    assert largest
    unshown = re.findall(r"no shown change \(largest: [^)]*\)", made.replace("(Ours)", "Ours"))
    assert unshown and all(re.search(r"\], p = \d\.\d+\)$", one) for one in unshown)
    assert "accuracy changes in" not in made and "accuracy is shown to change when" in made


def test_a_claim_about_a_number_and_its_cell_say_the_same(tmp_path):
    made = page(tmp_path, proxy=False, n=300)
    claims = [line for line in made.splitlines() if line.startswith(("| Joint Train = 70.2", "| Stage 2 Only = 68.4"))]
    assert len(claims) == 2, "the paper's words about two numbers that are no k/300"
    assert all("| not judged |" in line and "reported value not from one run" in line for line in claims)
    assert "fails, one seed" not in made


def test_whether_there_is_room_is_answered_by_the_interval_that_the_details_are_read_from(tmp_path):
    made = page(tmp_path, n=200)
    base, *_ = re.findall(r"\| Base model \(not a row of the paper\) \| ([\d.]+) \[([\d.]+), [\d.]+\]", made)
    assert float(base[0]) >= 60 > float(base[1]), "10 points above guessing as estimated, not as shown"
    assert re.search(rf"\| Room\? \| .*Not shown on MMVP \(base {base[0]} \[{base[1]}, [\d.]+\], guessing 50\.0\)", made)
    assert "is not shown to be 10 points above guessing on MMVP" in made
