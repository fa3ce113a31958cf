"""Each kind of wrong input that a person would give, through the real command: one line, its place, the remedy, no compute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from harness.cli import main
from harness.cli.run import check_inputs
from harness.plan import plan_experiment
from harness.spec.files import REPOSITORY
from harness.store import Store
from tests.films import write_film
from tests.harness.conftest import Desk
from tests.harness.store.test_store import mounted

ROW = "- Stage 2 Only:     {stages: [stage2], set: {stage2.teacher: random}, reported: [68.4, 67.5, 52.9]}"


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "run.py"), *words], capture_output=True, text=True, timeout=120, check=False
    )


def one_line(*words: str, code: int = 2) -> str:
    done = command(*words)
    assert done.returncode == code and done.stdout == "", done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not list(Path().glob("results/*/*/attempts/*")), "nothing was computed"
    return done.stderr.strip()


def changed(desk: Desk, what: str) -> Path:
    return desk.table((ROW, f"- Stage 2 Only:     {what}"))


def test_an_unknown_recipe(desk: Desk):
    said = one_line(str(desk.table(("recipe: vreflection", "recipe: vreflecton"))))
    assert said.startswith('table.yaml:4: recipe: no such recipe "vreflecton"; did you mean "vreflection"? (recipes: ')


def test_a_misspelt_field(desk: Desk):
    said = one_line(str(changed(desk, "{stages: [stage2], set: {stage2.techer: random}}")))
    assert said.startswith('table.yaml:8: row "Stage 2 Only": set.stage2.techer: no such field; did you mean "teacher"?')


def test_no_latent_steps(desk: Desk):
    said = one_line(str(changed(desk, "{stages: [stage1], set: {latent_steps: 0}}")))
    assert said.startswith('table.yaml:8: row "Stage 2 Only": set.latent_steps: 0 leaves no latent state to align; use 1 or more')


def test_a_probability_of_one_and_a_half(desk: Desk):
    said = one_line(str(changed(desk, "{stages: [stage1], set: {stage1.p: 1.5}}")))
    assert said == 'table.yaml:8: row "Stage 2 Only": set.stage1.p: 1.5 is out of range: must be at most 1'


def test_yaml_syntax(desk: Desk):
    said = one_line(str(desk.table(("columns: [mmvp, hrbench4k, blink]", "columns: [mmvp, hrbench4k, blink"))))
    assert said.startswith("table.yaml:6: YAML syntax: ")


def test_a_results_folder_that_cannot_be_written(desk: Desk):
    (desk.folder / "taken").write_text("a file, not a folder")
    said = one_line(str(desk.table()), "--results", "taken/results")
    assert "taken" in said and "Not a directory" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_results_folder_on_a_read_only_disk(desk: Desk):
    with mounted(desk.folder / "disk", "size=1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(desk.folder / "disk")], check=True)
        said = one_line(str(desk.table()), "--results", "disk/results")
    assert "disk/results" in said and "Read-only file system" in said and "choose another results folder" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_full(desk: Desk):
    with mounted(desk.folder / "disk", "size=128k"):
        said = one_line(str(desk.table()), "--results", "disk/results")
        assert not list((desk.folder / "disk").rglob("DONE*"))
    assert "no space left to write" in said and "free some or choose another results folder" in said


def test_a_missing_checkpoint(desk: Desk):
    desk.write("profiles/mine.yaml", desk.profile("smoke").replace("/base}", "/bose}"))
    said = one_line(str(desk.table()), "--profile", "mine")
    assert said.startswith("profiles/mine.yaml:") and "backbone.path: no such folder" in said


def external(desk: Desk, *entries: dict) -> str:
    """A profile that trains on these entries of the authors' format."""
    (desk.folder / "set" / "images").mkdir(parents=True)
    Image.new("RGB", (56, 56)).save(desk.folder / "set" / "images" / "a.png")
    sample = {
        "dataset": "mine", "image": ["a.png"], "bboxes": [[0.1, 0.1, 0.5, 0.5]],
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "<lvr>\n<answer> A </answer>"}],
    }  # fmt: skip
    desk.write("set/rows.json", json.dumps([{**sample, **entry} for entry in entries]))
    meta = [{"ds_name": "mine", "data_path": "rows.json", "image_folder": "images", "ds_type": "Q_A"}]
    desk.write("set/meta.json", json.dumps(meta))
    text = desk.profile("smoke")
    line = next(line for line in text.splitlines() if line.startswith("data: "))
    desk.write("profiles/mine.yaml", text.replace(line, "data: {source: external, meta: set/meta.json, revision: mine}"))
    return str(desk.table())


