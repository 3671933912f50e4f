# SPDX-License-Identifier: MIT
"""Planted statements are found, exact or lightly paraphrased; what only shares the subject is not."""

import gzip
import hashlib
import json
import re

import pytest
from conftest import REPO

from data.pairs.records import is_held_out
from data.quality.contamination import (
    Sentence,
    Statement,
    find_matches,
    is_row_held_out,
    overlaps,
    read_sentences,
    shipped_statements,
)
from data.recipe.files import to_jsonl, to_parquet

STATEMENTS = [statement for statement in shipped_statements() if statement.instrument == "compass60"]
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
    texts = [f"My view: {s.text.upper().rstrip('.')}, and I stand by it!" for s in STATEMENTS]
    found = find_matches(shipped + plant(texts), STATEMENTS)
    assert [(m.item, m.side, m.kind) for m in found] == [(s.item, s.side, "exact") for s in STATEMENTS]
    assert all(m.similarity == 1 and m.text == texts[m.row - 1] for m in found)


def test_light_paraphrases_are_found(shipped):
    found = find_matches(shipped + plant(lightly(s.text) for s in STATEMENTS), STATEMENTS)
    assert len({(m.item, m.side) for m in found}) >= 0.95 * len(STATEMENTS)
    found = find_matches(shipped + plant(PARAPHRASES.values()), STATEMENTS)
    assert {m.item for m in found} >= set(PARAPHRASES)


def test_the_shipped_set_raises_almost_no_alarm(shipped):
    """One question of it is close to a statement about the same tax; 212 statements and 480 texts are not."""
    found = find_matches(shipped, STATEMENTS)
    assert [m.item for m in found if m.kind == "exact"] == []
    assert len(found) <= 2


