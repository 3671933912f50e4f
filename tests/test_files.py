# SPDX-License-Identifier: MIT
"""Files of a run: whole or absent, appended to without loss, and told apart by their settings."""

import io
import json
import resource
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import yaml

from data.recipe.files import (
    AppendLog,
    changed_settings,
    load_yaml,
    read_log,
    to_jsonl,
    to_parquet,
    write_files,
    write_json,
    write_whole,
)


def test_a_torn_last_line_is_cut_off_and_nothing_else(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": "line\u2028separator"}\n{"a": 3', encoding="utf-8")
    assert read_log(path) == [{"a": 1}, {"a": "line\u2028separator"}]
    log = AppendLog(path)
    log.append([{"a": 4}, {"a": 5}])
    log.close()
    assert [row["a"] for row in read_log(path)] == [1, "line\u2028separator", 4, 5]


def test_a_whole_line_that_is_no_row_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n[2]\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl line 2: a list, want an object"):
        read_log(path)
    path.write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(ValueError, match="line 2: no JSON"):
        AppendLog(path)


def test_half_a_row_on_a_full_disk_is_taken_back(tmp_path):
    log = AppendLog(tmp_path / "rows.jsonl")
    log.append([{"a": 1}])
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (13, most))  # the first row has 9 bytes
    try:
        with pytest.raises(OSError, match="no space left"):
            log.append([{"a": 2}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert log.rows == read_log(log.path) == [{"a": 1}]
    assert log.path.stat().st_size == 9
    log.append([{"a": 3}])
    assert log.rows == read_log(log.path) == [{"a": 1}, {"a": 3}]


def test_one_process_at_a_time_has_a_log(tmp_path):
    path = tmp_path / "rows.jsonl"
    log = AppendLog(path)
    code = f"from data.recipe.files import AppendLog; AppendLog({str(path)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert other.returncode
    assert "another run has it open" in other.stderr
    log.close()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_is_whole_and_its_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"x": [1, None]})
    assert json.loads(path.read_text()) == {"x": [1, None]}
    write_whole(path, "new")
    assert [file.name for file in path.parent.iterdir()] == ["b.json"]


def test_settings_are_compared_as_json_has_them():
    assert changed_settings({"a": [1, 2], "b": 1}, {"a": (1, 2), "b": 1}) == []
    assert changed_settings({"a": 1, "b": 2}, {"b": 3, "c": None, "d": 0}, ignored=["d"]) == ["a", "b"]


def test_a_key_that_stands_twice_is_an_error(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 1, "a": 2}\n')
    with pytest.raises(ValueError, match="log.jsonl line 2: no JSON .the key 'a' stands twice in an object"):
        read_log(tmp_path / "log.jsonl")
    with pytest.raises(yaml.YAMLError, match="the key 'a' stands twice in a mapping; keep one of them"):
        load_yaml("b: {a: 1, c: 2, a: 3}")
    assert load_yaml("x: &x {a: 1, b: 2}\ny: {<<: *x, a: 3}\n1: c\n'1': d") == {
        "x": {"a": 1, "b": 2}, "y": {"a": 3, "b": 2}, 1: "c", "1": "d",
    }  # fmt: skip
    nested = load_yaml("b: &b {x: 0, z: 3}\nd:\n  d:\n    a: &a\n      <<: *b\n      x: 1\nc:\n  <<: *a\n  y: 2")
    assert nested["c"] == {"x": 1, "z": 3, "y": 2}


def test_a_manifest_names_what_lies_beside_it(tmp_path):
    files = {"a.jsonl": to_jsonl([{"x": "é"}, {"x": 2}]), "b.bin": b"\x00"}
    written = write_files(tmp_path / "new", files, {"version": 1})
    assert written["files"]["a.jsonl"]["rows"] == 2
    assert (tmp_path / "new" / "a.jsonl").read_bytes() == '{"x": "é"}\n{"x": 2}\n'.encode()
    assert json.loads((tmp_path / "new" / "manifest.json").read_text()) == written
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.jsonl", "b.bin", "manifest.json"]


def test_parquet_has_a_column_for_every_field_of_any_row():
    rows = [{"id": "a", "topic": "taxes"}, {"id": "b", "words": {"n": 2}, "note": None}]
    written = pq.read_table(io.BytesIO(to_parquet(rows))).to_pylist()
    assert written[0] == {"id": "a", "topic": "taxes", "words": None, "note": None}
    assert written[1] == {"id": "b", "topic": None, "words": '{"n": 2}', "note": "null"}
