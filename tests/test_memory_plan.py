# SPDX-License-Identifier: MIT
"""The memory plan's counts against tensors that a small model really keeps."""

import itertools
import re
import sys

import pytest
import torch
from conftest import REPO, TINY
from omegaconf import OmegaConf

from benchmarks.memory_plan import GIB, TOKENS_PER_PAIR, main, plan, saved_bytes, smallest_share, tree_of_a_pair
from finetune.run.policy import build_policy, load_weights, named_weights

SIZES = {**TINY, "vocab_size": 1000, "num_layers": 3, "embed_dim": 128, "intermediate_dim": 256, "num_kv_heads": 4}


def config(enable=False, **model):
    cfg = OmegaConf.load(REPO / "configs" / "llama8b_lora_dpo_single_device.yaml")
    changes = {"model": {**SIZES, **model}, "dtype": "fp32", "max_tokens_per_forward": TOKENS_PER_PAIR, "device": "cpu"}
    return OmegaConf.merge(cfg, changes, {"enable_activation_checkpointing": enable})


def kept_by_the_whole_model(cfg) -> float:
    """Bytes that a forward of a full budget keeps, counted on the real model."""
    policy, adapter = build_policy(cfg.model, torch.float32, 0, cfg.enable_activation_checkpointing)
    base = {n: torch.zeros(p.shape) for n, p in named_weights(policy.decoder) if not p.requires_grad}
    load_weights(policy, base.items(), adapter, torch.device("cpu"))
    own = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = policy(tree_of_a_pair())
    assert output.requires_grad
    return sum(kept.values())


def test_activations_are_what_the_layers_keep():
    cfg = config(lora_dropout=0.0)
    # hidden states, normed states and gradients of the scored tokens: not layers
    head = len(tree_of_a_pair().predictor) * SIZES["embed_dim"] * 4 * 4
    assert plan(cfg, 1).activations == pytest.approx(kept_by_the_whole_model(cfg) - head, rel=0.1)


def test_weights_and_optimizer_are_counted_exactly():
    cfg = config(apply_lora_to_output=False)
    policy, _ = build_policy(cfg.model, torch.float32, 0, False)
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in policy.parameters() if not p.requires_grad)
    found = plan(cfg, 1)
    assert found.weights == 4 * frozen
    assert found.optimizer == 2 * 4 * trained  # AdamW's two moments
    assert found.adapter == 2 * 4 * trained
    assert plan(OmegaConf.merge(cfg, {"model": {"quantize_base": True}}), 1).weights < 0.7 * found.weights


def test_more_devices_take_less_and_checkpointing_keeps_less():
    cfg = config(num_layers=12)
    one, four = plan(cfg, 1), plan(cfg, 4)
    assert four.weights < one.weights
    assert four.optimizer == one.optimizer / 4
    checkpointed = plan(OmegaConf.merge(cfg, {"enable_activation_checkpointing": True}), 1)
    assert checkpointed.activations < one.activations / 2


def test_what_is_kept_falls_by_one_layer_for_each_that_computes_again():
    kept = [kept_by_the_whole_model(config(num_layers=4, enable=share)) for share in (0, 0.25, 0.5, 0.75, 1)]
    less = [before - after for before, after in itertools.pairwise(kept)]
    assert less[:3] == [less[0]] * 3
    assert 0.8 * less[0] < less[3] < less[0]  # the last one that keeps anything keeps the mask of all
    half, whole = (plan(config(num_layers=4, enable=share), 1).activations for share in (0.5, 1))
    assert (half - whole) / 2 == pytest.approx(less[0], rel=0.01)


def test_only_on_a_cpu_a_norms_output_is_computed_again():
    policy, _ = build_policy(config(lora_dropout=0.0).model, torch.float32, 0, False)
    on_cpu, on_cuda = (
        saved_bytes(policy.decoder.layers[0], SIZES["embed_dim"], torch.float32, device) for device in ("cpu", "cuda")
    )
    assert on_cuda >= on_cpu + 2 * 4 * SIZES["embed_dim"]  # of attention's norm and of the MLP's


def test_the_smallest_share_fits_and_one_layer_less_does_not():
    cfg = config(num_layers=6)

    def total(n_layers):
        return sum(plan(OmegaConf.merge(cfg, {"enable_activation_checkpointing": n_layers / 6}), 1)) / GIB

    assert smallest_share(cfg, 1, total(0)) == 0
    assert smallest_share(cfg, 1, total(4) + 1e-9) == pytest.approx(4 / 6)
    assert total(3) > total(4)
    assert smallest_share(cfg, 1, total(6) - 1e-9) is None


def test_neither_a_mask_nor_scores_are_kept_by_a_layer(monkeypatch):
    def found(device, n):
        monkeypatch.setattr("benchmarks.memory_plan.TOKENS_PER_PAIR", n)
        policy, _ = build_policy(config().model, torch.float32, 0, False)
        return saved_bytes(policy.decoder.layers[0], SIZES["embed_dim"], torch.float32, device)

    assert found("cuda", 150) == pytest.approx(found("cuda", 600), rel=0.02)
    assert found("cpu", 150) == pytest.approx(found("cpu", 600), rel=0.02)


def test_the_page_has_the_totals_that_the_command_prints():
    """Two of the four rows: a quantized or a larger model takes seconds to build."""
    page = (REPO / "docs" / "train" / "devices.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert len(rows) == 4
    held = [row for row in rows if row[0] in ("llama8b_lora_dpo_single_device", "mistral7b_lora_dpo_single_device")]
    assert len(held) == 2
    for name, devices, total in held:
        found = plan(OmegaConf.load(REPO / "configs" / f"{name}.yaml"), int(devices))
        assert f"{sum(found) / GIB:.1f}" == total


def test_command_prints_every_part(monkeypatch, capsys):
    path = str(REPO / "configs" / "smollm2_135m_lora_dpo_cpu.yaml")
    monkeypatch.setattr(sys, "argv", ["memory_plan", "--config", path, "--devices", "2", "--gib", "9", "dtype=bf16"])
    main()
    printed = capsys.readouterr().out
    assert "9 GiB: enable_activation_checkpointing=0\n" in printed
    assert all(name in printed for name in ("weights", "activations", "head", "total"))
    assert "on each of 2" in printed
