"""The decoder's training step on rows: forward, cross-entropy at supervised tokens, attention supervision.

The forward is transformers' own layers called one by one, so that one layer's queries and keys can be supervised.
`tests` compare it with the plain model's logits.
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


@dataclass
class Step:
    """Losses of one batch and the share of right answers (first token, teacher forced)."""

    answer_loss: torch.Tensor
    look_loss: torch.Tensor
    answers_right: torch.Tensor
    """bool [answers]"""


def _look_loss(layer, x: torch.Tensor, batch: Batch, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """-log of the share of attention over the picture that heads 0 and 1 give to the two things, mean over looks."""
    attention = layer.self_attn
    d = attention.head_dim
    row_index = torch.full((batch.ids.shape[0],), -1)
    row_index[batch.picture_rows[:, 0]] = torch.arange(len(batch.picture_rows))
    span = batch.picture_rows[:, 1:] + torch.arange(batch.picture_tokens)
    rows = batch.picture_rows[:, :1].expand_as(span)
    weight_q, bias_q = attention.q_proj.weight[: 2 * d], attention.q_proj.bias[: 2 * d]
    weight_k, bias_k = attention.k_proj.weight[: 2 * d], attention.k_proj.bias[: 2 * d]
    cos, sin = rotary
    at = batch.look_at[:, 0], batch.look_at[:, 1]
    q = F.linear(x[at], weight_q, bias_q).view(-1, 2, d)
    k = F.linear(x[rows, span], weight_k, bias_k).view(*span.shape, 2, d)
    q, _ = apply_rotary_pos_emb(q, q, cos[at], sin[at])
    k, _ = apply_rotary_pos_emb(k, k, cos[rows, span], sin[rows, span], unsqueeze_dim=2)
    scores = torch.einsum("qhd,qthd->qht", q, k[row_index[at[0]]]).float() / math.sqrt(d)
    return F.cross_entropy(scores.flatten(0, 1), batch.look_at[:, 2:].flatten())


def forward(model, batch: Batch, pictures: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states [rows, length, D] after the final norm, and the look loss.

    `pictures`: merged tokens [pictures, tokens, D] in the order of `batch.picture_rows`.
    """
    decoder = model.model.language_model
    x = decoder.embed_tokens(batch.ids)
    look = x.new_zeros(())
    if pictures is not None and len(batch.picture_rows):
        x = x.clone()
        span = batch.picture_rows[:, 1:] + torch.arange(batch.picture_tokens)
        x[batch.picture_rows[:, :1].expand_as(span), span] = pictures.to(x.dtype)
        if len(batch.fill_at):
            x[batch.fill_at[:, 0], batch.fill_at[:, 1]] = pictures[batch.fill_at[:, 2], batch.fill_at[:, 3]].to(x.dtype)
    rotary = decoder.rotary_emb(x, batch.positions)
    for k, layer in enumerate(decoder.layers):
        if k == LOOK_LAYER and len(batch.look_at):
            look = _look_loss(layer, layer.input_layernorm(x), batch, rotary)
        x = layer(x, attention_mask=None, position_embeddings=rotary, position_ids=None, use_cache=False)
    return decoder.norm(x), look


def step(model, batch: Batch, pictures: torch.Tensor | None, never: torch.Tensor) -> Step:
    """One batch's losses. `never` are token ids kept out of the softmax: the base must not be taught against them."""
    hidden, look = forward(model, batch, pictures)
    chosen = hidden[batch.target_at[:, 0], batch.target_at[:, 1]]
    logits = model.lm_head(chosen).float()
    logits[:, never] = -1e4
    losses = F.cross_entropy(logits, batch.target_ids, reduction="none")
    answers = len(batch.answers_at)
    with torch.no_grad():
        index = {(int(r), int(p)): k for k, (r, p) in enumerate(batch.target_at.tolist())}
        at = torch.tensor([index[int(r), int(p)] for r, p, _ in batch.answers_at.tolist()])
        right = logits[at].argmax(-1) == batch.answers_at[:, 2]
    return Step((losses * batch.target_weights).sum() / answers, look, right)
