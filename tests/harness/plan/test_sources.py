import json
import os

import pytest
from PIL import Image

from harness.plan import plan_experiment, training_data
from harness.plan.sources import backbone
from harness.plan.training_data import training_set
from harness.spec.files import load_profile
from models.config import ExternalTraining
from tests.harness.conftest import Desk


def test_a_checkpoint_is_known_by_its_files_and_not_by_its_place(desk: Desk):
    first = backbone(load_profile("proxy", desk.folder))
    (desk.folder / "base").rename(desk.folder / "moved")
    desk.write("profiles/moved.yaml", desk.profile("proxy").replace("/base}", "/moved}"))
    second = backbone(load_profile("moved", desk.folder))
    assert first.digest == second.digest and first.location != second.location


def test_a_card_is_no_part_of_a_model_and_weights_are(desk: Desk):
    before = backbone(load_profile("proxy", desk.folder)).digest
    (desk.folder / "base" / "README.md").write_text("# card")
    assert backbone(load_profile("proxy", desk.folder)).digest == before
    (desk.folder / "base" / "model.safetensors").write_bytes(b"other weights")
    assert backbone(load_profile("proxy", desk.folder)).digest != before


def test_a_digest_is_remembered_until_a_file_changes(desk: Desk):
    cache = desk.folder / ".digests.json"
    profile = load_profile("proxy", desk.folder)
    true = backbone(profile, cache).digest
    known = json.loads(cache.read_text())
    (entry,) = known.values()
    entry["digest"] = "remembered"
    cache.write_text(json.dumps(known))
    assert backbone(profile, cache).digest == "remembered"
    os.utime(desk.folder / "base" / "model.safetensors", ns=(1, 1))
    assert backbone(profile, cache).digest == true


@pytest.mark.parametrize("content", ["[1, 2]", '{"BASE": 5}', '{"BASE": {}}', "[" * 100_000, "\0", None], ids=repr)
def test_a_spoiled_cache_of_digests_is_passed_over(desk: Desk, content):
    cache = desk.folder / ".digests.json"
    profile = load_profile("proxy", desk.folder)
    true = backbone(profile).digest
    if content is None:
        os.mkfifo(cache)
    else:
        cache.write_text(content.replace("BASE", str((desk.folder / "base").resolve())))
    assert backbone(profile, cache).digest == true


def test_planning_makes_no_results_folder(desk: Desk):
    backbone(load_profile("proxy", desk.folder), desk.folder / "results" / ".digests.json")
    assert not (desk.folder / "results").exists()


def test_a_checkpoint_on_the_hub_is_known_by_its_revision(desk: Desk):
    source = backbone(load_profile("a800"))
    assert source.location.startswith("hub:Qwen/Qwen2.5-VL-7B-Instruct@") and len(source.digest.split("@")[1]) == 40


def data_set(folder, *names: str) -> ExternalTraining:
    (folder / "pictures").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(folder / "pictures" / "a.png")
    talk = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "<lvr> x"}]
    rows = [{"dataset": "d", "image": [name], "bboxes": [[0, 0, 1, 1]], "conversations": talk} for name in names]
    (folder / "rows.json").write_text(json.dumps(rows))
    meta = [{"ds_name": "d", "data_path": "rows.json", "image_folder": "pictures", "ds_type": "Q_A"}]
    (folder / "meta.json").write_text(json.dumps(meta))
    return ExternalTraining(meta=str(folder / "meta.json"), revision="v1")


def test_training_data_are_known_by_their_rows_and_pictures_and_not_by_place_or_name(tmp_path):
    first, moved = (data_set(tmp_path / name, "a.png", "b.png") for name in ("one", "two"))
    named = moved.model_copy(update={"revision": "another name"})
    digest = training_set(first).digest
    assert training_set(moved).digest == training_set(named).digest == digest
    Image.new("RGB", (40, 40)).save(tmp_path / "two" / "pictures" / "b.png")
    assert training_set(moved).digest != digest, "a picture came"


def test_a_data_set_is_looked_through_once_until_a_file_or_folder_changes(tmp_path, monkeypatch):
    from models.training import external

    passes = []
    monkeypatch.setattr(external, "look", lambda spec, real=external.look: passes.append(spec) or real(spec))
    spec, cache = data_set(tmp_path / "set", "a.png", "b.png"), tmp_path / ".digests.json"
    first = training_set(spec, cache)
    monkeypatch.setattr(training_data, "_looked", {})  # as in a new process
    assert training_set(spec, cache) == first and len(passes) == 1
    (tmp_path / "set" / "rows.json").write_text((tmp_path / "set" / "rows.json").read_text().replace("What", "Where"))
    second = training_set(spec, cache)
    Image.new("RGB", (40, 40)).save(tmp_path / "set" / "pictures" / "b.png")
    third = training_set(spec, cache)
    assert len({first.digest, second.digest, third.digest}) == 3 and len(passes) == 3


def test_of_data_that_went_away_the_last_digest_counts_and_without_one_it_says_what_is_unknown(tmp_path):
    spec, cache = data_set(tmp_path / "set", "a.png"), tmp_path / ".digests.json"
    known = training_set(spec, cache)
    (tmp_path / "set").rename(tmp_path / "away")
    assert training_set(spec, cache) == known
    assert training_set(spec).digest.startswith(training_data.UNKNOWN + spec.meta + ": no such file")


def test_a_commit_pins_training_data_and_a_free_revision_does_not(desk: Desk, tmp_path):
    spec = data_set(tmp_path / "set", "a.png")

    def key(revision: str, place: str = spec.meta) -> str:
        line = next(line for line in desk.profile("smoke").splitlines() if line.startswith("data: "))
        external = f"data: {{source: external, meta: {place}, revision: {revision}}}"
        desk.write("profiles/mine.yaml", desk.profile("smoke").replace(line, external))
        return next(job.key for job in plan_experiment(desk.table(), "mine").graph if job.kind == "data")

    data_set(tmp_path / "moved", "a.png")
    assert key("v1") == key("v2") == key("v1", str(tmp_path / "moved" / "meta.json"))
    assert len({key("v1"), key("a" * 40), key("b" * 40)}) == 3
