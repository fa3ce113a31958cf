"""Stock benchmarks where a person has them: the hub's cache, what `load_dataset` prepared, a folder; looked through first."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from models import hub
from models.evaluation.external import BadBenchmark, link_mirror, look_through
from models.evaluation.mirror import load_task
from models.evaluation.questions import read_questions
from models.evaluation.tasks import TASKS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
QUESTIONS = {"mmvp": 6, "blink": 15, "vstar": 5, "hrbench4k": 8, "hrbench8k": 8, "mmerealworld_lite": 4}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty HF_HOME."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def cached(home, folder, repository="some-One/Data-SetName"):
    """The folder as huggingface_hub keeps it: blobs, and a snapshot of relative links."""
    own = home / "hub" / f"datasets--{repository.replace('/', '--')}"
    (own / "refs").mkdir(parents=True)
    (own / "refs" / "main").write_text(COMMIT)
    (own / "blobs").mkdir()
    for number, file in enumerate(hub.files_of(folder)):
        blob = own / "blobs" / str(number)
        shutil.copyfile(file, blob)
        link = own / "snapshots" / COMMIT / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return repository


def prepared(home, folder, benchmark, tmp_path):
    """The folder as `load_dataset` leaves it, and nothing of it in the hub's cache."""
    import datasets

    names = datasets.get_dataset_config_names(str(folder)) if benchmark != "mmvp" else ["default"]
    for name in names:
        datasets.load_dataset(str(folder), name, cache_dir=str(tmp_path / "made"))
        (made,) = (tmp_path / "made").glob(f"*/{name}/0.0.0/*/dataset_info.json")
        target = home / "datasets" / "some-One___data-set_name" / name / "0.0.0" / COMMIT
        shutil.copytree(made.parent, target)
    return "some-One/Data-SetName"


@pytest.mark.parametrize("benchmark", sorted(TASKS))
def test_a_snapshot_in_the_hubs_cache_is_linked_file_by_file_and_read_by_lmms_eval(benchmark, mirrors, home, tmp_path):
    repository = cached(home, mirrors[benchmark])
    snapshot, commit = hub.cached_snapshot(repository, "main", "datasets")
    assert commit == COMMIT and snapshot is not None
    (out := tmp_path / "out").mkdir()
    summary = link_mirror(out, benchmark, f"datasets:{repository}@{commit}")
    assert sum(summary["questions"].values()) == QUESTIONS[benchmark]
    assert json.loads((out / "summary.json").read_text()) == summary
    files = [file for file in out.rglob("*") if file.is_file() and file.name != "summary.json"]
    assert files and all(file.is_symlink() for file in files), "nothing is copied"
    assert sum(len(load_task(task, out).eval_docs) for task in TASKS[benchmark]["paper"]) == QUESTIONS[benchmark]


@pytest.mark.parametrize("benchmark", ["mmvp", "blink"])
def test_a_prepared_data_set_serves_where_the_hubs_cache_lacks_it(benchmark, mirrors, home, tmp_path):
    repository = prepared(home, mirrors[benchmark], benchmark, tmp_path)
    arrows, commit = hub.prepared(repository, "main")
    assert commit == COMMIT and len(arrows) == (5 if benchmark == "blink" else 1)
    (out := tmp_path / "out").mkdir()
    link_mirror(out, benchmark, f"datasets:{repository}@{commit}")
    for task in TASKS[benchmark]["paper"]:
        ours, theirs = (read_questions(folder, benchmark, task, [0, 1]) for folder in (out, mirrors[benchmark]))
        assert [one.text for one in ours.values()] == [one.text for one in theirs.values()]
        assert [p.tobytes() for one in ours.values() for p in one.images] == [p.tobytes() for one in theirs.values() for p in one.images]
        docs, stock = load_task(task, out).eval_docs, load_task(task, mirrors[benchmark]).eval_docs
        assert len(docs) == len(stock) and docs[1].keys() == stock[1].keys()


