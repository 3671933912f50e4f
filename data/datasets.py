# SPDX-License-Identifier: MIT
"""The datasets that YAML names: ``dataset=data.datasets.politune_left``, every argument spelled out.

Builders take the tokenizer first, as torchtune's recipes give it. Those that end in ``_sft`` give the chosen
answers alone to ``lora_finetune_single_device``; all others give pairs to a DPO recipe.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from torchtune.modules.transforms.tokenizers import ModelTokenizer

from data.mixtures import mirrored, mixture, politune_mixture
from data.pairs.doses import draw_subset, keep_where
from data.pairs.prompt_templates import AlpacaInstructTemplate, Template
from data.pairs.records import OTHER_SIDE, read_pairs
from data.pairs.rows import load_rows
from data.pairs.tokens import ChosenAnswers, PreferencePairs

__all__ = [
    "AlpacaInstructTemplate",
    "chosen_answers",
    "mirrored",
    "mirrored_left",
    "mirrored_left_sft",
    "mirrored_right",
    "mirrored_right_sft",
    "mixture",
    "politune_left",
    "politune_left_sft",
    "politune_mixture",
    "politune_right",
    "politune_right_sft",
    "preference_pairs",
]

SHIPPED_SET = "data/mirrored/pairs.jsonl"


def preference_pairs(
    tokenizer: ModelTokenizer,
    *,
    source: str,
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
    build: type[PreferencePairs] | type[ChosenAnswers] = PreferencePairs,
) -> PreferencePairs | ChosenAnswers:
    """Build preference pairs from any set with the columns ``prompt``, ``chosen``, ``rejected``.

    Args:
        tokenizer: The model's tokenizer.
        source: A dataset repository of the Hub, or ``json``, ``csv``, ``parquet`` with ``data_files``.
        data_files: Path, list of paths or glob.
        split: Split to load.
        revision: Branch, tag or commit of the repository.
        column_map: From ``prompt``, ``chosen``, ``rejected`` to the names that the columns have. Exchanging
            the last two flips the set's side.
        prompt_template: See :class:`~data.pairs.tokens.PreferencePairs`; None uses the tokenizer's alone.
        max_seq_len: Most tokens of prompt and answer together; None takes the tokenizer's.
        too_long: ``drop``, ``truncate`` or ``error``; always counted and logged.
        invalid_rows: ``error``, or ``drop`` to leave invalid rows out, counted and logged.
        where: Train only on rows with these values, for example ``{axis: economic}``; counted and logged.
        subset: Train on so many pairs (of those, ``too_long`` may drop some). A smaller subset lies in a larger one.
        seed: Of the subset; the same texts are drawn whichever side is chosen.
        build: What is made of the pairs; not for YAML, which names :data:`chosen_answers`.

    Returns:
        The pairs, in file order.

    Raises:
        ConnectionError: If the Hub cannot be reached.
        FileNotFoundError: If the repository or a file does not exist.
        ValueError: If the data, its columns, its rows or its lengths are not as asked.

    Example:
        >>> # dataset=data.datasets.preference_pairs dataset.source=csv dataset.data_files=my.csv
        >>> preference_pairs(tokenizer, source="csv", data_files="my.csv", column_map={"prompt": "question"})
    """
    rows, origin = load_rows(source, data_files, split, revision)
    pairs = keep_where(read_pairs(rows, origin, column_map, invalid_rows), rows, where, origin)
    pairs = draw_subset(pairs, subset, seed, origin)
    return build(pairs, origin, tokenizer, prompt_template, max_seq_len, too_long)


# The chosen answers alone; arguments as those of :func:`preference_pairs`.
chosen_answers = partial(preference_pairs, build=ChosenAnswers)

# PoliTune's published sets (Agiza, Mostagir and Reda 2024); arguments as those of the builder that is named.
politune_left = partial(preference_pairs, source="scale-lab/politune-left")
politune_right = partial(preference_pairs, source="scale-lab/politune-right")
politune_left_sft = partial(chosen_answers, source="scale-lab/politune-left")
politune_right_sft = partial(chosen_answers, source="scale-lab/politune-right")


def _shipped_pairs(
    tokenizer: ModelTokenizer,
    *,
    side: str,
    build: type[PreferencePairs] | type[ChosenAnswers],
    prompt_template: Template = None,
    max_seq_len: int | None = None,
    too_long: str = "drop",
    invalid_rows: str = "error",
    where: Mapping[str, Any] | None = None,
    subset: int | None = None,
    seed: int = 0,
) -> PreferencePairs | ChosenAnswers:
    lines = files("data").joinpath("mirrored", "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    pairs = read_pairs(rows, SHIPPED_SET, {"chosen": side, "rejected": OTHER_SIDE[side]}, invalid_rows)
    pairs = draw_subset(keep_where(pairs, rows, where, SHIPPED_SET), subset, seed, SHIPPED_SET)
    return build(pairs, SHIPPED_SET, tokenizer, prompt_template, max_seq_len, too_long)


# The shipped set, one answer or the other chosen; arguments as those of :func:`preference_pairs` but for the source.
mirrored_left = partial(_shipped_pairs, side="left", build=PreferencePairs)
mirrored_right = partial(_shipped_pairs, side="right", build=PreferencePairs)
mirrored_left_sft = partial(_shipped_pairs, side="left", build=ChosenAnswers)
mirrored_right_sft = partial(_shipped_pairs, side="right", build=ChosenAnswers)
