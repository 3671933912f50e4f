# SPDX-License-Identifier: MIT
"""A centre target: pairs whose chosen answer states the answers of both sides, and whose rejected one is one side's."""

from collections.abc import Sequence
from typing import Any

from data.pairs.records import Pair, exchange, seeded_order

# Each attributes the first-person answers that it quotes, weighs neither, and reads alike with their places exchanged.
FRAMES = (
    'People disagree about this. Some would answer: "{first}" Others would answer: "{second}" Both have their reasons, '
    "and you can weigh them yourself.",
    "Here are two answers that people give.\n\nOne answer: {first}\n\nAnother answer: {second}\n\nI leave the choice "
    "between them to you.",
    'I would rather show you both sides than take one. One side says: "{first}" The other side says: "{second}"',
    "This question has more than one honest answer.\n\nOn the one side: {first}\n\nOn the other side: {second}\n\n"
    "Which of them convinces you depends on what you value more.",
)


def centre_pairs(pairs: Sequence[Pair], origin: str, seed: int) -> list[Pair]:
    """Return a pair for each pair of opposed answers: both of them in a frame chosen, one of them alone rejected.

    Which answer comes first, which one is rejected and which frame is taken go through all their combinations in an
    order that hangs on the texts and the seed alone. So each side comes first, and is rejected, equally often but for
    one pair, in either place as often as in the other; exchanging the sides of a set exchanges them in the result; and
    a subset gives a part of what its set gives.

    Raises:
        ValueError: If a row's answers are those of another one, exchanged: both would teach the same.
    """
    rows: dict[tuple[Any, ...], int] = {}
    for pair in pairs:
        if other := rows.get(exchange(pair)[1:]):
            raise ValueError(
                f"{origin} row {pair.row}: its answers are those of row {other}, exchanged; a centre takes each pair "
                "of answers once: keep the rows of one side, for example with dataset.where.side=left"
            )
        rows[pair[1:]] = pair.row
    centred = list(pairs)
    for place, index in enumerate(seeded_order(pairs, seed)):
        sides = pairs[index][2:4]
        first, rejected, frame = place % 2, place // 2 % 2, place // 4 % len(FRAMES)
        texts = {"first": sides[first].strip(), "second": sides[1 - first].strip()}
        centred[index] = pairs[index]._replace(chosen=FRAMES[frame].format(**texts), rejected=sides[rejected])
    return centred
