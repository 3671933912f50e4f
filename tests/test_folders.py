# SPDX-License-Identifier: MIT
"""Blends and dials: exact on the resident model, and every mistake named before a weight loads."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, write_llama_folder
from omegaconf import OmegaConf
from peft import PeftModel
from safetensors.torch import load_file, save_file
from test_resident import IDS, TARGETS, hf_logits, resident, write_adapter  # noqa: F401
from transformers import AutoModelForCausalLM

from finetune.adapters.folders import check_bases, find_checkpoints, fingerprint, read_adapters
from finetune.adapters.resident import AdaptedModel


@pytest.fixture(scope="module")
def folders(tiny_model_dir, tmp_path_factory):
    """Adapters of unlike ranks, scales and layers."""
    made = tmp_path_factory.mktemp("adapters")
    settings = {
        "left": {"r": 4, "lora_alpha": 8, "target_modules": TARGETS},
        "right": {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "use_rslora": True},
        "other": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "use_dora": True},
    }
    return {name: str(write_adapter(tiny_model_dir, made / name, **s)) for name, s in settings.items()}


@pytest.fixture
def adapted(tiny_model_dir, resident, folders):  # noqa: F811
    def attach(blends):
        found = read_adapters({"left": folders["left"], "right": folders["right"], **blends})
        return AdaptedModel(resident, found.folders, tiny_model_dir, found.blends)

    return attach


def test_all_adapters_that_are_missing_are_said_with_what_to_do(tmp_path, folders, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    given = {"left": "outputs/quickstart/left/epoch_0", "good": folders["left"], "mine": "nothing", "other": "other"}
    with pytest.raises(FileNotFoundError) as error:
        read_adapters(given)
    assert str(error.value) == (
        "adapters.left: outputs/quickstart/left/epoch_0: adapter_config.json not found (no such folder); "
        "adapters.mine: nothing: adapter_config.json not found (no such folder); "
        "adapters.other: other: adapter_model.safetensors not found (adapter_config.json), an adapter of owner/base "
        "without its weights. `make quickstart` makes those in outputs/quickstart; give a PEFT adapter folder, "
        "for a run of ours output_dir/epoch_N; adapters.left=null takes one out"
    )
    with pytest.raises(FileNotFoundError, match="adapters.mine: nothing: .*adapters.mine=null takes one out") as error:
        read_adapters({"mine": "nothing"})
    assert "make quickstart" not in str(error.value)


@torch.no_grad()
def logits(adapted, name):
    with adapted.using(name) as model:
        return model(IDS)


def sum_of_updates(tiny_model_dir, folders, weights):
    """Logits of the base plus each adapter's change of the weights, times its weight: no LoRA arithmetic of ours."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    base = {k: v.clone() for k, v in model.state_dict().items()}
    total = {k: v.clone() for k, v in base.items()}
    for name, weight in weights.items():
        plain = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
        merged = PeftModel.from_pretrained(plain, folders[name]).merge_and_unload().state_dict()
        for key in total:
            total[key] += weight * (merged[key] - base[key])
    model.load_state_dict(total)
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.mark.parametrize(
    "weights",
    [{"left": 0.5}, {"left": 0.5, "right": 0.5}, {"left": 1, "right": 1}, {"left": -0.7, "right": 1.3}],
    ids=str,
)
def test_a_blend_is_the_sum_of_its_adapters(tiny_model_dir, adapted, folders, weights):
    expected = sum_of_updates(tiny_model_dir, folders, weights)
    assert (expected - hf_logits(tiny_model_dir)).abs().max() > 1e-2
    torch.testing.assert_close(logits(adapted({"mix": weights}), "mix"), expected, atol=1e-4, rtol=0)


