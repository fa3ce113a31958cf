"""The decoder's training step on rows: forward, cross-entropy at supervised tokens, and a scaffold that is taken away.

The forward uses transformers' own weights layer by layer. A row's prefix is computed once and its turns attend to it,
which costs a fifth of repeating it, and layers can be supervised on the way. `tests` compare it with the plain model on
single-turn conversations.

The scaffold: at a name's last word, two heads of an early layer look at the thing (look), the next layer's state can
say what it is and where (read), at the answer's position two heads of a later layer attend to the names (hop), the next
layer's state can say the answer in words (say), and two of its heads attend to the option that does (pick), whose letter
is then the answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

from models.proxy.architecture import HIDDEN, VOCABULARY
from models.proxy.rows import IGNORE, READ_CLASSES, Batch

LOOK_LAYER = 1
"""Layer 0 gathers a name's words at its last one, layer 1 finds the thing."""
READ_LAYER = 2
"""The state that enters this layer is read."""
HOP_LAYER = 3
"""This layer fetches what was read to the answer's position."""
PICK_LAYER = 4
"""This layer finds the option that says what was fetched; one layer is left to give its letter."""
PARTS = ("look", "read", "hop", "say", "pick")
"""The scaffold's losses, in the order of the layers."""
_HEADS = 2
"""Heads supervised per layer: the first two."""


