"""Why an attempt ended, as far as retrying is concerned."""

from __future__ import annotations

import errno
import re

from harness.kinds import kind_of
from harness.outgoing import inert
from models.run import Interrupted

STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG}
INPUT = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
OS_ERROR = re.compile(r"\(os error (\d+)\)|Os \{ code: (\d+)")
"""How a library written in Rust, such as safetensors, reports an errno: its errors are not OSErrors."""
MODEL_WRITE = re.compile(r"PytorchStreamWriter|inline_container(?!.*PytorchStreamReader)", re.DOTALL)
"""How torch.save reports a failed write; it gives no errno. Failed reads are excluded."""
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


def cause_of(error: BaseException) -> str:
    """code, oom, interrupted, input or storage. What raised `error` counts too: an OSError wrapped by a library."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (Interrupted, KeyboardInterrupt)):
            return "interrupted"
        if isinstance(seen, MemoryError) or type(seen).__name__ == "OutOfMemoryError":
            return "oom"
        if isinstance(seen, RuntimeError) and any(words in str(seen).lower() for words in OUT_OF_MEMORY):
            return "oom"
        if _errno(seen) in STORAGE or (isinstance(seen, RuntimeError) and MODEL_WRITE.search(str(seen))):
            return "storage"
        if seen is error and (isinstance(seen, INPUT) or type(seen).__name__ in ("ValidationError", "Damaged")):
            return "input"
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "code"


def remedied(cause: str, line: str, kind: str) -> str:
    """The line with what a person can do, where memory or the disk did not suffice; unless it says so already."""
    remedy = {
        "oom": f"lower resources.{kind}.{kind_of(kind).batch} in the profile, or use a device with more memory",
        "storage": "free some space or choose another results folder (--results DIR), then run the same command again",
    }.get(cause, "")
    return line if not remedy or "choose another results folder" in line else f"{line}; {remedy}"


def _errno(error: BaseException) -> int | None:
    """The operating system's number for what went wrong, where the error has one or says one."""
    if isinstance(error, OSError):
        return error.errno
    found = OS_ERROR.search(str(error))
    return int(found[1] or found[2]) if found else None


def one_line(error: BaseException) -> str:
    """The message's first line that says something, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:4]) if type(error).__name__ == "ValidationError" else (lines[0] if lines else repr(error))
    text = inert(text)
    return text if len(text) <= 300 else text[:297] + "..."
