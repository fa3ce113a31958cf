"""Clips in questions: the prompt, positions and answers are those of transformers' own classes; what cannot be read is named."""

import inspect
import textwrap
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from models.backbone.clips import read_clip
from models.backbone.template import TOKENS_PER_SECOND
from models.config import DecodeSpec, Images
from models.evaluation.clips import ClipReader, identity
from models.evaluation.engine import Engine, Question
from models.evaluation.lmms_model import LmmsModel
from models.schema import Clips
from tests.films import cut_off, damage, write_film
from tests.models.evaluation.conftest import picture

CLIPS = Clips(fps=5, max_frames=8, min_pixels=32 * 32, max_pixels=64 * 64, total_pixels=1 << 20, seconds_per_grid="measured")
LIMITS = Images(min_pixels=32 * 32, max_pixels=96 * 96)
PLAIN = DecodeSpec(latent_steps=0, max_new_tokens=8)


@pytest.fixture(scope="module")
def engine(checkpoint):
    return Engine(checkpoint, precision="fp32")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    return [str(write_film(folder / f"{k}.mp4", frames=14 + 7 * k, size=(64, 48 - 16 * (k % 2)), seed=k)) for k in range(3)]


def conversation(text, *media):
    kinds = [{"type": "video" if isinstance(one, str) else "image", "url": one} for one in media]
    return [{"role": "user", "content": [*kinds, {"type": "text", "text": text}]}]


def asked(engine, *conversations, clips=CLIPS):
    def media(c):
        return lambda: [part["url"] for part in c[0]["content"] if part["type"] != "text"]

    return engine.prepare(conversations, LIMITS, [media(c) for c in conversations], reader=ClipReader(clips))


def conversations(films):
    return [
        conversation("What happens?\nA. a\nB. b", films[0]),
        conversation("A picture, then a clip.", picture(1, 40), films[1]),
        conversation("Two clips.", films[1], films[2]),
        conversation("A picture.", picture(2, 64)),
        conversation("Neither."),
    ]


def inputs_of(stock, media, chat):
    """What transformers' processor makes of the question, given the frames that the protocol takes."""
    content = [{"type": p["type"]} if p["type"] != "text" else p for p in chat[0]["content"]]
    text = stock.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
    clips = [read_clip(one, CLIPS) for one in media if isinstance(one, str)]
    metadata = [
        {"fps": clip.facts.fps, "frames_indices": list(clip.numbers), "total_num_frames": clip.facts.frames} for clip in clips
    ]
    made = stock(
        text=[text], images=[one for one in media if not isinstance(one, str)] or None, return_tensors="pt",
        **({"videos": [list(clip.pictures) for clip in clips], "video_metadata": metadata} if clips else {}),
    )  # fmt: skip
    if clips:
        made["second_per_grid_ts"] = [clip.seconds_per_grid for clip in clips]
    return made


def behind_clips(model) -> None:
    """Text begins where the clip before it ends, as in transformers 4.54, under which the releases were trained. The installed
    version begins it behind the clip's height or width alone, so that it overlaps with clips of many seconds."""
    source = textwrap.dedent(inspect.getsource(type(model).get_rope_index))
    now = "current_pos += max(grid_thw[1], grid_thw[2]) // spatial_merge_size"
    assert source.count(now) == 1, "transformers has changed; see whether this is still needed"
    found = dict(inspect.getmodule(type(model)).__dict__)
    exec(source.replace(now, "current_pos = int(vision_position_ids.max()) + 1"), found)  # noqa: S102
    model.get_rope_index = types.MethodType(found["get_rope_index"], model)
    model.config.vision_config.tokens_per_second = TOKENS_PER_SECOND


def test_every_question_is_answered_as_transformers_own_model_answers_it_alone(engine, checkpoint, films):
    stock = AutoProcessor.from_pretrained(checkpoint)
    for part in (stock.image_processor, stock.video_processor):
        part.size = {"shortest_edge": 32 * 32, "longest_edge": 96 * 96 if part is stock.image_processor else 64 * 64}
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    behind_clips(model.model)
    questions = asked(engine, *conversations(films))
    answers = engine.answer(questions, PLAIN, LIMITS)
    for question, answer, chat in zip(questions, answers, conversations(films), strict=True):
        made = inputs_of(stock, question.reload(), chat)
        assert question.input_ids.tolist() == made["input_ids"][0].tolist()
        with torch.inference_mode():
            given = model.generate(**made, max_new_tokens=8, do_sample=False)[0, made["input_ids"].shape[1] :]
        assert answer.response == stock.tokenizer.decode(given, skip_special_tokens=False), chat[0]["content"][-1]["text"]
    assert len({answer.response for answer in answers}) > 1


