# SPDX-License-Identifier: MIT
"""Losses of preference pairs: forwards cut by a token budget, the reference from its cache.

Legend: N pairs of a step.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX
from torchtune.modules.peft import disable_adapter
from tqdm import tqdm

from data.pairs.tokens import Continuation
from finetune.run.metrics import StepMetrics
from finetune.run.policy import Policy
from finetune.run.processes import Processes
from finetune.run.reference_cache import ReferenceCache
from finetune.tree.prefix_tree import build_tree, cut_by_tokens

Pair = tuple[Continuation, Continuation]


class PairLosses:
    """Score pairs with the policy and its reference, and accumulate the gradient of their mean loss.

    Args:
        policy: The model; its base is the reference, with adapters off.
        loss_fn: See :mod:`finetune.losses`.
        reference: Known log-probabilities of the base.
        max_tokens: Most tokens of one forward; see :func:`finetune.tree.prefix_tree.cut_by_tokens`.
        processes: Who shares the work.
        device: Where the policy lies.
        activations: Context around the policy's forward pass (activation offloading).
    """

    def __init__(
        self,
        policy: Policy,
        loss_fn: nn.Module,
        reference: ReferenceCache,
        max_tokens: int,
        processes: Processes,
        device: torch.device,
        activations: AbstractContextManager,
    ) -> None:
        self._policy, self._loss_fn, self._reference = policy, loss_fn, reference
        self._max_tokens, self._processes = max_tokens, processes
        self._device, self._activations = device, activations
        self._reference_free = getattr(loss_fn, "reference_free", False)
        self._length_normalized = getattr(loss_fn, "length_normalized", False)

    def accumulate(self, pairs: Sequence[Pair], train: bool = True) -> StepMetrics:
        """Score the pairs; every process must call it with the same ones.

        Args:
            pairs: N pairs, each of the same weight however they are cut and dealt out.
            train: Add the gradient of the mean loss to the adapter's; False only measures, with dropout off.

        Returns:
            What this process scored.
        """
        reference = None if self._reference_free else self._reference_values(pairs)
        metrics = StepMetrics()
        self._policy.train(train)
        with torch.set_grad_enabled(train):
            for forward, counts, last in self._processes.turns(cut_by_tokens(pairs, self._max_tokens)):
                part = [pairs[k] for k in forward]
                policy = self._log_probs(part)
                losses, chosen_rewards, rejected_rewards = self._loss_fn(
                    *self._normalized(policy, part), *self._reference_of(reference, part, forward)
                )
                if train:
                    # FSDP takes the mean over processes; the loss is a mean over all pairs of the step.
                    share = self._processes.n / len(pairs) if counts else 0.0
                    if self._processes.n > 1:
                        self._policy.set_requires_gradient_sync(last)
                    (losses.sum() * share).backward()
                if counts:
                    metrics.add(part, losses, chosen_rewards, rejected_rewards, *policy)
        self._policy.train()
        if self._processes.n > 1:
            self._policy.reshard()  # a forward without a backward leaves the root's weights whole
        return metrics

    def _log_probs(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of the chosen and the rejected answers, ``[N]`` each."""
        tree = build_tree([answer for pair in pairs for answer in pair]).to(self._device)
        with self._activations:
            sums = self._policy(tree)
        return sums[0::2], sums[1::2]

    def _normalized(self, sums: tuple[Tensor, Tensor], pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Return means over the scored tokens where the loss asks for them."""
        if not self._length_normalized:
            return sums
        lengths = torch.tensor([[_n_scored(answer) for answer in pair] for pair in pairs], device=self._device)
        return sums[0] / lengths[:, 0], sums[1] / lengths[:, 1]

    def _reference_of(self, values, pairs, indices) -> tuple[Tensor | None, Tensor | None]:
        if values is None:
            return None, None
        chosen, rejected = torch.tensor([values[k] for k in indices], device=self._device).T
        return self._normalized((chosen, rejected), pairs)

    @torch.no_grad()
    def _reference_values(self, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
        """Return the base's log-probabilities of the two answers of each pair, computed where not known.

        One pair a forward, so that a value never depends on what else was in the step. The first process's cache
        decides.
        """
        first = self._processes.first
        values = self._processes.from_first([self._reference.get(*pair) for pair in pairs] if first else None)
        missing = [k for k, known in enumerate(values) if known is None]
        if not missing:
            return values
        self._policy.eval()
        progress = tqdm(total=len(missing), desc="reference", leave=False, disable=len(missing) < 16 or not first)
        with disable_adapter(self._policy):
            for k, counts, _ in self._processes.turns(missing):
                chosen, rejected = (x.item() for x in self._log_probs([pairs[k]]))
                for j, own, *found in self._processes.gather((k, counts, chosen, rejected)):
                    if own:
                        values[j] = tuple(found)
                        self._reference.put(*pairs[j], found)
                        progress.update()
        progress.close()
        return values


def _n_scored(answer: Continuation) -> int:
    return sum(label != CROSS_ENTROPY_IGNORE_IDX for label in answer.labels[1:])
