"""A desk to write specs on: a folder with a stand-in base checkpoint and a profile that points at it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.spec.files import EXPERIMENTS

TABLE = (EXPERIMENTS / "table3c.yaml").read_text()


class Desk:
    """folder: where the specs lie; it is the working directory too, so that errors name files shortly."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "base").mkdir()
        for name in ("tokenizer.json", "preprocessor_config.json", "chat_template.json"):
            (folder / "base" / name).write_text("{}")
        (folder / "base" / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
        (folder / "base" / "model.safetensors").write_bytes(b"\x02" + 7 * b"\x00" + b"{}")
        (folder / "profiles").mkdir()
        for name in ("proxy", "smoke"):
            self.write(f"profiles/{name}.yaml", self.profile(name))

    def profile(self, name: str) -> str:
        """A profile of the project, with the stand-in checkpoint and one seed."""
        text = (EXPERIMENTS / "profiles" / f"{name}.yaml").read_text().replace("\nseeds: 3\n", "\nseeds: 1\n")
        return re.sub(r"models/proxy/base(-video)?", str(self.folder / "base"), text)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return Path(name)

    def table(self, *changes: tuple[str, str]) -> Path:
        """Table 3(c) with pieces of its text replaced; each piece must be there."""
        text = TABLE
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        return self.write("table.yaml", text)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


def fake_digest(benchmark: str, protocol: str) -> dict[str, str]:
    """Stands for `models.evaluation.tasks.digest`: what a key is made of must not depend on an installed package here."""
    return {f"{protocol}_{benchmark}": f"digest of {benchmark} under {protocol}"}
