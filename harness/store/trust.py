"""Folders whose files are run: submitted calls (pickles), copied code. Nobody but their owner may be able to change them."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from harness.store.files import StoreError, writing


def private(root: Path, name: str) -> Path:
    """The folder `name` of a store, for its owner alone (mode 700); made if need be.

    Raises StoreError, in one line with the remedy, where somebody else owns it or could have written into it or put another
    in its place.
    """
    home = root / name
    with writing(home):
        root.mkdir(parents=True, exist_ok=True)
        _check(root, f"others may put files there that would be run as you; chmod go-w {root}, or choose another --results DIR")
        if home.is_symlink():
            raise StoreError(f"{home}: is a link; its files would be run as you; remove it, when no run is at work")
        home.mkdir(mode=0o700, exist_ok=True)
        _check(home, f"what others wrote there would be run as you; remove {home}, when no run is at work")
        if stat.S_IMODE(home.stat().st_mode) & 0o077:
            home.chmod(0o700)
    return home


def _check(path: Path, remedy: str) -> None:
    told = path.stat()
    if told.st_uid != os.geteuid():
        raise StoreError(f"{path}: belongs to {_user(told.st_uid)}, not to you; {remedy}")
    if stat.S_ISDIR(told.st_mode) and told.st_mode & stat.S_ISVTX:
        return  # as in /tmp: others may add names, and cannot replace ours
    if told.st_mode & stat.S_IWOTH or (told.st_mode & stat.S_IWGRP and not _alone(told.st_gid)):
        raise StoreError(f"{path}: may be written by others (mode {stat.S_IMODE(told.st_mode):o}); {remedy}")


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
