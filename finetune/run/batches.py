# SPDX-License-Identifier: MIT
"""The pairs of a run, which of them are held out, and which each step takes."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig
from torch import nn
from torchtune import config
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX, Message
from torchtune.datasets import ConcatDataset
from torchtune.modules.transforms.tokenizers import ModelTokenizer
from tqdm import tqdm

from data.pairs.records import row_list
from data.pairs.tokens import Continuation, no_answer
from finetune.tree.prefix_tree import count_tokens

Pair = tuple[Continuation, Continuation]  # chosen, rejected
# of torchtune's DPO datasets: chosen_input_ids, chosen_labels, and of rejected; of supervised ones: tokens, labels
Item = Mapping[str, Sequence[int]]


class PairSet(NamedTuple):
    """Tokenized pairs and where they come from."""

    pairs: list[Pair]
    names: list[Any]  # the row of each pair in its file where the dataset knows it, else its index
    origin: str  # the data's source, for messages
    mismatched: Sequence[Pair] = ()  # each prompt with answers to another, where a loss compares with them

    def take(self, indices: Iterable[int]) -> "PairSet":
        """Return some of the pairs."""
        indices = list(indices)
        pairs, names, others = ([part[k] for k in indices] if part else [] for part in (self[0], self[1], self[3]))
        return PairSet(pairs, names, self.origin, others)

    def prompts(self) -> list[bytes]:
        """Return a key for each pair's prompt: the tokens before the first scored one."""
        given = [chosen if is_given(chosen) else rejected for chosen, rejected in self.pairs]
        return [np.asarray(answer.tokens[: first_scored(answer)], dtype=np.int64).tobytes() for answer in given]

    def with_mismatched(self) -> "PairSet":
        """Put each prompt beside the answers of the next row of another prompt, for the KL term of KTO.

        A row's other answers are the same in every epoch, so that their reference values are computed once.
        """
        keys, n = self.prompts(), len(self.pairs)
        if len(set(keys)) < 2:
            raise ValueError(
                f"{self.origin}: a part of {n} pairs has one prompt; this loss compares with answers to other prompts: "
                "give more of them, or (held out) a larger validation_share"
            )
        pairs = []
        for k, pair in enumerate(self.pairs):
            other = self.pairs[next(j % n for j in range(k + 1, k + n) if keys[j % n] != keys[k])]
            spare = next(filter(is_given, other))
            chosen, rejected = (answer if is_given(answer) else spare for answer in other)
            pairs.append((_answer(pair[0], chosen), _answer(pair[1], rejected)))
        return self._replace(mismatched=pairs)

    def check_answers(self, loss_fn: nn.Module) -> None:
        """Refuse rows without an answer that the loss reads."""
        n_needed = 1 if getattr(loss_fn, "chosen_only", False) else 2
        without = [name for name, pair in zip(self.names, self.pairs) if not all(map(is_given, pair[:n_needed]))]
        if without and not getattr(loss_fn, "unpaired", False):
            raise ValueError(
                f"{self.origin}: {len(without)} of {len(self.pairs)} rows have one answer ({row_list(without)}), and "
                f"{type(loss_fn).__name__} reads {'the chosen one' if n_needed == 1 else 'two'}; use "
                "loss=finetune.losses.KTOLoss, or pairs"
            )

    def check_lengths(self, context: int | None) -> None:
        """Refuse pairs that are longer than the model's context."""
        others = self.mismatched or self.pairs
        lengths = [max(len(answer.tokens) for answer in (*pair, *other)) for pair, other in zip(self.pairs, others)]
        too_long = [name for name, n in zip(self.names, lengths) if context is not None and n > context]
        if too_long:
            hint = ""
            if self.mismatched and context:
                hint = f" (this loss reads each prompt with another row's answer too: {context // 2} tokens always fit)"
            raise ValueError(
                f"{self.origin}: {len(too_long)} of {len(self.pairs)} pairs have more tokens than the model's context "
                f"of {context} (longest {max(lengths)}; {row_list(too_long)}); set dataset.max_seq_len={context} or "
                f"less, and dataset.too_long to what is done with them{hint}"
            )

    def without_headers(self, tokenizer: ModelTokenizer) -> "PairSet":
        """Return the pairs with the answers alone scored: some tokenizers count the header of a turn with its text.

        That header is what any two answers have in common.
        """
        scored = []
        for text in ("Yes", "No"):
            turns = [Message(role="user", content=".", masked=True), Message(role="assistant", content=text)]
            scored.append([token for token, masked in zip(*tokenizer.tokenize_messages(turns)) if not masked])
        n_header = next((k for k, (a, b) in enumerate(zip(*scored)) if a != b), 0)
        return self._replace(pairs=[(_mask(chosen, n_header), _mask(other, n_header)) for chosen, other in self.pairs])

    def fingerprint(self) -> str:
        """Return a hash of all token ids and labels in order."""
        digest = hashlib.blake2b(digest_size=16)
        for answer in (answer for pair in self.pairs for answer in pair):
            digest.update(np.asarray([answer.tokens, answer.labels], dtype=np.int64).tobytes())
        return digest.hexdigest()