def test_a_missing_image(desk: Desk):
    said = one_line(external(desk, {"image": ["gone.png"]}), "--profile", "mine")
    assert "set/rows.json, entry 0: missing image: " in said and "images/gone.png; correct the file or" in said


def test_an_inverted_box(desk: Desk):
    said = one_line(external(desk, {"bboxes": [[0.6, 0.2, 0.4, 0.8]]}), "--profile", "mine")
    assert "entry 0: bad box: box 0 [0.6, 0.2, 0.4, 0.8] is empty or inverted within 0..1" in said


def test_an_annotation_file_that_is_not_there(desk: Desk):
    table = external(desk, {})
    (desk.folder / "set" / "rows.json").unlink()
    said = one_line(table, "--profile", "mine")
    assert "set/meta.json: entry 0, field 'data_path': 'rows.json' does not exist" in said


def clip_record(desk: Desk) -> dict:
    write_film(desk.folder / "set" / "images" / "a.mp4")
    return {"video": "a.mp4", "question": "What?", "answer": "A", "temporal_span": [0, 1]}


def test_clips_among_the_records_of_a_stage_of_pictures(desk: Desk):
    table = external(desk, *[{}] * 9)
    rows = json.loads((desk.folder / "set" / "rows.json").read_text())
    desk.write("set/rows.json", json.dumps([*rows, clip_record(desk)]))
    said = one_line(table, "--profile", "mine")
    assert "set/meta.json: " in said and "/a.mp4 is a clip, and " in said and said.endswith(
        " trains on pictures; take such records out, and name a file of them as `clips:` in the profile"
    )


def test_pictures_alone_for_a_stage_of_clips_and_one_file_for_both(desk: Desk):
    external(desk, *[{}] * 9)
    profile = (desk.folder / "profiles" / "mine.yaml").read_text()
    both = "".join(f"{field}: {{source: external, meta: set/meta.json, revision: mine}}\n" for field in ("data", "clips"))
    kept = [line for line in profile.splitlines() if not line.startswith(("data: ", "clips: "))]
    desk.write("profiles/mine.yaml", "\n".join(kept) + f"\n{both}")
    table = desk.folder / "table.yaml"
    table.write_text("table: mine\ntitle: t\nrecipe: visreflect\ncolumns: [mmvp]\nrows:\n  - V: {stages: [sft_video]}\n")
    said = one_line(str(table), "--profile", "mine")
    assert said.endswith("no usable record is about a clip, and sft_video trains on clips; name a file of such records as `clips:` in the profile")
    desk.write("set/rows.json", json.dumps([clip_record(desk)] * 8))
    plan = plan_experiment(str(table), "mine")
    assert check_inputs(plan.graph, Store("results"), plan.profile.value) == [], "`data:` names clips too, and nothing here trains on it"


def test_other_data_than_the_profile_pins(desk: Desk):
    table = external(desk, {})
    text = (desk.folder / "profiles" / "mine.yaml").read_text()
    desk.write("profiles/mine.yaml", text.replace("revision: mine", f"revision: {'a' * 64}"))
    said = one_line(table, "--profile", "mine")
    assert "set/meta.json: its content has sha256 " in said and "write the new digest as its revision" in said


