# SPDX-License-Identifier: MIT
"""Logs of inspect_ai as rows: what was asked decides, and what is no answer is counted and said.

The form of the logs is that of inspect_ai 0.3.285; ``tests/test_harnesses.py`` reads real ones where it is installed.
"""

import json
import sys

import pytest

from eval.asking.given_rows import read_rows, settings_of
from eval.asking.respondents import Interview
from eval.statements.instruments import load_instrument
from eval.statements.prompts import choice_prompts, load_templates
from eval.statements.requests import write_prompts

BANK = load_instrument("issues40").sample(2, 0)
PROMPTS = write_prompts(BANK, 1, 1, {"system_prompt": "Be brief."}, None, 0)
INTERVIEW = Interview({"write": PROMPTS}, (), {})


def sample(number, prompt, answer, reason="stop", **more):
    asked = [{"role": "system", "content": prompt.system}] if prompt.system else []
    message = {"role": "assistant", "content": answer}
    messages = [*asked, {"role": "user", "content": prompt.text}, message]
    choice = {"message": message, "stop_reason": reason, **more}
    output = {"model": "served-7", "choices": [choice], "usage": {"output_tokens": 5}}
    return {"id": number, "epoch": 1, "messages": messages, "output": output, "error": None}


@pytest.fixture
def log(tmp_path):
    def write(samples, name="a.json", **more):
        config = {"temperature": 0.5, "max_tokens": 40, "seed": 3}
        content = {"status": "success", "eval": {"model": "openai/some"}, "plan": {"config": config}, **more}
        path = tmp_path / name
        path.write_text(json.dumps({**content, "samples": samples}))
        return str(path)

    return write


def test_a_log_answers_prompts_whichever_task_asked_them(log):
    """In another order than ours, with and without a system prompt, as one text and in parts with a reasoning."""
    parts = [{"type": "reasoning", "reasoning": "Is it 2?"}, {"type": "text", "text": "I can't help with that."}]
    samples = [sample(f"x{k}", p, f"Text {k}.") for k, p in enumerate(PROMPTS)]
    samples[3]["messages"][-1]["content"] = samples[3]["output"]["choices"][0]["message"]["content"] = parts
    samples[4]["output"]["choices"][0]["stop_reason"] = "max_tokens"
    rows, notes = read_rows(log(samples[::-1]), BANK, INTERVIEW)
    assert notes == []
    by_id = {row["sample_id"]: row for row in rows}
    assert len(by_id) == len(PROMPTS) == 12
    for k, prompt in enumerate(PROMPTS):
        row = by_id[f"x{k}"]
        assert {key: row[key] for key in prompt.row} == prompt.row
        assert row["text"] == ("I can't help with that." if k == 3 else f"Text {k}.")
        assert row["refused"] is (k == 3)
        assert row["finish"] == ("length" if k == 4 else "stop")
        assert (row["model"], row["server"], row["n_tokens"]) == ("openai/some", "served-7", [5])
        assert row["decoding"] == {"temperature": 0.5, "top_k": None, "max_new_tokens": 40, "seed": 3}
    assert {prompt.system for prompt in PROMPTS} == {None, "Be brief."}
    assert settings_of(log(samples)) == {}


def test_what_is_no_answer_is_counted_and_said(log):
    samples = [sample(k, p, "Yes.") for k, p in enumerate(PROMPTS)]
    samples[0]["error"] = {"message": "timeout"}
    samples[1]["output"] = {"model": "", "choices": []}
    samples[2]["messages"][-2]["content"] += " "
    samples[3]["messages"] += samples[3]["messages"][-2:]
    samples[4] |= {"epoch": 2, "messages": samples[5]["messages"]}
    samples[6] = sample(6, PROMPTS[6], "", "content_filter")
    path = log(samples, status="cancelled")
    rows, (note,) = read_rows({"base": path}, BANK, INTERVIEW)
    assert [row["sample_id"] for row in rows] == [4, *range(6, 12)]
    assert (rows[1]["text"], rows[1]["finish"]) == (None, "content_filter")
    assert {row["model"] for row in rows} == {"base"}
    for said in (
        "7 of 12 prompts are answered", "samples that ended in an error: 1", "samples that have no answer: 1",
        "samples that ask for something else: 1", "samples that are not one request and its answer: 1",
        "samples that answer a prompt once more than n_samples: 1", "the log's status is cancelled",
        f"for example {PROMPTS[2].text + ' '!r:.60}",
    ):  # fmt: skip
        assert said in note, said


