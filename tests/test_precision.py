# SPDX-License-Identifier: MIT
"""``dtype: auto``: what a trial measures, what it decides, and what is never tried."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from finetune.run import precision
from finetune.run.precision import measure_gain, settle_dtype

CPU = torch.device("cpu")


@pytest.fixture
def base(tmp_path):
    sizes = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    return tmp_path


def cfg_of(dtype="auto"):
    return OmegaConf.create({"dtype": dtype, "max_tokens_per_forward": 40})


@pytest.mark.parametrize(("slowness", "gain"), [({torch.float32: 3.0, torch.bfloat16: 1.5}, 2.0),
                                                ({torch.float32: 1.0, torch.bfloat16: 90.0}, 1 / 90)])  # fmt: skip
def test_a_trial_compares_both_on_the_model_s_sizes(base, monkeypatch, slowness, gain):
    seen = []

    def seconds(weight, x):
        assert weight.dtype == x.dtype
        seen.append((weight.dtype, tuple(weight.shape), tuple(x.shape)))
        return slowness[weight.dtype]

    monkeypatch.setattr(precision, "_seconds", seconds)
    assert measure_gain(base, 40, CPU) == pytest.approx(gain)
    shapes = (128, 64), (40, 64)
    assert {*seen} == {(torch.float32, *shapes), (torch.bfloat16, *shapes)}
    assert len(seen) == (40 if gain > 1 else 2)  # a processor that emulates bf16 is asked once


def test_a_real_trial_is_short_and_gives_a_ratio(base, monkeypatch):
    monkeypatch.setattr(precision, "LONGEST_TRIAL_S", 0.01)
    assert 0 < measure_gain(base, 40, CPU) < 100


def test_what_is_asked_for_or_was_taken_before_is_not_tried(base, monkeypatch):
    monkeypatch.setattr(precision, "measure_gain", None)
    for cfg, folder, recorded, taken in (
        (cfg_of("bf16"), base, "fp32", "bf16"),
        (cfg_of(), base, "bf16", "bf16"),
        (cfg_of(), base, "fp32", "fp32"),
        (cfg_of(), None, None, "fp32"),
    ):
        assert settle_dtype(cfg, CPU, folder, recorded) == {"bf16": torch.bfloat16, "fp32": torch.float32}[taken]
        assert cfg.dtype == taken


@pytest.mark.parametrize(("gain", "taken"), [(1.3, "bf16"), (1.29, "fp32")])
def test_bf16_is_taken_from_a_gain_on(base, monkeypatch, gain, taken):
    monkeypatch.setattr(precision, "measure_gain", lambda *_: gain)
    cfg = cfg_of()
    settle_dtype(cfg, CPU, base)
    assert cfg.dtype == taken