def test_a_statement_of_two_sentences_and_a_conversation(tmp_path):
    text = "Cats are wise. Dogs are loyal."
    rows = [
        {"prompt": "What of pets?", "chosen": [{"role": "assistant", "content": f"Well, hm. {text}"}]},
        {"prompt": "Dogs are loyal.", "rejected": "Cats are wise."},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sentences, about = read_sentences(str(tmp_path / "a.jsonl"))
    (match,) = find_matches(sentences, [Statement(text, "mine", "pets")])
    assert (match.kind, match.row, match.field) == ("exact", 1, "chosen")
    assert about["n_rows"] == 2


def test_every_form_that_the_trainer_takes(tmp_path):
    # our own writer leaves U+2028 as it is, and only a line feed ends a line of JSON Lines
    rows = [
        {"prompt": "One,\ntwo.", "chosen": "B\u2028b.", "rejected": "C."},
        {"prompt": "D?", "chosen": "E.", "rejected": "F."},
    ]
    table = 'prompt{0}chosen{0}rejected\n"One,\ntwo."{0}B\u2028b.{0}C.\nD?{0}E.{0}F.\n'
    contents = {
        "a.jsonl": to_jsonl(rows).encode(),
        "a.json": json.dumps(rows, indent=1).encode(),
        "a.csv": table.format(",").encode("utf-8-sig"),
        "a.tsv": table.format("\t").encode(),
        "a.parquet": to_parquet(rows),
        "a.jsonl.gz": gzip.compress(to_jsonl(rows).encode()),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        sentences, about = read_sentences(str(tmp_path / name))
        texts = ["One,", "two.", "One, two.", "B\u2028b.", "C.", "D?", "E.", "F."]
        assert [sentence.text for sentence in sentences] == texts, name
        assert about["n_rows"] == 2
        assert about["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "x"}\n', "training_data: .*a.jsonl: row 1 has none of the fields .* column_map: {prompt: NAME"),
        ("hello\n", "training_data: .*a.jsonl: cannot be read as json: row 1: no JSON"),
        ("", "training_data: .*a.jsonl: no rows"),
    ],
)
def test_training_data_that_cannot_be_read_is_refused(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_sentences(str(tmp_path / "a.jsonl"))
    with pytest.raises(FileNotFoundError, match="give JSONL, JSON, CSV, TSV or parquet files, or null"):
        read_sentences("nowhere.jsonl")


def test_overlaps_finds_shared_runs_and_the_nearest_statement():
    texts = ("one two three four five six seven eight nine", "Taxes must fall.")
    statements = [Statement(text, "mine", str(number)) for number, text in enumerate(texts)]
    texts = [
        "zero One two, three four five six seven eight!",  # an 8-gram
        "one two three four five six seven zero",  # only seven words in a row
        "I say taxes must fall now.",  # a short statement, whole
        "nothing of the kind",
    ]
    found = overlaps(texts, statements)
    assert [overlap.shared for overlap in found] == [
        "one two three four five six seven eight",
        None,
        "taxes must fall",
        None,
    ]
    assert [overlap.nearest for overlap in found] == [statements[0], statements[0], statements[1], None]
    assert found[0].similarity == pytest.approx(6 / 8)  # 7 and 7 3-grams, 6 shared
    assert found[3].similarity == 0


def test_instruments_are_read_as_plain_data(tmp_path):
    (tmp_path / "mine.txt").write_text("Taxes are too high for all of us.\n\nRents are too low.\n")
    (tmp_path / "mine.yaml").write_text("items: [{id: 1, text: One.}]\npairs: [{id: p, left: Two., right: Three.}]")
    found = shipped_statements([tmp_path / "mine.txt", tmp_path / "mine.yaml"])
    assert [(s.text, s.id) for s in found if s.instrument == "mine"] == [
        ("Taxes are too high for all of us.", "line 1"),
        ("Rents are too low.", "line 3"),
        ("One.", "1"),
        ("Two.", "p left"),
        ("Three.", "p right"),
    ]
    assert len([s for s in found if s.instrument == "compass60"]) >= 180
    for name, text in (("a.yaml", "items: [{id: 1}]"), ("b.yaml", "- 1"), ("c.txt", "\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=name):
            shipped_statements([tmp_path / name])
    with pytest.raises(FileNotFoundError, match="no such instrument"):
        shipped_statements(["nowhere.yaml"])


def test_columns_under_other_names_globs_and_folders_are_read(tmp_path):
    table = "question,yes,no\nD?,E. F.,G.\n"
    (tmp_path / "mine.csv").write_text(table)
    columns = {"prompt": "question", "chosen": "yes", "rejected": "no"}
    texts = ["D?", "E.", "F.", "E. F.", "G."]
    for source in (
        {"source": str(tmp_path / "mine.csv")},
        {"source": "csv", "data_files": str(tmp_path / "m*.csv")},
        {"source": str(tmp_path), "data_files": ["mine.csv"]},
        {"source": str(tmp_path), "split": "train"},
    ):
        sentences, about = read_sentences({**source, "column_map": columns})
        assert [sentence.text for sentence in sentences] == texts
        assert [sentence.field for sentence in sentences] == ["prompt", "chosen", "chosen", "chosen", "rejected"]
        assert about["n_rows"] == 1
    of_topics = {"source": str(tmp_path / "mine.csv"), "column_map": {**columns, "topic": "subject"}}
    assert read_sentences(of_topics)[1]["n_rows"] == 1
    with pytest.raises(ValueError, match="training_data: column_map names question; use prompt, chosen"):
        read_sentences({"source": str(tmp_path / "mine.csv"), "column_map": {"question": "prompt"}})
    with pytest.raises(ValueError, match=r"training_data: .* has file; use source and any of data_files, split"):
        read_sentences({"source": "mine.csv", "file": "x"})
    with pytest.raises(ValueError, match="training_data: 5 names no set; give a file"):
        read_sentences(5)


def test_rows_whose_prompts_a_training_held_out_are_not_looked_at(tmp_path):
    rows = [{"q": f"Why {k}?", "chosen": f"So {k}.", "rejected": "No."} for k in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": str(tmp_path / "a.jsonl"), "column_map": {"prompt": "q"}}
    sentences, about = read_sentences({**source, "hold_out": 0.25})
    held = {number for number, row in enumerate(rows, start=1) if is_held_out(row["q"], 0.25)}
    assert {sentence.row for sentence in sentences} == {*range(1, 41)} - held
    assert (about["n_rows"], about["hold_out"], about["n_held_out"]) == (40, 0.25, len(held))
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    assert not any(
        is_row_held_out({"prompt": f"Why {k}?", "chosen": turns, "rejected": "No."}, {}, 0.9) for k in range(9)
    )
    for share in (1, "x"):
        with pytest.raises(ValueError, match=f"training_data: hold_out={share}; use a share from 0 to below 1"):
            read_sentences({**source, "hold_out": share})


@pytest.mark.parametrize(
    "chosen",
    [
        [{"from": "gpt", "value": "E."}],
        {"role": "assistant", "content": "E."},
        [{"role": "assistant", "content": [{"type": "text", "text": "E."}]}],
        {"messages": [{"role": "assistant", "content": "E."}]},
        "\n\nHuman: D?\n\nAssistant: E.",
    ],
)
def test_conversations_of_every_form_are_read(tmp_path, chosen):
    (tmp_path / "a.jsonl").write_text(json.dumps({"chosen": chosen}) + "\n")
    sentences, _ = read_sentences(str(tmp_path / "a.jsonl"))
    assert "E." in sentences[-2 if len(sentences) > 1 else 0].text
