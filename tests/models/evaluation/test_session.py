"""Miniature mirrors of every benchmark through lmms-eval's own simple_evaluate."""

import json
from dataclasses import dataclass

import pytest

from models.config import DecodeSpec, EvaluateSpec
from models.evaluation import scores
from models.evaluation.tasks import TASKS, digest, tasks_for
from models.run import Interrupted, LocalRun
from tests.models.evaluation.conftest import replace_decoding

CELLS = [(benchmark, protocol) for benchmark, protocols in TASKS.items() for protocol in protocols]


@pytest.fixture(scope="module")
def session(checkpoint, mirrors):
    from models.evaluation import Session

    return Session(checkpoint, precision="fp32")


@pytest.fixture
def spec(images):
    def make(benchmark, protocol="paper", **decode):
        decode = {"max_new_tokens": 6, "latent_steps": 2, "start": "forced"} | decode
        return EvaluateSpec(
            benchmark=benchmark,
            protocol=protocol,
            tasks=digest(benchmark, protocol),
            decode=DecodeSpec(**decode),
            images=images,
            precision="fp32",
        )

    return make


@pytest.fixture
def lettered(monkeypatch, session):
    """Decoding replaced: question k of a call answers A, B, C, … in turn, one in five without a block, some nonsense."""
    from models.latent.decoding import Decoded

    texts = ["<answer> A </answer>", "<answer> (B) </answer>", "C", "<answer> none </answer>", "The answer is B."]
    asked = []

    def say(prompts, spec, tokens, eos):
        out = []
        for prompt in prompts:
            text = texts[len(asked) % len(texts)]
            asked.append(prompt)
            ids = session.engine.tokenizer(text, add_special_tokens=False)["input_ids"]
            out.append(Decoded([tokens.lvr_start, tokens.lvr, tokens.lvr_end, *ids, *eos], True, 1, False))
        return out

    replace_decoding(monkeypatch, say)
    return asked


