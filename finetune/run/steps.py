# SPDX-License-Identifier: MIT
"""What the steps of a run did with a gradient: their learning rates, and how the optimizer divides and spreads it."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torchtune import config

from data.recipe.config import component


def learning_rates(cfg: DictConfig, n_steps: int) -> list[float]:
    """Return the learning rate of each step of a run, as its scheduler plans it."""
    optimizer = config.instantiate(cfg.optimizer, [nn.Parameter(torch.zeros(1))])
    if cfg.lr_scheduler is None:
        return [optimizer.param_groups[0]["lr"]] * n_steps
    is_planned = "num_training_steps" in signature(component(cfg.lr_scheduler["_component_"])).parameters
    scheduler = config.instantiate(
        cfg.lr_scheduler, optimizer, **({"num_training_steps": n_steps} if is_planned else {})
    )
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


class Weight(NamedTuple):
    """By how much a gradient is multiplied in all, over the steps up to some step and from there on."""

    own: float  # the sum over these steps of learning rate times its weight in the step
    later: float  # as a part of what a gradient that is new there would be multiplied by


def spread(rates: Sequence[float], steps: range, beta: float) -> list[Weight]:
    """Return how momentum spreads the gradient of each of some steps, counted from 0, over them and those after them.

    In step t, counted from 1, Adam's direction has a gradient of k steps before with the weight
    ``(1 - beta) * beta**k / (1 - beta**t)`` (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1).
    """
    weights, own, later = [], 0.0, 1.0
    for step in reversed(steps):
        own = beta * own + (1 - beta) * rates[step] / (1 - beta ** (step + 1))
        later *= beta
        weights.append(Weight(own, later))
    return weights[::-1]


def check_optimizer(optimizer: Mapping[str, Any], name: str) -> None:
    """Refuse an optimizer whose steps are not known here: known are Adam's, and those of SGD without momentum.

    Args:
        optimizer: Its state in a checkpoint, by the names of the weights.
        name: Its dotpath in the config of the run.
    """
    held = {key for known in optimizer["state"].values() for key, value in known.items() if value is not None}
    made = component(name)
    kinds = made.__mro__ if isinstance(made, type) else ()
    is_plain = torch.optim.SGD in kinds and not held
    is_adam = torch.optim.Adam in kinds and "exp_avg_sq" in held and "max_exp_avg_sq" not in held
    is_upward = any(group.get("maximize") for group in optimizer.get("param_groups", ()))
    if is_upward or not (is_adam or is_plain):
        raise ValueError(
            f"optimizer._component_={name}: how it divides a step is not known here "
            f"(its state has {', '.join(sorted(held)) or 'nothing'}{'; maximize=True' if is_upward else ''}); "
            "train with torch.optim.AdamW, or with torch.optim.SGD without momentum"
        )


def as_stepped(gradient: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> dict[str, Tensor]:
    """Divide a gradient as the optimizer of a checkpoint divides a step: Adam's by the root of its second moment."""
    moments = {name: known for name, known in optimizer["state"].items() if "exp_avg_sq" in known}
    if not moments:
        return dict(gradient)
    settings, stepped = optimizer["param_groups"][0], {}
    for name, value in gradient.items():
        unbiased = moments[name]["exp_avg_sq"].to(value) / (1 - settings["betas"][1] ** float(moments[name]["step"]))
        stepped[name] = value / (unbiased.sqrt() + settings["eps"])
    return stepped
