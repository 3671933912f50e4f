# SPDX-License-Identifier: MIT
"""What an evaluation reads, against the log-probabilities that a training takes, and plain sequences."""

import copy

import pytest
import torch
from torch import nn
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX
from torchtune.models.llama3 import lora_llama3
from torchtune.models.llama3_2 import llama3_2
from torchtune.models.qwen2 import qwen2

from data.pairs.tokens import Continuation
from finetune.tree import reading
from finetune.tree.attention import cut_tree
from finetune.tree.layers import use_fast_layers
from finetune.tree.logprobs import Head, answer_logprobs, answer_sums
from finetune.tree.prefix_tree import build_tree
from finetune.tree.reading import read_logprobs, read_sums

SIZES = {
    "vocab_size": 97, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 32, "intermediate_dim": 48,
    "max_seq_len": 128,
}  # fmt: skip
LORA = {"lora_rank": 4, "lora_alpha": 8}
MODELS = {
    "tied": lambda: llama3_2(**SIZES),
    "an adapter on the head": lambda: lora_llama3(["q_proj", "v_proj"], True, True, **SIZES, **LORA),
    "attention of another kind": lambda: qwen2(**SIZES),
}


def make_model(kind, dtype=torch.float32):
    torch.manual_seed(0)
    model = MODELS[kind]()
    for name, parameter in model.named_parameters():
        if "norm" not in name and "scale" not in name:
            nn.init.normal_(parameter, std=0.1)
    use_fast_layers(model.requires_grad_(False))
    return model.eval().to(dtype)


def make_answers(n_prompts=6):
    """Four options of one token after each prompt, and two statements that begin alike."""
    generator = torch.Generator().manual_seed(1)

    def draw(n):
        return torch.randint(97, (n,), generator=generator).tolist()

    preamble, answers = draw(20), []
    for k in range(n_prompts):
        prompt, begin = preamble[: 20 - k] + draw(9), draw(3)
        statements = [begin + draw(5), begin + draw(8)]
        for answer in [*([k] for k in range(4)), *statements]:
            answers.append(Continuation(prompt + answer, [CROSS_ENTROPY_IGNORE_IDX] * len(prompt) + answer))
    return answers


@pytest.mark.parametrize("chunk", [5, 256])
@pytest.mark.parametrize("kind", MODELS)
def test_reading_equals_the_log_probabilities_of_a_training(kind, chunk, monkeypatch):
    monkeypatch.setattr(reading, "HEAD_CHUNK", chunk)
    monkeypatch.setattr(reading, "HEAD_ROWS", 3)
    model, tree = make_model(kind), build_tree(make_answers())
    found = read_logprobs(model, tree)
    torch.testing.assert_close(found, answer_logprobs(model, tree), atol=1e-5, rtol=0)
    assert not found.requires_grad
    assert found.max() <= 0


def test_an_answer_without_a_scored_token_and_one_token_alone():
    model = make_model("tied")
    tree = build_tree([Continuation([1, 2, 3], [-100, -100, -100]), Continuation([1, 2, 4], [-100, 2, 4])])
    torch.testing.assert_close(read_logprobs(model, tree), answer_logprobs(model, tree), atol=1e-5, rtol=0)
    nothing = build_tree([Continuation([1, 2], [-100, -100])])
    assert read_logprobs(model, nothing).tolist() == [0]


def test_the_last_layer_and_the_head_run_where_something_is_predicted():
    model, tree = make_model("tied"), build_tree(make_answers())
    n_rows, seen = len(set(tree.predictor.tolist())), []
    assert n_rows < len(tree.predictor) / 1.5
    assert n_rows < tree.tokens.shape[1] / 1.5
    mlp = model.layers[-1].mlp.forward
    model.layers[-1].mlp.forward = lambda x: seen.append(len(x)) or mlp(x)
    norm = model.norm.forward
    model.norm.forward = lambda x: seen.append(len(x)) or norm(x)
    read_logprobs(model, tree)
    assert seen == [n_rows, n_rows]


def test_pieces_at_some_tokens_give_what_all_give_there():
    tree = build_tree(make_answers())
    rows, pieces = torch.tensor([0, 7, 8, 40, tree.tokens.shape[1] - 1]), cut_tree(tree)
    heads = reading._Heads(*(torch.randn(2, tree.tokens.shape[1], width) for width in (16, 8, 8)))
    whole = reading._attend(heads, pieces)
    part = reading._attend(heads._replace(queries=heads.queries[:, rows]), pieces.at(rows))
    torch.testing.assert_close(part, whole[rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "more", [{}, {"factor": 0.5}, {"cap": 3.0}, {"bias": True, "factor": 0.5, "cap": 3.0}], ids=str
)
def test_what_is_done_to_logits_is_done_when_reading(more, dtype):
    torch.manual_seed(0)
    if more.get("bias"):
        more = more | {"bias": torch.randn(97)}
    head, tree = Head((torch.randn(97, 32) / 4).to(dtype), **more), build_tree(make_answers())
    rows, row = tree.predictor.unique(return_inverse=True)
    hidden = torch.randn(len(rows), 32).to(dtype)
    found = read_sums(hidden, row, head, tree)
    wide = head._replace(weight=head.weight.float())
    true = answer_sums(hidden.float()[row], wide, tree)
    if dtype is torch.float32:
        torch.testing.assert_close(found, true, atol=1e-5, rtol=0)
    else:
        assert (found - true).norm() <= 1.05 * (answer_sums(hidden[row], head, tree) - true).norm()
        assert (found - true).abs().max() < 0.02


def test_in_bf16_it_is_as_close_to_float32_as_a_training():
    model, tree = make_model("an adapter on the head"), build_tree(make_answers(20))
    true = answer_logprobs(model, tree)
    half = copy.deepcopy(model).to(torch.bfloat16)
    use_fast_layers(half)
    found, trained = (f(half, tree) - true for f in (read_logprobs, answer_logprobs))
    assert found.norm() <= 1.05 * trained.norm()


@pytest.mark.parametrize("longest", [0, 1024], ids=["fused attention in float32", "a product of narrow values"])
def test_attention_of_bf16_values_equals_that_in_float32(longest, monkeypatch):
    monkeypatch.setattr(reading, "LONGEST_NARROW", longest)
    torch.manual_seed(0)
    tree = build_tree(make_answers())
    heads = reading._Heads(*(torch.randn(2, tree.tokens.shape[1], width) for width in (16, 8, 8)))
    narrow, pieces = heads.values.bfloat16(), cut_tree(tree)
    true = reading._attend(heads._replace(values=narrow.float()), pieces)
    found = reading._attend(heads._replace(values=narrow), pieces)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), true, atol=0.01, rtol=0.01)
    assert (found.float() - true).norm() < 0.004 * true.norm()
