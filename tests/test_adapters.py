# SPDX-License-Identifier: MIT
"""PEFT adapters on the resident model, against transformers + peft."""

import json
import shutil

import pytest
import torch
from conftest import TINY
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torchtune.models.llama3_2 import llama3_2
from torchtune.training import FullModelHFCheckpointer
from transformers import AutoModelForCausalLM

from finetune.adapters import attach_adapters

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.tensor([[5, 17, 300, 4, 99, 1000, 7]])


def write_adapter(base_dir, folder, **settings):
    """Let peft itself make a random adapter for the Hugging Face model."""
    torch.manual_seed(hash(str(settings)) % 1000)
    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in model.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def hf_logits(base_dir, folder=None):
    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    if folder is not None:
        model = PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.fixture
def resident(tiny_model_dir, tmp_path):
    model = llama3_2(**TINY, rope_base=100_000, scale_factor=1)
    checkpointer = FullModelHFCheckpointer(str(tiny_model_dir), ["model.safetensors"], "LLAMA3", str(tmp_path))
    model.load_state_dict(checkpointer.load_checkpoint()["model"])
    return model.eval()


@pytest.fixture
def adapter(tiny_model_dir, tmp_path):
    return write_adapter(tiny_model_dir, tmp_path / "made", r=4, lora_alpha=8, target_modules=TARGETS)


@torch.no_grad()
def test_any_number_of_adapters_each_equals_peft(tiny_model_dir, tmp_path, resident):
    settings = {
        "wide": {"r": 8, "lora_alpha": 4, "target_modules": TARGETS},
        "small": {"r": 2, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"]},
        "pattern": {
            "r": 2,
            "lora_alpha": 4,
            "target_modules": ["k_proj", "down_proj"],
            "alpha_pattern": {"down_proj": 64},
            "rank_pattern": {"k_proj": 3},
        },
        "scaled": {"r": 4, "lora_alpha": 8, "target_modules": ["k_proj", "v_proj"], "use_rslora": True},
        "dora": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "use_dora": True},
    }
    folders = {name: write_adapter(tiny_model_dir, tmp_path / name, **s) for name, s in settings.items()}
    adapted = attach_adapters(resident, folders, tiny_model_dir)
    base = hf_logits(tiny_model_dir)
    for name in [*folders, "wide"]:
        with adapted.using(name) as model:
            found = model(IDS)
        torch.testing.assert_close(found, hf_logits(tiny_model_dir, folders[name]), atol=1e-4, rtol=0)
        assert (found - base).abs().max() > 1e-2  # the adapter does something
        with adapted.using(None) as model:
            torch.testing.assert_close(model(IDS), base, atol=1e-4, rtol=0)


def test_unknown_name(tiny_model_dir, resident, adapter):
    adapted = attach_adapters(resident, {"left": adapter}, tiny_model_dir)
    with pytest.raises(KeyError, match=r"no adapter `right`; loaded: \['left'\]"), adapted.using("right"):
        pass


def test_folder_without_adapter(tiny_model_dir, resident, tmp_path):
    with pytest.raises(FileNotFoundError, match="adapter_config.json not found"):
        attach_adapters(resident, {"left": tmp_path}, tiny_model_dir)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        attach_adapters(resident, {"left": tmp_path / "absent"}, tiny_model_dir)


def test_adapter_of_another_model(tiny_model_dir, resident, adapter):
    state = load_file(adapter / "adapter_model.safetensors")
    save_file({k: v[:, :-1].contiguous() if "lora_A" in k else v for k, v in state.items()},
              adapter / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(ValueError, match="does not fit this base model"):
        attach_adapters(resident, {"left": adapter}, tiny_model_dir)


def test_missing_layer(tiny_model_dir, resident, adapter):
    state = load_file(adapter / "adapter_model.safetensors")
    save_file({k: v for k, v in state.items() if "layers.1" not in k}, adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="tensors missing"):
        attach_adapters(resident, {"left": adapter}, tiny_model_dir)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_modules": ["lm_head"]}, "ties its head"),
        ({"target_modules": ["embed_tokens"]}, "allowed: a list of"),
        ({"peft_type": "IA3"}, "only LoRA"),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 4}}, "names more than whole projections"),
        ({"layers_to_transform": [0]}, "names more than whole projections"),
    ],
)
def test_unsupported_adapters_are_named(tiny_model_dir, resident, adapter, tmp_path, change, message):
    folder = shutil.copytree(adapter, tmp_path / "changed")
    settings = json.loads((folder / "adapter_config.json").read_text()) | change
    if "peft_type" in change:
        settings = {"peft_type": "IA3", "target_modules": ["k_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        attach_adapters(resident, {"left": folder}, tiny_model_dir)
