"""What a report says of questions that were answered without the zooming that a row asks for."""

from types import SimpleNamespace

import pandas as pd
import pytest

from harness.report.sections.tables import unzoomed

NO = float("nan")


def results(**evaluations):
    """A column's rows, each with (job, unzoomed by question) for every seed."""

    def found(row, column, protocol):
        measured = [
            SimpleNamespace(
                frame=pd.DataFrame({"id": [("task", k) for k in range(len(values))], "groups": [{}] * len(values), "unzoomed": values}),
                evaluation=SimpleNamespace(job=SimpleNamespace(key12=job)),
            )
            for job, values in evaluations[row]
        ]
        return SimpleNamespace(measured=measured, score=SimpleNamespace(keeps=lambda sample: True))

    return SimpleNamespace(measured_rows=lambda column, protocol: list(evaluations), found=found)


@pytest.mark.parametrize(
    "evaluations, said",
    [
        ([("a", [1.0, 0.0, 1.0])] * 3, "2 of 3 questions"),
        ([("a", [1.0, 0.0, 1.0]), ("b", [0.0, 0.0, 0.0])], "2 of 6 questions"),
    ],
    ids=["one evaluation for all seeds is counted once", "of two seeds both are counted"],
)
def test_questions_without_zooming_are_counted(evaluations, said):
    assert unzoomed(results(Zooming=evaluations, Base=[("c", [NO, NO, NO])]), "mmvp", "paper").startswith(f"; Zooming: {said} were answered")


def test_rows_that_do_not_zoom_say_nothing():
    assert unzoomed(results(Base=[("c", [NO, NO, NO])]), "mmvp", "paper") == ""
