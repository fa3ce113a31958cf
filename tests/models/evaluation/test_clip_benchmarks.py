"""MVBench, Video-MME and MLVU through lmms-eval's own tasks, over folders laid out as those expect."""

import importlib.machinery
import json
import shutil
import sys
import types

import av
import datasets
import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from harness.spec.files import load_benchmark
from models.config import DecodeSpec, EvaluateSpec, Images
from models.evaluation import mirror as mirrors_of
from models.evaluation.external import BadBenchmark, link_mirror, look_through
from models.evaluation.questions import NoSplit, split_files
from models.evaluation.session import Session
from models.evaluation.stock import asked
from models.evaluation.tasks import digests_of
from models.evaluation.tasks.visreflect_clips import judge, mlvu_prompt, mvbench_prompt, target, videomme_prompt
from models.run import LocalRun
from tests.films import turn, write_film
from tests.models.evaluation.conftest import write_checkpoint
from tests.models.evaluation.test_stock_is_lmms_evals_own import GENERATION, OFTEN, answers_of, spoken
from tests.rehearsal.world import clips

NAMES = ("mvbench", "videomme", "mlvu")
FEW = {"mvbench": ("action_sequence", "scene_transition", "state_change", "episodic_reasoning")}
"""Of MVBench's tasks these alone are evaluated."""


def tasks_of(name: str, protocol: str) -> list[str]:
    tasks = load_benchmark(name).value.tasks[protocol]
    return [task for task in tasks if name not in FEW or task.endswith(FEW[name])]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """(folder of annotations, folder of clips) by benchmark."""
    folder = tmp_path_factory.mktemp("clips")
    clips.write(folder / "annotations", folder / "hf")
    homes = {"mvbench": "mvbench_video", "videomme": "videomme", "mlvu": "mlvu"}
    return {name: (folder / "annotations" / name, folder / "hf" / homes[name]) for name in NAMES}


@pytest.fixture(scope="module")
def mirrors(data, tmp_path_factory):
    made = {}
    for name, (annotations, folder) in data.items():
        made[name] = tmp_path_factory.mktemp(name)
        tasks = [*load_benchmark(name).value.tasks["paper"], *load_benchmark(name).value.tasks["stock"]]
        link_mirror(made[name], name, str(annotations), tasks, str(folder))
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model without latent tokens, whose answers end; seconds advance its positions as in published models."""
    import torch

    folder = write_checkpoint(tmp_path_factory.mktemp("base"), seed=3, latent_tokens=False)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][OFTEN] = 3 * torch.randn(len(OFTEN), weights["lm_head.weight"].shape[1], generator=torch.Generator().manual_seed(5))
    save_file({name: value.bfloat16() for name, value in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["tokens_per_second"] = 2
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    return folder


@pytest.fixture(scope="module")
def session(base):
    return Session(base, precision="fp32")


def evaluated(session, name, protocol, mirror, folder):
    stated = load_benchmark(name).value.inference[protocol]
    spec = EvaluateSpec(
        benchmark=name, protocol=protocol, tasks=digests_of(tasks_of(name, protocol)), precision="fp32", fetched=stated.fetched, clips=stated.clips,
        images=Images(min_pixels=stated.min_pixels, max_pixels=stated.max_pixels),
        decode=DecodeSpec(repetition_penalty=stated.repetition_penalty, penalise_picked=stated.penalise_picked, ends=stated.ends),
    )  # fmt: skip
    result = session.evaluate(LocalRun(folder), spec, mirror=mirror, batch_size=3)
    return result, [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


class Decord:
    """What lmms-eval and qwen_vl_utils use of decord, over PyAV."""

    def __init__(self, path):
        with av.open(path) as file:
            self.frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
            self.rate = float(file.streams.video[0].average_rate)

    def __len__(self):
        return len(self.frames)

    def get_avg_fps(self):
        return self.rate

    def get_batch(self, numbers):
        return types.SimpleNamespace(asnumpy=lambda: np.stack([self.frames[number] for number in numbers]))


@pytest.fixture(scope="module")
def theirs(base):
    """lmms-eval's model, in float32."""
    from lmms_eval.models import get_model

    with pytest.MonkeyPatch.context() as patch:
        decord = types.ModuleType("decord")
        decord.__spec__ = importlib.machinery.ModuleSpec("decord", None)
        decord.VideoReader = Decord
        patch.setitem(sys.modules, "decord", decord)
        patch.setattr("lmms_eval.models.chat.qwen2_5_vl.decord", decord)
        from qwen_vl_utils import vision_process

        vision_process.get_video_reader_backend.cache_clear()
        model = get_model("qwen2_5_vl")(pretrained=str(base), device="cpu", device_map="cpu", batch_size=1)
        assert not model.is_simple
        model._model.float()
        model.clean = lambda: None
        yield model
        vision_process.get_video_reader_backend.cache_clear()


