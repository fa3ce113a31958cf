"""The related method's rows: one training, its crops beside the shared features, and a baseline that answers as it always does."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from harness.cli.diff import side
from harness.jobs import Job
from harness.plan import Plan, plan_experiment
from harness.spec.errors import SpecError
from harness.spec.files import EXPERIMENTS, load_profile
from models.proxy import BASE_DIR, prompts
from tests.harness.conftest import fake_digest

OWN, BOTH = "Image stage", "Image, then video stage"
BASE = "Base model"
ZERO = ("Zero steps, free", "Zero steps, constrained")


def planned(profile: str, **options) -> Plan:
    return plan_experiment(EXPERIMENTS / "visreflect.yaml", profile, tasks=fake_digest, **{"seeds": 1, **options})


def decode(plan: Plan, row: str, latents: str = "own") -> dict:
    return plan.cell(row, "vstar").jobs[0, latents].payload.get("decode", {})


def test_the_segment_is_forced_where_it_was_learned_and_nowhere_else():
    plan = planned("smoke", latents=["own"])
    limit = {"max_new_tokens": 24}
    assert decode(plan, OWN) == decode(plan, BOTH) == {"latent_steps": 1, "start": "forced", "end": "forced", **limit}
    assert decode(plan, ZERO[0]) == decode(plan, ZERO[1]) == {"latent_steps": 1, "start": "never", "end": "forced", **limit}
    assert decode(plan, BASE) == decode(plan, "Vanilla SFT") == limit, "as in every other table"
    assert plan.base["vstar"]["paper"] == plan.cell(BASE, "vstar").jobs[0, "own"], "measured once"


def test_the_two_controls_of_zero_steps_differ_in_how_answers_about_clips_are_held_to_a_form():
    plan = planned("smoke", latents=["own"])
    free, held = (plan.cell(row, "videomme").jobs[0, "own"].payload["decode"] for row in ZERO)
    assert free.items() - held.items() == {("repetition_penalty", 1.3), ("no_repeat_ngram", 3)}
    assert held.items() - free.items() == {("answer", "letter")}


def test_answers_about_clips_begin_with_the_words_of_the_proxys_clip_data_where_they_are_held_to_a_form():
    plan = planned("proxy", latents=["own"])
    said = {row: plan.cell(row, "videomme").jobs[0, "own"].payload["decode"] for row in (BASE, "Vanilla SFT", OWN, BOTH, *ZERO)}
    assert {row for row, decode in said.items() if "prefix" in decode} == {OWN, BOTH, ZERO[1]} == {row for row, decode in said.items() if "answer" in decode}
    assert prompts.answer("A").startswith(said[BOTH]["prefix"] + " A"), "as the records of sft_video and reflect_video have it"


def test_what_a_row_or_the_command_line_says_of_the_segment_holds_for_the_base_model_too():
    assert decode(planned("smoke", overrides=["decode.start=forced"]), BASE)["start"] == "forced"


def test_rows_of_one_checkpoint_are_one_training_and_no_latents_are_replaced_where_there_are_none():
    plan = planned("proxy")
    trained = Counter(job.payload["stage"]["kind"] for job in plan.graph if job.kind == "train")
    assert trained == {"sft": 1, "sft_video": 1, "reflect": 1, "reflect_video": 2, "stage1": 1, "stage2": 1}
    assert len({plan.checkpoints[row][0].key for row in (BOTH, *ZERO)}) == 1
    modes = {row: {mode for _, mode in plan.cell(row, "vstar").jobs} for row in (BASE, OWN, *ZERO)}
    some = {"own", "zeroed", "shuffled", "oracle"}  # of the crops, whose first tokens are fed
    assert modes == {BASE: {"own"}, OWN: some, ZERO[0]: {"own"}, ZERO[1]: {"own"}}


def test_cached_crops_are_a_job_of_their_own_beside_the_shared_features():
    plan = planned("proxy")
    reflect, sft = plan.checkpoints[OWN][0], plan.checkpoints["Vanilla SFT"][0].inputs["init"]
    assert reflect.inputs["features"] == sft.inputs["features"] and "crops" not in sft.inputs
    crops = reflect.inputs["crops"]
    assert crops.kind == "features" and crops.payload["crops"] == {} and "latent_steps" not in reflect.payload
    larger = planned("proxy", overrides=["reflect.crop_max_tokens=64"]).checkpoints[OWN][0]
    assert larger.inputs["crops"].payload["crops"] == {"max_tokens": 64}
    assert larger.inputs["features"] == reflect.inputs["features"] and larger.inputs["crops"] != crops
    live = planned("a800", rows=[OWN], columns=["vstar"]).checkpoints[OWN][0]
    assert not {"features", "crops"} & live.inputs.keys()


def test_features_of_clips_are_jobs_where_a_profile_asks_for_them_and_stages_share_them(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text("extends: proxy\nclip_vision: live\n")
    (tmp_path / "visreflect.yaml").write_text((EXPERIMENTS / "visreflect.yaml").read_text())

    def video(profile: str, row: str, **options) -> Job:
        return plan_experiment(tmp_path / "visreflect.yaml", profile, tasks=fake_digest, seeds=1, **options).checkpoints[row][0]

    reflect, sft = (video("proxy", row) for row in ("Video stage alone", "Vanilla SFT"))
    sampled = {"images": reflect.payload["images"], "clips": reflect.payload["clips"]}
    assert reflect.payload["vision"] == "cached" and sampled["clips"] == {"fps": 2.0, "min_pixels": 784}
    assert reflect.inputs["features"].payload == sampled and reflect.inputs["clues"].payload == sampled | {"clues": {}}
    assert sft.inputs["features"].key == reflect.inputs["features"].key and "clues" not in sft.inputs
    for role in ("features", "clues"):
        assert reflect.inputs[role].inputs["data"].key == reflect.inputs["data"].key
    finer = video("proxy", "Video stage alone", overrides=["clips.max_pixels=50000"])
    assert finer.inputs["features"].key != reflect.inputs["features"].key
    live = video("mine", "Video stage alone")
    assert "vision" not in live.payload and not {"features", "clues"} & live.inputs.keys()


def test_zooming_is_an_option_of_pictures_and_clips_and_leaves_all_other_keys_alone():
    plan = planned("smoke")
    for column in ("vstar", "videomme"):
        zooming, plain = (plan.cell(row, column).jobs[0, "own"].payload["decode"] for row in ("Zooming baseline", "Base model"))
        assert zooming == plain | {"zoom": "predicted"} and "zoom" not in plain
    clips = planned("smoke", overrides=["decode_clips.zoom=none"], rows=["Zooming baseline"])
    assert ["zoom" in clips.cell("Zooming baseline", column).jobs[0, "own"].payload["decode"] for column in ("vstar", "videomme")] == [True, False]


def test_a_number_that_nobody_printed_is_unknown_and_counts_for_nothing():
    spec = planned("smoke").experiment.value
    values = [value for row in spec.rows for value in row.reported]
    assert values and all(value.value is None and value.text == "unknown" for value in values)


@pytest.fixture
def both_stages(tmp_path) -> Path:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "none.yaml").write_text("extends: smoke\nclips: null\n")
    table = tmp_path / "table.yaml"
    table.write_text("table: mine\ntitle: t\nrecipe: visreflect\ncolumns: [mmvp]\nrows:\n  - V: {stages: [reflect, reflect_video]}\n")
    return table


VIDEO_TABLE = """
table: mine
title: t
recipe: visreflect
columns: [vstar, videomme]
rows:
  - Base: {stages: []}
  - Both: {stages: [reflect, reflect_video]}
  - Free: {stages: [reflect, reflect_video], set: {decode_clips.start: never, decode_clips.answer: free, decode_clips.no_repeat_ngram: 3}}
  - Other: {recipe: vreflection, stages: [stage1]}
