"""bf16 products on a CPU that has no instructions for them, which is most laptops: torch multiplies such numbers one by one there.

Here they are widened to fp32, multiplied as fp32, and rounded once at the end, as CPUs with the instructions do: the same values up to
the order of the sums. `python benchmarks/proxy_speed.py` measures what that is worth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

_SLOW = ("mm", "addmm", "bmm", "baddbmm", "slow_conv3d_forward")
_FAST = {"slow_conv3d_forward": lambda x, w, size, bias, stride, padding: F.conv3d(x, w, bias, stride, padding)}
"""What takes the widened arguments, where that is not the same operation: fp32 convolutions (the patches' embedding) have a faster one."""
_library: torch.library.Library | None = None


def widen_products() -> None:
    """Forward and backward, of everything in this process, once. On other CPUs nothing is changed."""
    global _library
    if _library is None and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        _library = torch.library.Library("aten", "IMPL")  # kept: what it registers ends with it
        for name in _SLOW:
            _widen(_library, name)


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers as products of them are computed from here: what takes part in many products is widened once. Such a product
    takes operands of both kinds and is bf16 all the same, if its first operand is."""
    slow = _library is not None and tensor.dtype is torch.bfloat16 and tensor.device.type == "cpu"
    return tensor.float() if slow else tensor


def _widen(library: torch.library.Library, name: str) -> None:
    kernel = torch.library.get_kernel(f"aten::{name}", "CPU")

    def product(keys: Any, *args: Any, **options: Any) -> torch.Tensor:
        if args[0].dtype is not torch.bfloat16:
            return kernel.call_boxed(keys, *args, **options)
        wide = [arg.float() if isinstance(arg, torch.Tensor) else arg for arg in args]
        found = _FAST[name](*wide) if name in _FAST else kernel.call_boxed(keys, *wide, **options)
        return found.bfloat16()

    library.impl(name, product, "CPU", with_keyset=True, allow_override=True)