@pytest.mark.parametrize("name", NAMES)
def test_under_stock_a_clip_is_answered_as_lmms_evals_own_model_answers_it(name, session, theirs, mirrors, monkeypatch, tmp_path):
    """Clips are short, so that no text behind them begins before they end (see test_clips)."""
    _, rows = evaluated(session, name, "stock", mirrors[name], tmp_path)
    seen = 0
    readable = lambda task: [row["doc_id"] for row in rows if row["task"] == task and "rejected" not in row]
    for task in tasks_of(name, "stock"):
        if task.endswith(clips.FRAMES_TASK):
            continue  # lmms-eval's model reads no folders of frames
        kept = readable(task)
        load = mirrors_of.load_task

        def only_readable(*words, kept=kept, load=load):
            made = load(*words)
            for split in made.dataset:
                made.dataset[split] = made.dataset[split].select(kept)
                made.dataset_no_image[split] = made.dataset_no_image[split].select(kept)
            return made

        monkeypatch.setattr("tests.models.evaluation.test_stock_is_lmms_evals_own.load_task", only_readable)
        said = answers_of(theirs, session, task, mirrors[name])
        ours = {row["doc_id"]: spoken(session, row["response"]) for row in rows if row["task"] == task}
        assert {doc: ours[doc] for doc in kept} == {kept[at]: text for at, text in said.items()}, task
        seen += len(kept)
    assert seen >= 4 and len({row["response"] for row in rows}) > 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", ["paper", "stock"])
def test_every_question_is_in_the_rows_and_those_without_a_clip_are_named(name, protocol, session, mirrors, tmp_path):
    result, rows = evaluated(session, name, protocol, mirrors[name], tmp_path)
    lost = [f"{row['task']} {row['doc_id']}: {row['rejected']}" for row in rows if "rejected" in row]
    assert result["n"] == len(rows) == {"mvbench": 8, "videomme": 9, "mlvu": 10}[name]
    assert len(lost) == {"mvbench": 2, "videomme": 3, "mlvu": 0}[name]
    assert result.get("rejected", {"n": 0, "questions": []}) == {"n": len(lost), "questions": lost}
    assert all("clip" in text and str(mirrors[name]) not in text for text in lost)
    metric = load_benchmark(name).value.scores["overall"].metric[protocol]
    counted = [row["scores"][metric] for row in rows if metric in row["scores"]]
    assert result["aggregates"][metric] == pytest.approx(np.mean(counted))
    missing = [row for row in rows if row.get("rejected", "").startswith("missing")]
    assert all((metric in row["scores"]) == (protocol == "stock") for row in missing), "the release leaves them out"
    broken = [row for row in rows if row.get("rejected", "").startswith("unreadable")]
    assert all(row["scores"][metric] <= 0 or protocol == "stock" for row in broken)


@pytest.mark.parametrize("protocol", ["paper", "stock"])
def test_mlvus_types_are_columns_whose_mean_is_the_tasks_number(protocol, session, mirrors, tmp_path):
    from types import SimpleNamespace

    from harness.report.numbers.measure import Measured, read_rows

    result, rows = evaluated(session, "mlvu", protocol, mirrors["mlvu"], tmp_path)
    benchmark = load_benchmark("mlvu").value
    evaluation = SimpleNamespace(protocol=protocol, job=SimpleNamespace(key12="mlvu", name="mlvu"))
    one = Measured(evaluation, read_rows(tmp_path / "samples.jsonl"), result)
    types = [name for name, score in benchmark.scores.items() if "task_type" in score.where]
    shares = {name: one.answers(benchmark, name).values for name in types}
    assert len(types) == 7 and sum(map(len, shares.values())) == len(rows) == 10
    metric, scale = benchmark.reads("overall", protocol)
    assert 100 * np.mean([values.mean() for values in shares.values()]) == pytest.approx(scale * result["aggregates"][metric])
    assert all(one.is_mean(benchmark, name) for name in types) and not one.is_mean(benchmark, "overall")


