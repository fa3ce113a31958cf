"""The parity command on the small references that the tests carry, and on the whole ones that PARITY_REFERENCES names
(folders separated as in PATH)."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import parity
from models.backbone.template import positions
from models.parity.__main__ import main
from models.parity.reduce import SIZE_LIMIT_BYTES, reduce
from models.parity.reference import Check
from models.parity.training import gradients

DATA = Path(__file__).parents[2] / "data"
VREFLECTION = DATA / "golden"
CARRIED = {VREFLECTION: 75, DATA / "golden-lvr": 185, DATA / "golden-visreflect": 165}
"""Folder -> at least so many checks."""
WHOLE = [Path(folder) for folder in os.environ.get("PARITY_REFERENCES", "").split(os.pathsep) if folder]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("folder", [*CARRIED, *WHOLE], ids=lambda folder: folder.name)
def test_every_number_of_the_releases_is_reproduced(folder, attention):
    found = list(parity.open_reference(folder).checks(attention))
    assert len(found) >= CARRIED.get(folder, 75)
    assert [check for check in found if not check.passed] == []


@pytest.mark.parametrize("folder", CARRIED, ids=lambda folder: folder.name)
def test_the_data_of_the_tests_are_small_and_reduced_already(folder, tmp_path):
    assert sum(file.stat().st_size for file in folder.iterdir()) < SIZE_LIMIT_BYTES
    reduce(parity.open_reference(folder), tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes(), file.name


@pytest.fixture
def copied(tmp_path):
    """A copy of a reference folder, and what changes one of its files."""

    def copy(folder: Path):
        shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.md"))

        def change(name: str, **tensors: torch.Tensor) -> Path:
            file = tmp_path / "copy" / name
            save_file(load_file(file) | tensors if file.exists() else tensors, file)
            return tmp_path / "copy"

        change.folder = tmp_path / "copy"
        return change

    return copy


def test_a_tensor_that_no_check_knows_is_a_failure_in_whatever_file_it_is(copied):
    change = copied(VREFLECTION)
    change("stage2.safetensors", **{"s2.new": torch.zeros(1)})
    folder = change("extra.safetensors", unheard_of=torch.zeros(1))
    last = list(parity.open_reference(folder).checks())[-1]
    assert last.name == "nothing passed over: extra: unheard_of, stage2: s2.new" and not last.passed


def test_a_file_is_known_by_what_it_holds_not_by_its_name(copied):
    folder = copied(VREFLECTION)("stage1.safetensors")
    for at, name in enumerate(("stage1", "stage2", "generate")):
        (folder / f"{name}.safetensors").rename(folder / f"part{at}.safetensors")
    found = list(parity.open_reference(folder).checks())
    assert len(found) >= CARRIED[VREFLECTION] and all(check.passed for check in found)


@pytest.mark.parametrize(
    ("name", "file", "about"),
    [
        ("golden", "generate", "S*.row*.step_in"),
        ("golden", "stage2", "s2.*"),
        ("golden-lvr", "variants", "w.*lvr_*"),
        ("golden-lvr", "generate", "*.step_in"),
        ("golden-visreflect", "generate", "image_steps*.step_in"),
    ],
)
def test_what_the_manifest_says_of_a_file_that_is_not_there_is_named_and_counted(copied, capsys, name, file, about):
    folder = copied(DATA / name).folder
    (folder / f"{file}.safetensors").unlink()
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("not compared") and line.endswith(f"(the folder holds no tensors {about})") for line in printed)


def test_a_folder_with_a_tensor_missing_or_of_another_shape_ends_in_one_line(copied, capsys):
    folder = copied(DATA / "golden-lvr").folder
    held = load_file(folder / "train.safetensors")
    labels = held.pop("in.labels")
    save_file(held, folder / "train.safetensors")
    assert main([str(folder)]) == 2
    assert capsys.readouterr().err.startswith('the folder is not complete: there is no "in.labels" beside ')
    short = "w.model.language_model.layers.1.mlp.up_proj.weight"
    save_file(held | {"in.labels": labels, short: held[short][:5]}, folder / "train.safetensors")
    assert main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert "its weights are not the tiny model's: model.language_model.layers.1.mlp.up_proj.weight has shape" in said and said.count("\n") == 1


@torch.no_grad()
def plain_decoding(reference, row: int, steps: int, count: int) -> tuple[dict[str, torch.Tensor], dict]:
    """Latent decoding of a training row up to its first segment, by transformers' own model, each forward from the start."""
    model, batch = reference.model("eager"), reference.batch()
    begin = int(batch.segment_start[batch.segment_row == row].min())
    ids = batch.input_ids[row, :begin]  # ends with the start token
    grids = batch.image_grids[row : row + 1]
    place = positions(ids, grids, reference.tokens.image)
    features = batch.image_embeds.split(batch.image_grids.prod(1).tolist())[row]
    embed = model.get_input_embeddings()
    fed = embed(ids).masked_scatter((ids == reference.tokens.image)[:, None], features)
    inputs, hidden, places, new = [], [], [], []
    for forward in range(count):
        state = model.model.language_model(inputs_embeds=fed[None], position_ids=place[:, None]).last_hidden_state[0, -1]
        inputs.append(fed[-1])
        hidden.append(state)
        places.append(place[:, -1])
        new.append(int(model.lm_head(state).argmax()))
        after = torch.stack([place[0, -1] + 1, *3 * [place[1:].max() + 1]])
        fed = torch.cat([fed, (state if forward < steps else embed(torch.tensor(new[-1])))[None]])
        place = torch.cat([place, after[:, None]], 1)
    key = f"S{steps}.row{row}"
    held = {
        "prompt": ids[None], "ids": torch.cat([ids, torch.tensor(new)])[None], "step_in": torch.stack(inputs),
        "step_hidden": torch.stack(hidden), "step_pos(text,t,h,w)": torch.stack(places),
    }  # fmt: skip
    latent = [at < steps for at in range(count - 1)]
    stated = {"latent_step_flags(after prefill)": latent, "num_latent_inputs": steps, "new_ids": new}
    return {f"{key}.{name}": value for name, value in held.items()}, {key: stated}


