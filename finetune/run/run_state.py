# SPDX-License-Identifier: MIT
"""What a run must carry over a stop beside its adapter: optimizer, schedule, random generators, position."""

from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchtune import utils

from finetune.run.policy import Policy
from finetune.run.processes import Processes

log = utils.get_logger("INFO")


class RunState:
    """The state of a run's moving parts; every process must call the same methods.

    Args:
        policy: The model that the optimizer steps.
        optimizer: Of its trainable parameters.
        lr_scheduler: None keeps the learning rate.
        processes: Who shares the work.
        device: Where the policy lies.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: Optimizer,
        lr_scheduler: LRScheduler | None,
        processes: Processes,
        device: torch.device,
    ) -> None:
        self._policy, self._optimizer, self._lr_scheduler = policy, optimizer, lr_scheduler
        self._processes, self._device = processes, device

    def capture(self) -> dict[str, Any]:
        """Return whole tensors on the CPU and plain values, the generators of every process among them."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        device_rng = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        state = {
            "optimizer": get_optimizer_state_dict(self._policy, self._optimizer, options=options),
            "rng": self._processes.gather((torch.get_rng_state(), device_rng)),
        }
        if self._lr_scheduler is not None:
            state["lr_scheduler"] = self._lr_scheduler.state_dict()
        return state

    def restore(self, state: dict[str, Any], has_dropout: bool) -> None:
        """Put back what :meth:`capture` returned, also with another number of processes.

        Args:
            state: From a checkpoint.
            has_dropout: Whether generators that cannot be put back are worth a warning.
        """
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self._processes.n > 1)
        set_optimizer_state_dict(self._policy, self._optimizer, optim_state_dict=state["optimizer"], options=options)
        if self._lr_scheduler is not None:
            self._lr_scheduler.load_state_dict(state["lr_scheduler"])
        if len(state["rng"]) == self._processes.n:
            rng, device_rng = state["rng"][self._processes.rank]
            torch.set_rng_state(rng)
            if self._device.type == "cuda":
                torch.cuda.set_rng_state(device_rng, self._device)
        elif has_dropout:
            log.warning(
                f"saved by {len(state['rng'])} processes, resumed by {self._processes.n}: dropout draws anew, so the "
                "run goes on validly, but not as it would have"
            )
