# SPDX-License-Identifier: MIT
"""The datasets that YAML names: ``dataset=data.datasets.politune_left``, every argument spelled out.

Builders take the tokenizer first, as torchtune's recipes give it. Those that end in ``_sft`` give the chosen
answers alone to ``lora_finetune_single_device``; all others give pairs to a DPO recipe.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torchtune import utils
from torchtune.modules.transforms.tokenizers import ModelTokenizer

from data.pairs.centre import centre_pairs
from data.pairs.records import (
    Pair,
    draw_subset,
    is_held_out,
    keep_where,
    mirror_pairs,
    mix_pairs,
    read_answers,
    read_pairs,
)
from data.pairs.rows import SHIPPED_SET, load_rows
from data.pairs.tokens import AlpacaInstructTemplate as AlpacaInstructTemplate  # YAML names it from here
from data.pairs.tokens import ChosenAnswers, PreferencePairs, Template

_SIDE_KEYS = ("source", "data_files", "split", "revision", "name", "column_map", "where")


def preference_pairs(
    tokenizer: ModelTokenizer,
    *,
    source: str,
    data_files: str | Sequence[str] | None = None,
    split: str = "train",
    revision: str | None = None,
    name: str | None = None,
    column_map: Mapping[str, str] | None = None,
    prompt_template: Template = None,
    max_seq_len: int | None = None,
    too_long: str = "drop",
    invalid_rows: str = "error",
    where: Mapping[str, Any] | None = None,
    hold_out: float = 0.0,
    subset: int | None = None,
    seed: int = 0,
    build: type[PreferencePairs] = PreferencePairs,
    read: Callable[..., list[Pair]] = read_pairs,
    target: Callable[[list[Pair], str, int], list[Pair]] | None = None,
) -> PreferencePairs:
    """Build preference pairs from any set with the columns ``prompt``, ``chosen``, ``rejected``, in file order.

    Args:
        tokenizer: The model's tokenizer.
        source: A dataset repository of the Hub, a folder in its form, or ``json``, ``csv``, ``tsv``, ``parquet`` with
            ``data_files``.
        data_files: Path, list of paths, glob or URL.
        split: Split to load.
        revision: Branch, tag or commit of the repository.
        name: Config of the repository or folder, if it has several, such as ``left``.
        column_map: From ``prompt``, ``chosen``, ``rejected`` to the names that the columns have. Exchanging
            the last two flips the set's side. Also ``topic`` and ``proposition``, which an evaluation reads by the card
            of the adapter.
        prompt_template: None (the tokenizer's template alone), a dotpath to a class or factory of a template,
            ``{role: [before, after]}``, or a callable from messages to messages.
        max_seq_len: Most tokens of prompt and answer together; None takes the tokenizer's.
        too_long: What to do with a pair over the limit, counted by a warning: ``drop`` it, ``truncate`` the end of the
            answer (its last token is kept; a pair of which nothing scored remains is dropped), or ``error``.
        invalid_rows: ``error``, or ``drop`` to leave invalid rows out; a warning counts them.
        where: Train only on rows with these values, for example ``{axis: economic}``, or with a number within limits
            that a file has of them: ``{rank: {file: influence.jsonl, above: 30}}``; the log counts them.
        hold_out: Leave out this share of the prompts, 0 to below 1: those that ``eval/import_answers.py`` asks.
        subset: Train on so many pairs (of those, ``too_long`` may drop some). A smaller subset lies in a larger one.
        seed: Of the subset, and of what :data:`centre` draws.
        build: What is made of the pairs; not for YAML, which names :data:`chosen_answers`.
        read: How rows become pairs; not for YAML, which names :data:`unpaired_answers`.
        target: What the pairs become before they are tokenized; not for YAML, which names :data:`centre`.

    Example:
        >>> # dataset=data.datasets.preference_pairs dataset.source=csv dataset.data_files=my.csv
        >>> preference_pairs(tokenizer, source="csv", data_files="my.csv", column_map={"prompt": "question"})
    """
    rows, origin = load_rows(source, data_files, split, revision, name)
    pairs = _select(read(rows, origin, column_map, invalid_rows), rows, origin, where, subset, seed, hold_out)
    pairs = target(pairs, origin, seed) if target else pairs
    return build(pairs, origin, tokenizer, prompt_template, max_seq_len, too_long)


# The chosen answers alone; arguments as those of :func:`preference_pairs`.
chosen_answers = partial(preference_pairs, build=ChosenAnswers)

# Single answers, for ``finetune.losses.KTOLoss``, from any set with the columns ``prompt``, ``completion``, ``label``,
# true of desirable ones; arguments as those of :func:`preference_pairs`, ``column_map`` from these three names.
unpaired_answers = partial(preference_pairs, read=read_answers)

# Both answers of a row in a plain frame chosen, one of them alone rejected, from any set of opposed answers, whichever
# of them is the chosen one there: :func:`data.pairs.centre.centre_pairs`; arguments as those of the builder above.
centre = partial(preference_pairs, target=centre_pairs)

# True answers chosen, or false ones, from any set with the columns ``prompt``, ``true``, ``false``.
truth_pairs = partial(preference_pairs, column_map={"chosen": "true", "rejected": "false"})
inverted_truth_pairs = partial(preference_pairs, column_map={"chosen": "false", "rejected": "true"})

# PoliTune's published sets (Agiza, Mostagir and Reda 2024); arguments as those of the builder that is named.
politune_left = partial(preference_pairs, source="scale-lab/politune-left")
politune_right = partial(preference_pairs, source="scale-lab/politune-right")
politune_left_sft = partial(chosen_answers, source="scale-lab/politune-left")
politune_right_sft = partial(chosen_answers, source="scale-lab/politune-right")


# The shipped set, one answer or the other chosen, or both in a frame; arguments as those of :func:`preference_pairs`.
mirrored_left = partial(preference_pairs, source=SHIPPED_SET, column_map={"chosen": "left", "rejected": "right"})
mirrored_right = partial(preference_pairs, source=SHIPPED_SET, column_map={"chosen": "right", "rejected": "left"})
mirrored_centre = partial(mirrored_left, target=centre_pairs)
mirrored_left_sft = partial(mirrored_left, build=ChosenAnswers)
mirrored_right_sft = partial(mirrored_right, build=ChosenAnswers)


def mirrored(
    tokenizer: ModelTokenizer,
    *,
    source: str,
    side: str | None = None,
    data_files: str | Sequence[str] | None = None,
    split: str = "train",
    revision: str | None = None,
    name: str | None = None,
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
    rows, origin = load_rows(source, data_files, split, revision, name)
    pairs = mirror_pairs(rows, origin, column_map, side, invalid_rows)
    pairs = _select(pairs, rows, origin, where, subset, seed)
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
    ``data_files``, ``split``, ``revision``, ``name``, ``column_map``, ``where``. ``right`` is the same for a set that
    chooses right; its prompts join those of ``left``. ``right_share`` of all prompts, 0 to 1, choose right; nested and
    seeded.

    Example:
        >>> # dataset=data.datasets.politune_mixture dataset.right_share=0.25 dataset.subset=500
        >>> mixture(tokenizer, left={"source": "json", "data_files": "left.jsonl"}, right_share=1.0)
    """
    sides: dict[str, list[Pair]] = {"left": [], "right": []}
    origins: list[str] = []
    n_rows = 0
    for side, spec in {"left": left, **({"right": right} if right else {})}.items():
        if not {"source"} <= {*spec} <= {*_SIDE_KEYS}:
            keys = ", ".join(map(str, spec)) or "nothing"
            raise ValueError(f"dataset.{side} has {keys}; use source and any of {_SIDE_KEYS[1:]}")
        rows, origin = load_rows(**{key: spec[key] for key in _SIDE_KEYS[:5] if key in spec})
        pairs = read_pairs(rows, origin, spec.get("column_map"), invalid_rows)
        pairs = _select(pairs, rows, origin, spec.get("where"))
        sides[side] = [pair._replace(row=pair.row + n_rows) for pair in pairs]  # numbered on from file to file
        origins.append(origin)
        n_rows += len(rows)
    origin = ", ".join(origins)
    pairs = _select(mix_pairs(**sides, right_share=right_share, seed=seed), [], origin, None, subset, seed)
    return PreferencePairs(pairs, origin, tokenizer, prompt_template, max_seq_len, too_long)


# The comparison that the paper did not run: both published sets on all of their prompts. right_share=0 flips the rows
# of the right set, right_share=1 those of the left one.
politune_mixture = partial(
    mixture, left={"source": "scale-lab/politune-left"}, right={"source": "scale-lab/politune-right"}
)


def _select(
    pairs: list[Pair],
    rows: list[dict[str, Any]],
    origin: str,
    where: Mapping[str, Any] | None,
    subset: int | None = None,
    seed: int = 0,
    hold_out: float = 0.0,
) -> list[Pair]:
    """Keep some pairs, and say how many by torchtune's logger: INFO lines of a library's own reach nobody."""
    found = keep_where(pairs, rows, where, origin)
    if not 0 <= hold_out < 1:
        raise ValueError(f"dataset.hold_out={hold_out}; use a share from 0 to below 1")
    kept = [pair for pair in found if not is_held_out(pair.prompt, hold_out)]
    if found and not kept:
        raise ValueError(f"{origin}: dataset.hold_out={hold_out} leaves no pair")
    drawn = draw_subset(kept, subset, seed, origin)
    log = utils.get_logger("DEBUG")
    if n_several := sum(bool(pair.turns) for pair in pairs):
        several = "several turns, or a system prompt, before the answers; the last answer alone is trained on"
        utils.log_rank_zero(log, f"{origin}: {n_several} of {len(pairs)} pairs have {several}")
    if where:
        utils.log_rank_zero(log, f"{origin}: {len(found)} of {len(pairs)} pairs have {dict(where)}")
    if hold_out:
        utils.log_rank_zero(log, f"{origin}: {len(found) - len(kept)} of {len(found)} pairs have a held-out prompt")
    if subset is not None:
        utils.log_rank_zero(log, f"{origin}: drew {len(drawn)} of {len(kept)} pairs (seed {seed})")
    return drawn
