"""What the verbs print and leave behind; nothing here computes."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cli import main, report
from harness.cli.doctor import processor, torch_pair
from harness.cli.stored import finished
from harness.jobs import Job
from harness.plan import plan_experiment
from harness.spec.files import EXPERIMENTS, REPOSITORY
from harness.store import Store
from tests.harness.conftest import Desk

HEAVY = (
    "torch",
    "pandas",
    "numpy",
    "mlflow",
    "submitit",
    "transformers",
    "lmms_eval",
    "matplotlib",
    "scipy",
    "rich",
    "jinja2",
)


def run(capsys: pytest.CaptureFixture, *arguments: str, code: int = 0) -> str:
    assert main([str(a) for a in arguments]) == code, capsys.readouterr().err
    return capsys.readouterr().out


def finish(desk: Desk, row: str = "Stage 1 Only", seconds: float = 50.0) -> None:
    """Mark the row's training, and what it needs, as done."""
    plan = plan_experiment(desk.table(), "proxy")
    store = Store("results")

    def publish(job) -> None:
        for parent in job.parents:
            publish(parent)
        if not store.is_done(job):
            store.ensure(job)
            attempt = store.begin_attempt(job)
            (attempt.out / "result").write_text("done")
            attempt.log.write_text("first line\nlast line\n")
            assert store.publish(attempt, seconds=seconds)

    publish(plan.checkpoints[row][0])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "--help"],
        ["plan", "table.yaml"],
        ["diff", "vreflection", "vreflection-release"],
        ["status"],
        ["verify"],
    ],
)
def test_looking_imports_nothing_heavy(arguments, desk: Desk):
    desk.table()
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from harness.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=desk.folder, check=False
    )
    assert done.stderr.strip().endswith("HEAVY []"), done.stderr


def test_help_imports_not_even_the_spec_language(desk: Desk):
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\nfrom harness.cli import main\ntry: main(['--help'])\nexcept SystemExit: print('pydantic' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=desk.folder, check=False)
    assert done.stderr.strip() == "False" and "plan" in done.stdout


def test_the_version_names_the_commit_of_the_code_that_runs(capsys):
    from harness.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=REPOSITORY, check=False).stdout[:12]
    said = capsys.readouterr().out
    assert ended.value.code == 0 and re.fullmatch(rf"vreflection-harness \d+\.\d+\.\d+ \({f'commit {head}' if head else 'no checkout'}.*\)\n", said)


def test_a_plan_says_what_is_shared_and_why_each_job_runs(desk: Desk, capsys):
    said = run(capsys, "plan", desk.table())
    assert "Table 3c · Training stage ablation · table.yaml" in said
    line = next(line for line in said.splitlines() if line.strip().startswith("stage1-seed0-") and "from base" in line)
    assert "no result yet" in line and line.endswith("for Stage 1 Only, Two-stage (Ours)")
    assert "4 trainings for 4 rows, 5 if none were shared" in said
    assert "58 jobs: 0 done, 58 to run; about " in said and "unknown" not in said
    assert not Path("results").exists()


def test_a_plan_forecasts_from_what_is_done(desk: Desk, capsys):
    finish(desk)
    said = run(capsys, "plan", desk.table())
    assert "58 jobs: 3 done, 55 to run; " in said
    desk.write("profiles/longer.yaml", desk.profile("proxy").replace("steps: 0.05", "steps: 0.1"))
    said = run(capsys, "plan", desk.table(), "--profile", "longer")
    line = next(line for line in said.splitlines() if line.strip().startswith("stage1-seed0-") and "from base" in line)
    assert "~1 min 40 s" in line  # twice the steps of a training that took 50 s


def test_a_plan_in_a_fresh_clone_says_the_minutes_that_the_run_begins_with(desk: Desk, capsys):
    from harness.dispatch.driver.backend import GraphRun
    from harness.dispatch.driver.loop import Driver
    from harness.durations import duration
    from harness.plan.cost import seconds_of

    said = run(capsys, "plan", desk.table())
    plan, store = plan_experiment(desk.table(), "proxy"), Store("elsewhere")
    profile, slots = plan.profile.value, os.cpu_count() or 1
    going = GraphRun(
        plan.graph, store, resources=profile.resources_of, forecast=lambda job: seconds_of(job, {}, profile.seconds), plugins=(), say=print
    )
    begun = Driver(going, SimpleNamespace(slots=slots), None).snapshot(store.statuses(plan.graph), [])
    assert 60 < begun.left < 3600 and f"about {duration(begun.left)} on {slots} slot" in said


