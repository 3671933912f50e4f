# SPDX-License-Identifier: MIT
"""Reviewers get drawn items, their answers become files, and a source that cannot be right is named."""

import json
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from review_client import LEANS, PAIRS, labels, lines, write

from data import review
from data.judging.judges import check_judge, read_labelled
from data.judging.scales import LEAN_SCALE, load_scale
from data.pairs.records import read_pairs
from data.pairs.rows import load_rows
from data.people.items import Review, read_items


def test_two_reviewers_give_kappa_and_a_gold_file(serve, tmp_path):
    extra = {"one rejects": "left", "both reject": "left", "one skips": "right"}
    client = serve([{"text": text, "side": "SECRET"} for text in {**LEANS, **extra}])

    def a(page):
        text = page.texts[0]
        return {"both reject": ["reject"], "one rejects": ["left", "reject"], "one skips": ["skip"]}.get(
            text
        ) or labels(page)

    def b(page):
        text = page.texts[0]
        special = {"both reject": ["reject"], "own it": ["left", "accept"]}
        return special.get(text) or ([extra[text], "accept"] if text in extra else labels(page))

    client.answer_all("a", a)
    assert not (tmp_path / "out" / "gold.jsonl").exists()
    client.answer_all("b", b)
    gold = lines(tmp_path / "out" / "gold.jsonl")
    # "neither" is what judges call the centre
    assert [(row["text"], row["label"]) for row in gold] == [
        ("tax the rich", "left"), ("cut taxes", "right"), ("tea is hot", "centre"), ("free buses", "left")
    ]  # fmt: skip
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["outcomes"] == {
        "agreed": 4, "answers differ": 1, "accept or reject differs": 1, "rejected": 1, "skipped": 1
    }  # fmt: skip
    apart = {row["text"]: row for row in lines(tmp_path / "out" / "apart.jsonl")}
    assert apart["own it"]["answers"] == {
        "a": {"side": "right", "accept": "accept"}, "b": {"side": "left", "accept": "accept"}
    }  # fmt: skip
    side = found["agreement"]["a, b"]["side"]
    # both gave a side to 6 texts and agree on 5. a: 3 left, 2 right, 1 neither; b: 4, 1, 1. Chance 15/36:
    assert side["n"] == 6
    assert side["kappa"]["estimate"] == pytest.approx((5 / 6 - 15 / 36) / (1 - 15 / 36), abs=1e-6)
    assert found["agreement"]["a, b"]["accept"]["n"] == 7
    assert found["reviewers"]["a"] == {
        "done": 8, "skip": 1, "left": 3, "right": 2, "neither": 1, "accept": 5, "reject": 2, "not in the source": 0
    }  # fmt: skip
    # whoever measures a judge takes the file as it is
    read = read_labelled(str(tmp_path / "out" / "gold.jsonl"), LEAN_SCALE)
    assert read.truth == ["left", "right", "centre", "left"]
    client_of_judge = SimpleNamespace(
        model="m",
        base_url="b",
        chat_many=lambda requests, **_: (
            (k, SimpleNamespace(parsed={"lean": x}, text="", model="m")) for k, x in enumerate([0, 20, 10, 3])
        ),
    )
    # four texts reach no floor
    assert check_judge(client_of_judge, SimpleNamespace(request=str), read, -1)["kappa"] == 1


def test_order_is_drawn_for_each_reviewer_and_stays():
    items = {str(k): SimpleNamespace(id=str(k)) for k in range(40)}
    made = Review("label", items, {}, ["a", "b"])
    assert made.order("a") != made.order("b")
    assert made.order("a") == Review("label", items, {}, ["a", "b"]).order("a")
    assert made.order("a") != Review("label", items, {}, ["a", "b"], seed=1).order("a")
    fewer = {k: v for k, v in items.items() if int(k) < 30}
    assert Review("label", fewer, {}, ["a"]).order("a") == [k for k in made.order("a") if k in fewer]


