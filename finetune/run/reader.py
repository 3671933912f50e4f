# SPDX-License-Identifier: MIT
"""The view that a probe gets of a run: facts about it, and log-probabilities of whatever it asks for.

A probe is any component named by ``probe._component_``, called with a :class:`WatchedRun` and its settings. It has

- ``begin(reader) -> dict[str, float]`` before the first step: metrics of step 0, or nothing;
- ``measure(step, reader) -> dict[str, float]`` after every step: metrics to log with it, or nothing;
- ``report() -> str`` after the last one.

Every process calls all of them alike. ``eval.probe.Probe`` is one.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from data.pairs.tokens import Continuation
from finetune.run.policy import Policy
from finetune.run.processes import Processes, reshard
from finetune.tree.prefix_tree import build_tree, cut_by_tokens


class WatchedRun(NamedTuple):
    """Facts about a run."""

    output_dir: Path
    writes: bool  # whether this process writes files
    tokenizer: Any  # the one that its data went through
    n_steps: int  # optimizer steps of the whole run
    n_tokens: int  # merged tokens of all pairs of all its steps
    first_step: int  # steps that are done already: 0, or those of the checkpoint that it is resumed from


class PolicyReader:
    """Score continuations with a policy between two of its steps, and leave no trace in the training."""

    def __init__(self, policy: Policy, processes: Processes) -> None:
        self._policy, self._processes = policy, processes

    def __call__(
        self, groups: Sequence[Sequence[Continuation]], max_tokens: int, base: bool = False
    ) -> list[list[float]]:
        """Return the summed log-probability of every continuation, in nats.

        Dropout is off, no gradient is taken, and torch's random generators are afterwards as they were.

        Args:
            groups: Each is scored in one forward; the same on every process.
            max_tokens: Of one forward; see :func:`finetune.tree.prefix_tree.cut_by_tokens`.
            base: With the adapters off.
        """
        was_training, device = self._policy.training, self._processes.device
        scored: dict[int, list[float]] = {}
        adapters = self._policy.without_adapters() if base else nullcontext()
        rng = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with torch.no_grad(), rng, adapters:
            self._policy.eval()
            for turn in self._processes.turns(cut_by_tokens(groups, max_tokens)):
                tree = build_tree([continuation for k in turn.piece for continuation in groups[k]])
                values = iter(self._policy(tree.to(device)).tolist())
                if turn.counts:
                    scored |= {k: [next(values) for _ in groups[k]] for k in turn.piece}
        self._policy.train(was_training)
        reshard(self._policy)
        scored = {k: values for part in self._processes.gather(scored) for k, values in part.items()}
        return [scored[k] for k in range(len(groups))]
