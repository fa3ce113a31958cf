"""Comparison systems: never a number that was not measured, always a reason, decided before anything is computed."""

import pytest

from harness.plan import Plan, plan_experiment
from harness.plan.external import system_of
from harness.spec.errors import SpecError
from harness.spec.experiment import External
from harness.spec.files import EXPERIMENTS, load_profile
from tests.harness.conftest import Desk, fake_digest

SET = {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "OPENAI_API_KEY": "sk-1"}
GPT = "external: {endpoint: OPENAI_BASE_URL, model: gpt-4o-2024-08-06}"


def planned(desk: Desk, row: str = GPT, profile: str = "asking", **choices) -> Plan:
    desk.write("profiles/asking.yaml", "extends: smoke\ncomparisons: true\n")
    path = desk.table(("stages: [joint]", row))
    return plan_experiment(path, profile, tasks=fake_digest, **choices)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    for name in SET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def given(monkeypatch) -> None:
    for name, value in SET.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("profile", ["proxy", "a800"])
def test_every_comparison_system_of_the_paper_says_why_it_was_not_run(profile, desk: Desk):
    for name in ("table1", "table2"):
        desk.write(f"{name}.yaml", (EXPERIMENTS / f"{name}.yaml").read_text())
        plan = plan_experiment(f"{name}.yaml", profile, tasks=fake_digest)
        rows = [row.label for row in plan.rows if row.row.external]
        assert len(rows) >= 3
        asked = {job for cell in plan.cells if cell.row in rows for job in cell.jobs.values()}
        assert all(len(cell.not_run) > 20 for cell in plan.cells if cell.row in rows)
        assert not any(job in plan.graph for job in asked) and (not asked or profile == "a800")


def test_a_profile_that_asks_nobody_says_so(desk: Desk, monkeypatch):
    given(monkeypatch)
    cell = planned(desk, profile="smoke").cell("Joint Train", "mmvp")
    assert cell.jobs == {} and cell.not_run == "profile smoke asks no other systems (comparisons: true in a profile does)"


def test_an_endpoint_whose_address_and_key_are_set_is_an_ordinary_job(desk: Desk, monkeypatch):
    given(monkeypatch)
    plan = planned(desk, seeds=2, protocols=["paper", "stock"])
    cell = plan.cell("Joint Train", "mmvp")
    (job,) = set(cell.jobs.values())
    assert cell.not_run == "" and set(cell.by_seed()) == {0, 1} and job in plan.graph
    assert job.kind == "ask" and job.name.startswith("gpt-4o-2024-08-06-mmvp-paper-")
    assert job.payload["system"] == {"adapter": "openai", "model": "gpt-4o-2024-08-06"}
    assert job.inputs["mirror"] == plan.cell("Stage 1 Only", "mmvp").by_seed()[0].inputs["mirror"]
    assert plan.cell("Joint Train", "mmvp", "stock").by_seed()[0] != job


def test_neither_address_nor_key_nor_their_variables_names_are_in_the_jobs_key(desk: Desk, monkeypatch):
    given(monkeypatch)
    one = planned(desk).cell("Joint Train", "mmvp").by_seed()[0]
    monkeypatch.setenv("MINE", "http://127.0.0.1:2/v1")
    other = planned(desk, GPT.replace("OPENAI_BASE_URL", "MINE")).cell("Joint Train", "mmvp").by_seed()[0]
    assert one == other and "sk-1" not in repr(one) and "127.0.0.1" not in repr(one)
    dated = planned(desk, GPT.replace("2024-08-06", "2024-11-20")).cell("Joint Train", "mmvp").by_seed()[0]
    assert dated != one


