"""A cluster's limits: how refusals of sbatch are read, and what a partition allows a job."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.dispatch.slurm.request import Limits, Scale, scaled_memory, scaled_minutes
from harness.dispatch.slurm.task import seconds_of
from harness.store import Attempt

if TYPE_CHECKING:
    from harness.spec.profile import Resources, SlurmDispatch

LATER = re.compile(
    r"(?:Assoc|QOS)\w*SubmitJob|timed out|unable to contact|connection refused|temporar|try again|not respond"
    r"|zero bytes were transmitted",
    re.IGNORECASE,
)
"""sbatch's messages when the same request may be accepted later: too many queued jobs, or no controller."""
NEVER = re.compile(r"\b(?:Assoc|QOS)(?!\w*SubmitJob)[A-Z]\w+|[Ii]nvalid|not available|not permitted")
"""Its messages when it will not. The general text "(job submit limit, user's size and/or time limits)" is in both."""
SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 60.0


def later(text: str) -> bool:
    """Whether sbatch, which refused with these words, may accept the same request later."""
    return bool(LATER.search(text)) and not NEVER.search(text)


@dataclass
class Backoff:
    """Waits longer after each refusal: asking a busy controller every two seconds does not help."""

    seconds: float = 0.0
    until: float = 0.0

    def refused(self) -> None:
        self.seconds = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, 2 * self.seconds))
        self.until = time.monotonic() + self.seconds

    def accepted(self) -> None:
        self.seconds = self.until = 0.0

    @property
    def waiting(self) -> bool:
        return time.monotonic() < self.until


def scale_of(attempts: Iterable[Attempt]) -> Scale:
    """Doubled for each time the job ran out of memory or time."""
    causes = [failure.cause for attempt in attempts if (failure := attempt.failure)]
    return Scale(2.0 ** min(2, causes.count("memory")), 2.0 ** min(2, causes.count("timeout")))


def limits_of(text: str, dispatch: SlurmDispatch) -> Limits:
    """The partition's limits from `scontrol show partition --oneliner`; of several partitions, the most generous."""
    partitions = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in text.splitlines()]
    names = str(dispatch.sbatch.get("partition") or dispatch.partition or "").split(",")
    chosen = [
        facts
        for facts in partitions
        if facts.get("PartitionName") in names or (names == [""] and facts.get("Default") == "YES")
    ]
    seconds = [seconds_of(facts.get("MaxTime")) for facts in chosen]
    mebibytes = [word if (word := facts.get("MaxMemPerNode", "")).isdigit() and int(word) else None for facts in chosen]
    return Limits(
        memory_gb=max((int(word) / 1024 for word in mebibytes if word), default=None) if all(mebibytes) else None,
        minutes=max((int(known // 60) for known in seconds if known), default=None) if all(seconds) else None,
    )


def no_more(attempts: list[Attempt], needs: Resources, limits: Limits) -> str:
    """Why the job cannot be given more than it ran out of; "" when it can."""
    last = next((a for a in reversed(attempts) if a.failure and a.failure.cause in ("memory", "timeout")), None)
    if last is None or last.failure is None:
        return ""
    scale, had = scale_of(attempts), last.claim.get("resources") or {}
    asked: float
    if last.failure.cause == "memory":
        asked, wanted = scaled_memory(needs, scale, limits), scaled_memory(needs, scale)
        before, what = had.get("memory_gb"), f"{asked:g} GiB of memory"
    else:
        asked, wanted = scaled_minutes(needs, scale, 1, limits), scaled_minutes(needs, scale)
        before, what = had.get("minutes"), f"{asked:g} minutes"
    if before is None or asked >= wanted or asked > before:
        return ""
    return f"it ran out of its {what}, and its partition allows no more; choose another in the profile's `dispatch`"
