# SPDX-License-Identifier: MIT
"""The LoRA layer that accumulates its products, against torchtune's own."""

import copy

import pytest
import torch
from torch import nn
from torchtune.modules.peft import LoRALinear

from finetune.lora_linear import accumulate_lora_products


def two_layers(dtype=torch.float64, dropout=0.0, **kwargs):
    """torchtune's layer, and the same one with accumulated products."""
    torch.manual_seed(0)
    plain = LoRALinear(6, 5, rank=3, alpha=2.0, dropout=dropout, **kwargs).to(dtype)
    nn.init.normal_(plain.lora_b.weight)
    plain.weight.requires_grad_(False)
    lean = copy.deepcopy(plain)
    accumulate_lora_products(nn.Sequential(lean))
    return plain, lean


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (1, 4, 6)])
def test_output_and_gradients_equal_torchtunes(shape, dropout):
    found = []
    for layer in two_layers(dropout=dropout):
        torch.manual_seed(1)
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        torch.manual_seed(2)
        out = layer(x)
        (out.sin()).sum().backward()
        found.append((out, x.grad, layer.lora_a.weight.grad, layer.lora_b.weight.grad))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gradient_is_that_of_finite_differences():
    _, lean = two_layers()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)

    def output(x, a, b):
        return torch.func.functional_call(lean, {"lora_a.weight": a, "lora_b.weight": b}, (x,))

    assert torch.autograd.gradcheck(output, (x, lean.lora_a.weight, lean.lora_b.weight))


def test_switched_off_it_is_the_base_and_an_update_of_zero_changes_no_bit():
    plain, lean = two_layers(torch.float32)
    x = torch.randn(7, 6)
    base = x @ plain.weight.T
    lean.disabled = True
    assert torch.equal(lean(x), base)
    lean.disabled = False
    nn.init.zeros_(lean.lora_b.weight)
    assert torch.equal(lean(x), base)


def test_layers_that_it_does_not_know_are_left_alone():
    _, lean = two_layers(use_bias=True)
    assert "forward" not in vars(lean)
