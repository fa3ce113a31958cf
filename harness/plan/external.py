"""Systems that this project does not train: how a row's is reached, what identifies it, and why it cannot be asked here.

Decided while planning, from the environment, the hub's cache and the installed packages' files; nothing is imported,
fetched or asked. An address and a key are read from the environment by the job that uses them, and by nobody else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.jobs import Source
from harness.plan.sources import folder_digest, model_files
from harness.spec.experiment import External
from harness.spec.files import Loaded
from harness.spec.profile import Profile
from models.config import System
from models.hub import cached_snapshot

ENDPOINT = "openai"
"""lmms-eval's model for servers that speak OpenAI's chat-completions protocol."""


@dataclass(frozen=True)
class ExternalSystem:
    """How a row's system answers. kind: of its evaluation jobs. absent: why it cannot be asked here and now, or "": a
    result from when it could is shown all the same. source: None if it cannot be identified; then there is no job."""

    kind: Literal["ask", "evaluate"]
    name: str
    system: System
    source: Source | None
    absent: str = ""


def system_of(
    external: External,
    profile: Loaded[Profile],
    folder: Path,
    cache: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> ExternalSystem | str:
    """How the system is asked under a profile; a text says why it is not. folder: the experiment's. cache: of digests."""
    environment = os.environ if environment is None else environment
    if external.not_run:
        return external.not_run
    if not profile.value.comparisons:
        return f"profile {profile.name} asks no other systems (comparisons: true in a profile does)"
    if external.endpoint:
        return _endpoint(external, environment)
    return _checkpoint(external, folder, cache, environment)


def _endpoint(external: External, environment: Mapping[str, str]) -> ExternalSystem:
    unset = [name for name in (external.endpoint, external.key) if name and not environment.get(name)]
    absent = ""
    if unset:
        what = {external.endpoint: "the address of an OpenAI-compatible server, as in https://api.openai.com/v1",
                external.key: "its key, or any text where it wants none"}  # fmt: skip
        needed = "; ".join(f"{name} ({what[name]})" for name in unset)
        absent = f"{external.model} answers at an endpoint, and the environment lacks {needed}"
    system = System(adapter=ENDPOINT, model=external.model, arguments=external.arguments)
    source = Source(f"endpoint:{external.endpoint}:{external.key}", f"endpoint:{external.model}")
    return ExternalSystem("ask", external.model or "", system, source, absent)


def _checkpoint(external: External, folder: Path, cache: Path | None, environment: Mapping[str, str]) -> ExternalSystem:
    from models.evaluation.adapters import lacking

    if external.checkpoint:
        source, absent = _from_folder(folder / Path(external.checkpoint).expanduser(), external.checkpoint, cache)
        name = Path(external.checkpoint).name
    else:
        source, absent = _from_cache(external, environment)
        name = (external.repo or "").rpartition("/")[2]
    adapter = external.adapter or ""
    system = System(adapter=adapter, arguments=external.arguments)
    return ExternalSystem("evaluate", name, system, source, absent or lacking(adapter))


def _from_folder(folder: Path, written: str, cache: Path | None) -> tuple[Source | None, str]:
    files = model_files(folder) if folder.is_dir() else []
    if not any(file.name == "config.json" for file in files):
        return None, f"there is no checkpoint {written} beside the experiment (a folder with config.json and weights)"
    return Source(str(folder.resolve()), folder_digest(folder, files, cache)), ""


def _from_cache(external: External, environment: Mapping[str, str]) -> tuple[Source | None, str]:
    """The snapshot that the hub's cache holds; a pinned revision is known even where it is not."""
    revision = external.revision or "main"
    snapshot, commit = cached_snapshot(external.repo or "", revision, environment=environment)
    if snapshot is not None and (snapshot / "config.json").is_file():
        return Source(str(snapshot), f"{external.repo}@{commit}"), ""
    command = f"hf download {external.repo}" + (f" --revision {revision}" if external.revision else "")
    absent = f"the weights of {external.repo} are not in this machine's hub cache: {command} fetches them"
    pinned = re.fullmatch("[0-9a-f]{40}", commit) is not None
    return (Source(f"hub:{external.repo}@{commit}", f"{external.repo}@{commit}") if pinned else None), absent
