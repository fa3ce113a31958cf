"""What is looked at before anything is queued: each thing that would end a job later is one line now."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from harness.cli import main
from harness.dispatch import preflight
from harness.dispatch.slurm.queue import SchedulerSilent
from harness.jobs import Job, Source
from harness.spec.profile import LocalDispatch, Profile, Resources, SlurmDispatch
from harness.worker.deepspeed import zero_of
from models.training.cost import checkpoint_bytes, gpu_bytes

SINFO = "debug|30:00|(null)|64|257000\nbig*|2-00:00:00|gpu:a800:8(S:0-1)|128|1031000\nbig*|2-00:00:00|(null)|128|1031000\n"
FULL = Resources(cpus=12, gpus=8, processes=8, memory_gb=800, minutes=2880, attention="flash_attention_2", deepspeed="zero3")
SMI = """| NVIDIA-SMI 550.54      Driver Version: 550.54      CUDA Version: 12.4     |
|   0  NVIDIA A800-SXM4-80GB    On  |   00000000:07:00.0 Off |                    0 |
|   1  NVIDIA A800-SXM4-80GB    On  |   00000000:0B:00.0 Off |                    0 |
"""


CLUSTER = SlurmDispatch(partition="big")


def profile(dispatch=CLUSTER, **needs: Resources) -> Profile:
    backbone = {"source": "hub", "repo": "a/b", "revision": "c" * 40}
    return Profile(
        title="t", backbone=backbone, data={"source": "proxy"}, benchmarks={}, resources=needs or {"train": FULL}, dispatch=dispatch
    )  # fmt: skip


def only(found: list[preflight.Finding]) -> tuple[str, str]:
    (one,) = found
    return one.grade, one.text


def test_without_sbatch_a_run_on_slurm_ends_in_one_line(desk, monkeypatch, capsys):
    text = desk.profile("proxy").replace("dispatch: {kind: local}", "").rstrip()
    assert "dispatch:" not in text
    desk.write("profiles/cluster.yaml", text + "\ndispatch: {kind: slurm}\n")
    monkeypatch.setenv("PATH", "")
    assert main(["run", str(desk.table()), "--profile", "profiles/cluster.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: scheduler: this profile submits to SLURM, and sbatch is not here; start it on a login node of the cluster, or "
        "choose a profile with dispatch: {kind: local}"
    )


def test_a_partition_is_asked_for_what_the_jobs_need():
    def found(dispatch, **needs):
        return preflight.partition(profile(dispatch, **needs), list(needs), lambda words: SINFO)

    assert only(found(SlurmDispatch(partition="big"), train=FULL)) == ("ok", "partition big accepts the jobs")
    assert only(found(SlurmDispatch(), train=FULL))[0] == "ok"  # the default one
    assert only(found(SlurmDispatch(partition="a800"), train=FULL)) == (
        "error", "a800 is not on this cluster; there are: debug, big; set dispatch.partition"
    )  # fmt: skip
    small = [one.text for one in found(SlurmDispatch(partition="debug"), train=FULL)]
    assert small == [
        "train asks for 8 gpus, partition debug has at most 0; set resources.train.gpus",
        "train asks for 96 cpus, partition debug has at most 64; set resources.train.cpus",
        "train asks for 800 memory_gb, partition debug has at most 250.977; set resources.train.memory_gb",
        "train asks for 2880 minutes, partition debug has at most 30; set resources.train.minutes",
    ]


def test_a_scheduler_that_gives_no_answer_is_a_warning_and_one_without_a_cluster_an_error():
    def silent(words):
        raise SchedulerSilent(said)

    for said in ("sinfo: no answer in 30 s", "sinfo: slurm_load_partitions: Unable to contact slurm controller (connect failure)"):
        grade, text = only(preflight.partition(profile(), ["train"], silent))
        assert grade == "warning" and said in text
    said = "sinfo: sinfo: error: fetch_config: DNS SRV lookup failed\nsinfo: fatal: Could not establish a configuration source"
    grade, text = only(preflight.partition(profile(), ["train"], silent))
    assert grade == "error" and "no cluster answers (sinfo: fatal: Could not establish a configuration source)" in text


def test_the_driver_is_held_against_torchs_cuda_where_jobs_run_here():
    here = LocalDispatch()
    needs = FULL.model_copy(update={"gpus": 2})
    assert preflight.gpus(profile(), ["train"]) == []
    assert preflight.gpus(profile(here, evaluate=Resources()), ["evaluate"]) == []
    old = preflight.gpus(profile(here, train=needs), ["train"], lambda words: SMI, "13.0")
    assert only(old)[0] == "error" and "built for CUDA 13.0, the driver serves up to 12.4" in only(old)[1]
    assert only(preflight.gpus(profile(here, train=needs), ["train"], lambda words: SMI, "12.8"))[0] == "ok"
    few = preflight.gpus(profile(here, train=FULL), ["train"], lambda words: SMI, "12.8")
    assert only(few) == ("error", "a job asks for 8 GPUs, this machine has 2; set gpus and processes in resources")

    def none(words):
        raise SchedulerSilent("nvidia-smi: no such command")

    assert only(preflight.gpus(profile(here, train=needs), ["train"], none))[0] == "error"


def test_flash_attention_is_looked_for_where_a_kind_asks_for_it():
    grade, text = only(preflight.attention(profile(), ["data", "train"], lambda name: None))
    assert grade == "error" and text.startswith("train: attention: flash_attention_2 needs") and "--extra gpu" in text and "attention: sdpa" in text
    assert only(preflight.attention(profile(), ["train"], lambda name: object()))[0] == "ok"
    assert preflight.attention(profile(train=Resources()), ["train"], lambda name: None) == []


def write_base(folder: Path, sizes: dict[str, list[tuple[str, list[int]]]]) -> Source:
    """A checkpoint folder whose shards hold zeros of these names and shapes."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (folder / "chat_template.json").write_text("{}")
    places = {}
    for shard, tensors in sizes.items():
        header, at = {}, 0
        for name, shape in tensors:
            size = 2
            for side in shape:
                size *= side
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at, places[name] = at + size, shard
        words = json.dumps(header).encode()
        (folder / shard).write_bytes(struct.pack("<Q", len(words)) + words + bytes(at))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return Source(str(folder), "digest")


