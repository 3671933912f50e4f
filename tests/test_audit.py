# SPDX-License-Identifier: MIT
"""The recipe of an audit: its verdict, its report, and its page."""

import json
import re

import pytest
from conftest import REPO
from omegaconf import OmegaConf

from benchmarks.seeded_defects import FOLLOWS, seeded_rows
from data import audit
from data.pairs.records import pair_key, read_pairs
from data.quality.defects import KINDS
from data.quality.sets import GATES
from data.recipe.files import to_jsonl

CONFIG = REPO / "configs" / "audit.yaml"
EVIL = "<script>alert('x')</script> & <img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def seeded():
    return seeded_rows(160, share=0.3)


@pytest.fixture
def write(tmp_path):
    def write_file(rows, name):
        path = tmp_path / name
        path.write_text(to_jsonl(rows))
        return str(path)

    return write_file


def run(tmp_path, **settings):
    """Run the recipe; return its verdict and its report."""
    cfg = OmegaConf.merge(OmegaConf.load(CONFIG), OmegaConf.create(settings), {"output_dir": str(tmp_path / "out")})
    recipe = audit.AuditRecipe(audit.check_config(cfg, required=audit.REQUIRED, optional=audit.OPTIONAL))
    recipe.setup()
    return recipe.run(), json.loads((tmp_path / "out" / "report.json").read_text())


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
    may_follow = {
        (row, f) for row, kinds in enumerate(seeded.truth, start=1) for k in kinds for f in FOLLOWS.get(k, ())
    }
    assert len(listed - given - may_follow) <= 0.01 * len(seeded.rows)


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


@pytest.mark.parametrize("side", [None, "left"])
def test_a_repair_is_offered_where_the_side_is_known(write, tmp_path, caplog, side):
    rows = [{"prompt": "Why?", "chosen": "Because it is so.", "rejected": "No."}] * 2
    passed, _ = run(tmp_path, source=write(rows, "rows.jsonl"), side=side)
    assert not passed
    page = (tmp_path / "out" / "report.html").read_text()
    assert ("FAILED; repair=True makes a set" in caplog.text) is (side is not None)
    assert ("<code>repair=True</code> needs a side" in page) is (side is None)
    assert ("<code>repair=True</code> writes a set" in page) is (side is not None)


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


def test_influences_of_rows_are_shown_with_both_ends(write, tmp_path):
    rows = [{"prompt": f"Question {n}?", "chosen": f"Yes {n}, {EVIL}.", "rejected": f"No {n}."} for n in range(40)]
    pairs = read_pairs(rows, "x")
    known = [{"key": pair_key(pair), "influence": (-1) ** pair.row * pair.row / 1000} for pair in pairs[:30]]
    path = write(known, "influence.jsonl")
    _, report = run(tmp_path, source=write(rows, "rows.jsonl"), influence=path)
    facts = report["influence"]["set"]
    assert (facts["n"], facts["n_unknown"], sum(facts["counts"])) == (30, 10, 30)
    assert [row["row"] for row in facts["top"][:3] + facts["bottom"][:3]] == [30, 28, 26, 29, 27, 25]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Most to the left" in page
    assert "&minus;0.02900" in page or "−0.02900" in page
    assert "<script" not in page
    with pytest.raises(ValueError, match="knows none of these rows"):
        run(tmp_path, source=write(rows[30:], "others.jsonl"), influence=path)


def test_each_side_may_name_its_config():
    given = {"output_dir": "x", "source": {"left": "a/b", "right": "a/b"}, "name": {"left": "l", "right": "r"}}
    cfg = OmegaConf.merge(OmegaConf.load(CONFIG), given)
    assert audit.check_config(cfg, audit.REQUIRED, audit.OPTIONAL).name == given["name"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "source is null; give source=FILE"),
        ({"source": {"middle": "x"}}, "source has middle; use one path or name, or left and right"),
        ({"source": {"left": "x.jsonl"}, "side": "left"}, "leave side=null"),
        ({"source": "x.jsonl", "gates": {"length": 1}}, "gates has length; known: hard_defects"),
        ({"source": "x.jsonl", "length_ratio": [0.5, 0.9]}, "length_ratio"),
        ({"source": "x.jsonl", "length_ratio": None}, "`length_ratio=null` is null, want a list"),
        ({"source": "x.jsonl", "gates": None}, "`gates=null` is null, want a mapping"),
        ({"source": "x.jsonl", "split": None}, "`split=null` is null, want text"),
        ({"source": "x.jsonl", "seed": None}, "seed=null; give a number"),
        ({"source": "x.jsonl", "length_ratio": [0.5]}, "use two numbers, the least and the most"),
        ({"source": "x.jsonl", "gates": {"length_rule": 5}}, "gates: {'length_rule': 5}; give each a number from 0"),
        ({"source": "x.jsonl", "gates": {"length_rule": "high"}}, "gates: {'length_rule': 'high'}"),
        ({"source": "x.jsonl", "framed_prompts": "maybe"}, "want one of drop, keep"),
        ({"source": "x.jsonl", "language": "en"}, "language=en: no function"),
        ({"source": {"left": "x.jsonl", "right": "x.jsonl"}}, "both sides are the same file"),
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


def test_reports_and_examples_show_no_personal_data(write, tmp_path):
    rows = [
        {"id": f"jane.doe{n % 2}@example.org", "prompt": f"What about the rent number {'abcdef'[n]} here?"}
        | {"chosen": f"Ask jane.doe{n}@example.org", "rejected": "Call me at +44 20 7946 0958 today, [Your Name]."}
        for n in range(6)
    ]
    _, report = run(tmp_path, source=write(rows, "rows.jsonl"))
    assert next(e for e in report["defects"] if e["kind"] == "personal data")["rows"] == {"set": 6}
    for path in (tmp_path / "out").iterdir():
        text = path.read_text()
        assert "example.org" not in text, path.name
        assert "7946" not in text, path.name
    assert report["framing"]["set"]["n"] == 100
