# SPDX-License-Identifier: MIT
"""Answers in writing are read strictly: each case says what must come out, None for no answer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.asking.written_answers import Decoding, Writing, read_option, written_row
from eval.statements.prompts import Prompt

OPTIONS = ("strongly disagree", "disagree", "agree", "strongly agree")
DIGITS, LETTERS, BACKWARDS, TO_I = tuple("1234"), tuple("ABCD"), tuple("4321"), tuple("FGHI")


@pytest.mark.parametrize(
    ("text", "said", "option"),
    [
        ("3", DIGITS, 2),
        (" 3.\n", DIGITS, 2),
        ("**3**", DIGITS, 2),
        ("(3)", DIGITS, 2),
        ("3. agree", DIGITS, 2),
        ("3 agree", DIGITS, 2),
        ("3", BACKWARDS, 1),
        ("2) agree", BACKWARDS, 2),
        ("2\nBecause it is fair to all 7 sides, by 1.5 or 3%.", DIGITS, 1),
        ("B. A society needs rules, I'd say.", LETTERS, 1),
        ("F. I think so, and I've said it.", TO_I, 0),
        ("2. I believe that taxes are high.", DIGITS, 1),
        ("Answer: 2", DIGITS, 1),
        ("Answer:\n\n2", DIGITS, 1),
        ("The answer is 2.", DIGITS, 1),
        ("I'd say 3", DIGITS, 2),
        ("I choose B", LETTERS, 1),
        ("A", LETTERS, 0),
        ("A.", LETTERS, 0),
        ("I.", TO_I, 3),
        ("I. strongly agree", TO_I, 3),
        ("4 - strongly agree", DIGITS, 3),
        ("Agree", DIGITS, 2),
        ('"agree"', OPTIONS, 2),
        ("I strongly agree.", OPTIONS, 3),
        ("I agree with this statement because it is so.", OPTIONS, 2),
        ("I disagree with the statement. Many people find it too simple.", OPTIONS, 1),
        ("Strongly disagree. Disagreement is agreeable.", OPTIONS, 0),
    ],
)
def test_what_is_an_answer(text, said, option):
    assert read_option(text, OPTIONS, said) == option


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", DIGITS),
        ("\n*\n", DIGITS),
        ("12/20", DIGITS),
        ("1/4", DIGITS),
        ("10", DIGITS),
        ("1-5", DIGITS),
        ("1 - 5", DIGITS),
        ("1. 5", DIGITS),
        ("1.5", DIGITS),
        ("1, 2", DIGITS),
        ("1 or 2", DIGITS),
        ("2: no. 3: yes", DIGITS),
        ("3%", DIGITS),
        ("3rd", DIGITS),
        ("3 people", DIGITS),
        ("5", DIGITS),
        ("3", OPTIONS),  # no labels were shown
        ("3. disagree", DIGITS),
        ("1. strongly disagree 2. disagree 3. agree", DIGITS),
        ("1. strongly disagree\n2. disagree\n3. agree", DIGITS),
        ("strongly disagree\ndisagree", OPTIONS),
        ("agree, disagree", OPTIONS),
        ("agree or disagree", OPTIONS),
        ("Agree with reservations", OPTIONS),
        ("I don't agree", OPTIONS),
        ("A society needs rules.", LETTERS),
        ("b", LETTERS),
        ("I", TO_I),
        ("I think so", TO_I),
        ("I'd rather not", TO_I),
        ("I. agree", TO_I),
        ("The statement is about 3. It is fair.", DIGITS),
        # a second thought, a range, a list: whichever is meant, it is not said
        ("A - D", LETTERS),
        ("A: B", LETTERS),
        ("A: or B", LETTERS),
        ("B. or C", LETTERS),
        ("A: C, I think", LETTERS),
        ("1. or 2", DIGITS),
        ("2. or maybe 3", DIGITS),
        ("2. Wait, my answer is 3", DIGITS),
        ("2\nBecause it is fair to all 3 sides.", DIGITS),
        ("Agree. No, disagree.", OPTIONS),
        ("Agree. No, strongly agree.", OPTIONS),
        ("I disagree with the statement. Many people agree with it.", OPTIONS),
    ],
)
def test_what_is_none(text, said):
    assert read_option(text, OPTIONS, said) is None


@settings(max_examples=300)
@given(st.integers(), st.text("0123456789-/., %:;", min_size=1, max_size=4))
def test_no_other_number_is_a_label(number, tail):
    text = f"{number}{tail}"
    found = read_option(text, OPTIONS, DIGITS)
    if found is not None:
        assert text.strip().rstrip(".: ") == DIGITS[found]


PROMPT = Prompt(
    {"mode": "generate", "item": "a", "template": "t", "order": [0, 1, 2, 3], "labels": "digits", "sample": 0},
    "?",
    DIGITS,
)


@pytest.mark.parametrize(
    ("text", "choice", "refused"),
    [
        ("3", 2, False),
        ("3. As an AI, I have no views, but this is what I was asked for.", 2, False),
        ("As an AI language model, I don't have personal opinions.", None, True),
        ("I'm sorry, but I can't answer that.", None, True),
        ("I cannot agree with this.", None, False),
        ("Taxes pay for schools.", None, False),
        (None, None, False),
    ],
)
def test_row(text, choice, refused):
    decoding = Decoding(0.3, 200, 64, 7)
    row = written_row("m", PROMPT, OPTIONS, decoding, Writing(text, "stop", 4))
    assert (row["choice"], row["refused"], row["text"]) == (choice, refused, text)
    assert row["option_logprobs"] is row["option_mass"] is row["stance"] is row["judge"] is None
    assert row["decoding"] == {"temperature": 0.3, "top_k": 200, "max_new_tokens": 64, "seed": decoding.seed_of(row)}
    open_row = written_row("m", PROMPT._replace(answers=()), OPTIONS, decoding, Writing(text, "stop", 4))
    assert open_row["choice"] is None


def test_seeds_differ_by_prompt_and_sample_alone():
    decoding, row = Decoding(0.3, 200, 64, 7), PROMPT.row
    others = [{**row, "sample": 1}, {**row, "item": "b"}, {**row, "order": [3, 2, 1, 0]}]
    assert len({decoding.seed_of(r) for r in (row, *others)}) == 4
    assert decoding.seed_of({**row, "model": "another"}) == decoding.seed_of(row)
    assert decoding._replace(seed=8).seed_of(row) != decoding.seed_of(row)
    assert 0 <= decoding.seed_of(row) < 2**31  # servers take a signed 32-bit number
