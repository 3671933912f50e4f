# SPDX-License-Identifier: MIT
"""An adapter whose tensors do not belong to its config, or lack their partner, is refused before a model is loaded."""

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from finetune.adapters.tensors import check_tensors

PREFIX = "base_model.model.model.layers.0.self_attn."
WHOLE = {
    f"{PREFIX}q_proj.lora_A.weight": torch.ones(4, 8),
    f"{PREFIX}q_proj.lora_B.weight": torch.ones(8, 4),
    f"{PREFIX}v_proj.lora_A.weight": torch.ones(2, 8),
    f"{PREFIX}v_proj.lora_B.weight": torch.ones(8, 2),
}
SETTINGS = LoraConfig(r=4, rank_pattern={"v_proj": 2}, target_modules=["q_proj", "v_proj"])


@pytest.fixture
def check(tmp_path):
    def run(tensors, settings=SETTINGS):
        save_file(tensors, tmp_path / "adapter.safetensors")
        check_tensors("mine", tmp_path / "adapter.safetensors", settings)

    return run


def test_a_whole_adapter_passes(check):
    check(WHOLE)
    check(WHOLE | {f"{PREFIX}q_proj.lora_B.bias": torch.ones(8)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({name: None for name in WHOLE}, "no LoRA tensor"),
        ({f"{PREFIX}q_proj.lora_A.weight": None}, "lora_B.weight without .*lora_A.weight"),
        ({f"{PREFIX}q_proj.lora_A.weight": torch.ones(8, 8)}, "lora_A.weight has rank 8, .* r=4"),
        ({f"{PREFIX}v_proj.lora_B.weight": torch.ones(8, 4)}, "lora_B.weight has rank 4, .* r=2"),
    ],
)
def test_what_would_be_used_in_silence_is_refused(check, changes, said):
    tensors = {name: tensor for name, tensor in (WHOLE | changes).items() if tensor is not None}
    with pytest.raises(ValueError, match=said):
        check(tensors | {"other": torch.ones(1)})
