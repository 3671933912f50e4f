# SPDX-License-Identifier: MIT
"""The Makefile: what the quickstart computes, in which dtype, and what it leaves to `make dial`."""

import os
import subprocess
import sys

import pytest
from conftest import REPO

# Leaves what a run leaves for make, and takes bf16 where it may choose.
TUNE = """#!/bin/sh
echo "$@" >> $CALLS
for word; do case $word in output_dir=*) out=${word#*=};; dtype=*) dtype=${word#*=};; esac; done
mkdir -p $out/epoch_0
echo "dtype: $dtype" | sed s/auto/bf16/ > $out/torchtune_config.yaml
touch $out/epoch_0/progress.json
echo '{"primary": {"verdict": "a verdict"}, "warnings": ["a warning"]}' > $out/summary.json
"""


@pytest.fixture
def make(tmp_path):
    """Call make; returns its process, and the commands of `tune` that it ran."""
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "tune").write_text(TUNE)
    (tmp_path / "tune").chmod(0o755)
    calls = tmp_path / "calls"
    # `make test` would pass its own flags on
    of_nobody = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def run(*words):
        calls.write_text("")
        there = ("-o", ".venv/installed", "-o", "outputs/models/SmolLM2-135M-Instruct/model.safetensors")
        process = subprocess.run(
            ["make", *there, f"BIN={tmp_path}", f"QUICKSTART={tmp_path}/quickstart", *words],
            cwd=REPO, env={**of_nobody, "CALLS": str(calls)}, capture_output=True, text=True,
        )  # fmt: skip
        return process, calls.read_text().splitlines()

    return run


def dtypes(calls):
    return [word.removeprefix("dtype=") for call in calls for word in call.split() if word.startswith("dtype=")]


def test_the_quickstart_trains_both_sides_and_measures_them_in_the_dtype_that_the_left_one_took(make, tmp_path):
    process, calls = make("quickstart")
    assert process.returncode == 0, process.stderr
    assert [call.split()[1] for call in calls] == ["finetune/dpo_finetune.py"] * 2 + ["eval/political_compass.py"]
    assert dtypes(calls) == ["auto", "bf16", "bf16"]
    assert "training_data=data/mirrored/pairs.jsonl" in calls[2]
    for side in ("left", "right"):
        assert f"adapters.{side}={tmp_path}/quickstart/{side}/epoch_0" in calls[2]
    said = process.stdout.splitlines()[-5:]
    assert said[:2] == ["a verdict", "a warning"]
    assert said[3].startswith("Computed in bf16. Seconds: left ")
    assert said[4].startswith("make dial ")
    assert f"QUICKSTART={tmp_path}/quickstart" in said[4].partition(" measures")[0]
    assert make("quickstart")[1] == []  # nothing is done twice
    _, (call,) = make("dial")
    assert "configs/dial.yaml" in call
    assert dtypes([call]) == ["bf16"]


def test_another_dtype_wants_another_folder(make, tmp_path):
    make("quickstart")
    process, calls = make("quickstart", "DTYPE=fp32")
    assert (process.returncode, calls) == (2, [])
    assert f"DTYPE=fp32, but {tmp_path}/quickstart was computed in bf16: make clean-quickstart" in process.stdout
    assert f"make clean-quickstart QUICKSTART={tmp_path}/quickstart deletes it" in process.stdout
    assert make("quickstart", "DTYPE=bf16")[0].returncode == 0
    assert dtypes(make("quickstart", "DTYPE=fp32", f"QUICKSTART={tmp_path}/other")[1]) == ["fp32"] * 3
    # a left side that was made anew is not compared with the right one of before
    progress = tmp_path / "quickstart" / "left" / "epoch_0" / "progress.json"
    progress.unlink()
    assert len(make("quickstart")[1]) == 3
