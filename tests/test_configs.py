# SPDX-License-Identifier: MIT
"""Every config validates, and every command in a config's header runs, with only sizes and paths overridden."""

import json
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from conftest import REPO, read_steps
from families import write_family, write_images_too
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, Mxfp4Config

from finetune.causal.folder import read_folder
from finetune.models import causal_lm

CONFIGS = sorted((REPO / "configs").glob("*.yaml"))


def header_commands(path: Path) -> list[str]:
    """Return the `tune …` lines of the comment at the top of a config."""
    lines = path.read_text().split("\noutput_dir:")[0].splitlines()
    return [line.lstrip("# ").strip() for line in lines if line.startswith("#   tune ")]


COMMANDS = [(path, command) for path in CONFIGS for command in header_commands(path)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_tune_validate(tune, path, capsys):
    assert tune(["validate", str(path)]) == 0
    assert "well-formed" in capsys.readouterr().out


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_says_how_to_run_it(path):
    assert any(f"configs/{path.name}" in command for command in header_commands(path))


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=lambda x: x.stem if isinstance(x, Path) else x.split()[2])
def test_header_command(run_documented, path, command):
    run, base = run_documented(command)
    if base is not None:
        assert len(read_steps(run)) == 1
        assert PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run / "epoch_0")


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if p.stem.startswith(("mistral7b_lora", "mistral7b_qlora"))], ids=lambda p: p.stem
)
def test_mistral_is_tuned_on_the_ids_that_it_is_asked_in(path):
    """torchtune's tokenizer puts one more blank before [/INST] than mistral-common and the folder's template do."""
    cfg = yaml.safe_load(path.read_text())
    assert cfg["tokenizer"]["_component_"] == "finetune.tokenizers.hf_chat_tokenizer"
    assert cfg["tokenizer"]["path"] == cfg["checkpointer"]["checkpoint_dir"]


def code_in(config: str) -> str:
    lines = (REPO / "configs" / f"{config}.yaml").read_text().splitlines()
    (code,) = [shlex.split(line.lstrip("# "))[2] for line in lines if line.startswith("#   python -c ")]
    return code


def test_the_language_model_of_a_model_that_reads_images_is_saved_by_the_line_in_its_header(tiny_model_dir, tmp_path):
    code = code_in("gemma3_4b_lora_dpo_single_device")
    both = write_images_too(tmp_path / "both", "gemma-3-4b-it-text", tiny_model_dir)
    with pytest.raises(ValueError, match="save its language model into a folder of its own"):
        read_folder(both)
    text = tmp_path / "text"
    exec(code.replace("models/gemma-3-4b-it-text", str(text)).replace("models/gemma-3-4b-it", str(both)), {})
    assert read_folder(text).model_type == "gemma3_text"
    ids = torch.arange(100, 140)[None]
    with torch.no_grad():
        expected = AutoModelForImageTextToText.from_pretrained(both).eval()(input_ids=ids).logits
        found = AutoModelForCausalLM.from_pretrained(text).eval()(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert (text / "chat_template.jinja").read_text() == (both / "chat_template.jinja").read_text()


def test_packed_experts_are_written_in_bf16_by_the_line_in_the_header_of_gpt_oss(tiny_model_dir, tmp_path):
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    write_family(packed, "gpt-oss-20b-BF16", tiny_model_dir)
    weights = load_file(packed / "model.safetensors")
    torch.manual_seed(0)
    for name in [name for name in weights if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        n_experts, n_in, n_out = weights.pop(name).shape
        weights[f"{name}_blocks"] = torch.randint(0, 256, (n_experts, n_out, n_in // 32, 16), dtype=torch.uint8)
        weights[f"{name}_scales"] = torch.randint(118, 124, (n_experts, n_out, n_in // 32), dtype=torch.uint8)
    save_file(weights, packed / "model.safetensors", metadata={"format": "pt"})
    fields = json.loads((packed / "config.json").read_text())
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    fields["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    (packed / "config.json").write_text(json.dumps(fields))
    with pytest.raises(
        ValueError, match=r"quantized \(mxfp4\); configs/gpt_oss_20b_lora_dpo_single_device.yaml writes"
    ):
        read_folder(packed)
    code = code_in("gpt_oss_20b_lora_dpo_single_device")
    exec(code.replace("models/gpt-oss-20b-BF16", str(plain)).replace("models/gpt-oss-20b", str(packed)), {})
    found = causal_lm(str(plain)).hf.state_dict()
    how = {"quantization_config": Mxfp4Config(dequantize=True), "dtype": torch.bfloat16}
    expected = AutoModelForCausalLM.from_pretrained(packed, **how).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in expected.items())
