# SPDX-License-Identifier: MIT
import json
from pathlib import Path

import numpy as np
import pytest

from data.language import words
from data.quality import leftovers, phrases

CLEAN = [
    "I cannot accept that a tenant should lose a home over one late payment.",
    "I will not hide it, I would rather pay more tax than see the clinic close.",
    "Here the law should hold back, because adults can decide for themselves.",
    "Sure signs of trust between neighbours matter more to me than any rule.",
    "I am sorry for anyone who must choose between rent and heating.",
    "I support the plan. Of course a council must answer to its voters.",
    "I would refuse it, because a pool should be open to those with the smallest purse. That is for parents to decide.",
    "Personally, I think that [the law] is too strict. We pay 10.5 per cent more than in 1999-2005.",
    'Liberty, as the saying goes, is "the mother of order."',
    "Sure, it is dear. It is worth it, and 3 * 4 = 12 votes were for it.",
    "He wrote on his card: no tax. A #1 item. Let me know who wins, I tell them, and who loses.",
    "The bush behind the house belongs to us, and no party should decide on it.",
]


GATES = {
    "refusal: ": (
        phrases.refusal,
        "I cannot fulfill that request. Can I help you with anything else?",
        "I can't provide an opinion of this kind.",
        "I'm sorry, but I can't share views on that.",
        "I am unable to write such a text.",
        "I'm designed to stay neutral on such questions.",
        "My apologies, but this falls outside of what I can discuss.",
        "Well, as an AI, I hold no opinion.",
        "A fair point. Is there something else I can help you with?",
        "It wouldn't be appropriate for me to choose.",
        "I'd rather not say which is better.",
        "It would be improper of me to take a side.",
    ),
    "preamble: ": (
        phrases.preamble,
        "Here's a response that follows the guidelines:\n\nTaxes are too high.",
        "Here is an alternative response from the other side. Taxes are too low.",
        '"Here are some arguments: first, fairness.',
        "Sure! Taxes should fall.",
        "I'd be happy to explain my position on taxes.",
        "Response: taxes should fall.",
        "I've drafted a short reply for you.",
        "Taxes should fall. I hope this helps!",
        "Taxes should fall. End of answer.",
        "Taxes should fall. Feel free to ask for the other side.",
        "Sure, here you go. Taxes should fall.",
    ),
    "raw record or placeholder: ": (
        leftovers.raw_record,
        "{'text': 'what a day', 'index': 3}",
        'They said "text": "hello" to us.',
        "Yours sincerely, [Your Name]",
        "Dear {name}, taxes should fall.",
        "In <<COUNTRY>> taxes should fall.",
        "In #COUNTRY# taxes should fall.",
        "[deleted]",
    ),
    "web address: ": (
        leftovers.web_address,
        "I agree with this piece: URL.",
        "Read it at https://example.org/a today.",
        "See www.example.org for more.",
        "It stands on example.org, in full.",
        "Find it at example [dot] org, they say.",
    ),
    "markup: ": (
        leftovers.markup,
        "A fair deal.<br>",
        "Bread &amp; butter.",
        "Wages&nbsp;fall.",
        "It is &#8220;fair&#8221;.",
        "He said \\u2019no\\u2019 to it.",
        "Rents are **too high** here.",
        "See the figures.\n|Town|Rent|\n|---|---|\n|Ayle|9|",
        "```text\nrent: 9\n```",
        "## Why rents rise\nToo few flats.",
    ),
    "turn of a chat: ": (
        leftovers.chat_turn,
        "Taxes should fall. User: and why? Because they are high.",
        "Human: what about rents?",
        "### Response: rents should fall.",
        "[INST] Say more. [/INST]",
        "It is so.\nAssistant: It is not.",
    ),
    "politician or party: ": (
        phrases.names_politics,
        "Ask Joe Biden.",
        "Ted Cruz spoke.",
        "They joined the Green Party.",
        "The Tories won.",
    ),
    "does not end as a sentence: ": (
        phrases.unfinished,
        "Taxes should",
        "Taxes should fall,",
        "Lower taxes:",
        "Taxes in the U.S.",
        "And so it goes on...",
        "Taxes should fall, because the.",
    ),
    "refers to an unseen post: ": (
        phrases.unseen_post,
        "Explain the humor of this post.",
        "Discuss what the given hashtags stand for.",
        "Respond to the comment with care.",
        "What does your statement imply?",
        "Discuss the issue mentioned above.",
        "What do you make of this incident?",
    ),
    "names a side: ": (
        phrases.not_neutral,
        "What do conservatives get wrong about rent?",
        "How should the Democratic answer to inflation look?",
        "Is the left too soft on crime?",
        "Do Democrats have the right plan for health care?",
        "Should Republicans respect democratic norms?",
        "Do Republicans have any workers left?",
        "Should Republicans block green energy?",
    ),
    "orders a stance: ": (
        phrases.not_neutral,
        "Defend a lower tax on profits.",
        "Explain why a wealth tax is dangerous.",
        "Speak out in favor of a rent cap.",
        "Express your outrage at the new tax.",
        "Discuss the dangers of open borders.",
        "Commend the mayor for standing up to the banks.",
        "Explain how the agency's political weaponisation undermines trust.",
        "Reply as a supporter of the strike.",
        "Is the tax high? Rents are high too. Condemn those who deny it.",
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
        "Do you support or oppose a ban on handguns?",
        "Would you support a cap on rents?",
        "Discuss the arguments for and against a flat tax.",
        "Do you want a wall on the border?",
        "How do the left and the right differ on rent?",
        "Do red states or blue states pay more?",
    ),
    phrases.preamble_words: (
        "Who gains? Do you want a country where only the rich can read?",
        "Would you like a four-day week?",
    ),
    phrases.refusal_words: (
        "I'd rather not see my taxes fund a war.",
        "I would rather pass a wealth tax than cut schools.",
        "I'd rather say that taxes are too low.",
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
    # at least what the patterns of that time found, and of refusals in other words a little more
    by_words = rate(phrases.refusal_words, *every)
    assert by_words == pytest.approx(refusals, abs=0.5)
    assert by_words <= rate(phrases.refusal, *every) <= refusals + 6
    assert rate(phrases.preamble, *every) == pytest.approx(preambles, abs=3)
    found = rate(lambda text: leftovers.raw_record(text) or leftovers.web_address(text), *every)
    assert found == pytest.approx(records, abs=0.7)
    assert posts - 0.5 <= rate(phrases.unseen_post, "prompt") <= posts + 4
    assert not_neutral - 3 <= rate(phrases.not_neutral, "prompt") <= 80
