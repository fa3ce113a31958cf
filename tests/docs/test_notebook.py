"""The notebook of the documentation runs from the first cell to the last."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

from harness.frames import experiment
from harness.plan import plan_experiment
from harness.store import Store
from tests.docs.pages import DOCS
from tests.harness.report.world import fill, make_plan

NOTEBOOK = DOCS / "notebook.ipynb"
FOLDERS = 'RESULTS, PROFILE = "../results", "proxy"'


@pytest.fixture
def results(tmp_path):
    """A finished Table 3(c) with invented answers, and the profile it was made with."""
    make_plan(tmp_path, n=60, seeds=2)
    plan, store = plan_experiment(experiment("3c"), str(tmp_path / "invented.yaml")), Store(tmp_path / "results")
    fill(store, plan, n=60)
    for job in plan.graph:
        if job.kind == "train":
            lines = [{"step": step, "total": 3, "values": {"loss": 2.0 / step}} for step in (1, 2, 3)]
            store.attempts(job)[-1].metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return store.root, tmp_path / "invented.yaml"


def test_the_notebook_runs_to_its_end_and_shows_tables_and_a_figure(results):
    root, profile = results
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    [first, *_] = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert first.source == FOLDERS
    first.source = f"RESULTS, PROFILE = {str(root)!r}, {str(profile)!r}"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(DOCS)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    tables = [output.data["text/plain"] for output in shown if "text/html" in output.get("data", {})]
    assert len(tables) == 3 and all("Two-stage (Ours)" in text for text in tables)
    assert sum("image/png" in output.get("data", {}) for output in shown) == 1
    assert not [output for output in shown if output.output_type == "stream" and output.name == "stderr"]


def test_the_notebook_is_kept_without_results():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)
