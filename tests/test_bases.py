# SPDX-License-Identifier: MIT
"""Training of a transformers decoder: torchtune's path as its plain one, exact resume, adapters for plain peft."""

import json
import re
import shutil

import pytest
import torch
from conftest import REPO, TINY, read_steps, write_llama_folder
from omegaconf import OmegaConf
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from data.pairs.tokens import Continuation
from data.recipe.config import check_config
from finetune.dpo_finetune import DPORecipe
from finetune.models import BROUGHT
from finetune.run.settings import COMPONENTS, OPTIONAL, REQUIRED
from finetune.tree.prefix_tree import build_tree

HF_NAMES = {
    "attn.q_proj": "self_attn.q_proj", "attn.k_proj": "self_attn.k_proj", "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj", "mlp.w1": "mlp.gate_proj", "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
}  # fmt: skip
BUILDERS = {
    "llama": "torchtune.models.llama3_2.lora_llama3_2",
    "mistral": "torchtune.models.mistral.lora_mistral",
}
PROMPT, YES, NO = list(range(100, 160)), list(range(200, 240)), list(range(300, 330))
TREE = build_tree([Continuation(PROMPT + a, [-100] * len(PROMPT) + a) for a in (YES, NO)])


@pytest.fixture(scope="module")
def shrunken(tiny_model_dir, tmp_path_factory):
    """A Llama with a tied head, and a Mistral with a head of its own in two files."""
    mistral = write_llama_folder(tmp_path_factory.mktemp("mistral"), TINY, tied=False, n_files=2, seed=1)
    fields = json.loads((mistral / "config.json").read_text())
    fields |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None}
    (mistral / "config.json").write_text(json.dumps(fields))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model_dir / name, mistral)
    return {"llama": tiny_model_dir, "mistral": mistral}


def config_of(folder, output_dir, **changes):
    """The quickstart's config on a transformers decoder: steps of one pair, of four pairs an epoch."""
    cfg = OmegaConf.load(REPO / "configs/smollm2_135m_lora_dpo_cpu.yaml")
    model = {
        "_component_": "finetune.models.causal_lm", "path": str(folder), "lora_rank": 4, "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"],
    }  # fmt: skip
    cfg.model = model | changes.pop("model", {})
    del cfg["tokenizer"], cfg["checkpointer"]
    cfg.update(
        {
            "output_dir": str(output_dir),
            "dataset": {"_component_": "data.datasets.mirrored_left", "subset": 4},
            "batch_size": 1,
            "max_steps_per_epoch": None,
            "reference_cache_dir": None,
            "save_every_n_steps": None,
            "max_tokens_per_forward": 300,
        }
    )
    cfg.lr_scheduler.num_warmup_steps = 0
    cfg.optimizer.lr = 1e-2
    cfg.metric_logger.log_dir = f"{output_dir}/logs"
    cfg.update(changes)
    return check_config(cfg, REQUIRED, OPTIONAL, COMPONENTS, BROUGHT)


