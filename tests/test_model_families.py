# SPDX-License-Identifier: MIT
"""Every family of decoders reads a prefix tree as it reads plain sequences, or is found out and read one by one."""

import itertools

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from benchmarks.model_families import FAMILIES, IDS, tiny_model
from data.pairs.tokens import Continuation
from eval.asking.generate import write
from eval.asking.written_answers import Decoding
from finetune.causal.agreement import choose_layout
from finetune.tree.prefix_tree import build_tree

BY_NAME = {family.name: family for family in FAMILIES}
ISSUE_14 = (
    "llama mistral ministral3 qwen2 qwen3 qwen3_moe qwen3_next qwen3_5_text gemma2 gemma3_text gemma4_text phi3 olmo2 "
    "olmo3 smollm3 granite cohere2 gpt_oss glm4 exaone4 stablelm starcoder2 gpt_neox gpt2 lfm2"
).split()


def continuation(prompt, answer):
    return Continuation(prompt + answer, [-100] * len(prompt) + answer)


# runs long enough for attention along branches, beyond the windows of 16 tokens, and one answer without a token
PROMPT = IDS[:40]
TREE = build_tree(
    [
        continuation(PROMPT, IDS[100:140]),
        continuation(PROMPT, IDS[140:170]),
        continuation(PROMPT, IDS[100:120] + IDS[200:230]),
        continuation(PROMPT[:25] + IDS[300:330], IDS[340:370]),
        Continuation(PROMPT, [-100] * len(PROMPT)),
    ]
)


def test_every_family_that_the_issue_names_is_tried():
    assert not set(ISSUE_14) - {family.kind for family in FAMILIES}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_tree_is_read_as_plain_sequences_are(name):
    family = BY_NAME[name]
    decoder = tiny_model(family)
    torch.manual_seed(0)  # in one draw of six a neuron of OPT lies on the edge of its ReLU, where a gradient jumps
    inject_adapter_in_model(LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False), decoder.hf)
    found = choose_layout(decoder, IDS)
    assert (decoder.layout != "sequences") == family.on_tree, found
    if not family.on_tree:
        return
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0])
    adapter = [p for p in decoder.parameters() if p.requires_grad]
    logprobs, gradients = [], []
    for score in (decoder.answer_logprobs, decoder.sequence_logprobs):
        logprobs.append(score(TREE))
        gradients.append(torch.autograd.grad(logprobs[-1] @ weights, adapter, allow_unused=True))
    torch.testing.assert_close(*logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(decoder.read_logprobs(TREE), logprobs[0].detach(), atol=1e-5, rtol=1e-6)
    for on_tree, plain in zip(*gradients):
        if plain is None or not plain.any():  # a router's: it is not differentiable where it chooses
            assert on_tree is None or not on_tree.any()
        else:
            # sums in another order, on processors that round products otherwise; a leak changes whole per cents
            torch.testing.assert_close(on_tree, plain, atol=2e-4 * float(plain.abs().max()) + 1e-4, rtol=0)


def test_a_mask_that_hides_nothing_from_a_layer_is_found_out():
    # linear attention that says of itself that it is full: it is measured, not believed
    decoder = tiny_model(BY_NAME["Qwen3.5"])
    kinds = decoder.hf.config.layer_types
    decoder.hf.config.layer_types = ["full_attention"] * len(kinds)
    found = choose_layout(decoder, IDS)
    assert decoder.layout == "sequences"
    assert found.difference is None or found.difference > 1e-2


def test_a_leak_is_found_in_bf16_too():
    for name, layout in (("Llama", "one_mask"), ("LFM2", "sequences")):
        decoder = tiny_model(BY_NAME[name])
        decoder.hf.bfloat16()
        choose_layout(decoder, IDS)
        assert decoder.layout == layout


@pytest.mark.parametrize("n_shared", [0, 12])
@pytest.mark.parametrize("name", ["Llama", "Gemma 2", "Gemma 3", "Qwen3-Next", "LFM2", "GPT-2", "gpt-oss"])
def test_answers_in_writing_are_those_of_each_prompt_by_itself(name, n_shared):
    decoder = tiny_model(BY_NAME[name])
    prompts = [IDS[100 : 100 + n_shared] + part for part in (IDS[:30], IDS[40:57], IDS[60:85])]
    greedy = Decoding(0.0, None, 8, 0)
    written = write(decoder, prompts, greedy, [0] * 3, stop_tokens=[])
    ends = {written[0][2], written[1][4]}  # rows that have ended leave the batch
    until = [next((k + 1 for k, token in enumerate(tokens) if token in ends), 8) for tokens in written]
    stopped = write(decoder, prompts, greedy, [0] * 3, stop_tokens=list(ends))
    assert stopped == [tokens[:k] for tokens, k in zip(written, until)]
    for prompt, tokens in zip(prompts, written):
        ids = torch.tensor([prompt + tokens])
        logits = decoder.hf(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == tokens


def test_a_decoder_without_adapters_is_its_base():
    decoder = tiny_model(BY_NAME["Qwen2"])
    with torch.no_grad():
        base = decoder.sequence_logprobs(TREE)
        inject_adapter_in_model(LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False), decoder.hf)
        assert not torch.allclose(decoder.sequence_logprobs(TREE), base, atol=1e-3)
        with decoder.without_adapters():
            torch.testing.assert_close(decoder.sequence_logprobs(TREE), base, atol=0, rtol=0)
        assert not torch.allclose(decoder.sequence_logprobs(TREE), base, atol=1e-3)


def test_the_base_stays_as_it_is_read_while_its_adapters_are_trained():
    # GPT-2 drops a tenth of its own numbers in training; the reference has them all
    decoder = tiny_model(BY_NAME["GPT-2"])
    inject_adapter_in_model(LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.5), decoder.hf)
    decoder.train()
    training = {type(m).__name__ for m in decoder.hf.modules() if m.training}
    assert "GPT2Model" not in training
    assert any(m.training for m in decoder.hf.modules() if "lora" in str(type(m)))
    dropouts = [m for m in decoder.hf.modules() if isinstance(m, torch.nn.Dropout)]
    assert {m.p for m in dropouts if m.training} == {0.5}
    with torch.no_grad():
        first, second = itertools.starmap(decoder.sequence_logprobs, [(TREE,), (TREE,)])
    torch.testing.assert_close(first, second, atol=0, rtol=0)  # B is 0, so nothing else can differ
