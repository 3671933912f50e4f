# SPDX-License-Identifier: MIT
"""Posts to a finished set, against a server that answers by rules and goes wrong on purpose."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
from conftest import REPO
from fault_server import FaultServer
from huggingface_hub import DatasetCard
from omegaconf import OmegaConf
from synthesis_rules import LEFT, RIGHT, posts, respond

from benchmarks.synthesis_kill import check_rows, kill_at_random, make_config, run_recipe, sha256_of, write_posts
from data.chat import ChatClient
from data.judging.judges import check_judge, read_labelled
from data.judging.scales import LEAN_SCALE, PostScale, load_instruction, load_views
from data.pairs.records import read_pairs
from data.pairs.rows import load_rows
from data.quality.measures import length_rule_accuracy
from data.quality.sets import load_sets
from data.synthesis.models import Rubric, mask_names
from data.synthesize import SynthesizeRecipe
from data.text_models import OffensiveWords

N_POSTS = 90


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run with faults: its folder, its posts' file, and what the server saw."""
    folder = tmp_path_factory.mktemp("made")
    table = write_posts(folder / "posts.csv", N_POSTS)
    with FaultServer(respond, 0.1, stall_s=0.7) as server:
        run_recipe(make_config(folder / "run", table, server.url, folder / "replies"))
    return folder, table, server


def rows_of(dataset: Path, side: str) -> list[dict]:
    return [json.loads(line) for path in sorted(dataset.glob(f"{side}-*.jsonl")) for line in path.open()]


def replay(made, output: Path, **changes) -> Path:
    """Run again from the recorded replies, without a server."""
    folder, table, _ = made
    run_recipe(make_config(output, table, None, folder / "replies", **changes))
    return output / "dataset"


def test_every_post_is_a_row_or_is_rejected_with_a_reason(made):
    dataset = made[0] / "run" / "dataset"
    assert check_rows(dataset, N_POSTS) == (0, 0)
    rejected = [json.loads(line) for line in (dataset / "rejected.jsonl").open()]
    assert all(row["stage"] and row["reason"] for row in rejected)
    assert {"near duplicate", "post length", "quota", "length balance"} <= {row["reason"] for row in rejected}
    sides = json.loads((dataset / "funnel.json").read_text())["sides"]
    assert sum(side["posts"] for side in sides.values()) == N_POSTS
    assert all(side["posts"] == side["kept"] + sum(side["rejected"].values()) for side in sides.values())
    assert sides["left"]["selected"] == sides["right"]["selected"] > 20


def test_sides_mirror_each_other_and_lengths_tell_nothing(made):
    left, right = (rows_of(made[0] / "run" / "dataset", side) for side in ("left", "right"))
    by_id = {row["id"]: row for row in right}
    assert len({row["id"] for row in left}) == len(left) == len(right) > 30
    for row in left:
        mirror = by_id[row["mirror_id"]]
        assert (row["prompt"], row["chosen"], row["rejected"]) == (
            *(mirror["prompt"], mirror["rejected"], mirror["chosen"]),
        )
        assert row["split"] == mirror["split"]
        assert 0.67 <= row["n_words"]["chosen"] / row["n_words"]["rejected"] <= 1.5
    assert length_rule_accuracy([r["chosen"] for r in left], [r["rejected"] for r in left]) <= 0.52
    assert {row["split"] for row in left} == {"train", "validation", "test"}


def test_row_says_where_it_comes_from(made):
    row = rows_of(made[0] / "run" / "dataset", "left")[0]
    assert {*row} == {
        "id", "prompt", "chosen", "rejected", "side", "axis", "topic", "mirror_id", "source", "judges", "generator",
        "n_words", "similarity", "flags", "review", "split", "version",
    }  # fmt: skip
    (judge,) = row["judges"]
    assert judge["prompt_sha256"] == load_instruction("judge").sha256
    assert 0 <= judge["score"] <= 20
    assert row["generator"]["model"] == "generator-model"
    assert row["generator"]["params"] == {"temperature": 0.7, "max_tokens": 400, "seed": 0}
    assert {*row["generator"]["prompt_sha256"]} == {"prompt", "answer", "views"}
    assert len(row["source"]["post_sha256"]) == 64


