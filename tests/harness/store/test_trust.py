"""A store that others may write does not run their code."""

import json
import os
import stat

import pytest

from harness.store import StoreError, trust
from harness.worker.orders import Order, Orders


def test_the_folder_is_made_for_its_owner_alone(tmp_path):
    home = trust.private(tmp_path / "results", ".drivers")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert trust.private(tmp_path / "results", ".drivers") == home


def test_a_folder_of_ours_that_others_could_only_read_is_closed(tmp_path):
    (tmp_path / ".drivers").mkdir(mode=0o755)
    assert stat.S_IMODE(trust.private(tmp_path, ".drivers").stat().st_mode) == 0o700


@pytest.mark.parametrize("which", [".", ".drivers"])
def test_what_everybody_may_write_is_refused_with_the_remedy(tmp_path, which):
    (tmp_path / ".drivers").mkdir()
    (tmp_path / which).chmod(0o777)
    with pytest.raises(StoreError, match="may be written by others") as caught:
        trust.private(tmp_path, ".drivers")
    assert "\n" not in str(caught.value) and ("chmod go-w" in str(caught.value) or "remove" in str(caught.value))


@pytest.fixture
def shared_group(monkeypatch):
    """A machine on which the folder's group has other members."""
    monkeypatch.setattr(trust, "_alone", lambda group: False)
    trust._warn.cache_clear()


def test_a_store_that_a_shared_group_may_write_is_used_with_one_warning(tmp_path, shared_group, capsys):
    root = tmp_path / "results"
    root.mkdir()
    root.chmod(0o775)
    for _ in range(2):
        assert stat.S_IMODE(trust.private(root, ".drivers").stat().st_mode) == 0o700
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"chmod g-w {root}" in said and "mode 775" in said


def test_a_private_group_or_a_sticky_bit_asks_for_no_warning(tmp_path, shared_group, monkeypatch, capsys):
    tmp_path.chmod(0o1777)
    trust.private(tmp_path, ".drivers")
    tmp_path.chmod(0o775)
    monkeypatch.setattr(trust, "_alone", lambda group: True)
    trust.private(tmp_path, ".drivers")
    assert capsys.readouterr().err == ""


def test_a_folder_of_ours_is_refused_where_a_shared_group_could_have_written_into_it(tmp_path, monkeypatch):
    (tmp_path / ".drivers").mkdir()
    (tmp_path / ".drivers").chmod(0o770)
    monkeypatch.setattr(trust, "_alone", lambda group: False)
    with pytest.raises(StoreError, match=r"mode 770"):
        trust.private(tmp_path, ".drivers")


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(StoreError, match="belongs to"):
        trust.private(tmp_path, ".drivers")


def test_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".drivers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a link"):
        trust.private(tmp_path, ".drivers")


def test_orders_name_no_modules(tmp_path):
    Orders(None, (Order("k", "train", "train/x", 1),)).write(tmp_path / "orders.json")
    record = json.loads((tmp_path / "orders.json").read_text())
    assert set(record) == {"driver", "finished", "jobs"}
    (tmp_path / "orders.json").write_text(json.dumps(record | {"plugins": ["antigravity"]}))
    assert not hasattr(Orders.read(tmp_path / "orders.json"), "plugins")