def test_what_nothing_waits_for_is_not_needed(desk: Desk, capsys):
    plan = plan_experiment(desk.table(), "proxy")
    store = Store("results")
    store.ensure_all(plan.graph)
    attempt = store.begin_attempt(plan.checkpoints["Stage 1 Only"][0])
    assert store.publish(attempt, seconds=1.0)
    said = run(capsys, "plan", desk.table(), "--rows", "Stage 1 Only")
    assert "1 done, " in said and "2 not needed; " in said  # its training set and features
    assert next(line for line in said.splitlines() if line.strip().startswith("scenes-")).split()[1:3] == ["not", "needed"]
    assert [job.kind for job in plan.graph.needed(lambda job: job.kind == "train")].count("data") == 0
    assert len(plan.graph.needed(lambda job: False)) == len(plan.graph)


def test_an_overridden_plan_says_so(desk: Desk, capsys):
    assert "overridden by --set stage1.p=0.3: these results never enter" in run(
        capsys, "plan", desk.table(), "--set", "stage1.p=0.3"
    )


def test_explaining_a_row_names_the_source_of_every_value(desk: Desk, capsys):
    said = run(capsys, "plan", desk.table(), "--explain", "stage 2")
    lines = {line.split()[0]: line for line in said.splitlines() if line.startswith("  ")}
    assert said.startswith("Stage 2 Only: stage2\n")
    assert lines["stage2.teacher"].split(maxsplit=2)[1:] == ["random", "row table.yaml:8"]
    assert (
        lines["stage2.steps"].endswith(": 1250, scaled by 0.05")
        and "recipes/vreflection.yaml:" in lines["stage2.steps"]
    )
    assert lines["stage2.tau"].endswith("(assumed)") and "stage1.p" not in lines
    assert lines["max_tokens"].endswith(", instead of 16384")
    assert "profiles/proxy.yaml:" in lines["stage2.precision"] and "instead" not in lines["stage2.precision"], "both say bf16"


def test_a_plan_as_json_holds_jobs_and_cells(desk: Desk, capsys):
    plan = json.loads(run(capsys, "plan", desk.table(), "--json"))
    keys = {job["key"] for job in plan["jobs"]}
    (table,) = plan["experiments"]
    assert len(keys) == 58 and len(table["cells"]) == 20
    assert {job["key"] for cell in table["cells"] for job in cell["jobs"]} < keys
    assert all(
        parent in keys or parent.startswith("source:") for job in plan["jobs"] for parent in job["inputs"].values()
    )


def test_a_cluster_profile_shows_its_requests(desk: Desk, capsys):
    said = run(capsys, "plan", desk.table(), "--profile", "a800")
    assert "train: sbatch " in said and "--gpus-per-node=8" in said
    assert "4 trainings for 4 rows, 5 if none were shared: 576 instead of 768 GPU-hours" in said


def test_a_plan_warns_of_ranks_that_cannot_share_a_step(desk: Desk, capsys):
    desk.write("profiles/six.yaml", desk.profile("a800").replace("gpus: 8", "gpus: 6").replace("processes: 8", "processes: 6"))
    assert main(["plan", str(desk.table()), "--profile", "six"]) == 0
    refusal = "resources.train: global_batch 256 is no multiple of micro_batch 4 x 6 ranks; micro_batch can be nothing: change the number of ranks"
    assert f"warning: {refusal}; `run` would refuse here" in capsys.readouterr().err.splitlines()
    assert f"{refusal}; `run` would refuse here" in json.loads(run(capsys, "plan", "table.yaml", "--profile", "six", "--json"))["warnings"]


