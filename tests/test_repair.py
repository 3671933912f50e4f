# SPDX-License-Identifier: MIT
"""What a repair writes: clean, mirrored, balanced, the same every time, and nothing dropped in silence."""

import json
import random
from collections import Counter

import pytest
from conftest import REPO
from omegaconf import OmegaConf

from benchmarks.seeded_defects import clean_rows, seeded_rows
from data import audit
from data.pairs.records import Pair, mirror_pairs
from data.quality import measures
from data.quality.cleaning import clean
from data.quality.defects import Checks
from data.quality.measures import longer_share
from data.quality.repair import Candidate, _style_gate, repair
from data.quality.sets import load_sets, style_guesses
from data.recipe.files import read_log, to_jsonl

CONFIG = REPO / "configs" / "audit.yaml"
CHECKS = Checks(language=None)


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    """A left and a right set with seeded defects; the chosen answers of the left one are the longer ones."""
    folder = tmp_path_factory.mktemp("flawed")
    seeded = seeded_rows(240, share=0.3, seed=5)
    rng = random.Random(0)
    for row, kinds in zip(seeded.rows, seeded.truth):
        if not kinds and rng.random() < 0.6:
            row["chosen"] += " That is how I see it."
    left, right = seeded.rows[:130], seeded.rows[130:]
    right = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in right]
    right[-1]["chosen"] += " Write to jane.doe@example.org, please."
    for name, rows in (("left", left), ("right", right)):
        for number, row in enumerate(rows):
            row["topic"] = f"topic {number % 3}"
        (folder / f"{name}.jsonl").write_text(to_jsonl(rows))
    return folder


def loaded_recipe(flawed, output_dir, **settings):
    cfg = OmegaConf.merge(
        OmegaConf.load(CONFIG),
        {"source": {side: str(flawed / f"{side}.jsonl") for side in ("left", "right")}, "repair": True},
        # style has a test of its own: on so few rows its measure is mostly noise
        {"output_dir": str(output_dir), "style_limit": None, "gates": {"side_from_style": None}},
        settings,
    )
    recipe = audit.AuditRecipe(audit.check_config(cfg, required=audit.REQUIRED, optional=audit.OPTIONAL))
    recipe.setup()
    return recipe


