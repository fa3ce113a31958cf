"""Writing files so that nobody ever reads half of one, and reading files that somebody may be writing.

Knows nothing about jobs. Every JSON text is written to a temporary name, synced and renamed; a publication that must
happen once is a hard link, which fails when the name is taken. The harness writes through `opened`, `synced`, `renamed`
and `linked` and nowhere else, so that a test can make each write fail.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")

PASSING_ERRORS = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOLCK}
"""Transient errnos: disk full, read-only, a file server that went away."""


class StoreError(RuntimeError):
    """The store cannot be used as asked. The message is one line that says where and what to do."""


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turns the file system's refusals inside the block into a StoreError about `where`."""
    try:
        yield
    except OSError as error:
        raise StoreError(explain(error, where)) from error


def explain(error: OSError, where: Path) -> str:
    """One line for a person: what the file system refused, where, and the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{where}: no space left to write ({error.strerror}); free some or choose another results folder, then run the same command again"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{where}: cannot be written ({error.strerror}); make it writable or choose another results folder"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{where}: {error.strerror}; allow more (ulimit -n), then run the same command again"
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        place = error.filename if str(error.filename or "").startswith(f"{where}/") else where
        return f"{place}: {error.strerror}; {'take it away, or ' if place != where else ''}choose another results folder"
    if error.errno == errno.ENXIO:
        return f"{error.filename or where}: is a pipe or a socket, not a file; remove it, then run the same command again"
    return f"{where}: {error.strerror or error}"


def patiently(action: Callable[[], T], seconds: float = 30.0) -> T:
    """`action`, repeated for up to `seconds` while the file system refuses for a reason that may pass."""
    give_up, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno not in PASSING_ERRORS or time.monotonic() + pause > give_up:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def dumps(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def opened(path: Path, mode: str) -> IO[Any]:
    """`path`, open for writing. mode: "w", "a" or "wb"; text is UTF-8. A pipe without a reader is refused instead of waited for."""
    return open(path, mode, encoding=None if "b" in mode else "utf-8", opener=_at_once)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def synced(descriptor: int) -> None:
    """Returns once the file is on the disk."""
    os.fsync(descriptor)


def renamed(old: Path, new: Path) -> None:
    """Replace `new` by `old` in one step."""
    os.rename(old, new)


def linked(old: Path, new: Path) -> None:
    """Give `old` a second name. Raises FileExistsError when it is taken."""
    os.link(old, new)


def append(path: Path, text: str) -> None:
    """Raises OSError; part of `text` may have been written then."""
    with opened(path, "a") as file:
        file.write(text)


def replace_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace `path`: a reader sees the old content or the new one. Raises OSError, and leaves nothing half written."""
    temporary = _beside(path)
    try:
        _write(temporary, content, durable)
        renamed(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write(path: Path, content: str | bytes, durable: bool) -> None:
    try:
        with opened(path, "wb" if isinstance(content, bytes) else "w") as file:
            file.write(content)
            file.flush()
            if durable:
                synced(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace `path` by `value`: a reader sees the old text or the new one. Raises OSError.

    durable: survives a power cut; False for what means nothing after one.
    """
    replace_bytes(path, dumps(value).encode(), durable=durable)


def write_many(values: Mapping[Path, Any], few: int = 16) -> None:
    """`write_json` for each; many share one call that makes them durable. Raises OSError."""
    if len(values) <= few:
        for path, value in values.items():
            write_json(path, value)
        return
    temporary = {_beside(path): path for path in values}
    try:
        for name, path in temporary.items():
            _write(name, dumps(values[path]), durable=False)
        sync_file_system(next(iter(temporary)).parent)
        for name, path in temporary.items():
            renamed(name, path)
    finally:
        for name in temporary:
            name.unlink(missing_ok=True)


def link_json(path: Path, value: Any) -> bool:
    """Create `path` with `value`; False when it exists already. Exactly one of any number of callers gets True."""
    temporary = _beside(path)
    _write(temporary, dumps(value), durable=True)
    try:
        linked(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def reading(path: Path | str) -> IO[bytes]:
    """`path`, open for reading. Raises OSError; also for what is not a regular file, such as a pipe, instead of waiting for a
    writer."""
    return open(_regular(path)[0], "rb")


def _regular(path: Path | str) -> tuple[int, os.stat_result]:
    """An open descriptor of a regular file, and what the system says of it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor, found


def read_bytes(path: Path | str) -> tuple[bytes, int]:
    """The content of a small file, and when it was written (ns). Raises OSError, as `reading`. A store has tens of thousands of
    these files, and one read without a buffer costs half as much."""
    descriptor, found = _regular(path)
    try:
        content = os.read(descriptor, found.st_size + 1)
        if len(content) != found.st_size:  # it grew, or the file system gave only a part
            while more := os.read(descriptor, 2**20):
                content += more
        return content, found.st_mtime_ns
    finally:
        os.close(descriptor)


def read_text(path: Path | str) -> str:
    """Raises OSError, as `reading`, and UnicodeDecodeError."""
    return read_bytes(path)[0].decode().replace("\r\n", "\n")


def read_json(path: Path) -> Any:
    """The value, or None when there is no such file. Raises StoreError for what cannot be read as JSON text."""
    try:
        return json.loads(read_text(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not a JSON text ({error}); it was not written by this program") from error


def read_note(path: Path) -> dict[str, Any]:
    """A file that decides nothing about results and can be made again: {} when it is missing or unreadable."""
    try:
        found = read_json(path)
    except StoreError:
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The JSON lines from byte `offset` on, and the offset after the last whole one.

    A last line without its newline is still being written (or was torn by a kill): it is left for the next call. A torn
    line in the middle (a killed writer's last, where another went on appending) is passed over.
    """
    try:
        with reading(path) as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = data.rfind(b"\n") + 1
    rows = []
    for line in data[:whole].splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows, offset + whole


def last_line(path: Path, span: int = 8192) -> dict[str, Any] | None:
    """The last whole JSON line, read from the last `span` bytes only."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    rows, _ = read_lines(path, max(0, size - span))
    return rows[-1] if rows else None


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        synced(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path, few: int = 64) -> None:
    """Make every file under `folder` survive a power cut."""
    members = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    if len(members) > few:
        return sync_file_system(folder)
    for path in members:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            synced(descriptor)
        finally:
            os.close(descriptor)


def sync_file_system(folder: Path) -> None:
    """Write back everything on the file system of `folder`: one call instead of an fsync for each of many files."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)
