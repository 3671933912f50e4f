# SPDX-License-Identifier: MIT
"""Components that both torchtune recipes take by dotpath, so that their losses can be compared step by step."""

import zlib
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchtune.modules import TransformerDecoder
from torchtune.modules.peft import LoRALinear
from torchtune.training.lr_schedulers import get_cosine_schedule_with_warmup

from benchmarks.step_log import write_event
from data.recipe.config import component


def initial_lora_a(name: str, rank: int, in_features: int, seed: int) -> Tensor:
    """Return a module's first ``A``, float32 ``[R, in]``, that depends on its name and the seed alone.

    Same law as torchtune's and peft's (Kaiming uniform, a = sqrt 5), but independent of dtype, device and
    of the order in which modules are built.
    """
    # torch's CPU generator takes 32 bits of a seed and ignores the rest
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    with torch.device("cpu"):
        weight = torch.empty(rank, in_features, dtype=torch.float32)
    return torch.nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)


@torch.no_grad()
def _initialize(module: LoRALinear, name: str, seed: int) -> None:
    module.lora_a.weight.copy_(initial_lora_a(name, module.rank, module.in_dim, seed))
    module.lora_b.weight.zero_()


def seeded_lora(builder: str, seed: int = 0, **arguments: Any) -> TransformerDecoder:
    """Build a LoRA model whose first weights are the same in every system.

    Args:
        builder: Dotpath of the model's builder.
        seed: Seed of the weights.
        arguments: The builder's arguments.

    Example:
        >>> # model._component_=benchmarks.speed_components.seeded_lora model.builder=finetune.models.lora_smollm2_135m
    """
    model = component(builder)(**arguments)
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            # on the meta device there is nothing to fill yet: the recipe calls this once there is
            module.initialize_parameters = partial(_initialize, module, name, seed)
            if not module.lora_a.weight.is_meta:
                module.initialize_parameters()
    return model


def stamped_cosine_schedule(
    optimizer: torch.optim.Optimizer,
    num_training_steps: int,
    last_epoch: int = -1,
    *,
    num_warmup_steps: int,
    n_steps: int,
    log_file: str,
) -> LambdaLR:
    """Build torchtune's cosine schedule over ``n_steps``, however many steps the run has; note the time.

    The scheduler is the last thing that torchtune's recipe sets up: what follows is training.

    Args:
        optimizer: The optimizer.
        num_training_steps: What the recipe gives; not used, as the systems run different numbers of epochs.
        last_epoch: As torch's schedulers have it.
        num_warmup_steps: Linear warm-up.
        n_steps: Length of the schedule.
        log_file: Where the time goes.
    """
    write_event(log_file, event="train_start")
    return get_cosine_schedule_with_warmup(
        optimizer, num_warmup_steps=num_warmup_steps, num_training_steps=n_steps, last_epoch=last_epoch
    )