def test_no_post_and_no_personal_data_is_kept(made):
    originals = posts(N_POSTS)
    kept = "".join(path.read_text() for path in (made[0] / "run").rglob("*.json*"))
    assert not [row["text"] for row in originals if row["text"] in kept]
    for private in ("me@example.org", "some_handle", "Author 1"):
        assert private not in kept
        assert private not in (made[0] / "replies" / "replies.sqlite").read_bytes().decode(errors="replace")
    assert any("some_handle" in row["text"] for row in originals)


def test_card_and_manifest(made):
    dataset = made[0] / "run" / "dataset"
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: digest for name, digest in sha256_of(dataset).items() if name != "manifest.json"
    }
    card = DatasetCard((dataset / "README.md").read_text())
    assert card.data.license == "cc-by-4.0"
    assert [config["config_name"] for config in card.data.configs] == ["left", "right"]
    for config in card.data.configs:
        assert all((dataset / part["path"]).is_file() for part in config["data_files"])
    assert "Not for deployment or persuasion" in card.text
    for heading in ("What became of the posts", "Sources", "Limits"):
        assert f"## {heading}" in card.text
    assert "near duplicate" in card.text


def test_files_load_as_preference_pairs(made):
    dataset = made[0] / "run" / "dataset"
    for kind, suffix in (("json", "jsonl"), ("parquet", "parquet")):
        pairs = read_pairs(*load_rows(kind, str(dataset / f"left-train.{suffix}")))
        wanted = [row for row in rows_of(dataset, "left") if row["split"] == "train"]
        assert [pair.chosen for pair in pairs] == [row["chosen"] for row in wanted]


def test_the_folder_loads_by_side_and_split(made):
    dataset = made[0] / "run" / "dataset"
    for side in ("left", "right"):
        for split in {row["split"] for row in rows_of(dataset, side)}:
            wanted = [row for row in rows_of(dataset, side) if row["split"] == split]
            rows, origin = load_rows(str(dataset), split=split, name=side)
            assert origin == f"{dataset}/{side}"
            for column in ("id", "prompt", "chosen", "rejected", "side"):
                assert [row[column] for row in rows] == [row[column] for row in wanted]
    with pytest.raises(ValueError, match=r"it has several configs; choose one of left, right .of a dataset:"):
        load_rows(str(dataset))
    named = {"left": "left", "right": "right"}
    sets = load_sets(dict.fromkeys(named, str(dataset)), name=named)
    assert [(part.name, part.n_rows) for part in sets] == [
        (side, sum(row["split"] == "train" for row in rows_of(dataset, side))) for side in named
    ]


def test_replay_and_two_workers_give_the_same_bytes(made, tmp_path):
    wanted = sha256_of(made[0] / "run" / "dataset")
    assert sha256_of(replay(made, tmp_path / "replay")) == wanted
    two = {"executor": {"tasks": 3, "workers": 2, "start_method": "fork"}}  # forking saves the imports
    assert sha256_of(replay(made, tmp_path / "two", **two)) == wanted


def test_finished_stages_are_skipped_and_changed_ones_made_again(made, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(made[0] / "run", output)
    n_calls = len(made[2].calls)
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()}
    replay(made, output)
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()} == before
    topic = next(row["topic"] for row in rows_of(output / "dataset", "left") if row["split"] == "train")
    replay(made, output, held_out_topics=[topic], version="2")
    assert {row["split"] for row in rows_of(output / "dataset", "left") if row["topic"] == topic} == {"test"}
    changed = {p.relative_to(output).parts[1] for p in before if not p.is_file() or p.stat().st_mtime_ns != before[p]}
    assert "6_answers" not in changed
    replay(made, output, min_distance=9)  # needs the posts, which are gone: all is made again, from the replies
    assert min(abs(j["score"] - 10) for row in rows_of(output / "dataset", "left") for j in row["judges"]) >= 9
    assert len(made[2].calls) == n_calls


