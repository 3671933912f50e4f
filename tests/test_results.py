# SPDX-License-Identifier: MIT
"""The file of answers: of one run and its settings, whatever kills it."""

import json

import pytest

from eval.asking.results import KEY, ResultsFile, check_results

SERVER = {"model": "stub", "base_url": "http://127.0.0.1:1/v1"}


def test_how_a_server_is_called_changes_no_answer(tmp_path):
    def settings(**more):
        return {"n_bootstrap": 1, "seed": 0, "respondents": {"far": {**SERVER, **more}}}

    ResultsFile(tmp_path, settings(model="of a run that wrote no answer")).close()
    ResultsFile(tmp_path, settings(timeout_s=3)).close()
    (tmp_path / "results.jsonl").write_text("{}\n")
    check_results(tmp_path, settings(max_retries=9, max_concurrency=1) | {"n_bootstrap": 2, "places": {}})
    for other in (settings(n_top_logprobs=5), settings(model="n"), settings() | {"seed": 1}):
        with pytest.raises(FileExistsError, match="other settings"):
            check_results(tmp_path, other)


def test_rows_survive_a_kill_and_a_second_process_is_refused(tmp_path):
    rows = [dict.fromkeys(KEY, k) for k in range(3)]
    results = ResultsFile(tmp_path, {"seed": 0})
    results.append(rows[:2])
    with pytest.raises(RuntimeError, match="results.jsonl: another run has it open"):
        ResultsFile(tmp_path, {"seed": 0})
    results.close()
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(b'{"model": 2')
    results = ResultsFile(tmp_path, {"seed": 0})
    assert results.rows == rows[:2]
    assert results.has(rows[:2])
    assert not results.has(rows)
    results.append(rows)  # those that are there are not written again
    results.close()
    assert (tmp_path / "results.jsonl").read_text() == "".join(json.dumps(row) + "\n" for row in rows)
