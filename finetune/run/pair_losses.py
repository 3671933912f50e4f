# SPDX-License-Identifier: MIT
"""Losses of preference pairs: forwards cut by a token budget, the reference from its cache, the metrics of a step.

Legend: N pairs of a step or of a forward.
"""

import resource
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torchtune import training
from tqdm import tqdm

from finetune.run.batches import Pair
from finetune.run.policy import Policy
from finetune.run.processes import Processes, reshard
from finetune.run.reference_cache import ReferenceCache
from finetune.tree.prefix_tree import build_tree, cut_by_tokens


class StepMetrics:
    """Metrics of one optimizer step on one process, named as torchtune names them and summed over pairs."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.n_pairs = 0
        self.n_tokens = 0  # of whole sequences, without padding; a shared prompt counts for each answer

    def add(self, pairs: Sequence[Pair], values: dict[str, Tensor]) -> None:
        """Add one forward's pairs; every tensor is ``[N]``."""
        sums = torch.stack([value.detach().double().sum() for value in values.values()]).tolist()  # one transfer
        for name, value in zip(values, sums):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.n_pairs += len(pairs)
        self.n_tokens += sum(len(answer.tokens) for pair in pairs for answer in pair)


def mean_metrics(parts: Sequence[StepMetrics]) -> dict[str, float]:
    """Return each metric's mean over all pairs of a step, whichever processes scored them."""
    n_pairs = sum(part.n_pairs for part in parts)
    names = next(part.sums for part in parts if part.n_pairs)
    return {name: sum(part.sums.get(name, 0.0) for part in parts) / n_pairs for name in names}


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return peak memory in GiB: of the CUDA device, else this process's resident set."""
    if device.type == "cuda":
        return training.get_memory_stats(device=device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return {"peak_memory_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}


class Scores(NamedTuple):
    """Answers of N pairs, chosen and rejected in turn."""

    log_probs: Tensor  # [2N], nats
    lengths: Tensor  # [2N], scored tokens


class PairLosses:
    """Score pairs with the policy and its reference, and accumulate the gradient of their mean loss.

    The reference is the policy's base, with adapters off. ``activations`` is a context around its forward pass.
    """

    def __init__(
        self,
        policy: Policy,
        loss_fn: nn.Module,
        reference: ReferenceCache,
        max_tokens: int,
        processes: Processes,
        activations: AbstractContextManager,
    ) -> None:
        self._policy, self._loss_fn, self._reference = policy, loss_fn, reference
        self._max_tokens, self._processes, self._activations = max_tokens, processes, activations
        self._reference_free = getattr(loss_fn, "reference_free", False)
        self._length_normalized = getattr(loss_fn, "length_normalized", False)

    def accumulate(self, pairs: Sequence[Pair], train: bool = True) -> StepMetrics:
        """Score N pairs, the same on every process and of the same weight each; return this process's part.

        ``train`` adds the gradient of the mean loss to the adapter's; False only measures, with dropout off.
        """
        reference = None if self._reference_free else self._reference_values(pairs)
        metrics = StepMetrics()
        self._policy.train(train)
        with torch.set_grad_enabled(train):
            for turn in self._processes.turns(cut_by_tokens(pairs, self._max_tokens)):
                part = [pairs[k] for k in turn.piece]
                scores = self._score(part)
                known: tuple[Tensor | None, Tensor | None] = (None, None)
                if reference is not None:
                    values = torch.tensor([reference[k] for k in turn.piece], device=self._processes.device)
                    known = self._split(values.flatten(), scores.lengths)
                losses, chosen, rejected = self._loss_fn(*self._split(*scores), *known)
                if train:
                    # FSDP takes the mean over processes; the loss is a mean over all pairs of the step.
                    share = self._processes.n / len(pairs) if turn.counts else 0.0
                    if isinstance(self._policy, FSDPModule):
                        self._policy.set_requires_gradient_sync(turn.last)
                    (losses.sum() * share).backward()
                if turn.counts:
                    metrics.add(
                        part,
                        {
                            "loss": losses,
                            "rewards/chosen": chosen,
                            "rewards/rejected": rejected,
                            "rewards/accuracies": (chosen > rejected).float(),
                            "rewards/margins": chosen - rejected,
                            "log_probs/chosen": scores.log_probs[0::2],
                            "log_probs/rejected": scores.log_probs[1::2],
                        },
                    )
        self._policy.train()
        reshard(self._policy)
        return metrics

    def _score(self, pairs: Sequence[Pair]) -> Scores:
        tree = build_tree([answer for pair in pairs for answer in pair])
        lengths = torch.tensor((0, *tree.answer_ends)).diff()
        with self._activations:
            return Scores(self._policy(tree.to(self._processes.device)), lengths.to(self._processes.device))

    def _split(self, log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of chosen and rejected answers, as means over tokens where the loss asks for them."""
        values = log_probs / lengths if self._length_normalized else log_probs
        return values[0::2], values[1::2]

    @torch.no_grad()
    def _reference_values(self, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
        """Return the base's log-probabilities of each pair, computed where the first process's cache has none."""
        first = self._processes.first
        known = self._processes.from_first([self._reference.get(*pair) for pair in pairs] if first else [])
        values = {k: value for k, value in enumerate(known) if value is not None}
        missing = [k for k in range(len(pairs)) if k not in values]
        if missing:
            self._policy.eval()
            bar = tqdm(total=len(missing), desc="reference", leave=False, disable=len(missing) < 16 or not first)
            with self._policy.without_adapters(), bar:
                # one pair a forward, so that a value never depends on the other pairs of the step
                for turn in self._processes.turns(missing):
                    chosen, rejected = self._score([pairs[turn.piece]]).log_probs.tolist()
                    scored = {turn.piece: (chosen, rejected)} if turn.counts else {}
                    for k, value in [item for part in self._processes.gather(scored) for item in part.items()]:
                        values[k] = value
                        self._reference.put(*pairs[k], value)
                        bar.update()
        return [values[k] for k in range(len(pairs))]
