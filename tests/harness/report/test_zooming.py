"""What a report says of questions that were answered without the zooming that a row asks for."""

from types import SimpleNamespace

import pandas as pd
import pytest

from harness.report.sections import conclusion
from harness.report.sections.tables import unzoomed
from models.evaluation.boxes import SEVERAL

NO, BOX, MANY = None, "no box in the answer", SEVERAL


def results(**evaluations):
    """A column's rows, each with (job, by question why it was not zoomed: "" if it was, None where nothing zooms) for every seed."""

    def found(row, column, protocol):
        measured = [
            SimpleNamespace(
                frame=pd.DataFrame({
                    "id": [("task", k) for k in range(len(values))], "groups": [{}] * len(values), "whole": [why or "" for why in values],
                    "unzoomed": [float("nan") if why is None else float(why != "") for why in values],
                }),
                evaluation=SimpleNamespace(job=SimpleNamespace(key12=job)),
            )
            for job, values in evaluations[row]
        ]
        return SimpleNamespace(measured=measured, score=SimpleNamespace(where={}, keeps=lambda sample: True))

    return SimpleNamespace(measured_rows=lambda column, protocol: list(evaluations), found=found)


@pytest.mark.parametrize(
    "evaluations, said",
    [
        ([("a", [BOX, "", BOX])] * 3, "2 of 3 questions were answered without zooming, for want of a usable box or span (zoom"),
        ([("a", [BOX, "", BOX]), ("b", ["", "", ""])], "2 of 6 questions were answered without zooming, for want of a usable box or span (zoom"),
        ([("a", [BOX, MANY, ""])], "2 of 3 questions were answered without zooming, 1 as they show several pictures, the others for want of a usable box"),
        ([("a", [MANY, MANY, ""])], "2 of 3 questions were answered without zooming, 2 as they show several pictures (zoom"),
    ],
    ids=["one evaluation for all seeds is counted once", "of two seeds both are counted", "several pictures are told apart", "and alone"],
)
def test_questions_without_zooming_are_counted(evaluations, said):
    assert unzoomed(results(Zooming=evaluations, Base=[("c", [NO, NO, NO])]), "mmvp", "paper").startswith(f"; Zooming: {said}")


def test_rows_that_do_not_zoom_say_nothing():
    assert unzoomed(results(Base=[("c", [NO, NO, NO])]), "mmvp", "paper") == ""


def test_what_zooming_alone_gains_is_not_put_down_to_training(monkeypatch):
    pairs = {("Zooming", "Base", "mmvp"): SimpleNamespace(difference=9.0), ("Tuned", "Base", "mmvp"): SimpleNamespace(difference=1.0)}
    adjusted = {("Zooming", "Base", "mmvp"): 0.01, ("Tuned", "Base", "mmvp"): 0.9}
    tested = SimpleNamespace(pairs=pairs, family=SimpleNamespace(adjusted=adjusted))
    for name, value in {"declared": tested, "base_row": "Base", "difference": "+9.0"}.items():
        monkeypatch.setattr(conclusion, name, lambda _, value=value: value)
    arms = {row: SimpleNamespace(row=SimpleNamespace(stages=stages)) for row, stages in {"Zooming": [], "Tuned": ["reflect"]}.items()}
    of = SimpleNamespace(arms=arms, title=str)
    assert conclusion.taught(of) == "Undetermined: 0 of 1 cell are above the base model, 0 below."
    assert conclusion.against_base(of) == "1 of 2 cells is above the base model, 0 below, largest Zooming on mmvp +9.0."
