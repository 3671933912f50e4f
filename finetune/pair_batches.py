# SPDX-License-Identifier: MIT
"""The pairs of a run, and which of them each step takes."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from finetune.prefix_tree import Continuation


class PairBatches:
    """Deterministic batches: the order depends on seed and epoch only, and nothing is dropped.

    The last step of an epoch takes what is left, so it may be smaller.

    Args:
        dataset: Items with torchtune's keys ``chosen_input_ids, chosen_labels, rejected_input_ids,
            rejected_labels``.
        pairs_per_step: Pairs in one optimizer step.
        seed: Seed of the order.
        shuffle: False keeps the dataset's order.
        max_steps_per_epoch: Stop each epoch after this many steps; None: use all pairs.

    Raises:
        ValueError: If the dataset is empty or ``max_steps_per_epoch`` is not positive.
    """

    def __init__(
        self, dataset: Dataset, pairs_per_step: int, seed: int, shuffle: bool, max_steps_per_epoch: int | None
    ) -> None:
        if max_steps_per_epoch is not None and max_steps_per_epoch < 1:
            raise ValueError(f"max_steps_per_epoch={max_steps_per_epoch}; use a positive number or null")
        self._dataset = dataset
        self.pairs: list[tuple[Continuation, Continuation]] = []
        for k in tqdm(range(len(dataset)), desc="pairs", disable=len(dataset) < 5000):
            item = dataset[k]
            self.pairs.append(
                tuple(
                    # int32 arrays: lists of Python integers would take ten times the memory
                    Continuation(*(np.asarray(item[f"{side}_{k}"], dtype=np.int32) for k in ("input_ids", "labels")))
                    for side in ("chosen", "rejected")
                )
            )
        if not self.pairs:
            raise ValueError("the dataset has no pairs; check dataset.source, data_files and split")
        self._pairs_per_step = pairs_per_step
        self._seed, self._shuffle = seed, shuffle
        steps = -(-len(self.pairs) // pairs_per_step)
        self.steps_per_epoch = min(steps, max_steps_per_epoch or steps)
        self._order: tuple[int, list[int]] = (-1, [])

    def rows(self, epoch: int, step: int) -> list[int]:
        """Return the indices of the pairs of one step."""
        if self._order[0] != epoch:
            order = list(range(len(self.pairs)))
            if self._shuffle:
                generator = torch.Generator().manual_seed((self._seed << 20) + epoch)
                order = torch.randperm(len(self.pairs), generator=generator).tolist()
            self._order = (epoch, order)
        start = step * self._pairs_per_step
        return self._order[1][start : start + self._pairs_per_step]

    def name_rows(self, indices: Sequence[int]) -> str:
        """Return the pairs' rows in their file where the dataset knows them, else their indices."""
        rows = getattr(self._dataset, "rows", None)
        names = [rows[k] for k in indices] if rows is not None else list(indices)
        return f"{names} of {getattr(self._dataset, 'origin', 'the dataset (counted from 0)')}"

    def fingerprint(self) -> str:
        """Return a hash of all token ids and labels in order."""
        digest = hashlib.blake2b(digest_size=16)
        for answer in (a for pair in self.pairs for a in pair):
            digest.update(np.asarray([answer.tokens, answer.labels], dtype=np.int64).tobytes())
        return digest.hexdigest()

    def describe(self) -> str:
        """Return one line: how many pairs from where, and how many steps an epoch has."""
        unused = len(self.pairs) - self.steps_per_epoch * self._pairs_per_step
        capped = f"; max_steps_per_epoch leaves {unused} pairs unused in each epoch" if unused > 0 else ""
        return (
            f"{len(self.pairs)} pairs from {getattr(self._dataset, 'origin', 'the dataset')}, "
            f"{self.steps_per_epoch} steps of {self._pairs_per_step} pairs an epoch{capped}"
        )