def first_scored(answer: Continuation) -> int:
    """Return the place of an answer's first scored token."""
    return int(np.argmax(np.asarray(answer.labels) != CROSS_ENTROPY_IGNORE_IDX))


def n_scored(answer: Continuation) -> int:
    """Return an answer's scored tokens; the first one of a sequence never is."""
    return int((np.asarray(answer.labels[1:]) != CROSS_ENTROPY_IGNORE_IDX).sum())


def is_given(answer: Continuation) -> bool:
    """Say whether there is an answer: one that a row lacks has no scored token."""
    return n_scored(answer) > 0


def _answer(answer: Continuation, other: Continuation) -> Continuation:
    """Put another answer in the place of one that is given, behind its prompt."""
    if not is_given(answer):
        return answer
    start, other_start = first_scored(answer), first_scored(other)
    return Continuation(*(np.append(a[:start], b[other_start:]) for a, b in zip(answer, other)))


def _mask(answer: Continuation, n: int) -> Continuation:
    """Take the first scored tokens of an answer out of the scored ones."""
    labels = np.array(answer.labels)
    labels[np.flatnonzero(labels != CROSS_ENTROPY_IGNORE_IDX)[:n]] = CROSS_ENTROPY_IGNORE_IDX
    return Continuation(answer.tokens, labels)


def tokenize_pairs(dataset: Sequence[Item]) -> PairSet:
    """Run the transforms of a dataset once; an empty one is refused."""
    n_pairs = len(dataset)
    origin = getattr(dataset, "origin", "the dataset (counted from 0)")
    if not n_pairs:
        raise ValueError(f"{origin} has no pairs; check the dataset's source, data_files and split")

    def answer(item: Item, *fields: str) -> Continuation:
        # int32 arrays: lists of Python integers would take ten times the memory
        return Continuation(*(np.asarray(item[field], dtype=np.int32) for field in fields))

    def pair(item: Item) -> Pair:
        if "tokens" in item:  # of a supervised set
            chosen = answer(item, "tokens", "labels")
            return chosen, no_answer(chosen)
        return (
            answer(item, "chosen_input_ids", "chosen_labels"), answer(item, "rejected_input_ids", "rejected_labels"),
        )  # fmt: skip

    pairs = [pair(dataset[k]) for k in tqdm(range(n_pairs), desc="pairs", disable=n_pairs < 5000)]
    return PairSet(pairs, list(getattr(dataset, "rows", range(n_pairs))), origin)


