"""Flash attention's two kernels in plain torch, put where transformers looks for the package: everything around them, from
masks to how rows are unpadded, stays transformers' own. What the kernels would compute on a GPU, a CPU can compare."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import modeling_flash_attention_utils as utils


class Kernels:
    """The kernels, and how often each was called."""

    def __init__(self) -> None:
        self.varlen_calls = self.dense_calls = 0

    def varlen(
        self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
        max_seqlen_k: int, dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
        window_size: tuple[int, int] = (-1, -1), deterministic: bool = False,
    ) -> Tensor:  # fmt: skip
        """As `flash_attn_varlen_func`: q [N, heads, d], k and v [M, kv heads, d], sequences end to end."""
        self.varlen_calls += 1
        for ends, most, tokens in ((cu_seqlens_q, max_seqlen_q, q), (cu_seqlens_k, max_seqlen_k, k)):
            assert ends.dtype == torch.int32 and ends[0] == 0 and ends[-1] == len(tokens)
            assert int(ends.diff().min()) > 0 and int(ends.diff().max()) == int(most)
        assert len(cu_seqlens_q) == len(cu_seqlens_k) and dropout_p == 0.0 and window_size == (-1, -1)
        spans = [torch.stack([ends[:-1], ends[1:]], 1).tolist() for ends in (cu_seqlens_q, cu_seqlens_k)]
        return torch.cat([
            _attend(q[a:b], k[c:d], v[c:d], softmax_scale, causal) for (a, b), (c, d) in zip(*spans, strict=True)
        ])  # fmt: skip

    def dense(
        self, q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
        causal: bool = False, window_size: tuple[int, int] = (-1, -1), deterministic: bool = False,
    ) -> Tensor:  # fmt: skip
        """As `flash_attn_func`: [rows, tokens, heads, d]."""
        self.dense_calls += 1
        return torch.stack([_attend(*row, softmax_scale, causal) for row in zip(q, k, v)])


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool) -> Tensor:
    """One sequence; the causal mask is aligned to the last query and the last key, as in flash-attn since 2.1."""
    shared = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * (scale if scale is not None else q.shape[-1] ** -0.5)
    if causal:
        seen = torch.ones(len(q), len(k), dtype=torch.bool).tril(len(k) - len(q))
        scores = scores.masked_fill(~seen, float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


@pytest.fixture
def kernels(monkeypatch) -> Kernels:
    """The kernels, for models that ask for flash_attention_2 (see `with_flash`)."""
    made = Kernels()
    found = (made.dense, made.varlen, None, utils._pad_input, utils._unpad_input)
    monkeypatch.setattr(utils, "_lazy_imports", lambda *args, **kwargs: found)
    loaded = ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_flash_with_kvcache_fn", "_pad_fn", "_unpad_fn",
              "_process_flash_kwargs_fn", "_process_with_kvcache_kwargs_fn")  # fmt: skip
    for name in loaded:
        monkeypatch.setattr(utils, name, None)
    return made


def with_flash(model):
    """The model, asking for flash_attention_2 in its language model and its vision tower."""
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config._attn_implementation = "flash_attention_2"
    return model
