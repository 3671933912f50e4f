# SPDX-License-Identifier: MIT
"""Local files are read as they stand: every format gives the same rows, and what cannot be right is named."""

import bz2
import csv
import functools
import gzip
import http.server
import io
import json
import lzma
import re
import threading

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.pairs.hub import hub_rows
from data.pairs.records import keep_where, read_pairs
from data.pairs.rows import load_rows, read_records, read_table, scan_records
from data.recipe.files import to_jsonl, to_parquet

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
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
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
        ("test", r"cannot be read as json: no split test; there are train\. .*split=test"),
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
        ("g.jsonl", '{"prompt": "x", "prompt": "y"}\n', "row 1: the key 'prompt' stands twice in an object"),
        ("h.json", '[{"prompt": {"a": 1, "a": 1}}]', "the key 'a' stands twice in an object"),
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


# Forms that are named for what they are


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "prompt;chosen;rejected\na;b, c;d\n",
            "columns are separated by semicolons, not by commas; save",
        ),
        ("a.csv", '"prompt";"chosen";"rejected"\n"a";"b";"c"\n', "columns are separated by semicolons, not by commas"),
        (
            "a.csv",
            "prompt\tchosen\trejected\na\tb\tc\n",
            "by tabs, not by commas; name it .tsv, or give source=tsv",
        ),
        ("a.csv", "prompt|chosen|rejected\na|b|c\n", "columns are separated by vertical bars, not by commas"),
        (
            "a.tsv",
            "prompt,chosen,rejected\na,b,c\n",
            "by commas, not by tabs; name it .csv, or give source=csv",
        ),
        ("a.csv", '"prompt" ,chosen\na,b\n', "the first line cannot be read (',' expected after '\"')"),
        (
            "a.csv",
            'prompt, chosen, rejected\na, "b, c", d\n',
            "row 1: 4 fields, the header has 3 (line 2); the header has blanks around ' chosen', ' rejected': take the",
        ),
        (
            "a.json",
            json.dumps({"version": 1, "data": ROWS}, indent=1),
            "one object over several lines; the rows stand",
        ),
        (
            "a.json",
            json.dumps({"a": 1}, indent=1),
            "one object over several lines; put it on one line: jq -c",
        ),
        (
            "a.jsonl",
            "".join(json.dumps(row, indent=1) + "\n" for row in ROWS),
            "objects over several lines; put each on one line: jq -c . FILE > NEW.jsonl",
        ),
        ("a.jsonl", '{"a": "b"},\n{"a": "c"},\n', "commas between the rows; take them out, or put [ before all"),
        (
            "a.json",
            json.dumps({name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}, indent=1),
            "it holds columns, not rows; pandas saves rows by to_json(FILE, orient='records', lines=True)",
        ),
    ],
)
def test_a_form_that_is_not_read_is_named_with_what_mends_it(write, name, content, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_rows(write(name, content))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"version": 1, "data": ROWS},
            "in the list `data`; save that list alone: jq '.data' FILE > NEW.json",
        ),
        (
            {"features": [{"name": "a"}], "rows": [{"row": row} for row in ROWS]},
            "save that list alone: jq '[.rows[].row]'",
        ),
        ({"train": ROWS, "test": ROWS[:1]}, "the rows stand in the list `train`"),
        ({name: [row[name] for row in ROWS] for name in ROWS[0]}, "it holds columns, not rows"),
        ({name: {"0": row} for name, row in ROWS[0].items()}, "it holds columns, not rows"),
        ({"columns": [*ROWS[0]], "index": [0], "data": [[*ROWS[0].values()]]}, "it holds columns, not rows"),
    ],
)
def test_rows_that_lie_in_one_object_are_named(write, row, message):
    for content in (json.dumps(row), json.dumps([row])):
        with pytest.raises(ValueError, match=re.escape(message)):
            read_pairs(*load_rows(write("a.json", content)))


def test_one_row_that_holds_lists_is_a_row(write):
    row = ROWS[0] | {"judges": [{"name": "a", "score": 3}]}
    assert len(read_pairs(*load_rows(write("a.json", json.dumps(row))))) == 1


def test_a_bad_first_row_does_not_hide_the_next(write):
    bad, *others = scan_records(write("a.jsonl", '{"a": \n' + lines(ROWS)))
    assert bad.reason.startswith("no JSON")
    assert [row for _, row in others] == ROWS


