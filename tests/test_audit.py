# SPDX-License-Identifier: MIT
import json
import re
import sys

import numpy as np
import pytest
from conftest import REPO
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from benchmarks.audit_recall import score
from benchmarks.seeded_defects import seeded_rows
from data import audit
from data.pairs.records import Pair, duplicate_ids
from data.quality import duplicates, measures
from data.quality.defects import KINDS, Checks, row_defects, set_defects
from data.quality.sets import GATES, judge, load_sets, measure
from data.recipe import files as manifest

CONFIG = REPO / "configs" / "audit.yaml"
EVIL = "<script>alert('x')</script> & <img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def seeded():
    return seeded_rows(160, share=0.3)


@pytest.fixture
def write(tmp_path):
    def write_file(rows, name):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write_file


def run(tmp_path, **settings):
    """Run the recipe; return its verdict and its report."""
    cfg = OmegaConf.merge(OmegaConf.load(CONFIG), OmegaConf.create(settings), {"output_dir": str(tmp_path / "out")})
    recipe = audit.AuditRecipe(audit.check_config(cfg, required=audit.REQUIRED, optional=audit.OPTIONAL))
    recipe.setup()
    return recipe.run(), json.loads((tmp_path / "out" / "report.json").read_text())


# Single rows


def test_every_seeded_class_is_found_and_nothing_else():
    result = score(n_rows=280, seed=3)
    assert {kind: entry["n"] for kind, entry in result["classes"].items() if not entry["n"]} == {}
    assert result["recall"] >= 0.99, {k: e["missed"] for k, e in result["classes"].items() if e["missed"]}
    assert result["false_alarms"] <= 0.01, {k: e["false"] for k, e in result["classes"].items() if e["false"]}


def test_a_mirrored_row_has_the_same_length_defects():
    pair = Pair(1, "What about rents?", "a " * 150 + ".", "b " * 100 + ".")  # 1.5 passes, its inverse .667 does not
    for row in (pair, pair._replace(chosen=pair.rejected, rejected=pair.chosen)):
        assert [d.kind for d in row_defects(row) if d.field == "answers"] == ["length mismatch"]


def test_near_duplicates_name_each_other():
    pairs = [
        Pair(n, p, "Yes, I do.", "No, I do not.") for n, p in enumerate(("A b c d?", "x y z w?", "a b c d"), start=4)
    ]
    assert duplicates.near_duplicate_clusters([pair.prompt for pair in pairs]) == [0, 1, 0]
    assert [(d.row, d.kind, d.found) for d in set_defects(pairs, Checks()) if d.kind == "duplicate prompt"] == [
        (4, "duplicate prompt", "the same as row 6"),
        (6, "duplicate prompt", "the same as row 4"),
    ]


def test_duplicate_ids_name_both_rows():
    assert duplicate_ids([{"id": "a"}, {"id": "b"}, {}, {"id": "a"}, {}]) == [(4, 1, "a")]


def compared(texts, threshold):
    """Compare each text with each other one; return clusters and highest similarities."""
    grams = [duplicates.shingles(text, 3) for text in texts]
    clusters, highest = list(range(len(texts))), [0.0] * len(texts)
    for j, own in enumerate(grams):
        for i, other in enumerate(grams[:j]):
            similarity = len(own & other) / len(own | other)
            highest[i], highest[j] = max(highest[i], similarity), max(highest[j], similarity)
            if similarity >= threshold:
                low, high = sorted((clusters[i], clusters[j]))
                clusters = [low if cluster == high else cluster for cluster in clusters]
    return clusters, highest


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8).map(" ".join), max_size=14),
    st.sampled_from([0.1, 0.3, 0.5, 0.75, 1.0]),
)
def test_the_prefix_filter_misses_nothing(texts, threshold):
    clusters, highest = compared(texts, threshold)
    assert duplicates.near_duplicate_clusters(texts, threshold) == clusters
    assert duplicates.highest_similarities(texts) == highest


def test_near_duplicates_in_batches(seeded, monkeypatch):
    texts = [text for row in seeded.rows for text in row.values()]
    clusters, highest = compared(texts, 0.5)
    assert len(set(clusters)) < len(clusters)
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    monkeypatch.setattr(duplicates, "_ROWS", 50)
    assert duplicates.near_duplicate_clusters(texts) == clusters
    assert duplicates.highest_similarities(texts) == [x if x >= 0.01 else 0 for x in highest]


