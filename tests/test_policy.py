# SPDX-License-Identifier: MIT
"""Building on the meta device: the checkpoint's weights, NF4 where asked for, an adapter that depends on the seed."""

import json

import pytest
import torch
from conftest import TINY
from omegaconf import OmegaConf
from torch._dynamo.utils import counters
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
from torchao.dtypes.nf4tensor import NF4Tensor, to_nf4
from torchtune.models.llama3 import llama3
from torchtune.models.llama3_1 import llama3_1
from torchtune.models.llama3_2 import llama3_2
from torchtune.models.mistral import mistral

from data.pairs.tokens import Continuation
from finetune.run.policy import build_policy, check_builder, load_weights, named_weights
from finetune.tree.logprobs import answer_logprobs
from finetune.tree.prefix_tree import PrefixTree, build_tree

SIZES = {**TINY, "vocab_size": 500, "embed_dim": 128, "num_kv_heads": 4, "intermediate_dim": 256, "rope_base": 10_000}
CPU = torch.device("cpu")


def cfg_model(**changes):
    lora = {"lora_attn_modules": ["q_proj", "v_proj"], "apply_lora_to_mlp": True, "lora_rank": 4, "lora_alpha": 8}
    return OmegaConf.create({"_component_": "torchtune.models.llama3.lora_llama3", **SIZES, **lora, **changes})


def random_base(seed: int = 0) -> dict[str, torch.Tensor]:
    policy, _ = build_policy(cfg_model(), torch.float32, 0, False)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator) * 0.05
        for name, p in named_weights(policy.decoder)
        if not p.requires_grad
    }


def loaded(base, seed=0, dtype=torch.float32, recomputed=0.0, **changes):
    policy, adapter = build_policy(cfg_model(**changes), dtype, seed, recomputed)
    load_weights(policy, base.items(), adapter, CPU)
    return policy


TREE = build_tree(
    [Continuation([1, 2, 3, 4, 5], [-100, -100, 3, 4, 5]), Continuation([1, 2, 9, 8], [-100, -100, 9, 8])]
)


def test_nothing_is_in_memory_before_loading_and_only_the_adapter_is_trainable():
    policy, adapter = build_policy(cfg_model(quantize_base=True), torch.bfloat16, 0, False)
    assert all(p.is_meta for p in policy.parameters())
    assert {name for name, p in named_weights(policy.decoder) if p.requires_grad} == adapter.keys()
    assert all(".lora_" in name for name in adapter)


def test_weights_are_the_checkpoints_own_and_the_base_is_not_copied():
    base = random_base()
    policy = loaded(base, recomputed=True)
    held = dict(named_weights(policy.decoder))
    assert all(held[name].data_ptr() == tensor.data_ptr() for name, tensor in base.items())


