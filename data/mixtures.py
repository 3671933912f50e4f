# SPDX-License-Identifier: MIT
"""Builders for the other side of a set and for mixtures of both; YAML names them in ``data.datasets``."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torchtune.modules.transforms.tokenizers import ModelTokenizer

from data.pairs.doses import draw_subset, keep_where, mirror_pairs, mix_pairs, read_side
from data.pairs.prompt_templates import Template
from data.pairs.rows import load_rows
from data.pairs.tokens import PreferencePairs


def mirrored(
    tokenizer: ModelTokenizer,
    *,
    source: str,
    side: str | None = None,
    data_files: str | Sequence[str] | None = None,
    split: str = "train",
    revision: str | None = None,
    column_map: Mapping[str, str] | None = None,
    prompt_template: Template = None,
    max_seq_len: int | None = None,
    too_long: str = "drop",
    invalid_rows: str = "error",
    where: Mapping[str, Any] | None = None,
    subset: int | None = None,
    seed: int = 0,
) -> PreferencePairs:
    """Build the mirror of any set: the other answer chosen; arguments as ``preference_pairs``, and ``side``.

    ``side`` is ``left`` or ``right`` for a set whose column ``side`` says what its rows choose: each prompt comes once,
    that side chosen. None flips every row, by its ``mirror_id`` or by exchanging its answers.

    Example:
        >>> # dataset=data.datasets.mirrored dataset.source=json dataset.data_files=left.jsonl
        >>> mirrored(tokenizer, source="scale-lab/politune-left")  # its prompts, the right answer chosen
    """
    rows, origin = load_rows(source, data_files, split, revision)
    pairs = keep_where(mirror_pairs(rows, origin, column_map, side, invalid_rows), rows, where, origin)
    pairs = draw_subset(pairs, subset, seed, origin)
    return PreferencePairs(pairs, origin, tokenizer, prompt_template, max_seq_len, too_long)


def mixture(
    tokenizer: ModelTokenizer,
    *,
    left: Mapping[str, Any],
    right: Mapping[str, Any] | None = None,
    right_share: float = 0.5,
    prompt_template: Template = None,
    max_seq_len: int | None = None,
    too_long: str = "drop",
    invalid_rows: str = "error",
    subset: int | None = None,
    seed: int = 0,
) -> PreferencePairs:
    """Build pairs of which a share chooses the right answer, on prompts that are the same at every share.

    ``left`` is a set whose chosen answers are the left ones: ``source`` and, as ``preference_pairs`` takes them,
    ``data_files``, ``split``, ``revision``, ``column_map``, ``where``. ``right`` is the same for a set that chooses
    right; its prompts join those of ``left``. ``right_share`` of all prompts, 0 to 1, choose right; nested and seeded.

    Example:
        >>> # dataset=data.datasets.politune_mixture dataset.right_share=0.25 dataset.subset=500
        >>> mixture(tokenizer, left={"source": "json", "data_files": "left.jsonl"}, right_share=1.0)
    """
    left_pairs, origin, n_left = read_side("left", left, invalid_rows)
    right_pairs, other, _ = read_side("right", right, invalid_rows) if right else ([], None, 0)
    if other:  # the second file's rows are numbered on
        right_pairs, origin = [pair._replace(row=pair.row + n_left) for pair in right_pairs], f"{origin}, {other}"
    pairs = draw_subset(mix_pairs(left_pairs, right_pairs, right_share, seed), subset, seed, origin)
    return PreferencePairs(pairs, origin, tokenizer, prompt_template, max_seq_len, too_long)


# The comparison that the paper did not run: both published sets on all of their prompts. right_share=0 flips the rows
# of the right set, right_share=1 those of the left one.
politune_mixture = partial(
    mixture, left={"source": "scale-lab/politune-left"}, right={"source": "scale-lab/politune-right"}
)