def test_a_cluster_profile_shows_what_its_time_limits_allow_beside_the_forecast(desk: Desk, capsys):
    longer = desk.profile("a800").replace("minutes: 2880", "minutes: 1200")
    desk.write("profiles/short.yaml", longer.replace("partition: a800", "partition: a800, throttle: 4"))
    said = run(capsys, "plan", desk.table(), "--profile", "short")
    lines = said.splitlines()
    assert "train  (4 jobs, each at most 20 h 00 min on 8 GPUs: 160 GPU-hours)" in lines
    assert "data  (1 job, at most 1 h 00 min)" in lines
    assert "forecast 576 GPU-hours and 24 jobs of unknown cost, at most 928 by the time limits" in lines  # 4 × 160 + 24 × 12
    assert lines.count("train: forecast 24 h 00 min is above its limit of 20 h 00 min: raise resources.train.minutes") == 1
    assert "about 72 h 00 min of work, 36 h 00 min along the longest chain, and 28 jobs of unknown cost" in lines[-1]
    assert "each array runs at most 4 jobs at once (throttle)" in lines, "the limit is stated for an array, not for all jobs"
    said = run(capsys, "why", "Two-stage (Ours)/mmvp", "table.yaml", "--profile", "short")
    assert "about 36 h 00 min of work, 3 jobs of unknown cost, at most 54 h 00 min by the time limits" in said
    assert "  train: forecast 24 h 00 min is above its limit" in said
    jobs = json.loads(run(capsys, "plan", "table.yaml", "--profile", "short", "--json"))["jobs"]
    assert {job["limit_seconds"] for job in jobs if job["kind"] == "train"} == {72000}


def test_several_tables_are_bounded_each_by_itself(desk: Desk, capsys):
    said = run(capsys, "plan", *(EXPERIMENTS / f"table{name}.yaml" for name in ("3c", "3d")), "--profile", "a800")
    bounds = [line.strip() for line in said.splitlines() if "by the time limits" in line]
    assert len(bounds) == 3 and bounds[0] == "forecast 576 GPU-hours and 24 jobs of unknown cost, at most 1824 by the time limits"
    assert "above its limit" not in said


def test_a_profile_that_runs_here_has_no_time_limits(desk: Desk, capsys):
    finish(desk)
    assert "limit" not in run(capsys, "plan", desk.table()) + run(capsys, "why", "Joint Train/mmvp", "table.yaml")


def test_recipes_differ_in_a_few_lines(capsys):
    said = run(capsys, "diff", "vreflection", "vreflection-release")
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines()[1:-1]}
    assert lines["align"] == ["bernoulli", "split"] and lines["lambda_bcm"] == ["0.1", "0.5"]
    assert lines["extract"] == ["strict*", "release"] and lines["stage2.lr"] == ["5e-06", "1e-06"]
    assert "steps" not in lines and said.endswith("assumed: the source does not state it, so the value is ours\n")


def test_rows_differ_in_what_they_say(capsys):
    table = EXPERIMENTS / "table3c.yaml"
    said = run(capsys, "diff", f"{table}:Stage 2 Only", ":Two-stage")
    assert [line.split() for line in said.splitlines()[1:]][:2] == [
        ["stages", "[stage2]", "[stage1,", "stage2]"],
        ["stage2.teacher", "random", "stage1"],
    ]


def test_a_stage_that_only_one_side_has_is_shown_with_its_losses_and_length(capsys):
    rows = [f"{EXPERIMENTS / 'table3c.yaml'}:Joint", ":Two-stage"]
    said = {line.split()[0]: line.split()[1:] for line in run(capsys, "diff", *rows).splitlines()[1:]}
    assert said["joint.lambda_dac"] == ["0.1", "–"] and said["stage1.steps"] == ["–", "2500"]
    assert "joint.p" not in said
    assert "joint.p " in run(capsys, "diff", *rows, "--all")


def test_a_recipe_does_not_differ_from_itself(capsys):
    assert "do not differ" in run(capsys, "diff", "vreflection", "vreflection")


def test_status_counts_and_names_failures(desk: Desk, capsys):
    assert run(capsys, "status") == "results: no jobs yet\n"
    finish(desk)
    assert run(capsys, "status").startswith("3 jobs: 3 done")
    job = plan_experiment(desk.table(), "proxy").checkpoints["Joint Train"][0]
    store = Store("results")
    store.ensure(job)
    store.begin_attempt(job).fail("code", "ValueError", "box is inverted in sample 17")
    said = run(capsys, "status", code=1)
    assert "1 failed" in said and "ValueError: box is inverted in sample 17" in said


