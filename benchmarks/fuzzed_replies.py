# SPDX-License-Identifier: MIT
"""Is what a judge writes read rightly or not at all? Made-up replies whose meaning is known by how they are made.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/fuzzed_replies.py

Half of the replies are plain labels in the dress that models give them, half could not be read with certainty. Counted
are replies that are read as another label than was meant, and plain labels that are missed.
"""

import argparse
import random
import sys
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))

from data.judging.scales import SCALES, JudgeScale  # noqa: E402

PROSE = [
    "The text weighs its sides.",
    "It is ambivalent about the topic",
    "The writer praises lower taxes, with reservations,",
    "About 90% of it, or 2.5 times as much, is praise.",
    "Since the 19th century, COVID or not, nothing has changed...",
    'This text "overwhelmingly" highlights the negatives',
    "Revenue of 1,500 crowns; 3.75 a head",
]
NAMES = {"pair": "better"}  # what an instruction calls a label, if not by the scale
SEPARATORS = [" or ", ", ", " and ", "; ", " to ", "-", "–", " - ", "..", "|", " "]


class Reply(NamedTuple):
    """A made-up reply, and the label that it means; None where a reader could not be sure of exactly one."""

    text: str
    meant: str | None


def fuzzed(rng: random.Random, scale: JudgeScale) -> Reply:
    """Return one reply."""
    labels = scale.labels
    numbers = [name for name in labels if name.isdigit()]
    label = rng.choice(labels)
    other = rng.choice([name for name in labels if name != label])
    prose, pad = rng.choice(PROSE), rng.choice(["", " ", "\n", "\t ", "  \n"])
    spaced = rng.choice(SEPARATORS)
    right = [
        label, f'"{label}"', f"'{label}'", f"**{label}**", f"`{label}`", f"{label}.", f"Label: {label}",
        f"stance = {label}", f"**Answer: {label}**", f"SCORE:{label}", label.upper(), label.title(),
        f"{label} ({prose})", f"{label}\n\n{prose}", f'"{label}"\n{prose}\n{prose}',
        f"{label} ({prose})\n\nI am sure of {label}.", f"{label} ({label})",
        f"{NAMES.get(scale.name, scale.name)}: {label}",
        f"<think>{other}? {prose}</think>\n{label}", f"```\n{label}\n```",
    ]  # fmt: skip
    wrong = [
        f"{label}{spaced}{other}", f"I{'I' * rng.randrange(3)}", f"{label} ({other})",
        f"{label}\n\n{prose} So the label is {other}.", f"{label}\n{other}", f"{prose} {label}", f"It is {label}",
        f"not {label}", f"{label}? {other}!", prose, "", pad, "N/A", "three", "null", "½", "²", "٣", "③",
        f"no {label}", f"{label} {prose}", f'{{"{scale.name}": "{label}"}}', f"[{label}, {other}]", "refusals",
        "no refusal", "refusal/5", f"refused {label}", f"#{label}", f"{label}=", f"{other}: {label}", f"{label}{other}",
        f"more {label}", f"far-{label}", f"{label}-leaning", f"{label} wing", f"{label}ist", f"neither {label}",
        f"<think>{label}", f"A: {label}", f"{label}, I think", f"{label}!", f"the {label}", f"{label} but {other}",
    ]  # fmt: skip
    if numbers:
        number, top = rng.choice(numbers), max(map(int, numbers))
        another = rng.choice([name for name in numbers if name != number])
        wrong += [
            f"{number}{spaced}{another}", f"{number}.5", f"{number},5", f"-{number}", f"{number}{another}{number}0",
            f"{number}%", f"{number}/{top + rng.randint(1, 80)}", f"{number}/0", f"0{number}", f"{number}e0",
            f"{top + rng.randint(1, 9000)}", f"0x{number}", f"+{number}", f"{number}th", f"{number} of {top}",
            f"Label: {number} / {another}1", f"{number}{another}{another}{number}",
        ]  # fmt: skip
        # 3/5 is a rating; 1/2 of two answers may be either
        if rng.random() < 0.05:
            return Reply(f"{pad}{number}/{top}", number if len(numbers) > 2 else None)
    else:
        wrong += [f"{label}/{rng.randint(1, 20)}", str(rng.randint(0, 20)), f"{label}1", f"1 {label}"]
    if rng.random() < 0.5:
        return Reply(pad + rng.choice(right) + rng.choice(["", "\n", " "]), label)
    reply = pad + rng.choice(wrong)
    # two labels without a space may be a third one: 1 and 2 are 12
    return Reply(reply, plain if (plain := reply.strip().lower()) in labels else None)


def misread(scale: JudgeScale, n: int, seed: int) -> tuple[list[tuple[Reply, str | None]], int]:
    """Return the replies that are read wrongly, each with what was read, and how many of the n meant a label."""
    rng = random.Random(seed)
    wrong, n_meant = [], 0
    for _ in range(n):
        reply = fuzzed(rng, scale)
        try:
            found = scale.read(reply.text)
        except ValueError:
            found = None
        n_meant += reply.meant is not None
        if found != reply.meant:
            wrong.append((reply, found))
    return wrong, n_meant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{'scale':10}{'replies':>9}{'plain labels':>14}{'misread':>9}")
    for name, scale in SCALES.items():
        wrong, n_meant = misread(scale, options.replies, options.seed)
        print(f"{name:10}{options.replies:>9}{n_meant:>14}{len(wrong):>9}")
        for reply, found in wrong[:5]:
            print(f"  {reply.text!r} means {reply.meant}, read as {found}")


if __name__ == "__main__":
    main()
