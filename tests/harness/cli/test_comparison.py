"""A row that asks an endpoint, through the real command: from the spec to the rendered table, and what stays of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from harness.spec.files import REPOSITORY
from tests.endpoint import KEY, Request, endpoint
from tests.harness.conftest import Desk

TABLE = """\
table: "X"
title: A system of others
columns: [mmvp]
rows:
  - Somebody:
      external: {endpoint: TESTS_ADDRESS, key: TESTS_KEY, model: tiny, arguments: {max_retries: 1, retry_backoff_s: 0}}
      reported: [58.33]
"""


def command(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TESTS_")}
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "run.py"), *words, "--profile", "asking"],
        capture_output=True, text=True, timeout=600, check=False, env={**kept, "OMP_NUM_THREADS": "1", **variables},
    )  # fmt: skip


def first_letter(request: Request) -> str:
    assert request.pictures
    return request.letters[0]


def report(desk: Desk) -> str:
    return (desk.folder / "reports" / "asking" / "tableX.md").read_text()


def test_a_table_that_asks_an_endpoint(desk: Desk):
    desk.write("profiles/asking.yaml", "extends: smoke\ncomparisons: true\n")
    desk.write("tableX.yaml", TABLE)
    without = command("tableX.yaml")
    assert without.returncode == 0, without.stderr
    assert "not run" in report(desk) and "the address of an OpenAI-compatible server" in report(desk)
    assert not list(desk.folder.glob("results/ask/*"))

    with endpoint(first_letter) as server:
        given = {"TESTS_ADDRESS": server.address, "TESTS_KEY": KEY}
        planned = command("plan", "tableX.yaml", **given)
        assert "base" not in planned.stdout.splitlines()[1]
        assert "ask  (1 job)" in planned.stdout and "tiny through lmms-eval's openai" in planned.stdout, planned.stderr
        done = command("tableX.yaml", **given)
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 16
        again = command("tableX.yaml", **given)
        assert again.returncode == 0 and len(server.requests) == 16, "a cached result is not asked for again"
    (rows,) = desk.folder.glob("results/ask/tiny-mmvp-paper-*/attempts/1/out/samples.jsonl")
    samples = [json.loads(line) for line in rows.read_text().splitlines()]
    right = sum(sample["correct"] for sample in samples)
    assert f"{100 * right / 16:.1f} [" in report(desk) and "58.33" in report(desk)
    assert "answered by tiny-2024-08-06 at 127.0.0.1, through lmms-eval's openai" in report(desk)

    assert "complete" in command("why", "Somebody/mmvp", "tableX.yaml").stdout
    assert "not run" not in command("plan", "tableX.yaml").stdout
    assert command("tableX.yaml").returncode == 0
    assert f"{100 * right / 16:.1f} [" in report(desk), "without an address what was measured still counts"
    for file in desk.folder.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