def test_status_holds_forecasts_against_what_jobs_took(desk: Desk, capsys):
    finish(desk, "Stage 1 Only", seconds=50.0)
    finish(desk, "Joint Train", seconds=100.0)
    assert "forecast" not in run(capsys, "status"), "nothing of their shape had ended when they began"
    desk.write("profiles/proxy.yaml", re.sub("seconds: .*", "seconds: {train: 0.5}", desk.profile("proxy")))
    said = run(capsys, "status", "table.yaml")  # two trainings of 125 steps
    lines = [line.split("  ") for line in said.partition("forecast and actual time")[2].splitlines()[1:]]
    head, *rows = [[cell.strip() for cell in line if cell.strip()] for line in lines if line[0] == ""]
    assert head == ["jobs", "forecast", "actual", "ratio", "middle half of the jobs' ratios"]
    took = ["2", "2 min 05 s", "2 min 30 s", "1.20", "1.00 to 1.40"]
    assert rows == [["train", *took], ["table 3c", *took]]


def test_what_a_resumed_job_took_says_nothing_of_a_whole_one(desk: Desk):
    store = Store("results")
    jobs = [Job("evaluate", {"benchmark": "mmvp", "seed": i}) for i in range(2)] + [Job("data", {"n": 1})]
    for job in jobs:
        store.ensure(job)
        if job is not jobs[0]:
            store.begin_attempt(job).fail("interrupted", "Interrupted", "stopped")
        assert store.publish(store.begin_attempt(job), seconds=5.0)
    assert {job.key for job in finished(store)} == {jobs[0].key, jobs[2].key}, "data begin anew each time"


def test_why_says_what_a_cell_still_needs(desk: Desk, capsys):
    finish(desk)
    said = run(capsys, "why", "Stage 1 Only/mmvp", desk.table())
    assert (
        said.startswith("table 3c: Stage 1 Only / mmvp\n") and "3 of 8 jobs done; left: about 1 min 16 s of work" in said
    )
    assert main(["why", "Stagee 1 Only/mmvp", "table.yaml"]) == 2
    assert 'no cell "Stagee 1 Only/mmvp"; did you mean "Stage 1 Only/mmvp"?' in capsys.readouterr().err


def test_why_does_not_ask_for_a_training_whose_evaluations_are_done(desk: Desk, capsys):
    plan, store = plan_experiment(desk.table(), "proxy"), Store("results")
    for job in plan.cell("Joint Train", "mmvp").jobs.values():
        store.ensure(job)
        attempt = store.begin_attempt(job)
        (attempt.out / "samples.jsonl").write_text("")
        assert store.publish(attempt, seconds=1.0)
    assert "complete: 4 jobs done; 4 jobs no longer needed" in run(capsys, "why", "Joint Train/mmvp", "table.yaml")


def test_a_row_of_differences_is_not_called_a_row_that_was_not_run(desk: Desk, capsys):
    rows = "  - Gain: {delta: {of: Two-stage (Ours), over: Stage 1 Only}}\nclaims:"
    path = desk.table(("claims:", rows))
    assert "a difference, shown once both rows have a value: Two-stage (Ours) minus Stage 1 Only" in run(capsys, "why", "Gain/mmvp", path)
    assert "not run: Gain" not in run(capsys, "plan", path)


def test_a_log_is_found_by_the_first_digits_of_a_key(desk: Desk, capsys):
    finish(desk)
    job = plan_experiment(desk.table(), "proxy").checkpoints["Stage 1 Only"][0]
    assert run(capsys, "logs", job.key[:8]) == "first line\nlast line\n"
    assert run(capsys, "logs", job.key[:8], "-n", "1") == "last line\n"
    assert main(["logs", "ffff0000"]) == 2 and "no such job" in capsys.readouterr().err


def test_a_job_of_a_living_owner_is_not_released(desk: Desk, capsys):
    job = plan_experiment(desk.table(), "proxy").checkpoints["Joint Train"][0]
    store = Store("results")
    store.ensure(job)
    store.begin_attempt(job)
    assert main(["release", job.key12]) == 2
    assert "is alive; stop it first" in capsys.readouterr().err