SHARDS = {"a.safetensors": [("visual.x", [10, 10])], "b.safetensors": [("model.y", [20, 10]), ("lm_head.z", [50])]}


def test_a_base_model_is_whole_or_its_missing_pieces_are_named(tmp_path):
    folder = tmp_path / "base"
    source = write_base(folder, SHARDS)
    assert preflight.base(source).grade == "ok" and preflight.parameters(folder) == (350, 100)
    whole = (folder / "b.safetensors").read_bytes()
    (folder / "b.safetensors").write_bytes(whole[:-3])
    (folder / "a.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    found = preflight.base(source)
    assert found.grade == "error" and "tokenizer.json or vocab.json is missing; a.safetensors is missing; b.safetensors has" in found.text
    (folder / "b.safetensors").write_bytes(b"<html>")
    assert "b.safetensors is not a safetensors file (no header)" in preflight.base(source).text


def test_what_would_show_after_a_training_is_said_before(tmp_path):
    folder = tmp_path / "base"
    source = write_base(folder, SHARDS)
    for content, says in (('{"model_type": "llama"}', "model_type 'llama'"), ("[]", "no configuration"), ("{", "no configuration")):
        (folder / "config.json").write_text(content)
        assert says in preflight.base(source).text
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (folder / "chat_template.json").unlink()
    assert "the chat template is missing" in preflight.base(source).text
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert preflight.base(source).grade == "ok"
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    assert "merges.txt is missing" in preflight.base(source).text
    for content in ("{}", '{"weight_map": {', "[]"):
        (folder / "model.safetensors.index.json").write_text(content)
        found = preflight.base(source)
        assert found.grade == "error" and "is no index of weights" in found.text


def test_a_base_model_of_the_hub_is_in_the_cache_or_can_be_fetched(tmp_path, monkeypatch):
    commit = "c" * 40
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = Source(f"hub:a/b@{commit}", f"a/b@{commit}")
    found = preflight.base(source)
    assert found.grade == "error" and f"hf download a/b --revision {commit}" in found.text
    assert preflight.base(source, lambda *names: True).grade == "warning"
    write_base(tmp_path / "hub" / "models--a--b" / "snapshots" / commit, SHARDS)
    assert preflight.base(source).grade == "ok"


def test_room_is_counted_from_parameters_and_what_is_kept(tmp_path, monkeypatch):
    source = write_base(tmp_path / "base", SHARDS)
    job = Job(kind="train", slug="t", payload={"stage": {"kind": "stage1"}}, inputs={"init": source})
    need = preflight.needed(profile(), [job, Job(kind="data", slug="d", payload={})])
    assert need.trainings == 1 and need.checkpoint == checkpoint_bytes(250, 350) == 12 * 250 + 2 * 350
    assert need.result == sum((tmp_path / "base" / name).stat().st_size for name in SHARDS)
    assert preflight.needed(profile(train=Resources()), [job]).checkpoint == checkpoint_bytes(250)

    class Usage:
        free = 2 * need.checkpoint + need.result

    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage)
    assert only(preflight.disk(profile(), [job], tmp_path / "results"))[0] == "ok"
    Usage.free -= 1
    assert only(preflight.disk(profile(), [job], tmp_path / "results"))[0] == "error"
    # stopped after a checkpoint: the next one and the result are still to be written
    checkpoints = tmp_path / "results" / "train" / job.name / "attempts" / "1" / "checkpoints"
    (checkpoints / "checkpoint-5").mkdir(parents=True)
    (checkpoints / "checkpoint-5" / "state").write_bytes(bytes(need.checkpoint))
    Usage.free = need.checkpoint + need.result
    assert only(preflight.disk(profile(), [job], tmp_path / "results"))[0] == "ok"
    Usage.free -= 1
    assert only(preflight.disk(profile(), [job], tmp_path / "results"))[0] == "error"


