# SPDX-License-Identifier: MIT
"""``finetune.models.causal_lm``: what is refused before weights are read, and the torchtune path as its plain one."""

import json
import logging
import re
import shutil
from contextlib import ExitStack

import pytest
import torch
from conftest import REPO, TINY, tiny_overrides
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from data.judging.judges import Text
from data.recipe.config import check_config
from eval import playground
from eval.asking.respond import load_base
from eval.resident_judge import resident_judge
from finetune import export
from finetune.adapters.resident import AdaptedModel
from finetune.causal.folder import find_folder, read_folder
from finetune.models import BROUGHT, causal_lm, complete_model

CPU = torch.device("cpu")


BAD = {
    "vision": (
        {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {"x": 1}},
        "reads more than text",
    ),
    "encoder": ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "gives no next token"),
    "encoder and decoder": (
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
        "an encoder with a decoder",
    ),
    "remote code": (
        {"model_type": "my_llm", "architectures": ["MyLM"], "auto_map": {"AutoModelForCausalLM": "my.MyLM"}},
        "runs code of its own folder, which is never run here",
    ),
    "unknown": ({"model_type": "my_llm", "architectures": ["MyLM"]}, "installed transformers has no such model"),
    "quantized": (
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "gptq"}},
        "its weights are quantized (gptq)",
    ),
    "no JSON": (None, "no config of a model"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_folder_that_is_no_decoder_of_texts_is_refused(fault, tmp_path):
    fields, words = BAD[fault]
    (tmp_path / "config.json").write_text("{" if fields is None else json.dumps(fields))
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        read_folder(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("absent", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_without_a_part_is_refused(absent, tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (folder / absent).unlink()
    with pytest.raises(FileNotFoundError, match=absent.partition(".")[2] if absent[0] == "m" else absent[:6]):
        read_folder(folder)


@pytest.mark.parametrize("path", ["no/such-model", "/no/such/folder", "./none", "none"])
def test_what_is_no_folder_is_said(path):
    with pytest.raises(FileNotFoundError, match="no such folder|no folder of this name") as error:
        find_folder(path)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_are_missing_are_not_made_up(tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 weights of the model are missing.*layers.1.mlp.up_proj"):
        causal_lm(str(folder))


def test_a_target_that_no_layer_has_is_refused(tiny_model_dir):
    with pytest.raises(ValueError, match="model.target_modules=.*c_attn"):
        causal_lm(str(tiny_model_dir), lora_rank=2, target_modules=["c_attn"])


def config_of(folder, **keys):
    model = {"_component_": "finetune.models.causal_lm", "path": str(folder)}
    return OmegaConf.create({"model": model, "tokenizer": None, "checkpointer": None, **keys})


def test_tokenizer_and_weights_come_from_the_folder(tiny_model_dir, tmp_path):
    cfg = complete_model(config_of(tiny_model_dir))
    assert cfg.tokenizer == {"_component_": "finetune.tokenizers.hf_chat_tokenizer", "path": str(tiny_model_dir)}
    with pytest.raises(ValueError, match="checkpointer is given"):
        complete_model(config_of(tiny_model_dir, checkpointer={"checkpoint_dir": "x"}))
    # a copy with another chat template is the same tokenizer, another vocabulary is not
    copy = shutil.copytree(tiny_model_dir, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}")
    given = {"_component_": "finetune.tokenizers.hf_chat_tokenizer", "path": str(copy)}
    assert complete_model(config_of(tiny_model_dir, tokenizer=given)).tokenizer.path == str(copy)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is another tokenizer than that of"):
        complete_model(config_of(tiny_model_dir, tokenizer=given))


def test_other_models_need_both(tiny_model_dir):
    cfg = config_of(tiny_model_dir)
    cfg.model = {"_component_": "finetune.models.smollm2_135m"}
    with pytest.raises(ValueError, match="tokenizer and checkpointer missing"):
        complete_model(cfg)


def test_the_measurement_at_load_is_said(tiny_model_dir, caplog):
    with caplog.at_level(logging.INFO):
        model = load_base(config_of(tiny_model_dir), CPU, torch.float32)
    assert model.layout == "one_mask"
    assert "log-probabilities on the prefix tree are those of plain sequences within" in caplog.text


def compass(tune_run, output_dir, *overrides):
    status = tune_run(
        "eval/political_compass.py", "--config", "configs/political_compass.yaml", f"output_dir={output_dir}",
        "instrument_limit=4", "n_templates=1", "n_orders=2", "n_pair_templates=1", "modes=[choice,pairs,generate]",
        "n_generate_templates=0", "n_generate_orders=1", "max_new_tokens=6", "n_bootstrap=100", "training_data=null",
        *overrides,
    )  # fmt: skip
    assert status == 0
    rows = [json.loads(line) for line in (output_dir / "results.jsonl").read_text().splitlines()]
    return {tuple(str(row[k]) for k in ("model", "mode", "item", "template", "order")): row for row in rows}


@pytest.mark.usefixtures("unrendered")
def test_an_evaluation_is_the_torchtune_path_s(tune_run, tiny_model_dir, tmp_path):
    """A shrunken Llama and an adapter of it: every log-probability, every text."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    lora = LoraConfig(
        r=4, target_modules=["q_proj", "k_proj", "up_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model_dir), lora).save_pretrained(tmp_path / "adapter")
    adapters = [f"adapters.tuned={tmp_path / 'adapter'}", "adapters.half={tuned: 0.5}"]
    adapters += ["adapters.left=null", "adapters.right=null"]
    torchtune = [x for x in tiny_overrides(tiny_model_dir, tmp_path) if x.startswith(("model.", "checkpointer"))]
    torchtune[0] = "model._component_=torchtune.models.llama3_2.llama3_2"
    plain = compass(tune_run, tmp_path / "torchtune", *torchtune, f"tokenizer.path={tiny_model_dir}", *adapters)
    ours = compass(
        tune_run, tmp_path / "transformers", "model._component_=finetune.models.causal_lm",
        f"model.path={tiny_model_dir}", "tokenizer=null", "checkpointer=null", *adapters,
    )  # fmt: skip
    assert ours.keys() == plain.keys()
    assert {key[0] for key in ours} == {"base", "tuned", "half"}
    for key, row in plain.items():
        assert ours[key]["text"] == row["text"]
        if row["option_logprobs"] is not None:
            assert ours[key]["option_logprobs"] == pytest.approx(row["option_logprobs"], rel=1e-6, abs=2e-5)
    moved = [
        abs(a - b)
        for key, row in plain.items()
        if key[0] == "tuned" and row["option_logprobs"]
        for a, b in zip(row["option_logprobs"], plain["base", *key[1:]]["option_logprobs"])
    ]
    assert max(moved) > 0.01


@pytest.fixture(scope="module")
def qwen3(tiny_model_dir, tmp_path_factory):
    """A family that torchtune's path refuses, in its own layout, and an adapter of it on all linear layers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Qwen3Config

    folder, tuned = tmp_path_factory.mktemp("qwen3"), tmp_path_factory.mktemp("tuned")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=TINY["vocab_size"], hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=512, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model_dir / name, folder)
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), lora).save_pretrained(tuned)
    return folder, tuned


def of_recipe(name, folder, tuned, output_dir, **changes):
    cfg = OmegaConf.load(REPO / "configs" / f"{name}.yaml")
    cfg.model = {"_component_": "finetune.models.causal_lm", "path": str(folder)}
    cfg.tokenizer = cfg.checkpointer = None
    cfg.adapters = {"tuned": str(tuned)}
    cfg.output_dir = str(output_dir)
    cfg.update(changes)
    return cfg


def test_the_playground_takes_any_family(qwen3, tmp_path):
    dial = {"low": None, "high": "tuned", "n_points": 3}
    cfg = of_recipe("playground", *qwen3, tmp_path, dial=dial, port=0, n_templates=1, n_orders=2, n_pair_templates=1)
    with ExitStack() as stack:
        cfg = check_config(cfg, playground.REQUIRED, playground.OPTIONAL, nullable=BROUGHT)
        shown = playground.build_server(cfg, stack).side_by_side
        sent = {"prompt": "Tea?", "position": 1, "temperature": 0, "max_new_tokens": 5, "seed": 0}
        said = {}
        for what, fields in (("answer", sent), ("read", {"statement": "Tea.", "opposite": "Milk.", "position": 1})):
            record, parts = getattr(shown, what)(fields)
            for column, part in zip(record["columns"], parts):
                with shown.model.using(part.weights):
                    *_, said[what, column["name"]] = part.steps
    assert said["answer", "tuned"] == said["answer", "dial"]
    assert said["answer", "base"]["n_tokens"] == 5
    assert said["read", "tuned"] == said["read", "dial"] != said["read", "base"]


def test_a_judge_in_memory_takes_any_family(qwen3):
    model = OmegaConf.create({"_component_": "finetune.models.causal_lm", "path": str(qwen3[0])})
    judge = resident_judge("mine", model=model, scale="lean")
    (judgement,) = judge.ask([Text("Tea is democratic.", "")])
    assert judgement.label == max(judgement.raw, key=judgement.raw.get)
    assert judgement.model == str(qwen3[0])


def test_an_export_takes_any_family(qwen3, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder, tuned = qwen3
    cfg = OmegaConf.load(REPO / "configs" / "export.yaml")
    cfg.update({"base": str(folder), "output_dir": str(tmp_path / "out"), "blend": {"tuned": -0.5}, "summaries": None})
    cfg.adapters, cfg.formats = {"tuned": str(tuned)}, ["adapter", "merged"]
    export.ExportRecipe(check_config(cfg, export.REQUIRED, export.OPTIONAL)).export()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(folder)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")(ids).logits
        model = load_adapted_of(folder, {"tuned": tuned, "out": tmp_path / "out" / "adapter"})
        with model.using({"tuned": -0.5}) as decoder:
            ours = decoder.hf(ids).logits
        with model.using("out") as decoder:
            blended = decoder.hf(ids).logits
        assert (merged - base(ids).logits).abs().max() > 1e-2
    torch.testing.assert_close(merged, ours, atol=1e-4, rtol=0)
    torch.testing.assert_close(blended, ours, atol=1e-4, rtol=0)
    assert PeftModel.from_pretrained(base, tmp_path / "out" / "adapter")


def load_adapted_of(folder, adapters):
    return AdaptedModel(load_base(config_of(folder), CPU, torch.float32), adapters, folder)


def test_an_adapter_of_another_model_is_refused(qwen3, tiny_model_dir):
    with pytest.raises(ValueError, match="does not fit this base model"):
        load_adapted_of(tiny_model_dir, {"tuned": qwen3[1]})