class Scaffold(nn.Module):
    """Linear classifiers of READ_CLASSES on hidden states [n, D]; thrown away with the scaffold."""

    def __init__(self) -> None:
        super().__init__()
        self.readers = nn.ModuleList(nn.Linear(HIDDEN, count) for count in READ_CLASSES)
        self.speaker = nn.Linear(HIDDEN, VOCABULARY)

    def loss(self, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of every label that is given, mean over labels; `labels` [n, classifiers]."""
        losses = [
            F.cross_entropy(reader(states).float(), y, ignore_index=IGNORE, reduction="sum")
            for reader, y in zip(self.readers, labels.T, strict=True)
        ]
        return torch.stack(losses).sum() / (labels != IGNORE).sum().clamp(min=1)


@dataclass
class Step:
    """Losses of one batch and the share of right answers (first token, teacher forced)."""

    answer_loss: torch.Tensor
    scaffold: dict[str, torch.Tensor]
    """The scaffold's losses by part; zero where a batch has nothing for a part."""
    answers_right: torch.Tensor
    """bool [turns]"""
    write: torch.Tensor
    """Distance of the states before written slots from what fills them: mean square + 1 - cosine; zero without such slots."""


def _heads(attention, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values [batch, heads, length, head_dim], rotated."""
    shape = (*x.shape[:2], -1, attention.head_dim)
    q, k, v = (f(x).view(shape).transpose(1, 2) for f in (attention.q_proj, attention.k_proj, attention.v_proj))
    q, k = apply_rotary_pos_emb(q, k, *rotary)
    return q.to(v.dtype), k.to(v.dtype), v


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention output [batch, length, D] and log-probabilities' scores [batch, heads, length, keys] under an additive mask."""
    scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(q.shape[-1]) + mask.to(q.dtype)
    out = torch.matmul(F.softmax(scores, dim=-1).to(v.dtype), v)
    return out.transpose(1, 2).flatten(2), scores


def _causal(length: int, before: int = 0) -> torch.Tensor:
    """Additive mask [length, before + length]: everything before, and oneself causally."""
    mask = torch.zeros(length, before + length)
    mask[:, before:] = torch.full((length, length), float("-inf")).triu(1)
    return mask


def _pointed(scores: torch.Tensor, at: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """-log of the attention that heads 0 and 1 give to their key, over all keys, mean; `at` [n, 2], `keys` [n, 2]."""
    return F.cross_entropy(scores[at[:, 0], :_HEADS, at[:, 1]].float().flatten(0, 1), keys.flatten())


def forward(
    model, batch: Batch, pictures: torch.Tensor | None, scaffold: Scaffold | None = None, fills: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Last hidden states of the turns [turns, length, D] after the final norm, and the scaffold's losses by name.

    `pictures`: merged tokens [rows, tokens, D] of the pictures shown, None for text rows. `fills`: what stands in the
    slots of `batch.fill_at` [fills, D]; None takes the merged tokens of the pictures shown.
    """
    decoder = model.model.language_model
    x, y = decoder.embed_tokens(batch.prefix), decoder.embed_tokens(batch.turns)
    if pictures is not None:
        x = x.index_copy(1, batch.pictured, pictures.to(x.dtype))
        if len(batch.fill_at):
            y = y.clone()
            fills = merged_at(batch, pictures, batch.fill_at) if fills is None else fills
            y[batch.fill_at[:, 0], batch.fill_at[:, 1]] = fills.to(y.dtype)
    losses = dict.fromkeys(PARTS, y.new_zeros(()))
    supervised = scaffold is not None and pictures is not None and len(batch.look_at) > 0
    rotary_x, rotary_y = decoder.rotary_emb(x, batch.prefix_positions), decoder.rotary_emb(y, batch.turn_positions)
    mask_x, mask_y = _causal(x.shape[1]), _causal(y.shape[1], x.shape[1])
    for number, layer in enumerate(decoder.layers):
        attention = layer.self_attn
        if supervised and number == READ_LAYER:
            losses["read"] = scaffold.loss(y[batch.read_at[:, 0], batch.read_at[:, 1]], batch.read_at[:, 2:])
        if scaffold is not None and number == PICK_LAYER:
            said = scaffold.speaker(y[batch.say_at[:, 0], batch.say_at[:, 1]])
            losses["say"] = F.cross_entropy(said.float(), batch.say_at[:, 2])
        qx, kx, vx = _heads(attention, layer.input_layernorm(x), rotary_x)
        qy, ky, vy = _heads(attention, layer.input_layernorm(y), rotary_y)
        seen_y, scores = _attend(qy, torch.cat([kx[batch.row_of], ky], 2), torch.cat([vx[batch.row_of], vy], 2), mask_y)
        if supervised and number == LOOK_LAYER:
            losses["look"] = _pointed(scores, batch.look_at[:, :2], batch.picture_at + batch.look_at[:, 2:])
        if supervised and number == HOP_LAYER:
            losses["hop"] = _pointed(scores, batch.hop_at[:, :2], x.shape[1] + batch.hop_at[:, 2:])
        if scaffold is not None and number == PICK_LAYER and len(batch.pick_at):
            losses["pick"] = _pointed(scores, batch.pick_at[:, :2], x.shape[1] + batch.pick_at[:, 2:])
        y = y + attention.o_proj(seen_y)
        y = y + layer.mlp(layer.post_attention_layernorm(y))
        if number + 1 < len(decoder.layers):  # nothing reads the prefix after the last layer's keys
            x = x + attention.o_proj(_attend(qx, kx, vx, mask_x)[0])
            x = x + layer.mlp(layer.post_attention_layernorm(x))
    return decoder.norm(y), losses


def merged_at(batch: Batch, pictures: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Merged tokens [n, D] of `at` [n, 3] (turn, any, merged token) in the rows' `pictures`."""
    return pictures[batch.row_of[at[:, 0]], at[:, 2]]


def step(
    model, batch: Batch, pictures: torch.Tensor | None, never: torch.Tensor, scaffold: Scaffold | None = None, *,
    shown: torch.Tensor | None = None, own: bool = False,
) -> Step:
    """One batch's losses. `never` are token ids kept out of the softmax: the base must not be taught against them.

    `pictures`: merged tokens of the scenes that are asked about; `shown`: of the pictures in the prompts, where blind rows
    show another. own: written segments hold the model's own states of a first pass, as they do when it decodes; their
    targets stay the scenes' tokens.
    """
    fills = None
    if pictures is not None and len(batch.fill_at):
        fills = merged_at(batch, pictures, batch.fill_at)
        if own and len(batch.write_at):
            with torch.no_grad():
                before, _ = forward(model, batch, pictures if shown is None else shown, None, fills)
            states = before[batch.fill_at[:, 0], batch.fill_at[:, 1] - 1]
            written = torch.zeros(batch.turns.shape, dtype=torch.bool)
            written[batch.write_at[:, 0], batch.write_at[:, 1] + 1] = True
            fills = torch.where(written[batch.fill_at[:, 0], batch.fill_at[:, 1], None], states.to(fills.dtype), fills)
    hidden, scaffolding = forward(model, batch, pictures if shown is None else shown, scaffold, fills)
    logits = model.lm_head(hidden[batch.target_at[:, 0], batch.target_at[:, 1]]).float()
    logits[:, never] = -1e4
    losses = F.cross_entropy(logits, batch.target_ids, reduction="none")
    right = logits.detach()[batch.answers].argmax(-1) == batch.target_ids[batch.answers]
    write = hidden.new_zeros(())
    if pictures is not None and len(batch.write_at):
        states, target = hidden[batch.write_at[:, 0], batch.write_at[:, 1]].float(), merged_at(batch, pictures, batch.write_at).float()
        write = F.mse_loss(states, target) + (1 - F.cosine_similarity(states, target, dim=-1)).mean()
    return Step((losses * batch.target_weights).sum() / len(batch.answers), scaffolding, right, write)
