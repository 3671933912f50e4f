# SPDX-License-Identifier: MIT
"""Files that cannot be right, through the command line: one line that names file and row, and no output."""

import csv
import io
import json

import pytest

PAIR = {"id": 1, "prompt": "What about rents?", "chosen": "They should fall.", "rejected": "They are fine."}
POST = {"id": 1, "text": "The price of bread in our town is a matter for all of us who live here."}
RECIPES = {
    "synthesize": (POST, "text", "synthesize_politune_like", "sources.posts.source", ["sources.posts.id_column=id"]),
    "audit": (PAIR, "chosen", "audit", "source", []),
    "review": (POST, "text", "review", "source", ["serve=False"]),
}


def table(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def spoilt(row: dict, column: str) -> dict[str, tuple[bytes, str]]:
    """Name of a bad file to its content and what must be said of it."""
    again = row | {"id": 2}
    cut = len(table([row]).splitlines()[0].split(","))
    return {
        "encoding.csv": (table([row, again | {column: "caf\xe9"}]).encode("latin-1"), "row 2: not UTF-8 (byte"),
        "ragged.csv": ((table([row]) + "2,a,b,c,d,e\n").encode(), f"row 2: 6 fields, the header has {cut} (line 3)"),
        "binary.csv": (b"\x89PNG\r\n\x1a\n\0\0\0", "a binary file (a zero byte at 8), want UTF-8 text"),
        "binary.parquet": (b"no parquet", "not a parquet file"),
        "empty.jsonl": (b"", "no rows; give a file with at least one row"),
        "header.csv": (table([row]).splitlines()[0].encode(), "no rows; give a file with at least one row"),
        "columns.jsonl": (json.dumps({"a": 1, "b": 2}).encode(), "no column"),
        "table.xlsx": (b"x", "cannot tell its format; name it .json"),
    }


def run(tune_run, recipe, path, output) -> int | str:
    _, _, config, source, more = RECIPES[recipe]
    settings = ["judge.client.base_url=null", "generator.client.base_url=null"] if recipe == "synthesize" else []
    return tune_run(
        f"data/{recipe}.py", "--config", f"configs/{config}.yaml", f"{source}={path}", f"output_dir={output}",
        *more, *settings,
    )  # fmt: skip


@pytest.mark.parametrize("name", spoilt(POST, "text"))
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_bad_file_is_named_in_one_line_and_nothing_is_written(recipe, name, tune_run, tmp_path):
    row, column, *_ = RECIPES[recipe]
    content, message = spoilt(row, column)[name]
    (tmp_path / name).write_bytes(content)
    said = run(tune_run, recipe, tmp_path / name, tmp_path / "out")
    assert said.startswith("error: ")
    assert message in said
    assert str(tmp_path / name) in said
    assert said.count(name) == 1
    assert len(said.splitlines()) == 2  # how to see where it was raised is the other one
    # folders and settings of a stage are no output: without its mark it is begun anew
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and "stages" not in path.parts]
    assert written == []
    assert not list((tmp_path / "out").rglob("completions/*"))


def test_a_post_of_ten_megabytes_is_named(tune_run, tmp_path, caplog):
    path = tmp_path / "posts.jsonl"
    path.write_text(json.dumps(POST) + "\n" + json.dumps(POST | {"id": 2, "text": "x " * 5_000_000}) + "\n")
    said = run(tune_run, "synthesize", path, tmp_path / "synthesize")
    assert f"{path} row 2: a line of 10,000,0" in said
    assert "at most 1,000,000 are read; is this one post?" in said
    # a review leaves it out, by its number
    assert run(tune_run, "review", path, tmp_path / "review") == 0
    reason = "text has 10,000,000 characters, at most 1,000,000 are taken (row 2)"
    assert f"{path}: 1 rows are not shown: {reason}" in caplog.text
    # an audit says it of the row, and goes on
    path = tmp_path / "audit.jsonl"
    path.write_text(json.dumps(PAIR) + "\n" + json.dumps(PAIR | {"id": 2, "chosen": "x " * 5_000_000}) + "\n")
    assert run(tune_run, "audit", path, tmp_path / "audit") == 1
    (found,) = [
        row for row in map(json.loads, (tmp_path / "audit" / "defects.jsonl").open()) if row["kind"] == "invalid row"
    ]
    assert (found["row"], found["found"]) == (2, "chosen has 10,000,000 characters, at most 1,000,000 are taken")


def test_ids_that_occur_twice_are_named(tune_run, tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text(table([POST, POST]))
    said = run(tune_run, "synthesize", path, tmp_path / "out")
    assert f"{path} row 2: id '1' occurs before. Mend it, or set bad_rows=skip" in said
    path.write_text(table([PAIR, PAIR | {"prompt": "And wages, what about them?"}]))
    assert run(tune_run, "audit", path, tmp_path / "audit") == 1
    kinds = [json.loads(line) for line in (tmp_path / "audit" / "defects.jsonl").open()]
    assert [(row["row"], row["found"]) for row in kinds if row["kind"] == "duplicate id"] == [
        (2, "id '1' is that of row 1")
    ]
