"""Products of bf16 on a CPU that has no instructions for them. The rest of the process is left as it is: each test has its own."""

import subprocess
import sys

import pytest

AS_ON_A_LAPTOP = """
import torch
import models.backbone.products as products

torch.ops.mkldnn._is_mkldnn_bf16_supported = lambda: {supported}
torch.manual_seed(0)
patches, kernels, shifts = torch.randn(40, 3, 2, 14, 14), torch.randn(32, 3, 2, 14, 14), torch.randn(32)
states, weight, bias = torch.randn(3, 50, 64), torch.randn(96, 64), torch.randn(96)
narrow = [tensor.bfloat16().requires_grad_() for tensor in (states, weight, bias)]
layer, pairs = torch.nn.functional.linear, lambda a: a @ a.transpose(1, 2)

def found(tensors):
    layer(*tensors).square().sum().backward()
    results = [layer(*tensors), layer(*tensors[:2]), pairs(tensors[0]), torch.baddbmm(pairs(tensors[0]), tensors[0], tensors[0].transpose(1, 2))]
    filters = [tensor.bfloat16().requires_grad_() for tensor in (patches, kernels, shifts)]
    for given in (filters, [*filters[:2], None]):
        results.append(torch.nn.functional.conv3d(*given, stride=(2, 14, 14)))
        results[-1].square().sum().backward()
    return [result.detach() for result in results] + [tensor.grad for tensor in filters] + [tensor.grad for tensor in tensors]

before, exact = found(narrow), layer(states, weight, bias)
for tensor in narrow:
    tensor.grad = None
products.widen_products()
products.widen_products()
after = found(narrow)
assert [tensor.dtype for tensor in after] == [torch.bfloat16] * 12
for ours, torchs in zip(after, before):
    torch.testing.assert_close(ours, torchs, rtol=2**-7, atol=2**-7 * torchs.abs().max().item())
states16 = states.bfloat16()
held = products.widened(states16)
assert held.dtype is (torch.bfloat16 if {supported} else torch.float32)
assert torch.equal(states16 @ held.transpose(1, 2), pairs(states16))
assert torch.equal(layer(states, weight, bias), exact)
print(products._library is not None)
"""


@pytest.mark.parametrize("supported", [True, False])
def test_products_keep_their_values_and_gradients(supported):
    done = subprocess.run([sys.executable, "-c", AS_ON_A_LAPTOP.format(supported=supported)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(not supported)]
