# SPDX-License-Identifier: MIT
"""Answers on the disk: undone, put together, cut off by a kill, damaged."""

import errno
import json
import multiprocessing
from contextlib import ExitStack

import pytest
from omegaconf import OmegaConf
from review_client import LEANS, Client, labels, lines, write

from data import review
from data.people.results import answers_path


def test_the_last_answer_can_be_undone(serve, tmp_path):
    client = serve([{"text": text} for text in LEANS])
    first = client.page("a")
    assert "u" not in first.buttons
    client.press("a", "1")
    after = client.page("a")
    assert after.item == first.item
    assert "1" in after.buttons
    client.press("a", "u")
    assert client.page("a").item == first.item
    assert answers_path(tmp_path / "out", "a").read_text().count("\n") == 2
    assert client.press("a", "u", after) == "/a?note=moved"  # an old tab takes nothing back
    client.answer_all("a", labels)
    client.answer_all("b", labels)
    out = tmp_path / "out"
    assert len(lines(out / "gold.jsonl")) == 5
    client.press("a", "u")
    assert len(lines(out / "gold.jsonl")) == 4
    assert [row["reason"] for row in lines(out / "apart.jsonl")] == ["unanswered"]


def test_reviewers_on_two_machines_are_put_together(serve, tmp_path):
    rows = [{"text": text} for text in LEANS]
    for name in "ab":
        client = serve(rows, reviewer=name, output_dir=str(tmp_path / name))
        client.answer_all(name, labels)
        client.stop()
    answers_path(tmp_path / "b", "b").rename(answers_path(tmp_path / "a", "b"))
    cfg = OmegaConf.create(
        review.OPTIONAL | {"source": str(tmp_path / "rows.jsonl"), "output_dir": str(tmp_path / "a")}
    )
    found = review.settle(cfg, review.load_review(cfg))
    assert found["outcomes"] == {"agreed": 5}
    assert found["agreement"]["a, b"]["side"]["kappa"]["estimate"] == 1


def test_an_answer_that_cannot_be_written_does_not_count(serve, tmp_path, monkeypatch):
    client = serve([{"text": text} for text in LEANS])
    client.press("a", "1")
    page, path = client.page("a"), answers_path(tmp_path / "out", "a")
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("data.recipe.files.os.fsync", full)
    reply = client.ask("POST", "/a", {"item": page.item, "answer": "accept=accept"})
    assert reply.status == 507
    assert "No space left" in reply.text
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert client.page("a").item == page.item
    client.press("a", "a")
    assert len(lines(path)) == 2


def serve_alone(connection, cfg):
    with ExitStack() as stack:
        server = review.build_server(cfg, review.load_review(cfg), stack)
        connection.send(server.port)
        server.serve_forever()


def test_a_kill_loses_no_answer_and_the_same_settings_go_on(serve, tmp_path):
    rows = write(tmp_path / "rows.jsonl", [{"text": text} for text in LEANS])
    settings = {"source": str(rows), "output_dir": str(tmp_path / "out"), "port": 0}
    fork = multiprocessing.get_context("fork")  # imports are paid for
    ports, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=serve_alone, args=(theirs, OmegaConf.create(review.OPTIONAL | settings)), daemon=True)
    process.start()
    client = Client(ports.recv())
    for key in "1a2a3":
        client.press("a", key)
    process.kill()
    process.join()
    path = answers_path(tmp_path / "out", "a")
    assert len(lines(path)) == 5
    with path.open("a") as file:
        file.write('{"item": "a line that was not written wh')
    client = serve()
    page = client.page("a")
    assert "2 of 5 done" in page.text
    assert 'aria-pressed="true"' in page.text  # the third text has its side
    client.press("a", "a")
    assert len(lines(path)) == 6


def test_answers_to_other_texts_or_questions_are_named(serve, caplog, tmp_path):
    client = serve([{"text": "x"}, {"text": "y"}], reviewers=["a"])
    client.answer_all("a", lambda page: ["left", "accept"])
    client.stop()
    with pytest.raises(ValueError, match="accept'.*Set mode, scale and accept as they were"):
        serve(reviewers=["a"], accept=False)
    serve([{"text": "x"}, {"text": "z"}], reviewers=["a"]).press("a", "r")
    assert "a has answered 1 texts that" in caplog.text
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["reviewers"]["a"]["not in the source"] == 1
    assert found["outcomes"] == {"agreed": 1, "rejected": 1}


def test_results_of_the_other_mode_are_not_written_over(serve, tmp_path):
    client = serve([{"text": "x"}], reviewers=["a"])
    client.answer_all("a", lambda page: ["left", "accept"])
    client.stop()
    before = (tmp_path / "out" / "apart.jsonl").read_bytes()
    (tmp_path / "out" / "answers" / "a.jsonl").unlink()
    with pytest.raises(ValueError, match="holds the results of mode=label; choose another output_dir"):
        serve([{"prompt": "q", "chosen": "a", "rejected": "b"}], reviewers=["a"], mode="prefer")
    assert (tmp_path / "out" / "apart.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", ["no json", "[1]", '{"item": "x"}', '{"undo": true}', '{"item": 1, "a": "\\ud8"}'])
def test_a_damaged_file_of_answers_is_named(serve, tmp_path, line):
    path = answers_path(tmp_path / "out", "a")
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    with pytest.raises(
        ValueError, match=r"a\.jsonl line 1: (no answer|no JSON|a list, want an object).*restore the file"
    ):
        serve([{"text": "x"}])
