"""What a person types. Each verb is a module of this folder with one function; heavy rooms are imported by the verb that
needs them, so that `--help` and `plan` answer at once.

Exit codes: 0 all well · 1 something failed or is not done · 2 a mistake in what was typed or written · 130 interrupted.
"""

from harness.cli.main import main

__all__ = ["main"]
