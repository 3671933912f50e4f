# SPDX-License-Identifier: MIT
"""A steering vector is the mean difference of hidden states, and an adapter like any other."""

import contextlib
import json
import sys

import pytest
import torch
from conftest import REPO
from peft import LoraConfig, PeftModel, inject_adapter_in_model
from transformers import AutoModelForCausalLM

from benchmarks.model_families import FAMILIES, IDS, tiny_model
from data.datasets import preference_pairs
from data.pairs.tokens import Continuation
from eval.steering import _behind, _read, add_vector
from finetune.adapters.folders import read_adapter_config, read_adapters
from finetune.adapters.norms import allow_norms, is_behind_norm
from finetune.adapters.resident import AdaptedModel
from finetune.adapters.saving import write_peft_adapter
from finetune.adapters.training_data import recorded_training
from finetune.run.batches import first_scored, tokenize_pairs
from finetune.run.processes import whole_adapter
from finetune.tokenizers import hf_chat_tokenizer

ROWS = [
    {"prompt": f"Is {t} good?", "chosen": f"Yes, {t} is very good.", "rejected": f"No, leave {t}."}
    for t in ("tea", "milk", "juice")
]
BY_NAME = {family.name: family for family in FAMILIES}
TEXT = "The kettle boils.\nRain fell on the garden all day.\nShe found the missing puzzle piece.\n"


@pytest.fixture
def steer(tiny_model_dir, tmp_path, monkeypatch):
    """Run the recipe on the tiny model; return its output folder."""
    from torchtune._cli.tune import main

    data, text = tmp_path / "pairs.jsonl", tmp_path / "text.txt"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    text.write_text(TEXT)
    monkeypatch.setenv("POLITUNE_TRACEBACK", "1")
    monkeypatch.chdir(REPO)

    def run(*overrides):
        arguments = [
            "eval/steering.py", "--config", "configs/steering.yaml", f"output_dir={tmp_path / 'out'}",
            f"model.path={tiny_model_dir}", "dataset=data.datasets.preference_pairs", "dataset.source=json",
            f"dataset.data_files={data}", f"neutral_text={text}", *overrides,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["tune", "run", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        return tmp_path / "out" / "vector"

    return run


def test_a_vector_is_the_mean_difference_and_peft_adds_it(steer, tiny_model_dir, tmp_path):
    folder = steer("layer=0", "strengths=[0.1,0.2]", "max_surprise=9")
    about = json.loads((folder / "steering.json").read_text())
    assert (about["layer"], about["n_layers"], about["strength"], about["n_pairs"]) == (0, 2, 0.2, 3)
    assert [dose["strength"] for dose in about["doses"]] == [0, 0.1, 0.2]

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)

    def states(model, answer):
        ids = torch.as_tensor(list(answer.tokens))[None]
        with torch.no_grad():
            return model(input_ids=ids, output_hidden_states=True).hidden_states[1][0, first_scored(answer) :]

    tokenizer = hf_chat_tokenizer(str(tiny_model_dir))
    dataset = preference_pairs(tokenizer, source="json", data_files=str(tmp_path / "pairs.jsonl"))
    pairs = tokenize_pairs(dataset).pairs
    of_answers = [[states(model, answer) for answer in pair] for pair in pairs]
    difference = torch.stack([a.mean(0) - b.mean(0) for a, b in of_answers]).mean(0)
    length = torch.cat([x for pair in of_answers for x in pair]).norm(dim=-1).mean()
    vector = difference / difference.norm() * length * 0.2
    adapted = PeftModel.from_pretrained(model, folder)
    for pair, before in zip(pairs, of_answers):
        torch.testing.assert_close(states(adapted, pair[0]) - before[0], vector.expand_as(before[0]), atol=1e-5, rtol=0)
    assert read_adapters({"v": str(folder), "other_way": {"v": -1}}).names == ("v", "other_way")
    training = recorded_training(folder)
    assert training.answers.chosen == [row["chosen"] for row in ROWS]
    assert ([source["rows"] for source in training.sources], training.note) == ([[1, 2, 3]], None)


def test_the_strength_is_the_largest_that_neutral_text_bears(steer):
    about = json.loads((steer("strengths=[1e-7,0.1]", "max_surprise=1e-5") / "steering.json").read_text())
    assert about["strength"] == 1e-7
    assert max(about["doses"][2]["surprise_chosen"], about["doses"][2]["surprise_rejected"]) > 1e-5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strengths=[0.1]", "max_surprise=1e-9"], "the first costs .* give smaller ones"),
        (["layer=2"], "layer=2; the model has layers 0 to 1"),
        (["strengths=[0.2,0.1]"], "each larger than the one before"),
        (["strengths=[0.1,x]"], "give positive numbers, each larger than the one before"),
        (["max_surprise=0"], "max_surprise=0"),
    ],
)
def test_what_cannot_be_is_refused(steer, overrides, message):
    with pytest.raises(ValueError, match=message):
        steer(*overrides)


