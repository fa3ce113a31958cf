"""The rehearsal world is in the forms that it stands for, told by the libraries which read those forms."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from PIL import Image

from tests.rehearsal.world import TRAPS, WorldError, base, benchmarks, tokenizer, viscot, write

pytestmark = pytest.mark.rehearsal


@pytest.fixture(scope="module")
def snapshot(world: Path) -> Path:
    """The base model as the cache gives it, without a network."""
    found = snapshot_download(base.REPO, revision="main", cache_dir=world / "hf" / "hub", local_files_only=True)
    return Path(found)


def test_the_cache_resolves_main_to_a_commit_whose_files_are_relative_links(snapshot: Path):
    assert snapshot.name == base.REVISION
    files = [file for file in snapshot.rglob("*") if not file.is_dir()]
    assert files and all(file.is_symlink() and not os.path.isabs(os.readlink(file)) and file.exists() for file in files)


def test_transformers_finds_every_weight_of_the_base_model_under_its_old_name(snapshot: Path):
    from transformers import Qwen2_5_VLForConditionalGeneration

    model, loading = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        snapshot, output_loading_info=True, dtype="auto", local_files_only=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    assert model.get_input_embeddings().weight.shape[0] == base.VOCABULARY
    assert model.config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]
    assert model.generation_config.repetition_penalty == 1.05
    assert len(list(snapshot.glob("*.safetensors"))) == base.SHARDS


def test_the_tokenizer_has_qwen2s_ids_and_reads_back_what_it_wrote(snapshot: Path):
    from transformers import AutoProcessor, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(snapshot, local_files_only=True)
    known = {text: 151_643 + k for k, text in enumerate(tokenizer.SPECIAL + tokenizer.PLAIN)}
    assert tokens.convert_tokens_to_ids(list(known)) == list(known.values())
    assert known["<|im_end|>"] == 151_645 and known["<|image_pad|>"] == 151_655 and known["<|file_sep|>"] == 151_664
    assert len(tokens) == base.FIRST_LATENT_TOKEN
    for text in ("What is written on the sign?", "图中写了什么？ 🙂", "naïve\u202fcafé\n\n\t 12 345"):
        assert tokens.decode(tokens(text)["input_ids"]) == text
    assert len(tokens(" the function returns a value")["input_ids"]) < 10, "words are learned entries, not letters"
    processor = AutoProcessor.from_pretrained(snapshot, local_files_only=True)
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    assert "<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n" in prompt


STOCK = {
    "mmvp": ("mmvp", 10), "hrbench4k": ("hrbench4k", 8), "hrbench8k": ("hrbench4k", 8), "blink_jigsaw": ("blink", 3),
    "blink_counting": ("blink", 3), "vstar_bench": ("vstar", 4), "mme_realworld_lite": ("mmerealworld_lite", 6),
}  # fmt: skip
"""File of lmms-eval's task -> the benchmark's folder, and its questions there."""


@pytest.mark.parametrize("name", STOCK)
def test_lmms_evals_own_task_reads_every_question(world: Path, name: str):
    import lmms_eval
    from lmms_eval.utils import load_yaml_config

    from models.evaluation.mirror import SimpleMirrorTask

    folder, questions = STOCK[name]
    (path,) = (Path(lmms_eval.__path__[0]) / "tasks").glob(f"*/{name}.yaml")
    config = load_yaml_config(str(path))
    task = SimpleMirrorTask(config={**config, "dataset_path": str(world / "benchmarks" / folder)}, model_name="any")
    docs = list(task.test_docs())
    assert len(docs) == questions
    for doc in docs:
        pictures = task.doc_to_visual(doc)
        assert pictures and all(picture.size[0] > 100 for picture in pictures)
        assert task.doc_to_text(doc).strip() and task.doc_to_target(doc)


def test_every_planted_row_is_where_expected_json_says(world: Path):
    expected = json.loads((world / "expected.json").read_text())
    meta = json.loads((world / viscot.META).read_text())
    rows = {entry["ds_name"]: json.loads((world / entry["data_path"]).read_text()) for entry in meta}
    assert sum(map(len, rows.values())) == expected["rows"]
    assert sorted(entry["trap"] for entry in expected["planted"].values()) == sorted(TRAPS)
    usable = sum(entry["outcome"] == "accept" for entry in expected["planted"].values())
    assert (expected["rows"] - len(TRAPS) + usable) / expected["rows"] > 0.9
    for id_, entry in expected["planted"].items():
        name, _, number = id_.partition(":")
        if entry["trap"] == "pixels_at_origin":
            assert rows[name][int(number)]["bboxes"] == [[0, 0, 320, 240]]
        if entry["trap"] == "null_entry":
            assert rows[name][int(number)] is None


def test_annotations_name_pictures_by_data_set_and_not_by_the_place_where_they_lie(world: Path):
    planted = json.loads((world / "expected.json").read_text())["planted"]
    files = [file.name for file in (world / "pictures").rglob("*") if file.is_file()]
    assert len(files) == len(set(files))
    found = there = 0
    for entry in json.loads((world / viscot.META).read_text()):
        folder = Path(entry["image_folder"])
        for number, row in enumerate(json.loads((world / entry["data_path"]).read_text())):
            if f"{entry['ds_name']}:{number}" not in planted:
                (name,) = row["image"]
                assert name.startswith(f"viscot/{row['dataset']}/") and Path(name).name in files
                found, there = found + 1, there + (folder / name).is_file()
    assert found >= viscot.ROWS and there < 0.05 * found


def test_hrbench_holds_four_thousand_and_eight_thousand_pixel_pictures_as_text(world: Path):
    from datasets import load_dataset

    for split, width in (("hrbench_4k", 4032), ("hrbench_8k", 7680)):
        rows = load_dataset(str(world / "benchmarks" / "hrbench4k"), "hrbench_version_split", split=split)
        picture = Image.open(io.BytesIO(base64.b64decode(rows[0]["image"])))
        assert picture.size[0] == width


def test_the_same_seed_writes_the_same_annotations_and_another_seed_others(tmp_path: Path):
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        viscot.write(tmp_path / name, ["missing", "pixels"], seed)

    def text(name: str) -> bytes:
        return (tmp_path / name / "data" / viscot.FILES[viscot.FULL]).read_bytes()

    assert text("one") == text("again") != text("other")


def test_a_world_is_not_written_over_something_else_nor_with_an_unknown_trap(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(WorldError, match="not empty"):
        write(tmp_path)
    with pytest.raises(WorldError, match="unknown traps: nonsense"):
        write(tmp_path / "new", traps=["nonsense"])
    assert not (tmp_path / "new").exists()
    told = subprocess.run(
        [sys.executable, "-m", "tests.rehearsal", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 2 and told.stderr.count("\n") == 1


def test_every_repository_has_its_own_commit():
    commits = {benchmarks.revision(repo, 0) for repo, _ in benchmarks.REPOSITORIES.values()}
    assert len(commits) == len(benchmarks.REPOSITORIES) == 5 and all(len(commit) == 40 for commit in commits)
