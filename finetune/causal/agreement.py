# SPDX-License-Identifier: MIT
"""Does a decoder read a tree as it reads plain sequences? Measured on the loaded model, before anything rests on it.

Attention alone passes nothing on that a mask hides. Linear attention, a recurrent state or a convolution does: what
they carry along the row would reach the next answer. Positions that a model counts by itself would be wrong too.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torchtune import utils
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX
from transformers import AutoTokenizer

from data.pairs.tokens import Continuation
from finetune.causal.decoder import LAYOUTS, CausalLM, read_fast
from finetune.tree.prefix_tree import PrefixTree, build_tree

log = utils.get_logger()  # of the recipe, which sets its level

# Most that a log-probability may differ, nats a token on average over an answer. bf16 rounds by .02 on a model of 30
# layers; answers at wrong places differ by .2 there, and what leaks from one answer to another by more.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.05}
# Layers that see what the mask shows them, and nothing else.
BY_MASK = {"full_attention", "sliding_attention", "chunked_attention"}
# A window that is no longer than this is passed by the prompt that is measured on.
LONGEST_WINDOW = 640
PROMPT, ANSWER = 64, 40  # tokens

TEXT = """Many people in the town have an opinion about the new library. Some say that it should stay open at night,
since students need a quiet place after school. Others would rather spend the money on the bus lines, which reach the
villages only twice a day. The council has asked an architect, two teachers and a bank for advice, and it will publish
their letters in spring. Until then the old building by the river remains as it is: a little dark, a little cold, and
full every Saturday. A vote is planned for the second week of June, and everybody who lives here may take part. """


class Agreement(NamedTuple):
    """How a decoder reads trees from now on, and what was measured."""

    layout: str  # of LAYOUTS
    difference: float | None  # nats a token between tree and plain sequences; None if nothing was measured
    why: str  # in words


def choose_layout(decoder: CausalLM, ids: Sequence[int] | None = None) -> Agreement:
    """Measure, and let the decoder read trees so that their log-probabilities are those of plain sequences.

    Args:
        decoder: With its weights; adapters count as they are switched. Its way of reading is set.
        ids: Tokens of a text in its language; None takes those of an English one.
    """
    found = _measure(decoder, ids)
    decoder.layout = found.layout
    (log.warning if found.layout == "sequences" else log.info)(f"{decoder.folder.name}: {found.why}")
    return found


def _measure(decoder: CausalLM, ids: Sequence[int] | None) -> Agreement:
    tolerance = TOLERANCE.get(decoder.hf.dtype)
    if tolerance is None:
        raise ValueError(f"dtype {decoder.hf.dtype} is not supported; use fp32 or bf16")
    if others := sorted(_kinds(decoder) - BY_MASK):
        return Agreement("sequences", None, f"layers of the kind {', '.join(others)} carry on what a mask hides{_SLOW}")
    measured = measure_layouts(decoder, ids)
    if not measured:
        return Agreement("sequences", None, f"this model takes no mask of a tree{_SLOW}")
    layout, difference = min(measured.items(), key=lambda item: item[1])
    limit = f"{difference:.1g} nats a token (at most {tolerance:g})"
    if difference > tolerance:
        why = f"log-probabilities on the prefix tree differ from those of plain sequences by {limit}{_SLOW}"
        return Agreement("sequences", difference, why)
    why = f"log-probabilities on the prefix tree are those of plain sequences within {limit}"
    return Agreement(layout, difference, why)


def _kinds(decoder: CausalLM) -> set[str]:
    return set(getattr(decoder.hf.config, "layer_types", None) or ())


@torch.no_grad()
def measure_layouts(decoder: CausalLM, ids: Sequence[int] | None = None) -> dict[str, float]:
    """Return how far a tree's log-probabilities are from plain sequences', nats a token, by layout that can be tried.

    What an answer is told of the one beside it counts too. The decoder's attention runs along branches afterwards,
    where it can.
    """
    device = decoder.hf.device
    tree, other = (tree.to(device) for tree in _trees(decoder, ids))
    lengths = torch.tensor((0, *tree.answer_ends), device=device).diff()
    plain = decoder.sequence_logprobs(tree)
    read_fast(decoder)
    measured: dict[str, float] = {}
    for decoder.layout in LAYOUTS[:-1]:
        if decoder.layout == "by_layer" and not _kinds(decoder):
            continue
        try:
            read, beside = (decoder.answer_logprobs(each) for each in (tree, other))
        except Exception as error:  # whatever a model does with a mask that it does not expect
            log.debug(f"{decoder.layout}: {type(error).__name__}: {error}")
            continue
        # the last answer of both trees is the same
        leaked = (read[-1] - beside[-1]).abs() / lengths[-1]
        measured[decoder.layout] = max(float(((read - plain).abs() / lengths).max()), float(leaked))
    decoder.layout = "sequences"
    return measured


_SLOW = ": answers are read one by one, each with its prompt; that is slower, and right"


def _trees(decoder: CausalLM, ids: Sequence[int] | None) -> tuple[PrefixTree, PrefixTree]:
    """Return two trees of the same form whose last answers are the same; the others are not."""
    if ids is None:
        ids = AutoTokenizer.from_pretrained(decoder.folder).encode(TEXT, add_special_tokens=False)
    window = getattr(decoder.hf.config, "sliding_window", None) or 0
    n_prompt = PROMPT + (window if window <= LONGEST_WINDOW else 0)
    room = decoder.max_seq_len - ANSWER
    source = itertools.cycle(ids)
    prompt = list(itertools.islice(source, max(min(n_prompt, room), 2)))
    first, second, last = (list(itertools.islice(source, ANSWER - k)) for k in (0, 7, 3))
    half = prompt[: len(prompt) // 2]

    def tree_of(*answers: list[int]) -> PrefixTree:
        starts = (prompt, half, prompt)
        return build_tree(
            [
                Continuation([*start, *answer], [CROSS_ENTROPY_IGNORE_IDX] * len(start) + answer)
                for start, answer in zip(starts, answers)
            ]
        )

    return tree_of(first, second, last), tree_of(first[::-1], second[::-1], last)