def test_names_of_columns_with_blanks_or_capitals_are_named(write):
    path = write("a.csv", "Prompt, chosen, rejected\na, b, c\n")
    with pytest.raises(ValueError, match="prompt, chosen, rejected, but 'Prompt', ' chosen', ' rejected'; write"):
        read_pairs(*load_rows(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
@pytest.mark.parametrize("text", ['"\\ud83d"', '"x\\uDE00y"', '{"deep": ["\\ud800 "]}', '[{"content": "\\udfff"}]'])
def test_half_of_a_surrogate_pair_is_a_bad_row(write, name, text):
    rows = ['{"a": "\\ud83d\\ude00"}', f'{{"a": {text}}}', '{"a": "b\\\\ud800"}']
    content = f"[{', '.join(rows)}]" if name == "a.json" else "\n".join(rows)
    path = write(name, gzip.compress(content.encode()) if name.endswith("gz") else content)
    first, bad, last = scan_records(path)
    assert (first, last) == ((1, {"a": "\U0001f600"}), (3, {"a": "b\\ud800"}))
    assert bad.number == 2
    assert bad.reason.startswith("'a' has half of a surrogate pair")
    with pytest.raises(ValueError, match="row 2: 'a' has half of a surrogate pair .*; write the sign whole"):
        load_rows(path)


# Repositories, and folders in their form


def dataset_folder(write, tmp_path, card, names=("left.parquet", "right.parquet")):
    for number, name in enumerate(names):
        write(f"set/{name}", parquet([{"prompt": f"{name}?", "chosen": "a", "rejected": str(number)}]))
    write("set/README.md", card)
    return str(tmp_path / "set")


CARD = """---
configs:
- config_name: left
  data_files: left.parquet
- config_name: right
  data_files:
  - split: train
    path: right.parquet
  - split: test
    path: [left.parquet, right.*]
---
# A set
"""


def prompts(*arguments, **named):
    return [row["prompt"] for row in load_rows(*arguments, **named)[0]]


def test_a_config_of_a_folder_is_loaded_by_its_name(write, tmp_path):
    folder = dataset_folder(write, tmp_path, CARD)
    assert prompts(folder, name="left") == ["left.parquet?"]
    assert prompts(folder, name="right") == ["right.parquet?"]
    assert prompts(folder, name="right", split="test") == ["left.parquet?", "right.parquet?"]
    assert prompts(folder, name="right", split="test[1:]+train") == ["right.parquet?", "right.parquet?"]
    assert load_rows(folder, name="left")[1] == f"{folder}/left"
    assert [row["prompt"] for row in hub_rows(folder, "train", None, name="left")] == ["left.parquet?"]


@pytest.mark.parametrize("name", [None, "up"])
def test_configs_are_listed_where_none_or_another_is_named(write, tmp_path, name):
    folder = dataset_folder(write, tmp_path, CARD)
    found = "no config up" if name else "it has several configs"
    message = re.escape(f"set: {found}; choose one of left, right (of a dataset: dataset.name=left)")
    with pytest.raises(ValueError, match=message):
        load_rows(folder, name=name)
    with pytest.raises(ValueError, match=message):
        list(hub_rows(folder, "train", None, name=name))


@pytest.mark.parametrize(
    ("card", "names", "splits"),
    [
        ("", ("train.parquet", "test.parquet"), {"train": ["train.parquet?"], "test": ["test.parquet?"]}),
        ("", ("data/train-0-of-1.parquet",), {"train": ["data/train-0-of-1.parquet?"]}),
        ("", ("a.parquet", "b.parquet"), {"train": ["a.parquet?", "b.parquet?"]}),
        (
            "---\nconfigs:\n- {config_name: default, data_files: b.*}\n---\n",
            ("a.parquet", "b.parquet"),
            {"train": ["b.parquet?"]},
        ),
        (
            "---\nconfigs:\n- {config_name: x, data_dir: x}\n- {config_name: y, default: true, data_dir: y}\n---\n",
            ("x/a.parquet", "y/train.parquet"),
            {"train": ["y/train.parquet?"]},
        ),
    ],
)
def test_files_of_a_folder_are_those_that_datasets_takes(write, tmp_path, card, names, splits):
    folder = dataset_folder(write, tmp_path, card, names)
    for split, expected in splits.items():
        assert prompts(folder, split=split) == expected
        assert [row["prompt"] for row in hub_rows(folder, split, None, streaming=False)] == expected


def test_texts_of_a_folder_are_read_strictly(write, tmp_path):
    write("set/train.csv", table())
    assert load_rows(str(tmp_path / "set"))[0] == ROWS
    assert load_rows(str(tmp_path / "set"), "train.csv")[0] == ROWS


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"name": "left"}, "set: name=left, but it has no configs; leave dataset.name out"),
        ({"split": "test"}, "set: cannot be read: no split test; there are train. Mend"),
    ],
)
def test_a_folder_without_what_is_asked_for_says_so(write, tmp_path, named, message):
    write("set/train.csv", table())
    with pytest.raises(ValueError, match=message):
        load_rows(str(tmp_path / "set"), **named)


