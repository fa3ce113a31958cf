import json
import os

from harness.plan.sources import backbone
from harness.spec.files import load_profile
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


def test_planning_makes_no_results_folder(desk: Desk):
    backbone(load_profile("proxy", desk.folder), desk.folder / "results" / ".digests.json")
    assert not (desk.folder / "results").exists()


def test_a_checkpoint_on_the_hub_is_known_by_its_revision(desk: Desk):
    source = backbone(load_profile("a800"))
    assert source.location.startswith("hub:Qwen/Qwen2.5-VL-7B-Instruct@") and len(source.digest.split("@")[1]) == 40