def load_pairs(cfg_dataset: DictConfig | ListConfig, tokenizer: ModelTokenizer) -> PairSet:
    """Build and tokenize one dataset component, or several one after the other."""
    parts = cfg_dataset if isinstance(cfg_dataset, ListConfig) else [cfg_dataset]
    datasets = [config.instantiate(part, tokenizer=tokenizer) for part in parts]
    return tokenize_pairs(datasets[0] if len(datasets) == 1 else ConcatDataset(datasets=datasets))


def split_by_prompt(pairs: PairSet, share: float) -> tuple[PairSet, PairSet]:
    """Hold out a share of the prompts with all their pairs; return the pairs to train on and those held out.

    The share is met on average, with at least one prompt on each side. A hash of the prompt alone decides, neither the
    seed nor the other prompts: a prompt that one run holds out is trained on by no other run with this share.
    """
    keys = pairs.prompts()
    place = {key: int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) / 2**64 for key in set(keys)}
    ranked = sorted(place, key=place.__getitem__)
    if not 0 < share < 1 or len(ranked) < 2:
        raise ValueError(
            f"validation_share={share} of {len(ranked)} prompts; use a share between 0 and 1 of at least 2 prompts"
        )
    n_held = sum(place[key] < share for key in ranked)
    held_out = set(ranked[: min(max(1, n_held), len(ranked) - 1)])
    train = pairs.take(k for k, key in enumerate(keys) if key not in held_out)
    return train, pairs.take(k for k, key in enumerate(keys) if key in held_out)


@lru_cache(maxsize=1)  # an epoch's order is asked for at every step
def _shuffled(n: int, seed: int) -> list[int]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()


class PairBatches:
    """Deterministic batches: the order depends on seed and epoch only, and nothing is dropped.

    The last step of an epoch takes the rest, so it may be smaller.
    """

    def __init__(
        self, pairs: PairSet, pairs_per_step: int, seed: int, shuffle: bool, max_steps_per_epoch: int | None
    ) -> None:
        self.set, self._pairs_per_step, self._seed, self._shuffle = pairs, pairs_per_step, seed, shuffle
        steps = -(-len(pairs.pairs) // pairs_per_step)
        self.steps_per_epoch = min(steps, max_steps_per_epoch or steps)

    def rows(self, epoch: int, step: int) -> list[int]:
        """Return the indices of the pairs of one step."""
        n_pairs, start = len(self.set.pairs), step * self._pairs_per_step
        order = _shuffled(n_pairs, (self._seed << 20) + epoch) if self._shuffle else range(n_pairs)
        return list(order[start : start + self._pairs_per_step])

    def used(self, epochs: int) -> PairSet:
        """Return the pairs that the first so many epochs take, in the order of the set."""
        steps = product(range(epochs), range(self.steps_per_epoch))
        return self.set.take(sorted({row for at in steps for row in self.rows(*at)}))

    def name_rows(self, indices: Sequence[int]) -> str:
        """Return the pairs' rows and their origin, for messages."""
        return f"{[self.set.names[k] for k in indices]} of {self.set.origin}"

    def count_tokens(self) -> int:
        """Return the merged tokens of an epoch's pairs (of as many pairs of mean size, where steps are capped)."""
        n_pairs = len(self.set.pairs)
        n_tokens = sum(count_tokens([answer.tokens for answer in pair]) for pair in self.set.pairs)
        return n_tokens * min(n_pairs, self.steps_per_epoch * self._pairs_per_step) // n_pairs

    def describe(self) -> str:
        """Return one line: how many pairs from where, and how many steps an epoch has."""
        n_pairs = len(self.set.pairs)
        unused = n_pairs - self.steps_per_epoch * self._pairs_per_step
        capped = f"; max_steps_per_epoch leaves {unused} pairs unused in each epoch" if unused > 0 else ""
        return (
            f"{n_pairs} pairs from {self.set.origin} (BLAKE2b of their token ids {self.set.fingerprint()}), "
            f"{self.steps_per_epoch} steps of {self._pairs_per_step} pairs an epoch{capped}"
        )
