"""A report is the same bytes whatever the environment of the process that draws it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.many_cells import fill
from harness.spec.files import REPOSITORY

RC = """font.size: 22
axes.facecolor: black
figure.facecolor: red
savefig.dpi: 300
savefig.bbox: tight
font.family: monospace
axes.formatter.use_locale: True
lines.linewidth: 9
axes.grid: True
"""
"""A matplotlibrc such as a person may have in the home folder or beside the work."""


def drawn(folder: Path, name: str, **environment: str) -> dict[str, bytes]:
    """Every file of the report, drawn in a process of its own, which must say nothing on standard error."""
    plain = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "MPLCONFIGDIR")}
    options = ["--profile", "many", "--results", str(folder / "results"), "--reports", str(folder / name), "--force"]
    command = [sys.executable, str(REPOSITORY / "run.py"), "report", str(folder / "specs" / "many0.yaml"), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**plain, **environment}, cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (0, "")
    return {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}


def test_neither_matplotlibs_settings_nor_threads_locale_time_zone_or_folders_change_a_byte(tmp_path):
    fill(tmp_path, 1, 1)
    (tmp_path / "matplotlibrc").write_text(RC)
    odd = drawn(
        tmp_path, "odd",
        MATPLOTLIBRC=str(tmp_path / "matplotlibrc"), MPLBACKEND="nonsense", OMP_NUM_THREADS="4,2", NUMEXPR_MAX_THREADS="2",
        LC_ALL="de_DE.UTF-8", PYTHONUTF8="0", PYTHONIOENCODING="ascii", TZ="Pacific/Chatham", PYTHONHASHSEED="12345", PYTHONOPTIMIZE="2", COLUMNS="17",
        FORCE_COLOR="1", SOURCE_DATE_EPOCH="0", TMPDIR="/nonexistent/x", HF_HOME="/nonexistent", CUDA_VISIBLE_DEVICES="99",
        GIT_DIR="/nonexistent", UV_CACHE_DIR="/nonexistent", LMMS_EVAL_PLUGINS="nonsense", MLFLOW_RUN_ID="x",
    )  # fmt: skip
    assert odd == drawn(tmp_path, "plain") and {Path(name).suffix for name in odd} >= {".png", ".pdf", ".html", ".json", ".tex"}