def test_a_log_of_something_else_is_refused(log, monkeypatch):
    other = sample(1, PROMPTS[0]._replace(text="What is 2 + 2?"), "4")
    with pytest.raises(ValueError, match=r"none of the 12 prompts .*that ask for something else: 1.*'What is 2 \+ 2"):
        read_rows(log([other]), BANK, INTERVIEW)
    with pytest.raises(ValueError, match=r"a log answers one mode; set modes to one of choice, generate"):
        read_rows(log([other]), BANK, INTERVIEW._replace(prompts={"write": PROMPTS, "open": []}))
    with pytest.raises(ValueError, match="a log answers one mode"):
        read_rows(log([other]), BANK, INTERVIEW._replace(prompts={"pairs": PROMPTS}))
    with pytest.raises(FileNotFoundError, match="nowhere.eval is not there"):
        read_rows("nowhere.eval", BANK, INTERVIEW)
    bare = log([other])
    for content, said in (("[1]", "is no log of inspect_ai"), ("{", "is no JSON .*; name a log of inspect_ai")):
        with open(bare, "w") as file:
            file.write(content)
        with pytest.raises(ValueError, match=said):
            read_rows(bare, BANK, INTERVIEW)
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(ImportError, match="inspect log convert --to json"):
        read_rows(log([other], "a.eval"), BANK, INTERVIEW)


def test_log_probabilities_of_options_are_read_as_a_servers(log):
    compass = load_instrument("compass60").sample(2, 0)
    prompts = choice_prompts(compass, load_templates("en"), 1, 2, ["letters"])
    top = [{"token": f" {t}", "logprob": x} for t, x in zip("ABC", (-0.5, -2.0, -3.0))]
    scored = [sample(k, p, "A", logprobs={"content": [{"top_logprobs": top}]}) for k, p in enumerate(prompts)]
    scored[1] = sample(1, prompts[1], "A")
    rows, notes = read_rows(log(scored), compass, Interview({"choice": prompts}, (), {}))
    assert notes == []
    by_letter = dict(zip("ABC", (-0.5, -2.0, -3.0)))
    assert rows[0]["option_logprobs"] == [by_letter.get(letter) for letter in prompts[0].answers]
    assert prompts[0].answers[rows[0]["choice"]] == "A"
    assert rows[1]["option_logprobs"] is rows[1]["choice"] is None


def test_rows_that_no_run_has_written_are_refused(tmp_path):
    bank = load_instrument("compass60")
    about = {"instrument": bank.name, "instrument_version": bank.version, "instrument_sha256": bank.sha256}
    about |= dict.fromkeys(("order", "labels"), None) | {"mode": "pairs", "sample": 0, "template": "t"}
    good = {**about, "model": "base", "item": "a", "option_logprobs": [-1.5, -2.0], "n_tokens": [3, 4]}
    other = {**good, "item": "b"}
    written = {**good, "mode": "open", "option_logprobs": None, "n_tokens": [7]}
    unlisted = {**good, "mode": "choice", "option_logprobs": [-1.0, None]}

    def read(*rows):
        (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_rows(str(tmp_path / "results.jsonl"), bank, INTERVIEW).rows

    assert len(read(good, other, written, unlisted)) == 4
    for bad, said in (
        ({k: v for k, v in other.items() if k != "model"}, "row 2 has no model"),
        (good, "row 2 answers what row 1 does: base, pairs, a"),
        ({**other, "option_logprobs": None}, "row 2 has the option_logprobs None"),
        ({**other, "option_logprobs": [-1.0]}, r"row 2 has the option_logprobs \[-1.0\]"),
        ({**other, "option_logprobs": [-1.0, float("nan")]}, r"row 2 has the option_logprobs \[-1.0, nan\]"),
        ({**other, "option_logprobs": "x"}, "row 2 has the option_logprobs x"),
        ({**other, "n_tokens": [0, 4]}, r"row 2 has the n_tokens \[0, 4\]"),
        ({**other, "n_tokens": None}, "row 2 has the n_tokens None"),
        ({**other, "n_tokens": ["a", "b"]}, r"row 2 has the n_tokens \['a', 'b'\]"),
    ):
        with pytest.raises(ValueError, match=f"1 of 2 rows cannot be scored .{said}.; give the file as the run wrote"):
            read(good, bad)
