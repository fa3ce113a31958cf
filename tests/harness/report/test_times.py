"""What a report says of the job behind a claim about time, and of one that is missing."""

import json
from decimal import Decimal
from types import SimpleNamespace

import pytest

from harness.report.numbers.times import times_of
from harness.report.sections.claims import titled
from harness.spec.claims import LessTime
from harness.verdict import ClaimResult, Holds
from harness.verdict.claims import Part

CLAIM = LessTime(less_time="Ours", than="Zooming", percent=Decimal(44), on=("videomme",))


def way(seconds, whole=0, tokens=300):
    return {"seconds": [seconds] * 6, "read": tokens, "encoded": 100, "said": 30, "whole": whole}


def results(folder, found=None, done=True, runs=1, impossible=()):
    if found is not None:
        (folder / "measure.json").write_text(found if isinstance(found, str) else json.dumps(found))
    job = SimpleNamespace(name="it-time")
    arm = SimpleNamespace(runs=lambda name, protocol: [SimpleNamespace(job=job)] * runs * (name == "time-3-videomme"), impossible=impossible)
    return SimpleNamespace(
        study=SimpleNamespace(experiment=SimpleNamespace(protocol="paper")), columns={"videomme.short": SimpleNamespace(benchmark="videomme")},
        arms={"Ours": arm}, store=SimpleNamespace(is_done=lambda job: done, outputs=lambda job: folder),
        reader=SimpleNamespace(why=lambda job: ("failed", "measure it-time: out of memory")),
    )  # fmt: skip


def measured(**ways):
    return {"questions": 10, "unreadable": 0, "device": "a CPU", "ways": {"row": way(1.0)} | ways}


def test_the_ratio_is_to_zooming_that_zooms(tmp_path):
    found = times_of(results(tmp_path, measured(zooming=way(1.25, 7, 500), given=way(2.0, 0, 700))), CLAIM, 3, "videomme.short")
    assert found.ratios == (0.5,) * 6
    assert "zooming named no usable span for 7 of them and is timed with the middle half" in found.rest and "20 % less time)" in found.rest
    assert "30 against 70 read, 10 against 10 encoded, 3 against 3 decoded; measured on a CPU" in found.rest
    found = times_of(results(tmp_path, measured(zooming=way(1.25)) | {"unreadable": 2}), CLAIM, 3, "videomme.short")
    assert found.ratios == (0.8,) * 6 and "middle" not in found.rest and "2 questions are left out" in found.rest


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"done": False}, "measure it-time: out of memory"),
        ({"runs": 0}, "no job is planned"),
        ({"runs": 0, "impossible": ("cost: no", "time-3-videomme: it does not zoom")}, "it does not zoom"),
        ({"found": "{}"}, "it-time: measure.json cannot be read (KeyError('ways'))"),
        ({"found": measured(zooming=way(0.0))}, "it-time: measure.json cannot be read (ZeroDivisionError"),
        ({"found": measured(zooming=way(float("nan")))}, "it-time: measure.json cannot be read (ValueError('no times')"),
        ({"found": measured(row=way(1.0) | {"seconds": []}, zooming=way(1.0) | {"seconds": []})}, "it-time: measure.json cannot be read (ValueError('no times')"),
        ({"found": "no"}, "it-time: measure.json cannot be read (JSONDecodeError"),
        ({"found": measured(zooming=way(1.0, 10), given=way(1.0, 10))}, "none of 10 clips could be cut, so that nothing zoomed"),
    ],
)
def test_without_times_the_reason_is_given(tmp_path, asked, said):
    assert times_of(results(tmp_path, **asked), CLAIM, 3, "videomme.short").startswith(said)


def test_a_remedy_keeps_the_dashes_of_its_options():
    text = "A - B = -1.0 [-2.0, 0.5]; run.py retry 5d45 --damaged --results DIR"
    part = Part("videomme.short", Holds.NOT_JUDGED, text)
    said = titled(SimpleNamespace(title=lambda column: "Video-MME"), ClaimResult(CLAIM, "regenerated", (part,)))
    assert said == "Video-MME: A − B = −1.0 [−2.0, 0.5]; run.py retry 5d45 --damaged --results DIR"
