"""NExT-GQA's own files as training data of clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.config import ExternalTraining, TrainingSet
from models.evaluation.tasks.paper import INSTRUCTION
from models.methods.visreflect.clues import CluePieces
from models.methods.visreflect.spec import ClueFrames
from models.schema import Clips
from models.training import nextgqa
from models.training.data import DataError, read_samples
from models.training.external import check_pictures, look, prepare
from tests.films import write_timed
from tests.models.training.conftest import SMALL
from tests.models.training.test_video_stage import write_clip

HEADER = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"
CALLS = "8,56,56,what does the dog do after the call,sit down,{},TN,run away,sit down,bark,sleep,eat"
"""A question's line behind its video, for `format` with the question's id."""


def write(folder: Path, lines: list[str], spans: dict[str, Any], places: dict[str, str] | None) -> Path:
    """The published layout: csv, gsub and map in one folder, clips in VidOR's folders. The clips `1` and `2` last 4 s and 6 s."""
    questions = folder / "nextgqa"
    questions.mkdir()
    (questions / "val.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    (questions / "gsub_val.json").write_text(json.dumps({v: {"duration": 6, "location": at, "fps": 2} for v, at in spans.items()}))
    if places is not None:
        (questions / "map_vid_vidorID.json").write_text(json.dumps(places))
    for number, name in enumerate(("0101/1", "1164/2") if places is not None else ("1", "2")):
        path = folder / f"NExTVideo/{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(".mkv")
        write_clip(made, 8 + 4 * number, number)
        made.rename(path)
    meta = [{"ds_name": "nextgqa", "data_path": "nextgqa/val.csv", "image_folder": "NExTVideo", "ds_type": "nextgqa"}]
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


PLACES = {"1": "0101/1", "2": "1164/2"}


def rejected(folder: Path) -> list[tuple[int, str, str]]:
    lines = map(json.loads, (folder / "rejected.jsonl").read_text().splitlines())
    return [(line["entry"], line["reason"], line["detail"]) for line in lines]


def test_a_question_becomes_a_record_as_the_release_asks_and_answers(tmp_path: Path) -> None:
    write(tmp_path, [f"1,{CALLS.format(3)}", f"2,{CALLS.format(0)}"], {"1": {"3": [[1.2, 2.5]]}, "2": {"0": [[0, 1.5], [4, 5]]}}, PLACES)
    samples = read_samples(tmp_path)
    assert [samples[k].spans for k in range(2)] == [((1.2, 2.5),), ((0.0, 1.5), (4.0, 5.0))]
    first = samples[0]
    assert first.images[0].path == tmp_path / "NExTVideo/0101/1.mp4" and first.images[0].key == "nextgqa/0101/1.mp4"
    question, answer = (turn["value"] for turn in first.conversations)
    assert question == (
        "<video>what does the dog do after the call\nA. run away\nB. sit down\nC. bark\nD. sleep\nE. eat"
        "\nAnswer with the option's letter from the given choices directly."
    )
    assert answer == "The answer is: B"
    assert nextgqa.INSTRUCTION == INSTRUCTION


def test_every_line_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    lines = [
        f"1,{CALLS.format(0)}",
        "1,8,56,56,too few cells",
        f"1,{CALLS.format(1).replace(',sit down,1', ',1,1')}",  # the option's number, as in NExT-QA
        f"1,{CALLS.format(2).replace('bark', 'sit down')}",
        f"1,{CALLS.format(3).replace('sleep', ' ')}",
        f"1,{CALLS.format(4)}",
        f"1,{CALLS.format(5)}",
        f"9,{CALLS.format(0)}",
        f"3,{CALLS.format(0)}",
        f"1,{CALLS.format(6)}",
        '1,8,56,56,"a quote that is not closed',
        "",
        f"1,{CALLS.format(7)}",
        " \t",
    ]
    spans = {"0": [[1, 2]], "1": [[1, 2]], "2": [[1, 2]], "3": [[1, 2]], "5": [], "6": [[4.5, 5]], "7": [[1, "late"]]}
    write(tmp_path, lines, {"1": spans, "9": {"0": [[0, 1]]}, "3": {"0": [[0, 1]]}}, PLACES | {"3": "0000/3"})
    samples = read_samples(tmp_path, report=tmp_path / "report")
    assert [samples.name(k) for k in range(len(samples))] == ["nextgqa:0"]
    found = rejected(tmp_path / "report")
    expected = [
        (1, "malformed entry", "line 3: 5 cells for 13 columns"),
        (2, "malformed entry", "line 4, field 'answer': '1' is 0 of the five options"),
        (3, "malformed entry", "line 5, field 'answer': 'sit down' is 2 of the five options"),
        (4, "malformed entry", "line 6: field 'a3' is empty"),
        (5, "bad span", "line 7: gsub_val.json has no span of video 1, question 4"),
        (6, "bad span", "line 8: gsub_val.json has no span of video 1, question 5"),
        (7, "missing clip", "line 9, field 'video_id': map_vid_vidorID.json has no place of 9"),
        (8, "missing clip", f"{tmp_path}/NExTVideo/0000/3.mp4"),
        (9, "bad span", "[4.5, 5] begins when the clip, which is 4.00 s long, is over"),
        (10, "malformed entry", "line 12: not UTF-8, or a quote that is not closed"),
        (12, "bad span", "temporal_span [[1, 'late']]"),
    ]
    assert [(entry, reason) for entry, reason, _ in found] == [(entry, reason) for entry, reason, _ in expected]
    for (_, _, said), (_, _, words) in zip(found, expected, strict=True):
        assert words in said
    assert samples.summary.rows == 12, "blank lines are no rows"


def test_behind_a_blank_line_samples_are_read_and_named_by_their_lines(tmp_path: Path) -> None:
    write(tmp_path, ["", f"1,{CALLS.format(0)}", "  ", f"2,{CALLS.format(1)}"], {"1": {"0": [[1, 2]]}, "2": {"1": [[0, 1]]}}, PLACES)
    samples = read_samples(tmp_path)
    assert [samples.name(k) for k in range(len(samples))] == ["nextgqa:1", "nextgqa:3"] and not samples.summary.rejected
    assert [samples[k].spans for k in range(2)] == [((1.0, 2.0),), ((0.0, 1.0),)]


def test_spans_that_end_behind_the_clip_or_have_no_length_are_used_and_named(tmp_path: Path) -> None:
    """One in 26 of NExT-GQA's ends behind its clip, whose length is written there in whole seconds."""
    lines = [f"1,{CALLS.format(qid)}" for qid in range(3)]
    write(tmp_path, lines, {"1": {"0": [[1, 2]], "1": [[3.2, 5]], "2": [[1, 1]]}}, None)
    samples = read_samples(tmp_path, report=tmp_path / "report")
    assert len(samples) == 3 and samples[1].images[0].path == tmp_path / "NExTVideo/1.mp4"
    assert samples.summary.mended == {"span cut at the end of its clip": 1, "span without length, shown by one frame": 1}
    mended = [json.loads(line)["entry"] for line in (tmp_path / "report/mended.jsonl").read_text().splitlines()]
    assert mended == [1, 2]


def test_other_spans_or_another_map_are_other_data(tmp_path: Path) -> None:
    write(tmp_path, [f"1,{CALLS.format(0)}"], {"1": {"0": [[1, 2]]}}, PLACES)
    spec = ExternalTraining(meta=str(tmp_path / "meta.json"), revision="nextgqa")
    before = look(spec)
    assert len([file for file in before.files if "nextgqa" in file]) == 3
    spans = tmp_path / "nextgqa/gsub_val.json"
    spans.write_text(spans.read_text().replace("[1, 2]", "[1, 3]"))
    assert look(spec).digest != before.digest


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gsub_val.json", None, "gsub_val.json: no such file, and val.csv has no spans without it"),
        ("gsub_val.json", "[", "gsub_val.json: not valid JSON"),
        ("map_vid_vidorID.json", "[]", "map_vid_vidorID.json: expected an object"),
        ("val.csv", "video,question\n", "val.csv: line 1: no column 'video_id', 'answer'"),
    ],
)
def test_a_file_that_is_not_as_published_is_one_line(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    write(tmp_path, [f"1,{CALLS.format(0)}"], {"1": {"0": [[1, 2]]}}, PLACES)
    file = tmp_path / "nextgqa" / name
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(DataError, match=words) as error:
        read_samples(tmp_path)
    assert "\n" not in str(error.value)


def test_a_clip_whose_frame_rate_varies_is_used_and_named_for_its_spans_are_read_by_the_mean_rate(base: Path, tmp_path: Path) -> None:
    write(tmp_path, [f"1,{CALLS.format(0)}", f"2,{CALLS.format(0)}"], {"1": {"0": [[0.2, 0.6]]}, "2": {"0": [[2, 3]]}}, PLACES)
    write_timed(tmp_path / "NExTVideo/0101/1.mp4", [*(k / 10 for k in range(20)), *range(2, 10)], size=(56, 56))
    out = tmp_path / "out"
    out.mkdir()
    counts = prepare(out, tmp_path / "meta.json", TrainingSet(images=SMALL), base)
    assert counts["samples"] == 2 and counts["mended"] == {"variable frame rate: spans are read by the mean rate": 1}
    assert [json.loads(line)["entry"] for line in (out / "mended.jsonl").read_text().splitlines()] == [0]


def test_spans_are_read_by_the_frames_own_times_where_the_recipe_says_so(base: Path, tmp_path: Path) -> None:
    write(tmp_path, [f"1,{CALLS.format(0)}", f"2,{CALLS.format(0)}"], {"1": {"0": [[5, 7]]}, "2": {"0": [[2, 3]]}}, PLACES)
    write_timed(tmp_path / "NExTVideo/0101/1.mp4", [*(k / 10 for k in range(20)), *range(2, 10)], size=(56, 56))
    clues = CluePieces(ClueFrames(most=3, min_tokens=1, max_tokens=4))
    numbers = {}
    for times in ("rate", "stamps"):
        clips = Clips(times=times)
        (out := tmp_path / times).mkdir()
        counts = prepare(out, tmp_path / "meta.json", TrainingSet(images=SMALL, clips=clips), base)
        assert counts["samples"] == 2
        samples = read_samples(out, clips=clips)
        numbers[times] = [[clue.number for clue in clues.of(samples[k])] for k in range(2)]
    assert counts["mended"] == {"variable frame rate: frames are read by their own times": 1}
    assert numbers["stamps"][0] == [23, 24, 25] and numbers["rate"][0][-1] < 23, "the frames that begin after 5, 6 and 7 s"
    assert numbers["stamps"][1] == numbers["rate"][1], "of a clip of one rate"


def test_a_span_behind_the_end_only_by_a_wrong_rate_of_the_container_says_so_and_is_read_by_times(base: Path, tmp_path: Path) -> None:
    write(tmp_path, [f"1,{CALLS.format(0)}", f"2,{CALLS.format(0)}"], {"1": {"0": [[1, 2]]}, "2": {"0": [[2, 3]]}}, PLACES)
    wrong = write_timed(tmp_path / "wrong.mkv", [k / 10 for k in range(40)], rate=1000, size=(56, 56))
    wrong.rename(tmp_path / "NExTVideo/0101/1.mp4")
    assert look(ExternalTraining(meta=str(tmp_path / "meta.json"), revision="nextgqa")).summary.samples == 2
    for times in ("rate", "stamps"):
        (out := tmp_path / times).mkdir()
        spec = TrainingSet(images=SMALL, clips=Clips(times=times), min_usable=0.5)
        assert prepare(out, tmp_path / "meta.json", spec, base)["samples"] == {"rate": 1, "stamps": 2}[times]
    ((entry, reason, detail),) = rejected(tmp_path / "rate")
    assert (entry, reason) == (0, "bad span")
    assert detail == (
        "[1, 2] lies in the clip, which is 3.90 s long, but its container states 40 frames at 1000 a second, which take 0.04 s; "
        "clips.times: stamps reads the frames' own times"
    )


def test_the_data_job_indexes_them_and_training_reads_the_index(base: Path, tmp_path: Path) -> None:
    write(tmp_path, [f"1,{CALLS.format(0)}", f"2,{CALLS.format(0)}"], {"1": {"0": [[1, 2]]}, "2": {"0": [[2, 3]]}}, PLACES)
    (tmp_path / "NExTVideo/1164/2.mp4").write_bytes(b"no clip")
    out = tmp_path / "out"
    out.mkdir()
    counts = prepare(out, tmp_path / "meta.json", TrainingSet(min_usable=0.5, images=SMALL), base)
    assert counts["samples"] == 1 and counts["rejected"] == {"unreadable clip": 1}
    assert read_samples(out)[0].spans == ((1.0, 2.0),)
    places = tmp_path / "nextgqa/map_vid_vidorID.json"
    kept = places.read_text()
    places.unlink()
    with pytest.raises(DataError, match="nextgqa: 2 annotation files, 3 when they were indexed; plan and run again"):
        read_samples(out)
    places.write_text(kept)
    spans = tmp_path / "nextgqa/gsub_val.json"
    spans.write_text(spans.read_text().replace("[1, 2]", "[1, 2.25]"))
    with pytest.raises(DataError, match=r"gsub_val\.json: \d+ bytes, \d+ when it was indexed; the file was changed: plan and run again"):
        read_samples(out)


def test_a_set_whose_clips_are_missing_or_unreadable_is_refused_in_words_of_clips(base: Path, tmp_path: Path) -> None:
    write(tmp_path, [f"1,{CALLS.format(0)}", f"2,{CALLS.format(0)}"], {"1": {"0": [[1, 2]]}, "2": {"0": [[2, 3]]}}, PLACES)
    (tmp_path / "NExTVideo/1164/2.mp4").unlink()
    found = look(ExternalTraining(meta=str(tmp_path / "meta.json"), revision="nextgqa"))
    assert "(1 missing clip)" in found.lacking and "nextgqa: 1 of 2 clips missing; looked in 1164 of" in found.lacking
    assert found.lacking.splitlines()[-1] == (
        f"  the first: {tmp_path}/nextgqa/val.csv, entry 1: missing clip: {tmp_path}/NExTVideo/1164/2.mp4; looked in 1164 of {tmp_path}/NExTVideo"
    )
    with pytest.raises(DataError, match=r"1 of 1 clips looked at cannot be used; the first: .*gone\.mp4"):
        check_pictures([str(tmp_path / "gone.mp4")], None, "meta.json", 0.9)
