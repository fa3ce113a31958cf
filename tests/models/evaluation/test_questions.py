"""Questions of every benchmark's mirror, read for people."""

import pytest

from models.evaluation.questions import read_questions
from models.evaluation.tasks import TASKS
from models.proxy.mirrors import write_mirror


@pytest.mark.parametrize("benchmark", sorted(TASKS))
def test_a_mirrors_questions_come_with_pictures_options_a_target_and_their_evidence(benchmark, tmp_path):
    write_mirror(tmp_path, benchmark, n=20, seed=0, split="test")
    for protocol, tasks in TASKS[benchmark].items():
        found = read_questions(tmp_path, benchmark, tasks[0], [2, 0])
        assert sorted(found) == [0, 2], protocol
        one = found[2]
        assert one.text and len(one.options) >= 2 and one.target in "ABCDE"[: len(one.options)]
        assert all(picture.mode == "RGB" for picture in one.images) and one.images
        assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for _, x0, y0, x1, y1 in one.boxes) and one.boxes


def test_a_question_that_is_not_there_and_a_split_that_is_not_there_are_said(tmp_path):
    write_mirror(tmp_path, "mmvp", n=4, seed=0, split="test")
    with pytest.raises(IndexError, match="holds 4 questions, there is no number 9"):
        read_questions(tmp_path, "mmvp", "vr_mmvp", [9])
    with pytest.raises(FileNotFoundError, match="no file of split val, configuration Counting"):
        read_questions(tmp_path, "blink", "vr_blink_counting", [0])