def test_a_benchmark_folder_that_is_not_there(desk: Desk):
    text = desk.profile("smoke").replace("mmvp: {source: proxy, n: 16}", "mmvp: {source: external, path: ./mmvp, revision: v1}")
    desk.write("profiles/mine.yaml", text)
    said = one_line(str(desk.table()), "--profile", "mine")
    assert said.startswith("./mmvp: no such folder; ") and said.endswith("benchmarks.mmvp.path")


def test_some_bad_samples_are_counted_before_anything_runs(desk: Desk, capsys):
    plan = plan_experiment(external(desk, *[{}] * 18, {"image": ["gone.png"]}, {"bboxes": [], "dataset": "other"}), "mine")
    share, lacking = check_inputs(plan.graph, Store("results"), plan.profile.value)
    assert share.startswith("set/meta.json: 2 of 20 samples rejected (1 missing image, 1 box count); the rest is used")
    assert lacking == "set/meta.json: of source other only 0 of 1 rows are usable"


def test_fields_of_the_meta_file_that_nothing_reads_are_named_once(desk: Desk, capsys):
    table = external(desk, *[{}] * 8)
    (entry,) = json.loads((desk.folder / "set" / "meta.json").read_text())
    fields = [entry | {"repeat_time": 2, "image_foldr": "x"}, entry | {"ds_name": "again", "repeat_time": 1}]
    desk.write("set/meta.json", json.dumps(fields))
    plan = plan_experiment(table, "mine")
    (said,) = check_inputs(plan.graph, Store("results"), plan.profile.value)
    assert said == (
        f"{desk.folder / 'set' / 'meta.json'}: nothing reads the fields 'repeat_time' of 2 of 2 entries, 'image_foldr' of 1 of 2 entries; "
        "what is read: ds_name, data_path, image_folder, ds_type"
    )
    assert main(["plan", table, "--profile", "mine"]) == 0
    assert capsys.readouterr().err == f"warning: {said}\n"
    desk.write("set/meta.json", json.dumps([fields[1] | {"image_folder": 3}, "no entry"]))
    assert main(["plan", table, "--profile", "mine"]) == 0
    assert "nothing reads" not in capsys.readouterr().err, "a file that is refused for more"


def test_many_sources_with_bad_samples_do_not_fill_the_screen(desk: Desk):
    bad = [{"bboxes": [], "dataset": f"source {n}"} for n in range(30)]
    plan = plan_experiment(external(desk, *[{}] * 570, *bad), "mine")
    _share, *named, last = check_inputs(plan.graph, Store("results"), plan.profile.value)
    assert len(named) == 5 and last == "set/meta.json: and 25 more sources, which lack 25 rows together"


def test_too_few_usable_samples_stop_the_run_before_any_job(desk: Desk):
    rows = [{}] * 8 + [{"image": [f"viscot/openimages/{k}.jpg"], "dataset": "openimages"} for k in range(2)]
    first, second, third = command(external(desk, *rows), "--profile", "mine").stderr.splitlines()
    assert "8 of 10 rows are usable (80.0%), min_usable asks for 90%; complete what is missing (2 missing image)" in first
    assert second.startswith("  openimages: 2 of 2 pictures missing; looked in viscot/openimages, openimages, openimages/train_0")
    assert "set/rows.json, entry 8: missing image: " in third
    assert not list((desk.folder / "results").rglob("attempt*"))


def test_training_data_that_are_not_here_can_be_planned_and_not_run(desk: Desk, capsys):
    table = external(desk, {})
    (desk.folder / "set" / "meta.json").unlink()
    assert main(["plan", table, "--profile", "mine"]) == 0
    warned = capsys.readouterr().err
    assert "set/meta.json: no such file" in warned and "`run` would refuse here" in warned
    assert "set/meta.json: no such file; give a meta JSON" in one_line(table, "--profile", "mine")