def added(decoder, layer, probe, weigh):
    """What ``weigh`` adds to the hidden states behind a layer, ``[1, T, D]``."""
    with _behind(decoder.layers[layer]) as hidden:
        _read(decoder, probe)
        before = hidden.pop()
        weigh()
        _read(decoder, probe)
        return hidden.pop() - before


@pytest.mark.parametrize(
    ("family", "module", "gain"),
    [
        ("Qwen3", "model.layers.1.mlp.down_proj", 1),
        ("GPT-2", "transformer.h.1.mlp.c_proj", 1),
        ("Granite", "model.layers.1.mlp.down_proj", 0.5),  # its residual_multiplier here
        ("Gemma 2", "model.layers.1.post_feedforward_layernorm", 1),
        ("Gemma 3", "model.layers.1.post_feedforward_layernorm", 1),
        ("OLMo 2", "model.layers.1.post_feedforward_layernorm", 1),
        ("OLMo 3", "model.layers.1.post_feedforward_layernorm", 1),
        ("GLM-4", "model.layers.1.post_mlp_layernorm", 1),
    ],
)
def test_a_vector_comes_out_of_the_layer_as_it_is_and_again_from_its_folder(family, module, gain, tmp_path):
    kind, probe = BY_NAME[family], Continuation(IDS[:12], IDS[:12])
    decoder, again = tiny_model(kind), tiny_model(kind)
    vector = torch.linspace(-1, 1, 64)
    with torch.no_grad():
        steered = add_vector(decoder, 1, probe, "base")
        shift = added(decoder, 1, probe, lambda: steered.bias.copy_(vector / steered.gain))
    torch.testing.assert_close(shift, vector.expand_as(shift), atol=1e-5, rtol=0)
    assert steered.gain == gain

    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind.kind}))
    for model in (decoder, again):
        model.folder = tmp_path
    write_peft_adapter(decoder, tmp_path / "vector", whole_adapter(decoder))
    settings = json.loads((tmp_path / "vector" / "adapter_config.json").read_text())
    assert settings["target_modules"] == [module]
    assert is_behind_norm(settings) == module.endswith("norm")
    folder, ids = tmp_path / "vector", torch.as_tensor([IDS[:12]])
    by_peft = PeftModel.from_pretrained(tiny_model(kind).hf, folder, config=read_adapter_config(folder))
    with torch.no_grad():
        torch.testing.assert_close(by_peft(ids).logits, decoder.hf(ids).logits)
    adapters = read_adapters({"v": str(tmp_path / "vector"), "back": {"v": -0.5}})
    adapted = AdaptedModel(again, adapters.folders, tmp_path, adapters.blends)
    for name, weight in (("v", 1), ("back", -0.5)):
        with torch.no_grad(), contextlib.ExitStack() as stack:
            shift = added(again, 1, probe, lambda: stack.enter_context(adapted.using(name)))  # noqa: B023 - called here
        torch.testing.assert_close(shift, (weight * vector).expand_as(shift), atol=1e-5, rtol=0)


def test_a_vector_that_no_module_of_a_layer_can_give_is_refused():
    with pytest.raises(ValueError, match="in a layer of a mixtral model no linear module and no norm gives what"):
        add_vector(tiny_model(BY_NAME["Mixtral"]), 1, Continuation(IDS[:8], IDS[:8]), "base")


def test_an_adapter_of_a_norm_without_a_vector_is_refused(tmp_path):
    decoder = tiny_model(BY_NAME["Gemma 3"])
    settings = LoraConfig(r=1, target_modules=["model.layers.1.post_feedforward_layernorm"])
    with pytest.raises(ValueError, match="an adapter of a norm has lora_bias=True"):
        inject_adapter_in_model(allow_norms(settings), decoder.hf, "v")
