# SPDX-License-Identifier: MIT
"""Local files are read as they stand: every format gives the same rows, and what cannot be right is named."""

import bz2
import functools
import gzip
import http.server
import json
import lzma
import re
import threading

import pyarrow
import pyarrow.parquet
import pytest

from data.pairs.records import read_pairs
from data.pairs.rows import load_rows, read_records, read_table, scan_records

# cells that a guess of types would change: numbers, missing values, truth values, dates
ROWS = [
    {"id": "001", "prompt": "Who should pay?", "chosen": "None", "rejected": "Everyone"},
    {"id": "002", "prompt": "What?", "chosen": "N/A", "rejected": "null"},
    {"id": "1e3", "prompt": "How many?", "chosen": "3", "rejected": "4.0"},
    {"id": "NaN", "prompt": "Is it so?", "chosen": "True", "rejected": "false"},
    {"id": "2024-01-03", "prompt": "A tax\u2028is fair.\x85 \x1c", "chosen": "42", "rejected": '"quoted"'},
]


def lines(rows=ROWS):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(rows=ROWS, delimiter=","):
    body = [delimiter.join('"{}"'.format(value.replace('"', '""')) for value in row.values()) for row in rows]
    return "\n".join([delimiter.join(rows[0]), *body]) + "\n"


def parquet(rows=ROWS):
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write_file


FORMS = {
    "a.csv": table(),
    "a.tsv": table(delimiter="\t"),
    "a.jsonl": lines(),
    "a.json": json.dumps(ROWS, indent=1),
    "marked.json": "\ufeff" + json.dumps(ROWS),
    "marked.jsonl": "\ufeff" + lines(),
    "a.jsonl.gz": gzip.compress(lines().encode()),
    "a.csv.bz2": bz2.compress(("\ufeff" + table()).encode()),
    "a.tsv.xz": lzma.compress(table(delimiter="\t").encode()),
    "packed_without_saying_so.csv": gzip.compress(table().encode()),
    "a.parquet": parquet(),
}


@pytest.mark.parametrize(("name", "content"), FORMS.items())
def test_every_form_gives_the_same_texts(write, name, content):
    path = write(name, content)
    kind = name.replace("jsonl", "json").split(".")[1]
    assert load_rows(kind, path) == (ROWS, path)
    assert load_rows(path) == (ROWS, path)
    assert len(read_pairs(*load_rows(path))) == len(ROWS)
    assert read_table(path) == ROWS
    content = content.encode() if isinstance(content, str) else content
    assert read_table("nowhere", kind, content=content) == ROWS


@pytest.mark.parametrize(("name", "content"), [("a.csv", 'a,b\n,x\ny,""\n'), ("a.tsv", "a\tb\n\tx\ny\t\n")])
def test_only_an_empty_cell_is_missing(write, name, content):
    assert read_table(write(name, content)) == [{"a": None, "b": "x"}, {"a": "y", "b": None}]


def test_json_and_parquet_keep_their_types(write):
    rows = [{"n": 3, "x": 0.5, "is": True, "text": "3", "none": None, "list": ["a", "b"], "of": {"side": "left"}}]
    assert read_table(write("a.jsonl", lines(rows))) == rows
    assert read_table(write("a.parquet", parquet(rows))) == rows


def test_a_stray_row_does_not_change_the_others(write):
    path = write("a.jsonl", lines(ROWS[:2]) + "7\n" + lines(ROWS[2:]))
    with pytest.raises(ValueError, match="a.jsonl: cannot be read as json: row 3: a int, want an object. Mend"):
        load_rows("json", path)


@pytest.mark.parametrize("n", [140_000, 1_000_000])
def test_a_long_text_is_read_from_every_format(write, n):
    rows = [{"a": "é" * n}]
    for name, content in {"a.csv": table(rows), "a.tsv": table(rows, "\t"), "a.jsonl": lines(rows)}.items():
        assert read_table(write(name, content)) == rows


def test_a_quotation_mark_that_stays_open_ends_at_a_limit_in_characters(write):
    path = write("a.csv", 'a\n"x\n' + "y" * 90 + "\n" + "z" * 90 + "\nlast\n")
    bad = list(scan_records(path, max_line_bytes=100))
    assert bad[0].reason.startswith("field larger than field limit (100) (line 4); put one row on a line and quote")
    assert bad[1] == (2, {"a": "last"})


# Several files, globs, URLs, slices


def test_files_come_in_the_order_given_and_of_a_glob_sorted(write, tmp_path, monkeypatch):
    for n, name in enumerate(("b.jsonl", "a.jsonl", "deep/er/c.jsonl", "d.txt")):
        write(name, lines([{"n": n}]))
    numbers = lambda given: [row["n"] for row in load_rows("json", given)[0]]  # noqa: E731
    monkeypatch.chdir(tmp_path)
    assert numbers(["b.jsonl", "a.jsonl"]) == [0, 1]
    assert numbers("*.jsonl") == [1, 0]
    assert numbers("**/*.jsonl") == [1, 0, 2]
    assert numbers("deep/**") == [2]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert numbers("~/b.jsonl") == [0]
    assert load_rows("json", ["b.jsonl", "a.jsonl"])[1] == "b.jsonl, a.jsonl"
    with pytest.raises(FileNotFoundError, match=r"none\*.jsonl: not found from"):
        numbers(["a.jsonl", "none*.jsonl"])


def test_an_empty_file_among_others_has_no_rows(write):
    paths = [write("a.csv", "n\n"), write("b.csv", "n\n1\n"), write("c.csv", "")]
    assert load_rows("csv", paths)[0] == [{"n": "1"}]