@pytest.mark.parametrize(("row", "steps"), [(0, 4), (1, 8), (1, 3)])
def test_decoding_of_any_row_with_any_number_of_steps_is_compared(copied, row, steps):
    change = copied(VREFLECTION)
    tensors, stated = plain_decoding(parity.open_reference(VREFLECTION), row, steps, 12)
    folder = change("generate.safetensors", **tensors)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["generate"] |= stated
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = {check.name: check for check in parity.open_reference(folder).checks()}
    own = [check for name, check in found.items() if name.startswith(f"decoding S={steps} row {row} ")]
    assert len(own) == 10 and all(check.passed for check in found.values())
    change("generate.safetensors", **{f"S{steps}.row{row}.step_hidden": tensors[f"S{steps}.row{row}.step_hidden"] + 0.1})
    failed = [check.name for check in parity.open_reference(folder).checks() if not check.passed]
    assert failed == [f"decoding S={steps} row {row} {how}: hidden" for how in ("alone", "in a batch")]


def test_a_row_whose_pictures_are_not_there_is_named_and_counted(copied, capsys):
    change = copied(VREFLECTION)
    folder = change("generate.safetensors", **{"S8.row7.step_in": torch.zeros(3, 128)})
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("not compared, 1: generate: S8.row7.step_in (row 7 is not among the 2") for line in printed)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no manifest.json, so it holds reference tensors of no known format"),
        ({"manifest.json": "{}"}, "holds reference tensors of no known format; there are V-Reflection ("),
        ({"manifest.json": "[1]"}, "manifest.json: holds a list, expected an object"),
        ({"manifest.json": "{"}, "manifest.json: not readable as JSON ("),
        ({"manifest.json": "{}", "a.safetensors": "xx"}, "a.safetensors: not a readable safetensors file ("),
    ],
)
def test_a_folder_of_no_known_format_is_one_line(tmp_path, capsys, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main([str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and said in printed.err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'nowhere'}: no such folder\n"


def test_the_table_says_which_checks_failed(monkeypatch, capsys):
    made = [Check("same", 0.0, 1e-5), Check("other", 1e-3, 1e-5), Check("nan", float("nan"), 1.0)]
    monkeypatch.setattr(parity.Reference, "checks", lambda self, attention: iter(made))
    assert main([str(VREFLECTION)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in printed[1:4]] == ["ok", "FAILED", "FAILED"]
    assert printed[-1].startswith("2 of 3 checks failed; not compared: ")


def test_a_gradient_that_is_not_a_number_fails_wherever_it_stands():
    model = torch.nn.ParameterDict({"a": torch.nn.Parameter(torch.ones(2)), "b": torch.nn.Parameter(torch.ones(2))})
    for broken in "ab":
        loss = sum(parameter.sum() * (float("nan") if name == broken else 1) for name, parameter in model.items())
        found = list(gradients(model, loss, {"a": 2**0.5, "b": 2**0.5}, {}, "", "x"))
        assert [check.passed for check in found] == [True, True, False]


def test_a_result_that_the_folder_lost_is_one_check_fewer_and_a_failure_where_their_number_is_given(copied, capsys):
    folder = copied(DATA / "golden-visreflect").folder
    whole = len(list(parity.open_reference(folder).checks("eager")))
    held = load_file(folder / "image.safetensors")
    del held["image.grad.align.model.language_model.norm.weight"]
    save_file(held, folder / "image.safetensors")
    found = list(parity.open_reference(folder).checks("eager"))
    assert len(found) == whole - 1
    assert all(check.passed for check in found)
    assert main([str(folder), "--checks", str(whole - 1)]) == 0
    capsys.readouterr()
    assert main([str(folder), "--checks", str(whole)]) == 1
    assert f"{whole} checks were asked for, {whole - 1} were made" in capsys.readouterr().out