def test_without_an_address_or_a_key_nothing_is_planned_but_the_job_is_known(desk: Desk, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    plan = planned(desk)
    cell = plan.cell("Joint Train", "mmvp")
    assert cell.not_run == (
        "gpt-4o-2024-08-06 answers at an endpoint, and the environment lacks OPENAI_BASE_URL (the address of an "
        "OpenAI-compatible server, as in https://api.openai.com/v1)"
    )
    assert cell.by_seed()[0] not in plan.graph and "Joint Train" not in plan.checkpoints


def hub(desk: Desk, commit: str = "c" * 40):
    home = desk.folder / "hub" / "models--OpenGVLab--InternVL3-8B"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots" / commit).mkdir(parents=True)
    (home / "snapshots" / commit / "config.json").write_text("{}")
    return home


def test_a_checkpoint_in_the_hubs_cache_is_known_by_its_commit(desk: Desk):
    home = hub(desk)
    row = "external: {repo: OpenGVLab/InternVL3-8B, adapter: qwen2_5_vl, arguments: {max_pixels: 1000}}"
    job = planned(desk, row).cell("Joint Train", "mmvp").by_seed()[0]
    assert job.kind == "evaluate" and job.inputs["checkpoint"].digest == f"OpenGVLab/InternVL3-8B@{'c' * 40}"
    assert job.inputs["checkpoint"].location == str(home / "snapshots" / ("c" * 40))
    assert job.payload["system"] == {"adapter": "qwen2_5_vl", "arguments": {"max_pixels": 1000}}


def test_a_checkpoint_in_a_folder_is_known_by_its_content(desk: Desk):
    row = "external: {checkpoint: base, adapter: qwen2_5_vl}"
    first = planned(desk, row).cell("Joint Train", "mmvp").by_seed()[0]
    (desk.folder / "base" / "model.safetensors").write_bytes(b"others")
    assert planned(desk, row).cell("Joint Train", "mmvp").by_seed()[0] != first


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("repo: OpenGVLab/InternVL3-8B, adapter: qwen2_5_vl",
         "the weights of OpenGVLab/InternVL3-8B are not in this machine's hub cache: hf download OpenGVLab/InternVL3-8B "),
        ("checkpoint: gone, adapter: qwen2_5_vl", "there is no checkpoint gone beside the experiment"),
        ("checkpoint: base, adapter: qwen2_5_vll", "lmms-eval has no model 'qwen2_5_vll'; did you mean 'qwen2_5_vl'"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(row, reason, desk: Desk):
    plan = planned(desk, f"external: {{{row}}}")
    cell = plan.cell("Joint Train", "mmvp")
    assert cell.not_run.startswith(reason) and not any(job in plan.graph for job in cell.jobs.values())


def test_a_system_that_cannot_be_asked_at_all_says_what_the_spec_says(desk: Desk):
    profile = load_profile("smoke", desk.folder)
    external = External(not_run="no weights are public")
    assert system_of(external, profile, desk.folder) == "no weights are public"


@pytest.mark.parametrize(
    ("external", "said"),
    [
        ("{}", "needs one of endpoint, repo, checkpoint, not_run; it has none"),
        ("{endpoint: OPENAI_BASE_URL}", "endpoint: needs model: too, the name to ask for there, as in model: gpt-4o-"),
        ("{repo: a/b}", "repo: needs adapter: too, the lmms-eval model that runs it, as in adapter: internvl3"),
        ("{endpoint: OPENAI_BASE_URL, model: m, not_run: why}", "it has endpoint and not_run"),
        ("{repo: a/b, adapter: x, model: m}", "model: belongs to endpoint:, not to repo:"),
        ('{endpoint: "https://api.openai.com/v1", model: m}', "external.endpoint: must be the name of an environment variable"),
        ("{endpoint: OPENAI_BASE_URL, model: m, key: sk-12345}", "external.key: must be the name of an environment variable"),
        ("{endpoint: OPENAI_BASE_URL, model: m, arguments: {api_key: x}}", "external.arguments: api_key: is given by"),
        ("{endpont: OPENAI_BASE_URL, model: m}", 'external.endpont: no such field; did you mean "endpoint"?'),
    ],
)
def test_a_row_that_says_it_wrongly_is_one_line_without_the_secret(external, said, desk: Desk):
    with pytest.raises(SpecError) as error:
        planned(desk, f"external: {external}")
    assert str(error.value).startswith('table.yaml:9: row "Joint Train": external') and said in str(error.value)
    assert "sk-12345" not in str(error.value)
