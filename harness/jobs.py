"""A job: one unit of work with an identity, and the graph that jobs form.

Jobs are values. They say what is to be computed and from what, never where, when or with which resources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.identity import digest_of, text
from harness.kinds import kind_of


@dataclass(frozen=True)
class Source:
    """Something given, not computed: a checkpoint or data set outside the store, identified by its content.

    location: a local path or a hub name; where it lies is not part of any identity. digest: sha256 of the content, or
    a pinned revision.
    """

    location: str
    digest: str

    @property
    def key(self) -> str:
        return f"source:{self.digest}"


@dataclass(frozen=True)
class Job:
    """payload: the fields that affect the result, those at their schema default left out. inputs: role -> Job or Source.

    slug: a few words for people (folder names, logs); not part of the identity.
    """

    kind: str
    payload: Mapping[str, Any]
    inputs: Mapping[str, Job | Source] = field(default_factory=dict)
    slug: str = ""

    @cached_property
    def key(self) -> str:
        """64 hex digits: the digest of {"inputs": {role: key}, "kind", "payload", "version"}. Equal keys mean equal results up to the
        numerics of the device."""
        inputs = text({role: upstream.key for role, upstream in self.inputs.items()})
        kind, version = text(self.kind), kind_of(self.kind).version
        return digest_of(f'{{"inputs":{inputs},"kind":{kind},"payload":{text(self.payload)},"version":{version}}}')

    @property
    def key12(self) -> str:
        return self.key[:12]

    @property
    def name(self) -> str:
        """The job's folder under its kind, and what a person calls it."""
        return f"{self.slug or self.kind}-{self.key12}"

    @cached_property
    def parents(self) -> tuple[Job, ...]:
        return tuple(upstream for upstream in self.inputs.values() if isinstance(upstream, Job))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.key == other.key


@dataclass(frozen=True, eq=False)
class Known(Job):
    """A job of which only the kind and the key (or its first 12 digits) are known, because its spec cannot be read."""

    known_key: str = ""

    @property
    def key(self) -> str:  # type: ignore[override]
        return self.known_key


def trainings(last: Job | Source) -> list[Job]:
    """The chain of trainings that ends in a checkpoint, the first stage first; none for a checkpoint that is given."""
    chain: list[Job] = []
    while isinstance(last, Job):
        chain.insert(0, last)
        last = last.inputs["init"]
    return chain


class Graph:
    """Jobs by key, each once, parents before children."""

    def __init__(self, roots: Iterable[Job] = ()) -> None:
        self._jobs: dict[str, Job] = {}
        for root in roots:
            self.add(root)

    def add(self, job: Job) -> Job:
        """The graph's one job with this key; parents are added first."""
        if job.key not in self._jobs:
            for parent in job.parents:
                self.add(parent)
            self._jobs[job.key] = job
        return self._jobs[job.key]

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job: Job) -> bool:
        return job.key in self._jobs

    def __getitem__(self, key: str) -> Job:
        return self._jobs[key]

    def needed(self, done: Callable[[Job], bool]) -> Graph:
        """What is still asked for: the jobs that no other waits for, and the parents of every job here that is not done.

        A job whose children are all done is not among them: adopted or deleted checkpoints are not retrained.
        """
        awaited = {parent.key for job in self for parent in job.parents}
        waiting = [job for job in self if job.key not in awaited]
        kept: set[str] = set()
        while waiting:
            job = waiting.pop()
            if job.key not in kept:
                kept.add(job.key)
                if not done(job):
                    waiting += job.parents
        found = Graph()
        found._jobs = {key: job for key, job in self._jobs.items() if key in kept}
        return found

    def children(self, job: Job) -> tuple[Job, ...]:
        return tuple(other for other in self if job in other.parents)
