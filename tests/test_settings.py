# SPDX-License-Identifier: MIT
"""The command that a training ends with is one that the evaluation takes."""

import shlex
from pathlib import Path

import pytest
from conftest import REPO
from omegaconf import OmegaConf

from data.recipe.config import check_config
from eval.political_compass import OPTIONAL, REQUIRED
from finetune.run.settings import next_command

PACKAGED = "outputs/models/SmolLM2-135M-Instruct"


@pytest.mark.parametrize(
    ("output_dir", "base", "device", "changed"),
    [
        ("outputs/left", PACKAGED, "cpu", {}),
        ("outputs/run.1", "models/Llama", "cuda", {"device": "cuda", "dtype": "bf16", "tokenizer": None}),
    ],
)
def test_the_next_command_measures_the_runs_adapter(output_dir, base, device, changed):
    cfg = OmegaConf.create({"output_dir": output_dir, "device": device, "dtype": "bf16"})
    words = shlex.split(next_command(cfg, base, Path(output_dir, "epoch_1")))
    assert words[:5] == ["tune", "run", "eval/political_compass.py", "--config", "configs/political_compass.yaml"]
    overrides = [word for word in words[5:] if not word.startswith("model")]
    given = OmegaConf.from_dotlist(overrides)
    if len(overrides) < len(words) - 5:
        assert {*words} - {*overrides} >= {"model=finetune.models.causal_lm", f"model.path={base}"}
        given.model = {"_component_": "finetune.models.causal_lm", "path": base}
    loaded = OmegaConf.load(REPO / words[4])
    if "model" in given:
        del loaded["model"]
    merged = check_config(OmegaConf.merge(loaded, given), REQUIRED, OPTIONAL)
    adapters = {key: value for key, value in merged.adapters.items() if value is not None}
    assert adapters == {Path(output_dir).name.replace(".", "_"): f"{output_dir}/epoch_1"}
    assert merged.output_dir == f"{output_dir}/compass"
    assert {key: merged[key] for key in changed} == changed
