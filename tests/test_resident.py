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
from finetune.adapters.folders import read_adapter_config, read_adapters
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


KINDS = {
    "plain": {"r": 8, "lora_alpha": 4, "target_modules": TARGETS},
    "scaled": {"r": 4, "lora_alpha": 8, "target_modules": ["k_proj", "v_proj"], "use_rslora": True},
    "dora": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "use_dora": True},
    "biased": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "lora_bias": True},
    "gaussian": {"r": 4, "target_modules": ["q_proj", "o_proj"], "init_lora_weights": "gaussian"},
    "orthogonal": {"r": 4, "target_modules": ["q_proj", "o_proj"], "init_lora_weights": "orthogonal"},
    "eva": {"r": 4, "target_modules": ["q_proj", "o_proj"], "init_lora_weights": "eva"},
    "none": {"r": 4, "target_modules": ["q_proj", "o_proj"], "init_lora_weights": False},
    "linear": {"r": 4, "target_modules": "all-linear"},
    "regex": {"r": 4, "target_modules": r".*layers\.1\.(self_attn|mlp)\.(q_proj|down_proj)"},
    "one_layer": {"r": 4, "target_modules": ["model.layers.0.self_attn.k_proj", "mlp.up_proj"]},
}


@pytest.fixture(scope="module")
def kinds(tiny_model_dir, tmp_path_factory):
    """An adapter of every kind that is taken; in the settings the texts of target_modules are as their makers wrote."""
    made = tmp_path_factory.mktemp("kinds")
    folders = {name: write_adapter(tiny_model_dir, made / name, **settings) for name, settings in KINDS.items()}
    for name, settings in KINDS.items():  # peft writes what it made of a text
        path = folders[name] / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"target_modules": settings["target_modules"]}))
    return folders


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_no_adapter_changes_the_base_or_another_adapter(tiny_model_dir, resident, kinds, name):
    """Bit by bit: the base with any adapters beside it, and each adapter alone and among all others."""
    plain_base = resident.requires_grad_(False)(IDS)
    tree = build_tree([Continuation(IDS[0].tolist(), [-100, *IDS[0, 1:].tolist()])])
    scores = answer_logprobs(resident, tree)
    alone = AdaptedModel(resident, {name: kinds[name]}, tiny_model_dir)
    with alone.using(name) as model:
        by_itself = model(IDS)
    torch.testing.assert_close(by_itself, hf_logits(tiny_model_dir, kinds[name]), atol=1e-4, rtol=0)
    assert (by_itself - plain_base).abs().max() > 1e-2
    others = {other: folder for other, folder in kinds.items() if other != name}
    among = AdaptedModel(resident, others, tiny_model_dir)
    with among.using(None) as model:
        assert torch.equal(model(IDS), plain_base)
        assert torch.equal(answer_logprobs(model, tree), scores)
    with alone.using(name) as model:
        assert torch.equal(model(IDS), by_itself)


def with_settings(adapter, folder, **change):
    shutil.copytree(adapter, folder)
    settings = json.loads((adapter / "adapter_config.json").read_text()) | change
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@torch.no_grad()
@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga"])
def test_an_initialisation_that_changes_the_base_is_refused(tiny_model_dir, resident, adapter, tmp_path, init):
    folder = with_settings(adapter, tmp_path / "changed", init_lora_weights=init)
    before = resident(IDS)
    message = rf"init_lora_weights='{init}' changes the weights .*path_initial_model_for_weight_conversion"
    with pytest.raises(ValueError, match=message):
        AdaptedModel(resident, {"plain": adapter, "changed": folder}, tiny_model_dir)
    with pytest.raises(ValueError, match=message):
        read_adapters({"changed": str(folder)})
    assert torch.equal(AdaptedModel(resident, {}, tiny_model_dir).model(IDS), before)


@torch.no_grad()
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_what_peft_converts_is_read(tiny_model_dir, resident, tmp_path, init):
    """The conversion that the refusal names."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=init)
    model = get_peft_model(base, settings)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = init
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter += 0.1 * torch.randn_like(parameter)
    trained = model.eval()(IDS).logits
    model.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    with AdaptedModel(resident, {"plain": tmp_path / "plain"}, tiny_model_dir).using("plain") as switched:
        torch.testing.assert_close(switched(IDS), trained, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"a_field_of_tomorrow": {"k": 1}},
        {"layer_replication": [[0, 2], [1, 2]]},
        {"alora_invocation_tokens": [1, 2]},
        {"target_parameters": ["mlp.experts.gate_up_proj"]},
        {"use_qalora": True},
        {"arrow_config": {"top_k": 2}},
        {"megatron_config": {"x": 1}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_field_that_is_not_read_is_refused_by_name(adapter, tmp_path, change):
    folder = with_settings(adapter, tmp_path / "changed", **change)
    with pytest.raises(ValueError, match=f"changed: {next(iter(change))}=.*not supported.*merged with peft"):
        read_adapters({"changed": str(folder)})


def test_fields_that_ask_for_nothing_are_taken(adapter, tmp_path):
    harmless = {
        "a_field_of_tomorrow": None,
        "another": False,
        "peft_version": "9.9",
        "runtime_config": {"ephemeral_gpu_offload": False},
        "auto_mapping": {"unsloth_fixed": True},
        "eva_config": {"rho": 2.0},
        "rank_pattern": None,
    }
    folder = with_settings(adapter, tmp_path / "changed", **harmless)
    assert read_adapter_config(folder) == read_adapter_config(adapter)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "is not a JSON object"), ("{", "is not a JSON object"), ('{"r": 4}', "a None adapter; only LoRA")],
)
def test_a_config_that_is_none_is_named(adapter, tmp_path, text, message):
    folder = with_settings(adapter, tmp_path / "changed")
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_adapters({"changed": str(folder)})


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
