"""A user's command that runs when a run ends, and learns how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.words import plural
from harness.durations import duration
from harness.outgoing import inert

if TYPE_CHECKING:
    from harness.dispatch import Outcome
    from harness.plan import Plan

VARIABLE = "HARNESS_NOTIFY"
PATIENCE_SECONDS = 60.0


@dataclass
class Notice:
    """What will be told. command: for the shell; "" for nobody. began: whether there was anything to do: a table that was
    finished before is no news."""

    command: str
    began: bool = False
    tables: Sequence[Plan] = ()
    reports: Path | None = None
    outcome: Outcome | None = None
    error: str = ""
    """The error that ended the run, if it was not a job's."""
    started: float = field(default_factory=time.monotonic)

    def send(self, exit_code: int) -> None:
        """Runs the command with HARNESS_OUTCOME and HARNESS_TEXT in its environment and everything, as JSON, on its standard input.
        If the command fails, the run's exit code stays the same."""
        if not (self.command and self.began):
            return
        told = self.record(exit_code)
        environment = {**os.environ, "HARNESS_OUTCOME": told["outcome"], "HARNESS_TEXT": told["text"]}
        try:
            done = subprocess.run(
                self.command, shell=True, input=json.dumps(told, ensure_ascii=False), text=True, env=environment,
                capture_output=True, timeout=PATIENCE_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            late = isinstance(error, subprocess.TimeoutExpired)
            reason = (
                f"did not end in {PATIENCE_SECONDS:.0f} s" if late else f"could not be started ({type(error).__name__})"
            )
            print(f"the notification {reason}", file=sys.stderr)
            return
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            print(
                f"the notification failed with exit code {done.returncode}{''.join(f': {inert(line)}' for line in last)}",
                file=sys.stderr,
            )

    def record(self, exit_code: int) -> dict[str, Any]:
        """outcome: done, failed, interrupted or submitted. text: one line. tables: name, conclusion (null without a new report), page."""
        word = {0: "done", 130: "interrupted"}.get(exit_code, "failed")
        ran, problems = 0, [inert(line) for line in self.error.splitlines()[:1]]
        if self.outcome is not None:
            word = "submitted" if self.outcome.detached and exit_code == 0 else word
            ran, problems = (
                len(self.outcome.ran),
                [*problems, *(inert(str(problem)) for problem in self.outcome.problems)],
            )
        seconds = time.monotonic() - self.started
        tables = [self._table(plan) for plan in self.tables]
        text = f"{', '.join(one['name'] for one in tables)}: {word}, {plural(ran, 'job')} in {duration(seconds)}"
        text += f"; {problems[0]}" if problems else ""
        return {
            "outcome": word, "exit_code": exit_code, "text": text, "seconds": round(seconds, 1), "jobs": ran,
            "problems": problems, "tables": tables,
        }  # fmt: skip

    def _table(self, plan: Plan) -> dict[str, Any]:
        from harness.report import paths

        files = paths(plan, self.reports) if self.reports is not None else {}
        conclusion = page = None
        if files and files["json"].is_file():
            conclusion, page = (
                json.loads(files["json"].read_text(encoding="utf-8")).get("conclusion"),
                str(files["html"].resolve()),
            )
        return {"name": plan.name, "conclusion": conclusion, "page": page}