def trained(cfg, change=None):
    recipe = DPORecipe(cfg)
    recipe.setup(cfg)
    if change is not None:
        change(recipe)
    assert recipe.train() == 0
    recipe.cleanup()
    return recipe


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_sixteen_steps_are_those_of_torchtune_s_path(family, shrunken, tmp_path):
    folder = shrunken[family]
    ours = config_of(folder, tmp_path / "ours", epochs=4)
    torchtune = {
        "model": {
            "_component_": BUILDERS[family],
            **TINY, "rope_base": 100_000, **({"scale_factor": 1} if family == "llama" else {}),
            "lora_attn_modules": ["q_proj", "v_proj"], "apply_lora_to_mlp": True, "lora_rank": 4, "lora_alpha": 8,
        },
        "tokenizer": {"_component_": "finetune.tokenizers.hf_chat_tokenizer", "path": str(folder)},
        "checkpointer": {
            "_component_": "torchtune.training.FullModelHFCheckpointer", "checkpoint_dir": str(folder),
            "checkpoint_files": sorted(path.name for path in folder.glob("*.safetensors")), "output_dir": str(tmp_path),
            "model_type": "LLAMA3" if family == "llama" else "MISTRAL", "recipe_checkpoint": None,
        },
    }  # fmt: skip
    plain = OmegaConf.merge(
        ours, {"output_dir": str(tmp_path / "plain"), "metric_logger": {"log_dir": f"{tmp_path}/plain/logs"}}
    )
    for key, value in torchtune.items():
        plain[key] = value
    first = {}

    def note(recipe):
        first.update(
            {name: p.detach().clone() for name, p in recipe._policy.decoder.named_parameters() if p.requires_grad}
        )

    def begin_alike(recipe):
        for name, p in recipe._policy.decoder.named_parameters():
            if p.requires_grad:
                layer, module, part = re.fullmatch(r"layers\.(\d+)\.(.*)\.(lora_[ab])\.weight", name).groups()
                part = part.replace("_a", "_A").replace("_b", "_B")
                p.data.copy_(first[f"hf.model.layers.{layer}.{HF_NAMES[module]}.{part}.default.weight"])

    trained(ours, note)
    trained(plain, begin_alike)
    a, b = read_steps(tmp_path / "ours"), read_steps(tmp_path / "plain")
    assert len(a) == len(b) == 16
    assert [a[k]["loss"] for k in a] == pytest.approx([b[k]["loss"] for k in b], abs=1e-5)
    assert min(values["loss"] for values in b.values()) < 0.66
    logits = []
    for run in ("ours", "plain"):
        base = AutoModelForCausalLM.from_pretrained(folder)
        model = PeftModel.from_pretrained(base, tmp_path / run / "epoch_3").eval()
        with torch.no_grad():
            logits.append(model(torch.tensor([PROMPT + YES])).logits)
            with model.disable_adapter():
                without = model(torch.tensor([PROMPT + YES])).logits
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)
    assert (logits[0] - without).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("family", "model"),
    [
        ("llama", {"use_rslora": True, "target_modules": "all-linear", "lora_dropout": 0.1}),
        ("llama", {"use_dora": True}),
        ("llama", {"target_modules": r".*layers\.1\..*(k_proj|o_proj)"}),
        ("mistral", {"target_modules": ["lm_head", "q_proj"], "exclude_modules": r".*layers\.0\..*"}),
    ],
)
def test_plain_peft_loads_what_was_trained(family, model, shrunken, tmp_path):
    cfg = config_of(shrunken[family], tmp_path / "run", model=model, max_steps_per_epoch=2)
    recipe = trained(cfg)
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run" / "epoch_0").eval()
    policy = recipe._policy.eval()
    with torch.no_grad():
        ours = policy(TREE).tolist()
        with policy.without_adapters():
            base = policy(TREE).tolist()
        theirs = []
        for answer in (YES, NO):
            logits = loaded(torch.tensor([PROMPT + answer])).logits[0, len(PROMPT) - 1 : -1]
            theirs.append(torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None]).sum().item())
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert ours != pytest.approx(base, abs=1e-3)
    settings = json.loads((tmp_path / "run" / "epoch_0" / "adapter_config.json").read_text())
    assert settings["inference_mode"]
    assert settings["task_type"] == "CAUSAL_LM"
    assert settings["base_model_name_or_path"] == str(shrunken[family])


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_resume_is_exact_with_dropout_a_probe_and_a_moved_folder(shrunken, dtype, tmp_path):
    settings = {
        "dtype": dtype,
        "model": {"lora_dropout": 0.2},
        "max_steps_per_epoch": 4,
        "save_every_n_steps": 1,
        "keep_last_n_checkpoints": 9,
        "enable_activation_checkpointing": True if dtype == "fp32" else 0.5,
    }
    trained(config_of(shrunken["llama"], tmp_path / "whole", **settings))
    shutil.copytree(tmp_path / "whole" / "step_2", tmp_path / "part" / "step_2")
    moved = shutil.copytree(shrunken["llama"], tmp_path / "moved")
    probe = {"_component_": "eval.probe.Probe", "n_items": 4, "n_pairs": 2, "every_n_steps": 2}
    trained(config_of(moved, tmp_path / "part", **settings, resume_from_checkpoint=True, probe=probe))
    whole, part = (load_file(tmp_path / run / "epoch_0" / "adapter_model.safetensors") for run in ("whole", "part"))
    assert whole.keys() == part.keys()
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32}
    steps = read_steps(tmp_path / "part")
    assert [k for k in steps if "loss" in steps[k]] == [3, 4]
    assert all(steps[k]["loss"] == read_steps(tmp_path / "whole")[k]["loss"] for k in (3, 4))
    assert [json.loads(x)["step"] for x in (tmp_path / "part" / "trajectory.jsonl").read_text().splitlines()] == [0, 4]


def test_the_reference_s_record_is_shared_by_all_ways_to_adapt_a_base(shrunken, tmp_path):
    def hash_of(folder, **model):
        cfg = config_of(folder, tmp_path / "none", model=model)
        recipe = DPORecipe(cfg)
        recipe.setup(cfg)
        return recipe._base_hash

    first = hash_of(shrunken["llama"])
    assert hash_of(shrunken["llama"], lora_rank=2, target_modules="all-linear") == first
    other = write_llama_folder(tmp_path / "other", TINY, tied=True, seed=3)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(shrunken["llama"] / name, other)
    assert hash_of(other) != first


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"lora_rank": None}}, "give model.lora_rank"),
        ({"compile": True}, "compile=True works with torchtune's builders alone"),
        ({"save_adapter_weights_only": False}, "finetune/export.py for a merged model"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, words, shrunken, tmp_path):
    with pytest.raises(ValueError, match=re.escape(words)):
        DPORecipe(config_of(shrunken["llama"], tmp_path, **changes))
