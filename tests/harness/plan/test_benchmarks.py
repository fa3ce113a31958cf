"""What identifies a benchmark that exists already: its content or its commit, never a path or a name that may move."""

import os
import shutil
from pathlib import Path

import pytest

from harness.plan import plan_experiment, sources
from harness.spec.errors import SpecError
from harness.spec.files import EXPERIMENTS, load_profile
from harness.verdict import Outcome, judge
from models.config import EvaluateSpec, ExternalMirror, Images
from tests.harness.conftest import Desk, fake_digest

MMVP = "mmvp: {source: proxy, n: 16}"
COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


def key(desk: Desk, entry: str, **options) -> str:
    text = desk.profile("smoke")
    assert MMVP in text
    desk.write("profiles/mine.yaml", text.replace(MMVP, f"mmvp: {entry}"))
    plan = plan_experiment(desk.table(), "mine", tasks=fake_digest, **options)
    return next(job.key for job in plan.graph if job.kind == "mirror" and job.payload["benchmark"] == "mmvp")


def test_a_folder_is_known_by_its_content_wherever_it_lies(desk: Desk):
    desk.write("one/data/train-0.parquet", "rows")
    desk.write("one/README.md", "card")
    shutil.copytree("one", "two")
    first = key(desk, "{source: external, path: one, revision: v1}")
    assert key(desk, "{source: external, path: ./two}") == first
    desk.write("one/data/train-0.parquet", "ROWS")
    assert key(desk, "{source: external, path: one, revision: v1}") != first
    desk.write("two/.cache/leavings", "")
    assert key(desk, "{source: external, path: two}") == first


def test_a_changed_file_is_seen_though_digests_are_kept(desk: Desk):
    desk.write("one/train-0.parquet", "rows")
    desk.write("results/.digests.json", "{}")
    kept = desk.folder / "results" / ".digests.json"
    first = key(desk, "{source: external, path: one}", digests=kept)
    assert str(desk.folder / "one") in kept.read_text()
    assert key(desk, "{source: external, path: one}", digests=kept) == first
    desk.write("one/train-0.parquet", "ROWS")
    os.utime("one/train-0.parquet", (1, 1))
    assert key(desk, "{source: external, path: one}", digests=kept) != first


def test_a_clip_that_is_a_link_to_nothing_is_missing_and_any_other_file_is_named(desk: Desk):
    """Whether the clips have a folder of their own or lie among the questions."""
    for name in ("one", "clips"):
        desk.write(f"{name}/train-0.parquet", "rows")
        desk.write(f"{name}/a.mp4", "clip")
    entry = "{source: external, path: one}"
    whole = key(desk, entry)
    profile, spec = load_profile(str(desk.folder / "profiles" / "mine.yaml")), ExternalMirror(benchmark="videomme", path="one", clips="clips")
    listed = sources.clips(profile, spec, "videomme")
    for name in ("one", "clips"):
        os.symlink("b.mp4", f"{name}/b.mp4")
        os.symlink("nowhere.mp4", f"{name}/c.mp4")
    assert key(desk, entry) == whole and sources.clips(profile, spec, "videomme") == listed
    os.symlink("nowhere.parquet", "one/train-1.parquet")
    with pytest.raises(SpecError, match=r"mine.yaml:\d+: benchmarks.mmvp.path: .*train-1.parquet is a link to nothing; bring back what it points to"):
        key(desk, entry)


def test_a_branch_stands_for_the_commit_that_the_hubs_cache_holds(desk: Desk, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(desk.folder / "hf"))
    entry = "{source: external, path: some/Set, revision: main}"
    unknown = key(desk, entry)
    desk.write("hf/hub/datasets--some--Set/refs/main", COMMIT)
    desk.write(f"hf/hub/datasets--some--Set/snapshots/{COMMIT}/README.md", "")
    known = key(desk, entry)
    assert known != unknown and key(desk, f"{{source: external, path: some/Set, revision: {COMMIT}}}") == known
    desk.write("hf/hub/datasets--some--Set/refs/main", COMMIT[::-1])
    assert key(desk, entry) != known