def test_adapter_depends_on_the_seed_alone_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = build_policy(cfg_model(), torch.float32, 3, False)[1]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again, other = (build_policy(cfg_model(), torch.float32, seed, True)[1] for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all((tensor == 0).all() == name.endswith("lora_b.weight") for name, tensor in first.items())


def test_quantized_base_scores_as_its_dequantized_weights_do():
    base = random_base()
    quantized = loaded(base, quantize_base=True)
    held = dict(named_weights(quantized.decoder))
    n_quantized = sum(isinstance(p, NF4Tensor) for p in held.values())
    assert n_quantized == 7 * SIZES["num_layers"]  # every projection; not the embedding, the norms and the head
    widened = {
        name: to_nf4(tensor).to(tensor.dtype) if isinstance(held[name], NF4Tensor) else tensor
        for name, tensor in base.items()
    }
    plain = loaded(widened)
    torch.testing.assert_close(quantized(TREE), plain(TREE))
    assert (quantized(TREE) - loaded(base)(TREE)).abs().max() > 1e-3  # so the quantization was felt
    for policy in (quantized, plain):
        (policy(TREE) * torch.tensor([1.0, -1.0])).sum().backward()
    gradients = [{n: p.grad for n, p in named_weights(x.decoder) if p.requires_grad} for x in (quantized, plain)]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def llama_folder(folder, **changes):
    settings = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": 100,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


SMALL = {"vocab_size": 100, "num_layers": 2, "embed_dim": 32, "intermediate_dim": 64, "max_seq_len": 512}
LLAMA31 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def build(builder, **changes):
    with torch.device("meta"):
        return builder(**{**SMALL, "num_heads": 4, "num_kv_heads": 2, **changes})


@pytest.mark.parametrize(
    ("builder", "arguments", "config"),
    [
        (llama3, {}, {}),
        (llama3, {"rope_base": 10_000, "norm_eps": 1e-6}, {"rope_theta": 10_000, "rms_norm_eps": 1e-6}),
        (llama3, {}, {"rope_theta": None, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}),
        (llama3_1, {}, {"rope_scaling": LLAMA31}),
        (llama3, {}, {"rms_norm_eps": 9.999999747378752e-06}),
        (llama3_2, {"scale_factor": 1}, {"rope_scaling": None}),
        (mistral, {"rope_base": 500_000}, {"model_type": "mistral", "sliding_window": None}),
        (mistral, {"rope_base": 500_000, "max_seq_len": 128}, {"model_type": "mistral", "sliding_window": 128}),
    ],
)
def test_a_builder_that_agrees_with_the_checkpoint(tmp_path, builder, arguments, config):
    check_builder(build(builder, **arguments), llama_folder(tmp_path, **config))


@pytest.mark.parametrize(
    ("builder", "arguments", "config", "message"),
    [
        (llama3, {"rope_base": 10_000}, {}, r"rope_theta: config.json 500000.0, the model 10000 \(rope_base\)"),
        (llama3, {}, {"rope_scaling": LLAMA31}, r"rope_scaling: config.json .*'factor': 8.0.*, the model .*default"),
        (llama3_2, {}, {"rope_scaling": LLAMA31}, r"rope_scaling: config.json .*8.0.*, the model .*'factor': 32"),
        (llama3, {}, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling: config.json .*linear"),
        (llama3, {"norm_eps": 1e-6}, {}, r"rms_norm_eps: config.json 1e-05, the model 1e-06 \(norm_eps\)"),
        (llama3, {"num_heads": 8, "num_kv_heads": 4}, {}, r"(?s)num_attention_heads: .* 4, .* 8.*head_dim: .* 8, .* 4"),
        (llama3, {}, {"model_type": "mistral", "sliding_window": 128}, r"sliding_window: .* 128, the model 512 \(max"),
        (llama3, {}, {"model_type": "granite", "logits_scaling": 8.0}, "a granite model; supported: llama, mistral"),
    ],
)  # fmt: skip
def test_a_builder_of_another_model_is_refused_with_both_values(tmp_path, builder, arguments, config, message):
    with pytest.raises(ValueError, match=message):
        check_builder(build(builder, **arguments), llama_folder(tmp_path, **config))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda base: base.pop("norm.scale"), "1 tensors missing .*norm.scale"),
        (lambda base: base.update(foreign=torch.zeros(1)), "1 unknown .*foreign"),
        (lambda base: base.update({"norm.scale": torch.ones(7)}), "does not fit the model.*norm.scale"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(spoil, message):
    base = random_base()
    spoil(base)
    with pytest.raises(ValueError, match="(?s)" + message):
        loaded(base)


def test_a_share_of_the_layers_computes_again_evenly_spread_and_to_the_same_bits(monkeypatch):
    monkeypatch.setitem(SIZES, "num_layers", 7)
    base, gradients = random_base(), []
    for share, wrapped in (
        (0, []),
        (0.5, [1, 3, 5, 6]),
        (1.0, [*range(7)]),
        (True, [*range(7)]),
        (0.15, [6]),
        (0.05, [6]),
    ):
        policy = loaded(base, recomputed=share, lora_dropout=0.1)
        layers = policy.decoder.layers
        assert [k for k in range(7) if isinstance(layers[k], CheckpointWrapper)] == wrapped
        torch.manual_seed(0)
        policy(TREE).sin().sum().backward()
        gradients.append({name: p.grad for name, p in named_weights(policy.decoder) if p.requires_grad})
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        assert all(torch.equal(other[name], gradients[0][name]) for name in other)


def tree_of(n: int, seed: int) -> PrefixTree:
    """Return a tree of so many tokens, each of another form."""
    generator = torch.Generator().manual_seed(seed)
    n_prompt = int(torch.randint(2, n // 2, (), generator=generator))
    prompt, rest = list(range(n_prompt)), n - n_prompt
    n_first = int(torch.randint(1, rest, (), generator=generator))
    answers = ([400] * (n_first + 1), [401] * (rest - n_first + 1))  # the last tokens are not run
    return build_tree([Continuation(prompt + a, [-100] * n_prompt + a) for a in answers])


def test_padding_changes_no_log_probability_and_no_gradient():
    policy, tree = loaded(random_base()), tree_of(75, 0)
    torch.manual_seed(0)
    assert tree.padded(100).mask()[0].diagonal().all()  # a softmax over nothing is not a number
    assert tree.padded(25).tokens.shape == tree.tokens.shape
    for parameter in policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    found = []
    for dense in (False, True):
        for each in (tree, tree.padded(32)):
            policy.zero_grad()
            mask = each.attention_bias(torch.float32) if dense else None
            sums = answer_logprobs(policy.decoder, each, mask)
            sums.sin().sum().backward()
            grads = [p.grad.flatten() for p in policy.parameters() if p.requires_grad]
            found.append((each.tokens.shape[1], sums, torch.cat(grads)))
    assert [n for n, _, _ in found] == [75, 96, 75, 96]
    for _, sums, grad in found[1:]:
        torch.testing.assert_close(sums, found[0][1], rtol=1e-6, atol=1e-5)
        assert (grad - found[0][2]).norm() <= 1e-5 * grad.norm()


@pytest.mark.slow(5)
def test_layers_are_compiled_once_for_each_size_of_trees_and_not_for_each_layer(monkeypatch):
    monkeypatch.setenv("TORCH_COMPILE_BACKEND", "eager")
    monkeypatch.setitem(SIZES, "num_layers", 11)  # more than torch would compile one by one
    base = random_base()
    plain, compiled = loaded(base), loaded(base)
    compiled.compile_layers(8 * 40)
    counters.clear()
    n_graphs = []
    for k, n in enumerate((30, 38, 79, 41, 40)):
        tree = tree_of(n, k)
        values = []
        for policy in (plain, compiled):
            for name, p in policy.named_parameters():
                if "lora_b" in name:
                    p.data.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(k)) / 50)
            policy.zero_grad()
            sums = policy(tree)
            sums.sin().sum().backward()
            values.append([sums, *(p.grad for p in policy.parameters() if p.requires_grad)])
        torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)
        n_graphs.append(counters["stats"]["unique_graphs"])
    # what is before attention and what is after it, each for 40 tokens and for 80
    assert n_graphs == [2, 2, 4, 4, 4]
    with torch.no_grad(), compiled.without_adapters():
        compiled(tree_of(90, 9))
    assert counters["stats"]["unique_graphs"] == 4
