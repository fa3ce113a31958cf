"""LVR's optional modules, with its release's parameter names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.backbone.model import Head

EPSILON = 1e-6


class SimpleHead(nn.Module):
    """LayerNorm, Linear, GELU, Linear, all D wide: [..., D] -> [..., D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_q = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, states: Tensor) -> Tensor:
        return self.mlp(self.ln_q(states))


class GluHead(nn.Module):
    """The language model's MLP with biases, as wide inside: [..., D] -> [..., D]."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, inner), nn.Linear(width, inner)
        self.down_proj = nn.Linear(inner, width)

    def forward(self, states: Tensor) -> Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(states)) * self.up_proj(states))


class EndVector(nn.Module):
    """The learned vector that ends a segment."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.empty(width))

    def initialise(self) -> None:
        with torch.no_grad():
            self.vector.copy_(fresh_end_vector(len(self.vector)))

    def forward(self) -> Tensor:
        """[D]"""
        return self.vector.clone()


def make_head(kind: str, width: int, inner: int) -> nn.Module:
    """`head: simple | glu`. inner: width of the language model's MLP."""
    return SimpleHead(width) if kind == "simple" else GluHead(width, inner)


def fresh_end_vector(width: int) -> Tensor:
    """[D]: a random direction of norm sqrt(D), the norm of a state after RMSNorm."""
    direction = torch.randn(width)
    return direction * (math.sqrt(width) / direction.norm())


HEAD, END = "lvr_head", "lvr_latent_end_emb"

HEADS = {
    "lvr_simple": Head(HEAD, lambda config, steps: make_head("simple", config.hidden_size, config.intermediate_size)),
    "lvr_glu": Head(HEAD, lambda config, steps: make_head("glu", config.hidden_size, config.intermediate_size)),
    "lvr_end": Head(END, lambda config, steps: EndVector(config.hidden_size)),
}
"""The release's names of keys; its end vector is a bare parameter, ours `lvr_latent_end_emb.vector`."""
