# SPDX-License-Identifier: MIT
"""Mode ``write`` end to end, on the tiny model and a server on the loopback."""

import json
import multiprocessing
import os
import shutil
import signal
from collections import Counter

import pytest
import torch
from fault_server import FaultServer
from test_political_compass import adapters, make_config, overrides, run  # noqa: F401

from data.recipe.files import AppendLog
from eval.asking.results import row_key

WRITE = {
    "instrument": "issues40", "instrument_limit": 6, "training_data": None, "modes": ["write"],
    "n_write_templates": 2, "open_max_new_tokens": 3, "prompts_per_batch": 16, "temperature": 0.7,
}  # fmt: skip
PAIR = {"left": "1", "right": "2"}


def reply(body):
    """A judge: the first answer always helps more, everything is hedged, and it is neutral."""
    text = body["messages"][-1]["content"]
    return next(label for key, label in (("Better", "1"), ("Hedging", "4"), ("Label", "3")) if key in text[-60:])


def judge(url, cache_dir="unused", **more):
    client = {"_component_": "data.chat.ChatClient", "model": "stub", "base_url": url, "cache_dir": str(cache_dir)}
    return {"_component_": "eval.judges.chat_judge", "client": client, **more}


@pytest.fixture(scope="module")
def read_run(tiny_model_dir, adapters, tmp_path_factory):  # noqa: F811
    """Base and an adapter, with three readings, one of them under two instructions."""
    from test_political_compass import tiny_settings

    folder = tmp_path_factory.mktemp("write")
    (folder / "mine.txt").write_text("You rate.\n---\n$text on $target. Label:")
    with FaultServer(reply) as server:
        url = server.url
        readings = {
            "stance": judge(url, folder / "a", instructions=["stance", str(folder / "mine.txt")]),
            "hedging": judge(url, folder / "a"),
            "pair": judge(url, folder / "a"),
        }
        settings = {**tiny_settings(tiny_model_dir, folder), **WRITE, "readings": readings}
        rows, summary = run(settings, adapters={"left": adapters["left"]}, draw=True)
    return folder / "out", rows, summary


def test_every_request_is_asked_of_everybody_and_mirrored(read_run):
    _, rows, summary = read_run
    assert len(rows) == 2 * 6 * 2 * 3
    assert len({row_key(row) for row in rows}) == len(rows)
    sides = Counter((row["model"], row["side"]) for row in rows)
    assert sides == {(m, s): 12 for m in ("base", "left") for s in ("neutral", "left", "right")}
    assert all(row["text"] is not None and row["choice"] is None for row in rows)
    assert list(summary["models"]) == ["base", "left"]
    write = summary["write"]
    assert (write["sides"], write["n_issues"]) == (["left", "right"], 6)
    assert write["counts"]["base"]["right"]["asked"] == 12


def test_readings_say_whom_to_believe_and_that_they_are_uncorrected(read_run):
    write = read_run[2]["write"]
    assert {name: r["believed"] for name, r in write["readings"].items()} == dict.fromkeys(
        ("stance", "stance: mine", "hedging", "pair"), False
    )
    by_side = {(e["model"], e["outcome"]): e for e in write["by_side"]}
    assert by_side["base", "hedging"]["difference"] == 0
    assert by_side["base", "hedging"]["corrected"] == "uncorrected"
    assert "corrected" not in by_side["base", "words"]
    assert by_side["base", "refused"]["mcnemar"]["n_pairs"] == 12
    (pair, _) = write["pairs"]
    # the first answer wins in both orders, so nobody does
    assert (pair["n"], pair["better_tie"], pair["follows_order"], pair["difference"]) == (12, 12, 12, 0)
    instruction = [e for e in write["factors"] if e["factor"] == "judge's instruction: mine"]
    assert {e["outcome"] for e in instruction} == {"declined", "support", "lean"}
    assert all(e["difference"] == 0 for e in instruction)


def test_transcripts_can_be_read_by_request_model_and_label(read_run):
    folder, rows, _ = read_run
    page = (folder / "transcripts.html").read_text()
    assert page.count('class="answer"') == len(rows)
    assert "left, hedging: 4 (36)" in page
    report = (folder / "report.html").read_text()
    assert 'href="transcripts.html"' in report
    assert "Flips" not in report, "nothing was asked with options"
    assert "<h1>No difference between what is written for left and for right was told from chance</h1>" in report
    assert "Readings of judges that are not to be believed are left out here." in report
    judged = [json.loads(line) for line in (folder / "judged.jsonl").read_text().splitlines()]
    assert Counter(row["judge"] for row in judged) == {"stance": 72, "stance: mine": 72, "hedging": 72, "pair": 24}


def test_answers_are_scored_anew_without_a_model(read_run, overrides, tmp_path):  # noqa: F811
    from data.recipe.config import check_config
    from eval.political_compass import OPTIONAL, REQUIRED, PoliticalCompassRecipe

    anew = {"rows": str(read_run[0] / "results.jsonl"), "output_dir": str(tmp_path / "anew"), "adapters": None}
    cfg = check_config(make_config({**overrides, **WRITE, **anew}), REQUIRED, OPTIONAL)
    PoliticalCompassRecipe(cfg).rescore(cfg)
    write = json.loads((tmp_path / "anew" / "summary.json").read_text())["write"]
    before = [e for e in read_run[2]["write"]["by_side"] if e["outcome"] in ("refused", "words")]
    q = {"q": None}  # of a smaller family
    assert [e | q for e in write["by_side"]] == [e | q for e in before]


