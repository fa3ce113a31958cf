"""Completion, asked as the shell asks."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from harness.cli import main
from harness.cli.main import VERBS
from harness.spec.files import REPOSITORY


def script(shell: str, *more: str) -> str:
    command = [sys.executable, "run.py", "completion", shell, *more]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def completed(line: str, name: str = "vr") -> set[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    ask = (
        f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; COMP_LINE={line!r}; "
        f'COMP_POINT=${{#COMP_LINE}}; _shtab_{name.replace("-", "_")}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "-c", f"{script('bash', '--command', name)}\n{ask}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return set(done.stdout.split())


def test_bash_completes_verbs_options_profiles_and_files():
    assert completed("vr ") >= set(VERBS)
    assert completed("vr plan --pro") == {"--profile", "--protocols"}
    assert completed("vr plan --profile s") == {"smoke"}
    assert "experiments" in completed("vr plan exp")
    assert completed("my-runs rep", "my-runs") == {"report"}


@pytest.mark.parametrize(("shell", "option"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_each_shell_accepts_its_script(shell, option, tmp_path):
    path = tmp_path / f"vr.{shell}"
    path.write_text(script(shell))
    assert f"{REPOSITORY / 'run.py'}" in path.read_text()
    if shutil.which(shell):
        done = subprocess.run([shell, option, str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr


def test_a_name_that_no_shell_takes_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["completion", "bash", "--command", "a b; rm"])
    assert "is not a valid command name" in capsys.readouterr().err
