# SPDX-License-Identifier: MIT
"""Every config validates, and every command in a config's header runs, with only sizes and paths overridden."""

from pathlib import Path

import pytest
import yaml
from conftest import REPO, read_steps
from peft import PeftModel
from transformers import AutoModelForCausalLM

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


@pytest.mark.parametrize("path", sorted((REPO / "configs").glob("mistral*.yaml")), ids=lambda path: path.stem)
def test_mistral_is_tuned_on_the_ids_that_it_is_asked_in(path):
    """torchtune's tokenizer puts one more blank before [/INST] than mistral-common and the folder's template do."""
    cfg = yaml.safe_load(path.read_text())
    assert cfg["tokenizer"]["_component_"] == "finetune.tokenizers.hf_chat_tokenizer"
    assert cfg["tokenizer"]["path"] == cfg["checkpointer"]["checkpoint_dir"]
