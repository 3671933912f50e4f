# SPDX-License-Identifier: MIT
"""The dtype that a model computes in: the one asked for, or with ``dtype: auto`` the one that a short trial shows.

bf16 has the range of float32 and 8 bits of its precision. A processor that multiplies it in hardware is about twice as
fast; one that does not is slower than in float32. What is trained, sums of log-probabilities and the optimizer are
float32 either way.
"""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor
from torchtune import training, utils
from transformers import AutoConfig

log = utils.get_logger()  # of the recipe, which sets its level

AUTO = "auto"
LEAST_GAIN = 1.3
# Operations of one measurement: a tenth to a quarter of a second on one core.
TRIAL_FLOPS = 1e10
LONGEST_TRIAL_S = 2.0


def settle_dtype(cfg: DictConfig, device: torch.device, base: Path | None, recorded: str | None = None) -> torch.dtype:
    """Return the dtype of a config, and put it there in place of ``auto``.

    Args:
        cfg: With ``dtype`` and ``max_tokens_per_forward``.
        device: Where the model will be.
        base: Its folder. Without one nothing is tried.
        recorded: The dtype of the run that goes on, which is not tried again.
    """
    if cfg.dtype != AUTO:
        return training.get_dtype(cfg.dtype, device=device)
    if recorded:
        cfg.dtype, why = recorded, "as this run did before"
    elif base is None:
        cfg.dtype, why = "fp32", "there is no model here"
    else:
        gain = measure_gain(base, cfg.max_tokens_per_forward, device)
        cfg.dtype = "bf16" if gain >= LEAST_GAIN else "fp32"
        why = f"layers of this model's size are {gain:.2f} x as fast in bf16 as in fp32 here ({LEAST_GAIN} is enough)"
    log.info(f"dtype=auto takes {cfg.dtype}: {why}")
    return training.get_dtype(cfg.dtype, device=device)


def measure_gain(base: Path, max_tokens: int, device: torch.device) -> float:
    """Return how many times as fast an MLP of a base's size is in bf16 as in float32, forward and backward."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return 0.0
    sizes = AutoConfig.from_pretrained(base).get_text_config()
    width = sizes.hidden_size
    hidden = getattr(sizes, "intermediate_size", None) or 4 * width
    n_tokens = int(min(max(TRIAL_FLOPS / (8 * width * hidden), 32), max_tokens))
    started, best = time.perf_counter(), {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    # the run's own draws must not depend on a trial
    own = torch.Generator(device).manual_seed(0)
    weight = torch.randn(hidden, width, device=device, generator=own)
    x = torch.randn(n_tokens, width, device=device, generator=own)
    inputs = {dtype: (weight.to(dtype), x.to(dtype).requires_grad_()) for dtype in best}
    for _ in range(20):
        for dtype, operands in inputs.items():
            best[dtype] = min(best[dtype], _seconds(*operands))
        # the first turn holds what is set up once
        if time.perf_counter() - started > LONGEST_TRIAL_S or best[torch.bfloat16] > 4 * best[torch.float32]:
            break
    return best[torch.float32] / best[torch.bfloat16]


def _seconds(weight: Tensor, x: Tensor) -> float:
    """Return how long two products and what lies between them take, forward and backward."""
    started = time.perf_counter()
    out = F.silu(x @ weight.T) @ weight
    torch.autograd.grad(out, x, out)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
