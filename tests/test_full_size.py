# SPDX-License-Identifier: MIT
"""Random weights in the layout of the Hub are those of the model that the config builds."""

import pytest
import torch
from conftest import REPO, TINY
from omegaconf import OmegaConf
from safetensors.torch import load_file

from benchmarks.full_size import MODELS, write_checkpoint
from finetune.run.policy import build_policy, check_builder, named_weights


@pytest.mark.parametrize("name", MODELS)
def test_a_written_checkpoint_fits_its_config(name, tmp_path):
    cfg = OmegaConf.merge(OmegaConf.load(REPO / "configs" / f"{MODELS[name].config}.yaml"), {"model": TINY})
    write_checkpoint(tmp_path, cfg, MODELS[name])
    policy, _ = build_policy(cfg.model, torch.float32, 0, recomputed=0)
    check_builder(policy.decoder, tmp_path)
    written = [load_file(path) for path in tmp_path.glob("*.safetensors")]
    frozen = [p for _, p in named_weights(policy.decoder) if not p.requires_grad]
    assert sum(w.numel() for file in written for w in file.values()) == sum(p.numel() for p in frozen)
