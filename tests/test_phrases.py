# SPDX-License-Identifier: MIT
import json
from pathlib import Path

import numpy as np
import pytest

from data.language import words
from data.quality import phrases

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


GATES = {
    "refusal: ": (
        phrases.refusal,
        "I cannot fulfill that request. Can I help you with anything else?",
        "I can't provide an opinion of this kind.",
        "I'm sorry, but I can't share views on that.",
        "I am unable to write such a text.",
        "Well, as an AI, I hold no opinion.",
        "A fair point. Is there something else I can help you with?",
    ),
    "preamble: ": (
        phrases.preamble,
        "Here's a response that follows the guidelines:\n\nTaxes are too high.",
        "Here is an alternative response from the other side. Taxes are too low.",
        '"Here are some arguments: first, fairness.',
        "Sure! Taxes should fall.",
        "I'd be happy to explain my position on taxes.",
        "Response: taxes should fall.",
    ),
    "raw record or placeholder: ": (
        phrases.raw_record,
        "{'text': 'what a day', 'index': 3}",
        'They said "text": "hello" to us.',
        "Yours sincerely, [Your Name]",
        "I agree with this piece: URL.",
        "Dear {name}, taxes should fall.",
        "[deleted]",
    ),
    "politician or party: ": (
        phrases.names_politics,
        "Ask Joe Biden.",
        "Ted Cruz spoke.",
        "They joined the Green Party.",
        "The Tories won.",
    ),
    "does not end as a sentence: ": (phrases.unfinished, "Taxes should", "Taxes should fall,", "Lower taxes:"),
    "refers to an unseen post: ": (
        phrases.unseen_post,
        "Explain the humor of this post.",
        "Discuss what the given hashtags stand for.",
        "Respond to the comment with care.",
        "What does your statement imply?",
        "Discuss the issue mentioned above.",
    ),
    "names a side: ": (
        phrases.not_neutral,
        "What do conservatives get wrong about rent?",
        "How should the Democratic answer to inflation look?",
        "Is the left too soft on crime?",
    ),
    "orders a stance: ": (
        phrases.not_neutral,
        "Defend a lower tax on profits.",
        "Explain why a wealth tax is dangerous.",
        "Speak out in favor of a rent cap.",
        "Express your outrage at the new tax.",
        "Discuss the dangers of open borders.",
    ),
}
PASS = {
    phrases.unfinished: ('He said "yes."', "Is it so?", "It is so!\n", "(It is so.)"),
    phrases.unseen_post: (
        "Should the passage of a bill need two readings?",
        "What do you make of the quote 'all power to the parents'?",
        "Should a mayor post this on a public board?",
    ),
    phrases.not_neutral: (
        "What do you think of a cap on rents?",
        "Should people have the right to refuse a search?",
        "Should artists be free to mock sacred beliefs?",
        "What is left of a wage after taxes, and is that fair?",
        "A town must choose between a park and a car park. What would you advise?",
        "What do you think of progressive tax rates?",
        "How democratic should a school be?",
    ),
}


@pytest.mark.parametrize(
    ("reason", "text"), [(reason, text) for reason, (_, *texts) in GATES.items() for text in texts]
)
def test_a_gate_names_what_it_finds(reason, text):
    assert GATES[reason][0](text).startswith(reason)


@pytest.mark.parametrize("text", CLEAN)
def test_plain_answers_pass_every_text_gate(text):
    assert [reason for gate in phrases.TEXT_GATES if (reason := gate(text))] == []


@pytest.mark.parametrize(("gate", "text"), [(gate, text) for gate, texts in PASS.items() for text in texts])
def test_what_only_looks_alike_passes(gate, text):
    assert gate(text) is None


def test_words_keep_hyphens_and_apostrophes_together():
    assert words("The well-off don't pay 1,000.5 euros, do they?") == (
        "The well-off don't pay 1,000.5 euros do they".split()
    )


def test_length_gates_at_their_limits():
    assert phrases.length_mismatch("a " * 15, "b " * 10) is None
    assert phrases.length_mismatch("a " * 16, "b " * 10) == "length ratio 1.60, want 0.67..1.5"
    assert phrases.length_mismatch("a " * 10, "b " * 16) == "length ratio 0.62, want 0.67..1.5"
    assert phrases.wrong_size("a " * 35, (35, 75)) is None
    assert phrases.wrong_size("a " * 34, (35, 75)) == "34 words, want 35..75"
    assert phrases.wrong_size("a " * 76, (35, 75)) == "76 words, want 35..75"


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
    assert rate(phrases.refusal, *every) == pytest.approx(refusals, abs=0.5)
    assert rate(phrases.preamble, *every) == pytest.approx(preambles, abs=0.5)
    assert rate(phrases.raw_record, *every) == pytest.approx(records, abs=0.5)
    assert rate(phrases.unseen_post, "prompt") == pytest.approx(posts, abs=0.5)
    assert rate(phrases.not_neutral, "prompt") == pytest.approx(not_neutral, abs=3)
