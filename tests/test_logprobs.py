# SPDX-License-Identifier: MIT
"""The tree's log-probabilities and gradients against torchtune's padded path, one sequence at a time."""

import copy

import pytest
import torch
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX
from torchtune.models.llama3 import lora_llama3
from torchtune.models.llama3_2 import lora_llama3_2
from torchtune.modules.peft import disable_adapter, get_adapter_params, set_trainable_params
from torchtune.rlhf import get_batch_log_probs

import finetune.tree.logprobs
from data.pairs.tokens import Continuation
from finetune.tree.logprobs import answer_logprobs
from finetune.tree.prefix_tree import build_tree

SIZES = {
    "vocab_size": 97, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 32, "intermediate_dim": 48,
    "max_seq_len": 128, "lora_rank": 4, "lora_alpha": 8,
}  # fmt: skip
BUILDERS = {
    "tied": lambda: lora_llama3_2(["q_proj", "v_proj"], True, False, **SIZES),
    "plain": lambda: lora_llama3(["q_proj", "v_proj"], True, False, **SIZES),
    "lora_head": lambda: lora_llama3(["q_proj", "v_proj"], True, True, **SIZES),
}


def make_model(kind, dtype=torch.float32):
    torch.manual_seed(0)
    model = BUILDERS[kind]()
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    set_trainable_params(model, get_adapter_params(model))
    return model.to(dtype)


def make_pairs(n=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    answers = []
    preamble = torch.randint(0, 97, (6,), generator=generator).tolist()
    for _ in range(n):
        prompt = preamble + torch.randint(0, 97, (4,), generator=generator).tolist()
        for _ in range(2):
            length = int(torch.randint(1, 20, (1,), generator=generator))
            answer = torch.randint(0, 97, (length,), generator=generator).tolist()
            answers.append(Continuation(prompt + answer, [CROSS_ENTROPY_IGNORE_IDX] * len(prompt) + answer))
    return answers


def one_at_a_time(model, answers):
    """torchtune's path: full logits, log_softmax, gather; a sequence a forward."""
    sums = []
    for answer in answers:
        logits = model(torch.tensor([answer.tokens]))
        sums.append(get_batch_log_probs(logits, torch.tensor([answer.labels]))[0])
    return torch.stack(sums)


def gradients(model, sums, weights):
    model.zero_grad()
    (sums * weights).sum().backward()
    return torch.cat([p.grad.flatten().double() for p in model.parameters() if p.requires_grad])


def in_tree(model, answers):
    return answer_logprobs(model, build_tree(answers))


@pytest.mark.parametrize("kind", BUILDERS)
def test_sums_and_gradients_equal_torchtunes_padded_path(kind, monkeypatch):
    monkeypatch.setattr(finetune.tree.logprobs, "HEAD_CHUNK", 7)  # several chunks, some across answers
    model, answers = make_model(kind), make_pairs()
    weights = torch.linspace(-1, 2, len(answers))
    plain = one_at_a_time(model, answers)
    expected = gradients(model, plain, weights)
    tree = in_tree(model, answers)
    assert (tree - plain).abs().max() < 1e-4
    found = gradients(model, tree, weights)
    assert ((found - expected).norm() / expected.norm()) < 1e-5


def test_float64_gradient_equals_one_sequence_at_a_time(monkeypatch):
    # torchtune's norms and rotary positions are float32 whatever the dtype; float() is made to keep float64
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else x.to(torch.float32))
    model, answers = make_model("lora_head", torch.float64), make_pairs()
    weights = torch.linspace(-1, 2, len(answers))
    expected = gradients(model, one_at_a_time(model, answers), weights)
    found = gradients(model, in_tree(model, answers), weights)
    assert ((found - expected).norm() / expected.norm()) < 1e-10


@pytest.mark.parametrize("kind", BUILDERS)
def test_reference_is_the_base_with_adapters_off(kind):
    model, answers = make_model(kind), make_pairs(3)
    base = copy.deepcopy(model)
    for name, parameter in base.named_parameters():
        if "lora_b" in name:
            torch.nn.init.zeros_(parameter)
    with torch.no_grad(), disable_adapter(model):
        off = in_tree(model, answers)
    torch.testing.assert_close(off, one_at_a_time(base, answers), atol=1e-4, rtol=0)


def test_gradient_does_not_depend_on_the_cut():
    model, answers = make_model("lora_head"), make_pairs(4)
    whole = gradients(model, in_tree(model, answers), torch.ones(8))
    model.zero_grad()
    for k in range(0, 8, 2):
        in_tree(model, answers[k : k + 2]).sum().backward()
    parts = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.requires_grad])
    assert ((parts - whole).norm() / whole.norm()) < 1e-5


def test_bf16_is_closer_to_fp32_than_the_stock_path():
    model, answers = make_model("plain"), make_pairs(20)
    with torch.no_grad():
        true = one_at_a_time(model, answers)
        half = model.to(torch.bfloat16)
        ours = (in_tree(half, answers) - true).abs().mean()
        stock = []
        for answer in answers:  # log_softmax in bf16, as the stock recipe takes it
            logits = half(torch.tensor([answer.tokens])).bfloat16()
            stock.append(get_batch_log_probs(logits, torch.tensor([answer.labels]))[0])
    assert ours < (torch.stack(stock).float() - true).abs().mean()


def test_dropout_of_the_head_lora_is_applied_in_training_only():
    torch.manual_seed(0)
    model = lora_llama3(["q_proj"], False, True, **SIZES, lora_dropout=0.5)
    model.requires_grad_(False)
    torch.nn.init.normal_(model.output.lora_b.weight)
    answers = make_pairs(2)
    assert not torch.equal(in_tree(model.train(), answers), in_tree(model, answers))
    assert torch.equal(in_tree(model.eval(), answers), in_tree(model, answers))


def test_trainable_head_is_refused():
    model = make_model("plain")
    model.output.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="output head is trainable"):
        in_tree(model, make_pairs(1))
