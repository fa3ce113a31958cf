import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import parity

GOLDEN = Path(__file__).parents[2] / "data" / "golden"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_number_of_the_release_is_reproduced(attention):
    reference = parity.Reference(GOLDEN)
    found = list(parity.checks(reference, attention))
    assert len(found) > 80
    assert [check for check in found if not check.passed] == []


def test_a_tensor_that_no_check_knows_is_a_failure(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "golden")
    held = load_file(GOLDEN / "stage2.safetensors")
    save_file({**held, "s2.new": torch.zeros(1)}, tmp_path / "golden" / "stage2.safetensors")
    last = list(parity.checks(parity.Reference(tmp_path / "golden")))[-1]
    assert last.name == "nothing passed over: stage2: s2.new" and not last.passed


def test_the_data_of_the_tests_stay_small():
    assert sum(file.stat().st_size for file in GOLDEN.iterdir()) < parity.SIZE_LIMIT_BYTES


def test_the_table_says_which_checks_failed(monkeypatch, capsys):
    checks = [
        parity.Check("same", 0.0, 1e-5),
        parity.Check("other", 1e-3, 1e-5),
        parity.Check("nan", float("nan"), 1.0),
    ]
    monkeypatch.setattr(parity, "checks", lambda reference, attention: iter(checks))
    assert parity.main([str(GOLDEN)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in printed[:3]] == ["ok", "FAILED", "FAILED"]
    assert printed[-1] == "2 checks failed"
