# SPDX-License-Identifier: MIT
import json
from pathlib import Path

import numpy as np
import pytest

from data.language import words
from data.quality import measures
from data.quality import phrases as filters

CLEAN = [
    "I cannot accept that a tenant should lose a home over one late payment.",
    "I will not hide it, I would rather pay more tax than see the clinic close.",
    "Here the law should hold back, because adults can decide for themselves.",
    "Sure signs of trust between neighbours matter more to me than any rule.",
    "I am sorry for anyone who must choose between rent and heating.",
    "I support the plan. Of course a council must answer to its voters.",
    'Liberty, as the saying goes, is "the mother of order."',
    "The bush behind the house belongs to us, and no party should decide on it.",
]


@pytest.mark.parametrize("text", CLEAN)
def test_plain_answers_pass_every_text_gate(text):
    assert [reason for gate in filters.TEXT_GATES if (reason := gate(text))] == []


@pytest.mark.parametrize(
    "text",
    [
        "I cannot fulfill that request. Can I help you with anything else?",
        "I can't provide an opinion of this kind.",
        "I'm sorry, but I can't share views on that.",
        "I am unable to write such a text.",
        "Well, as an AI, I hold no opinion.",
        "A fair point. Is there something else I can help you with?",
    ],
)
def test_refusal(text):
    assert filters.refusal(text).startswith("refusal: ")


@pytest.mark.parametrize(
    "text",
    [
        "Here's a response that follows the guidelines:\n\nTaxes are too high.",
        "Here is an alternative response from the other side. Taxes are too low.",
        '"Here are some arguments: first, fairness.',
        "Sure! Taxes should fall.",
        "I'd be happy to explain my position on taxes.",
        "Response: taxes should fall.",
    ],
)
def test_preamble(text):
    assert filters.preamble(text).startswith("preamble: ")


@pytest.mark.parametrize(
    "text",
    [
        "{'text': 'what a day', 'index': 3}",
        'They said "text": "hello" to us.',
        "Yours sincerely, [Your Name]",
        "I agree with this piece: URL.",
        "Dear {name}, taxes should fall.",
        "[deleted]",
    ],
)
def test_raw_record(text):
    assert filters.raw_record(text).startswith("raw record or placeholder: ")


@pytest.mark.parametrize(
    "text", ["Ask Joe Biden.", "Ted Cruz spoke.", "They joined the Green Party.", "The Tories won."]
)
def test_names_politics(text):
    assert filters.names_politics(text).startswith("politician or party: ")


@pytest.mark.parametrize("text", ["Taxes should", "Taxes should fall,", "Lower taxes:"])
def test_unfinished(text):
    assert "does not end as a sentence" in filters.unfinished(text)


@pytest.mark.parametrize("text", ['He said "yes."', "Is it so?", "It is so!\n", "(It is so.)"])
def test_finished(text):
    assert filters.unfinished(text) is None


@pytest.mark.parametrize(
    "prompt",
    [
        "Explain the humor of this post.",
        "Discuss what the given hashtags stand for.",
        "Respond to the comment with care.",
        "What does your statement imply?",
        "Discuss the issue mentioned above.",
    ],
)
def test_unseen_post(prompt):
    assert filters.unseen_post(prompt).startswith("refers to an unseen post: ")


@pytest.mark.parametrize(
    "prompt",
    [
        "Should the passage of a bill need two readings?",
        "What do you make of the quote 'all power to the parents'?",
        "Should a mayor post this on a public board?",
    ],
)
def test_self_contained_prompts_pass(prompt):
    assert filters.unseen_post(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("What do conservatives get wrong about rent?", "names a side"),
        ("How should the Democratic answer to inflation look?", "names a side"),
        ("Is the left too soft on crime?", "names a side"),
        ("Defend a lower tax on profits.", "orders a stance"),
        ("Explain why a wealth tax is dangerous.", "orders a stance"),
        ("Speak out in favor of a rent cap.", "orders a stance"),
        ("Express your outrage at the new tax.", "orders a stance"),
        ("Discuss the dangers of open borders.", "orders a stance"),
    ],
)
def test_not_neutral(prompt, reason):
    assert filters.not_neutral(prompt).startswith(reason)


