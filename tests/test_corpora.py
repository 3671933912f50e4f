# SPDX-License-Identifier: MIT
"""Sources of posts: published field names, personal data, and files that are not as they should be."""

import bz2
import gzip
import json
import logging
import re

import pytest
from test_rows import lines, parquet, table

from data.corpora import posts, reddit_politosphere, truth_social
from data.quality.personal import mask_personal, personal_data

ROWS = [{"id": str(n), "text": f"Post {n}, which is long enough.", "who": f"user{n}"} for n in range(3)]


@pytest.fixture
def take(tmp_path):
    """Write a file, read it as posts."""

    def read(name, content, **arguments):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(posts(str(path), "mine", "MIT", **arguments))

    return read


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", table(ROWS)),
        ("a.tsv", table(ROWS, "\t")),
        ("a.jsonl", lines(ROWS)),
        ("a.json", json.dumps(ROWS, indent=1)),
        ("a.jsonl.gz", gzip.compress(lines(ROWS).encode())),
        ("a.csv.bz2", bz2.compress(b"\xef\xbb\xbf" + table(ROWS).encode())),
        ("a.parquet", parquet(ROWS)),
    ],
)
def test_every_format_gives_the_same_posts(take, name, content):
    found = take(name, content, author_column="who", id_column="id")
    assert found == [
        {"text": row["text"], "dataset": "mine", "licence": "MIT", "date": None, "names": [row["who"]]} for row in ROWS
    ]


def test_posts_are_streamed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(ROWS) + "no JSON at all\n")
    source = posts(str(path), "mine", "MIT")
    assert next(source)["text"] == ROWS[0]["text"]
    assert len(list(posts(str(path), "mine", "MIT", limit=2))) == 2


# Bad input: a clear error with file and row


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            lines(ROWS[:1]).encode() + b'{"text": "caf\xe9"}\n',
            " row 2: not UTF-8 (byte 13 of the line, 0xe9)",
        ),
        ("a.csv", b"id,text\n1,one\n2,caf\xe9\n", " row 2: not UTF-8 (byte 5 of the line, 0xe9); save it as UTF-8"),
        ("a.csv", "id,text\n1,one\n2,two,and more\n", " row 2: 3 fields, the header has 2 (line 3); quote a field"),
        ("a.csv", "id,text\n1,one\n2\n", " row 2: 1 fields, the header has 2 (line 3)"),
        ("a.csv", 'id,text\n1,"one\n', " row 1: unexpected end of data (line 2)"),
        ("a.csv", "id,id\n1,2\n", ": the header has id, id; every column needs its own name"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0", ": a binary file (a zero byte at 8), want UTF-8 text"),
        ("a.csv", "id,text\n1,one\n".encode("utf-16"), ": not UTF-8 but UTF-16 text; save it as UTF-8"),
        ("a.parquet", "id,text\n", ": not a parquet file"),
        ("a.jsonl", lines([*ROWS, ROWS[1]]), " row 4: id '1' occurs before"),
        ("a.jsonl", lines([{"id": [1], "text": "one"}, {"id": [1], "text": "two"}]), " row 2: id [1] occurs before"),
        ("a.jsonl", lines([{"id": 1, "text": "x" * 30_000}]), " row 1: 30,000 characters, at most 20,000"),
        ("a.jsonl", lines([ROWS[0], {"id": 1, "text": "x" * 10_000_000}]), " row 2: a line of 10,000,022 bytes"),
        ("a.csv", f"id,text\n1,{'x' * 10_000_000}\n", " row 1: a line of 10,000,003 bytes, at most 1,000,000"),
        ("a.jsonl", "", ": no rows; give a file with at least one row"),
        ("a.csv", "id,text\n", ": no rows"),
        ("a.json", "[]", ": no rows"),
        (
            "a.jsonl",
            lines([{"body": "x", "id": 1}]),
            " row 1: no column text; give text_column=COLUMN; columns: b",
        ),
        ("a.jsonl", lines([ROWS[0], {"id": 9, "text": None}]), " row 2: text is None, want text"),
        ("a.jsonl", lines(ROWS) + "[1]\n", " row 4: a list, want an object"),
        ("a.jsonl", lines(ROWS) + "{'a': 1}\n", " row 4: no JSON: Expecting property name"),
        ("a.xlsx", "x", ": cannot tell its format; name it .json"),
    ],
)
def test_bad_input_is_named_with_file_and_row(take, name, content, message):
    with pytest.raises(ValueError, match=re.escape(name + message)):
        take(name, content, id_column="id")


def test_bad_rows_can_be_left_out_and_are_counted(take, caplog):
    content = (
        lines([*ROWS, ROWS[1], {"id": 7, "text": ""}]).encode()
        + b'{"text": "caf\xe9"}\n'
        + lines([{"id": 9, "text": "Last."}]).encode()
    )
    with caplog.at_level(logging.WARNING):
        found = take("a.jsonl", content, id_column="id", bad_rows="skip")
    assert [post["text"] for post in found] == [*(row["text"] for row in ROWS), "Last."]
    assert "took 4 posts, left out {'duplicate id': 1, 'no text': 1, 'unreadable': 1}" in caplog.text