def test_neutral_answer_second_judge_toxicity_and_one_side(tmp_path):
    table = write_posts(tmp_path / "posts.csv", 60)
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join(line.replace(". ", ". You stupid bastard. ", n % 4 == 1) for n, line in enumerate(lines)) + "\n"
    )
    toxicity = {"toxicity": {"_component_": "data.text_models.OffensiveWords"}, "max_toxicity": 0.08}
    with FaultServer(respond) as server:
        single = {"sides": ["left"], "single_sided_reason": "A test of the export.", "generator": {"neutral": True}}
        cfg = make_config(tmp_path / "run", table, server.url, max_side_difference=1, **single, **toxicity)
        cfg.second_judge = OmegaConf.merge(cfg.judge, {"client": {"model": "other-judge"}})
        run_recipe(cfg)
    dataset = tmp_path / "run" / "dataset"
    assert not list(dataset.glob("right-*"))
    rows = rows_of(dataset, "left")
    assert all(row["neutral"] for row in rows)
    assert [judge["model"] for judge in rows[0]["judges"]] == ["judge-model", "other-judge"]
    card = (dataset / "README.md").read_text()
    assert "A test of the export." in card
    # the cap holds for all that is kept; what it took is counted by the post's side, and by the answer's own
    kept = [row[name] for row in rows for name in ("prompt", "chosen", "rejected", "neutral")]
    assert max(OffensiveWords()(kept)) <= 0.08
    rejected = [json.loads(line) for line in (dataset / "rejected.jsonl").open()]
    toxic = [row for row in rejected if row["reason"] == "toxicity"]
    assert {row["stage"] for row in toxic} == {"selection", "gates"}
    manifest = json.loads((dataset / "manifest.json").read_text())
    sides = manifest["funnel"]["sides"]
    assert sum(side["rejected"].get("selection: toxicity", 0) for side in sides.values()) == sum(
        row["stage"] == "selection" for row in toxic
    )
    answers = [row["answers"] for row in rejected if row["stage"] == "gates"] + [
        {"left": row["chosen"], "right": row["rejected"]} for row in rows
    ]
    over = {side: sum(OffensiveWords()([texts[side]])[0] > 0.08 for texts in answers) for side in ("left", "right")}
    assert manifest["measured"]["toxic_answers"] == over
    assert f"answers dropped for a toxicity over 0.08, left / right | {over['left']} / {over['right']} |" in card


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sides": ["left"]}, "single_sided_reason"),
        ({"sides": ["up"]}, "use \\[left, right\\]"),
        ({"judge": {"min_kapa": 1}}, "did you mean `min_kappa`"),
        ({"sources": {"posts": {"text_colum": "x"}}}, "did you mean `text_column`"),
        (
            {"sources": {"posts": {"text_column": "x"}}},
            "row 1: no column x; give text_column=COLUMN; columns: text",
        ),
        ({"sources": {"more": 5}}, "sources.more=5 is no component; give sources.more._component_"),
        ({"judge": 5}, "`judge=5` is a whole number, want a mapping"),
        ({"max_toxicity": None}, "`max_toxicity=null` is null, want a number"),
        ({"generator": {"client": {"modle": 1}}}, "did you mean `model`"),
        ({"topics": {"foreign": ["war"]}}, r"no view for \[\('foreign', 'left'\)"),
        ({"split_shares": {"train": 0.5}}, "in sum 1"),
        ({"split_shares": {"train": 1.5, "validation": -0.5, "test": 0}}, "in sum 1"),
        ({"split_shares": {"train": "most"}}, "in sum 1"),
        ({"topics": {"economic": ["taxation", 2024]}}, "topics: 2024 is no text; put it in quotes"),
        ({"instruments": ["none.yaml"]}, "none.yaml: no such instrument"),
        # null ended in a TypeError after the calls that it is for
        ({"min_relevance": None}, "`min_relevance=null` is null, want a number"),
        ({"related": None}, "`related=null` is null, want a number"),
        ({"max_unanswered": None}, "`max_unanswered=null` is null, want a whole number"),
        ({"judge": {"min_kappa": None}}, "`min_kappa=null` is null, want a number"),
        ({"generator": {"n_words": None}}, "`n_words=null` is null, want a list"),
        ({"topics": {"social": ["taxation"]}}, "topics: taxation stands there twice"),
        ({"topics": {"social": "religion"}}, "give each axis a list"),
        ({"held_out_topics": ["taxes"]}, "taxes is no topic; known: "),
        ({"name": "../mine"}, "use letters, digits"),
        ({"judge": {"min_kappa": 6}}, "min_kappa=6` is out of range"),
        ({"generator": {"n_words": [90, 60]}}, "use two numbers"),
        ({"judge": {"client": {"params": {"model": "x"}}}}, "params.model` is set by what asks the server"),
        (
            {"judge": {"instruction": "nope"}},
            "no shipped instruction 'nope'; use answer, .*judge, .*stance, views or the path",
        ),
    ],
)
def test_config_that_is_refused(tmp_path, changes, named):
    table = write_posts(tmp_path / "posts.csv", 3)
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        run_recipe(make_config(tmp_path / "run", table, None, **changes))


