# SPDX-License-Identifier: MIT
"""Held-out prompts: by prompt, stable, on both sides alike."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX as IGNORE

from data.pairs.records import Pair
from data.pairs.tokens import Continuation, PreferencePairs
from finetune.losses import IPOLoss, KTOLoss, SFTLoss
from finetune.run.batches import PairSet, split_by_prompt, tokenize_pairs


def pair_set(prompts: list[list[int]]) -> PairSet:
    def answer(prompt, *tokens):
        return Continuation([*prompt, *tokens], [IGNORE] * len(prompt) + list(tokens))

    pairs = [(answer(prompt, 900 + k, 7), answer(prompt, 800 + k)) for k, prompt in enumerate(prompts)]
    return PairSet(pairs, [f"row {k}" for k in range(len(pairs))], "a file")


def mirrored(pairs: PairSet) -> PairSet:
    return pairs._replace(pairs=[(b, a) for a, b in pairs.pairs])


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=4), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_no_prompt_is_on_both_sides_and_nothing_is_lost(prompts, share):
    pairs = pair_set(prompts)
    distinct = len(set(map(tuple, prompts)))
    if distinct < 2:
        with pytest.raises(ValueError, match="at least 2 prompts"):
            split_by_prompt(pairs, share)
        return
    train, held_out = split_by_prompt(pairs, share)
    assert not set(train.prompts()) & set(held_out.prompts())
    assert sorted(train.names + held_out.names) == sorted(pairs.names)
    assert 1 <= len(set(held_out.prompts())) <= distinct - 1


def test_both_sides_hold_the_same_prompts_out():
    pairs = pair_set([[k, k + 1] for k in range(20)])
    first, second = split_by_prompt(pairs, 0.25)[1], split_by_prompt(mirrored(pairs), 0.25)[1]
    assert first.names == second.names


def test_other_prompts_do_not_matter_and_the_share_is_met():
    numbers = [[k, k + 1] for k in range(2000)]
    part, whole = split_by_prompt(pair_set(numbers[:900]), 0.25), split_by_prompt(pair_set(numbers), 0.25)
    assert not set(part[1].prompts()) & set(whole[0].prompts())  # what one run holds out, no run trains on
    assert len(whole[1].names) == pytest.approx(500, abs=60)  # three standard deviations of a binomial


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_impossible_share_is_refused(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_by_prompt(pair_set([[1], [2]]), share)


def test_an_empty_dataset_is_named():
    with pytest.raises(ValueError, match="has no pairs"):
        tokenize_pairs([])


def test_a_pair_longer_than_the_context_is_refused_with_its_row():
    pairs = pair_set([[1], [1] * 9, [2, 3]])
    pairs.check_lengths(11)
    pairs.check_lengths(None)
    message = r"a file: 1 of 3 pairs have more tokens than the model's context of 10 \(longest 11; row row 1\); set"
    with pytest.raises(ValueError, match=message):
        pairs.check_lengths(10)


def test_a_mean_over_tokens_counts_the_answer_alone(packaged_model_dir):
    from torchtune.models.llama3 import llama3_tokenizer

    from finetune.tokenizers import hf_chat_tokenizer

    package = importlib.util.find_spec("llama_models")
    if package is None:
        pytest.skip("llama-models is not installed")
    tokenizer = llama3_tokenizer(str(Path(package.submodule_search_locations[0]) / "llama3" / "tokenizer.model"))
    rows = [Pair(1, "Why?", "As it is.", "No."), Pair(2, "Why?", "Assistant.", "Assistants.")]
    pairs = tokenize_pairs(PreferencePairs(rows, "f", tokenizer))
    bare = pairs.without_headers(tokenizer)
    for row, before, after in zip(rows, pairs.pairs, bare.pairs):
        for text, whole, answer in zip((row.chosen, row.rejected), before, after):
            assert list(answer.tokens) == list(whole.tokens)
            scored = [token for token in answer.labels if token != IGNORE]
            assert scored == [*tokenizer.encode(text, add_bos=False, add_eos=False), tokenizer.eot_id]
    # one that scores no header is left alone
    chat = hf_chat_tokenizer(str(packaged_model_dir))
    pairs = tokenize_pairs(PreferencePairs(rows, "f", chat))
    assert pairs.without_headers(chat).fingerprint() == pairs.fingerprint()


def test_each_prompt_gets_the_answers_of_the_next_row_of_another():
    pairs = pair_set([[1, 2], [1, 2], [3], [4, 5, 6]])
    lacking = Continuation([3], [IGNORE])
    pairs.pairs[2] = (pairs.pairs[2][0], lacking)  # a row with a desirable answer alone
    mismatched = pairs.with_mismatched().mismatched
    assert [[list(answer.tokens) for answer in pair] for pair in mismatched] == [
        [[1, 2, 902, 7], [1, 2, 902, 7]], [[1, 2, 902, 7], [1, 2, 902, 7]], [[3, 903, 7], [3]],
        [[4, 5, 6, 900, 7], [4, 5, 6, 800]],
    ]  # fmt: skip
    assert list(mismatched[3][0].labels) == [IGNORE] * 3 + [900, 7]
    with pytest.raises(ValueError, match="a file: a part of 2 pairs has one prompt; this loss compares"):
        pair_set([[1], [1]]).with_mismatched()


def test_a_loss_that_compares_refuses_rows_of_one_answer():
    pairs = pair_set([[1, 2], [3]])
    pairs.pairs[1] = (Continuation([3], [IGNORE]), pairs.pairs[1][1])
    for loss, reads in ((IPOLoss(), "two"), (SFTLoss(), "the chosen one")):
        with pytest.raises(ValueError, match=rf"1 of 2 rows have one answer \(row row 1\), and .*Loss reads {reads}"):
            pairs.check_answers(loss)
    pairs.check_answers(KTOLoss())
    pair_set([[1]]).check_answers(IPOLoss())
