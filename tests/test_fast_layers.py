# SPDX-License-Identifier: MIT
"""Layers with less memory traffic against torchtune's own."""

import copy

import pytest
import torch
from conftest import TINY
from torch import nn
from torchtune.models.llama3 import lora_llama3
from torchtune.modules import FeedForward, RMSNorm

from data.pairs.tokens import Continuation
from finetune.tree.attention import cut_tree
from finetune.tree.layers import use_fast_layers
from finetune.tree.logprobs import answer_logprobs
from finetune.tree.prefix_tree import build_tree


def norm():
    module = RMSNorm(6, eps=1e-3)
    nn.init.normal_(module.scale)
    return module.requires_grad_(False)


def feed_forward(**kwargs):
    gate, down, up = (nn.Linear(a, b, bias=False) for a, b in ((6, 9), (9, 6), (6, 9)))
    return FeedForward(gate_proj=gate, down_proj=down, up_proj=up, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [norm, feed_forward])
def test_output_and_gradient_equal_torchtunes(make, dtype):
    torch.manual_seed(0)
    plain = make().to(dtype)
    fast = copy.deepcopy(plain)
    use_fast_layers(nn.Sequential(fast))
    assert "forward" in vars(fast)
    found = []
    for module in (plain, fast):
        x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        out = module(x)
        out.sin().sum().backward()
        found.append((out, x.grad, *(p.grad for p in module.parameters() if p.requires_grad)))
    tolerance = 1e-6 if dtype is torch.float32 else 1e-2
    for a, b in zip(*found):
        assert (a - b).norm() <= tolerance * a.norm()


@pytest.mark.parametrize("make", [norm, feed_forward])
def test_gradient_is_that_of_finite_differences(make):
    torch.manual_seed(0)
    module = make().double()
    use_fast_layers(nn.Sequential(module))
    assert torch.autograd.gradcheck(module, torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True))


def test_layers_of_another_kind_stay_as_they_are():
    trained = norm()
    trained.scale.requires_grad_(True)
    gelu = feed_forward(activation=nn.GELU())
    use_fast_layers(nn.ModuleList([trained, gelu]))
    assert not any("forward" in vars(module) for module in (trained, gelu))


def test_a_whole_decoder_gives_the_same_log_probabilities_and_gradients():
    torch.manual_seed(0)
    lora = {"lora_rank": 4, "lora_alpha": 8, "apply_lora_to_mlp": True}
    plain = lora_llama3(["q_proj", "k_proj", "v_proj", "output_proj"], **TINY, **lora)
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if "lora_b" in name:
            nn.init.normal_(parameter, std=0.02)
    fast = copy.deepcopy(plain)
    use_fast_layers(fast)
    prompt = torch.randint(TINY["vocab_size"], (30,)).tolist()
    answers = [torch.randint(TINY["vocab_size"], (n,)).tolist() for n in (50, 90)]
    tree = build_tree([Continuation(prompt + a, [-100] * 30 + a) for a in answers])
    assert cut_tree(tree) is not None
    sums = answer_logprobs(plain, tree), answer_logprobs(fast, tree, cut_tree(tree))
    torch.testing.assert_close(*sums, rtol=1e-6, atol=1e-5)
    for values in sums:
        (values[0] - values[1]).backward()
    for (name, a), b in zip(plain.named_parameters(), fast.parameters()):
        if a.requires_grad:
            assert (a.grad - b.grad).norm() <= 1e-5 * a.grad.norm(), name