def test_weight_1_is_the_adapter_and_0_the_base_to_the_bit(adapted):
    model = adapted({"one": {"left": 1, "right": 0}, "none": {"left": 0.0}, "half": {"left": 0.5, "right": -2}})
    alone, base = logits(model, "left"), logits(model, None)
    logits(model, "half")  # what is asked between changes nothing
    assert torch.equal(logits(model, "one"), alone)
    assert torch.equal(logits(model, "left"), alone)
    assert torch.equal(logits(model, "none"), base)
    assert not torch.equal(alone, base)
    # weights that are given when they are needed, as a slider does
    assert torch.equal(logits(model, {"left": 0.5, "right": -2}), logits(model, "half"))
    assert torch.equal(logits(model, {}), base)
    for unknown in ("absent", {"absent": 1}, {"half": 1}):
        with pytest.raises(KeyError, match="no adapter .*; loaded:"):
            logits(model, unknown)


def test_a_blend_with_a_bias_is_the_sum_too(tiny_model_dir, resident, tmp_path):  # noqa: F811
    """Right values: peft's own layers, one adapter at a time, whose outputs add up in a model of one linear map."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "lora_bias": True}
    made = {name: write_adapter(tiny_model_dir, tmp_path / name, **settings) for name in ("one", "two")}
    weights = {"one": 0.5, "two": -0.5}
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    for name, folder in made.items():
        state = load_file(folder / "adapter_model.safetensors")
        for key, bias in state.items():
            if key.endswith("lora_B.bias"):
                module = key.removeprefix("base_model.model.").removesuffix(".lora_B.bias")
                layer, scale = model.get_submodule(module), 2 * weights[name]
                a, b = state[key.replace("B.bias", "A.weight")], state[key.replace("bias", "weight")]
                layer.weight.data += scale * b @ a
                layer.bias = torch.nn.Parameter((0 if layer.bias is None else layer.bias.data) + scale * bias)
    adapted = AdaptedModel(resident, made, tiny_model_dir, {"mix": weights})
    with torch.no_grad():
        wanted = model.eval()(IDS).logits
    torch.testing.assert_close(logits(adapted, "mix"), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("named", "warned"),
    [
        ("tests/tiny-llama", False),
        ("/somewhere/else/Tiny-Llama", False),
        (None, False),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("meta-llama/Llama-3.1-8B", True),
    ],
)
def test_an_adapter_that_names_another_base_is_said(tiny_model_dir, folders, tmp_path, named, warned):
    folder = shutil.copytree(folders["left"], tmp_path / "left")
    settings = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": named}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    warnings = check_bases({"left": folder}, tiny_model_dir)
    assert bool(warnings) == warned
    assert all(f"says that its base is {named}; taken to be" in line for line in warnings)


def test_the_hubs_cache_names_a_base(tiny_model_dir, folders, tmp_path):
    folder = shutil.copytree(folders["left"], tmp_path / "left")
    settings = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": "org/some-Model"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    base = shutil.copytree(tiny_model_dir, tmp_path / "models--org--some-Model" / "snapshots" / "0123")
    assert check_bases({"left": folder}, base) == []


def test_an_adapter_that_was_trained_on_another_base_is_refused(tiny_model_dir, folders, tmp_path):
    folder = shutil.copytree(folders["left"], tmp_path / "left")
    (folder / "base.json").write_text(json.dumps({"sha256": fingerprint(tiny_model_dir)}))
    assert check_bases({"left": folder}, tiny_model_dir) == []
    other = write_llama_folder(tmp_path / "other", TINY, tied=True, seed=1)
    with pytest.raises(ValueError, match="left was trained on another base than .*/other: base.json has another"):
        check_bases({"left": folder}, other)


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON"])
def test_a_damaged_record_of_the_base_is_refused(tiny_model_dir, folders, tmp_path, content):
    folder = shutil.copytree(folders["left"], tmp_path / "left")
    (folder / "base.json").write_text(content)
    with pytest.raises(ValueError, match="base.json: no sha256 of the base in it .*copy the adapter's folder anew"):
        check_bases({"left": folder}, tiny_model_dir)


def test_an_adapter_that_changes_nothing_is_said(folders, tmp_path, caplog):
    folder = shutil.copytree(folders["left"], tmp_path / "left")
    read_adapters({"left": str(folder)})
    assert "it is the base" not in caplog.text
    tensors = load_file(folder / "adapter_model.safetensors")
    zero = {name: tensor * 0 if "lora_B" in name else tensor for name, tensor in tensors.items()}
    save_file(zero, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    read_adapters({"left": str(folder)})
    assert "adapters.left: every update in" in caplog.text


def test_a_dial_has_only_the_points_between(folders):
    some = {"left": folders["left"], "right": folders["right"]}
    found = read_adapters({**some, "both": {"left": 1, "right": 1}}, {"low": "left", "high": "right", "n_points": 5})
    assert found.names == ("left", "right", "both", "left@0.5", "right@0.5")
    assert found.places["left@0.5"] == {"run": "left", "weight": 0.5}
    assert "both" not in found.places
    assert found.blends == {"both": {"left": 1, "right": 1}, "left@0.5": {"left": 0.5}, "right@0.5": {"right": 0.5}}
    nine = read_adapters(some, {"low": "left", "high": "right", "n_points": 9})
    assert nine.names[2:] == ("left@0.75", "left@0.5", "left@0.25", "right@0.25", "right@0.5", "right@0.75")
    alone = read_adapters({"right": folders["right"]}, {"low": None, "high": "right", "n_points": 5})
    assert alone.names == ("right", "right@-1", "right@-0.5", "right@0.5")


def make_run(folder, steps, adapter):
    for name, progress in steps.items():
        (folder / name).mkdir(parents=True)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / name / file).symlink_to(f"{adapter}/{file}")
        if progress is not None:
            (folder / name / "progress.json").write_text(json.dumps({"global_step": progress}))


def test_a_glob_is_the_trajectory_of_a_run(folders, tmp_path):
    steps = {"step_5": 5, "epoch_1": 20, "step_10": 10, "epoch_0": 10, "epoch_0.replaced_123": 7}
    make_run(tmp_path / "run", steps, folders["left"])
    (tmp_path / "run" / "logs").mkdir()
    (tmp_path / "run" / "torchtune_config.yaml").write_text("a: 1\n")
    found = read_adapters({"right": folders["right"], "left": f"{tmp_path}/run/*"})
    assert found.names == ("right", "left_step_5", "left_step_10", "left_step_20")
    assert found.places["left_step_10"] == {"run": "left", "step": 10}
    assert found.folders["left_step_20"] == f"{tmp_path}/run/epoch_1"
    make_run(tmp_path / "foreign", {"checkpoint-500": None, "checkpoint-1000": None}, folders["left"])
    assert list(find_checkpoints(f"{tmp_path}/foreign/checkpoint-*")) == [500, 1000]


def test_globs_that_name_no_trajectory_are_refused(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent/[*] matches nothing; give the checkpoints of a run"):
        read_adapters({"left": f"{tmp_path}/absent/*"})
    (tmp_path / "run" / "logs").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"matches \['logs'\], none with an adapter_config.json"):
        find_checkpoints(f"{tmp_path}/run/*")
    make_run(tmp_path / "a", {"epoch_0": 10, "final": None}, folders["left"])
    with pytest.raises(ValueError, match="final: neither progress.json nor its name gives a step"):
        find_checkpoints(f"{tmp_path}/a/*")
    make_run(tmp_path / "b", {"epoch_0": 10}, folders["left"])
    with pytest.raises(ValueError, match="matches checkpoints of 2 runs"):
        find_checkpoints(f"{tmp_path}/*/epoch_0")


def test_a_blend_of_adapters_whose_names_are_numbers(folders):
    given = {"50": folders["left"], "100": folders["right"], "half": {"50": 0.5, "100": 0.5}}
    assert read_adapters(given).names == ("50", "100", "half")


def test_a_glob_takes_no_name_that_is_taken(folders, tmp_path):
    make_run(tmp_path / "run", {"epoch_0": 10}, folders["left"])
    for other in (folders["left"], {"right": 1}):
        given = {"right": folders["right"], "left": f"{tmp_path}/run/*", "left_step_10": other}
        for order in (given, dict(reversed(given.items()))):
            with pytest.raises(ValueError, match=r"adapters.left: \['left_step_10'\] is the name of another adapter"):
                read_adapters(order)


def test_one_folder_under_two_names_is_refused_but_in_a_glob(folders, tmp_path):
    same = f"{folders['left']}/../{Path(folders['left']).name}/"
    with pytest.raises(ValueError, match="adapters: left, right are the same folder"):
        read_adapters({"left": folders["left"], "right": same})
    make_run(tmp_path / "run", {"epoch_0": 10}, folders["left"])
    last = f"{tmp_path}/run/epoch_0"
    assert read_adapters({"run": f"{tmp_path}/run/*", "last": last}).names == ("run_step_10", "last")
    assert read_adapters({"last": last, "run": f"{tmp_path}/run/*"}).names == ("last", "run_step_10")


@pytest.mark.parametrize(
    ("adapters", "dial", "message"),
    [
        (
            {"mix": {"left": 1}},
            None,
            r"adapters.mix: no adapter \['left'\]; a blend gives weights to .* a folder: \['right'\]",
        ),
        ({"mix": {}}, None, "adapters.mix: no adapter named"),
        ({"mix": [1]}, None, r"adapters.mix=\[1\]; give a folder, a glob, or weights"),
        ({"mix": {"right": "much"}}, None, "use finite numbers of any sign"),
        ({"mix": {"right": float("nan")}}, None, "use finite numbers of any sign"),
        ({"mix": {"right": 1}, "more": {"mix": 1}}, None, r"adapters.more: no adapter \['mix'\]"),
        ({"mix": {"other": 0.5}}, None, "uses DoRA"),
        ({"a.b": "right"}, None, "a name may have no dot"),
        ({"right@0": {"5": None}}, None, r"If the name is right@0.5, write it in brackets: 'adapters\[right@0.5\]=…'"),
        ({"a.b": {"right": 1}, "a": {"b": {"right": 2}}}, None, r"write it in brackets: 'adapters\[a.b\]=…'"),
        ({}, {"low": "left", "high": "right", "n_points": 9}, r"dial: no adapter \['left'\] with a folder"),
        ({}, {"low": None, "high": None, "n_points": 9}, "dial: no adapter"),
        ({}, {"low": None, "high": "right", "n_points": 4}, "be odd and at least 3"),
        ({"other": "other"}, {"low": "other", "high": "right", "n_points": 3}, "be odd and at least 5"),
        ({}, {"low": "right", "high": "right", "n_points": 3}, "must differ"),
        ({}, {"low": None, "high": "right"}, r"dial: \['n_points'\] unknown or missing"),
        ({"right@0.5": {"right": 2}}, {"low": None, "high": "right", "n_points": 5}, "but the dial calls"),
    ],
)
def test_mistakes_are_named(folders, adapters, dial, message):
    given = {
        "right": folders["right"],
        **{k: folders.get(v, v) if isinstance(v, str) else v for k, v in adapters.items()},
    }
    if "other" in str(adapters):
        given["other"] = folders["other"]
    with pytest.raises(ValueError, match=message):
        read_adapters(given, dial)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_that_are_not_finite_are_refused_with_the_tensor(folders, tmp_path, value, dtype):
    folder = shutil.copytree(folders["left"], tmp_path / "left-5")
    state = {name: tensor.to(dtype) for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    name = sorted(state)[3]
    state[name][0, 1] = value
    save_file(state, folder / "adapter_model.safetensors")
    message = f"adapters.mine(_step_5)?: 1 tensors in .*left-5 hold NaN or infinity, the first {name};"
    for given in ({"mine": str(folder)}, {"mine": str(folder), "half": {"mine": 0.5}}, {"mine": f"{tmp_path}/lef*"}):
        with pytest.raises(ValueError, match=message):
            read_adapters(given)


def test_an_adapter_that_was_cut_off_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders["left"], tmp_path / "left")
    content = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(content[:-100])
    with pytest.raises(ValueError, match="adapters.mine: .*adapter_model.safetensors cannot be read .*; copy it anew"):
        read_adapters({"mine": str(folder)})


def test_a_name_with_a_dot_is_written_in_brackets_on_the_command_line(folders):
    given = {"adapters": {"right": str(folders["right"]), "right@0.5": {"right": 0.5}}}
    without = OmegaConf.merge(given, OmegaConf.from_dotlist(["adapters[right@0.5]=null"]))
    assert read_adapters(without.adapters).names == ("right",)
