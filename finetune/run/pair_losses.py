# SPDX-License-Identifier: MIT
"""Losses of a step's pairs: forwards cut by a token budget, the reference from its cache, the metrics of a step.

Legend: N pairs of a step or of a forward; K answers of each that the loss reads.
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

from data.pairs.tokens import Continuation
from finetune.run.batches import Pair, is_given, n_scored
from finetune.run.policy import Policy
from finetune.run.processes import Processes, reshard
from finetune.run.reference_cache import ReferenceCache
from finetune.tree.prefix_tree import build_tree, cut_by_tokens

# Devices that wait for Python where forwards are short.
WAITING = ("cuda",)


class StepMetrics:
    """Metrics of one optimizer step on one process, named as torchtune names them: sums and what they are over."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.n_tokens = 0  # of whole sequences, without padding; a shared prompt counts for each answer

    def add(self, pairs: Sequence[Sequence[Continuation]], values: dict[str, Tensor], n_losses: int) -> None:
        """Add one forward's pairs: each tensor's values, and the losses as parts of a mean over ``n_losses``."""
        sums = torch.stack([value.detach().double().sum() for value in values.values()]).tolist()  # one transfer
        for (name, value), total in zip(values.items(), sums):
            self.sums[name] = self.sums.get(name, 0.0) + total
            self.counts[name] = self.counts.get(name, 0) + (n_losses if name == "loss" else value.numel())
        self.n_tokens += sum(len(answer.tokens) for pair in pairs for answer in pair)


