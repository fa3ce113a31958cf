"""`run.py adopt`: a checkpoint from elsewhere becomes a job's result, or is refused in one line with nothing written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from harness.cli import main
from harness.plan import plan_experiment
from harness.spec.files import EXPERIMENTS, REPOSITORY
from harness.store import Store
from models import loading
from models.backbone import checkpoint
from models.backbone.tokens import add_tokens

BASE = REPOSITORY / "models" / "proxy" / "base"
TABLE = str(EXPERIMENTS / "table3c.yaml")
ROW = "Two-stage (Ours)"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A checkpoint as somebody might publish it: both heads, the authors' key names, tokenizer and processor."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("published") / "checkpoint"
    model = loading.load(BASE, heads={"bcm", "dac"}, latent_steps=8, dtype=torch.float32, seed=5)
    checkpoint.save(model, folder, {})
    (folder / checkpoint.FACTS).unlink()
    for file in ("processor_config.json", "chat_template.jinja"):
        shutil.copy(BASE / file, folder)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    add_tokens(tokenizer)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(published: Path, tmp_path: Path, monkeypatch) -> Path:
    """The same, to be changed."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(published, tmp_path / "theirs"))


def adopt(folder: Path | str, *options: str, row: str = ROW, note: str = "from a friend") -> int:
    words = ["adopt", str(folder), TABLE, row, "--profile", "smoke", "--note", note, "--results", "results"]
    return main([*words, *options])


def training(row: str = ROW):
    return plan_experiment(TABLE, "smoke").checkpoints[row][0]


def refused(capsys, *arguments: str, **options) -> str:
    """What is said; one line, and the store is as it was."""
    before = sorted(Path().glob("results/train/*/attempts/*"))
    assert adopt(*arguments, **options) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and sorted(Path().glob("results/train/*/attempts/*")) == before
    return said


def test_an_adopted_checkpoint_is_its_jobs_result_with_its_provenance(copied, capsys):
    assert adopt(copied, "--origin", "https://example.org/weights") == 0
    assert "adopted: https://example.org/weights as train stage2-seed0-" in capsys.readouterr().out
    store, job = Store("results"), training()
    done = store.done(job)
    assert done["adopted"]["from"] == "https://example.org/weights" and done["adopted"]["note"] == "from a friend"
    assert "@" in done["adopted"]["by"] and len(done["adopted"]["sha256"]) == 64
    assert len(done["outputs"]["model.safetensors"]["sha256"]) == 64 and done["attempt"] == 1
    facts = checkpoint.facts(store.outputs(job))
    assert facts["adopted"] == done["adopted"] and facts["stage"] == "stage2" and facts["latent_steps"] == 8
    again = loading.load(store.outputs(job), heads={"bcm", "dac"}, latent_steps=8, dtype=torch.float32)
    assert not again.fresh_heads
    assert main(["plan", TABLE, "--rows", ROW, "--profile", "smoke", "--results", "results"]) == 0
    assert "1 done" in (said := capsys.readouterr().out) and "3 not needed" in said  # nobody trains its first stage
    assert main(["status", "--results", "results"]) == 0
    capsys.readouterr()
    assert "already has a result (adopted from https://example.org/weights)" in refused(capsys, copied)


