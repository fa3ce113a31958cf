"""The controls that the paper lacks: each row resolves at each scale, and only what can be decoded is planned."""

from __future__ import annotations

from collections import defaultdict

import pytest

from harness.plan import plan_experiment
from harness.spec.errors import SpecError
from harness.spec.files import EXPERIMENTS
from tests.harness.conftest import fake_digest

CONTROLS = EXPERIMENTS / "controls.yaml"
ALL = {"own", "zeroed", "noise", "shuffled", "oracle"}
SWEPT = ("S = 1 at inference", "S = 4 at inference", "S = 16 at inference")


def modes(profile: str, **options) -> dict[str, set[str]]:
    found = defaultdict(set)
    for cell in plan_experiment(CONTROLS, profile, tasks=fake_digest, **options).cells:
        if cell.protocol == "paper":
            found[cell.row] |= {mode for _, mode in cell.jobs}
    return found


@pytest.mark.parametrize("profile", ["proxy", "smoke", "a800"])
def test_every_row_resolves_and_is_decoded_with_every_latents_mode_that_it_can_be(profile):
    found = modes(profile)
    # The teacher has 8 queries, so its latents fit no other S; stock data sets have no boxes.
    assert found["Two-stage, own latents"] == (ALL if profile != "a800" else ALL - {"oracle"})
    assert all(found[row] == ALL - {"oracle"} for row in SWEPT)
    assert all(found[row] == {"own"} for row in ("Markers only (S = 0)", "Vanilla SFT", "Base model"))


def test_the_latents_that_the_experiment_names_are_decoded_on_every_column():
    cell = plan_experiment(CONTROLS, "proxy", tasks=fake_digest).cell("Two-stage, own latents", "blink")
    assert {mode for seed, mode in cell.jobs if seed == 0} == ALL


def test_sweeping_s_at_inference_trains_nothing_and_changes_nothing_but_s():
    plan = plan_experiment(CONTROLS, "proxy", tasks=fake_digest)
    own, *swept = (plan.cell(row, "mmvp").jobs[0, "own"] for row in ("Two-stage, own latents", *SWEPT))
    assert {job.inputs["checkpoint"].key for job in swept} == {own.inputs["checkpoint"].key}
    assert [job.payload["decode"]["latent_steps"] for job in swept] == [1, 4, 16]
    assert all({**job.payload, "decode": {}} == {**own.payload, "decode": {}} for job in swept)
    markers = plan.checkpoints["Markers only (S = 0)"][0]
    assert markers.payload["latent_steps"] == markers.inputs["init"].payload["latent_steps"] == 0
    assert plan.cell("Markers only (S = 0)", "mmvp").jobs[0, "own"].payload["decode"]["latent_steps"] == 0


def test_oracle_latents_are_planned_where_a_folder_has_boxes_and_a_checkpoint_a_teacher(tmp_path):
    text = (EXPERIMENTS / "profiles" / "smoke.yaml").read_text().replace("latents: [own, zeroed]", "latents: [own, oracle]")
    mirror = "mmvp: {source: proxy, n: 16}"
    assert mirror in text
    profile = tmp_path / "mine.yaml"
    profile.write_text(text.replace(mirror, f"mmvp: {{source: external, path: {tmp_path}, revision: v1}}"))
    row = {"rows": ["Two-stage, own"], "columns": ["mmvp"]}
    assert "oracle" not in modes(str(profile), **row)["Two-stage, own latents"]
    (tmp_path / "boxes.jsonl").write_text("")
    assert "oracle" in modes(str(profile), **row)["Two-stage, own latents"]
    table = plan_experiment(EXPERIMENTS / "table3a.yaml", str(profile), tasks=fake_digest)
    planned = {label: {mode for _, mode in table.cell(label, "mmvp").jobs} for label in ("BCM only", "DAC only")}
    assert planned == {"BCM only": {"own", "oracle"}, "DAC only": {"own"}}, "without a BCM there is nobody to ask"


def test_zooming_to_what_is_annotated_is_refused_where_nothing_is(tmp_path):
    text = (EXPERIMENTS / "profiles" / "smoke.yaml").read_text()
    profile = tmp_path / "mine.yaml"
    for was in ("vstar: {source: proxy, n: 16}", "videomme: {source: proxy_clips, n: 16}"):
        assert was in text
        text = text.replace(was, f"{was.partition(':')[0]}: {{source: external, path: {tmp_path}, revision: v1}}")
    profile.write_text(text)

    def planned(column):
        plan = plan_experiment(
            EXPERIMENTS / "visreflect.yaml", str(profile), tasks=fake_digest, rows=["Base model"], columns=[column], overrides=["decode.zoom=oracle"]
        )
        return plan.cell("Base model", column).jobs[0, "own"].payload["decode"]

    for column, name in (("vstar", "boxes.jsonl"), ("videomme", "spans.jsonl")):
        with pytest.raises(SpecError, match=rf'mine.yaml:\d+: .*row "Base model" zooms to the annotation .* {column} has no {name}'):
            planned(column)
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        (tmp_path / "elsewhere" / name).write_text("")
        with pytest.raises(SpecError, match=f"{name}; add it as {tmp_path}/(videomme/)?{name}, or"):
            planned(column)  # no task reads that folder
        (tmp_path / name).write_text("")
        assert planned(column)["zoom"] == "oracle"
