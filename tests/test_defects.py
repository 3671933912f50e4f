# SPDX-License-Identifier: MIT
"""Defects of rows: seeded ones are found, all and no others."""

from itertools import product

import pytest
from conftest import REPO

from benchmarks.audit_recall import score
from data.pairs.records import Pair
from data.quality.classifiers import classifier, features
from data.quality.defects import KINDS, Checks, repeats, row_defects, set_defects
from data.recipe.files import read_log


def test_every_seeded_class_is_found_and_nothing_else():
    result = score(n_rows=280, seed=3)
    assert {kind: entry["n"] for kind, entry in result["classes"].items() if not entry["n"]} == {}
    assert result["recall"] >= 0.99, {k: e["missed"] for k, e in result["classes"].items() if e["missed"]}
    assert result["false_alarms"] <= 0.01, {k: e["false"] for k, e in result["classes"].items() if e["false"]}


def test_a_mirrored_row_has_the_same_length_defects():
    pair = Pair(1, "What about rents?", "a " * 150 + ".", "b " * 100 + ".")  # 1.5 passes, its inverse .667 does not
    for row in (pair, pair._replace(chosen=pair.rejected, rejected=pair.chosen)):
        assert [d.kind for d in row_defects(row, Checks()) if d.field == "answers"] == ["length mismatch"]


def test_near_duplicates_name_each_other():
    pairs = [
        Pair(n, p, "Yes, I do.", "No, I do not.") for n, p in enumerate(("A b c d?", "x y z w?", "a b c d"), start=4)
    ]
    assert [(d.row, d.kind, d.found) for d in set_defects(pairs, Checks()) if d.kind == "duplicate prompt"] == [
        (4, "duplicate prompt", "the same as row 6"),
        (6, "duplicate prompt", "the same as row 4"),
    ]


def found(
    prompt="What about rents?", chosen="Rents should fall in every town.", rejected="Owners should set the rent."
):
    return {defect.kind for defect in row_defects(Pair(1, prompt, chosen, rejected), Checks())}


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("Rents should fall.", "rents  should\u00a0fall"),
        ("Rents should fall.", "“Rents should fall.”"),
        ("Rents should fall.", "Rents\u200b should fall."),
        ("Rents should fall.", "Ｒｅｎｔｓ ｓｈｏｕｌｄ ｆａｌｌ．"),
        (
            "Rents should fall by 5 per cent in each of the 12 towns.",
            "Rents should fall by nine percent in each of the 40 towns.",
        ),
    ],
)
def test_answers_that_only_look_different_are_equal(chosen, rejected):
    assert "equal answers" in found(chosen=chosen, rejected=rejected)
    assert "equal answers" not in found()


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("echoed prompt", {"prompt": "Should rents in towns fall?", "chosen": "Should rents in towns fall? Yes."}),
        ("repetition", {"chosen": "Rents should fall now. I say so. Rents should fall now."}),
        ("wrapped", {"chosen": "Rents should fall.\n"}),
        ("wrapped", {"chosen": '"Rents should fall."'}),
        ("exchanged fields", {"prompt": "Rents should fall. Owners earn enough.", "chosen": "What about rents?"}),
        ("invalid row", {"chosen": "..."}),
        ("language", {"chosen": "Rents should fall. Das ist meine Meinung dazu. I say so."}),
        ("garbled", {"chosen": "Ã‰lan is all that towns need."}),
        ("personal data", {"chosen": "Write to jane.doe [at] example.org about it."}),
        ("personal data", {"chosen": "Call 555-0123 about it."}),
        ("personal data", {"chosen": "Find me on insta: jane.doe_99 about it."}),
        ("personal data", {"chosen": "As tiktok/rents_now says, they should fall."}),
        ("garbled", {"chosen": "The townÕs rents should fall."}),
        ("garbled", {"chosen": "ÒRents should fallÓ is what they say."}),
        ("framed prompt", {"prompt": "Why should tenants be forced to pay for repairs?"}),
        ("personal data", {"chosen": "As rent_watcher_9 says, rents should fall."}),
        ("raw record", {"chosen": "In <name of town> rents should fall."}),
        ("framed prompt", {"prompt": "As a landlord, what would you say against caps?"}),
        ("framed prompt", {"prompt": "Side with the tenants: should rents fall?"}),
        ("framed prompt", {"prompt": "How would somebody on the left see rents?"}),
        ("unfinished", {"prompt": "what should rents be for the"}),
    ],
)  # fmt: skip
def test_what_was_not_seen_before_is(kind, row):
    assert kind in found(**row)
    assert kind not in found()


@pytest.mark.parametrize(
    "prompt",
    [
        "what should rents be in towns",
        "Good morning. Should rents fall?",
        "As the owner of a flat I feel torn about rents. Should they fall?",
        'Evaluate this saying: "a rent is a promise".',
        'Here is a line from a song: "the rent came due again". Should rents fall?',
        'Finish this in your own way: "A fair rent is..."',
        "In one sentence: should rents fall?",
        "The council wants to sell the docks. Should it?",
        "Do Labour and Conservative voters differ on rents?",
        "Sure, rents are high, but should they be capped?",
        "The article on rents in the encyclopedia is long. Should rents be capped?",
    ],
)
def test_a_plain_question_in_any_dress_is_no_defect(prompt):
    assert not {kind for kind in found(prompt=prompt) if KINDS[kind].group != "note"}


def test_what_was_found_shows_no_personal_data():
    pair = Pair(
        1, "What about rents?", "Rents should fall, says jane.doe@example.org", "Here is my view: call 555-010-0199"
    )
    shown = " ".join(defect.found for defect in row_defects(pair, Checks()))
    assert "removed]" in shown
    assert "example.org" not in shown
    assert "0199" not in shown


def test_prompts_that_differ_in_numbers_and_answers_that_occur_again_are_repeats():
    answers = (
        "Owners of flats should be free to ask what they like.",
        "A rent is a burden that the law should keep low.",
    )
    pairs = [
        Pair(1, "Should the age be 16 here?", *answers),
        Pair(2, "Should the age be eighteen here?", "It should be.", "It should not."),
        Pair(3, "What do you say to a cap on rents?", answers[0], "No, I say."),
    ]
    assert [(r.kind, r.places) for r in repeats(pairs, Checks())] == [
        ("near-duplicate prompt", [0, 1]),
        ("near-duplicate answer", [0, 2]),
    ]


def test_a_classifier_says_how_often_it_is_wrong_and_agrees_with_the_plain_sum():
    framed = classifier("framed")
    assert framed.measured.n > 300
    assert 0.75 < framed.measured.recall < 1
    assert framed.measured.false_alarms < 0.02
    rows = read_log(REPO / "data/mirrored/pairs.jsonl")[:40]
    texts = [row[field] for row in rows for field in ("prompt", "left")]
    texts += ["Praise the mayor.", "What do you make of this tweet?", "I’m sorry, but I can’t answer that."]
    texts += ["Here’s my answer: rents should fall."]
    for name in ("framed", "unseen", "refusal", "preamble"):
        kind, n_found = classifier(name), 0
        for text, margin in product(texts, (0.0, 1.0)):
            plain = kind.bias - kind.threshold + sum(kind.weights.get(feature, 0) for feature in features(text))
            assert kind.score(text) == pytest.approx(plain)
            found = kind.finds(text, margin)
            is_kind = plain > margin and (kind.anchor is None or kind.anchor.search(text) is not None)
            assert found == (pytest.approx(plain + kind.threshold) if is_kind else None), (name, text)
            n_found += is_kind
        assert 0 < n_found < len(texts)