def test_clips_in_other_containers_and_with_spaces_in_their_names_are_asked_about(data, tmp_path):
    """lmms-eval's own tasks take .webm for sound."""
    annotations, _ = data["mlvu"]
    names = ["clip 0.webm", "clip 1.avi", "clip 2.MOV", "clip 3.mkv"]
    for number, name in enumerate(names):
        write_film(tmp_path / "my clips" / name.lower(), seed=number, codec="libvpx" if name.endswith("webm") else "mpeg4").rename(tmp_path / "my clips" / name)
    renamed = changed(annotations, tmp_path / "annotations", video_name=lambda n, was: names[n % 4])
    (out := tmp_path / "out").mkdir()
    assert "unreadable" not in link_mirror(out, "mlvu", str(renamed), ["mlvu_dev", "visreflect_mlvu"], str(tmp_path / "my clips"))
    assert [asked(mirrors_of.load_task("mlvu_dev", out), k).clips[0].rpartition("/")[2] for k in range(4)] == names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clip.gif", r"its picture is a file of its own \(\S+/clip.gif\), .*; lmms-eval takes every .gif for a picture: if it is a clip, name it .mp4"),
        ("clip.mp3", r"it is asked with audio \(\S+/clip.mp3\), and only pictures, clips and text"),
    ],
)
def test_a_clip_that_lmms_eval_takes_for_something_else_by_its_name_is_named(name, words, data, tmp_path):
    annotations, folder = data["mlvu"]
    shutil.copytree(folder, tmp_path / "clips")
    write_film(tmp_path / "clips/clip.mp4").rename(tmp_path / "clips" / name)
    renamed = changed(annotations, tmp_path / "annotations", video_name=lambda n, was: name if n == 1 else was)
    (out := tmp_path / "out").mkdir()
    with pytest.raises(BadBenchmark, match=f"question 1 cannot be asked \\({words}"):
        link_mirror(out, "mlvu", str(renamed), ["mlvu_dev"], str(tmp_path / "clips"))


def test_questions_about_a_clip_that_its_container_marks_as_rotated_are_named(data, tmp_path):
    annotations, folder = data["mlvu"]
    shutil.copytree(folder, tmp_path / "clips")
    turn(write_film(tmp_path / "clips/phone.mp4"))
    renamed = changed(annotations, tmp_path / "annotations", video_name=lambda n, was: "phone.mp4" if n == 1 else was)
    (out := tmp_path / "out").mkdir()
    summary = link_mirror(out, "mlvu", str(renamed), ["mlvu_dev"], str(tmp_path / "clips"))
    assert summary["rotated"] == {"n": 1, "questions": [f"mlvu_dev 1: {tmp_path}/clips/phone.mp4"]}


