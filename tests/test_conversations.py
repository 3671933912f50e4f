# SPDX-License-Identifier: MIT
"""Conversations become one pair each: the answers are the last turns, the prompt is what they have in common."""

import re

import pytest
from test_datasets import build, write  # noqa: F401
from torchtune.data import Message

from data.pairs.conversations import Turn
from data.pairs.records import Pair, read_pairs, split_rows


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


SHORT = Pair(1, "Raise taxes?", "Yes.", "No.")
TURNS = (Turn("user", "Raise taxes?"), Turn("assistant", "Which?"), Turn("user", "All."))
LONG = Pair(1, "Raise taxes?\n\nWhich?\n\nAll.", "Yes.", "No.", TURNS)
BEGIN = [user("Raise taxes?"), assistant("Which?"), user("All.")]
RULED = LONG._replace(prompt="Be brief.\n\nRaise taxes?", turns=(Turn("system", "Be brief."), TURNS[0]))
HH = "\n\nHuman: Raise taxes?\n\nAssistant: Which?\n\nHuman: All.\n\nAssistant:"

# name of the set that has the form, row, pair
FORMS = [
    (
        "TRL, implicit prompt",
        {"chosen": [BEGIN[0], assistant("Yes.")], "rejected": [BEGIN[0], assistant("No.")]},
        SHORT,
    ),
    (
        "TRL, explicit prompt",
        {"prompt": BEGIN[:1], "chosen": [assistant("Yes.")], "rejected": [assistant("No.")]},
        SHORT,
    ),
    (
        "ultrafeedback_binarized: the prompt as text and in the messages",
        {
            "prompt": "Raise taxes?",
            "chosen": [BEGIN[0], assistant("Yes.")],
            "rejected": [BEGIN[0], assistant("No.")],
            "messages": [BEGIN[0], assistant("Yes.")],
        },
        SHORT,
    ),
    ("several turns", {"chosen": [*BEGIN, assistant("Yes.")], "rejected": [*BEGIN, assistant("No.")]}, LONG),
    (
        "a system prompt beside the prompt as text",
        {
            "prompt": "Raise taxes?",
            "chosen": [system("Be brief."), BEGIN[0], assistant("Yes.")],
            "rejected": [system("Be brief."), BEGIN[0], assistant("No.")],
        },
        RULED,
    ),
    (
        "the messages lack the prompt's system prompt",
        {
            "prompt": [system("Be brief."), BEGIN[0]],
            "chosen": [BEGIN[0], assistant("Yes.")],
            "rejected": [BEGIN[0], assistant("No.")],
        },
        RULED,
    ),
    ("hh-rlhf", {"chosen": HH + " Yes.", "rejected": HH + " No."}, LONG),
    ("full-hh-rlhf", {"prompt": HH, "chosen": "Yes.", "rejected": "No."}, LONG),
    (
        "ShareGPT, and one message for an answer (LLaMA-Factory)",
        {
            "prompt": [{"from": "human", "value": "Raise taxes?"}],
            "chosen": {"from": "gpt", "value": "Yes."},
            "rejected": {"from": "gpt", "value": "No."},
        },
        SHORT,
    ),
    (
        "two lists, as old versions of datasets give them",
        {
            "chosen": {"role": ["user", "assistant"], "content": ["Raise taxes?", "Yes."]},
            "rejected": {"role": ["user", "assistant"], "content": ["Raise taxes?", "No."]},
        },
        SHORT,
    ),
    (
        "the file of OpenAI's tuning, under our names",
        {
            "prompt": {"messages": [system("Be brief."), BEGIN[0]], "tools": []},
            "chosen": [assistant("Yes.")],
            "rejected": [assistant("No.")],
        },
        RULED,
    ),
    (
        "parts of text",
        {
            "prompt": [{"role": "user", "content": [{"type": "text", "text": "Raise "}, {"text": "taxes?"}]}],
            "chosen": [assistant("Yes.")],
            "rejected": [assistant("No.")],
        },
        SHORT,
    ),
]


