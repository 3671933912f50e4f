# SPDX-License-Identifier: MIT
"""The evaluation recipe with blends, a dial and a trajectory, on a random two-layer Llama."""

import json
from pathlib import Path

import pytest
from test_political_compass import adapters, overrides, run  # noqa: F401

from eval.scores.places import Place

DIAL = {"low": "left", "high": "right", "n_points": 5}


def by_model(rows, what="option_logprobs"):
    return {name: [row[what] for row in rows if row["model"] == name] for name in {row["model"] for row in rows}}


def test_a_dial_with_both_at_once(overrides, adapters):  # noqa: F811
    given = {**adapters, "both": {"left": 1, "right": 1}, "same": {"left": 1}, "off": {"left": 0, "right": 0}}
    rows, summary = run(overrides, adapters=given, dial=DIAL, modes=["pairs"])
    assert list(summary["models"]) == ["base", "left", "right", "both", "same", "off", "left@0.5", "right@0.5"]
    found = by_model(rows)
    assert found["same"] == found["left"]
    assert found["off"] == found["base"]
    assert len({str(found[name]) for name in found}) == 6
    (curve,) = [c for c in summary["curves"] if c["axis"] == "lean"]
    assert curve["models"] == ["left", "left@0.5", "base", "right@0.5", "right"]
    assert curve["x"] == [-1, -0.5, 0, 0.5, 1]
    assert summary["settings"]["blends"]["left@0.5"] == {"left": 0.5}
    assert summary["settings"]["places"]["left@0.5"] == Place("left", weight=0.5)._asdict()
    assert set(summary["settings"]["adapters_sha256"]) == {"left", "right"}


def test_a_trajectory_by_glob(overrides, adapters, tmp_path):  # noqa: F811
    for name, step in (("step_5", 5), ("epoch_0", 12)):
        folder = tmp_path / "run" / name
        folder.mkdir(parents=True)
        for file in Path(adapters["left"]).iterdir():
            (folder / file.name).symlink_to(file)
        (folder / "progress.json").write_text(json.dumps({"global_step": step}))
    rows, summary = run(overrides, adapters={"mine": f"{tmp_path}/run/*"}, modes=["pairs"])
    assert list(summary["models"]) == ["base", "mine_step_5", "mine_step_12"]
    found = by_model(rows)
    assert found["mine_step_5"] == found["mine_step_12"] != found["base"]
    assert summary["drift"][0]["steps"] == [5, 12]
    assert summary["curves"][0]["x"] == [0, 5, 12]
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["places"]["mine_step_12"] == Place("mine", step=12)._asdict()
    # a run of before places were noted is accepted, and gets them
    without = {key: value for key, value in settings.items() if key != "places"}
    (tmp_path / "out" / "settings.json").write_text(json.dumps(without))
    again, _ = run(overrides, adapters={"mine": f"{tmp_path}/run/*"}, modes=["pairs"])
    assert again == rows
    assert json.loads((tmp_path / "out" / "settings.json").read_text()) == settings


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"adapters": {"mine": "nowhere/*"}}, "matches nothing; give the checkpoints of a run"),
        ({"adapters": {"mine": {"left": 1}}}, r"adapters.mine: no adapter \['left'\]"),
        ({"adapters": None, "dial": DIAL}, "dial: no adapter"),
    ],
)
def test_refused_before_anything_loads(overrides, more, message, tmp_path):  # noqa: F811
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(overrides, **more)
    assert not (tmp_path / "out").exists()
