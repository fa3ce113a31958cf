"""The causal card's parts: twins, painted regions, masked pictures, probes, and one card of a tiny checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from models.card.latents import alike, effective_rank, place, probe
from models.card.measure import together
from models.card.questions import Posed, batches, chosen, painted, regions
from models.config import CardSpec, DecodeSpec
from models.evaluation.questions import MirrorQuestion
from models.evaluation.tasks import digest
from models.run import LocalRun


def posed(*boxes) -> Posed:
    return Posed(("t", 0), MirrorQuestion("?", ("a", "b"), "A", (Image.new("RGB", (40, 40)),), boxes), ("hash",))


def test_the_region_elsewhere_has_the_evidence_s_size_and_does_not_touch_it():
    box, other = regions(posed((0, 0.1, 0.1, 0.4, 0.3)))
    assert box == (0.1, 0.1, 0.4, 0.3)
    assert (other[2] - other[0], other[3] - other[1]) == pytest.approx((0.3, 0.2))
    assert other[0] >= box[2] or other[1] >= box[3]


@pytest.mark.parametrize("boxes", [(), ((1, 0.1, 0.1, 0.2, 0.2),), ((0, 0.0, 0.0, 0.6, 0.6),)])
def test_without_a_small_box_in_the_first_picture_nothing_is_painted(boxes):
    assert regions(posed(*boxes)) is None


def test_painting_changes_the_region_alone():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    changed = np.array(painted(picture, (0.25, 0.5, 0.5, 1.0))) != np.array(picture)
    assert changed[20:40, 10:20].any() and not changed[:20].any() and not changed[:, :10].any() and not changed[:, 20:].any()


def test_a_probe_reads_what_is_linear_in_the_latents_and_is_at_chance_where_nothing_is():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 200)
    groups = [at // 2 for at in range(200)]
    knowing = np.eye(4)[labels] @ random.normal(size=(4, 12)) * 2 + random.normal(size=(200, 12))
    latents = np.stack([random.normal(size=(200, 12)), knowing], axis=1)
    found = probe(latents, [str(label) for label in labels], groups)
    empty, full = (np.mean(hits) for hits in found["hits"])
    assert full > 0.9 and abs(empty - 0.25) < 0.12 and abs(np.mean(found["chance"][0]) - 0.25) < 0.12
    assert found["kept"] == list(range(200))


def test_a_probe_is_tested_on_other_pictures_than_it_learned_from():
    """Labels that only a memory of the group can tell: a split through groups would read them."""
    random = np.random.default_rng(1)
    label = random.integers(0, 2, 40)
    marks = random.normal(size=(40, 30))
    latents = np.repeat(marks, 5, axis=0)[:, None] + 0.01 * random.normal(size=(200, 1, 30))
    found = probe(latents, [str(label[at // 5]) for at in range(200)], [at // 5 for at in range(200)])
    assert abs(np.mean(found["hits"][0]) - 0.5) < 0.25


def test_too_few_of_a_class_are_left_out_and_one_class_is_no_probe():
    latents = np.random.default_rng(0).normal(size=(30, 1, 4))
    found = probe(latents, ["a"] * 14 + ["b"] * 13 + ["c", None, "c"], list(range(30)))
    assert found["kept"] == list(range(27))
    assert probe(latents, ["a"] * 30, list(range(30))) is None


def test_equal_latents_have_cosine_one_and_no_rank_and_independent_ones_have_nearly_all():
    groups = list(range(24))
    same = alike(np.ones((24, 2, 6)), groups)
    assert same["cosine"] == pytest.approx([1.0] * 24) and same["effective_rank"] == 0
    apart = alike(np.random.default_rng(0).normal(size=(24, 2, 6)), groups)
    assert max(map(abs, apart["cosine"])) < 0.5 and 5 < apart["effective_rank"] <= 6 and apart["effective_rank_se"] > 0
    assert effective_rank(np.outer(np.arange(9.0), np.ones(5))) == pytest.approx(1, abs=1e-3), "one direction"


def test_questions_that_share_a_picture_are_one_cluster_of_a_card_wherever_they_stand():
    rows = [{"task": "vr_hrbench4k", "doc_id": doc} for doc in (0, 1, 200, 201, 300, 301)]
    together(rows, [("one",), ("two",), ("one",), ("three",), ("four",), ("five",)])
    names = [row["cluster"] for row in rows]
    assert len(set(names[:4])) == 1 and len(set(names[4:])) == 1 and len(set(names)) == 2, "neighbours, and 0 with 200"


def test_the_ninth_of_a_picture():
    assert (place((0, 0, 0.2, 0.2)), place((0.9, 0.9, 1, 1)), place((0.4, 0.0, 0.6, 0.1)), place(None)) == (0, 8, 1, None)


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    from models.proxy.twins import write_twins

    folder = tmp_path_factory.mktemp("twins")
    write_twins(folder, n=8, seed=0, split="test")
    return folder


def test_twins_ask_the_same_of_pictures_that_differ_in_the_evidence_alone(twins):
    (batch,) = batches(twins, "mmvp", chosen(twins, "mmvp", 8), 8)
    assert [one.twin for one in batch] == [("vr_mmvp", at ^ 1) for at in range(8)]
    for first, second in zip(batch[::2], batch[1::2], strict=True):
        a, b = first.asked, second.asked
        assert (a.text, a.options) == (b.text, b.options) and a.target != b.target and len(set(a.options)) == 4
        changed = (np.array(a.images[0]) != np.array(b.images[0])).any(-1)
        (_, x0, y0, x1, y1), side = a.boxes[0], a.images[0].width
        rows, columns = np.nonzero(changed)
        assert len(rows) and x0 * side <= columns.min() and columns.max() < x1 * side and y0 * side <= rows.min() and rows.max() < y1 * side


def test_neighbours_with_other_options_or_the_same_picture_are_no_twins(mirrors):
    keys = chosen(mirrors["hrbench4k"], "hrbench4k", 8)
    assert len(keys) == 8
    assert not any(one.twin for batch in batches(mirrors["hrbench4k"], "hrbench4k", keys, 4) for one in batch)


def test_a_card_holds_every_intervention_and_controls_that_change_nothing_change_nothing(checkpoint, images, twins, tmp_path):
    from models.card import causal_card

    spec = CardSpec(
        benchmark="mmvp", tasks=digest("mmvp"), decode=DecodeSpec(start="forced", end="forced", latent_steps=2, max_new_tokens=3), n=8,
        images=images, precision="fp32",
    )  # fmt: skip
    causal_card(LocalRun(tmp_path), spec, checkpoint=checkpoint, mirror=twins, batch_size=8)
    card = json.loads((tmp_path / "card.json").read_text())
    assert len(card["questions"]) == 8 and card["probes"]["place"] is None, "too few for a probe"
    for row in card["questions"]:
        assert set(row["modes"]) == {"own", "zeroed", "noise", "another", "twin", "markers", "none", "hidden", "hidden_another", "hidden_twin"}
        assert set(row["moved"]) == {"evidence", "elsewhere", "twin"} and min(row["moved"].values()) > 0
        logs = {mode: said["loglik"] for mode, said in row["modes"].items()}
        assert len({round(logs[mode], 4) for mode in ("own", "zeroed", "another", "markers", "hidden")}) == 5, "each reaches the answer"
    assert len(card["alike"]["cosine"]) == 8


def test_a_card_planned_with_other_tasks_is_refused(checkpoint, twins, tmp_path):
    from models.card import causal_card

    spec = CardSpec(benchmark="mmvp", tasks={"vr_mmvp": "0" * 64}, decode=DecodeSpec())
    with pytest.raises(ValueError, match="vr_mmvp changed since this card was planned"):
        causal_card(LocalRun(tmp_path), spec, checkpoint=checkpoint, mirror=twins, batch_size=8)


def test_a_masked_picture_changes_the_answer_not_the_latents_nor_the_prefill_nor_other_rows(checkpoint, images, twins):
    from models.evaluation.engine import Engine
    from models.evaluation.tasks.paper import paper_prompt
    from models.latent.decoding import decode
    from models.latent.prefill import read
    from models.latent.prompt import Prompt

    engine = Engine(checkpoint, precision="fp32")
    (batch,) = batches(twins, "mmvp", chosen(twins, "mmvp", 4), 4)
    prompts = []
    for one in batch[:2]:
        asked = one.asked
        chat = [{"role": "user", "content": [{"type": "image", "url": asked.images[0]}, {"type": "text", "text": paper_prompt(asked.text + "x" * len(prompts), list(asked.options))}]}]
        (question,) = engine.prepare([chat], images, [lambda asked=asked: list(asked.images)])
        held = engine.features_of([question], images)
        prompts.append(Prompt(question.input_ids, question.grids, held[question.images[0]]))
    spec = DecodeSpec(start="forced", end="forced", latent_steps=2, max_new_tokens=3)
    given = {"tokens": engine.tokens, "eos": set(), "keep_latents": True, "keep_logits": lambda logits: logits.float()}
    prefill = read(engine.model, prompts, True, engine.tokens)
    plain = decode(engine.model, prompts, spec, prefill=prefill, **given)
    hidden = decode(engine.model, prompts, spec, prefill=prefill, hide_images=True, **given)
    again = decode(engine.model, prompts, spec, prefill=prefill, **given)
    for number in range(2):
        alone = decode(engine.model, [prompts[number]], spec, hide_images=True, **given)[0]
        assert torch.equal(plain[number].latents, hidden[number].latents), "latents are of the whole picture"
        torch.testing.assert_close(hidden[number].kept, alone.kept, atol=1e-4, rtol=1e-4)
        assert (hidden[number].kept - plain[number].kept).abs().max() > 1e-2
        assert torch.equal(plain[number].kept, again[number].kept), "the prefill is as it was"
