# SPDX-License-Identifier: MIT
"""Layers with less memory traffic against torchtune's and peft's own."""

import copy

import pytest
import torch
from conftest import TINY
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora
from torch import nn
from torchtune import training
from torchtune.models.llama3 import lora_llama3
from torchtune.modules import FeedForward, RMSNorm
from torchtune.modules.peft import LoRALinear

from benchmarks.model_families import FAMILIES, tiny_model
from data.pairs.tokens import Continuation
from finetune.tree.attention import cut_tree
from finetune.tree.layers import accumulate_when_reading, use_fast_layers, use_fast_transformers_layers, widen_adapter
from finetune.tree.logprobs import answer_logprobs
from finetune.tree.prefix_tree import build_tree


def norm():
    module = RMSNorm(6, eps=1e-3)
    nn.init.normal_(module.scale)
    return module.requires_grad_(False)


def feed_forward(**kwargs):
    gate, down, up = (nn.Linear(a, b, bias=False) for a, b in ((6, 9), (9, 6), (6, 9)))
    return FeedForward(gate_proj=gate, down_proj=down, up_proj=up, **kwargs)


def adapted_feed_forward(dropout=0.0):
    layers = [LoRALinear(a, b, rank=2, alpha=4.0, dropout=dropout) for a, b in ((6, 9), (9, 6), (6, 9))]
    for layer in layers:
        nn.init.normal_(layer.lora_b.weight)
        layer.weight.requires_grad_(False)
    gate, down, up = layers
    return FeedForward(gate_proj=gate, down_proj=down, up_proj=up)


# with a LoRA bf16 rounds in other places than torchtune; the tests of whole models hold what it costs
KINDS = [(norm, torch.float32), (norm, torch.bfloat16), (feed_forward, torch.float32), (feed_forward, torch.bfloat16)]


@pytest.mark.parametrize(("make", "dtype"), [*KINDS, (adapted_feed_forward, torch.float32)])
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


@pytest.mark.parametrize("make", [norm, feed_forward, adapted_feed_forward])
def test_gradient_is_that_of_finite_differences(make):
    torch.manual_seed(0)
    module = make().double()
    use_fast_layers(nn.Sequential(module))
    assert torch.autograd.gradcheck(module, torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_adapted_mlp_keeps_no_product_of_gate_and_up(dropout):
    torch.manual_seed(0)
    module = adapted_feed_forward(dropout)
    use_fast_layers(module)
    kept = {}  # by address: the same tensor is kept by several layers

    def keep(tensor):
        kept[tensor.data_ptr()] = tuple(tensor.shape[-2:])
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(torch.randn(1, 5, 6, requires_grad=True))
    # gate and up; with dropout also what it left of their product, and what it drew
    assert list(kept.values()).count((5, 9)) == (2 if dropout == 0 else 4)


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


def two_layers(dtype=torch.float64, dropout=0.0, **kwargs):
    """torchtune's layer, and the same one with accumulated products."""
    torch.manual_seed(0)
    plain = LoRALinear(6, 5, rank=3, alpha=2.0, dropout=dropout, **kwargs).to(dtype)
    nn.init.normal_(plain.lora_b.weight)
    plain.weight.requires_grad_(False)
    lean = copy.deepcopy(plain)
    use_fast_layers(nn.Sequential(lean))
    return plain, lean


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (1, 4, 6)])
def test_lora_output_and_gradients_equal_torchtunes(shape, dropout):
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


def test_lora_gradient_is_that_of_finite_differences():
    _, lean = two_layers()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)

    def output(x, a, b):
        return torch.func.functional_call(lean, {"lora_a.weight": a, "lora_b.weight": b}, (x,))

    assert torch.autograd.gradcheck(output, (x, lean.lora_a.weight, lean.lora_b.weight))