@pytest.fixture(scope="module", autouse=True)
def _in_less_time():
    """One draw of folds, which are tested with the measures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "N_DRAWS", 1)
        yield


@pytest.fixture(scope="module")
def repaired(flawed, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return loaded_recipe(flawed, out).run(), out / "repaired"


def test_the_repaired_set_passes_every_gate(repaired):
    passed, folder = repaired
    report = json.loads((folder / "audit" / "report.json").read_text())
    assert passed, [gate for gate in report["gates"] if gate["passed"] is False]
    values = {gate["gate"]: gate["value"] for gate in report["gates"]}
    assert values["hard_defects"] == values["framed_prompts"] == values["contamination"] == 0
    assert values["length_rule"] <= 0.52
    assert values["topic_length_bias"] <= 0.02
    assert values["side_from_prompt"] <= 0.55


def test_every_prompt_is_on_both_sides(repaired):
    left, right = (read_log(repaired[1] / f"{side}.jsonl") for side in ("left", "right"))
    assert len(left) == len(right) > 40
    for a, b in zip(left, right):
        assert (a["prompt"], a["chosen"], a["rejected"]) == (b["prompt"], b["rejected"], b["chosen"])
        assert (a["side"], b["side"], a["mirror_id"], b["mirror_id"]) == ("left", "right", b["id"], a["id"])
    ids = [row["id"] for row in left + right]
    assert len(set(ids)) == len(ids)
    flipped = mirror_pairs(left + right, "both", None, "right", "error")
    assert [pair.chosen for pair in flipped] == [row["chosen"] for row in right]


def test_lengths_are_balanced_in_every_topic(repaired):
    left = read_log(repaired[1] / "left.jsonl")
    for topic in {row["topic"] for row in left}:
        own = [row for row in left if row["topic"] == topic]
        assert longer_share([r["chosen"] for r in own], [r["rejected"] for r in own]) == 0.5


def test_nothing_is_dropped_in_silence(repaired):
    folder = repaired[1]
    manifest = json.loads((folder / "manifest.json").read_text())
    kept, rejected = read_log(folder / "left.jsonl"), read_log(folder / "rejected.jsonl")
    rows = Counter((row["source"]["set"], row["source"]["row"]) for row in kept)
    rows.update((row["set"], row["row"]) for row in rejected)
    assert rows == Counter([("left", n) for n in range(1, 131)] + [("right", n) for n in range(1, 111)])
    assert all(row["reason"] == row["reasons"][0]["reason"] and row["prompt"] for row in rejected)
    for name, entry in manifest["funnel"]["sets"].items():
        assert entry["kept"] + sum(entry["dropped"].values()) == entry["rows"]
        assert entry["dropped"] == Counter(row["reason"] for row in rejected if row["set"] == name)
    assert {row["reason"] for row in rejected} >= {"refusal", "preamble", "framed prompt", "length balance"}


def test_the_folder_loads_with_datasets(repaired, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = repaired[1]
    for side in ("left", "right"):
        rows = read_log(folder / f"{side}.jsonl")
        loaded = datasets.load_dataset(str(folder), side, split="train")  # by the card's metadata
        assert loaded.column_names == list(rows[0])
        for name in ("id", "prompt", "chosen", "rejected", "side"):
            assert loaded[name] == [row[name] for row in rows]
        assert [json.loads(source) for source in loaded["source"]] == [row["source"] for row in rows]
    assert "Not for deployment or persuasion" in (folder / "README.md").read_text()
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert {path.name for path in folder.iterdir() if path.is_file()} == {*listed, "manifest.json"}


def test_personal_data_is_masked_and_said(repaired):
    text = "".join((repaired[1] / f"{name}.jsonl").read_text() for name in ("left", "right", "rejected"))
    assert "jane.doe@example.org" not in text
    assert "[e-mail removed]" in text


def test_a_repetition_gives_the_same_bytes(repaired, flawed, tmp_path):
    loaded_recipe(flawed, repaired[1].parent).repair(tmp_path / "again")
    for name in ("left.jsonl", "right.parquet", "rejected.jsonl", "README.md", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (repaired[1] / name).read_bytes()


def test_sides_that_keep_different_shares_fail(tmp_path):
    rows = clean_rows(40, random.Random(4))
    for row in rows[20:25]:
        row["prompt"] += " Defend this policy."
    for name, own in (("left", rows[:20]), ("right", rows[20:])):
        (tmp_path / f"{name}.jsonl").write_text(to_jsonl(own))
    gates = {"length_rule": 1.0, "side_from_prompt": None, "exchanged_sides": None}
    settings = {"gates": gates, "balance_within": ["set"]}
    assert not loaded_recipe(tmp_path, tmp_path / "out", max_side_difference=0.01, **settings).run()
    report = json.loads((tmp_path / "out" / "repaired" / "audit" / "report.json").read_text())
    assert [gate["gate"] for gate in report["gates"] if gate["passed"] is False] == ["side_difference"]
    shares = [entry["kept_share"] for entry in report["repair"]["sets"].values()]
    assert report["repair"]["side_difference"] == pytest.approx(abs(shares[0] - shares[1]))


def test_style_that_tells_the_side_is_filtered(tmp_path):
    rows = clean_rows(120, random.Random(1))
    for number, row in enumerate(rows):  # half of the left answers are hedged, which style sees
        if number % 2:
            row["chosen"] = row["chosen"].replace(".", ", perhaps.", 1)
    path = tmp_path / "rows.jsonl"
    path.write_text(to_jsonl(rows))
    sets = load_sets(str(path), side="left")
    without, with_limit = (repair(sets, CHECKS, style_limit=limit) for limit in (None, 0.55))
    hedged = [sum("perhaps" in row["chosen"] for row in done.left) / len(done.left) for done in (without, with_limit)]
    assert hedged[1] < hedged[0]
    assert {row["reason"] for row in with_limit.rejected} >= {"style balance"}
    assert with_limit.funnel["side_difference"] is None


def test_framed_prompts_can_be_kept_with_a_flag(tmp_path):
    rows = clean_rows(30, random.Random(2))
    rows[3]["prompt"] += " Defend this policy."
    path = tmp_path / "rows.jsonl"
    path.write_text(to_jsonl(rows))
    sets = load_sets(str(path), side="right")
    kept = repair(sets, CHECKS, framed_prompts="keep", balance_within=["set"])
    flags = {row["source"]["row"]: row["flags"] for row in kept.right}
    dropped = {row["row"]: row["reason"] for row in kept.rejected}
    assert "framed prompt" in flags.get(4, []) or dropped.get(4) == "length balance"
    assert {row["row"]: row["reason"] for row in repair(sets, CHECKS).rejected}[4] == "framed prompt"


@pytest.mark.parametrize(
    ("side", "settings", "message"),
    [
        (None, {}, "a mirrored set needs a side; set side to left, right or a column"),
        ("left", {"framed_prompts": "maybe"}, "framed_prompts='maybe'"),
        ("left", {"balance_within": ["language"]}, "and any of topic, set"),
    ],
)
def test_repairs_that_make_no_sense_are_refused(flawed, side, settings, message):
    sets = load_sets(str(flawed / "left.jsonl"), side=side)
    with pytest.raises(ValueError, match=message):
        repair(sets, CHECKS, **settings)


def test_a_row_of_several_turns_is_rejected_with_its_reason(tmp_path):
    rows: list[dict] = [*clean_rows(4, random.Random(3))]
    asked, answered = {"role": "user", "content": "Why so?"}, {"role": "assistant", "content": "Why not?"}
    rows[1]["prompt"] = [asked, answered, {"role": "user", "content": rows[1]["prompt"]}]
    path = tmp_path / "left.jsonl"
    path.write_text(to_jsonl(rows))
    (row,) = [row for row in repair(load_sets(str(path), side="left"), CHECKS).rejected if row["row"] == 2]
    assert row["prompt"].startswith("Why so?\n\nWhy not?\n\n")
    found = "several turns, or a system prompt; a mirrored set has one turn of the user"
    assert {"reason": "invalid row", "field": "prompt", "found": found} in row["reasons"]


def test_what_can_be_cleaned_safely_is_and_the_row_says_so(tmp_path):
    rows = clean_rows(30, random.Random(6))
    before = rows[4]["chosen"]
    rows[4]["chosen"] = f'"{before.replace(". ", ".<br>&nbsp;", 1)} Itâ€™s so."\n'
    path = tmp_path / "rows.jsonl"
    path.write_text(to_jsonl(rows))
    done = repair(load_sets(str(path), side="left"), Checks(length_ratio=(0.5, 2)), balance_within=["set"])
    kept = {row["source"]["row"]: row for row in done.left}
    lost = {row["row"]: row for row in done.rejected}
    text = kept[5]["chosen"] if 5 in kept else lost[5]["chosen"]
    assert text == f"{before.replace('. ', '.' + chr(10) + ' ', 1)} It’s so."
    assert 5 not in kept or kept[5]["flags"] == ["cleaned"]
    assert clean(text) == text


def test_the_style_gate_of_the_repair_is_that_of_the_audit(repaired):
    left, right = (read_log(repaired[1] / f"{side}.jsonl") for side in ("left", "right"))
    sets = load_sets({side: str(repaired[1] / f"{side}.jsonl") for side in ("left", "right")})
    guesses = [guess.accuracy for guess in style_guesses(sets, 0).values()]
    pairs = [Pair(n, row["prompt"], row["chosen"], row["rejected"]) for n, row in enumerate(left, start=1)]
    home = sets[0]._replace(pairs=pairs)
    rows = [Candidate(home, place, pair, [], 0.0) for place, pair in enumerate(pairs)]
    assert len(left) == len(right)
    assert _style_gate(rows, 0) == pytest.approx(max(guesses))
