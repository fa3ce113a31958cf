"""Which pictures belong to which use: disjoint by seed and, for evaluation, by content.

A picture's random stream is derived from its role, a seed and its index, so no two roles share a stream. Above that, a
hash of the scene's content puts each scene into one of sixteen buckets, and a role accepts only its own buckets: a
scene asked about in `dev` or `test` can never have been seen in `pretrain` or `train`, whatever the seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import numpy as np

Role = Literal["pretrain", "train", "dev", "test"]

BUCKETS = 16
ROLE_BUCKETS: dict[str, frozenset[int]] = {
    "dev": frozenset({0, 1}),
    "test": frozenset({2, 3}),
    "train": frozenset(range(4, 16)),
    "pretrain": frozenset(range(4, 16)),
}
_ROLE_NUMBER = {"pretrain": 1, "train": 2, "dev": 3, "test": 4}

T = TypeVar("T")


def check_role(role: str) -> None:
    """Raise ValueError unless `role` is one of the four roles."""
    if role not in _ROLE_NUMBER:
        raise ValueError(f"unknown role {role!r}; known: {', '.join(_ROLE_NUMBER)}")


def stream(role: Role, seed: int, *index: int) -> np.random.Generator:
    """The random stream of picture `index` under `seed` for one role."""
    check_role(role)
    return np.random.default_rng([_ROLE_NUMBER[role], seed, *index])


def bucket(content: bytes) -> int:
    """Bucket 0..15 of a scene's content."""
    return hashlib.blake2b(content, digest_size=2).digest()[0] % BUCKETS


def belongs(role: Role, contents: Iterable[bytes]) -> bool:
    """Whether every content lies in the role's buckets."""
    return all(bucket(c) in ROLE_BUCKETS[role] for c in contents)


def draw(role: Role, make: Callable[[], T], contents: Callable[[T], Iterable[bytes]], attempts: int = 20_000) -> T:
    """Call `make` until what it returns belongs to `role`; RuntimeError after `attempts`."""
    for _ in range(attempts):
        made = make()
        if belongs(role, contents(made)):
            return made
    raise RuntimeError(f"no scene for role {role!r} in {attempts} attempts: the content buckets are unreachable")