def test_a_data_set_that_is_nowhere_is_one_line_with_the_remedy(home, tmp_path):
    with pytest.raises(BadBenchmark) as error:
        link_mirror(tmp_path, "mmvp", "datasets:some-One/Data-SetName@main")
    assert "\n" not in str(error.value) and "hf download --repo-type dataset some-One/Data-SetName" in str(error.value)
    with pytest.raises(BadBenchmark, match="no such folder; put the benchmark there"):
        link_mirror(tmp_path, "mmvp", str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": {"bytes": b"<html>", "path": None}}, r"question 5 cannot be asked \(.*\)"),
        ({"image": None}, r"question 5 cannot be asked \(.*\)"),
        ({"Question": None}, r"question 5 cannot be asked \(.*\)"),
        ({"Correct Answer": "(z)"}, "question 5 has the answer 'Z', and its options are A, B"),
    ],
    ids=["broken picture", "no picture", "no text", "an answer that is no option"],
)
def test_the_mirror_job_reads_every_question_before_anything_is_trained(mirrors, tmp_path, change, says):
    import datasets

    folder = shutil.copytree(mirrors["mmvp"], tmp_path / "mmvp")
    (file,) = folder.rglob("*.parquet")
    raw = datasets.Dataset.from_parquet(str(file)).cast_column("image", datasets.Image(decode=False))
    raw.map(lambda row, k: change if k == 5 else row, with_indices=True).to_parquet(file)
    assert look_through(folder, "mmvp")
    (tmp_path / "out").mkdir()
    with pytest.raises(BadBenchmark, match=f"^mmvp: split train: {says}; fetch"):
        link_mirror(tmp_path / "out", "mmvp", str(folder))


def test_the_mirror_job_decodes_each_question_once(mirrors, tmp_path, monkeypatch):
    from models.evaluation import questions

    read, original = [], questions._asked
    monkeypatch.setattr(questions, "_asked", lambda *words, **options: read.append(1) or original(*words, **options))
    (tmp_path / "out").mkdir()
    summary = link_mirror(tmp_path / "out", "mmvp", str(mirrors["mmvp"]))
    assert len(read) == sum(summary["questions"].values())


def test_a_missing_column_a_missing_split_and_a_broken_picture_are_said_by_name(mirrors, tmp_path):
    import datasets

    folder = shutil.copytree(mirrors["mmvp"], tmp_path / "mmvp")
    (file,) = folder.rglob("*.parquet")
    table = datasets.Dataset.from_parquet(str(file))
    table.remove_columns("Options").to_parquet(file)
    with pytest.raises(BadBenchmark, match=r"^mmvp: split train: .* has no column Options \(it has .*Question.*benchmarks\.mmvp\.path$"):
        look_through(folder, "mmvp")
    raw = table.cast_column("image", datasets.Image(decode=False))
    raw.map(lambda row: {"image": {"bytes": b"<html>" + row["image"]["bytes"], "path": None}}).to_parquet(file)
    with pytest.raises(BadBenchmark, match="^mmvp: split train: .*; fetch the data set again"):
        look_through(folder, "mmvp")
    file.rename(file.with_name("val-00000-of-00001.parquet"))
    with pytest.raises(BadBenchmark, match="^mmvp: split train is not there \\(README.md names data/train-\\*.parquet for it\\); fetch"):
        look_through(folder, "mmvp")
    blink = shutil.copytree(mirrors["blink"], tmp_path / "blink")
    (blink / "README.md").unlink()
    with pytest.raises(BadBenchmark, match="^blink: split val of configuration Counting is not there"):
        look_through(blink, "blink")


def test_a_hub_that_accepts_and_never_answers_does_not_hold_the_run(tmp_path):
    program = (
        "from models.evaluation import external\n"
        "external.ANSWER_SECONDS = 1.0\n"
        "try:\n    external.fetch('mmvp', 'a/b', 'main')\n"
        "except external.BadBenchmark as error:\n    print(error)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
        said = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True,
            env={**environment, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path)},
        ).stdout  # fmt: skip
    assert said.startswith("mmvp: 'a/b' is no folder here") and "benchmarks.mmvp.path" in said