def test_of_a_benchmark_with_part_of_its_tasks_it_is_said_what_is_there(data, tmp_path):
    annotations, _ = data["mvbench"]
    shutil.copytree(annotations, tmp_path / "part")
    card, tasks = tmp_path / "part/README.md", ["mvbench_action_count", "mvbench_moving_count"]
    (tmp_path / "part/json/moving_count.json").unlink()
    for text, why in (
        (card.read_text(), "README.md names json/moving_count.json for it"),
        ("---\nconfigs:\n- config_name: action_count\n  data_files:\n  - {split: train, path: json/action_count.json}\n---\n",
         "README.md names the configurations action_count"),
    ):  # fmt: skip
        card.write_text(text)
        with pytest.raises(BadBenchmark) as error:
            look_through(tmp_path / "part", "mvbench", tasks)
        assert str(error.value).startswith(f"mvbench: split train of configuration moving_count is not there ({why}); fetch")
        assert str(error.value).endswith("; 1 of 2 tasks are there: a benchmark's file of your own can name those alone")
    card.unlink()
    with pytest.raises(BadBenchmark, match=r"is not there \(README.md, which says what files a configuration has, names none\); fetch"):
        look_through(tmp_path / "part", "mvbench", tasks)


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("a.json", {"train": ["a.json"]}),
        (["a.json", "b.json"], {"train": ["a.json", "b.json"]}),
        ([{"split": "train", "path": "a.json"}, {"split": "test", "path": ["b.json"]}], {"train": ["a.json"], "test": ["b.json"]}),
        ([{"split": "test", "path": "*.json"}], {"test": ["a.json", "b.json"]}),
    ],
)
def test_a_card_may_name_files_in_each_way_that_datasets_reads(named, there, tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps([{"question": name}]))
    (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': [{'config_name': 'one', 'data_files': named}]})}---\n")
    found = datasets.load_dataset(str(tmp_path), "one", cache_dir=str(tmp_path / "cache"))
    for split in ("train", "test"):
        if split in there:
            assert [file.name for file in split_files(tmp_path, "one", split)] == there[split] == found[split]["question"]
        else:
            assert split not in found
            with pytest.raises(NoSplit):
                split_files(tmp_path, "one", split)


def test_questions_about_one_video_are_one_cluster(session, mirrors, tmp_path):
    _, rows = evaluated(session, "videomme", "paper", mirrors["videomme"], tmp_path)
    by_video = {row["groups"].get("duration"): set() for row in rows}
    for row in rows:
        by_video[row["groups"]["duration"]].add(row["cluster"])
    assert [len(found) for found in by_video.values()] == [1, 1, 1] and len(set.union(*by_video.values())) == 3


def test_the_mirror_names_what_cannot_be_read_before_anything_is_computed(data, tmp_path):
    annotations, folder = data["videomme"]
    summary = link_mirror(tmp_path, "videomme", str(annotations), ["videomme"], str(folder))
    assert summary["questions"] == {"videomme": 9}
    assert summary["unreadable"]["n"] == 3
    assert summary["unreadable"]["questions"][0] == f"videomme 6: missing clip {folder}/data/{clips.MISSING_VIDEO}.mp4: no such file; put it there"


def test_a_clip_that_the_processor_would_refuse_and_a_link_to_nothing_are_named_before_anything_is_computed(data, tmp_path):
    annotations, folder = data["videomme"]
    shutil.copytree(folder, tmp_path / "clips")
    (thin,) = (tmp_path / "clips/data").glob("*.mp4")
    gone = thin.with_name(f"{clips.MISSING_VIDEO}.mp4")
    with av.open(str(thin), "w") as file:
        stream = file.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 804, 4, "yuv420p"
        file.mux(stream.encode(av.VideoFrame(804, 4, "rgb24")))
        file.mux(stream.encode())
    gone.symlink_to(tmp_path / "nowhere.mp4")
    out = tmp_path / "out"
    out.mkdir()
    told = "\n".join(link_mirror(out, "videomme", str(annotations), ["videomme"], str(tmp_path / "clips"))["unreadable"]["questions"])
    assert f"unreadable clip {thin}: not a readable clip (804 x 4 pixels, more than 200 times as long as wide)" in told
    assert f"missing clip {gone}: no such file; put it there" in told


def changed(annotations, folder, **fields):
    """A copy of annotations in parquet; of each question, the fields that a function says from what it is."""
    shutil.copytree(annotations, folder)
    (file,) = folder.rglob("*.parquet")
    rows = datasets.Dataset.from_parquet(str(file)).to_list()
    for number, row in enumerate(rows):
        row |= {name: value(number, row[name]) for name, value in fields.items()}
    datasets.Dataset.from_list(rows).to_parquet(file)
    return folder


COUNTS = "question {} could be answered and not counted: {} of lmms-eval knows no {}; correct the field, or take {} out"


@pytest.mark.parametrize(
    ("name", "task", "field", "value", "said"),
    [
        ("videomme", "videomme", "sub_category", lambda n, was: "Gardening" if n in (4, 7) else was,
         COUNTS.format(4, "videomme_aggregate_results", "sub_category 'Gardening' (2 of 9 questions)", "them")),
        ("videomme", "videomme", "duration", lambda n, was: None if n == 8 else was,
         COUNTS.format(8, "videomme_aggregate_results", "duration None (1 of 9 questions)", "it")),
        ("mlvu", "mlvu_dev", "task_type", lambda n, was: "tutorialQA" if n == 3 else was,
         COUNTS.format(3, "mlvu_aggregate_results_dev", "task_type 'tutorialQA' (1 of 10 questions)", "it")),
        ("videomme", "videomme", "answer", lambda n, was: None if n == 2 else was,
         "question 2 could be answered and not scored: lmms-eval's code fails on answer 'None', "),
    ],
)  # fmt: skip
def test_what_lmms_evals_own_code_would_miss_after_the_last_answer_is_one_line_before_the_first(name, task, field, value, said, data, tmp_path):
    annotations, folder = data[name]
    (out := tmp_path / "out").mkdir()
    with pytest.raises(BadBenchmark) as error:
        link_mirror(out, name, str(changed(annotations, tmp_path / "annotations", **{field: value})), [task], str(folder))
    assert said in str(error.value) and "\n" not in str(error.value) and str(error.value).startswith(f"{name}: split test")


def test_an_answer_that_is_none_of_mvbenchs_candidates_is_found_before_anything_is_decoded(data, tmp_path):
    annotations, folder = data["mvbench"]
    shutil.copytree(annotations, tmp_path / "annotations")
    file = tmp_path / "annotations/json/action_count.json"
    file.write_text(json.dumps([row | {"answer": "B"} for row in json.loads(file.read_text())]))
    (tmp_path / "out").mkdir()
    with pytest.raises(BadBenchmark, match=r"question 0 could be answered and not scored: lmms-eval's code fails on candidates \"\['to the left'.*, answer 'B'"):
        link_mirror(tmp_path / "out", "mvbench", str(tmp_path / "annotations"), ["mvbench_action_count"], str(folder))
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([rows[0] | {"answer": "sideways"}, *rows[1:]]))
    (tmp_path / "again").mkdir()
    with pytest.raises(BadBenchmark, match="configuration action_count: question 0 cannot be asked: .*'sideways' is not in list.; correct its fields"):
        link_mirror(tmp_path / "again", "mvbench", str(tmp_path / "annotations"), ["visreflect_mvbench_action_count"], str(folder))