def test_switched_off_it_is_the_base_and_an_update_of_zero_changes_no_bit():
    plain, lean = two_layers(torch.float32)
    x = torch.randn(7, 6)
    lean.disabled = True
    base = lean(x)
    torch.testing.assert_close(base, x @ plain.weight.T, rtol=1e-6, atol=1e-6)
    lean.disabled = False
    nn.init.zeros_(lean.lora_b.weight)
    assert torch.equal(lean(x), base)


NF4 = {"quantize_base": True, "scaler_block_size": 64}


@pytest.mark.parametrize("kwargs", [{}, {"use_bias": True}, NF4], ids=str)
@pytest.mark.parametrize("is_off", [False, True])
def test_a_float32_adapter_on_a_bf16_layer(kwargs, is_off):
    torch.manual_seed(0)
    with training.set_default_dtype(torch.bfloat16):
        layer = LoRALinear(64, 256, rank=3, alpha=6.0, **kwargs)
    nn.init.normal_(layer.lora_b.weight)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_("lora" in name)
    exact = copy.deepcopy(layer)
    widen_adapter(layer)
    use_fast_layers(nn.Sequential(layer))
    layer.disabled = exact.disabled = is_off
    weight = exact.weight.to(torch.bfloat16).float()
    x = torch.randn(1, 40, 64).bfloat16().requires_grad_()
    out = layer(x)
    wide = x.detach().float().requires_grad_()
    low = wide @ layer.lora_a.weight.detach().clone().requires_grad_().T
    update = 0 if is_off else 2.0 * low @ layer.lora_b.weight.detach().T
    wanted = wide @ weight.T + update + (layer.bias.float() if "use_bias" in kwargs else 0)
    assert out.dtype == torch.bfloat16
    assert (out - wanted).norm() < 1e-2 * wanted.norm()
    if is_off:
        return
    out.float().sin().sum().backward()
    wanted.sin().sum().backward()
    assert (x.grad - wide.grad).norm() < 2e-2 * wide.grad.norm()
    d_out = wanted.detach().cos()[0]
    expected = {"lora_b": 2.0 * d_out.T @ low.detach()[0], "lora_a": 2.0 * (d_out @ layer.lora_b.weight).T @ wide[0]}
    for name, gradient in expected.items():
        found = getattr(layer, name).weight.grad
        assert found.dtype == torch.float32
        assert (found - gradient).norm() < 2e-2 * gradient.norm()


def small_update(kind):
    """A layer in bf16, as it computes; its weight; and the whole update of its adapter, far below bf16's last digit."""
    torch.manual_seed(0)
    if kind in ("torchtune", "bias", "quantized"):
        with training.set_default_dtype(torch.bfloat16 if kind == "quantized" else torch.float32):
            more = NF4 if kind == "quantized" else {"use_bias": kind == "bias"}
            model = nn.Sequential(LoRALinear(64, 256, rank=2, alpha=4.0, **more))
        use, weight, scale = use_fast_layers, model[0].weight, 2.0
        a, b = model[0].lora_a.weight, model[0].lora_b.weight
    else:
        model = nn.Sequential(nn.Linear(64, 256, bias=kind == "tuned, bias"))
        inject_adapter_in_model(LoraConfig(r=2, lora_alpha=4.0, target_modules=["0"]), model, adapter_name="one")
        use = use_fast_transformers_layers if "tuned" in kind else accumulate_when_reading
        weight, scale = model[0].base_layer.weight, 2.0
        a, b = model[0].lora_A["one"].weight, model[0].lora_B["one"].weight
    nn.init.normal_(b, std=1e-4)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is a or parameter is b)
    if kind == "quantized":
        weight = weight.to(torch.bfloat16)
    else:
        model.to(torch.bfloat16)
    use(model.eval())
    bias = model[0].bias.detach().float() if "bias" in kind else 0.0
    return model, weight.detach().float(), bias, scale * (b.float() @ a.float()).detach()


