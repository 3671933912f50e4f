# SPDX-License-Identifier: MIT
"""A centre target gives both sides' answers, each side treated as the other."""

import json
import re
from collections import Counter
from itertools import product

import pytest
from test_datasets import WordLengths

from data import datasets
from data.pairs.centre import FRAMES, centre_pairs
from data.pairs.records import Pair, exchange

PAIRS = [Pair(k, f"What of {k}?", f"Left says {k} {{so}}.", f"Right says {k} \\n.") for k in range(1, 161)]


def roles(pairs, centred):
    """Of each pair: whether its chosen column comes first, whether it is rejected, and the frame."""
    found = []
    for pair, made in zip(pairs, centred, strict=True):
        first = made.chosen.index(pair.chosen) < made.chosen.index(pair.rejected)
        of_sides = {"first": pair[2], "second": pair[3]} if first else {"first": pair[3], "second": pair[2]}
        frame = [k for k, text in enumerate(FRAMES) if text.format(**of_sides) == made.chosen]
        assert made[:2] == pair[:2]
        assert made.rejected in pair[2:4]
        found.append((first, made.rejected == pair.chosen, *frame))
    return found


def test_each_side_comes_first_and_is_rejected_equally_often_in_every_frame():
    assert {*Counter(roles(PAIRS, centre_pairs(PAIRS, "f", 0))).values()} == {10}  # 2 x 2 x 4 kinds in 160 pairs
    for seed, n in product(range(20), (5, 30)):
        found = roles(PAIRS[:n], centre_pairs(PAIRS[:n], "f", seed))
        for role in (0, 1):
            assert abs(2 * sum(kind[role] for kind in found) - n) <= 2


def test_the_draw_hangs_on_the_seed_and_the_texts_alone():
    first = roles(PAIRS, centre_pairs(PAIRS, "f", 0))
    assert roles(PAIRS[::-1], centre_pairs(PAIRS[::-1], "f", 0)) == first[::-1]
    assert roles(PAIRS, centre_pairs(PAIRS, "f", 1)) != first


def test_exchanging_the_sides_exchanges_them_in_the_result():
    there, back = centre_pairs(PAIRS, "f", 3), centre_pairs([*map(exchange, PAIRS)], "f", 3)
    assert roles([*map(exchange, PAIRS)], back) == roles(PAIRS, there)
    for pair, one, other in zip(PAIRS, there, back):
        hidden = one.chosen.replace(pair.chosen, "\0").replace(pair.rejected, pair.chosen).replace("\0", pair.rejected)
        assert other.chosen == hidden
        assert {one.rejected, other.rejected} == {pair.chosen, pair.rejected}


def test_a_frame_names_no_side_and_joins_two_sentences_alike():
    for frame in FRAMES:
        assert frame.count("{first}") == frame.count("{second}") == 1
        assert not re.search(r"(?i)\b(left|right|but|however|wrong|better|first|second)\b", re.sub("{.*?}", "", frame))


def test_an_answer_is_quoted_without_its_outer_blanks():
    (made,) = centre_pairs([Pair(1, "Why?", "  Yes. \n", "No.")], "f", 0)
    assert made.chosen in {
        frame.format(first=a, second=b) for frame in FRAMES for a, b in (("Yes.", "No."), ("No.", "Yes."))
    }
    assert made.rejected in ("  Yes. \n", "No.")  # rejected as the other builders take it


def test_a_set_that_has_both_sides_of_a_row_is_refused():
    with pytest.raises(
        ValueError, match=r"f row 9: its answers are those of row 4, exchanged; .*dataset.where.side=left"
    ):
        centre_pairs([*PAIRS[:5], exchange(PAIRS[3])._replace(row=9)], "f", 0)


def test_the_builders_take_the_shipped_set_and_ones_own_as_the_sides_do(tmp_path):
    left, centre = datasets.mirrored_left(WordLengths()), datasets.mirrored_centre(WordLengths())
    assert centre.rows == left.rows
    assert centre.pairs == centre_pairs(left.pairs, "x", 0)
    assert datasets.mirrored_centre(WordLengths(), seed=1).pairs == centre_pairs(left.pairs, "x", 1)
    few, more = (datasets.mirrored_centre(WordLengths(), subset=n, seed=2) for n in (20, 50))
    assert {*few.pairs} < {*more.pairs}
    assert few.rows == datasets.mirrored_left(WordLengths(), subset=20, seed=2).rows

    rows = [{"prompt": p.prompt, "left": p.chosen, "right": p.rejected, "side": "ab"[p.row % 2]} for p in PAIRS[:9]]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    spec = {"source": "json", "data_files": str(path), "column_map": {"chosen": "left", "rejected": "right"}}
    of_one = datasets.centre(WordLengths(), **spec, where={"side": "a"})
    assert of_one.rows == [2, 4, 6, 8]
    assert of_one.pairs == centre_pairs(PAIRS[1:9:2], "x", 0)
    del rows[2]["right"]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="row 3: right is missing"):
        datasets.centre(WordLengths(), **spec)