def test_a_configuration_that_says_of_the_whole_alone_whether_embeddings_are_tied_is_taken(copied):
    config = json.loads((copied / "config.json").read_text())
    config["text_config"].pop("tie_word_embeddings", None)  # as what a model loaded from the hub's flat form saves
    (copied / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    assert adopt(copied) == 0


def test_bare_weights_in_shards_under_old_key_names_take_the_rest_from_the_base_model(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "fp32"
    folder.mkdir()
    weights = {
        key.replace("model.language_model.", "model.").replace("model.visual.", "visual."): value
        for key, value in load_file(published / "model.safetensors").items()
    }
    names = sorted(weights)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, held in shards.items():
        torch.save({name: weights[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert adopt(folder, "--stage", "stage1") == 0
    stage1 = training("Stage 1 Only")
    out = Store("results").outputs(stage1)
    loaded = loading.load(out, heads={"bcm"}, latent_steps=8, dtype=torch.float32).state_dict()
    theirs = load_file(published / "model.safetensors")
    assert all(torch.equal(loaded[name], theirs[name]) for name in loaded if name in theirs)
    assert not list(out.glob("*.bin")) and (out / "tokenizer.json").is_file() and (out / "processor_config.json").is_file()


def change(folder: Path, edit) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_dac(folder: Path) -> None:
    change(folder, lambda w: [w.pop(name) for name in list(w) if name.startswith("student_resampler")])


def four_slots(folder: Path) -> None:
    change(folder, lambda w: w.update({"box_feature_resampler.queries": w["box_feature_resampler.queries"][:, :4].clone()}))


def edit_json(name: str, **fields):
    def edit(folder: Path) -> None:
        file = folder / name
        held = json.loads(file.read_text()) if file.exists() else {}
        for path, value in fields.items():
            *parts, last = path.split("__")
            place = held
            for part in parts:
                place = place[part]
            place[last] = value
        file.write_text(json.dumps(held))

    return edit


def deepspeed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "global_step1500").mkdir()
    (folder / "global_step1500" / "zero_pp_rank_0_mp_rank_00_model_states.pt").write_bytes(b"")


def lost_shard(folder: Path) -> None:
    edit_json("model.safetensors.index.json", weight_map={"lm_head.weight": "model-00007-of-00009.safetensors"})(folder)


def plain_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    text = file.read_text()
    for old, new in (("<|lvr_start|>", "<|lvr_stort|>"), ("<|lvr_end|>", "<|lvr_ond|>")):
        text = text.replace(old, new)
    file.write_text(text)
    (folder / "tokenizer_config.json").write_text((BASE / "tokenizer_config.json").read_text().replace("lvr_start", "lvr_stort").replace("lvr_end", "lvr_ond"))  # fmt: skip


def replaced(name: str, make):
    """A file of the folder with something else in its place."""

    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return edit


def spoilt(value: float):
    return lambda folder: change(folder, lambda w: w["model.language_model.norm.weight"].view(-1)[3:5].fill_(value))


HOSTILE = {
    "a link to a file of this machine": (replaced("generation_config.json", lambda f: f.symlink_to("/etc/passwd")), "generation_config.json: is a link that leads out"),
    "weights that lie elsewhere": (replaced("model.safetensors", lambda f: f.symlink_to("/dev/zero")), "model.safetensors: is a link that leads out"),
    "a link upwards": (replaced("merges.txt", lambda f: f.symlink_to("../secret.txt")), "merges.txt: is a link that leads out"),
    "a pipe": (replaced("tokenizer_config.json", os.mkfifo), "tokenizer_config.json: is not a regular file"),
    "a pipe for weights": (replaced("model.safetensors", os.mkfifo), "model.safetensors: is not a regular file"),
    "a folder": (replaced("config.json", Path.mkdir), "config.json: is not a regular file"),
    "a shard beside the folder": (edit_json("model.safetensors.index.json", weight_map={"x": "../model.safetensors"}), "is no weights file of this folder"),
    "a shard by its whole path": (edit_json("model.safetensors.index.json", weight_map={"x": "/etc/passwd"}), "is no weights file of this folder"),
    "a deep JSON": (replaced("vreflection.json", lambda f: f.write_text("[" * 100_000)), "vreflection.json: its lists and objects lie too deep"),
    "a huge JSON": (replaced("added_tokens.json", lambda f: f.write_bytes(b" " * (2**26 + 1))), "has at most"),
    "NaN in the config": (edit_json("config.json", initializer_range=float("nan")), "NaN is no JSON number"),
    "a NaN weight": (spoilt(float("nan")), "model.language_model.norm.weight holds 2 of 192 values that are NaN or infinite"),
    "an infinite weight": (spoilt(float("-inf")), "holds 2 of 192 values that are NaN or infinite"),
}  # fmt: skip


WRONG = {
    "no head for the stage": (without_dac, "does not fit stage2 with S = 8: student_resampler.cross_attn.in_proj_bias is missing; "),
    "another number of slots": (four_slots, "queries has shape (1, 4, 192), expected (1, 8, 192)"),
    "a key too many": (lambda f: change(f, lambda w: w.update({"model.extra": torch.zeros(2)})), "extra is unexpected"),
    "another size": (edit_json("config.json", text_config__intermediate_size=777), "text_config.intermediate_size is 777, the base model's is"),
    "an unsound config": (edit_json("config.json", text_config__num_hidden_layers=3), "config.json: is no sound configuration"),
    "no dict of a config": (lambda f: (f / "config.json").write_text("{"), "config.json: not a readable JSON text"),
    "another model": (edit_json("config.json", model_type="llama"), "model_type is llama; only qwen2_5_vl checkpoints"),
    "shards of DeepSpeed": (deepspeed, "make weights of them first: python zero_to_fp32.py"),
    "a lost shard": (lost_shard, "names model-00007-of-00009.safetensors, which is not there"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model*.safetensors and no pytorch_model*.bin"),
    "half a file": (lambda f: (f / "model.safetensors").write_bytes(b"\x10"), "not readable as weights"),
    "another seed's": (edit_json("vreflection.json", seed=3), "seed is 3, the job's is 0; name its own row and seed"),
    "another stage's": (edit_json("vreflection.json", stage="stage1"), "stage is stage1, the job's is stage2"),
    "a plain tokenizer": (plain_tokenizer, "its tokenizer lacks <|lvr_start|>, <|lvr_end|>: it was not trained with"),
}  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_folder_gets_nothing_of_this_machine_into_the_store(attack, copied, capsys):
    edit, expected = HOSTILE[attack]
    edit(copied)
    assert expected in refused(capsys, copied)
    assert not list(Path().glob("results/*"))


def test_a_snapshot_of_the_hub_s_cache_is_links_into_its_own_blobs(copied):
    blobs, snapshot = Path("models--a--b/blobs"), Path("models--a--b/snapshots/0123")
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in copied.iterdir():
        shutil.move(file, blobs / file.name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert adopt(snapshot) == 0
    out = Store("results").outputs(training())
    assert not any(file.is_symlink() for file in out.iterdir())


@pytest.mark.parametrize("mistake", WRONG)
def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_written(mistake, copied, capsys):
    edit, expected = WRONG[mistake]
    edit(copied)
    said = refused(capsys, copied)
    assert expected in said and "theirs" in said
    assert not list(Path().glob("results/*"))


def test_mistakes_in_the_command_are_one_line(copied, capsys):
    assert "nowhere: no such folder; give a checkpoint folder" in refused(capsys, "nowhere")
    assert '--rows: no row "Tow-stage"; did you mean "Two-stage (Ours)"?' in refused(capsys, copied, row="Tow-stage")
    assert 'row "Two-stage (Ours)" has no stage "joint"' in refused(capsys, copied, "--stage", "joint")
    with pytest.raises(SystemExit, match="2"):
        adopt(copied, "--seed", "-1")
    assert "--seed: -1 is not a whole number; use 0 or more" in capsys.readouterr().err
    assert "--note: is empty" in refused(capsys, copied, note=" ")
