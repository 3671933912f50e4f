# SPDX-License-Identifier: MIT
"""Metrics of one optimizer step, named as torchtune names them and averaged over all its pairs."""

import resource
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torchtune import training


class StepMetrics:
    """Collect what the forwards of a step report, on one process.

    Attributes:
        sums: Each metric, summed over pairs.
        n_pairs: Pairs added.
        n_tokens: Tokens of the answers' whole sequences; no padding, a shared prompt counted for each answer.
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.n_pairs = 0
        self.n_tokens = 0

    def add(
        self,
        pairs: Sequence[tuple],
        losses: Tensor,
        chosen_rewards: Tensor,
        rejected_rewards: Tensor,
        chosen_logprobs: Tensor,
        rejected_logprobs: Tensor,
    ) -> None:
        """Add one forward's pairs; every tensor is ``[N]``."""
        values = {
            "loss": losses,
            "rewards/chosen": chosen_rewards,
            "rewards/rejected": rejected_rewards,
            "rewards/accuracies": (chosen_rewards > rejected_rewards).float(),
            "rewards/margins": chosen_rewards - rejected_rewards,
            "log_probs/chosen": chosen_logprobs,
            "log_probs/rejected": rejected_logprobs,
        }
        sums = torch.stack([value.detach().double().sum() for value in values.values()]).tolist()  # one transfer
        for name, value in zip(values, sums):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.n_pairs += len(pairs)
        self.n_tokens += sum(len(answer.tokens) for pair in pairs for answer in pair)


def total(parts: Sequence[StepMetrics]) -> dict[str, float]:
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