@pytest.mark.parametrize(("name", "content"), [("e.jsonl", ""), ("e.json", "[]"), ("e.csv", ""), ("h.csv", "a,b\n")])
def test_an_empty_file_is_refused(write, name, content):
    for read in (load_rows, read_table):
        with pytest.raises(ValueError, match=f"{name}: no rows; give a file with at least one row"):
            read(write(name, content))


@pytest.fixture
def url(tmp_path):
    """Serve the test's folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls_are_fetched_and_read_strictly(write, url):
    write("a.csv", table())
    write("bad.csv", "a,b\n1,2,3\n")
    assert load_rows("csv", f"{url}/a.csv") == (ROWS, f"{url}/a.csv")
    with pytest.raises(ValueError, match=f"{url}/bad.csv: cannot be read as csv: row 1: 3 fields, the header has 2"):
        load_rows("csv", f"{url}/bad.csv")
    with pytest.raises(ConnectionError, match=f"{url}/none.csv: cannot be fetched .HTTP Error 404.* give the file"):
        load_rows("csv", f"{url}/none.csv")


def test_other_urls_go_through_fsspec(write, tmp_path):
    write("a.csv", table())
    assert load_rows("csv", f"file://{tmp_path}/*.csv")[0] == ROWS
    with pytest.raises(ConnectionError, match="nothing://a.csv: cannot be fetched .Protocol not known"):
        load_rows("csv", "nothing://a.csv")


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train", range(10)),
        ("train[:25%]", range(2)),
        ("train[:26%]", range(3)),
        ("train[5:]", range(5, 10)),
        ("train[-3:]", range(7, 10)),
        ("train[2:4]+train[:1]", [2, 3, 0]),
    ],
)
def test_slices_are_those_of_datasets(write, split, rows):
    path = write("a.jsonl", lines([{"n": n} for n in range(10)]))
    assert [row["n"] for row in load_rows("json", path, split)[0]] == list(rows)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", r"cannot be read as json: Unknown split .test.\. .*split=test"),
        ("train[oops]", r"cannot be read as json: Unrecognized instruction format: train\[oops\]"),
        ("train[1:1]", "no rows"),
    ],
)
def test_slices_that_are_not_there_are_refused(write, split, message):
    with pytest.raises(ValueError, match=message):
        load_rows("json", write("a.jsonl", lines()), split)


# What cannot be read


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", lines(ROWS[:1]) + '{"prompt": "x", "chosen"\n', "row 2: no JSON: Expecting ':'"),
        ("b.jsonl", lines(ROWS[:1]) + "\n[1]\n", "row 2: a list, want an object"),
        ("c.json", json.dumps(ROWS[:1])[:-1] + ",\n{", "line 2: Expecting"),
        ("d.csv", "prompt,chosen,rejected\na,b,c\na,b,c,d\n", "row 2: 4 fields, the header has 3"),
        # one field too many in the first row is no index: nothing is shifted
        ("d.csv", "prompt,chosen,rejected\na,b,c,d\na,b,c\n", "row 1: 4 fields, the header has 3"),
        ("e.parquet", "no parquet", "not a parquet file"),
        ("f.jsonl", b'{"prompt": "\xff\xfe"}\n', "row 1: not UTF-8"),
    ],
)
def test_a_malformed_file_is_named_with_its_row(write, name, content, message):
    path, kind = write(name, content), name.split(".")[1].replace("jsonl", "json")
    with pytest.raises(ValueError, match=f"cannot be read as {kind}") as error:
        load_rows(kind, path)
    assert str(error.value).count(path) == 1  # once is enough
    for part in (f"{path}: cannot be read as {kind}: {message}", "Mend the file", "check source"):
        assert part in str(error.value)
    assert error.value.__cause__ is not None


def test_a_format_without_files_is_refused(write, monkeypatch, tmp_path):
    write("pairs.jsonl", lines())
    monkeypatch.chdir(tmp_path)  # where `datasets` would find pairs.jsonl by itself
    with pytest.raises(ValueError, match="source=json needs data_files"):
        load_rows("json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"PK\x03\x04 and so on", "a.csv: a zip, zstd or lz4 archive; unpack it (.gz, .bz2 and .xz are read"),
        ("a.jsonl.gz", gzip.compress(lines().encode() * 99)[:-20], "a.jsonl.gz: cannot be read to its end (Compressed"),
        ("a.csv", b"a\xff,b\n1,2\n", "a.csv: the first line is not UTF-8 (byte 1 of the line, 0xff)"),
        ("a.txt", "x", "a.txt: cannot tell its format; name it .json, .jsonl"),
    ],
)
def test_what_cannot_be_read_is_named(write, name, content, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(write(name, content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv: not found from"):
        next(read_records(tmp_path / "none.csv"))
    with pytest.raises(FileNotFoundError, match="none.jsonl: not found from .*check the path"):
        load_rows("json", str(tmp_path / "none.jsonl"))


def test_bytes_of_a_format_that_cannot_be_told_are_refused():
    with pytest.raises(ValueError, match="nowhere.txt: cannot tell its format"):
        read_table("nowhere.txt", content=b"a,b")


def test_a_line_that_is_too_long_does_not_hide_the_next(write):
    path = write("a.jsonl", '{"a": "' + "x" * 500 + '"}\n{"a": 1}\n')
    bad, (number, row) = scan_records(path, max_line_bytes=100)
    assert bad.reason.startswith("a line of 510 bytes, at most 100 are read")
    assert (number, row) == (2, {"a": 1})
