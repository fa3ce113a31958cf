"""What a report says of clips whose frame rate varies, and of picture files that are cut off; of clips that are marked as rotated."""

from types import SimpleNamespace

import pandas as pd

from harness.report.sections.tables import named_by_mirror

NAMED = frozenset({("task", 0), ("task", 2), ("other", 1)})


def results(what, named=NAMED, **clips):
    """One evaluation of three questions for each row. what: the mirror names them for. clips: `Clips` of each row."""

    def found(row, column, protocol):
        job = SimpleNamespace(key12=row, payload={"clips": clips[row] or {}})
        frame = pd.DataFrame({"id": [("task", k) for k in range(3)], "groups": [{}] * 3})
        one = SimpleNamespace(frame=frame, evaluation=SimpleNamespace(job=job))
        return SimpleNamespace(measured=[one], score=SimpleNamespace(where={}, keeps=lambda sample: True))

    return SimpleNamespace(
        measured_rows=lambda column, protocol: list(clips), found=found, reader=SimpleNamespace(named_by_mirror=lambda job, names: {name: named if name == what else frozenset() for name in names}),
    )  # fmt: skip


def test_questions_about_them_are_counted_once_for_all_rows():
    said = named_by_mirror(results("uneven", Base=None, Tuned={"times": "rate"}), "mlvu", "paper")
    assert said.startswith("; 2 questions about clips with a variable frame rate, whose frames are evenly spaced by frame number")
    assert said.count("questions") == 1


def test_rows_that_read_them_otherwise_are_told_apart():
    said = named_by_mirror(results("uneven", Base=None, True_times={"times": "stamps"}), "mlvu", "paper")
    assert "; Base: 2 questions" in said and "; True_times: 2 questions about clips with a variable frame rate, whose frames are evenly spaced in time" in said


def test_rows_that_read_them_alike_are_named_together():
    said = named_by_mirror(results("uneven", Base=None, True_times={"times": "stamps"}, Tuned=None), "mlvu", "paper")
    assert said.startswith("; Base and Tuned: 2 questions") and "; True_times: 2 questions" in said and said.count("questions") == 2


def test_of_clips_marked_as_rotated_it_is_said_how_each_row_sees_them():
    said = named_by_mirror(results("rotated", Base=None, Turned={"orientation": "upright"}), "mlvu", "paper")
    assert "; Base: 2 questions about clips that their container marks as rotated, seen unrotated (rotated in the mirror's summary.json)" in said
    assert "; Turned: 2 questions about clips that their container marks as rotated, rotated as it says (" in said


def test_nothing_is_said_where_there_is_none():
    assert named_by_mirror(results("uneven", frozenset(), Base=None), "mlvu", "paper") == ""
    assert named_by_mirror(results("uneven", frozenset({("other", 1)}), Base=None), "mlvu", "paper") == ""


def test_cut_off_pictures_are_counted_once_and_the_first_named():
    said = named_by_mirror(results("cut_off", Base=None, Tuned=None), "pope", "paper")
    assert said.startswith("; 2 questions with a picture file that is cut off or damaged, read with its missing part blank, as by lmms-eval: task 0, task 2 (")
    assert said.count("questions") == 1
    many = frozenset(("task", k) for k in range(5))
    assert "lmms-eval: task 0, task 1, task 2 (" in named_by_mirror(results("cut_off", many, Base=None), "pope", "paper"), "of three that are counted here"
    assert named_by_mirror(results("cut_off", frozenset({("other", 1)}), Base=None), "pope", "paper") == ""
