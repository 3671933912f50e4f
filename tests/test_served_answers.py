# SPDX-License-Identifier: MIT
"""Where a served text leaves ours, told from the text alone."""

import pytest

from benchmarks.served_answers import first_difference, read_prompts
from finetune.tokenizers import hf_chat_tokenizer


@pytest.fixture
def tokenizer(tiny_model_dir):
    return hf_chat_tokenizer(str(tiny_model_dir))


def test_the_first_token_that_differs_is_found(tokenizer):
    stop = tokenizer.stop_tokens[0]

    def ids(text):
        return tokenizer.encode(text, add_bos=False, add_eos=False)

    ours = [*ids("Tea is good"), *ids(" for us"), stop]
    n = len(ids("Tea is good"))
    assert first_difference(tokenizer, ours, "Tea is good for us") is None
    assert first_difference(tokenizer, ours, "Tea is good to us") == (n, ids(" to us")[0])
    assert first_difference(tokenizer, ours, "Tea is good") == (n, stop)  # the server stopped there
    assert first_difference(tokenizer, ours, "Tea is good for us all") == (len(ours) - 1, ids(" all")[0])


def test_prompts_come_from_every_topic():
    prompts = read_prompts(20)
    assert len(set(prompts)) == 20
    assert read_prompts(5) == prompts[:5]