def test_near_duplicates_by_hand():
    # 3-grams: {abc, bcd, cde} and {abc, bcd, cdx} share 2 of 4
    texts = ["a b c d e", "A b, c d x!", "x y z"]
    assert duplicates.near_duplicate_clusters(texts) == [0, 0, 2]
    assert duplicates.near_duplicate_clusters(texts, threshold=0.51) == [0, 1, 2]
    assert duplicates.highest_similarities(texts) == [0.5, 0.5, 0]
    assert duplicates.near_duplicate_clusters(["yes please", "Yes, please."], threshold=1) == [0, 0]
    # further pairs join whole clusters, under their lowest index
    pairs = lambda texts: [(1, 3), (3, 4), (0, 2)]  # noqa: E731
    assert duplicates.near_duplicate_clusters([f"a{n}" for n in range(6)], alike=pairs) == [0, 1, 0, 1, 1, 5]


@pytest.mark.parametrize("threshold", [0, 1.1])
def test_thresholds_that_cannot_work_are_refused(threshold):
    with pytest.raises(ValueError, match=f"threshold={threshold}; use a number up to 1"):
        duplicates.near_duplicate_clusters(["a", "b"], threshold)


# Classifiers


def test_prompts_that_tell_the_side_are_seen_and_leaks_are_not():
    rng = np.random.default_rng(0)
    vocabulary = [f"word{n}" for n in range(200)]
    texts = [" ".join(rng.choice(vocabulary, 12)) for _ in range(200)]
    sides = ["left", "right"] * 100
    assert measures.prompt_guess(texts, sides, range(200)).accuracy == pytest.approx(0.5, abs=0.12)
    telling = [f"{text} wages" if side == "left" else text for text, side in zip(texts, sides)]
    guess = measures.prompt_guess(telling, sides, range(200))
    assert guess.accuracy > 0.9
    assert guess.telling[0] == ("wages", "left")
    # ten copies of each of 20 texts: a fold that shares copies would know them by heart
    copies, own_sides = texts[:20] * 10, sides[:20] * 10
    assert measures.prompt_guess(copies, own_sides, list(range(20)) * 10).accuracy < 0.8
    assert measures.prompt_guess(copies, own_sides, range(200)).accuracy > 0.95


def test_style_is_measured_without_words_of_content():
    left, right = [f"I say thing{n}, and it is so." for n in range(60)], [f"Thing{n} will come!" for n in range(60)]
    guess = measures.style_guess([*left, *right], ["left"] * 60 + ["right"] * 60, [*range(60)] * 2)
    assert guess.accuracy == 1
    assert measures.style_guess(left, ["left"] * 60, range(60)) is None


def test_scikit_learn_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=re.escape('pip install -c constraints.txt -e ".[audit]"')):
        measures.require_sklearn()


# The recipe