def mean_metrics(parts: Sequence[StepMetrics]) -> dict[str, float]:
    """Return each metric's mean over all of a step, whichever processes scored its pairs."""
    means = {}
    for name in dict.fromkeys(name for part in parts for name in part.sums):
        n = sum(part.counts.get(name, 0) for part in parts)
        if n:
            means[name] = sum(part.sums.get(name, 0.0) for part in parts) / n
    if "rewards/margins" not in means and {"rewards/chosen", "rewards/rejected"} <= means.keys():  # single answers
        means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
    return means


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return peak memory in GiB: of the CUDA device, else this process's resident set."""
    if device.type == "cuda":
        return training.get_memory_stats(device=device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return {"peak_memory_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}


class Scores(NamedTuple):
    """The answers of N pairs that a loss reads: chosen, or chosen and rejected."""

    log_probs: Tensor  # [N, K], nats
    lengths: Tensor  # [N, K], scored tokens; 0 where a row has no such answer


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
        self._unpaired = getattr(loss_fn, "unpaired", False)
        self._chosen_only = getattr(loss_fn, "chosen_only", False)

    def accumulate(self, pairs: Sequence[Pair], mismatched: Sequence[Pair] = (), train: bool = True) -> StepMetrics:
        """Score N pairs, the same on every process and of the same weight each; return this process's part.

        ``mismatched`` are their prompts with answers to others, for an unpaired loss. ``train`` adds the gradient of
        the mean loss to the adapter's; False only measures, with dropout off.
        """
        reference = None if self._reference_free else torch.tensor(self.reference_values(pairs))
        kl = self._kl(mismatched) if self._unpaired else 0.0
        n_losses = self._count(pairs)
        metrics = StepMetrics()
        self._policy.train(train)
        with torch.set_grad_enabled(train):
            for turn in self._processes.turns(cut_by_tokens(list(map(self._read, pairs)), self._max_tokens)):
                part = [pairs[k] for k in turn.piece]
                known = None if reference is None else reference[turn.piece].to(self._processes.device)
                losses, values = self._losses(self._score(part), known, kl)
                if train:
                    # FSDP takes the mean over processes; the loss is a mean over all of the step.
                    share = self._processes.n / n_losses if turn.counts else 0.0
                    if isinstance(self._policy, FSDPModule):
                        self._policy.set_requires_gradient_sync(turn.last)
                    (losses.sum() * share).backward()
                if turn.counts:
                    metrics.add([self._read(pair) for pair in part], {"loss": losses, **values}, self._count(part))
        self._policy.train()
        reshard(self._policy)
        return metrics

    def _read(self, pair: Pair) -> Sequence[Continuation]:
        """Return the answers of a pair that the loss reads."""
        return pair[:1] if self._chosen_only else pair

    def _count(self, pairs: Sequence[Pair]) -> int:
        """Return what a mean loss is over: pairs, answers of an unpaired loss, tokens of a supervised one."""
        if self._chosen_only:
            return sum(n_scored(chosen) for chosen, _ in pairs)
        return sum(is_given(answer) for pair in pairs for answer in pair) if self._unpaired else len(pairs)

    def _losses(self, scores: Scores, reference: Tensor | None, kl: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses of one forward, and what is logged beside them."""
        policy = self._per_answer(scores.log_probs, scores.lengths)
        if self._chosen_only:
            return self._loss_fn(policy[:, 0]), {"log_probs/chosen": scores.log_probs[:, 0]}
        known = None if reference is None else self._per_answer(reference, scores.lengths)
        if self._unpaired:
            given = scores.lengths > 0
            good = torch.tensor([True, False], device=given.device).expand_as(given)[given]
            losses, rewards = self._loss_fn(policy[given], None if known is None else known[given], good, kl)
            by_side = {"rewards": rewards, "log_probs": policy[given]}
            sides = {"chosen": good, "rejected": ~good}
            logged = {f"{name}/{side}": by_side[name][these] for name in by_side for side, these in sides.items()}
            return losses, {**logged, "kl": policy.new_tensor([kl])}
        references = (None, None) if known is None else known.unbind(1)
        losses, chosen, rejected = self._loss_fn(*policy.unbind(1), *references)
        return losses, {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).float(),
            "rewards/margins": chosen - rejected,
            "log_probs/chosen": scores.log_probs[:, 0],
            "log_probs/rejected": scores.log_probs[:, 1],
        }

    def _per_answer(self, log_probs: Tensor, lengths: Tensor) -> Tensor:
        """Return values as means over an answer's tokens where the loss asks for them, ``[N, K]``."""
        return log_probs / lengths if self._length_normalized else log_probs

    @torch.no_grad()
    def _kl(self, mismatched: Sequence[Pair]) -> float:
        """Return how far the policy is from its reference on answers to other prompts: their mean log-ratio, from 0."""
        reference = torch.tensor(self.reference_values(mismatched))
        total, n = 0.0, 0
        self._policy.eval()
        for turn in self._processes.turns(cut_by_tokens(mismatched, self._max_tokens)):
            scores = self._score([mismatched[k] for k in turn.piece])
            if turn.counts:  # a missing answer has 0 on both sides
                total += float((scores.log_probs.cpu().double() - reference[turn.piece]).sum())
                n += int((scores.lengths > 0).sum())
        totals, ns = zip(*self._processes.gather((total, n)))
        return max(0.0, sum(totals) / sum(ns))

    def _score(self, pairs: Sequence[Pair]) -> Scores:
        tree = build_tree([answer for pair in pairs for answer in self._read(pair)])
        lengths = torch.tensor((0, *tree.answer_ends)).diff()
        with self._activations:
            log_probs = self._policy(tree.to(self._processes.device))
        return Scores(log_probs.view(len(pairs), -1), lengths.to(self._processes.device).view(len(pairs), -1))

    def prepare(self, pairs: Sequence[Pair]) -> None:
        """Compute the reference of all of a run's pairs before its first step, on devices where large forwards pay.

        Its values then depend neither on the steps nor on where the run was interrupted.
        """
        if self._processes.device.type in WAITING and not self._reference_free:
            self.reference_values(pairs, self._max_tokens)

    @torch.no_grad()
    def reference_values(self, pairs: Sequence[Pair], max_tokens: int = 1) -> list[tuple[float, float]]:
        """Return the base's log-probabilities of each pair, computed where the first process's cache has none.

        They are computed in forwards of at most ``max_tokens`` tokens: with 1 each pair is by itself, and its values
        depend on no other. Where forwards begin depends on all pairs and not on what is known of them, so that an
        interruption changes no value.
        """
        first = self._processes.first
        known = self._processes.from_first([self._reference.get(*pair) for pair in pairs] if first else [])
        values = {k: value for k, value in enumerate(known) if value is not None}
        if len(values) < len(pairs):
            pieces = [piece for piece in cut_by_tokens(pairs, max_tokens) if not values.keys() >= set(piece)]
            total = sum(map(len, pieces))
            self._policy.eval()
            bar = tqdm(total=total, desc="reference", leave=False, disable=total < 16 or not first)
            with self._policy.without_adapters(), bar:
                for turn in self._processes.turns(pieces):
                    found = self._score([pairs[k] for k in turn.piece]).log_probs.tolist()
                    scored = dict(zip(turn.piece, map(tuple, found))) if turn.counts else {}
                    for k, value in [item for part in self._processes.gather(scored) for item in part.items()]:
                        bar.update()
                        if self._reference.get(*pairs[k]) is None:  # of two equal pairs the first one's count
                            self._reference.put(*pairs[k], value)
                        values.setdefault(k, self._reference.get(*pairs[k]) or value)
        return [values[k] for k in range(len(pairs))]
