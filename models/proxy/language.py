"""The decoder's training step on rows: forward, cross-entropy at supervised tokens, attention supervision.

The forward uses transformers' own weights layer by layer. A row's prefix is computed once and its turns attend to it,
which costs a fifth of repeating it, and one layer's attention can be supervised on the way. `tests` compare it with the
plain model on single-turn conversations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

from models.proxy.rows import Batch

LOOK_LAYER = 1
"""The decoder layer whose first two heads are shown where to look: layer 0 gathers a name's words at its last one, layer
1 finds the thing, and four layers are left to use it."""
_LOOK_HEADS = 2


@dataclass
class Step:
    """Losses of one batch and the share of right answers (first token, teacher forced)."""

    answer_loss: torch.Tensor
    look_loss: torch.Tensor
    answers_right: torch.Tensor
    """bool [turns]"""


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


def _look_loss(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """-log of the attention that heads 0 and 1 give to the two things, over all keys, mean over looks."""
    at = scores[batch.look_at[:, 0], :_LOOK_HEADS, batch.look_at[:, 1]].float()
    return F.cross_entropy(at.flatten(0, 1), (batch.picture_at + batch.look_at[:, 2:]).flatten())


def forward(model, batch: Batch, pictures: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states of the turns [turns, length, D] after the final norm, and the look loss.

    `pictures`: merged tokens [rows, tokens, D], None for text rows.
    """
    decoder = model.model.language_model
    x, y = decoder.embed_tokens(batch.prefix), decoder.embed_tokens(batch.turns)
    if pictures is not None:
        at = batch.picture_at
        x = torch.cat([x[:, :at], pictures.to(x.dtype), x[:, at + batch.picture_tokens :]], dim=1)
        if len(batch.fill_at):
            y = y.clone()
            y[batch.fill_at[:, 0], batch.fill_at[:, 1]] = pictures[batch.row_of[batch.fill_at[:, 0]], batch.fill_at[:, 2]].to(y.dtype)
    look = y.new_zeros(())
    rotary_x, rotary_y = decoder.rotary_emb(x, batch.prefix_positions), decoder.rotary_emb(y, batch.turn_positions)
    mask_x, mask_y = _causal(x.shape[1]), _causal(y.shape[1], x.shape[1])
    for number, layer in enumerate(decoder.layers):
        attention = layer.self_attn
        qx, kx, vx = _heads(attention, layer.input_layernorm(x), rotary_x)
        qy, ky, vy = _heads(attention, layer.input_layernorm(y), rotary_y)
        seen_y, scores = _attend(qy, torch.cat([kx[batch.row_of], ky], 2), torch.cat([vx[batch.row_of], vy], 2), mask_y)
        if number == LOOK_LAYER and len(batch.look_at):
            look = _look_loss(scores, batch)
        y = y + attention.o_proj(seen_y)
        y = y + layer.mlp(layer.post_attention_layernorm(y))
        if number + 1 < len(decoder.layers):  # nothing reads the prefix after the last layer's keys
            x = x + attention.o_proj(_attend(qx, kx, vx, mask_x)[0])
            x = x + layer.mlp(layer.post_attention_layernorm(x))
    return decoder.norm(y), look


def step(model, batch: Batch, pictures: torch.Tensor | None, never: torch.Tensor) -> Step:
    """One batch's losses. `never` are token ids kept out of the softmax: the base must not be taught against them."""
    hidden, look = forward(model, batch, pictures)
    logits = model.lm_head(hidden[batch.target_at[:, 0], batch.target_at[:, 1]]).float()
    logits[:, never] = -1e4
    losses = F.cross_entropy(logits, batch.target_ids, reduction="none")
    right = logits.detach()[batch.answers].argmax(-1) == batch.target_ids[batch.answers]
    return Step((losses * batch.target_weights).sum() / len(batch.answers), look, right)