def test_people_label_a_part_and_the_run_is_corrected(read_run, tune_run, tmp_path):
    """The judge says that everything is neutral; people say that a third of it is for the statement."""
    folder = shutil.copytree(read_run[0], tmp_path / "run")
    command = ("eval/label_answers.py", "--config", "configs/label_answers.yaml", f"output_dir={folder}")
    assert tune_run(*command, "scale=stance", "n_per_model=36") == 0
    drawn = [json.loads(line) for line in (folder / "label_sample_stance.jsonl").read_text().splitlines()]
    assert Counter(row["model"] for row in drawn) == {"base": 36, "left": 36}
    assert all(row["target"].endswith(".") for row in drawn)
    said = {row["text"] + row["target"]: {"text": row["text"], "target": row["target"]} for row in drawn}
    gold = [{**row, "label": "1" if k % 3 == 0 else "3"} for k, row in enumerate(said.values())]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gold))
    assert tune_run(*command, "scale=stance", f"labels={tmp_path / 'gold.jsonl'}") == 0
    write = json.loads((folder / "summary.json").read_text())["write"]
    # 12 answers of a model and side are too few, and it is said so
    assert write["readings"]["stance"]["note"].startswith("uncorrected: people have labelled 12 of base (left), ")
    assert {e["corrected"] for e in write["levels"] if e.get("reading") == "stance"} == {"uncorrected"}
    assert "What was written, by side" in (folder / "report.html").read_text()
    assert tune_run(*command, "scale=pair") != 0


def test_a_run_that_was_killed_writes_nothing_twice(overrides, tmp_path):  # noqa: F811
    """SIGKILL in the middle of a batch; the same command then gives the file of a run that nobody stopped."""
    settings = {**overrides, **WRITE, "adapters": None}
    killed = {**settings, "output_dir": str(tmp_path / "killed")}

    def die_later(self, rows, append=AppendLog.append):
        append(self, rows)
        if len(self.rows) > 20:
            self._file.write(b'{"model": "ba')
            os.kill(os.getpid(), signal.SIGKILL)

    def run_and_die():
        torch.set_num_threads(1)  # those of the process that forked are not here
        AppendLog.append = die_later
        run(killed)

    child = multiprocessing.get_context("fork").Process(target=run_and_die)  # forking saves the imports
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    path = tmp_path / "killed" / "results.jsonl"
    assert 20 < path.read_bytes().count(b"\n") < 36
    rows, _ = run(killed)
    assert len({row_key(row) for row in rows}) == len(rows) == 36
    run(settings)
    assert path.read_bytes() == (tmp_path / "out" / "results.jsonl").read_bytes()


def test_a_server_is_asked_the_same_with_a_system_prompt_as_a_factor(overrides):  # noqa: F811
    nobody = {key: value for key, value in overrides.items() if key not in ("model", "tokenizer", "checkpointer")}
    nothing = {"model": None, "tokenizer": None, "checkpointer": None, "adapters": None}
    factors = {"word_cap": "Use at most 60 words.", "system_prompt": "You are an editor.", "style": "Be plain."}

    def answer(body):
        texts = [message["content"] for message in body["messages"]]
        n = 3 if "at most 60" in texts[-1] else 9
        return " ".join(["word"] * n)

    with FaultServer(answer) as server:
        respondents = {"far": {"model": "stub", "base_url": server.url}}
        more = {"factors": factors, "factor_cells": 4, "respondents": respondents}
        rows, summary = run({**nobody, **WRITE}, **nothing, **more)
        told = [call for call in server.calls if call["messages"][0]["role"] == "system"]
    assert len(rows) == 6 * 2 * 3 * 4
    assert Counter(c["messages"][0]["content"] for c in told) == {"You are an editor.": len(rows) // 2}
    assert len({row["prompt_sha256"] for row in rows}) == len(rows)
    effects = {(e["factor"], e["outcome"]): e for e in summary["write"]["factors"]}
    assert effects["word_cap", "words"]["difference"] == -6
    assert (effects["style", "words"]["difference"], effects["system_prompt", "words"]["difference"]) == (0, 0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"modes": ["choice"]}, r"modes=\['choice'\], but issues40 has no items; use modes=\['write'\]"),
        ({"instrument": "compass60"}, r"modes=\['write'\], but compass60 has no bank; use modes=\['choice', 'pairs', "),
        ({"n_write_templates": 9}, "n_write_templates=9; use 1 to 5"),
        ({"factors": {"cap": True}}, "factors.cap=True; name it"),
        (
            {"factors": {"a": "x", "b": "y", "c": "z"}, "factor_cells": 3},
            "factor_cells=3, with 3 factors; use one",
        ),
        ({"readings": {"lean": {"_component_": "eval.judges.chat_judge"}}}, "readings.lean: use stance, coverage, "),
        ({"readings": {"stance": {"client": {}}}}, "readings.stance: no judge; give _component_"),
        ({"readings": {"pair": judge("http://x/v1", instructions=["pair"])}}, "instructions=.*: give two or more"),
        ({"readings": {"pair": judge("http://x/v1")}, "modes": ["open"]}, "has no write: add it"),
        ({"instrument": "issuebench"}, "issuebench_prompts/issues.csv not found from .* Get the configs `issues`"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_a_model_loads(overrides, more, message):  # noqa: F811
    from data.recipe.config import check_config
    from eval.political_compass import OPTIONAL, REQUIRED, PoliticalCompassRecipe

    if more.get("instrument"):
        more = {"instrument_limit": None, **more}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        PoliticalCompassRecipe(
            check_config(make_config({**overrides, **WRITE, "adapters": None, **more}), REQUIRED, OPTIONAL)
        )