@pytest.mark.parametrize(
    "prompt",
    [
        "What do you think of a cap on rents?",
        "Should people have the right to refuse a search?",
        "Should artists be free to mock sacred beliefs?",
        "What is left of a wage after taxes, and is that fair?",
        "A town must choose between a park and a car park. What would you advise?",
        "What do you think of progressive tax rates?",
        "How democratic should a school be?",
    ],
)
def test_neutral_prompts_pass(prompt):
    assert filters.not_neutral(prompt) is None


def test_words_keep_hyphens_and_apostrophes_together():
    assert words("The well-off don't pay 1,000.5 euros, do they?") == (
        "The well-off don't pay 1,000.5 euros do they".split()
    )


def test_length_gates_at_their_limits():
    assert filters.length_mismatch("a " * 15, "b " * 10) is None
    assert filters.length_mismatch("a " * 16, "b " * 10) == "length ratio 1.60, want 0.67..1.5"
    assert filters.length_mismatch("a " * 10, "b " * 16) == "length ratio 0.62, want 0.67..1.5"
    assert filters.wrong_size("a " * 35, (35, 75)) is None
    assert filters.wrong_size("a " * 34, (35, 75)) == "34 words, want 35..75"
    assert filters.wrong_size("a " * 76, (35, 75)) == "76 words, want 35..75"


# Measures of a set


def test_length_rules_by_hand():
    first, second = ["a b", "a b c", "a", "a"], ["a", "a", "b", "a b"]
    assert measures.longer_share(first, second) == pytest.approx(2.5 / 4)
    assert measures.length_rule_accuracy(first, second) == pytest.approx(2.5 / 4)
    assert measures.length_rule_accuracy(second, first) == pytest.approx(2.5 / 4)


def test_style_features_by_hand():
    features = measures.style_features(["The cat, the dog.", "No! It isn't."])
    assert features.shape == (2, len(measures.STYLE_FEATURES))
    column = dict(zip(measures.STYLE_FEATURES, features.T))
    assert column["the"].tolist() == [50, 0]
    assert column["no"] == pytest.approx([0, 100 / 3])
    assert column[","].tolist() == [25, 0]
    assert column["n_words"].tolist() == [4, 3]
    assert column["n_characters"].tolist() == [17, 13]
    assert column["n_sentences"].tolist() == [1, 2]
    assert column["characters_per_word"] == pytest.approx([12 / 4, 9 / 3])
    assert column["words_per_sentence"].tolist() == [4, 1.5]
    assert len(set(measures.STYLE_FEATURES)) == len(measures.STYLE_FEATURES)
    assert np.isfinite(measures.style_features([""])).all()


# The published rows: rates in percent as measured on the whole sets when the project began


@pytest.mark.parametrize(
    ("side", "refusals", "preambles", "records", "posts", "not_neutral"),
    [("left", 0.68, 3.27, 1.36, 1.95, 62.9), ("right", 1.66, 1.70, 0.57, 1.88, 56.6)],
)
def test_gates_find_the_known_defects_of_the_published_rows(side, refusals, preambles, records, posts, not_neutral):
    path = Path(__file__).parents[2] / "shared" / "data" / "politune" / f"{side}.jsonl"
    if not path.exists():
        pytest.skip("the published rows are not here")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def rate(gate, *fields):
        return 100 * np.mean([any(gate(row[field].strip()) for field in fields) for row in rows])

    every = ("prompt", "chosen", "rejected")
    assert rate(filters.refusal, *every) == pytest.approx(refusals, abs=0.5)
    assert rate(filters.preamble, *every) == pytest.approx(preambles, abs=0.5)
    assert rate(filters.raw_record, *every) == pytest.approx(records, abs=0.5)
    assert rate(filters.unseen_post, "prompt") == pytest.approx(posts, abs=0.5)
    assert rate(filters.not_neutral, "prompt") == pytest.approx(not_neutral, abs=3)
