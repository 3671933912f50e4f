# SPDX-License-Identifier: MIT
"""Merges of whole updates: two copies of one adapter merge into it, and a low rank keeps all of a low rank."""

import json

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import merges


@pytest.fixture
def folder(tmp_path):
    def write(name, scale=1.0):
        torch.manual_seed(0)
        path = tmp_path / name
        path.mkdir()
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
        (path / "adapter_config.json").write_text(json.dumps(config))
        name = "base_model.model.model.layers.0.self_attn.q_proj"
        state = {f"{name}.lora_A.weight": torch.randn(4, 12), f"{name}.lora_B.weight": scale * torch.randn(20, 4)}
        save_file(state, path / merges.ADAPTER_FILE)
        return path

    return write


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_two_copies_merge_into_the_adapter(folder, tmp_path, monkeypatch, method):
    monkeypatch.setattr(merges, "DENSITY", 1.0)
    one, two = folder("one"), folder("two")
    with pytest.warns(UserWarning, match="no pruning"):
        merges.main(str(one), str(two), str(tmp_path / "merged"))
    (expected,), (found,) = (merges.read_updates(path).values() for path in (one, tmp_path / "merged" / method))
    assert torch.allclose(found, expected, atol=1e-4)


def test_opposite_adapters_cancel_in_a_sum_and_half_of_each_entry_is_kept(folder, tmp_path):
    (up,), (down,) = (merges.read_updates(folder(name, scale)).values() for name, scale in (("up", 1), ("down", -1)))
    assert torch.equal(up, -down)
    state, kept = merges.merge([{"m": up}, {"m": 3 * up}], "ties")
    merged = state["m.lora_B.weight"] @ state["m.lora_A.weight"]
    assert kept == pytest.approx(1)  # twelve columns have no rank above RANK
    is_kept = up.abs() >= up.abs().flatten().sort().values[up.numel() // 2]
    assert torch.allclose(merged, 2 * up * is_kept, atol=1e-4)
