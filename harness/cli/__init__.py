"""The command line. Each verb is one module in this folder, and imports heavy packages only when it runs, so that `--help`
and `plan` answer at once.

Exit codes: 0 success · 1 something failed or is not done · 2 bad input, or damaged results · 130 interrupted.
"""

from harness.cli.main import main

__all__ = ["main"]
