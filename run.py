"""The entry point: `python run.py experiments/table3c.yaml`. `python run.py --help` lists its other verbs."""

import atexit
import os
import sys

from harness.cli import main
from harness.outgoing import guarded


def speak_utf8() -> None:
    """Restarts in Python's UTF-8 mode if the locale has another encoding, so that files, paths and child processes agree."""
    encodings = {sys.getfilesystemencoding(), (sys.stdout.encoding or "utf-8") if sys.stdout else "utf-8"}
    other = any(name.lower().replace("_", "-") not in ("utf-8", "utf8") for name in encodings)
    if other and (os.environ.get("PYTHONUTF8") != "1" or "PYTHONIOENCODING" in os.environ):
        os.environ["PYTHONUTF8"] = "1"
        os.environ.pop("PYTHONIOENCODING", None)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


exit_code: int | None = None
"""The command's, once it has ended; None if it ended by an exception."""


def leave_at_once() -> None:
    """Ends the process, as the last of its exit functions: freeing a large graph object by object would take a tenth of the time
    of a run that finds nothing to do."""
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        return  # nobody reads the output any more: Python ends by itself
    if exit_code is not None:
        os._exit(exit_code)


if __name__ == "__main__":
    speak_utf8()
    atexit.register(leave_at_once)  # registered first, called last
    with guarded():
        exit_code = main()
        sys.exit(exit_code)