def test_a_date_of_fewer_digits_than_seconds_have_stays_as_it_is(take):
    given = {
        "1420070400": "2015-01-01",
        "1420070400123": "2015-01-01",
        "20150101": "20150101",
        "2015": "2015",
        "": None,
    }
    rows = table([{"text": f"Post {n}, which is long enough.", "when": when} for n, when in enumerate(given)])
    assert [post["date"] for post in take("a.csv", rows, date_column="when")] == [*given.values()]


def test_a_missing_file_and_a_wrong_policy_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.csv: not found from"):
        list(posts("nowhere.csv", "mine", "MIT"))
    with pytest.raises(ValueError, match="bad_rows='drop'; use one of error, skip"):
        list(posts("nowhere.csv", "mine", "MIT", bad_rows="drop"))


# Published corpora, by their field names


def test_reddit_politosphere(tmp_path):
    comment = {"author": "xk2q9", "subreddit": "Liberal", "created_utc": 1_420_070_400, "language": "en"}
    comment |= {"body_cleaned": "x"}
    rows = [
        comment | {"id": "a", "body": "I agree with u/some_one."},
        comment | {"id": "b", "body": "[deleted]"},
        comment | {"id": "c", "body": "Das sehe ich auch so.", "language": "de"},
        comment | {"id": "d", "body": "Elsewhere.", "subreddit": "aww"},
    ]
    (tmp_path / "comments_2015-01.bz2").write_bytes(bz2.compress(lines(rows).encode()))
    found = list(reddit_politosphere(str(tmp_path / "comments_*.bz2"), subreddits=["liberal"]))
    assert [(post["text"], post["date"], post["names"]) for post in found] == [
        ("I agree with u/some_one.", "2015-01-01", ["xk2q9"])
    ]


def test_truth_social(tmp_path, caplog):
    header = "id timestamp time_scraped is_retruth is_reply author like_count retruth_count reply_count text "
    header += "external_id url truth_retruthed"

    def truth(number, text, retruth="f", reply="f"):
        return "\t".join(
            [str(number), "2022-05-01 10:00:00", "x", retruth, reply, "17", "1", "0", "0", text, "e", "u", "-1"]
        )

    body = [
        truth(1, 'He said "no and left.'),
        truth(2, "Again", retruth="t"),
        truth(3, "Mine too", reply="t"),
        truth(4, "broken\nover two"),
    ]
    (tmp_path / "truths.tsv").write_text(
        "\n".join([header.replace(" ", "\t"), *body, truth(5, "The last one.")]) + "\n"
    )
    with caplog.at_level(logging.WARNING):
        found = list(truth_social(str(tmp_path / "truths.tsv")))
    assert [(post["text"], post["date"], post["names"]) for post in found] == [
        ('He said "no and left.', "2022-05-01 10:00:00", []),
        ("The last one.", "2022-05-01 10:00:00", []),
    ]
    assert "took 2 posts, left out {'not asked for': 2, 'unreadable': 2}" in caplog.text
    (tmp_path / "others.tsv").write_text("id\ttimestamp\ttext\n1\t2022-05-01\tA text.\n")
    with pytest.raises(ValueError, match="tsv row 1: no column is_retruth, is_reply; columns: id, timestamp, text"):
        list(truth_social(str(tmp_path / "others.tsv")))


# Personal data


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Mail a.b+c@mail.example.org now.", "Mail [e-mail removed] now."),
        ("Thanks @some_user and @one@server.example!", "Thanks [handle removed] and [handle removed]!"),
        ("As u/some-one and /u/other said.", "As [handle removed] and [handle removed] said."),
        ("Call (212) 555-0142 or +44 20 7946 0958.", "Call [phone removed] or [phone removed]."),
        ("Call 555-010-0199, or 5550100199.", "Call [phone removed], or [phone removed]."),
    ],
)
def test_personal_data_is_masked_and_found(text, masked):
    assert mask_personal(text) == masked
    assert personal_data(text).startswith("personal data: ")
    assert personal_data(masked) is None


@pytest.mark.parametrize(
    "text",
    [
        "In 2008 2012 2016 and 1999-2003 they voted.",
        "On 2020-11-03 12:00 it cost 10,000,000.50 in 3.14159 parts.",
        "Meet me @ 5, and/or later; you/we both.",
        "Call 911, or 100-200 of them.",
        "The courts cannot handle 250 cases a day; hospitals handle low-income families.",
        "The police handle 24-hour shifts.",
        "YouTube: long-form videos. TikTok: anti-American or harmless? On Twitter, 280 characters.",
    ],
)
def test_what_only_looks_like_personal_data_stays(text):
    assert mask_personal(text) == text


def test_the_authors_name_is_masked_as_a_whole_word():
    assert (
        mask_personal("Ann Lee and ann lee, not Annlee.", ["Ann Lee", "", "x"])
        == "[name removed] and [name removed], not Annlee."
    )
