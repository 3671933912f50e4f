# SPDX-License-Identifier: MIT
"""The processes of a run, one a device. Alone, everything here is the identity.

FSDP2 (torch's ``fully_shard``) splits every weight over the processes and gathers one layer at a time, so each process
must run the same layers equally often; see :meth:`Processes.turns`. ``torchrun`` (``tune run --nproc_per_node``)
starts the processes, on one machine or several.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torchtune import training, utils

from finetune.run.policy import Policy, named_weights

T = TypeVar("T")


class Turn(NamedTuple, Generic[T]):
    """One process's part in a turn."""

    piece: T  # of the work
    counts: bool  # False if it only fills a turn in which others still work
    last: bool  # whether this is the last turn


class Processes:
    """This process, number ``rank`` of the ``n`` of the run, with its device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if training.is_distributed() and not distributed.is_initialized():
            # longer than torch's 10 minutes: the first process reads the whole base, and may write it merged
            distributed.init_process_group(training.get_distributed_backend(device.type), timeout=timedelta(hours=2))
        self.n, self.rank = utils.get_world_size_and_rank()

    @property
    def first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Return the value of every process, in their order, on all of them."""
        if self.n == 1:
            return [value]
        values: list[Any] = [None] * self.n
        distributed.all_gather_object(values, value)
        return values

    def from_first(self, value: T) -> T:
        """Return the first process's value on all of them."""
        if self.n == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def agree(self, what: str, value: T) -> T:
        """Return a value, or refuse one that is not the same everywhere: processes would wait for ever."""
        values = self.gather(value)
        if any(other != value for other in values):
            raise ValueError(
                f"the processes do not see the same {what}: {values}; the config, the model's folder, the data and "
                "output_dir must be the same on every node"
            )
        return value

    def turns(self, work: Sequence[T]) -> Iterator[Turn[T]]:
        """Deal pieces of work, the same sequence on every process, out: equally many to each of them."""
        for start in range(0, len(work), self.n):
            k = start + self.rank
            yield Turn(work[min(k, len(work) - 1)], counts=k < len(work), last=start + self.n >= len(work))

    def shard(self, policy: Policy) -> None:
        """Split a policy's weights over the processes, layer by layer."""
        if self.n == 1:
            return
        mesh = init_device_mesh(self.device.type, (self.n,))
        for layer in reversed(policy.decoder.layers):
            fully_shard(layer, mesh=mesh)
        fully_shard(policy, mesh=mesh)

    def close(self) -> None:
        """Leave the process group."""
        if distributed.is_initialized():
            distributed.destroy_process_group()


def reshard(policy: Policy) -> None:
    """Let go of the root's weights, which a forward without a backward leaves whole on every process."""
    if isinstance(policy, FSDPModule):
        policy.reshard()


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be sharded as a whole one on the CPU; every process must call it."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def whole_model(model: nn.Module, processes: Processes) -> dict[str, Tensor]:
    """Return all weights as whole tensors on the CPU, NF4 ones in the model's dtype; every process must call it."""
    if processes.n > 1:
        return training.gather_cpu_state_dict(model, processes.first, processes.device)
    # a copy, also on the CPU: torchtune merges in place
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def whole_adapter(model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable parameters as whole tensors on the CPU; every process must call it."""
    return {name: whole(p) for name, p in named_weights(model) if p.requires_grad}