def rows_in(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("benchmark", "protocol"), CELLS)
def test_every_benchmark_runs_under_both_protocols_and_its_rows_give_its_scores(
    benchmark, protocol, session, spec, mirrors, lettered, tmp_path
):
    result = session.evaluate(LocalRun(tmp_path), spec(benchmark, protocol), mirror=mirrors[benchmark], batch_size=4)
    rows = rows_in(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert len(rows) == result["n"] == len(lettered)
    assert list(dict.fromkeys(row["task"] for row in rows)) == tasks_for(benchmark, protocol)
    scores.compare(scores.recompute(rows), result["aggregates"])
    assert len({(row["task"], row["doc_id"]) for row in rows}) == len(rows)
    assert all(row["latent_started"] and row["latent_steps"] == 1 for row in rows)
    assert ("prediction_release" in rows[0]) == (protocol == "paper")
    assert any(row["correct"] for row in rows) and not all(row["correct"] for row in rows)
    assert all((row["prediction"] == row["target"]) == row["correct"] for row in rows if protocol == "paper")
    assert result["started"] == 1 and result["truncated"] == 0


def test_clusters_are_pictures_pairs_and_rotations(session, spec, mirrors, lettered, tmp_path):
    def sizes(benchmark):
        session.evaluate(LocalRun(tmp_path), spec(benchmark), mirror=mirrors[benchmark], batch_size=8)
        found = [row["cluster"] for row in rows_in(tmp_path)]
        return sorted(found.count(cluster) for cluster in set(found))

    assert sizes("mmvp") == [2, 2, 2]
    assert sizes("hrbench4k") == [4, 4]
    assert sizes("vstar") == [1] * 5


def test_a_stock_task_is_handed_the_block_s_content_and_keeps_the_full_response(
    session, spec, mirrors, lettered, tmp_path
):
    session.evaluate(LocalRun(tmp_path), spec("mmvp", "stock"), mirror=mirrors["mmvp"], batch_size=8)
    row = next(row for row in rows_in(tmp_path) if "(B)" in row["response"])
    assert row["prediction"] == "B"
    assert row["response"].startswith("<|lvr_start|><|lvr|><|lvr_end|><answer> (B)") and row["response"].endswith(
        "<|im_end|>"
    )


def test_answers_do_not_depend_on_the_batch(session, spec, mirrors, tmp_path):
    responses = []
    for batch_size in (1, 5):
        run = LocalRun(tmp_path / str(batch_size))
        session.evaluate(run, spec("vstar"), mirror=mirrors["vstar"], batch_size=batch_size)
        responses.append([row["response"] for row in rows_in(run.out)])
    assert responses[0] == responses[1]
    assert len(set(responses[0])) > 1


def test_a_second_evaluation_encodes_no_picture_again(session, spec, mirrors, tmp_path, monkeypatch):
    from models.evaluation import engine

    session.evaluate(LocalRun(tmp_path / "1"), spec("mmvp"), mirror=mirrors["mmvp"], batch_size=8)
    monkeypatch.setattr(engine, "encode", lambda model, processor, pictures: pytest.fail("encoded") if pictures else [])
    session.evaluate(LocalRun(tmp_path / "2"), spec("mmvp", latents="zeroed"), mirror=mirrors["mmvp"], batch_size=8)


def test_a_second_checkpoint_that_sees_and_reads_alike_prepares_nothing_again(checkpoint, spec, mirrors, tmp_path, monkeypatch):
    from models.evaluation import Session, engine

    kept = {}
    first = Session(checkpoint, precision="fp32", shared=kept)
    first.evaluate(LocalRun(tmp_path / "1"), spec("mmvp"), mirror=mirrors["mmvp"], batch_size=8)
    monkeypatch.setattr(engine, "encode", lambda model, processor, pictures: pytest.fail("encoded") if pictures else [])
    second = Session(checkpoint, precision="fp32", shared=kept)
    second.engine.prepare = lambda *args, **kwargs: pytest.fail("read again")
    second.evaluate(LocalRun(tmp_path / "2"), spec("mmvp"), mirror=mirrors["mmvp"], batch_size=8)
    assert rows_in(tmp_path / "1") == rows_in(tmp_path / "2")
    other = Session(checkpoint, precision="bf16", shared=kept)
    assert other.engine.features.bytes == 0 and len(kept["features"]) == 1


@pytest.mark.parametrize("latents", ["own", "shuffled"])
def test_questions_that_join_a_running_batch_get_the_answers_that_they_get_alone(latents, checkpoint, spec, mirrors, tmp_path, monkeypatch):
    from models.evaluation import Session, lmms_model
    from models.evaluation.engine import Engine
    from models.latent.refill import Queue

    class Watched(Queue):
        def next(self, running):
            taken = super().next(running)
            joined.append((list(running), taken))
            return taken

    monkeypatch.setattr(lmms_model, "_SHUFFLED_TOGETHER", 2)
    monkeypatch.setattr(lmms_model, "Queue", Watched)
    monkeypatch.setattr(Engine, "cache_tokens", lambda engine, share: 0)  # as much as batch_size takes
    session = Session(checkpoint, precision="fp32")
    wanted, joined = spec("hrbench4k", latents=latents, max_new_tokens=24), []
    session.engine.eos["all"] |= set(range(0, 1024, 17))  # answers of different lengths
    for size in (1, 5):
        joined.clear()
        session.engine.forget_answers()
        session.evaluate(LocalRun(tmp_path / str(size)), wanted, mirror=mirrors["hrbench4k"], batch_size=size, cache_share=0.5)
    alone, together = ([{name: value for name, value in row.items() if not name.startswith("loglik")} for row in rows_in(tmp_path / size)] for size in "15")
    assert alone == together
    assert len({row["new_tokens"] for row in alone}) > 1
    assert any(running and taken for running, taken in joined), "some joined while others were running"


def test_another_kind_of_latents_starts_from_the_prompts_as_they_were_read(session, spec, mirrors, checkpoint, tmp_path, monkeypatch):
    from models.evaluation import Session

    reads = []
    real = session.engine.prefills.reader
    monkeypatch.setattr(session.engine.prefills, "reader", lambda *given: reads.append(given) or real(*given))
    mirror = mirrors["mmvp"]
    kinds = ("own", "zeroed", "shuffled", "noise")
    session._asked = ()
    for kind in kinds:
        session.evaluate(LocalRun(tmp_path / kind), spec("mmvp", latents=kind), mirror=mirror, batch_size=16)
        if kind == "own":
            first = len(reads)
    assert first == len(reads) > 0
    for kind in kinds:
        alone = Session(checkpoint, precision="fp32")
        alone.evaluate(LocalRun(tmp_path / f"{kind} alone"), spec("mmvp", latents=kind), mirror=mirror, batch_size=16)
        assert rows_in(tmp_path / kind) == rows_in(tmp_path / f"{kind} alone")


@pytest.mark.parametrize("benchmark", ["blink", "hrbench4k"])
def test_threads_that_decode_pictures_change_nothing(spec, mirrors, checkpoint, tmp_path, benchmark, monkeypatch):
    from threading import current_thread

    from models.evaluation import Session, known

    names, real = set(), known.content_hash
    monkeypatch.setattr(known, "content_hash", lambda picture: names.add(current_thread().name) or real(picture))
    for threads in (1, 3):
        session = Session(checkpoint, precision="fp32")
        session.engine.threads = threads  # of pictures alone: torch's would round differently
        names.clear()
        session.evaluate(LocalRun(tmp_path / str(threads)), spec(benchmark), mirror=mirrors[benchmark], batch_size=4)
        assert (current_thread().name in names) == (threads == 1)
    assert rows_in(tmp_path / "1") == rows_in(tmp_path / "3")


def test_progress_counts_questions_up_to_the_total(session, spec, mirrors, lettered, tmp_path):
    run = LocalRun(tmp_path / "out", metrics=tmp_path / "metrics.jsonl")
    session.evaluate(run, spec("blink"), mirror=mirrors["blink"], batch_size=2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["total"] for line in lines] == [15] * len(lines)
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines) and lines[-1]["step"] == 15
    assert all(line["values"]["questions_per_second"] > 0 for line in lines)