def test_more_time_between_frames_is_another_prompt_to_the_model(engine, films):
    (near,) = asked(engine, conversation("When?", films[0]))
    (far,) = asked(engine, conversation("When?", films[0]), clips=CLIPS.model_copy(update={"seconds_per_grid": 9.0}))
    assert near.input_ids.tolist() == far.input_ids.tolist()
    assert near.grids[0].seconds == pytest.approx(2 * 13 / 7 / 10) and far.grids[0].seconds == 9.0


def test_features_are_kept_by_what_was_seen_of_a_clip(engine, films):
    few = CLIPS.model_copy(update={"max_frames": 4})
    (many,), (less,) = asked(engine, conversation("?", films[2])), asked(engine, conversation("?", films[2]), clips=few)
    assert many.images == less.images == (identity(films[2]),)
    assert len(engine.features_of([many], LIMITS)[many.images[0]]) == 2 * len(engine.features_of([less], LIMITS)[less.images[0]])


def test_a_clip_is_known_by_its_content_not_by_its_name(films, tmp_path):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(Path(films[0]).read_bytes())
    assert identity(str(copy)) == identity(films[0]) != identity(films[1])


@pytest.mark.parametrize("what", ["missing", "empty", "no film", "folder"])
def test_a_question_whose_clip_cannot_be_read_is_named_and_the_others_are_asked(engine, films, tmp_path, what):
    bad = tmp_path / "bad.mp4"
    if what == "folder":
        bad.mkdir()
    elif what != "missing":
        bad.write_bytes(b"" if what == "empty" else b"no film at all" * 100)
    good, broken = asked(engine, conversation("?", films[0]), conversation("?", films[1], str(bad)))
    assert good.rejected is None and isinstance(broken, Question)
    assert broken.rejected.startswith(("missing" if what == "missing" else "unreadable") + " clip bad.mp4: ") and str(tmp_path) not in broken.rejected


def test_a_clip_that_breaks_in_the_middle_is_rejected_when_its_frames_are_decoded(engine, films, tmp_path):
    damaged = write_film(tmp_path / "damaged.mov", frames=40, codec="png")
    whole = ask(engine, [films[0], str(damaged)])
    assert [answer.rejected for answer in whole] == [None, None]
    damage(damaged, frame=39)
    first, second = ask(engine, [films[0], str(damaged)])
    assert first.rejected is None and first.response == whole[0].response
    assert second.rejected.startswith("unreadable clip damaged.mov: ") and second.response == ""


def test_a_film_that_was_cut_off_is_seen_as_far_as_it_goes(engine, tmp_path):
    film = cut_off(write_film(tmp_path / "short.mkv", frames=40), 0.7)
    (answer,) = ask(engine, [str(film)])
    assert answer.rejected is None and answer.new_tokens


def ask(engine, films):
    """Answers through lmms-eval's interface, one question about each film."""
    model = LmmsModel(engine, decode=PLAIN, images=LIMITS, clips=CLIPS, batch_size=2)
    model.task_dict = {"films": {"test": Dataset.from_list([{"film": film} for film in films])}}
    requests = [
        SimpleNamespace(
            task_name="films", doc_id=at,
            args=("", lambda doc: conversation("What?\nA. a\nB. b", doc["film"]), {"max_new_tokens": 8}, at, "films", "test"),
        )
        for at in range(len(films))
    ]  # fmt: skip
    model.generate_until(requests)
    return [model.answers["films", at] for at in range(len(films))]


def test_what_is_no_text_picture_or_whole_clip_is_refused_by_name(engine, films):
    model = LmmsModel(engine, decode=PLAIN, images=LIMITS, clips=CLIPS)
    model.task_dict = {"heard": {"test": Dataset.from_list([{"sound": "a.wav"}])}}
    request = SimpleNamespace(
        task_name="heard", doc_id=0,
        args=("", lambda doc: [{"role": "user", "content": [{"type": "audio", "url": "a.wav"}]}], {}, 0, "heard", "test"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="heard: question 0 shows audio a.wav"):
        model.generate_until([request])
