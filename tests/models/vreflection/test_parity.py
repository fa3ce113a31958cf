from pathlib import Path

import pytest

from models import parity

GOLDEN = Path(__file__).parents[2] / "data" / "golden"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_number_of_the_release_is_reproduced(attention):
    found = list(parity.checks(GOLDEN, attention))
    assert len(found) > 60
    assert [check for check in found if not check.passed] == []


def test_the_table_says_which_checks_failed(monkeypatch, capsys):
    checks = [
        parity.Check("same", 0.0, 1e-5),
        parity.Check("other", 1e-3, 1e-5),
        parity.Check("nan", float("nan"), 1.0),
    ]
    monkeypatch.setattr(parity, "checks", lambda folder, attention: iter(checks))
    assert parity.main(["anywhere"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in printed[:3]] == ["ok", "FAILED", "FAILED"]
    assert printed[-1] == "2 checks failed"