@dataclass
class StopsAfter(LocalRun):
    """Asks to stop at the given question."""

    questions: int = 0

    def should_stop(self):
        return self.questions > 0 and self.stop

    def log(self, step, total, **values):
        self.stop = step >= self.questions


def test_an_interrupted_evaluation_goes_on_where_it_stopped(session, spec, mirrors, lettered, tmp_path):
    run = StopsAfter(tmp_path / "first", questions=3)
    with pytest.raises(Interrupted, match="4 of 8 questions answered"):
        session.evaluate(run, spec("hrbench4k"), mirror=mirrors["hrbench4k"], batch_size=3)
    (kept,) = run.checkpoints.iterdir()
    assert (kept / "COMPLETE").exists() and len(lettered) == 4
    again = LocalRun(tmp_path / "second", resume_from=kept)
    result = session.evaluate(again, spec("hrbench4k"), mirror=mirrors["hrbench4k"], batch_size=3)
    assert len(lettered) == 8 and result["n"] == 8


def test_a_stop_before_the_first_answer_leaves_nothing_behind(checkpoint, spec, mirrors, tmp_path):
    from models.evaluation import Session

    run = LocalRun(tmp_path, stop=True)
    with pytest.raises(Interrupted, match="0 of 8"):
        Session(checkpoint, precision="fp32").evaluate(
            run, spec("hrbench4k"), mirror=mirrors["hrbench4k"], batch_size=3
        )
    assert not run.checkpoints.exists()