def test_a_damaged_job_is_said_by_every_verb_and_made_anew_only_when_asked(desk: Desk, capsys):
    finish(desk)
    table, store = desk.table(), Store("results")
    training = plan_experiment(table, "proxy").checkpoints["Stage 1 Only"][0]
    assert "3 finished jobs unchanged" in run(capsys, "verify")
    (store.outputs(training) / "result").write_text("DONE")
    asked = ["plan", table], ["status"], ["status", table], ["why", "Stage 1 Only/mmvp", table], ["verify"], ["retry", training.key]
    for words in asked:
        assert main([str(word) for word in words]) == 2
        told = capsys.readouterr()
        line = next(line for line in (told.out + told.err).splitlines() if "differs from what was written" in line)
        assert f"{training.name}/attempts/1/out/result " in line and f"run.py retry {training.key12} --damaged" in line
    assert "1 damaged job set aside" in run(capsys, "retry", training.key12, "--damaged")
    assert "2 done" in run(capsys, "plan", table) and "2 finished jobs" in run(capsys, "verify")
    assert "no damaged job has a key that begins like this" in error(capsys, "retry", training.key12, "--damaged")


def test_one_unreadable_spec_does_not_keep_status_from_the_rest(desk: Desk, capsys):
    finish(desk)
    data = next(iter(Path("results/data").iterdir()))
    (data / "spec.json").write_text("")
    told = run(capsys, "status", code=2)
    assert "2 done, 1 damaged" in told and "spec.json" in told
    run(capsys, "retry", "--damaged")
    assert "2 done" in run(capsys, "status"), "a job whose parent's folder is gone can be shown"


def error(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "folder"),
    [([], "reports"), (["--profile", "smoke"], "reports/smoke"), (["--profile", "my/lab.yaml"], "reports/lab"),
     (["--profile", "smoke", "--reports", "here"], "here")],
)  # fmt: skip
def test_reports_of_another_profile_do_not_replace_those_of_proxy(words, folder):
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    assert report.reports_folder(parser.parse_args(["table.yaml", *words])) == Path(folder)


def test_nothing_to_cancel_or_retry_is_said(desk: Desk, capsys):
    finish(desk)
    assert "no job of this store is running" in run(capsys, "cancel")
    assert run(capsys, "retry") == "no job failed\n"


def test_a_file_without_a_verb_is_run(desk: Desk, capsys):
    assert main(["nowhere.yaml"]) == 2
    assert 'no such experiment "nowhere.yaml"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("torch", "vision", "grade", "words"),
    [
        ("2.13.0", "0.28.0", "ok", "torch 2.13.0, torchvision 0.28.0"),
        ("2.13.0+cpu", "0.28.0+cpu", "ok", ""),
        ("2.13.0+cpu", "0.28.0", "error", "different builds"),
        ("2.13.0", "0.29.0", "error", "torch 2.13.0 goes with torchvision 0.28"),
    ],
)
def test_the_doctor_knows_a_pair_that_was_built_apart(torch, vision, grade, words):
    found, text = torch_pair({"torch": torch, "torchvision": vision}.__getitem__)
    assert found == grade and words in text


@pytest.mark.parametrize(
    ("told", "grade", "words"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512dq avx512bw avx512vl\n", "ok", "itself"),
        ("flags\t\t: fpu avx2 avx_ne_convert\n", "ok", "itself"),
        ("Features\t: fp asimd bf16 sve\n", "ok", "itself"),
        ("model name\t: one with bf16\nflags\t\t: fpu avx avx2\n", "warning", "several times as long"),
        ("", "ok", "not known"),
    ],
)
def test_the_doctor_knows_a_processor_that_is_slow_at_bf16(told, grade, words, tmp_path):
    (tmp_path / "cpuinfo").write_text(told)
    found, text = processor(tmp_path / "cpuinfo")
    assert found == grade and words in text


