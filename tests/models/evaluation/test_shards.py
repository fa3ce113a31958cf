"""One evaluation by several processes: what it leaves is what one process leaves, to the byte."""

import multiprocessing
from dataclasses import dataclass

import pytest

from models.config import DecodeSpec, EvaluateSpec
from models.evaluation import known, lmms_model
from models.evaluation.engine import Answer
from models.evaluation.shards import Shard, answers_in, lines_of
from models.evaluation.tasks import digest
from models.run import Interrupted, LocalRun


@pytest.fixture(scope="module")
def session(checkpoint):
    from models.evaluation import Session

    return Session(checkpoint, precision="fp32")


@pytest.fixture
def spec(images):
    def make(benchmark, **decode):
        decode = DecodeSpec(**{"max_new_tokens": 6, "latent_steps": 2, "start": "forced"} | decode)
        tasks = digest(benchmark, "paper")
        return EvaluateSpec(benchmark=benchmark, tasks=tasks, decode=decode, images=images, precision="fp32")

    return make


@dataclass
class Rank(LocalRun):
    """Asks to stop when it has logged so often."""

    patience: int = 1000
    logged: int = 0

    def log(self, step, total, **values):
        self.logged += 1
        self.stop = self.logged >= self.patience


def together(ranks, folder, evaluate, **of_rank):
    """`evaluate` in so many processes at once; this one is rank 0. The exit status of the others: 0 well, 3 interrupted."""

    def run(rank):
        return Rank(folder / "out", folder / "checkpoints", rank=rank, ranks=ranks, **of_rank.get(f"rank{rank}", {}))

    def follow(rank):
        try:
            raise SystemExit(0 if evaluate(run(rank)) == {} else 1)
        except Interrupted:
            raise SystemExit(3) from None

    fork = multiprocessing.get_context("fork")
    others = [fork.Process(target=follow, args=(rank,)) for rank in range(1, ranks)]
    for other in others:
        other.start()
    try:
        result = evaluate(run(0))
    except Interrupted as error:
        result = error
    for other in others:
        other.join(60)
    return result, [other.exitcode for other in others]


def left(folder):
    """What is left tells nothing of times, so it is compared byte by byte."""
    return (folder / "samples.jsonl").read_bytes(), (folder / "result.json").read_bytes()


@pytest.mark.parametrize(("benchmark", "latents", "ranks"), [("blink", "own", 2), ("vstar", "shuffled", 3), ("vstar", "own", 9)])
def test_several_processes_leave_what_one_leaves(
    session, spec, mirrors, tmp_path, monkeypatch, benchmark, latents, ranks
):
    monkeypatch.setattr(lmms_model, "_SHUFFLED_TOGETHER", 2)
    wanted = spec(benchmark, latents=latents)
    decoded = []
    real = session.engine._prompts
    monkeypatch.setattr(session.engine, "_prompts", lambda asked, *rest: decoded.extend(asked.names) or real(asked, *rest))

    def evaluate(run):
        session.engine.forget_answers()
        return session.evaluate(run, wanted, mirror=mirrors[benchmark], batch_size=2)

    evaluate(LocalRun(tmp_path / "one"))
    n = len(decoded)
    result, codes = together(ranks, tmp_path / "several", evaluate)
    assert codes == [0] * (ranks - 1)
    assert left(tmp_path / "several" / "out") == left(tmp_path / "one")
    assert result["n"] == n and 0 < len(decoded) - n < n, "rank 0 answered a part of them"


@pytest.mark.parametrize(("benchmark", "in_turn"), [("blink", 1), ("hrbench4k", 4)])
def test_each_process_decodes_and_hashes_its_own_part_of_the_pictures(session, spec, mirrors, tmp_path, monkeypatch, benchmark, in_turn):
    hashed, read, real, reading = [], [], known.content_hash, session.engine.prepare
    monkeypatch.setattr(known, "content_hash", lambda picture: hashed.append(picture) or real(picture))
    monkeypatch.setattr(session.engine, "prepare", lambda *given, **options: read.extend(given[0]) or reading(*given, **options))
    monkeypatch.setattr(lmms_model, "_DOCUMENTS_IN_TURN", in_turn)

    def evaluate(run):
        session._prepared.clear()
        for task in session._tasks.values():
            task._known.clear()
        return session.evaluate(run, spec(benchmark), mirror=mirrors[benchmark], batch_size=2)

    evaluate(LocalRun(tmp_path / "one"))
    pictures, questions = len(hashed), len(read)
    _, codes = together(2, tmp_path / "two", evaluate)
    assert codes == [0]
    assert left(tmp_path / "two" / "out") == left(tmp_path / "one")
    assert 0 < len(hashed) - pictures < pictures and 0 < len(read) - questions < questions
    session._prepared.clear()


def test_batches_that_share_pictures_go_to_one_process_and_the_others_are_spread_by_tokens():
    batches, pictures = list("abcdefg"), [{"1", "2"}, {"3"}, {"4"}, {"2", "1"}, {"3", "9"}, {"5"}, {"9"}]
    tokens = [10, 4, 4, 10, 4, 1, 1]
    found = [Shard(rank, 2).balanced(batches, pictures, tokens) for rank in range(2)]
    assert found == [["a", "d"], ["b", "c", "e", "f", "g"]]
    assert Shard().balanced(batches, pictures, tokens) == batches
    chained = [len(Shard(rank, 3).balanced(range(60), [{"one"}] * 60, [7] * 60)) for rank in range(3)]
    assert sum(chained) == 60 and max(chained) - min(chained) <= 5, "pictures that all batches share leave no rank idle"


def test_a_stop_of_one_rank_stops_all_and_any_number_of_processes_goes_on_from_there(
    session, spec, mirrors, tmp_path
):
    def evaluate(run):
        return session.evaluate(run, spec("hrbench4k"), mirror=mirrors["hrbench4k"], batch_size=1)

    evaluate(LocalRun(tmp_path / "one"))
    result, codes = together(2, tmp_path / "cut", evaluate, rank1={"patience": 2})
    assert isinstance(result, Interrupted) and codes == [3]
    (kept,) = (tmp_path / "cut" / "checkpoints").glob("checkpoint-*")
    answered = answers_in((kept / "answers.jsonl").read_text())
    assert (kept / "COMPLETE").is_file() and 0 < len(answered) < 8
    assert not (tmp_path / "cut" / "out" / "result.json").exists()
    where = {f"rank{rank}": {"resume_from": kept} for rank in range(3)}
    _, codes = together(3, tmp_path / "again", evaluate, **where)
    assert codes == [0, 0]
    assert left(tmp_path / "again" / "out") == left(tmp_path / "one")


def test_an_answer_that_is_still_being_told_is_heard_later(tmp_path):
    answers = {("t", i): Answer(f"<answer> é\u2028{i} </answer>", True, 8, False, 3) for i in range(3)}
    assert answers_in(lines_of(answers)) == answers
    listener, teller = Shard(0, 2, tmp_path / "shards"), Shard(1, 2, tmp_path / "shards")
    assert listener.hear() == {}
    teller.tell({("t", 0): answers["t", 0]})
    told = lines_of({key: answers[key] for key in (("t", 1), ("t", 2))}).encode()
    for half in (told[:-20], told[-20:]):
        with (tmp_path / "shards" / "rank1.jsonl").open("ab") as file:
            file.write(half)
        found = listener.hear()
        assert found == {("t", i): answers["t", i] for i in ((0, 1) if half == told[:-20] else (2,))}
    assert listener.hear() == {} and teller.hear() == {}