def test_a_score_that_disagrees_with_its_samples_is_an_error(session, spec, mirrors, lettered, tmp_path, monkeypatch):
    monkeypatch.setattr(scores.Metric, "value", lambda self, rows: 0.123)
    with pytest.raises(scores.Mismatch, match="0.123 from the samples"):
        session.evaluate(LocalRun(tmp_path), spec("vstar"), mirror=mirrors["vstar"], batch_size=8)


def test_an_error_in_a_document_surfaces_as_itself_and_at_once(session, spec, mirrors, lettered, tmp_path, monkeypatch):
    calls = []

    def broken(doc, results):
        calls.append(doc)
        raise KeyError("no such column")

    session.evaluate(LocalRun(tmp_path), spec("vstar"), mirror=mirrors["vstar"], batch_size=8)
    task = session._tasks["vr_vstar", mirrors["vstar"].resolve()]
    monkeypatch.setattr(task.config, "process_results", broken)
    with pytest.raises(KeyError, match="no such column"):
        session.evaluate(LocalRun(tmp_path), spec("vstar"), mirror=mirrors["vstar"], batch_size=8)
    assert len(calls) == 1


def test_a_spec_of_other_tasks_or_another_precision_is_refused(session, spec, mirrors, tmp_path):
    stale = spec("mmvp").model_copy(update={"tasks": {"vr_mmvp": "0" * 64}})
    with pytest.raises(ValueError, match="vr_mmvp changed since this evaluation was planned"):
        session.evaluate(LocalRun(tmp_path), stale, mirror=mirrors["mmvp"], batch_size=8)
    bf16 = spec("mmvp").model_copy(update={"precision": "bf16"})
    with pytest.raises(ValueError, match="loaded in fp32"):
        session.evaluate(LocalRun(tmp_path), bf16, mirror=mirrors["mmvp"], batch_size=8)
    with pytest.raises(FileNotFoundError, match="no data set folder"):
        session.evaluate(LocalRun(tmp_path), spec("mmvp"), mirror=tmp_path / "nowhere", batch_size=8)


def test_oracle_latents_need_boxes_and_a_bcm(session, spec, mirrors, checkpoint, tmp_path):
    import shutil

    import torch

    from models import loading
    from models.backbone import checkpoint as checkpoints
    from models.evaluation import Session

    oracle = spec("hrbench4k", latents="oracle")
    with pytest.raises(FileNotFoundError, match="holds no boxes.jsonl"):
        session.evaluate(LocalRun(tmp_path), oracle, mirror=mirrors["hrbench4k"], batch_size=8)
    mirror = tmp_path / "mirror"
    shutil.copytree(mirrors["hrbench4k"], mirror)
    lines = [json.dumps({"doc_id": k, "boxes": [[0.1, 0.1, 0.4, 0.6]], "images": [0]}) for k in range(8)]
    (mirror / "boxes.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="oracle needs a trained checkpoint"):
        session.evaluate(LocalRun(tmp_path), oracle, mirror=mirror, batch_size=8)
    folder = tmp_path / "stage1"
    shutil.copytree(checkpoint, folder)
    model = loading.load(checkpoint, heads={"bcm"}, latent_steps=2, dtype=torch.float32)
    checkpoints.save(model, folder, {"latent_steps": 2, "region": "tokens"})
    result = Session(folder, precision="fp32").evaluate(LocalRun(tmp_path), oracle, mirror=mirror, batch_size=8)
    assert result["n"] == 8


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_s_swept_at_inference_takes_that_many_latent_steps_and_none_with_markers_only(
    steps, session, spec, mirrors, tmp_path
):
    wanted = spec("mmvp", latent_steps=steps)
    session.evaluate(LocalRun(tmp_path), wanted, mirror=mirrors["mmvp"], batch_size=8)
    rows = rows_in(tmp_path)
    assert rows and all(row["latent_started"] and row["latent_steps"] % max(steps, 1) == 0 for row in rows)
    assert {row["latent_steps"] > 0 for row in rows} == {steps > 0}
