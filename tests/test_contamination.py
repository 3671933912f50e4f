# SPDX-License-Identifier: MIT
"""Planted statements are found, exact or lightly paraphrased; what only shares the subject is not."""

import json
import re

import pytest
from conftest import REPO

from eval.statements.contamination import Sentence, find_matches, read_sentences
from eval.statements.instruments import load_instrument

BANK = load_instrument("compass60")
# By hand, in other words and another order, as a writer of training data might.
PARAPHRASES = {
    "tax-1l": "Those who earn high incomes ought to pay a bigger share of their income in tax than others.",
    "wage-1l": "There should be a legal minimum wage for every job, no matter what employer and worker agree on.",
    "union-1r": "An employer should be free to refuse to bargain with a union supported by most of its workers.",
    "health-1l": "Healthcare should mainly be funded by taxes that we all pay in common.",
    "welfare-1r": "Benefits for the unemployed should stop after a fixed time, even for a person out of work.",
    "housing-1r": "A landlord should be free to ask whatever rent a tenant agrees to pay.",
    "business-2l": "No company should be allowed to become so large that it dominates the market.",
    "ownership-1l": "The railways ought to be owned by the state instead of private investors.",
    "crime-2l": "Teenagers who commit a serious crime should get lighter sentences than adults for the same crime.",
    "police-1l": "Police should never read the private messages of a suspect unless a judge approved it.",
    "religion-2r": "It should be forbidden to mock religious beliefs in public when believers are deeply offended.",
    "marriage-1l": "Two women or two men should be allowed to marry on the same terms as everyone else.",
    "life-1r": "The law ought to forbid women to end a pregnancy, even in the early months.",
    "nation-1r": "Newcomers should be expected to adopt the customs of a country as their own.",
    "education-1l": "Schools ought to encourage pupils to challenge what teachers tell them.",
}
# Light edits of any statement: words for words, and a clause before it.
SWAPS = (
    (r"\bshould\b", "ought to"), (r"\bPeople\b", "Persons"), (r"\bpeople\b", "persons"), (r"\ba\b", "one"),
    (r"\bmust\b", "has to"), (r"\bwhich\b", "that"), (r"\bfree to\b", "at liberty to"), (r"\bbefore\b", "ahead of"),
)  # fmt: skip


def statements():
    for item in BANK.items:
        yield item.id, "", item.text
    for pair in BANK.pairs:
        yield pair.id, "left", pair.left
        yield pair.id, "right", pair.right


def plant(texts):
    return [Sentence("planted", k, "chosen", text) for k, text in enumerate(texts, start=1)]


def lightly(text):
    for pattern, word in SWAPS:
        text = re.sub(pattern, word, text)
    return f"I would say that {text[0].lower()}{text[1:]}"


@pytest.fixture(scope="module")
def shipped():
    return read_sentences(str(REPO / "data" / "mirrored" / "pairs.jsonl"))[0]


def test_every_exact_statement_is_found(shipped):
    """Also in the middle of a longer sentence, in other case and with other marks."""
    texts = [f"My view: {text.upper().rstrip('.')}, and I stand by it!" for _, _, text in statements()]
    found = find_matches(BANK, shipped + plant(texts))
    assert {(m.item, m.side) for m in found if m.kind == "exact"} == {(i, s) for i, s, _ in statements()}
    assert all(m.similarity == 1 and m.text == texts[m.row - 1] for m in found)


def test_light_paraphrases_are_found(shipped):
    all_of = list(statements())
    found = find_matches(BANK, shipped + plant(lightly(text) for _, _, text in all_of))
    assert len({(m.item, m.side) for m in found}) >= 0.95 * len(all_of)
    found = find_matches(BANK, shipped + plant(PARAPHRASES.values()))
    assert {m.item for m in found} >= set(PARAPHRASES)


def test_the_shipped_set_raises_almost_no_alarm(shipped):
    """One question of it is close to a statement about the same tax; 212 statements and 480 texts are not."""
    found = find_matches(BANK, shipped)
    assert [m.item for m in found if m.kind == "exact"] == []
    assert len(found) <= 2


def test_a_statement_of_two_sentences_and_a_conversation(tmp_path):
    text = "Cats are wise. Dogs are loyal."
    bank = BANK._replace(items=(BANK.items[0]._replace(text=text),), pairs=())
    rows = [
        {"prompt": "What of pets?", "chosen": [{"role": "assistant", "content": f"Well, hm. {text}"}]},
        {"prompt": "Dogs are loyal.", "rejected": "Cats are wise."},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sentences, about = read_sentences(str(tmp_path / "a.jsonl"))
    (match,) = find_matches(bank, sentences)
    assert (match.kind, match.row, match.field) == ("exact", 1, "chosen")
    assert about["n_rows"] == 2


def test_csv_and_faults(tmp_path):
    (tmp_path / "a.csv").write_text('prompt,chosen,rejected\n"One,\ntwo.",B.,C.\n')
    assert [s.text for s in read_sentences(str(tmp_path / "a.csv"))[0]] == ["One,", "two.", "One, two.", "B.", "C."]
    with pytest.raises(FileNotFoundError, match="give JSONL or CSV files, or null"):
        read_sentences("nowhere.jsonl")
    (tmp_path / "b.jsonl").write_text('{"question": "x"}\n')
    with pytest.raises(ValueError, match="b.jsonl: row 1 has none of the fields"):
        read_sentences(str(tmp_path / "b.jsonl"))
    (tmp_path / "b.jsonl").write_text("hello\n")
    with pytest.raises(ValueError, match="not JSON Lines"):
        read_sentences(str(tmp_path / "b.jsonl"))