@pytest.mark.parametrize(("row", "pair"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
def test_every_form_is_one_pair(row, pair):
    assert read_pairs([row], "f") == [pair]


# what cannot be one prompt with two answers, and the reason
BAD = [
    ({"chosen": [*BEGIN], "rejected": [*BEGIN]}, "chosen ends with a turn of the user, want the assistant's answer"),
    (
        {"chosen": [BEGIN[0], assistant(None)], "rejected": [BEGIN[0], assistant("No.")]},
        "turn 2 of chosen has no content (null)",
    ),
    (
        {"chosen": [BEGIN[0], assistant("Yes.")], "rejected": [user("Cut taxes?"), assistant("No.")]},
        "chosen and rejected part at turn 1, want all turns the same but the last one",
    ),
    (
        {"chosen": [*BEGIN, assistant("Yes.")], "rejected": [BEGIN[0], assistant("No.")]},
        "chosen and rejected part at turn 2",
    ),
    (
        {"chosen": [assistant("Yes.")], "rejected": [assistant("No.")]},
        "no prompt: no turn stands before the answer",
    ),
    ({"chosen": [], "rejected": [assistant("No.")]}, "chosen is empty"),
    ({"prompt": "a", "chosen": ["Yes."], "rejected": "No."}, "turn 1 of chosen has str, want role and content"),
    (
        {"prompt": BEGIN, "chosen": [{"role": "tool", "content": "4"}], "rejected": [assistant("No.")]},
        "turn 1 of chosen is by 'tool'; taken are user, human, prompter, assistant",
    ),
    (
        {"prompt": [*BEGIN, user("Well?")], "chosen": [assistant("Yes.")], "rejected": [assistant("No.")]},
        "turns of user, assistant, user, user before the answer; want user and assistant in turn, the user last",
    ),
    (
        {"prompt": "Cut?", "chosen": [BEGIN[0], assistant("Yes.")], "rejected": [BEGIN[0], assistant("No.")]},
        "prompt is not what chosen begins with",
    ),
    (
        {"prompt": "a", "chosen": [{"role": "assistant", "content": [{"image_url": "x"}]}], "rejected": "b"},
        "turn 1 of chosen has content that is list, not text",
    ),
    ({"chosen": HH + " ", "rejected": HH + " No."}, "chosen is empty"),
    ({"chosen": HH + " Yes.\n\nHuman: Why?", "rejected": HH + " No."}, "chosen ends with a turn of the user"),
    ({"chosen": [BEGIN[0], assistant("Same.")], "rejected": [BEGIN[0], assistant("Same. ")]}, "chosen equals rejected"),
    (
        {"prompt": "a", "chosen": "[{'content': 'Yes.', 'role': 'assistant'}]", "rejected": "b"},
        "chosen is a list of messages written as text; save the set as JSON Lines or parquet",
    ),
    (
        {"prompt": '{"from": "human", "value": "a"}', "chosen": "x", "rejected": "b"},
        "prompt is a list of messages written as text",
    ),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_what_is_no_pair_is_a_bad_row_with_its_reason(row, reason):
    good = FORMS[0][1]
    pairs, ((number, found),) = split_rows([good, row], "f")
    assert pairs == [SHORT]
    assert (number, found[: len(reason)]) == (2, reason)


def test_without_a_prompt_texts_are_still_refused():
    with pytest.raises(
        ValueError, match="no column prompt; give dataset.column_map.prompt=COLUMN; columns: chosen, re"
    ):
        read_pairs([{"chosen": "Yes.", "rejected": "No."}], "f")


def test_a_transcript_is_said_only_where_a_text_begins_as_one():
    row = {"prompt": "Why?", "chosen": "He wrote:\n\nHuman: hi\n\nAssistant: hello", "rejected": "No."}
    assert read_pairs([row], "f") == [Pair(1, *row.values())]


class Roles:
    """A token for each message, and what it says: the role, and whether it is scored."""

    max_seq_len = None

    def tokenize_messages(self, messages: list[Message]):
        self.seen = [(m.role, m.text_content, m.masked) for m in messages]
        return [*range(len(messages))], [m.masked for m in messages]


def test_training_scores_the_last_answer_alone_and_says_how_many_have_several_turns(write, caplog):  # noqa: F811
    path = write([FORMS[3][1], FORMS[0][1], FORMS[4][1]])
    pairs = build(path, Roles())
    assert [item["chosen_labels"] for item in (pairs[k] for k in range(3))] == [
        [-100] * 3 + [3],
        [-100, 1],
        [-100] * 2 + [2],
    ]
    assert pairs[0]["chosen_input_ids"] == [0, 1, 2, 3]
    assert re.search(r"2 of 3 pairs have several turns, or a system prompt, before the answers", caplog.text)
