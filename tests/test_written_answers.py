# SPDX-License-Identifier: MIT
"""Answers in writing are read strictly: each case says what must come out, None for no answer."""

import functools
import itertools
import string
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.asking import written_answers
from eval.asking.written_answers import Decoding, Writing, read_option, written_row
from eval.statements.instruments import load_instrument
from eval.statements.prompts import LABELS, Prompt

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
        ("3 = agree", DIGITS, 2),
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


WORLD = ("Pas du tout d’accord", "Plutôt d’accord", "Übermäßig richtig", "同意。", "\u200bNo\u00a0opinion ", "不同意")


@pytest.mark.parametrize(
    ("text", "said", "option"),
    [
        *((option, WORLD, k) for k, option in enumerate(WORLD)),
        ("plutôt d'accord.", WORLD, 1),
        ("U\u0308berma\u0308ßig richtig", WORLD, 2),
        ("ÜBERMÄSSIG RICHTIG", WORLD, 2),
        ("同意", WORLD, 3),
        ("「不同意」", WORLD, 5),
        ("No opinion", WORLD, 4),
        ("Ｂ", tuple("ABCDEF"), 1),
        ("Ｂ。同意吗", tuple("ABCDEF"), 1),
        ("２．", tuple("123456"), 1),
        ("answer: b", tuple("ABCDEF"), 1),
        ("**Answer:** b", tuple("ABCDEF"), 1),
        (r"\boxed{B}", tuple("ABCDEF"), 1),
        (r"The answer is $\boxed{\text{B}}$.", tuple("ABCDEF"), 1),
        ("<think>A or C?</think>\nB", tuple("ABCDEF"), 1),
        ("A, then?\n</think>\n\nB", tuple("ABCDEF"), 1),
        ("```\nB\n```", tuple("ABCDEF"), 1),
        # what may mean another one stays unread
        ("<think>B", tuple("ABCDEF"), None),
        ("<think>\nB", tuple("ABCDEF"), None),
        ("answer: b or c", tuple("ABCDEF"), None),
        ("The answer is a", tuple("ABCDEF"), None),
        (r"\boxed{A} or \boxed{B}", tuple("ABCDEF"), None),
        ("②", tuple("123456"), None),
        ("2²", tuple("123456"), None),
        ("同意 不同意", WORLD, None),
    ],
)
def test_answers_in_other_forms_of_unicode_and_dress(text, said, option):
    assert read_option(text, WORLD, said) == option


def test_options_that_begin_alike_or_hold_another_are_told_apart():
    options = ("Agree", "Agree: fully", "Agree. With doubts", "Yes and no", "Yes", "Answer A")
    assert [read_option(option, options, options) for option in options] == list(range(6))
    assert read_option("Agree: fully.", options, options) == 1
    assert read_option("yes", ("Yes", "YES."), ("Yes", "YES.")) is None


FORMS = [str, str.upper, str.lower, str.title, *(functools.partial(unicodedata.normalize, f) for f in ("NFD", "NFKC"))]
DRESS = ["{}", '"{}"', "“{}”", "«{}»", "**{}**", "{}.", "{}。", "\u200b{}\ufeff", "\u00a0{}\u3000", "```\n{}\n```"]
DRESS += ["<think>hm</think>{}", r"\boxed{{{}}}", "Answer: {}", "The answer is: **{}**"]
SHIPPED = sorted(path.stem for path in Path(written_answers.__file__).parents[1].joinpath("instruments").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_option_of_every_shipped_instrument_is_read_in_every_form(name):
    options = load_instrument(name).options
    wide = {ord(c): ord(c) + 0xFEE0 for c in string.ascii_letters + string.digits}
    for said in (options, *(tuple(labels[: len(options)]) for labels in LABELS.values())):
        for k, dress, form in itertools.product(range(len(options)), DRESS, [*FORMS, lambda t: t.translate(wide)]):
            assert read_option(dress.format(form(options[k])), options, said) == k, (dress, form)
            if said != options and form not in (str.lower,):
                assert read_option(dress.format(form(said[k])), options, said) == k, (dress, form)


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
        ("3 = disagree", DIGITS),
        ("3 = 1 + 2", DIGITS),
        ("3 = undecided", DIGITS),
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
    own = PROMPT._replace(options=("never", "no", "yes", "always"))
    for said, expected in (("Always.", 3), ("agree", None)):
        assert written_row("m", own, OPTIONS, decoding, Writing(said, "stop", 4))["choice"] == expected
    open_row = written_row("m", PROMPT._replace(answers=()), OPTIONS, decoding, Writing(text, "stop", 4))
    assert open_row["choice"] is None


def test_seeds_differ_by_prompt_and_sample_alone():
    decoding, row = Decoding(0.3, 200, 64, 7), PROMPT.row
    others = [{**row, "sample": 1}, {**row, "item": "b"}, {**row, "order": [3, 2, 1, 0]}]
    assert len({decoding.seed_of(r) for r in (row, *others)}) == 4
    assert decoding.seed_of({**row, "model": "another"}) == decoding.seed_of(row)
    assert decoding._replace(seed=8).seed_of(row) != decoding.seed_of(row)
    assert 0 <= decoding.seed_of(row) < 2**31  # servers take a signed 32-bit number