@pytest.mark.parametrize("seed", range(3))
def test_sides_change_places_from_reviewer_to_reviewer(seed):
    item = SimpleNamespace(id="x")
    made = Review("label", {"x": item}, {}, ["a", "b"], seed=seed)
    first = {name: [b.value for b in made.buttons(item, name) if b.question == "side"] for name in "ab"}
    assert first["a"][:2] == first["b"][1::-1]
    assert {*first["a"][:2]} == {"left", "right"}


@pytest.mark.parametrize("scale", ["stance", "coverage", "hedging"])
def test_other_scales_are_asked_and_read_by_validation(serve, tmp_path, scale):
    """The page asks for the scale's classes; what comes out measures a judge of that scale."""
    wanted = load_scale(scale)
    rows = [{"text": f"text {k}", "target": f"target {k}", "lean": "SECRET"} for k in range(len(wanted.classes))]
    client = serve(rows, scale=scale, accept=False, reviewers=["a", "b"])
    page = client.page("a")
    assert page.texts == ([rows[int(page.texts[-1][5:])]["target"]] if scale == "stance" else []) + page.texts[-1:]
    for name in ("a", "b"):
        client.answer_all(name, lambda page: [wanted.classes[int(page.texts[-1][5:])]])
    gold = str(tmp_path / "out" / "gold.jsonl")
    read = read_labelled(gold, wanted, target="target" if scale == "stance" else None)
    assert {text.text: label for text, label in zip(read.texts, read.truth)} == {
        f"text {k}": name for k, name in enumerate(wanted.classes)
    }
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["scale"] == scale
    assert found["agreement"]["a, b"]["label"]["accuracy"]["estimate"] == 1
    assert found["reviewers"]["a"][wanted.classes[0]] == 1


def test_sides_of_coverage_change_places_and_steps_do_not():
    item = SimpleNamespace(id="x")
    coverage, hedging = (
        Review("label", {"x": item}, {}, ["a", "b"], False, 0, load_scale(x)) for x in ("coverage", "hedging")
    )
    orders = {name: [b.value for b in coverage.buttons(item, name)] for name in "ab"}
    assert sorted(orders.values()) == [
        ["left", "both", "right", "none", "skip"],
        ["right", "both", "left", "none", "skip"],
    ]
    assert [b.value for b in hedging.buttons(item, "a")] == [b.value for b in hedging.buttons(item, "b")]


def test_what_a_scale_needs_is_said(tmp_path):
    source = write(tmp_path / "rows.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match="no column target; give column_map.target=COLUMN; columns: text"):
        read_items(str(source), "label", scale="stance")
    with pytest.raises(ValueError, match="scale=pair compares two answers; use mode=prefer"):
        read_items(str(source), "label", scale="pair")
    source = write(tmp_path / "rows.jsonl", [{"text": "a", "target": ""}, {"text": "b", "target": "t"}])
    items, left_out = read_items(str(source), "label", scale="stance")
    assert [item.texts for item in items.values()] == [("b", "t")]
    assert left_out == {"target is empty": [1]}


def test_preferences_become_rows_for_dpo(serve, tmp_path):
    client = serve(PAIRS, mode="prefer", reviewers=["a"])
    shown = {}

    def keys(page):
        prompt, *answers = page.texts
        shown[prompt] = answers
        if prompt == "p0?":
            return ["tie"]
        if prompt == "p1?":
            return ["skip"]
        wanted = "no" if prompt == "p2?" else "yes"
        key = "ab"[[x.split()[0] for x in answers].index(wanted)]
        return [page.buttons[key][1].split("=")[-1]]

    client.answer_all("a", keys)
    # blinded: either answer may be A
    assert {answers[0].split()[0] for answers in shown.values()} == {"yes", "no"}
    rows, origin = load_rows("json", str(tmp_path / "out" / "preferences.jsonl"))
    pairs = read_pairs(rows, origin)
    assert [(p.prompt, p.chosen, p.rejected) for p in pairs] == [
        ("p2?", "no 2", "yes 2"), *((f"p{k}?", f"yes {k}", f"no {k}") for k in range(3, 12))
    ]  # fmt: skip
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["outcomes"] == {"agreed": 10, "skipped": 1, "tie": 1}
    assert found["reviewers"]["a"]["chosen"] == 9
    as_a = sum(shown[p.prompt][0] == p.chosen for p in pairs)
    assert found["reviewers"]["a"]["shown as A"] == as_a
    # the same answers, had the source had its columns exchanged
    flipped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in PAIRS]
    source = write(tmp_path / "flipped.jsonl", flipped)
    cfg = OmegaConf.create(
        review.OPTIONAL
        | {"source": str(source), "output_dir": str(tmp_path / "out"), "mode": "prefer", "reviewers": ["a"]}
    )
    review.settle(cfg, review.load_review(cfg))
    again, _ = load_rows("json", str(tmp_path / "out" / "preferences.jsonl"))
    assert again == rows