def test_maps_of_a_benchmark_without_evidence_boxes_are_not_possible_and_no_job(desk: Desk):
    desk.write("one/train-0.parquet", "rows")
    table = desk.table(("columns: [mmvp, hrbench4k, blink]", "columns: []\nmaps: {benchmarks: [mmvp, hrbench4k], samples: 2}"))
    text = "\n".join(line for line in table.read_text().splitlines() if "reported" not in line or "Two-stage" in line)
    text = text.split("claims:")[0].replace(", reported: [72.3, 72.6, 56.4]", "")
    desk.write("maps.yaml", text)
    desk.write("profiles/mine.yaml", desk.profile("smoke").replace(MMVP, "mmvp: {source: external, path: one}"))
    plan = plan_experiment("maps.yaml", "mine", tasks=fake_digest)
    cells = {cell.column.benchmark: cell for cell in plan.cells}
    assert cells["mmvp"].not_run.startswith("not possible here: mmvp has no evidence boxes") and not cells["mmvp"].jobs
    assert cells["hrbench4k"].jobs and not cells["hrbench4k"].not_run
    assert [job.payload.get("benchmark") for job in plan.graph if job.kind == "maps"] == [None, "hrbench4k"]
    desk.write("one/boxes.jsonl", "")
    assert plan_experiment("maps.yaml", "mine", tasks=fake_digest).cells[1].jobs


@pytest.mark.parametrize("proxy", [False, True])
def test_part_of_a_benchmark_gets_no_verdict(proxy):
    import numpy as np

    from harness.spec.reported import parse
    from harness.stats import Answers, estimate

    measured = estimate([Answers(tuple(range(14)), tuple(range(14)), np.arange(14) % 2 * 1.0)])
    verdict = judge(measured, parse("90.0"), 300, proxy=proxy, part="14 of 300 questions")
    assert verdict.outcome is (Outcome.PROXY if proxy else Outcome.PART) and verdict.difference is None
    if not proxy:
        assert verdict.text.startswith("part of the benchmark: 14 of 300 questions")


def evaluation(profile: str, protocol: str, **options) -> EvaluateSpec:
    plan = plan_experiment(EXPERIMENTS / "table3c.yaml", profile, tasks=fake_digest, protocols=["paper", protocol], **options)
    job = plan.cell("Stage 1 Only", "hrbench4k", protocol).jobs[0, "own"]
    return EvaluateSpec.model_validate(job.payload)


def test_a_protocols_resolution_and_decoding_are_in_the_key():
    paper, stock = (evaluation("a800", protocol) for protocol in ("paper", "stock"))
    assert (paper.images.min_pixels, paper.images.max_pixels) == (3136, 12845056)
    assert (stock.images.min_pixels, stock.images.max_pixels) == (256 * 28 * 28, 2048 * 28 * 28)
    assert (paper.fetched, stock.fetched) == ("as_is", "qwen_vl_utils")
    assert paper.decode.repetition_penalty == stock.decode.repetition_penalty == "checkpoint"
    assert paper.decode.penalise_picked and not stock.decode.penalise_picked
    assert (paper.decode.ends, stock.decode.ends) == ("all", "tokenizer")


def test_lmms_evals_own_limits_are_what_the_stock_protocol_says():
    import ast
    import importlib.util

    from harness.spec.files import load_benchmark

    (package,) = importlib.util.find_spec("lmms_eval").submodule_search_locations
    source = ast.parse((Path(package) / "models" / "simple" / "qwen2_5_vl.py").read_text())
    function = next(n for n in ast.walk(source) if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    defaults = dict(zip([a.arg for a in function.args.args][-len(function.args.defaults) :], function.args.defaults, strict=True))
    values = {name: eval(compile(ast.Expression(defaults[name]), "", "eval")) for name in ("min_pixels", "max_pixels")}
    for name in ("mmvp", "blink", "vstar", "hrbench4k", "hrbench8k", "mmerealworld_lite"):
        stock = load_benchmark(name).value.inference["stock"]
        assert {"min_pixels": stock.min_pixels, "max_pixels": stock.max_pixels} == values


def test_a_limit_that_a_person_states_wins_under_paper_and_not_under_stock():
    changed = {"overrides": ["images.max_pixels=401408"]}
    assert evaluation("a800", "paper", **changed).images.max_pixels == 401408
    assert evaluation("a800", "stock", **changed).images.max_pixels == 2048 * 28 * 28


def test_the_proxy_is_evaluated_at_the_limits_of_its_training_without_a_penalty():
    for protocol in ("paper", "stock"):
        found = evaluation("proxy", protocol)
        assert found.images == Images(min_pixels=784) and found.fetched == "as_is"
        assert (found.decode.repetition_penalty, found.decode.ends, found.decode.penalise_picked) == (1.0, "all", False)
