"""What a report says of clips whose frame rate varies, and of picture files that are cut off."""

from types import SimpleNamespace

import pandas as pd

from harness.report.sections.tables import cut_off, uneven

NAMED = frozenset({("task", 0), ("task", 2), ("other", 1)})


def results(named=NAMED, **times):
    """One evaluation of three questions for each row. times: `Clips.times` of each."""

    def found(row, column, protocol):
        job = SimpleNamespace(key12=row, payload={"clips": {"times": times[row]} if times[row] else {}})
        frame = pd.DataFrame({"id": [("task", k) for k in range(3)], "groups": [{}] * 3})
        one = SimpleNamespace(frame=frame, evaluation=SimpleNamespace(job=job))
        return SimpleNamespace(measured=[one], score=SimpleNamespace(where={}, keeps=lambda sample: True))

    return SimpleNamespace(
        measured_rows=lambda column, protocol: list(times), found=found, reader=SimpleNamespace(uneven=lambda job: named, cut_off=lambda job: named),
    )  # fmt: skip


def test_questions_about_them_are_counted_once_for_all_rows():
    said = uneven(results(Base=None, Tuned="rate"), "mlvu", "paper")
    assert said.startswith("; 2 questions about clips with a variable frame rate, whose frames are evenly spaced by frame number")
    assert said.count("questions") == 1


def test_rows_that_read_them_otherwise_are_told_apart():
    said = uneven(results(Base=None, True_times="stamps"), "mlvu", "paper")
    assert "; Base: 2 questions" in said and "; True_times: 2 questions about clips with a variable frame rate, whose frames are evenly spaced in time" in said


def test_nothing_is_said_where_there_is_none():
    assert uneven(results(frozenset(), Base=None), "mlvu", "paper") == ""
    assert uneven(results(frozenset({("other", 1)}), Base=None), "mlvu", "paper") == ""


def test_cut_off_pictures_are_counted_once_and_the_first_named():
    said = cut_off(results(Base=None, Tuned=None), "pope", "paper")
    assert said.startswith("; 2 questions with a picture file that is cut off or damaged, read with its missing part blank, as by lmms-eval: task 0, task 2 (")
    assert said.count("questions") == 1
    many = frozenset(("task", k) for k in range(5))
    assert "lmms-eval: task 0, task 1, task 2 (" in cut_off(results(many, Base=None), "pope", "paper"), "of three that are counted here"
    assert cut_off(results(frozenset({("other", 1)}), Base=None), "pope", "paper") == ""
