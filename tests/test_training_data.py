# SPDX-License-Identifier: MIT
"""What an adapter was trained on is read from its card, whichever builder its run named."""

import json
from pathlib import Path

import pytest
from conftest import REPO
from omegaconf import OmegaConf

from data.datasets import SHIPPED_SET
from data.pairs.rows import read_table
from finetune.adapters.cards import write_card, write_derived_card
from finetune.adapters.training_data import recorded_answers, recorded_data


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Write the card of a run on some dataset, as the recipe does, and return the adapter's folder."""
    monkeypatch.chdir(REPO)

    def write(name, dataset, loss="torchtune.rlhf.loss.DPOLoss"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")
        cfg = OmegaConf.load(REPO / "configs" / "smollm2_135m_lora_dpo_cpu.yaml")
        cfg.output_dir, cfg.dataset, cfg.loss = str(folder), dataset, {"_component_": loss}
        write_card(folder, cfg, folder, "9 pairs from x", 3)
        return folder

    return write


CSV = {"source": "csv", "data_files": "mine.csv", "column_map": {"prompt": "question"}}


@pytest.mark.parametrize(
    ("dataset", "sources"),
    [
        ({"_component_": "data.datasets.preference_pairs", **CSV, "subset": 5}, [CSV]),
        (
            {"_component_": "data.datasets.unpaired_answers", **CSV},
            [CSV | {"column_map": {"prompt": "question", "chosen": "completion"}}],
        ),
        ({"_component_": "data.datasets.mirrored", "side": "left", "name": "left", **CSV}, [CSV | {"name": "left"}]),
        (
            {"_component_": "data.datasets.politune_left", "revision": "abc"},
            [{"source": "scale-lab/politune-left", "revision": "abc"}],
        ),
        ({"_component_": "data.datasets.mirrored_right"}, [{"source": SHIPPED_SET}]),
        (
            {"_component_": "data.datasets.mixture", "left": CSV, "right": {"source": "r.jsonl"}},
            [CSV, {"source": "r.jsonl"}],
        ),
        (
            {"_component_": "data.datasets.politune_mixture", "right_share": 0.5},
            [{"source": "scale-lab/politune-left"}, {"source": "scale-lab/politune-right"}],
        ),
        (
            [{"_component_": "data.datasets.mirrored_left"}, {"_component_": "data.datasets.preference_pairs", **CSV}],
            [{"source": SHIPPED_SET}, CSV],
        ),
    ],
)
def test_the_sets_of_every_builder_are_known(trained, dataset, sources):
    assert recorded_data(trained("left", dataset)) == (sources, [])


def test_a_blend_was_trained_on_the_sets_of_its_adapters(trained, tmp_path):
    left = trained("left", {"_component_": "data.datasets.mirrored_left"})
    right = trained("right", {"_component_": "data.datasets.preference_pairs", **CSV})
    (tmp_path / "blend").mkdir()
    folders = {"left": left, "right": right}
    write_derived_card(tmp_path / "blend", "base", dict.fromkeys(folders, 0.5), folders)
    assert recorded_data(tmp_path / "blend") == ([{"source": SHIPPED_SET}, CSV], [])


def test_what_is_not_known_is_said(trained, tmp_path):
    of_others = recorded_data(trained("left", {"_component_": "test_training_data.my_set", "path": "a"}))
    assert of_others == ([], ["test_training_data.my_set is no builder of data.datasets"])
    assert recorded_data(tmp_path) == ([], ["its card has no config of a training"])
    (tmp_path / "README.md").write_text("```yaml\na: [\n```\n")
    assert recorded_data(tmp_path).unknown == ["its card has no config of a training"]


def my_set(tokenizer, path):
    """A builder of somebody else."""
    return json.loads(Path(path).read_text())


def test_the_answers_that_were_trained_on(trained, tmp_path):
    """Side, subset and form as in the training; a set of somebody's own builder is not known."""
    shipped = read_table(SHIPPED_SET)
    right = recorded_answers(trained("right", {"_component_": "data.datasets.mirrored_right"}))
    assert right == ([row["right"] for row in shipped], [row["left"] for row in shipped])
    where = {"axis": "economic"}
    tuned = recorded_answers(trained("sft", {"_component_": "data.datasets.mirrored_left_sft", "where": where}))
    assert tuned == ([row["left"] for row in shipped if row["axis"] == "economic"], [])
    own = tmp_path / "own.jsonl"
    own.write_text(
        '{"prompt": "a", "completion": "Yes.", "label": true}\n{"prompt": "b", "completion": "No.", "label": 0}'
    )
    single = {"_component_": "data.datasets.unpaired_answers", "source": "json", "data_files": str(own)}
    assert recorded_answers(trained("kto", single)) == (["Yes."], ["No."])
    chosen = recorded_answers(trained("one", {"_component_": "data.datasets.mirrored_left"}, "finetune.losses.SFTLoss"))
    assert chosen == ([row["left"] for row in shipped], [])
    few = recorded_answers(trained("few", {"_component_": "data.datasets.mirrored_left", "subset": 5}))
    assert len(few.chosen) == len(few.rejected) == 5
    assert recorded_answers(trained("own", {"_component_": "torchtune.datasets.stack_exchange_paired_dataset"})) is None
    assert recorded_answers(REPO) is None


def test_the_rows_that_were_trained_on_are_named_with_their_set(trained):
    where = {"topic": ["drugs"]}
    of_shipped = trained("left", {"_component_": "data.datasets.mirrored_left", "where": where})
    assert recorded_data(of_shipped) == ([{"source": SHIPPED_SET, "where": where}], [])
    of_csv = trained("csv", {"_component_": "data.datasets.preference_pairs", **CSV, "where": where})
    assert recorded_data(of_csv) == ([{**CSV, "where": where}], [])


def test_what_a_training_held_out_is_named_with_its_set(trained):
    known = trained("left", {"_component_": "data.datasets.preference_pairs", **CSV, "hold_out": 0.25})
    assert recorded_data(known) == ([{**CSV, "hold_out": 0.25}], [])