def test_the_shipped_set_passes(tune, tmp_path):
    out = tmp_path / "out"
    arguments = ["source=data/mirrored/pairs.jsonl", "side=left", "column_map.chosen=left", "column_map.rejected=right"]
    assert tune(["run", "data/audit.py", "--config", str(CONFIG), *arguments, f"output_dir={out}"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["passed"]
    assert report["sets"]["left"]["n_rows"] == 160
    assert sum(report["topics"]["left"].values()) == 160
    assert (out / "defects.jsonl").read_text().count("\n") == sum(e["rows"]["left"] for e in report["defects"])


def test_a_flawed_set_fails_and_every_defect_is_listed(tune, write, tmp_path, seeded):
    source, out = write(seeded.rows, "rows.jsonl"), tmp_path / "out"
    assert tune(["run", "data/audit.py", "--config", str(CONFIG), f"source={source}", f"output_dir={out}"]) == 1
    lines = [json.loads(line) for line in (out / "defects.jsonl").read_text().splitlines()]
    listed = {(line["row"], line["kind"]) for line in lines if KINDS[line["kind"]].group != "note"}
    given = {(row, kind) for row, kinds in enumerate(seeded.truth, start=1) for kind in kinds}
    assert len(given - listed) <= 0.01 * len(given)
    assert len(listed - given) <= 0.01 * len(seeded.rows)


def test_reports_of_two_sets_and_a_gate_for_each_verdict(write, tmp_path, seeded):
    half = len(seeded.rows) // 2
    left = [
        row | {"prompt": f"Wages aside: {row['prompt']}", "topic": f"t{n % 8}"}
        for n, row in enumerate(seeded.rows[:half])
    ]
    right = [row | {"topic": f"t{n % 7}"} for n, row in enumerate(seeded.rows[half:])]
    right[0] |= {"prompt": left[0]["prompt"]}
    source = {"left": write(left, "left.jsonl"), "right": write(right, "right.jsonl")}
    passed, report = run(tmp_path, source=source, gates={"topic_imbalance": 0.5, "length_rule": None})
    assert not passed
    verdicts = {gate["gate"]: gate["passed"] for gate in report["gates"]}
    assert list(verdicts) == list(GATES)
    assert verdicts["side_from_prompt"] is False
    assert verdicts["topic_imbalance"] is True
    assert verdicts["length_rule"] is None
    assert report["shared_prompts"] == 1
    assert report["guesses"]["side_from_prompt"]["accuracy"] > 0.9
    assert report["sets"]["left"]["length"]["by_topic"]["t0"]["n"] == 10


def test_the_page_is_self_contained_and_escapes_what_rows_hold(write, tmp_path):
    rows = [
        {
            "prompt": f"{EVIL} Question {n} of this post?",
            "chosen": f"Yes, {EVIL} {n}",
            "rejected": f"No {n} [Your Name]",
        }
        for n in range(6)
    ]
    run(tmp_path, source=write(rows, "evil.jsonl"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search(r"(?:src|href)\s*=", page.replace("&lt;img src=x", ""))
    assert "url(" not in page


def test_a_side_column_splits_a_set(write):
    rows = [
        {"id": str(n), "prompt": f"Question {n}?", "chosen": "Yes.", "rejected": "No.", "side": side}
        for n, side in enumerate(("left", "right", "left"))
    ]
    sets = load_sets(write(rows, "both.jsonl"), side="side")
    assert [(s.name, s.side, [pair.row for pair in s.pairs]) for s in sets] == [
        ("left", "left", [1, 3]),
        ("right", "right", [2]),
    ]
    with pytest.raises(ValueError, match=r"row 1: no column stance; side must be left, right, or a column"):
        load_sets(write(rows, "both.jsonl"), side="stance")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "source is null; give source=FILE"),
        ({"source": {"middle": "x"}}, "source has middle; use one path or name, or left and right"),
        ({"source": {"left": "x.jsonl"}, "side": "left"}, "leave side=null"),
        ({"source": "x.jsonl", "gates": {"length": 1}}, "gates has length; known: hard_defects"),
        ({"source": "x.jsonl", "length_ratio": [0.5, 0.9]}, "length_ratio"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        run(tmp_path, **settings)


def test_invalid_rows_and_duplicate_ids_are_counted(write, tmp_path):
    rows = [{"id": str(n), "prompt": f"Question {n} of them?", "chosen": "Yes.", "rejected": "No."} for n in range(20)]
    rows[3]["chosen"], rows[5]["id"], rows[7]["rejected"] = "", "4", "Yes."
    _, report = run(tmp_path, source=write(rows, "rows.jsonl"))
    counts = {entry["kind"]: entry["rows"]["set"] for entry in report["defects"]}
    assert (counts["invalid row"], counts["duplicate id"]) == (2, 1)
    assert report["sets"]["set"]["n_valid"] == 18
    example = next(entry for entry in report["defects"] if entry["kind"] == "duplicate id")["examples"][0]
    assert (example["row"], example["found"]) == (6, "id '4' is that of row 5")


def test_gates_pass_at_their_limit():
    sets = load_sets(str(REPO / "data/mirrored/pairs.jsonl"), {"chosen": "left", "rejected": "right"}, "left")
    report = measure(sets, {"left": []}, seed=0)
    exact = {gate["gate"]: gate["value"] for gate in judge(report, {})}
    assert all(gate["passed"] is not False for gate in judge(report, exact))
    tighter = {name: value - 0.01 for name, value in exact.items() if value is not None}
    assert not any(gate["passed"] for gate in judge(report, tighter))
    assert "Every gate passed." in audit.render_report(
        report | {"gates": judge(report, exact), "passed": True, "instruments": [], "settings": {"topic_column": "t"}}
    )


def test_a_manifest_names_what_lies_beside_it(tmp_path):
    files = {"a.jsonl": manifest.to_jsonl([{"x": "é"}, {"x": 2}]), "b.bin": b"\x00"}
    written = manifest.write_files(tmp_path / "new", files, {"version": 1})
    assert written["files"]["a.jsonl"]["rows"] == 2
    assert (tmp_path / "new" / "a.jsonl").read_bytes() == '{"x": "é"}\n{"x": 2}\n'.encode()
    assert json.loads((tmp_path / "new" / "manifest.json").read_text()) == written
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.jsonl", "b.bin", "manifest.json"]
