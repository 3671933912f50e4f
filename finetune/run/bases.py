# SPDX-License-Identifier: MIT
"""The base of a run and the policy on it: a torchtune decoder with its checkpointer, or a transformers one.

Both are asked for the same: a policy, initial weights of its adapter, a hash of all that the reference's values depend
on, and to give the policy its weights, whole or as this process's share.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from omegaconf import DictConfig
from torch import Tensor, distributed, nn
from torchtune import config, training

from data.recipe.config import plain
from data.recipe.memory import MappedFiles
from finetune.causal.agreement import choose_layout
from finetune.causal.decoder import CausalLM, read_fast
from finetune.run.policy import (
    Policy,
    build_policy,
    check_builder,
    load_weights,
    named_weights,
    place,
    recompute_activations,
    seeded,
)
from finetune.run.processes import Processes, whole_adapter
from finetune.run.reference_cache import hash_base


class Base(Protocol):
    """What a run needs of its base."""

    policy: Policy
    fresh: dict[str, Tensor]  # initial weights of the adapter, on the CPU, under the policy's decoder's names
    checkpointer: Any  # that of a torchtune decoder; it writes adapters and merged models

    def hash(self) -> str:
        """Return a hash of all that the reference's values depend on; the first process alone is asked."""

    def load(self, adapter: Mapping[str, Tensor]) -> Policy:
        """Shard the policy if there are several processes, and give it the base's weights and an adapter's."""


class TorchtuneBase:
    """A builder of torchtune's and a checkpointer that reads its weights."""

    def __init__(self, cfg: DictConfig, dtype: torch.dtype, seed: int, processes: Processes, staging: str) -> None:
        self._cfg, self._dtype, self._processes = cfg, dtype, processes
        self.policy, self.fresh = build_policy(cfg.model, dtype, seed, cfg.enable_activation_checkpointing)
        check_builder(self.policy.decoder, cfg.checkpointer.checkpoint_dir)
        self.checkpointer = config.instantiate(cfg.checkpointer, output_dir=staging, should_load_recipe_state=False)
        self._weights = self.checkpointer.load_checkpoint()[training.MODEL_KEY]  # mapped from disk, read as it is used
        self._files = MappedFiles(cfg.checkpointer.checkpoint_dir)

    def hash(self) -> str:
        """Hash the builder's arguments but for LoRA's, and the weights."""
        builder = {k: v for k, v in plain(self._cfg.model).items() if "lora" not in k or k == "_component_"}
        settings = {**builder, "dtype": str(self._dtype), "device": self._processes.device.type}
        found = hash_base(self._weights, settings)
        for weight in self._weights.values():
            self._files.drop_pages(weight)
        return found

    def load(self, adapter: Mapping[str, Tensor]) -> Policy:
        """Every process reads its share from the disk."""
        self._processes.shard(self.policy)
        load_weights(self.policy, take_weights(self._weights, self._files), adapter, self._processes.device)
        return self.policy


def take_weights(weights: dict[str, Tensor], files: MappedFiles) -> Iterator[tuple[str, Tensor]]:
    """Yield each weight of mapped files, and keep neither it nor what was read of it."""
    for name in list(weights):
        weight = weights.pop(name)
        yield name, weight
        files.drop_pages(weight)


class CausalBase:
    """``causal_lm``, which reads its weights itself: on the device, or for several processes in the first one."""

    checkpointer = None

    def __init__(self, cfg: DictConfig, dtype: torch.dtype, seed: int, processes: Processes) -> None:
        self._processes = processes
        with seeded(seed), training.set_default_dtype(dtype):
            if processes.n == 1:
                with processes.device:
                    decoder = config.instantiate(cfg.model)
                self._source = decoder
            else:
                self._source = config.instantiate(cfg.model) if processes.first else None
                with torch.device("meta"):
                    decoder = config.instantiate(cfg.model)
        if self._source is not None:
            with self._source.without_adapters():
                choose_layout(self._source)
        layout = processes.from_first(self._source.layout if self._source is not None else "")
        if layout == "sequences" and processes.n > 1:
            raise ValueError(
                f"{decoder.folder}: its answers are read one by one, unequally many on each of {processes.n} "
                "processes, which would wait for each other; use one process"
            )
        if decoder is not self._source:
            read_fast(decoder)
            decoder.layout = layout
        self._decoder: CausalLM = decoder
        fresh = {} if self._source is None else whole_adapter(self._source)
        self.fresh = processes.from_first({name: tensor.clone() for name, tensor in fresh.items()})
        recompute_activations(decoder, cfg.enable_activation_checkpointing)
        self.policy = Policy(decoder)

    def hash(self) -> str:
        """Hash the model's config and weights; how it is adapted does not count."""
        model = self._decoder.hf
        weights = {
            name.replace(".base_layer.", "."): p for name, p in named_weights(self._source) if not p.requires_grad
        }
        about = {"_component_": "finetune.models.causal_lm", "layout": self._decoder.layout}
        settings = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_")}
        device = self._processes.device.type
        return hash_base(weights, {**about, "config": repr(settings), "dtype": str(model.dtype), "device": device})

    def load(self, adapter: Mapping[str, Tensor]) -> Policy:
        """Take the adapter's weights over; several processes get their share of all others from the first one."""
        if self._processes.n > 1:
            self._processes.shard(self.policy)
            self._spread()
        for name, parameter in named_weights(self._decoder):
            if parameter.requires_grad:
                tensor = place(adapter[name].to(parameter.dtype), parameter, self._processes.device)
                with torch.no_grad():
                    parameter.copy_(tensor)
        self._source = None
        return self.policy

    def _spread(self) -> None:
        """Give every process its share of the first one's weights, one at a time."""
        device, model = self._processes.device, self._decoder.hf
        source = {} if self._source is None else dict(self._source.hf.named_parameters(remove_duplicate=False))
        placed: dict[str, nn.Parameter] = {}
        made: dict[int, nn.Parameter] = {}  # a tied weight has two names
        for full_name, target in model.named_parameters(remove_duplicate=False):
            name = full_name.replace("_checkpoint_wrapped_module.", "")
            if id(target) not in made:
                whole = self._from_first(source.get(name), target.shape, target.dtype)
                made[id(target)] = nn.Parameter(place(whole, target, device), requires_grad=target.requires_grad)
            placed[name] = made[id(target)]
        model.load_state_dict(placed, strict=False, assign=True)
        buffers = {} if self._source is None else dict(self._source.hf.named_buffers())
        for full_name, target in list(model.named_buffers()):
            name = full_name.replace("_checkpoint_wrapped_module.", "")
            module, _, attribute = full_name.rpartition(".")
            tensor = self._from_first(buffers.get(name), target.shape, target.dtype)
            setattr(model.get_submodule(module), attribute, tensor)
        training.validate_no_params_on_meta_device(self._decoder)

    def _from_first(self, tensor: Tensor | None, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        device = self._processes.device
        if tensor is None:
            sent = torch.empty(shape, dtype=dtype, device=device)
        else:
            sent = tensor.detach().to(device, dtype).contiguous()
        distributed.broadcast(sent, src=0)
        return sent