def test_rows_that_cannot_be_shown_are_counted(tmp_path):
    rows = [{"text": "x"}, {"text": "\u200b "}, {"text": "x"}, {"text": 5}, {"other": 1}, {"text": "y"}]
    items, left_out = read_items(str(write(tmp_path / "rows.jsonl", rows)), "label")
    assert [item.texts for item in items.values()] == [("x",), ("y",)]
    assert left_out == {
        "text is empty": [2, 5],
        "text is int, not text": [4],
        "duplicate": [3],
    }
    pairs = [*PAIRS[:1], {"prompt": "p0?", "chosen": "no 0", "rejected": "yes 0"}, {**PAIRS[1], "rejected": "yes 1"}]
    items, left_out = read_items(str(write(tmp_path / "pairs.jsonl", pairs)), "prefer")
    assert len(items) == 1
    assert left_out == {"duplicate": [2], "chosen equals rejected": [3]}


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("a,b\nx,y\n", {}, "no column text; give column_map.text=COLUMN; columns: a, b"),
        (
            "a,b\nx,y\n",
            {"mode": "prefer"},
            "rejected; give column_map.prompt=COLUMN column_map.chosen=COLUMN column_map.rejected=COL",
        ),
        ("text\nx\n", {"mode": "rank"}, "mode=rank; use one of label, prefer"),
        ("text\nx\n", {"column_map": {"txt": "text"}}, "column_map names txt"),
        ("text\n", {}, "no rows"),
        ("text,n\n,1\n , 2\n", {}, r"no row can be shown: text is empty \(2\)"),
        ("text\nx,y\n", {}, "row 1: 2 fields, the header has 1"),
        ("text\nx\n", {"reviewer": "carol"}, "reviewer=carol is unknown; use one of a, b"),
        ("text\nx\n", {"reviewers": ["../a"]}, "give different names"),
        ("text\nx\n", {"reviewers": ["a", "A"]}, "give different names"),
        ("text\nx\n", {"reviewers": []}, "give different names"),
        ("text\nx\n", {"source": None}, "source is null; give source=FILE"),
    ],
)
def test_a_wrong_source_or_setting_is_named(tmp_path, text, settings, message):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        review.load_review(OmegaConf.create(review.OPTIONAL | {"source": str(path), "output_dir": "x"} | settings))


def test_on_request_what_is_there_is_written(serve, tune_run, tmp_path):
    client = serve([{"text": text} for text in LEANS], reviewer="a")
    client.press("a", "1")
    settings = [f"source={tmp_path / 'rows.jsonl'}", f"output_dir={tmp_path / 'out'}", "serve=False"]
    assert tune_run("data/review.py", "--config", "configs/review.yaml", *settings) == 0
    assert (tmp_path / "out" / "gold.jsonl").read_text() == ""
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["outcomes"] == {"unanswered": 5}
    assert found["agreement"] == {"a, b": {"side": None, "accept": None}}
