"""Folders whose files are run: submitted calls (pickles), copied code. Nobody but their owner may be able to change them.

They lie in a folder of mode 700 inside the store. The store itself may not be writable by everybody. Its owner's group may
write it, as umask 002 leaves it in many labs: a member could put another folder in the place of ours, but not one that we
own, and only what we own is run. That is said once, unless the group is the owner's private one.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import sys
from functools import cache
from pathlib import Path

from harness.store.files import StoreError, writing


def private(root: Path, name: str) -> Path:
    """The folder `name` of a store, for its owner alone (mode 700); made if need be.

    Raises StoreError, in one line with the remedy, where somebody else owns it or could have written into it, or where
    everybody may write the store.
    """
    home = root / name
    with writing(home):
        root.mkdir(parents=True, exist_ok=True)
        _check(
            root, f"others may put files there that would be run as you; chmod go-w {root}, or choose another --results DIR", group=True
        )
        if home.is_symlink():
            raise StoreError(f"{home}: is a link; its files would be run as you; remove it, when no run is at work")
        home.mkdir(mode=0o700, exist_ok=True)
        _check(home, f"what others wrote there would be run as you; remove {home}, when no run is at work")
        if stat.S_IMODE(home.stat().st_mode) & 0o077:
            home.chmod(0o700)
    return home


def _check(path: Path, remedy: str, *, group: bool = False) -> None:
    """Raises StoreError. group: a shared group that may write is worth a warning only."""
    told = path.stat()
    if told.st_uid != os.geteuid():
        raise StoreError(f"{path}: belongs to {_user(told.st_uid)}, not to you; {remedy}")
    if told.st_mode & stat.S_ISVTX:
        return  # as in /tmp: others may add names, and cannot replace ours
    mode = f"{stat.S_IMODE(told.st_mode):o}"
    shared = bool(told.st_mode & stat.S_IWGRP) and not _alone(told.st_gid)
    if told.st_mode & stat.S_IWOTH or (shared and not group):
        raise StoreError(f"{path}: may be written by others (mode {mode}); {remedy}")
    if shared:
        _warn(f"warning: {path}: the group {_group(told.st_gid)} may write there (mode {mode}), and so change results; chmod g-w {path}")


@cache
def _warn(line: str) -> None:
    """Once in a process."""
    print(line, file=sys.stderr, flush=True)


def _alone(group: int) -> bool:
    """Whether the group is the user's private one, as most systems give each user."""
    try:
        found = grp.getgrgid(group)
        return found.gr_name == pwd.getpwuid(os.geteuid()).pw_name and not set(found.gr_mem) - {found.gr_name}
    except KeyError:
        return False


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
