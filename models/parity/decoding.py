"""What the references of LVR and of VisReflect hold of decoding, compared with ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from models.backbone.model import Backbone
from models.backbone.template import positions
from models.backbone.tokens import SpecialTokens
from models.config import DecodeSpec
from models.latent.boxes import MERGE
from models.latent.decoding import Step, decode
from models.latent.prompt import Prompt, grids_of, vision
from models.latent.slots import distances
from models.parity.reference import OUTPUT, Check, Noted, difference, unequal


@contextmanager
def forced(model: Backbone, ids: Mapping[int, int], steps: Sequence[Step]):
    """Make the model pick ids[k] as its k-th new token, by its logits: a random model says no marker by itself."""

    def change(module: torch.nn.Module, inputs: tuple, logits: Tensor) -> Tensor:
        wanted = ids.get(len(steps) - 1)
        if wanted is None:
            return logits
        logits = torch.full_like(logits, -1e4)
        logits[..., wanted] = 1e4
        return logits

    handle = model.lm_head.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def prompt_checks(
    model: Backbone, prompt: Prompt, tokens: SpecialTokens, held: Noted, prefix: str, title: str
) -> Iterator[Check]:
    """What the language model is fed of a prompt and where, if `held` has them under `prefix`."""
    features, _ = vision(model, [prompt])
    if f"{prefix}prompt_inputs_embeds" in held:
        embeds = model.embed(prompt.input_ids[None], features).detach()
        yield Check(f"{title}: prompt inputs", difference(embeds, held[f"{prefix}prompt_inputs_embeds"]), OUTPUT)
    if f"{prefix}prompt_position_ids" in held:
        places = positions(prompt.input_ids, grids_of(prompt, MERGE), tokens.image, tokens.video)
        yield Check(f"{title}: prompt positions", unequal(places[:, None], held[f"{prefix}prompt_position_ids"]), 0)


def baseline(
    model: Backbone, prompt: Prompt, spec: DecodeSpec, tokens: SpecialTokens, eos: set[int], stated: Noted, name: str
) -> Check:
    """A case without latent steps and without markers: its ids."""
    markers = [tokens.lvr_start, tokens.lvr, tokens.lvr_end]
    answer = decode(model, [prompt], spec, tokens=tokens, eos=eos)[0]
    wrong = unequal(torch.tensor(answer.token_ids), torch.tensor(stated["new_ids"])) + (sorted(stated["suppress_tokens"]) != sorted(markers))
    return Check(f"decoding {name}: ids", wrong, 0)


def checks(
    model: Backbone, prompts: list[Prompt], spec: DecodeSpec, tokens: SpecialTokens, eos: set[int], stated: Noted, held: Noted,
    name: str, begin: int | None = None, **options,
) -> Iterator[Check]:
    """One case NAME of a reference's `generate`: ids, which forwards got a state, and where `held` has them the inputs, states,
    logits and positions of every forward of the first prompt. begin: an id that is forced as the first new one, beside those that
    the case names."""
    steps: list[Step] = []
    given = stated["forced_ids_by_generated_index"]
    ids = {int(at): given[at] for at in given} | ({} if begin is None else {0: begin})
    with forced(model, ids, steps):
        answers = decode(model, prompts, spec, tokens=tokens, eos=eos, on_step=steps.append, **options)
    latent = stated["latent_input_at_forward"]
    rows = stated["new_ids"]
    rows = rows if isinstance(rows[0], list) else [rows]
    wrong = 0
    for answer, row in zip(answers, rows, strict=True):
        want = [tokens.lvr if at + 1 < len(latent) and latent[at + 1] else token for at, token in enumerate(row)]
        wrong += unequal(torch.tensor(answer.token_ids), torch.tensor(want))
    yield Check(f"decoding {name}: ids", wrong, 0)
    fed = [False] + [torch.equal(now.inputs[0], before.hidden[0]) for before, now in pairwise(steps)]
    wrong = (fed != latent) + (sum(fed) != stated["num_latent_inputs"]) + (len(steps) != stated.get("num_forwards", len(steps)))
    yield Check(f"decoding {name}: previous state fed", wrong, 0)
    if f"{name}.ids" in held:
        whole = prompts[0].input_ids.tolist() + rows[0]
        yield Check(f"decoding {name}: ids are the manifest's", int(held[f"{name}.ids"][0].tolist() != whole), 0)
    if "distance_mse_of_each_state" in stated:
        end, states = options["end_vector"], torch.stack([step.hidden[0] for step in steps])
        ours = distances(states, end.expand_as(states), "mse")
        yield Check(f"decoding {name}: distances from the end vector", difference(ours, torch.tensor(stated["distance_mse_of_each_state"])), OUTPUT)
        yield Check(f"decoding {name}: default threshold", abs(DecodeSpec().leave_below - stated["default_threshold"]), 0)
    if f"{name}.step_in" not in held:
        return
    places = torch.stack([step.positions[0] for step in steps])
    yield Check(f"decoding {name}: positions", unequal(places, held[f"{name}.step_pos(text,t,h,w)"]), 0)
    hidden = torch.stack([step.hidden[0] for step in steps])
    for what, ours, theirs in (
        ("inputs", torch.stack([step.inputs[0] for step in steps]), "step_in"),
        ("states", hidden, "step_hidden"),
        ("logits", hidden @ model.lm_head.weight.T, "step_logits"),
    ):
        if f"{name}.{theirs}" in held:
            yield Check(f"decoding {name}: {what}", difference(ours, held[f"{name}.{theirs}"]), OUTPUT)
