"""Systems of others: lmms-eval's own client against a real server, and its own model on a small checkpoint."""

from __future__ import annotations

import json
import math
import sys
import types
from importlib.util import find_spec

import pytest

from models.config import DecodeSpec, EvaluateSpec, System
from models.evaluation import scores
from models.evaluation.tasks import TASKS, digest, tasks_for
from models.run import Interrupted, LocalRun
from tests.endpoint import KEY, Request, endpoint

SYSTEM = System(adapter="openai", model="tiny", arguments={"max_retries": 1, "retry_backoff_s": 0})
CELLS = [(benchmark, protocol) for benchmark, protocols in TASKS.items() for protocol in protocols]


def spec(benchmark: str, protocol: str = "paper", system: System = SYSTEM) -> EvaluateSpec:
    decode = DecodeSpec(latent_steps=0, max_new_tokens=6)
    return EvaluateSpec(
        benchmark=benchmark, protocol=protocol, tasks=digest(benchmark, protocol), decode=decode, system=system
    )


def rows_in(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def second_letter(request: Request) -> str:
    return f"The answer is {request.letters[1]}."


def asked(address: str, system: System = SYSTEM, requests: int = 3):
    from models.evaluation.others import Others

    return Others.at(address, KEY, system, requests=requests)


@pytest.mark.parametrize(("benchmark", "protocol"), CELLS)
def test_an_endpoint_answers_every_benchmark_under_both_protocols(benchmark, protocol, mirrors, tmp_path):
    with endpoint(second_letter) as server:
        others = asked(server.address)
        result = others.evaluate(LocalRun(tmp_path), spec(benchmark, protocol), mirror=mirrors[benchmark], batch_size=3)
    rows = rows_in(tmp_path)
    assert len(rows) == result["n"] == len(server.requests)
    assert list(dict.fromkeys(row["task"] for row in rows)) == tasks_for(benchmark, protocol)
    scores.compare(scores.recompute(rows), result["aggregates"])
    assert any(row["correct"] for row in rows) and not all(row["correct"] for row in rows)
    assert all(request.pictures and request.letters for request in server.requests)
    assert {request.payload["model"] for request in server.requests} == {"tiny"}
    assert {request.authorization for request in server.requests} == {f"Bearer {KEY}"}
    if protocol == "paper":
        assert {request.payload["max_tokens"] for request in server.requests} == {6}
    assert result["system"] == {"asked_for": "tiny", "host": "127.0.0.1", "answered_by": ["tiny-2024-08-06"]}
    assert result["started"] is None and not result["truncated"]


def test_the_picture_arrives_as_it_is_and_questions_have_the_clusters_of_our_own_evaluations(
    checkpoint, images, mirrors, tmp_path
):
    from models.evaluation import Session
    from tests.models.evaluation.conftest import picture

    with endpoint(second_letter) as server:
        asked(server.address).evaluate(LocalRun(tmp_path / "theirs"), spec("mmvp"), mirror=mirrors["mmvp"], batch_size=1)
    sent = {request.pictures[0].convert("RGB").tobytes() for request in server.requests}
    assert sent == {picture(k).tobytes() for k in range(6)}
    own = EvaluateSpec(
        benchmark="mmvp", tasks=digest("mmvp"), decode=DecodeSpec(latent_steps=1, max_new_tokens=2), images=images,
        precision="fp32",
    )  # fmt: skip
    Session(checkpoint, precision="fp32").evaluate(LocalRun(tmp_path / "ours"), own, mirror=mirrors["mmvp"], batch_size=6)
    theirs, ours = rows_in(tmp_path / "theirs"), rows_in(tmp_path / "ours")
    assert [(r["task"], r["doc_id"], r["cluster"], r["target"]) for r in theirs] == [
        (r["task"], r["doc_id"], r["cluster"], r["target"]) for r in ours
    ]


def test_a_refusal_is_an_error_that_shows_no_key_and_keeps_what_was_answered(mirrors, tmp_path, capfd):
    def refuses_one(request: Request) -> str | tuple[int, str]:
        return (401, f"no such key {KEY}") if len(server.requests) == 5 else second_letter(request)

    with endpoint(refuses_one) as server:
        others = asked(server.address, requests=1)
        run = LocalRun(tmp_path / "first")
        with pytest.raises(ConnectionError, match="1 of 1 questions got no answer.*401.*no such key <the key>") as error:
            others.evaluate(run, spec("vstar"), mirror=mirrors["vstar"], batch_size=1)
        kept = sorted(run.checkpoints.glob("checkpoint-*/COMPLETE"))
    assert KEY not in str(error.value) and KEY not in "".join(capfd.readouterr())
    assert [file.parent.name for file in kept] == ["checkpoint-4"]
    with endpoint(second_letter) as server:
        again = LocalRun(tmp_path / "second", resume_from=kept[-1].parent)
        asked(server.address).evaluate(again, spec("vstar"), mirror=mirrors["vstar"], batch_size=1)
        assert len(server.requests) == 1, "what was answered is not asked again"
    assert len(rows_in(tmp_path / "second")) == 5


def test_a_stop_between_two_parts_keeps_the_answers(mirrors, tmp_path):
    with endpoint(second_letter) as server:
        run = LocalRun(tmp_path, stop=True)
        with pytest.raises(Interrupted):
            asked(server.address, requests=1).evaluate(run, spec("hrbench4k"), mirror=mirrors["hrbench4k"], batch_size=1)
        assert not server.requests, "it stops before the first part"


def test_a_checkpoint_through_lmms_evals_own_model(checkpoint, mirrors, tmp_path, monkeypatch):
    from models.evaluation.others import Others

    monkeypatch.setitem(sys.modules, "decord", types.ModuleType("decord"))  # reads videos, of which there are none
    system = System(adapter="qwen2_5_vl", arguments={"min_pixels": 1024, "max_pixels": 262144})
    others = Others.of(checkpoint, system)
    result = others.evaluate(LocalRun(tmp_path), spec("mmvp", system=system), mirror=mirrors["mmvp"], batch_size=2)
    assert len(rows_in(tmp_path)) == result["n"] == 6
    assert result["system"]["adapter"].endswith("qwen2_5_vl.Qwen2_5_VL")
    scores.compare(scores.recompute(rows_in(tmp_path)), result["aggregates"])


def test_a_spec_of_another_system_is_refused(mirrors, tmp_path):
    other = System(adapter="openai", model="other")
    with endpoint(second_letter) as server, pytest.raises(ValueError, match="this session was made for"):
        asked(server.address).evaluate(LocalRun(tmp_path), spec("mmvp", system=other), mirror=mirrors["mmvp"], batch_size=1)


def test_what_an_adapter_lacks_is_known_without_importing_it():
    from models.evaluation.adapters import lacking

    assert lacking("openai") == ""
    assert ("decord" in lacking("qwen2_5_vl")) == (find_spec("decord") is None), "the older model that it builds on has it"
    assert lacking("intrnvl3").startswith("lmms-eval has no model 'intrnvl3'; did you mean 'internvl3'")


def test_an_adapter_that_imports_a_package_that_is_not_installed_names_it(monkeypatch):
    from models.evaluation import adapters

    monkeypatch.setattr(adapters, "_imports", lambda file: ["os", "no_such_package"])
    adapters.lacking.cache_clear()
    assert adapters.lacking("internvl3") == "lmms-eval's internvl3 imports no_such_package, which is not installed"
    adapters.lacking.cache_clear()


def likeliest(request: Request, text: str) -> list[tuple[str, dict[str, float]]]:
    """" B" has 0.6, " A" and "A" 0.1 each; nothing else is listed but a token of 0.01."""
    pieces = [text] if text.strip() in "ABCDE" else ["The answer is", f" {request.letters[1]}", "."]
    sure = {"The answer is": -0.01, ".": -0.02}
    b = f" {request.letters[1]}"
    return [(p, {p: sure[p], "x": -5.0} if p in sure else {b: math.log(0.6), " A": math.log(0.1), "A": math.log(0.1), "z": math.log(0.01)}) for p in pieces]


def test_an_endpoint_that_lists_likeliest_tokens_gives_log_likelihoods_with_their_bound(mirrors, tmp_path):
    with endpoint(second_letter, likeliest=likeliest) as server:
        result = asked(server.address).evaluate(LocalRun(tmp_path), spec("vstar"), mirror=mirrors["vstar"], batch_size=3)
    assert all(request.payload["logprobs"] and request.payload["top_logprobs"] == 20 for request in server.requests)
    assert "likelihoods" not in result
    rows = {(row["groups"]["category"], row["target"]): row for row in rows_in(tmp_path)}
    two = rows["relative_position", "A"]
    assert two["loglik"] == pytest.approx(math.log(0.2 / 0.8), abs=1e-5) and two["loglik_vocabulary"] == pytest.approx(math.log(0.2), abs=1e-5)
    assert two["letter_written"] and "loglik_bound" not in two
    four = rows["direct_attributes", "B"]
    assert four["loglik_bound"] and four["loglik"] == pytest.approx(math.log(0.6 / (0.6 + 0.2 + 0.01 + 0.01)), abs=1e-5)


def test_an_endpoint_that_refuses_log_probabilities_is_asked_without_them_and_the_result_says_so(mirrors, tmp_path):
    def refusing(request: Request):
        return (400, "logprobs is not supported by this model") if "logprobs" in request.payload else second_letter(request)

    with endpoint(refusing) as server:
        others = asked(server.address, requests=1)
        result = others.evaluate(LocalRun(tmp_path), spec("vstar"), mirror=mirrors["vstar"], batch_size=3)
    assert sum("logprobs" in request.payload for request in server.requests) == 1, "once refused, never asked again"
    assert result["likelihoods"] == "the endpoint refuses to give log-probabilities" and result["n"] == 5
    assert not any("loglik" in row for row in rows_in(tmp_path))
