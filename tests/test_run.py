"""The entry point: how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MAIN = """
import atexit, runpy
import harness.cli

class Large:
    def __del__(self):
        print("freed")

def main():
    global kept
    kept = Large()
    atexit.register(print, "exit functions are called")
    print("not flushed yet")
    return 3

harness.cli.main = main
runpy.run_path("run.py", run_name="__main__")
"""


def test_a_run_ends_with_its_code_its_output_and_all_exit_functions_and_frees_nothing_one_by_one():
    done = subprocess.run([sys.executable, "-c", MAIN], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 3 and done.stdout.splitlines() == ["not flushed yet", "exit functions are called"] and not done.stderr


def test_output_that_nobody_reads_ends_a_run_without_a_traceback():
    process = subprocess.Popen([sys.executable, "run.py", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()
