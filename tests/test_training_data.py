# SPDX-License-Identifier: MIT
"""What an adapter was trained on is read from its card, whichever builder its run named."""

import json
from pathlib import Path

import pytest
from conftest import REPO
from omegaconf import OmegaConf
from test_datasets import WordLengths

from data.datasets import SHIPPED_SET
from data.pairs.rows import read_table
from data.pairs.tokens import Continuation
from data.recipe.config import component
from eval.statements.exposure import read_sources
from finetune.adapters.cards import write_card, write_derived_card
from finetune.adapters.training_data import recorded_data, recorded_training
from finetune.run.batches import PairBatches, PairSet


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Write the card of a run on some dataset, as the recipe does, and return the adapter's folder."""
    monkeypatch.chdir(REPO)

    def write(name, dataset, loss="torchtune.rlhf.loss.DPOLoss", data="9 pairs from x", steps=3, **more):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")
        cfg = OmegaConf.load(REPO / "configs" / "smollm2_135m_lora_dpo_cpu.yaml")
        cfg.output_dir, cfg.dataset, cfg.loss = str(folder), dataset, {"_component_": loss}
        cfg.update(more)
        write_card(folder, cfg, folder, data, steps)
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
        (
            {"_component_": "data.datasets.unpaired_answers", **CSV, "column_map": {"topic": "subject"}},
            [CSV | {"column_map": {"prompt": "prompt", "chosen": "completion", "topic": "subject"}}],
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


def test_another_file_of_the_shipped_sets_name_is_not_what_was_trained_on(trained, tmp_path, monkeypatch):
    folder = trained("left", {"_component_": "data.datasets.mirrored_left"})
    (tmp_path / SHIPPED_SET).parent.mkdir(parents=True)
    (tmp_path / SHIPPED_SET).write_text('{"prompt": "Why?", "left": "a", "right": "b"}\n')
    monkeypatch.chdir(tmp_path)
    assert recorded_data(folder).sources == [{"source": str(REPO / SHIPPED_SET)}]


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
    right = recorded_training(trained("right", {"_component_": "data.datasets.mirrored_right"})).answers
    assert right == ([row["right"] for row in shipped], [row["left"] for row in shipped])
    where = {"axis": "economic"}
    tuned = recorded_training(
        trained("sft", {"_component_": "data.datasets.mirrored_left_sft", "where": where})
    ).answers
    assert tuned == ([row["left"] for row in shipped if row["axis"] == "economic"], [])
    own = tmp_path / "own.jsonl"
    own.write_text(
        '{"prompt": "a", "completion": "Yes.", "label": true}\n{"prompt": "b", "completion": "No.", "label": 0}'
    )
    single = {"_component_": "data.datasets.unpaired_answers", "source": "json", "data_files": str(own)}
    assert recorded_training(trained("kto", single)).answers == (["Yes."], ["No."])
    chosen = recorded_training(
        trained("one", {"_component_": "data.datasets.mirrored_left"}, "finetune.losses.SFTLoss")
    ).answers
    assert chosen == ([row["left"] for row in shipped], [])
    few = recorded_training(trained("few", {"_component_": "data.datasets.mirrored_left", "subset": 5})).answers
    assert len(few.chosen) == len(few.rejected) == 5
    assert (
        recorded_training(trained("own", {"_component_": "torchtune.datasets.stack_exchange_paired_dataset"})) is None
    )
    assert recorded_training(REPO) is None


def test_the_rows_that_were_trained_on_are_named_with_their_set(trained):
    where = {"topic": ["drugs"]}
    of_shipped = trained("left", {"_component_": "data.datasets.mirrored_left", "where": where})
    assert recorded_data(of_shipped) == ([{"source": SHIPPED_SET, "where": where}], [])
    of_csv = trained("csv", {"_component_": "data.datasets.preference_pairs", **CSV, "where": where})
    assert recorded_data(of_csv) == ([{**CSV, "where": where}], [])


def test_what_a_training_held_out_is_named_with_its_set(trained):
    known = trained("left", {"_component_": "data.datasets.preference_pairs", **CSV, "hold_out": 0.25})
    assert recorded_data(known) == ([{**CSV, "hold_out": 0.25}], [])


def rows_of(folder):
    """Return the rows that its training took, and what is said of them."""
    training = recorded_training(folder)
    return [source["rows"] for source in training.sources], training.note


@pytest.mark.parametrize("name", ["mirrored_left", "mirrored_right_sft", "mirrored_centre"])
def test_rows_that_were_not_drawn_were_not_taught(trained, name):
    """``subset`` and ``where`` draw again what the builder drew for the training."""
    given = {"where": {"axis": "economic"}, "subset": 12, "seed": 5}
    drawn = component(f"data.datasets.{name}")(WordLengths(), **given).rows
    assert 0 < len(drawn) <= 12
    folder = trained(
        name, {"_component_": f"data.datasets.{name}", **given}, data=f"{len(drawn)} pairs from x, 3 steps"
    )
    assert rows_of(folder) == ([sorted({*drawn})], None)
    taught = read_sources(recorded_training(folder).sources)
    rows = read_table(SHIPPED_SET)
    assert {rows[row - 1]["topic"] for row in drawn} <= taught.topics
    assert len(taught.propositions) < len(read_sources([SHIPPED_SET]).propositions) / 2


def test_rows_that_no_step_took_were_not_taught(trained):
    """``max_steps_per_epoch`` and a checkpoint within an epoch leave rows out; each epoch takes other ones."""
    shipped = {"_component_": "data.datasets.mirrored_left"}
    nothing = Continuation([], [])
    pairs = PairSet([(nothing, nothing)] * 160, [], "x (and y)")
    for name, steps in {"checkpoint": 2, "epoch": 5, "epochs": 8}.items():
        batches = PairBatches(pairs, 4, 7, True, 5)
        taken = {row + 1 for step in range(steps) for row in batches.rows(*divmod(step, 5))}
        assert len(taken) <= 4 * steps
        folder = trained(name, shipped, data=batches.describe(), steps=steps, epochs=2, max_steps_per_epoch=5)
        assert rows_of(folder) == ([sorted(taken)], None)
    unordered = trained("first", shipped, data="160 pairs from x", steps=5, max_steps_per_epoch=5, shuffle=False)
    assert rows_of(unordered)[0] == [[*range(1, 21)]]


@pytest.mark.parametrize("more", [{"data": "144 pairs from x", "validation_share": 0.1}, {"seed": None}])
def test_where_a_card_does_not_tell_the_rows_all_count(trained, more):
    folder = trained(
        "left", {"_component_": "data.datasets.mirrored_left"}, steps=5, **{"data": "160 pairs from x"} | more
    )
    note = "which of 160 pairs its steps took is not known; all of them count as argued"
    assert rows_of(folder) == ([[*range(1, 161)]], note)


def test_rows_of_two_files_are_numbered_in_each(trained, tmp_path):
    for name, n in (("l", 5), ("r", 7)):
        rows = [{"prompt": f"{name}{k}", "chosen": "yes", "rejected": "no"} for k in range(n)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    left, right = ({"source": str(tmp_path / f"{name}.jsonl")} for name in "lr")
    both = {"_component_": "data.datasets.mixture", "left": left, "right": right}
    whole = trained("both", both, data="12 pairs from x", steps=3)
    assert recorded_training(whole).sources == [{**left, "rows": [*range(1, 6)]}, {**right, "rows": [*range(1, 8)]}]
    parts = [{"_component_": "data.datasets.preference_pairs", **part, "subset": 3} for part in (left, right)]
    (of_left, of_right), note = rows_of(trained("parts", parts, data="6 pairs from x", steps=2))
    assert (len(of_left), len(of_right), note) == (3, 3, None)
