"""Experiments that show no accuracies: attention maps and the cost of inference, from what their jobs would leave."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from harness.report import paths, render, up_to_date
from harness.report.sections.attention import share
from harness.report.sections.efficiency import Ratio, ratios
from harness.spec.errors import SpecError
from harness.store import Store
from harness.store import store as store_module
from tests.harness.conftest import Desk
from tests.harness.report.world import make_plan

COUNTS = {
    "parameters": 8292166656, "language": 7070619136, "heads": 102832128, "heads_bf16_mib": 196.13671875,
    "step_flops": 14552014848, "step_flops_with_heads": 14552014848, "prefill_flops": 13785787531264, "context": 1024,
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick_disks(monkeypatch):
    monkeypatch.setattr(store_module.files, "sync_file_system", lambda path: None)


def write_maps(out, benchmark):
    """Two pictures of 8 x 8 cells; the teacher looks at the box, the student everywhere alike."""
    (out / "pictures").mkdir()
    box, teacher, arrays, samples = [0.25, 0.25, 0.5, 0.5], np.zeros((8, 8, 8), np.float32), {}, []
    teacher[:, 2:4, 2:4] = 0.25
    alike = np.full((8, 8, 8), 1 / 64, np.float32)
    student = ("student",) if benchmark else ("student_fed", "student_free")
    for number in range(2):
        Image.new("RGB", (64, 64), (40, 90, 160)).save(out / "pictures" / f"{number}.png")
        arrays |= {f"{number}.teacher": teacher} | {f"{number}.{name}": alike for name in student}
        samples.append(
            {
                "picture": f"pictures/{number}.png", "sample": f"s{number}", "grid": [8, 8], "boxes": [box],
                "question": "What colour is the <b>heart</b>?", "answer": "A", "prediction": "B",
                "in_box": {"teacher": 1.0} | dict.fromkeys(student, 0.0625), "box_area": 0.0625,
            }
        )  # fmt: skip
    np.savez_compressed(out / "attention.npz", **arrays)
    (out / "maps.json").write_text(json.dumps({"benchmark": benchmark, "checkpoint": "x", "samples": samples}))


def write_cost(out):
    base = [1.0 + 0.01 * (i % 3) for i in range(12)]
    timing = {"answer": 10, "prompt": 64, "prefill": [0.2] * 12, "baseline": base, "latent": [1.5 * t for t in base]}
    found = {"full_size": COUNTS, "checkpoint": COUNTS, "latent_steps": 8, "timings": [timing], "device": "a processor",
             "threads": 1, "precision": "bf16"}  # fmt: skip
    (out / "measure.json").write_text(json.dumps(found))


def finish(store, plan):
    for job in plan.graph:
        store.ensure(job)
        attempt = store.begin_attempt(job)
        attempt.log.write_text("it ran\n")
        if job.kind == "maps":
            write_maps(attempt.out, job.payload.get("benchmark"))
        elif job.kind == "measure":
            write_cost(attempt.out)
        else:
            (attempt.out / "summary.json").write_text("{}")
        store.publish(attempt, seconds=3.0)


def test_maps_are_planned_beside_no_evaluation_and_share_the_rows_training(tmp_path):
    plan, table = make_plan(tmp_path, table="figures"), make_plan(tmp_path / "other", table="table3c")
    kinds = [job.kind for job in plan.graph]
    assert kinds.count("maps") == 3 and "evaluate" not in kinds and kinds.count("train") == 2
    assert {job.key for job in plan.graph if job.kind == "train"} <= {job.key for job in table.graph}
    assert {cell.column.name for cell in plan.cells} == {"training samples", "mmvp", "hrbench4k"}


def test_attention_is_drawn_and_its_share_in_the_box_stands_beside_even_attention(tmp_path):
    plan, store = make_plan(tmp_path, table="figures"), Store(tmp_path / "results")
    finish(store, plan)
    render(plan, store, tmp_path / "reports")
    page = (tmp_path / "reports" / "figureattention.md").read_text()
    assert "student (DAC) 0.0 [0.0, 0.0]" in page and "while answering HRBench-4K (2 samples)" in page
    assert "by construction" in page, "the teacher sees nothing but the box"
    assert "teacher (BCM) 100.0%" in page and "looking everywhere alike would give 6.2%" in page
    figures = sorted(path.name for path in (tmp_path / "reports" / "figures").iterdir())
    assert len(figures) == 6 and {name.rpartition(".")[2] for name in figures} == {"png", "pdf"}
    with Image.open(tmp_path / "reports" / "figures" / "figureattention-1-training.png") as drawn:
        assert drawn.width > 400 and len(drawn.convert("RGB").getcolors(1 << 20)) > 30
    html = (tmp_path / "reports" / "figureattention.html").read_text()
    assert html.count('src="data:image/jpeg;base64,') == 3 and html.count("<svg viewBox") == 2
    assert "figures/figureattention-1-training.pdf" in html
    assert up_to_date(plan, store, tmp_path / "reports")


def test_the_share_in_a_box_counts_the_cells_that_it_touches():
    values = np.full((4, 4), 1 / 16)
    assert share(values, [[0.25, 0.25, 0.75, 0.75]]) == pytest.approx(4 / 16)
    assert share(values, [[0.3, 0.3, 0.55, 0.45]]) == pytest.approx(2 / 16)


def test_efficiency_stands_beside_what_the_paper_printed(tmp_path):
    plan, store = make_plan(tmp_path, table="table3e"), Store(tmp_path / "results")
    finish(store, plan)
    render(plan, store, tmp_path / "reports")
    page = (tmp_path / "reports" / "table3e.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| Params Overhead"))
    assert "102.83M (+1.45%) | 102.83M (+1.45%)" in line
    assert "196 MB (+1.5%) | 196.14 MiB (+1.24%)" in page
    assert next(line for line in page.splitlines() if line.startswith("| Extra Arch. FLOPs")).endswith("| 0 | 0 | 0 |")
    assert (tmp_path / "reports" / "table3e.png").stat().st_size > 10_000, "a chart, no empty page"
    assert "+50 % [+50, +50]" in page and "The paper's 25 % to 80 % is arithmetic" in page


def test_an_efficiency_table_that_was_not_measured_says_so_beside_the_papers_values(tmp_path):
    plan = make_plan(tmp_path, table="table3e")
    render(plan, Store(tmp_path / "results"), tmp_path / "reports")
    page = (tmp_path / "reports" / "table3e.md").read_text()
    assert "not measured yet" in page and "102.83M (+1.45%) | not run |" in page
    assert all(path.is_file() for path in paths(plan, tmp_path / "reports").values())


def test_a_ratios_interval_covers_the_true_ratio_as_often_as_it_says():
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        base = np.exp(draw.normal(0, 0.1, 10))
        found = Ratio.of(list(1.3 * base * np.exp(draw.normal(0, 0.05, 10))), list(base))
        hits += found.interval.low <= 1.3 <= found.interval.high
    assert 0.92 <= hits / 400 <= 0.98
    whole, decoding = ratios({"prefill": [0.5] * 3, "baseline": [1.0, 1.01, 0.99], "latent": [1.2, 1.21, 1.19]})
    assert whole.value == pytest.approx(1.2, abs=0.01) and decoding.value == pytest.approx(1.4, abs=0.01)


def test_an_experiment_shows_columns_or_maps_or_costs(desk: Desk):
    from harness.spec.files import load_experiment

    desk.table(("columns: [mmvp, hrbench4k, blink]\n", "columns: [mmvp, hrbench4k, blink]\nmaps: {benchmarks: [mmvp]}\n"))
    with pytest.raises(SpecError, match="needs one of columns, maps, measure; it has columns and maps"):
        load_experiment(desk.folder / "table.yaml")