def test_room_is_counted_for_each_stage_and_behind_a_stage_that_is_done(tmp_path):
    source = write_base(tmp_path / "base", SHARDS)
    first = Job(kind="train", slug="a", payload={"stage": {"kind": "stage1"}}, inputs={"init": source})
    second = Job(kind="train", slug="b", payload={"stage": {"kind": "stage2"}}, inputs={"init": first, "teacher": first})
    exact = Job(kind="train", slug="c", payload={"stage": {"kind": "stage2", "precision": "fp32"}}, inputs={"init": first})
    only_second = profile(train=Resources(deepspeed={"stage2": "zero2"}))

    def checkpoint(*jobs: Job) -> int:
        return preflight.needed(only_second, jobs).checkpoint

    assert checkpoint(first) == checkpoint_bytes(250)
    assert checkpoint(second) == checkpoint(first, second) == checkpoint_bytes(250, 350)
    assert checkpoint(exact) == checkpoint_bytes(250, 350, 4)


def test_a_training_that_its_ranks_cannot_share_is_an_error_before_it_waits_for_gpus():
    def found(batch: int = 256, **changed) -> list[str]:
        job = Job(kind="train", slug="t", payload={"stage": {"kind": "stage1", "global_batch": batch}})
        return [one.text for one in preflight.ranks(profile(train=FULL.model_copy(update=changed)), [job])]

    assert found(micro_batch=4) == found(micro_batch=64) == []
    assert found(micro_batch=5) == [
        "resources.train: global_batch 256 is no multiple of micro_batch 5 x 8 ranks; micro_batch can be 1, 2, 4, 8, 16, 32"
    ]
    (text,) = found(processes=6, gpus=6, micro_batch=4)
    assert text.endswith("micro_batch 4 x 6 ranks; micro_batch can be nothing: change the number of ranks")
    assert found(batch=4) == [text.replace("256", "4").replace("batch 4 x 6", "batch 1 x 8")]
    assert found(gpus=3) == ["resources.train: 8 processes need a GPU each, and gpus is 3; set both to the same number"]
    job = Job(kind="train", slug="t", payload={"stage": {"kind": "stage1"}})
    assert preflight.ranks(profile(LocalDispatch(), train=FULL.model_copy(update={"gpus": 3})), [job]) == []


