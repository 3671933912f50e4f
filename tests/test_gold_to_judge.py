# SPDX-License-Identifier: MIT
"""From two people's keys to the verdict on a judge, by the documented commands and without a hand on a file."""

import json

import pytest
from conftest import REPO
from fault_server import FaultServer
from omegaconf import OmegaConf

from benchmarks.synthesis_kill import make_config, run_recipe
from data import review
from data.judging.judges import reaches_floor
from data.people.items import read_items
from data.people.results import AnswerFile

SIDES = {"left": "More of it should be owned together", "right": "Less of it should be taxed", "neither": "Tea is hot"}
TEXTS = [(f"{text}, as I said on day {day}.", side) for day in range(14) for side, text in SIDES.items()]
LEAN = {"left": 3, "right": 17, "neither": 10}


def lean_of(body: dict) -> int:
    """An honest judge, whichever of the two instructions it reads."""
    text = body["messages"][1]["content"]
    return next(LEAN[side] for side, start in SIDES.items() if start in text)


def honest(body: dict) -> str:
    if "response_format" in body:  # data/prompts/judge.txt, as data/synthesize.py asks
        return json.dumps({"relevance": 9, "lean": lean_of(body), "topic": "taxation"})
    return str(lean_of(body))


def centrist(body: dict) -> str:
    """Takes everything for the centre, but for what is plainly left: right on two classes of three."""
    lean = min(lean_of(body), 10)
    return json.dumps({"relevance": 9, "lean": lean, "topic": "taxation"}) if "response_format" in body else str(lean)


@pytest.fixture
def gold(tune_run, tmp_path):
    """Two reviewers answer every text; one of them takes three of them otherwise."""
    posts = tmp_path / "posts.jsonl"
    posts.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in TEXTS))
    items, _ = read_items(str(posts), "label")
    truth = dict(TEXTS)
    for reviewer in "ab":
        answers = AnswerFile(tmp_path / "review", reviewer)
        for n, item in enumerate(items.values()):
            side = "neither" if reviewer == "b" and n < 3 else truth[item.texts[0]]
            for question, answer in (("side", side), ("accept", "accept")):
                answers.append(item=item.id, question=question, answer=answer)
        answers.close()
    command = ["data/review.py", "--config", "configs/review.yaml", f"source={posts}", "serve=False"]
    assert tune_run(*command, f"output_dir={tmp_path / 'review'}") == 0
    rows = [json.loads(line) for line in (tmp_path / "review" / "gold.jsonl").open()]
    assert len(rows) == len(TEXTS) - 2  # on one of the three both said neither
    return tmp_path / "review" / "gold.jsonl"


def validated(tune_run, gold, tmp_path, url, name):
    """As docs/data/review.md has it."""
    assert tune_run(
        "eval/validate_judge.py", "--config", "configs/validate_judge.yaml", f"source={gold}", "scale=lean",
        "judges.model.scale=lean", "columns.target=null", f"judges.model.client.base_url={url}",
        f"judges.model.client.cache_dir={tmp_path / name}", f"output_dir={tmp_path / 'verdict'}", "cue_swap=False",
    ) == 0  # fmt: skip
    return json.loads((tmp_path / "verdict" / "validation.json").read_text())["judges"]["model"]


def test_an_honest_judge_is_believed_and_replayed_without_its_server(tune_run, gold, tmp_path, caplog):
    with FaultServer(honest) as server, caplog.at_level("INFO"):
        found = validated(tune_run, gold, tmp_path, server.url, "replies")
        assert server.outcomes["answered"] == found["n"] == len(TEXTS) - 2
    assert found["kappa"]["estimate"] == 1
    assert found["believed"]
    assert "believed" in caplog.text
    assert validated(tune_run, gold, tmp_path, "null", "replies") == found


def test_a_judge_under_the_floor_gets_the_same_verdict_twice(tune_run, gold, tmp_path, caplog):
    with FaultServer(centrist) as server, caplog.at_level("INFO"):
        found = validated(tune_run, gold, tmp_path, server.url, "replies")
        assert not found["believed"]
        # its estimate alone might pass a floor that its interval does not
        low = found["kappa"]["ci95"][0]
        assert low < found["kappa"]["estimate"]
        assert "not believed (floor 0.6)" in caplog.text
        posts = tmp_path / "posts.csv"
        posts.write_text(
            "text,author,date\nThe price of bread in our town is a matter for all who live in it.,A,2020\n"
        )
        cfg = make_config(tmp_path / "run", posts, server.url, judge={"labelled": str(gold)})
        assert cfg.judge.min_kappa == OmegaConf.load(REPO / "configs/validate_judge.yaml").min_kappa
        with pytest.raises(ValueError, match="judge-model is refused: kappa") as error:
            run_recipe(cfg)
    said = str(error.value)
    assert f"kappa {found['kappa']['estimate']:.3f} ({low:.3f} to {found['kappa']['ci95'][1]:.3f})" in said
    assert '"right said as centre": 1' in said
    assert not (tmp_path / "run" / "stages").exists()


def test_the_verdict_by_hand():
    kappa = {"estimate": 0.65, "ci95": [0.58, 0.72]}
    assert not reaches_floor(kappa, 0.6)
    assert reaches_floor(kappa, 0.58)
    assert reaches_floor({"estimate": 0.65, "ci95": None}, 0.6)
    assert not reaches_floor({"estimate": None, "ci95": None}, 0.6)


def test_the_mode_of_the_page_is_the_one_that_gives_gold():
    assert review.OPTIONAL["mode"] == OmegaConf.load(REPO / "configs/review.yaml").mode == "label"
