"""The two resamplers: BCM (teacher, Eq. 1) and DAC (student, Eq. 3). One cross-attention and a LayerNorm each.

Parameter names are the authors', so that their checkpoints load as they are. The modules know features and queries;
which features belong to which box is `boxes`' business.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from models.backbone.model import Head

NORM_EPS = 1e-6
QUERY_STD = 0.02


def head_count(width: int) -> int:
    """Attention heads at LLM width D: min(8, D // 64), at least one."""
    return max(1, min(8, width // 64))


@dataclass(eq=False)
class Keys:
    """Features projected to keys and values, to be queried several times."""

    key: Tensor
    """[B, heads, N, D / heads]"""
    value: Tensor
    mask: Tensor | None
    """[B, N] bool, True where a feature exists; None if all do."""

    def select(self, boxes: Tensor) -> Keys:
        """The same for some of the boxes."""
        return Keys(self.key[boxes], self.value[boxes], None if self.mask is None else self.mask[boxes])


class CrossAttention(nn.Module):
    """Multi-head attention with biases, no dropout, batch first; state dict as `nn.MultiheadAttention`'s."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = head_count(width)
        if width % self.heads:
            raise ValueError(f"width {width} is not divisible by {self.heads} heads")
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def initialise(self) -> None:
        init.xavier_uniform_(self.in_proj_weight)
        init.zeros_(self.in_proj_bias)

    def forward(
        self, queries: Tensor | None, source: Tensor | Keys, mask: Tensor | None = None, tau: float = 1.0
    ) -> tuple[Tensor, ...]:
        """queries [B, S, D] against source: features [B, N, D] with `mask` [B, N] (True = exists), or `Keys` of an earlier call.

        Returns (output [B, S, D], map [B, S, N], map softened by tau): maps are averaged over heads after the softmax, in
        fp32; tau divides the scores of every head. With queries None: only the projected (keys, values), for `Keys`.
        (One `forward` for both, because sharded parameters are only whole inside it; a plain tuple, because ZeRO-3 looks
        for tensors whose backward pass needs the parameters in no other type.)
        """
        width = self.in_proj_weight.shape[1]
        if isinstance(source, Keys):
            keys = source
        else:
            projected = F.linear(source, self.in_proj_weight[width:], self.in_proj_bias[width:])
            key, value = (self._split(part) for part in projected.chunk(2, dim=-1))
            if queries is None:
                return key, value
            keys = Keys(key, value, mask)
        query = self._split(F.linear(queries, self.in_proj_weight[:width], self.in_proj_bias[:width]))
        scores = (query @ keys.key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5
        if keys.mask is not None:
            scores = scores.masked_fill(~keys.mask[:, None, None, :], float("-inf"))
        attention = scores.softmax(-1)
        mixed = (attention.to(keys.value.dtype) @ keys.value).transpose(1, 2).flatten(2)
        attention_map = attention.mean(1)
        softened = attention_map if tau == 1.0 else (scores / tau).softmax(-1).mean(1)
        return self.out_proj(mixed), attention_map, softened

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Resampler(nn.Module):
    """LayerNorm(CrossAttn(Q, F, F)): no residual, no feed-forward, no positional information."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cross_attn = CrossAttention(width)
        self.output_norm = nn.LayerNorm(width, eps=NORM_EPS)

    def keys(self, features: Tensor, mask: Tensor | None) -> Keys:
        """Project features [B, N, D] once, to query them several times."""
        return Keys(*self.cross_attn(None, features), mask)

    def forward(
        self, queries: Tensor, source: Tensor | Keys, mask: Tensor | None = None, tau: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(Z [B, S, D], map [B, S, N], map softened by tau)."""
        mixed, attention, softened = self.cross_attn(queries, source, mask, tau)
        return self.output_norm(mixed), attention, softened


class BoxResampler(Resampler):
    """BCM: S learned queries over the features of a box."""

    def __init__(self, width: int, latent_steps: int) -> None:
        super().__init__(width)
        self.latent_steps = latent_steps
        self.queries = nn.Parameter(torch.empty(1, latent_steps, width))

    def initialise(self) -> None:
        init.normal_(self.queries, std=QUERY_STD)

    @torch.no_grad()
    def pass_through(self) -> None:
        """Let values and output be the identity: Z_T is then the LayerNorm of the attended features (`bcm_init: identity`)."""
        attention, width = self.cross_attn, self.queries.shape[-1]
        nn.init.eye_(attention.in_proj_weight[2 * width :])
        nn.init.eye_(attention.out_proj.weight)
        nn.init.zeros_(attention.in_proj_bias[2 * width :])
        nn.init.zeros_(attention.out_proj.bias)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(Z_T [B, S, D], A_T [B, S, N]) of features [B, N, D]."""
        queries = self.queries.expand(len(features), -1, -1)
        z, attention, _ = super().forward(queries, features, mask)
        return z, attention


class StudentResampler(Resampler):
    """DAC: the queries are the language model's states; phi of Eq. 3 is the attention's own W_q."""


class OwnParameters(nn.Module):
    """What the authors' model does not have; its keys stand under `vreflection.`."""

    def __init__(self, width: int, latent_steps: int) -> None:
        super().__init__()
        self.static_queries = nn.Parameter(torch.empty(latent_steps, width))

    def initialise(self) -> None:
        init.normal_(self.static_queries, std=QUERY_STD)

    def forward(self, boxes: int) -> Tensor:
        """The static queries for a number of boxes: [boxes, S, D] (Table 3d, static Q_dyn)."""
        return self.static_queries.unsqueeze(0).repeat(boxes, 1, 1)


BCM, DAC, STATIC = "box_feature_resampler", "student_resampler", "vreflection"
"""Attributes on the model and prefixes of keys, the authors'; `vreflection` is ours."""

HEADS = {
    "bcm": Head(BCM, lambda config, steps: BoxResampler(config.hidden_size, steps)),
    "dac": Head(DAC, lambda config, steps: StudentResampler(config.hidden_size)),
    "static": Head(STATIC, lambda config, steps: OwnParameters(config.hidden_size, steps)),
}
"""static: the learned queries of `query_source: static`."""
