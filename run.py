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


def leave_at_once(codes: list[int]) -> None:
    """Ends the process, as the last of its exit functions. Freeing the objects of a large graph one by one would take a tenth of the time of a
    run that finds nothing to do."""
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        return  # nobody reads any more: Python has its own way to end then
    for code in codes:
        os._exit(code)


if __name__ == "__main__":
    speak_utf8()
    ended: list[int] = []
    atexit.register(leave_at_once, ended)  # registered first, called last
    with guarded():
        ended.append(main())
        sys.exit(ended[0])