def test_what_was_paid_for_is_used_when_the_last_gates_left_nothing(made, tmp_path):
    """Every threshold of the gates can be changed, and the stage be made again from the recorded replies alone."""
    output, bank, dataset = tmp_path / "run", tmp_path / "bank.txt", made[0] / "run" / "dataset"
    rejected = [json.loads(line) for line in (dataset / "rejected.jsonl").open()]
    prompts = {row["prompt"] for row in [*rows_of(dataset, "left"), *rejected] if row.get("prompt")}
    bank.write_text("".join(f"{prompt}\n" for prompt in sorted(prompts)))
    with pytest.raises(RuntimeError, match=r"no row is left; .*funnel.json .* gates: .*contamination \(\d+\).*no call"):
        replay(made, output, instruments=[str(bank)])
    answers = output / "stages" / "6_answers" / "00000.jsonl"
    written = answers.stat().st_mtime_ns
    assert sha256_of(replay(made, output)) == sha256_of(dataset)
    assert answers.stat().st_mtime_ns == written
    n_balanced = len(rows_of(output / "dataset", "left"))
    assert len(rows_of(replay(made, output, balance_lengths=False), "left")) > n_balanced
    assert json.loads((output / "dataset" / "manifest.json").read_text())["settings"]["balance_lengths"] is False


def test_sides_that_the_gates_treat_unequally_are_refused(tmp_path):
    def biased(body):
        text = body["messages"][1]["content"]
        refuses = body["response_format"]["json_schema"]["name"] == "prompt" and "market" in text
        return json.dumps({"prompt": "No?"}) if refuses else respond(body)

    table = write_posts(tmp_path / "posts.csv", 40)
    with FaultServer(biased) as server:
        cfg = make_config(tmp_path / "run", table, server.url)
        with pytest.raises(
            RuntimeError, match=r"of the selected posts of the left become rows.*max_side_difference=0.1"
        ):
            run_recipe(cfg)
    dataset = tmp_path / "run" / "dataset"
    assert json.loads((dataset / "funnel.json").read_text())["side_difference"] > 0.1
    assert not (dataset / "manifest.json").exists()


def test_calls_without_an_answer_stop_the_run_and_a_second_start_asks_for_them_alone(tmp_path):
    table = write_posts(tmp_path / "posts.csv", 30)
    with FaultServer(respond, 0.4, ("500",), seed=3) as server:
        cfg = make_config(tmp_path / "run", table, server.url, tmp_path / "replies", max_side_difference=1)
        cfg.judge.client.max_retries = 0
        with pytest.raises(RuntimeError, match=r"documents have calls that .* did not answer, max_unanswered=0"):
            run_recipe(cfg)
        n_answered, server.fault_rate = server.outcomes["answered"], 0.0
        run_recipe(cfg)
        keys = [json.dumps(body["messages"]) for body in server.calls if "lean" in json.dumps(body["messages"])]
        assert server.outcomes["answered"] > n_answered
        assert len(keys) - len(set(keys)) == server.outcomes["500"]
    assert check_rows(tmp_path / "run" / "dataset", 30) == (0, 0)


@pytest.mark.slow(15)
def test_killed_runs_repeat_no_call_and_lose_no_row(tmp_path):
    figures = kill_at_random(tmp_path, n_kills=2, n_posts=20)
    assert figures["kills"] >= 2
    assert {name: figures[name] for name in ("repeated", "lost", "empty", "differing")} == dict.fromkeys(
        ("repeated", "lost", "empty", "differing"), 0
    )