"""


@pytest.fixture
def video(tmp_path) -> Plan:
    for folder in ("profiles", "benchmarks"):
        (tmp_path / folder).mkdir()
    score = "overall: {n: 2700, chance: 25, metric: accuracy}"
    (tmp_path / "benchmarks" / "videomme.yaml").write_text(f"title: Video-MME\nprotocols: {{paper: p}}\nscale: {{paper: 100}}\nscores: {{{score}}}\n")
    added = "benchmarks:\n  videomme: {source: proxy_clips, n: 30}\nclip_backbone: {source: local, path: ../backbone}\nlatents: [own, zeroed, oracle]\n"
    (tmp_path / "profiles" / "video.yaml").write_text(f"extends: smoke\n{added}")
    shutil.copytree(BASE_DIR, tmp_path / "backbone", ignore=shutil.ignore_patterns("*.md", "*.png", "*.jsonl"))
    (tmp_path / "backbone" / "generation_config.json").write_text("{}")
    (tmp_path / "table.yaml").write_text(VIDEO_TABLE)
    return plan_experiment(tmp_path / "table.yaml", "video", tasks=fake_digest)


def test_clips_are_answered_in_the_form_that_the_recipe_has_for_them_and_pictures_as_before(video):
    def said(row: str, column: str) -> dict:
        return video.cell(row, column).jobs[0, "own"].payload.get("decode", {})

    limit = {"max_new_tokens": 24}
    assert said("Both", "videomme") == {"latent_steps": 4, "start": "forced", "end": "forced", "answer": "letter", **limit}
    assert said("Both", "vstar") == {"latent_steps": 1, "start": "forced", "end": "forced", **limit}
    assert said("Free", "videomme") == {"latent_steps": 4, "start": "never", "end": "forced", "no_repeat_ngram": 3, **limit}
    assert said("Free", "vstar") == said("Both", "vstar")
    assert said("Base", "videomme") == said("Base", "vstar") == said("Other", "videomme") == limit


def test_a_segment_that_is_opened_on_pictures_alone_has_replaced_latents_on_pictures_alone(video):
    modes = {(row, column): {mode for _, mode in video.cell(row, column).jobs} for row in ("Both", "Free") for column in ("vstar", "videomme")}
    assert modes["Both", "videomme"] == {"own", "zeroed"}, "clips have no true boxes"
    assert modes["Free", "videomme"] == {"own"} and "zeroed" in modes["Free", "vstar"]


def test_a_table_with_a_column_of_clips_begins_with_the_base_that_reads_them(video):
    assert all(Path(job.inputs["init"].location).name == "backbone" for job in video.graph if job.kind == "train" and "init" in job.inputs and not isinstance(job.inputs["init"], Job))
    assert video.profile.value.backbone.path == "../backbone"
    (video.experiment.document.path.parent / "pictures.yaml").write_text(VIDEO_TABLE.replace(", videomme", ""))
    pictures = plan_experiment(video.experiment.document.path.parent / "pictures.yaml", "video", tasks=fake_digest)
    assert pictures.profile.value.backbone.path == "models/proxy/base"


def test_a_stage_that_reads_clips_is_refused_where_there_are_none(both_stages):
    with pytest.raises(SpecError, match='none.yaml:2: clips: row "V" trains reflect_video on clips, but the profile has none; add clips: {source: proxy_clips}'):
        plan_experiment(both_stages, "none", tasks=fake_digest)


def test_each_stage_of_a_row_has_its_own_training_set(both_stages):
    video = plan_experiment(both_stages, "smoke", tasks=fake_digest, seeds=1).checkpoints["V"][0]
    image = video.inputs["init"]
    assert image.inputs["data"].payload["source"] == "proxy" and video.inputs["data"].payload["source"] == "proxy_clips"
    assert image.payload["vision"] == "cached" and "features" in image.inputs and "clips" not in image.payload
    assert "vision" not in video.payload and "features" not in video.inputs, "clips are encoded while the model trains, where a profile does not say otherwise"
    assert video.payload["clips"] == {"fps": 2.0, "min_pixels": 784}


def test_a_table_with_a_column_of_clips_asks_other_benchmarks_as_the_profile_has_them_for_it(tmp_path, video):
    folder = video.experiment.document.path.parent
    profile = folder / "profiles" / "video.yaml"
    profile.write_text(profile.read_text() + "beside_clips:\n  vstar: {source: proxy, n: 11}\n")
    (folder / "pictures.yaml").write_text(VIDEO_TABLE.replace(", videomme", ""))

    def asked(table: str) -> set[int | None]:
        made = plan_experiment(folder / table, "video", tasks=fake_digest)
        return {job.payload["n"] for job in made.graph if job.kind == "mirror" and job.payload.get("benchmark") == "vstar"}

    assert asked("table.yaml") == {11}
    assert asked("pictures.yaml") == {16}


def test_a_table_with_a_column_of_clips_has_factors_of_its_own(video):
    folder = video.experiment.document.path.parent
    profile = folder / "profiles" / "video.yaml"
    profile.write_text(profile.read_text() + "clip_scale: {reflect.lr: 3}\n")
    (folder / "pictures.yaml").write_text(VIDEO_TABLE.replace(", videomme", ""))

    def rate(table: str) -> float:
        row = next(row for row in plan_experiment(folder / table, "video", tasks=fake_digest).rows if row.label == "Both")
        return row.options.stage("reflect").lr

    usual = next(row for row in video.rows if row.label == "Both").options.stage("reflect").lr
    assert rate("table.yaml") == pytest.approx(3e-5) != usual
    assert rate("pictures.yaml") == usual
    assert side(f"{folder / 'table.yaml'}:Both", str(profile))[1]["reflect.lr"].value == rate("table.yaml"), "diff of rows"
    child = folder / "profiles" / "child.yaml"
    for own, factor in (("scale: {reflect.lr: 5}", 5), ("scale: {reflect.lr: 5}\nclip_scale: {reflect.lr: 7}", 7), ("scale: {steps: 0.1}", 3)):
        child.write_text(f"extends: video\ntitle: child\n{own}\n")
        (row,) = plan_experiment(folder / "table.yaml", str(child), rows=["Both"], tasks=fake_digest).rows
        assert row.options.stage("reflect").lr == pytest.approx(factor * 1e-5), own
    profile.write_text(profile.read_text().replace("reflect.lr", "reflect.lrr"))
    for table in ("table.yaml", "pictures.yaml"):
        with pytest.raises(SpecError, match=rf"^{profile}:\d+: clip_scale.reflect.lrr: "):
            plan_experiment(folder / table, "video", tasks=fake_digest)


def test_a_data_set_of_ones_own_is_asked_beside_clips_too(tmp_path, video):
    profile = video.experiment.document.path.parent / "profiles" / "video.yaml"
    text = profile.read_text() + "beside_clips:\n  vstar: {source: proxy, n: 11}\n"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "test.jsonl").write_text("{}\n")
    profile.write_text(text.replace("  videomme:", f"  vstar: {{source: external, path: {tmp_path / 'own'}}}\n  videomme:"))
    made = plan_experiment(video.experiment.document.path, "video", tasks=fake_digest)
    mirror = made.cell("Base", "vstar").jobs[0, "own"].inputs["mirror"]
    assert mirror.payload["source"] != "proxy" and mirror.inputs["files"].location == str(tmp_path / "own")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vstr", '"vstr" stands in place of nothing under benchmarks; did you mean "vstar"?'),
        ("videomme", "videomme: asks about clips itself; say under benchmarks how many questions it has"),
    ],
)
def test_what_is_asked_beside_clips_stands_in_place_of_a_benchmark_of_pictures(video, name, said):
    profile = video.experiment.document.path.parent / "profiles" / "video.yaml"
    profile.write_text(profile.read_text() + f"beside_clips:\n  {name}: {{source: proxy, n: 11}}\n")
    with pytest.raises(SpecError) as caught:
        load_profile(str(profile))
    line = len(profile.read_text().splitlines()) - 1
    assert str(caught.value).startswith(f"{profile}:{line}: beside_clips: {said}") and "\n" not in str(caught.value)
