# SPDX-License-Identifier: MIT
"""The LoRA layer that accumulates its products, against torchtune's own."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torchtune.modules.peft import LoRALinear

from finetune.tree.lora_linear import accumulate_lora_products, accumulate_when_reading


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


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_dropout": 0.5}], ids=str)
@pytest.mark.parametrize("active", [["one"], ["one", "two"], []], ids=str)
def test_reading_equals_pefts_own_layer(settings, active):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 5))
    for name, rank in (("one", 2), ("two", 3)):
        kwargs = settings if name == "one" else {}
        inject_adapter_in_model(LoraConfig(r=rank, target_modules=["0"], **kwargs), plain, adapter_name=name)
        nn.init.normal_(plain[0].lora_B[name].weight)
    plain.eval()
    plain[0].enable_adapters(bool(active))
    if active:
        plain[0].set_adapter(active)
        plain[0].set_scale("one", -0.5)
    lean = copy.deepcopy(plain)
    accumulate_when_reading(lean)
    x = torch.randn(2, 4, 6)
    with torch.no_grad():
        torch.testing.assert_close(lean(x), plain(x), rtol=1e-6, atol=1e-6)
    assert lean(x).requires_grad == plain(x).requires_grad
    torch.testing.assert_close(lean(x), plain(x))