def test_judge_floor(tmp_path):
    labelled = [{"text": f"We speak of {word} here.", "label": "left"} for word in sorted(LEFT - {"democratic"})]
    labelled += [{"text": f"We speak of {word} here.", "label": "right"} for word in sorted(RIGHT)]
    path = tmp_path / "labelled.jsonl"

    def read(rows):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_labelled(str(path), LEAN_SCALE)

    scale = PostScale({"taxation": "economic", "drugs": "social"})
    with FaultServer(respond) as server:
        client = ChatClient("judge-model", server.url, str(tmp_path), retry_wait_s=0.01)
        figures = check_judge(client, scale, read(labelled), 0.4)
        assert figures["kappa"] == 1.0
        assert figures["confusion"] == {"left said as left": len(LEFT) - 1, "right said as right": len(RIGHT)}
        with pytest.raises(ValueError, match=r"labelled.jsonl row 1: label: 'up' is not one of left, centre, right"):
            read([{"text": "x", "label": "up"}])
        n_calls = len(server.calls)
        with pytest.raises(
            ValueError, match=r"judge.labelled: every text has the label left, so no agreement.*another class"
        ):
            check_judge(client, scale, read(labelled[:3]), 0.4)
        assert len(server.calls) == n_calls
        wrong = read([row | {"label": ("left", "right")[n % 2]} for n, row in enumerate(labelled)])
        with pytest.raises(
            ValueError, match=r"judge-model is refused: kappa -?0\.\d+ \(.*must reach judge.min_kappa=0.4; .*confus"
        ):
            check_judge(client, scale, wrong, 0.4)
        # through the config, before any post is judged
        table = write_posts(tmp_path / "posts.csv", 5)
        cfg = make_config(tmp_path / "run", table, server.url, judge={"labelled": str(path)})
        with pytest.raises(ValueError, match="is refused"):
            SynthesizeRecipe(cfg).run()
        assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("The Democrats and the GOP met.", "The [PARTY] and the [PARTY] met."),
        ("Senator Mary Jones spoke to Peter Smith.", "Senator [NAME] spoke to [NAME]."),
        ("Social Security and the Supreme Court stay.", "Social Security and the Supreme Court stay."),
        ("a liberal dose of democratic debate", "a liberal dose of democratic debate"),
    ],
)
def test_names_are_masked(text, masked):
    assert mask_names(text) == masked


def test_dry_run_asks_nothing(tune_run, tmp_path, caplog):
    table = write_posts(tmp_path / "posts.csv", 8)
    config = tmp_path / "config.yaml"
    with FaultServer(respond) as server:
        OmegaConf.save(make_config(tmp_path / "run", table, server.url, dry_run=True), config)
        with caplog.at_level("INFO"):
            assert tune_run("data/synthesize.py", "--config", str(config)) == 0
        assert not server.calls
    for shown in (
        "--- judge ---",
        "--- judge, names masked ---",
        "--- prompt ---",
        "--- answer ---",
        "16 calls to judge",
        # 40 calls at 2 s, 16 at once on either side
        "tokens of prompts (4 signs a token), and 0.1 minutes at 2 s a call, 16 and 16 at once",
    ):
        assert shown in caplog.text
    assert not (tmp_path / "run" / "stages").exists()
    table.write_text("text,author,date\n,a,2020\n")
    skipped = "the sources have no posts"
    assert skipped in tune_run("data/synthesize.py", "--config", str(config), "sources.posts.bad_rows=skip")


def test_push_is_private_and_its_token_is_the_environments(made, tmp_path, monkeypatch):
    done = []

    class Api:
        def __init__(self, token):
            done.append(token)

        def create_repo(self, repo_id, **options):
            done.append((repo_id, options))

        def upload_folder(self, **options):
            done.append(sorted(p.name for p in options["folder_path"].iterdir()))
            return "https://hub/datasets/me/set"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setenv("HF_TOKEN", "t")
    shutil.copytree(made[0] / "run", tmp_path / "run")
    replay(made, tmp_path / "run", push_to_hub="me/set")
    assert done[0] == "t"
    assert done[1] == ("me/set", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert "README.md" in done[2]
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(PermissionError, match="set HF_TOKEN"):
        replay(made, tmp_path / "run", push_to_hub="me/set")


def test_damaged_stage_is_named(made, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(made[0] / "run", output)
    shutil.rmtree(output / "stages" / "7_gates")
    with (output / "stages" / "6_answers" / "00000.jsonl").open("a") as file:
        file.write('{"text": "cut of')
    with pytest.raises(ValueError, match=r"00000.jsonl line \d+ is no document of a stage.*delete the folder"):
        replay(made, output)


def test_two_sides_are_asked_in_the_same_words_but_for_the_view():
    left, right = (Rubric().answer_request("Q?", "social", side).messages[1]["content"] for side in ("left", "right"))
    views = load_views()[1]
    assert left.replace(views["social", "left"], "") == right.replace(views["social", "right"], "")
    for axis in ("economic", "social"):  # the views themselves are of like length
        lengths = [len(views[axis, side].split()) for side in ("left", "right")]
        assert max(lengths) <= 1.2 * min(lengths)


def test_missing_datatrove_is_said_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove.data", None)
    with pytest.raises(ImportError, match=r'synthesis needs datatrove: pip install .* -e ".\[synthesis\]"'):
        runpy.run_path(str(REPO / "data/synthesis/stages.py"))
