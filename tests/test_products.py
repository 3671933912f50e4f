# SPDX-License-Identifier: MIT
"""``finetune/tree/products.py``: the plain product is what they must equal."""

import pytest
import torch
from torch import nn

from finetune.tree.products import frozen_linear, product


@pytest.mark.parametrize("rows", [0, 1, 5, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_product_equals_the_plain_one(rows, dtype):
    torch.manual_seed(0)
    x, weight = torch.randn(rows, 576).to(dtype), torch.randn(192, 576).to(dtype)
    exact = x.double() @ weight.double().T
    found = product(x, weight)
    assert found.dtype == dtype
    assert found.shape == exact.shape
    limit = 1e-6 if dtype != torch.bfloat16 else 2**-8
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=limit * exact.abs().max().item() if rows else 0)
    # a transposed view, and rows that do not lie together
    back = product(exact.to(dtype)[:, ::2], weight.T[:, ::2])
    wanted = exact.to(dtype)[:, ::2].double() @ weight.double()[::2]
    torch.testing.assert_close(back.double(), wanted, rtol=0, atol=limit * wanted.abs().max().item() if rows else 0)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
@pytest.mark.parametrize(("rows", "is_onednn"), [(9, False), (10, True)])
def test_onednn_writes_code_for_large_products_alone(rows, is_onednn):
    with torch.autograd.profiler.profile() as seen:
        product(torch.ones(rows, 576), torch.ones(192, 576))
    assert any("mkldnn" in event.name for event in seen.function_events) == is_onednn


def test_a_frozen_layer_passes_its_gradient_on():
    torch.manual_seed(0)
    layer = nn.Linear(64, 32, bias=False).requires_grad_(False)
    x = torch.randn(2, 7, 64, requires_grad=True)
    grads = [torch.autograd.grad(out.sin().sum(), x)[0] for out in (layer(x), frozen_linear(layer, x))]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)
    assert frozen_linear(layer, x).shape == (2, 7, 32)
    assert frozen_linear(layer, x[0, 0]).shape == (32,)
    assert frozen_linear(layer, x[:, :0]).shape == (2, 0, 32)
    (first,) = torch.autograd.grad(frozen_linear(layer, x).sin().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