def test_a_rejection_names_the_owners_file_and_no_link_to_it(data, tmp_path):
    annotations, folder = data["mlvu"]
    shutil.copytree(folder, tmp_path / "my clips")
    (broken := tmp_path / "my clips/order_0.mp4").write_bytes(b"no clip")
    (gone := tmp_path / "my clips/ego_0.mp4").unlink()
    (tmp_path / "out").mkdir()
    told = "\n".join(link_mirror(tmp_path / "out", "mlvu", str(annotations), ["mlvu_dev"], str(tmp_path / "my clips"))["unreadable"]["questions"])
    assert f"unreadable clip {broken}: not a readable clip (Invalid data found when processing input)" in told
    assert f"missing clip {gone}: no such file" in told and str(tmp_path / "out") not in told


def test_clips_in_mkv_are_found_wherever_the_mirror_lies(data, tmp_path):
    """lmms-eval's task looks for them by replacing "mp4" in the whole path."""
    annotations, folder = data["videomme"]
    (out := tmp_path / "mp4 files/out").mkdir(parents=True)
    assert link_mirror(out, "videomme", str(annotations), ["videomme"], str(folder))["unreadable"]["n"] == 3


def test_a_folder_without_any_clip_is_refused_with_the_field_to_correct(data, tmp_path):
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    out.mkdir()
    with pytest.raises(BadBenchmark, match="mlvu: no clip can be read, as in .*; write the folder that holds them as benchmarks.mlvu.clips"):
        link_mirror(out, "mlvu", str(data["mlvu"][0]), ["mlvu_dev"], str(empty))


def test_clips_among_the_annotations_need_no_folder_of_their_own(data, tmp_path):
    both, out = tmp_path / "both", tmp_path / "out"
    both.mkdir()
    out.mkdir()
    for folder in data["mlvu"]:
        for entry in folder.iterdir():
            (both / entry.name).symlink_to(entry)
    assert "unreadable" not in link_mirror(out, "mlvu", str(both), ["mlvu_dev"])


def test_a_task_finds_its_clips_in_its_own_mirror_and_nowhere_else(mirrors, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    task = mirrors_of.load_task("videomme", mirrors["videomme"])
    question = asked(task, 0)
    assert question.clips == (f"{mirrors['videomme']}/data/rehearsal0000.mp4",) and question.images == ()
    assert look_through(mirrors["mvbench"], "mvbench", ["mvbench_action_count"]) == {"mvbench_action_count": 2}


def test_the_release_s_prompts_and_judgement():
    told = "\nAnswer with the option's letter from the given choices directly."
    doc = {"question": "Which? ", "candidates": ["cat", "dog"], "answer": "dog"}
    assert mvbench_prompt(doc) == "Which?\nA. cat\nB. dog" + told and target(doc) == "B"
    assert videomme_prompt({"question": "Which?", "options": ["A. cat", "B. dog"]}) == "Which?\nA. cat\nB. dog" + told
    assert mlvu_prompt({"question": "Which?\n(A) cat\n(B) dog"}) == "Which?\nA. cat\nB. dog" + told
    assert target({"candidates": ["B", "C"], "answer": "C"}) == "C", "an answer of one letter is that letter"
    assert judge(doc, ["The answer is: B"])["accuracy"]["score"] == 1
    assert judge(doc, [""])["accuracy"]["score"] == 0 and judge(doc, ["missing clip"]) == {}