def test_a_folder_that_save_to_disk_wrote_is_named(tmp_path):
    labelled().save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": labelled()}).save_to_disk(tmp_path / "two")
    for name in ("one", "two"):
        with pytest.raises(ValueError, match=f"{name}: written by save_to_disk, which only datasets reads"):
            load_rows(str(tmp_path / name))


def test_a_file_has_no_configs_and_an_empty_folder_no_files(write, tmp_path):
    with pytest.raises(ValueError, match="name=left, but .*a.csv has no configs"):
        load_rows(write("a.csv", table()), name="left")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no data files .*name them with dataset.data_files"):
        load_rows(str(tmp_path / "empty"))


# Class labels


def labelled():
    names = datasets.ClassLabel(names=["left", "right"])
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "side": names, "of": {"side": names}, "all": datasets.List(names)}
    )
    rows = {"prompt": ["a", "b", "c"], "side": [1, 0, None], "of": [{"side": 0}] * 3, "all": [[0, 1], [], [1]]}
    return datasets.Dataset.from_dict(rows, features)


NAMED = [
    {"prompt": "a", "side": "right", "of": {"side": "left"}, "all": ["left", "right"]},
    {"prompt": "b", "side": "left", "of": {"side": "left"}, "all": []},
    {"prompt": "c", "side": None, "of": {"side": "left"}, "all": ["right"]},
]


def test_class_labels_are_names_in_files_folders_and_repositories(tmp_path):
    labelled().to_parquet(tmp_path / "set" / "train.parquet")
    assert read_table(tmp_path / "set" / "train.parquet") == NAMED
    assert load_rows(str(tmp_path / "set"))[0] == NAMED
    for streaming in (True, False):
        assert list(hub_rows(str(tmp_path / "set"), "train", None, streaming=streaming)) == NAMED
    rows = [row | {"chosen": "x", "rejected": "y"} for row in NAMED]
    assert [p.row for p in keep_where(read_pairs(rows, "f"), rows, {"side": "right"}, "f")] == [1]


def test_class_labels_that_only_the_card_names_are_names(write, tmp_path):
    write("set/train.parquet", parquet([{"side": 1}, {"side": -1}, {"side": 0}]))
    label = "{name: side, dtype: {class_label: {names: {'0': left, '1': right}}}}"
    write("set/README.md", f"---\ndataset_info:\n  features:\n  - {label}\n---\n")
    assert load_rows(str(tmp_path / "set"))[0] == [{"side": "right"}, {"side": None}, {"side": "left"}]


def test_categories_of_pandas_are_names(tmp_path):
    categories = pyarrow.table({"side": pyarrow.array(["right", "left"]).dictionary_encode()})
    pyarrow.parquet.write_table(categories, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet") == [{"side": "right"}, {"side": "left"}]


# Whatever is written reads back equal

# All of Unicode but halves of surrogate pairs, which no file can hold, and in tables the zero character, which marks a
# binary file. An answer that is nothing but blanks is no answer, so every text has a letter.
ALPHABET = st.characters(exclude_categories=["Cs"])
TEXTS = st.builds("{}a{}".format, st.text(ALPHABET, max_size=8), st.text(ALPHABET, max_size=8))
SETS = st.lists(st.fixed_dictionaries({"prompt": TEXTS, "chosen": TEXTS, "rejected": TEXTS}), min_size=1, max_size=4)


def csv_text(rows, delimiter):
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


WRITERS = {
    "csv": lambda rows: csv_text(rows, ",").encode(),
    "tsv": lambda rows: csv_text(rows, "\t").encode(),
    "jsonl": lambda rows: to_jsonl(rows).encode(),
    "json": lambda rows: json.dumps(rows, ensure_ascii=False).encode(),
    "escaped.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "parquet": to_parquet,
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", WRITERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=SETS)
def test_any_text_reads_back_equal_from_every_format(write, suffix, packed, rows):
    if suffix in ("csv", "tsv"):
        rows = [{name: text.replace("\0", "") for name, text in row.items()} for row in rows]
    rows = [row | {"rejected": f"b{row['rejected']}", "chosen": f"c{row['chosen']}"} for row in rows]
    content = WRITERS[suffix](rows)
    is_packed = packed and suffix != "parquet"
    path = write(f"a.{suffix}.gz" if is_packed else f"a.{suffix}", gzip.compress(content) if is_packed else content)
    assert load_rows(path)[0] == rows
    assert [pair[1:4] for pair in read_pairs(rows, "f")] == [(r["prompt"], r["chosen"], r["rejected"]) for r in rows]
