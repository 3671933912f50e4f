# SPDX-License-Identifier: MIT
"""PEFT adapters on the resident model, against transformers + peft."""

import json
import shutil

import pytest
import torch
from conftest import TINY, write_llama_folder
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torchtune.models.llama3 import llama3
from torchtune.models.llama3_2 import llama3_2
from torchtune.training import FullModelHFCheckpointer
from transformers import AutoModelForCausalLM

from data.pairs.tokens import Continuation
from finetune.adapters.resident import AdaptedModel
from finetune.tree.logprobs import answer_logprobs
from finetune.tree.prefix_tree import build_tree

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
    adapted = AdaptedModel(resident, folders, tiny_model_dir)
    base = hf_logits(tiny_model_dir)
    for name in [*folders, "wide"]:
        with adapted.using(name) as model:
            found = model(IDS)
        torch.testing.assert_close(found, hf_logits(tiny_model_dir, folders[name]), atol=1e-4, rtol=0)
        assert (found - base).abs().max() > 1e-2  # the adapter does something
        with adapted.using(None) as model:
            torch.testing.assert_close(model(IDS), base, atol=1e-4, rtol=0)


@torch.no_grad()
def test_dropout_is_off(tiny_model_dir, resident, tmp_path):
    folder = write_adapter(tiny_model_dir, tmp_path / "d", r=4, lora_alpha=8, target_modules=TARGETS, lora_dropout=0.5)
    with AdaptedModel(resident, {"left": folder}, tiny_model_dir).using("left") as model:
        torch.testing.assert_close(model(IDS), hf_logits(tiny_model_dir, folder), atol=1e-4, rtol=0)
        assert torch.equal(model(IDS), model(IDS))


@torch.no_grad()
def test_an_adapted_head(tmp_path):
    """peft saves the base's head with it, which is this base's or the adapter does not fit."""
    base = write_llama_folder(tmp_path / "base", TINY, tied=False)
    checkpointer = FullModelHFCheckpointer(str(base), ["model.safetensors"], "LLAMA3", str(tmp_path))
    weights = checkpointer.load_checkpoint()["model"]

    def fresh():
        model = llama3(**TINY, rope_base=100_000)
        model.load_state_dict(weights)
        return model

    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "lm_head"]}
    folders = {name: write_adapter(base, tmp_path / name, **settings) for name in ("one", "two")}
    adapted = AdaptedModel(fresh(), folders, base)
    for name, folder in folders.items():
        assert "base_model.model.lm_head.base_layer.weight" in load_file(folder / "adapter_model.safetensors")
        with adapted.using(name) as switched:
            torch.testing.assert_close(switched(IDS), hf_logits(base, folder), atol=1e-4, rtol=0)
    ids = IDS[0].tolist()
    tree = build_tree([Continuation(ids, [-100, *ids[1:]])])
    both = AdaptedModel(fresh(), folders, base, {"both": {"one": 0.5, "two": -1.0}})
    with both.using("both") as switched, torch.no_grad():
        whole = switched(IDS)[0, :-1].log_softmax(-1).gather(1, IDS[0, 1:, None]).sum()
        torch.testing.assert_close(answer_logprobs(switched, tree)[0], whole, atol=1e-4, rtol=0)
    folder = write_adapter(base, tmp_path / "dora", use_dora=True, **settings)
    with AdaptedModel(fresh(), {"dora": folder}, base).using("dora") as switched:
        with pytest.raises(ValueError, match="more than plain LoRA on the head"):
            answer_logprobs(switched, tree)
    other = write_llama_folder(tmp_path / "other", TINY, tied=False, seed=1)
    foreign = write_adapter(other, tmp_path / "foreign", **settings)
    with pytest.raises(ValueError, match="an lm_head of its own, which is not this base's"):
        AdaptedModel(fresh(), {"foreign": foreign}, base)


def test_unknown_name(tiny_model_dir, resident, adapter):
    adapted = AdaptedModel(resident, {"left": adapter}, tiny_model_dir)
    with pytest.raises(KeyError, match=r"no adapter `right`; loaded: \['left'\]"), adapted.using("right"):
        pass


def test_folder_without_adapter(tiny_model_dir, resident, tmp_path):
    with pytest.raises(FileNotFoundError, match="adapter_config.json not found"):
        AdaptedModel(resident, {"left": tmp_path}, tiny_model_dir)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        AdaptedModel(resident, {"left": tmp_path / "absent"}, tiny_model_dir)


def test_adapter_of_another_model(tiny_model_dir, resident, adapter):
    state = load_file(adapter / "adapter_model.safetensors")
    save_file({k: v[:, :-1].contiguous() if "lora_A" in k else v for k, v in state.items()},
              adapter / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(ValueError, match="does not fit this base model"):
        AdaptedModel(resident, {"left": adapter}, tiny_model_dir)


def test_missing_layer(tiny_model_dir, resident, adapter):
    state = load_file(adapter / "adapter_model.safetensors")
    save_file({k: v for k, v in state.items() if "layers.1" not in k}, adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="tensors missing"):
        AdaptedModel(resident, {"left": adapter}, tiny_model_dir)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_modules": ["lm_head"]}, "ties its head"),
        ({"target_modules": ["embed_tokens"]}, "allowed: a list of"),
        ({"peft_type": "IA3"}, "only LoRA"),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 4}}, "names more than whole projections"),
        ({"layers_to_transform": [0]}, "names more than whole projections"),
        ({"modules_to_save": ["norm"]}, r"modules_to_save=\['norm'\].*which no weight scales"),
        ({"bias": "all"}, "bias='all'.*which no weight scales"),
        ({"trainable_token_indices": [3]}, "which no weight scales"),
    ],
)
def test_unsupported_adapters_are_named(tiny_model_dir, resident, adapter, tmp_path, change, message):
    folder = shutil.copytree(adapter, tmp_path / "changed")
    settings = json.loads((folder / "adapter_config.json").read_text()) | change
    if "peft_type" in change:
        settings = {"peft_type": "IA3", "target_modules": ["k_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        AdaptedModel(resident, {"left": folder}, tiny_model_dir)