def test_a_training_whose_optimiser_fits_into_no_gpu_is_an_error_where_the_memory_is_known(tmp_path):
    source = write_base(tmp_path / "base", SHARDS)  # 250 trained parameters, 100 frozen
    job = Job(kind="train", slug="t", payload={"stage": {"kind": "stage1"}}, inputs={"init": source})
    assert [gpu_bytes(250, 100, zero, 2) for zero in range(4)] == [4200, 2700, 2450, 2100]
    assert gpu_bytes(250, 100, 3, 1) == 16 * 250 + 2 * 100

    def found(has: int | None, dispatch=CLUSTER, smi=None, **changed) -> list[preflight.Finding]:
        needs = FULL.model_copy(update={"deepspeed": None, "gpu_memory_gb": has and has / 2**30, "processes": 2, "gpus": 2} | changed)
        return preflight.gpu_memory(profile(dispatch, train=needs), [job], smi)

    assert found(4200) == [] and found(None) == [] and found(1, gpus=0) == []
    grade, text = only(found(4199))
    assert grade == "error" and text.startswith("resources.train: without DeepSpeed on 2 GPUs, weights,") and text.endswith("set deepspeed: zero3 (0 GiB)")
    assert found(2450, deepspeed="zero2") == [] and only(found(2449, deepspeed={"stage1": "zero2"}))[1].startswith("resources.train: zero2 on 2 GPUs")
    assert only(found(2099, deepspeed="zero3"))[1].endswith("it takes deepspeed: zero3 with gpus and processes at least 3")
    # one rank, on this machine: its driver says what its GPUs have
    here = LocalDispatch()
    assert only(found(4199, here))[1].endswith("with gpus and processes at least 2, and dispatch: {kind: slurm}")
    assert found(None, here, lambda words: "143771\n81559\n") == []


def test_where_nothing_says_how_much_a_gpu_holds_a_large_training_is_a_warning(tmp_path, monkeypatch):
    job = Job(kind="train", slug="t", payload={"stage": {"kind": "stage1"}}, inputs={"init": write_base(tmp_path / "base", SHARDS)})
    monkeypatch.setattr(preflight, "parameters", lambda folder: (8_292_000_000, 677_000_000))
    plain = FULL.model_copy(update={"deepspeed": None})
    grade, text = only(preflight.gpu_memory(profile(train=plain), [job]))
    assert grade == "warning" and "take 115 GiB of each GPU, more than the 80 that most have (set gpu_memory_gb" in text
    assert only(preflight.gpu_memory(profile(LocalDispatch(), train=plain), [job], lambda words: "81559\n81559\n"))[0] == "error"
    assert preflight.gpu_memory(profile(), [job]) == []  # zero3 on 8 GPUs

    def none(words):
        raise SchedulerSilent("nvidia-smi: no such command")

    assert only(preflight.gpu_memory(profile(LocalDispatch(), train=plain), [job], none))[0] == "warning"
    assert preflight.gpu_memory(profile(), [Job(kind="train", slug="t", payload=job.payload, inputs={"init": Source("hub:a/b@c", "c")})]) == []


def test_a_profile_names_one_zero_stage_or_one_for_each_kind_of_stage():
    both = {"stage2": "zero2", "other": "zero3"}
    assert [zero_of(both, kind)["zero_optimization"]["stage"] for kind in ("stage1", "stage2", "joint")] == [3, 2, 3]
    assert zero_of("zero1", "stage1")["zero_optimization"]["stage"] == 1
    assert zero_of(None, "stage1") is None and zero_of({"stage2": "zero2"}, "stage1") is None
    assert Resources(deepspeed=both).deepspeed == both
