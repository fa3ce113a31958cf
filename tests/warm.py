"""Processes that begin with slow imports already done: each is forked from one that imported the modules and did nothing else.

What such a process does, prints and returns is what `python -m MODULE ARGUMENTS` does, without the seconds of processor
time that the imports take. Tests that are about the start itself start Python.

    warm = Warm("mlflow")
    warm.run("harness.tracking", "results", cwd=REPOSITORY, env=os.environ)  # a subprocess.CompletedProcess
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


class Warm:
    """Starts at the first run, and ends with the process that made it. modules: imported before anything is run."""

    def __init__(self, *modules: str) -> None:
        self.modules = modules
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def run(
        self, module: str, *arguments: str, cwd: Path, env: Mapping[str, str], timeout: float = 240.0
    ) -> subprocess.CompletedProcess[str]:
        """`python -m module arguments`, with an empty standard input. `timeout` seconds, then TimeoutError."""
        with self._lock:
            if self._folder is None:
                self._start()
        assert self._folder is not None
        with (
            tempfile.TemporaryFile("w+", dir=self._folder.name) as out,
            tempfile.TemporaryFile("w+", dir=self._folder.name) as err,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            connection.settimeout(timeout)
            connection.connect(f"{self._folder.name}/socket")
            order = {"module": module, "arguments": arguments, "cwd": str(cwd), "env": dict(env)}
            content = json.dumps(order).encode()
            socket.send_fds(connection, [len(content).to_bytes(8, "big")], [out.fileno(), err.fileno()])
            connection.sendall(content)
            answer = connection.makefile("rb").read()
            assert answer, f"{module} was killed"
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess([module, *arguments], int(answer), out.read(), err.read())

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", f"{self._folder.name}/socket", *self.modules],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == b"ready\n", "the imports failed"
        atexit.register(self._end, process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.communicate()  # its standard input ends, and so does it
        assert self._folder is not None
        self._folder.cleanup()


def serve(path: str, modules: list[str]) -> None:
    """Import, then fork a process for each connection, until standard input ends, which it does with the parent."""
    for module in modules:
        importlib.import_module(module)
    assert threading.active_count() == 1, "a thread would not be in the forked processes"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    print("ready", flush=True)
    forked: set[int] = set()
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        forked -= {process for process in forked if os.waitpid(process, os.WNOHANG)[0]}
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        process = os.fork()
        if not process:
            listener.close()
            answer(connection)
        forked.add(process)
        connection.close()


def answer(connection: socket.socket) -> None:
    """In a forked process: run the module in one more, and send its exit code."""
    length, (out, err), _, _ = socket.recv_fds(connection, 8, 2)
    order = json.loads(connection.makefile("rb").read(int.from_bytes(length, "big")))
    child = os.fork()
    if not child:
        connection.close()
        code = 1
        try:
            code = perform(order, out, err)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def perform(order: dict, out: int, err: int) -> int:
    """Run the module as the interpreter would; returns the exit code."""
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.argv[1:] = order["arguments"]
    code = 0
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