@pytest.mark.parametrize("kind", ["torchtune", "bias", "quantized", "tuned", "tuned, bias", "read"])
def test_bf16_does_not_lose_a_small_update(kind):
    model, weight, bias, update = small_update(kind)
    x = torch.randn(1, 800, 64).bfloat16().requires_grad_(kind != "read")  # of 100 seeds within 0.04
    with torch.set_grad_enabled(kind != "read"):
        out = model(x)
    wide = x.detach().float()
    wanted = wide @ update.T
    assert wanted.norm() < 5e-4 * out.float().norm()
    found = out.detach().float() - wide @ weight.T - bias
    # how much of the update is there; a sixth if it was added to what was rounded before
    assert (found * wanted).sum() / wanted.square().sum() == pytest.approx(1.0, abs=0.1)


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


TREE = build_tree([Continuation([5, 6, 7, 8, *a], [-100] * 4 + a) for a in ([9, 10, 11], [12, 13])])


def tuned(family, dtype, **lora):
    torch.manual_seed(0)
    decoder = tiny_model(family)
    settings = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, **lora)
    inject_adapter_in_model(settings, decoder.hf)
    return decoder.to(dtype)


def sums_and_gradients(family, dtype, fast):
    decoder = tuned(family, dtype)
    if fast:
        use_fast_transformers_layers(decoder.hf)
        changed = {type(m).__name__ for m in decoder.hf.modules() if "forward" in vars(m)}
        assert len(changed) == 3  # norms, MLPs, LoRA
        assert "Linear" in changed
    sums = decoder.sequence_logprobs(TREE)
    (sums * torch.tensor([1.0, -2.0])).sum().backward()
    found = (sums, *(p.grad for p in decoder.parameters() if p.requires_grad))
    return torch.cat([x.detach().flatten().float() for x in found])


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3"])
def test_a_transformers_model_and_its_adapter_s_gradient_stay_the_same(kind):
    family = next(family for family in FAMILIES if family.kind == kind)
    exact, fast = (sums_and_gradients(family, torch.float32, fast) for fast in (False, True))
    assert (fast - exact).norm() <= 1e-5 * exact.norm()
    plain, fast = (sums_and_gradients(family, torch.bfloat16, fast) for fast in (False, True))
    assert (fast - exact).norm() <= 1.2 * (plain - exact).norm()  # no worse than bf16 itself


def test_transformers_layers_of_another_kind_stay_as_they_are():
    # Gemma's norms add 1 to their weights, its MLPs have no SiLU; DoRA and several adapters are peft's own
    family = next(family for family in FAMILIES if family.kind == "gemma3_text")
    decoder = tuned(family, torch.float32, use_dora=True)
    before = decoder.sequence_logprobs(TREE)
    use_fast_transformers_layers(decoder.hf)
    assert not [m for m in decoder.hf.modules() if "forward" in vars(m) and type(m) not in (lora.Linear, nn.Linear)]
    # the frozen linear layers are another library's, which splits sums among threads in its own way
    torch.testing.assert_close(decoder.sequence_logprobs(TREE), before, atol=1e-5, rtol=0)


def test_dropout_of_a_transformers_model_is_drawn_as_peft_draws_it():
    family = next(family for family in FAMILIES if family.kind == "llama")
    found = []
    for fast in (False, True):
        decoder = tuned(family, torch.float32, lora_dropout=0.5).train()
        if fast:
            use_fast_transformers_layers(decoder.hf)
        torch.manual_seed(3)
        found.append(decoder.sequence_logprobs(TREE))
    torch.testing.assert_close(*found, atol=1e-4, rtol=0)
    assert not torch.allclose(found[0], decoder.eval().sequence_logprobs(TREE), atol=1e-2)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_norms_output_is_not_kept_for_its_lora(dropout):
    # it is computed again of what the norm keeps anyway
    torch.manual_seed(0)
    module, x = nn.Sequential(norm(), adapted_feed_forward(dropout)), torch.randn(1, 5, 6, requires_grad=True)
    use_fast_layers(module)
    outputs, kept = [], []
    module[0].register_forward_hook(lambda _module, _args, y: outputs.append(y))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        module(x)
    assert x.data_ptr() in kept
    assert outputs[0].data_ptr() not in kept