@pytest.mark.parametrize(("able", "said"), [(False, True), (True, False), (None, False)])
def test_a_plan_says_when_its_forecast_is_of_a_faster_kind_of_processor(desk: Desk, capsys, monkeypatch, able, said):
    monkeypatch.setattr("harness.cli.doctor.multiplies_bf16", lambda: able)
    words = "the forecast is for a CPU with AVX-512"
    assert (words in run(capsys, "plan", EXPERIMENTS / "table3c.yaml", "--results", "r")) is said
    assert words not in run(capsys, "plan", EXPERIMENTS / "table3c.yaml", "--profile", "smoke", "--results", "r"), "nothing stated, and fp32"


def test_the_doctor_finds_a_folder_that_cannot_be_written(desk: Desk, capsys):
    (desk.folder / "taken").write_text("a file")
    assert re.search(r"error +results", run(capsys, "doctor", "--results", "taken/results", code=1))


def test_the_doctor_counts_the_disk_of_trainings_that_are_left(desk: Desk, capsys, monkeypatch):
    counted = []
    monkeypatch.setattr("harness.dispatch.preflight.disk", lambda profile, jobs, folder: counted.append(sum(job.kind == "train" for job in jobs)) or [])
    for row in (None, "Stage 1 Only", "Two-stage (Ours)"):
        if row:
            finish(desk, row)
        main(["doctor", "--profile", "proxy", str(desk.table())])
    every = len([job for job in plan_experiment(desk.table(), "proxy").graph if job.kind == "train"])
    assert counted == [every, every - 1, every - 2]


def test_the_doctor_looks_for_the_training_data_that_a_person_brought(desk: Desk, capsys):
    profile = "extends: smoke\ndata: {source: external, meta: nowhere/meta.json, revision: mine}\n"
    desk.write("profiles/mine.yaml", profile)
    table = desk.table()
    said = run(capsys, "doctor", "--profile", "mine", str(table), code=1)
    assert "nowhere/meta.json" in said and "found and checked" not in said


def test_a_plan_on_data_that_are_not_here_warns_that_a_run_would_refuse(desk: Desk, capsys):
    desk.write("profiles/mine.yaml", "extends: smoke\ndata: {source: external, meta: nowhere/meta.json, revision: mine}\n")
    table = str(desk.table())
    assert main(["plan", table, "--profile", "mine"]) == 0, "a cluster's table is planned on a laptop too"
    told = capsys.readouterr()
    assert told.err.startswith("warning: training data: ") and "nowhere/meta.json" in told.err and told.err.count("\n") == 1
    assert "nowhere/meta.json" in json.loads(run(capsys, "plan", table, "--profile", "mine", "--json"))["warnings"][0]
    assert main([table, "--profile", "mine"]) == 2
    assert "nowhere/meta.json" in capsys.readouterr().err and not list(Path("results").glob("train/*/attempts"))


def test_a_table_without_a_row_is_no_side_of_a_difference(capsys):
    assert main(["diff", "experiments/table3c.yaml", "vreflection"]) == 2
    told = capsys.readouterr().err
    assert told == 'experiments/table3c.yaml: is a table; name one of its rows, as in "experiments/table3c.yaml:Stage 1 Only"\n'


def test_a_plan_tells_rows_apart_that_decode_one_checkpoint_differently(desk: Desk, capsys):
    text = (EXPERIMENTS / "visreflect.yaml").read_text()
    (desk.folder / "zoom.yaml").write_text(text[: text.index("comparisons:")])
    rows = ["--rows", "Base model", "Zooming baseline", "--columns", "vstar"]
    assert main(["plan", str(desk.folder / "zoom.yaml"), *rows, "--profile", "smoke", "--results", str(desk.folder / "new")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  base model  1 job: vstar")]
    assert [line.rpartition("  ")[2] for line in lines] == ["for Base model", "for Zooming baseline"]


def test_a_plan_names_the_base_model_and_not_the_data(desk: Desk, capsys):
    named = []
    for data in ("", "data: {source: external, meta: nowhere.json, revision: v1}\n"):
        desk.write("profiles/mine.yaml", f"extends: smoke\ntitle: mine\n{data}")
        assert main(["plan", str(desk.table()), "--profile", "mine"]) == 0
        named += [line.rpartition("; base ")[2] for line in capsys.readouterr().out.splitlines() if "; base " in line]
    assert len(named) == 2 and named[0] == named[1]
