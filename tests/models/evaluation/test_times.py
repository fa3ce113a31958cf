"""Two ways of answering timed in turns, by the proxy's base model on clips."""

from __future__ import annotations

import json

import pyarrow.parquet
import pytest

from models.config import DecodeSpec, EvaluateSpec, Images, TimesSpec
from models.evaluation import times, zoom
from models.evaluation.tasks import digests_of
from models.proxy import BASE_DIR
from models.proxy.clip_mirror import write_clip_mirror
from models.run import Interrupted, LocalRun
from models.schema import Clips

TASK, BASE = "visreflect_videomme", BASE_DIR.parent / "base-video"
PLAIN = DecodeSpec(latent_steps=0, start="never", max_new_tokens=4)


def asks(**decode) -> EvaluateSpec:
    return EvaluateSpec(
        benchmark="videomme", tasks=digests_of([TASK]), decode=PLAIN.model_copy(update=decode), images=Images(min_pixels=784),
        precision="fp32", clips=Clips(min_pixels=784),
    )  # fmt: skip


SPEC = TimesSpec(row=asks(latent_steps=2, start="forced", end="forced"), zooming=asks(zoom="predicted"), questions=3).model_copy(update={"rounds": 2})


@pytest.fixture
def mirror(tmp_path):
    write_clip_mirror(tmp_path / "mirror", n=9, seed=0, split="dev")
    return tmp_path / "mirror"


def compared(mirror, run, spec=SPEC):
    return times.compare(run, spec, checkpoint=BASE, zooming=BASE, mirror=mirror, attention="eager")


def test_where_no_span_is_named_zooming_is_timed_again_with_the_middle(mirror, tmp_path):
    found = compared(mirror, LocalRun(tmp_path / "out"))
    row, zooming, given = (found["ways"][name] for name in ("row", "zooming", "given"))
    assert json.loads((tmp_path / "out/measure.json").read_text()) == json.loads(json.dumps(found))
    assert (found["questions"], found["unreadable"]) == (3, 0) and {len(way["seconds"]) for way in found["ways"].values()} == {2}
    assert (zooming["whole"], given["whole"]) == (3, 0) and zooming["encoded"] == row["encoded"] < given["encoded"]
    assert row["read"] < zooming["read"] < given["read"] and row["said"] >= 3 * 2


def test_where_spans_are_named_and_one_clip_cannot_be_read(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(zoom, "span_in", lambda said, seconds: (0.0, seconds / 2))
    first = pyarrow.parquet.read_table(next((mirror / "videomme").glob("*.parquet")))["videoID"][0]
    (mirror / "data" / f"{first}.mp4").write_bytes(b"no film")
    found = compared(mirror, LocalRun(tmp_path / "out"))
    assert (found["questions"], found["unreadable"]) == (2, 1) and found["ways"].keys() == {"row", "zooming"}
    assert found["ways"]["zooming"]["whole"] == 0


def test_it_stops_when_asked_and_refuses_other_tasks(mirror, tmp_path):
    with pytest.raises(Interrupted, match="0 of 2 rounds timed"):
        compared(mirror, LocalRun(tmp_path / "out", stop=True))
    changed = SPEC.model_copy(update={"zooming": SPEC.zooming.model_copy(update={"tasks": {TASK: "0" * 64}})})
    with pytest.raises(ValueError, match=f"tasks: {TASK} changed"):
        compared(mirror, LocalRun(tmp_path / "out"), changed)
