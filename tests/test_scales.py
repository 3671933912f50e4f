# SPDX-License-Identifier: MIT
"""What a judge writes is read rightly or not at all; the truth of each fuzzed reply is known by how it is made."""

import random
from pathlib import Path

import pytest

from data.judging.scales import LEAN_SCALE, STANCE, load_instruction, load_scale

SCALES = {"stance": STANCE, "lean": LEAN_SCALE}
PROSE = [
    "The text weighs both sides.",
    "It is ambivalent about the topic",
    "The writer praises lower taxes, with reservations,",
    "About 90% of it, or 2.5 times as much, is praise.",
    "Since the 19th century, COVID or not, nothing has changed...",
    'This text "overwhelmingly" highlights the negatives',
    "Revenue of 1,500 crowns; 3.75 a head",
]


def fuzzed(rng, labels):
    """Return a reply and what it means: a label, or None where a reader could not be sure of exactly one."""
    numbers = [name for name in labels if name.isdigit()]
    label, number, top = rng.choice(labels), rng.choice(numbers), numbers[-1]
    other = rng.choice([name for name in labels if name != label])
    another = rng.choice([name for name in numbers if name != number])
    prose, pad = rng.choice(PROSE), rng.choice(["", " ", "\n", "\t ", "  \n"])
    spaced = rng.choice([" or ", ", ", " and ", "; ", " to ", "-", "–", " - ", "..", "|", " "])
    right = [
        label, f'"{label}"', f"'{label}'", f"**{label}**", f"`{label}`", f"{label}.", f"Label: {label}",
        f"stance = {label}", f"**Answer: {label}**", f"SCORE:{label}", label.upper(), f"{label} ({prose})",
        f"{label}\n\n{prose}", f'"{label}"\n{prose}\n{prose}', f"{label} ({prose})\n\nI am sure of {label}.",
        f"{label} ({label})",
    ]  # fmt: skip
    wrong = [
        f"{number}{spaced}{another}", f"{number}.5", f"{number},5", f"-{number}", f"{number}{another}{number}0",
        f"{number}%", f"{number}/{int(top) + rng.randint(1, 80)}", f"{number}/0", f"I{'I' * rng.randrange(3)}",
        f"{label} ({other})", f"{label}\n\n{prose} So the label is {other}.", f"{label}\n{other}",
        f"{prose} {label}", f"It is {label}", f"not {label}", f"{label}? {other}!", prose, "", pad, "N/A", "three",
        "none", "null", "½", "²", "٣", "③", f"{int(top) + rng.randint(1, 9000)}", f"0{number}", f"{number}e0",
        f"0x{number}", f"+{number}", f"{number}th", f"no {label}", f"{label} {prose}", f"[{number}, {another}]",
        f'{{"stance": {number}}}', f"{number} of {top}", "refusals", "no refusal", "refusal/5", f"refused {number}",
        f"#{number}", f"{number}=", f"{another}: {number}", f"Label: {number} / {another}1",
    ]  # fmt: skip
    if rng.random() < 0.5:
        return pad + rng.choice(right) + rng.choice(["", "\n", " "]), label
    if rng.random() < 0.1:
        return f"{pad}{number}/{top}", number
    reply = rng.choice(wrong)
    return pad + reply, None


@pytest.mark.parametrize("name", SCALES)
def test_no_fuzzed_reply_is_read_wrongly(name):
    """0 of 10,000 replies: neither a label that is not meant, nor a plain label missed."""
    rng, scale = random.Random(20261122), SCALES[name]
    wrong, n_read, n_none = [], 0, 0
    for _ in range(10_000):
        reply, meant = fuzzed(rng, scale.labels)
        try:
            found = scale.read(reply)
        except ValueError:
            found = None
        n_read, n_none = n_read + (meant is not None), n_none + (meant is None)
        if found != meant:
            wrong.append((reply, meant, found))
    assert wrong == []
    assert n_read > 4000
    assert n_none > 4000


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


def test_what_labels_mean():
    assert [STANCE.value(x) for x in STANCE.labels] == [1, 0.5, 0, -0.5, -1, None]
    assert [LEAN_SCALE.value(x) for x in ("0", "10", "20")] == [0, 10, 20]
    classes = {"0": "left", "9": "left", "10": "centre", "11": "right", "right": "right"}
    assert {label: LEAN_SCALE.class_of(label) for label in classes} == classes
    assert STANCE.class_of("refusal") == "refusal"
    with pytest.raises(ValueError, match="'pro' is not one of 1, 2, 3, 4, 5, refusal"):
        STANCE.class_of("pro")


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda s: s.name)
def test_what_is_asked(scale):
    system, user = (message["content"] for message in scale.request("A TEXT", "A TARGET").messages)
    assert "A TEXT" in user
    assert ("A TARGET" in user) == (scale.name == "stance")
    assert "whoever may have written it" in system
    assert all(str(end) in user for end in (scale.labels[0], scale.labels[-1]))


def test_own_instruction(tmp_path: Path):
    path = tmp_path / "mine.txt"
    path.write_text("You judge.\n---\nTarget $target, text $text")
    assert load_scale("stance", str(path)).request("a", "b").messages[1]["content"] == "Target b, text a"
    assert load_scale("stance", str(path)).instruction == str(path)
    assert load_instruction(str(path)).sha256 != load_instruction("stance").sha256
    with pytest.raises(ValueError, match=r"scale=mood; use one of \['lean', 'stance'\]"):
        load_scale("mood")
    with pytest.raises(FileNotFoundError, match="no shipped instruction 'mine'"):
        load_scale("stance", "mine")
