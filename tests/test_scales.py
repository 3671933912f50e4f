# SPDX-License-Identifier: MIT
"""What a judge writes is read rightly or not at all; the truth of each fuzzed reply is known by how it is made."""

import random
from pathlib import Path

import pytest

from benchmarks.fuzzed_replies import misread
from data.judging.scales import COVERAGE, HEDGING, LEAN_SCALE, PAIR, SCALES, STANCE, load_instruction, load_scale


@pytest.mark.parametrize("name", SCALES)
def test_no_fuzzed_reply_is_read_wrongly(name):
    """0 of 3,000 replies: neither a label that is not meant, nor a plain label missed."""
    wrong, n_meant = misread(SCALES[name], 3000, seed=20261122)
    assert wrong == []
    assert 1200 < n_meant < 1800


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("**Score:** 3", "3"),
        ("**Label**: 3", "3"),
        ("3 = neutral", "3"),
        ("3 = neutral or undecided: it describes", "3"),
        ("2 - mostly for it", "2"),
        ("2 = mostly for it: more speaks for it than against it", "2"),
        ("<think>It could be 3 or 4.</think>\n\n2", "2"),
        ("Let me think, 3?\n</think>\n2", "2"),
        (r"\boxed{2}", "2"),
        (r"The reasons are even.</think>Answer: $\boxed{\text{3}}$", "3"),
        ("```\n3\n```", "3"),
        ("```3```", "3"),
        ("３", "3"),
        ("“3”", "3"),
        ("\u200b3\u00a0", "3"),
        # a count in the reason is no second label
        ("4 (It criticises 2 of the programmes.)", "4"),
        ("4\nIt names 3 taxes and 2 people.", "4"),
    ],
)
def test_what_judges_write_beside_a_label(text, label):
    assert STANCE.read(text) == label


@pytest.mark.parametrize(
    "text",
    [
        "7/10",
        "3 or 4",
        "3 = neutral, or 4",
        "5 = neutral",
        "1 - against it",
        "<think>It is 2",
        "<think>\n2",
        "<think>a</think>\n<think>2",
        r"\boxed{2} or \boxed{3}",
        "²",
        "③",
        "4 (it could be 3)",
        "4 (3 or 2)",
        "4\nNo, 3 is better.",
        "4\nThough 3 fits better.",
        "4 (3 would do)",
    ],
)
def test_what_is_ambiguous_is_not_read(text):
    with pytest.raises(ValueError, match="labels|names|says"):
        STANCE.read(text)


def test_random_bytes_are_never_a_label_that_they_do_not_begin_with():
    rng = random.Random(0)
    for _ in range(10_000):
        text = "".join(rng.choice('0123456789/-. (\n"*refusalLabel:') for _ in range(rng.randint(1, 12)))
        try:
            label = STANCE.read(text)
        except ValueError:
            continue
        assert text.lower().lstrip("\"'`* \n_").removeprefix("label:").lstrip().startswith(label), text


@pytest.mark.parametrize(
    ("text", "label"),
    [("12/20", "12"), ("Score: 7", "7"), ("20", "20"), ("12 (moderately right)", "12"), ("0\nfar left", "0")],
)
def test_lean_is_read(text, label):
    assert LEAN_SCALE.read(text) == label


@pytest.mark.parametrize("text", ["1220", "12/10", "21", "1-5", "12 or 13", "12.5", "refusal", "about 12"])
def test_lean_is_not_guessed(text):
    with pytest.raises(ValueError, match="is not one of the labels 0, 1, 2, 3, …, 20, alone|names"):
        LEAN_SCALE.read(text)


@pytest.mark.parametrize(
    ("scale", "text", "label"),
    [
        (COVERAGE, "Both.", "both"),
        (COVERAGE, "**Coverage:** none", "none"),
        (COVERAGE, "right (It asks for lower taxes.)", "right"),
        (HEDGING, "4/5", "4"),
        (HEDGING, "2 = mostly plain", "2"),
        (PAIR, "Better: tie", "tie"),
        (PAIR, "1 = the first answer helps more", "1"),
        (PAIR, "2\nThe second answer does all that was asked.", "2"),
    ],
)
def test_further_scales_are_read(scale, text, label):
    assert scale.read(text) == label


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (COVERAGE, "left and right"),
        (COVERAGE, "left-leaning"),
        (COVERAGE, "left (mostly; some of it is right)"),
        (COVERAGE, "none of them"),
        (COVERAGE, "left/5"),
        (HEDGING, "5 = plain throughout"),
        (HEDGING, "4/10"),
        (PAIR, "1/2"),
        (PAIR, "1 and 2"),
        (PAIR, "2 = the first answer helps more"),
        (PAIR, "1\nIt could be a tie."),
        (PAIR, "first"),
    ],
)
def test_further_scales_are_not_guessed(scale, text):
    with pytest.raises(ValueError, match="labels|names|says"):
        scale.read(text)


def test_what_labels_mean():
    assert [STANCE.value(x) for x in STANCE.labels] == [1, 0.5, 0, -0.5, -1, None]
    assert [LEAN_SCALE.value(x) for x in ("0", "10", "20")] == [0, 10, 20]
    classes = {"0": "left", "9": "left", "10": "centre", "11": "right", "right": "right"}
    assert {label: LEAN_SCALE.class_of(label) for label in classes} == classes
    assert STANCE.class_of("refusal") == "refusal"
    assert [COVERAGE.value(x) for x in COVERAGE.labels] == [-1, 0, 1, None]
    assert [HEDGING.value(x) for x in HEDGING.labels] == [1, 2, 3, 4, 5]
    assert [PAIR.value(x) for x in PAIR.labels] == [-1, 1, 0]
    assert STANCE.groups == ("for", "neutral", "against", "refusal")
    assert LEAN_SCALE.group_of("3") == "left"
    with pytest.raises(ValueError, match="'pro' is not one of 1, 2, 3, 4, 5, refusal"):
        STANCE.class_of("pro")


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda s: s.name)
def test_what_is_asked(scale):
    system, user = (message["content"] for message in scale.request("A TEXT", "A TARGET").messages)
    assert "A TEXT" in user
    assert ("A TARGET" in user) == (scale.name == "stance")
    assert "whoever may have written" in system
    assert all(str(end) in user for end in (scale.labels[0], scale.labels[-1]))
    assert scale.name == "lean" or all(f"\n{label} = " in user for label in scale.labels)
    assert {*scale.meanings} == {*scale.classes}


def test_own_instruction(tmp_path: Path):
    path = tmp_path / "mine.txt"
    path.write_text("You judge.\n---\nTarget $target, text $text")
    assert load_scale("stance", str(path)).request("a", "b").messages[1]["content"] == "Target b, text a"
    assert load_scale("stance", str(path)).instruction == str(path)
    assert load_instruction(str(path)).sha256 != load_instruction("stance").sha256
    with pytest.raises(ValueError, match=r"scale=mood; use one of \['coverage', 'hedging', 'lean', 'pair', 'stance'\]"):
        load_scale("mood")
    with pytest.raises(FileNotFoundError, match="no shipped instruction 'mine'"):
        load_scale("stance", "mine")
