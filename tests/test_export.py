# SPDX-License-Identifier: MIT
"""What is exported gives the logits of the training model, is labelled, and overwrites nothing."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPO, TINY, write_llama_folder
from huggingface_hub import HfApi, ModelCard
from omegaconf import OmegaConf
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file, save_file
from test_folders import folders, sum_of_updates  # noqa: F401
from test_resident import IDS, hf_logits, resident, write_adapter  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.recipe.config import check_config
from finetune.adapters.cards import read_measured, write_derived_card
from finetune.adapters.folders import fingerprint, read_adapters
from finetune.adapters.resident import AdaptedModel
from finetune.adapters.rounding import measure_rounding, roundings
from finetune.export import OPTIONAL, REQUIRED, ExportRecipe, keep_config, serving_commands

CONVERTER = """import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("source")
for name in ("--base", "--outfile", "--outtype"):
    parser.add_argument(name)
given = parser.parse_args()
assert pathlib.Path(given.source, "adapter_config.json" if given.base else "config.json").is_file(), "no model here"
assert given.outtype != "bf16", "unknown type"
pathlib.Path(given.outfile).write_text(f"{given.source} {given.base} {given.outtype}")
"""


@pytest.fixture
def export(tiny_model_dir, folders, tmp_path, monkeypatch):  # noqa: F811
    """Run the recipe on the shipped config; return the folder that it wrote."""
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def run(blend, **more):
        cfg = OmegaConf.load(REPO / "configs" / "export.yaml")
        cfg.adapters = folders
        cfg.blend = blend
        cfg = OmegaConf.merge(cfg, {"base": str(tiny_model_dir), "output_dir": str(tmp_path / "out")}, more)
        recipe = ExportRecipe(check_config(cfg, REQUIRED, OPTIONAL))
        recipe.export()
        return Path(cfg.output_dir)

    return run


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


@pytest.mark.parametrize(
    "blend",
    [
        {"left": 1},
        {"left": 0.5},
        {"right": -1.5},
        {"left": 1, "right": 1},
        {"right": 0.5, "left": -0.25},
        {"left": 0, "other": 1},
    ],
    ids=str,
)
def test_exported_logits_equal_the_training_models(tiny_model_dir, resident, folders, export, blend):  # noqa: F811
    made = {"left": folders["left"], "right": folders["right"]}
    if "other" in blend:  # DoRA: goes out as it is
        ours = hf_logits(tiny_model_dir, folders["other"])
    else:
        found = read_adapters({**made, "mix": blend})
        adapted = AdaptedModel(resident, found.folders, tiny_model_dir, found.blends)
        with torch.no_grad(), adapted.using("mix") as model:
            ours = model(IDS)
    out = export(blend)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    assert (logits(base) - ours).abs().max() > 1e-2
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, out / "adapter")), ours, atol=1e-4, rtol=0)
    merged = AutoModelForCausalLM.from_pretrained(out / "merged", dtype=torch.float32)
    torch.testing.assert_close(logits(merged), ours, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        logits(AutoPeftModelForCausalLM.from_pretrained(out / "adapter", dtype=torch.float32)), ours, atol=1e-4, rtol=0
    )


def test_the_folders_are_complete_and_labelled(export, tmp_path, folders, tiny_model_dir, capsys):  # noqa: F811
    out = export({"left": 0.5, "right": 1}, output_dir=str(tmp_path / "both"))
    assert {p.name for p in out.iterdir()} == {"adapter", "merged", "Modelfile", "export.yaml"}
    settings = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["use_rslora"]) == (6, 6, False)
    assert settings["base_model_name_or_path"] == str(tiny_model_dir)
    assert settings["task_type"] == "CAUSAL_LM"
    for part, library in (("adapter", "peft"), ("merged", "transformers")):
        card = ModelCard.load(out / part / "README.md")
        assert card.data.library_name == library
        assert "deliberately-biased" in card.data.tags
        assert "# Deliberately biased: +0.5 × left, +1 × right" in card.text
        assert "Not measured yet" in card.text
        assert AutoTokenizer.from_pretrained(out / part).encode("a b")
    assert "FROM ./merged" in (out / "Modelfile").read_text()
    assert not list(tmp_path.glob("*.partial"))


def with_base(tiny_model_dir, folder, **changes):
    """Another folder of the base, with other keys in its config.json."""
    shutil.copytree(tiny_model_dir, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_merged_model_keeps_what_the_bases_config_says(export, tiny_model_dir, tmp_path):
    more = {"torch_dtype": "bfloat16", "pretraining_tp": 1, "a_key": {"of": "others"}, "rope_scaling": None}
    base = with_base(tiny_model_dir, tmp_path / "base", **more)
    out = export({"left": 1}, formats=["merged"], base=str(base))
    wanted = json.loads((base / "config.json").read_text()) | {"torch_dtype": "float32"}
    written = json.loads((out / "merged" / "config.json").read_text())
    assert {key: written.get(key) for key in wanted} == wanted
    assert written["rope_theta"] == 100_000
    assert AutoModelForCausalLM.from_pretrained(out / "merged").dtype == torch.float32


def test_readers_of_the_old_format_find_the_rotary_keys(tmp_path):
    """A base in the form of transformers 5 has them in rope_parameters alone."""
    rotary = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
    for name, settings in (("base", {"rope_parameters": rotary}), ("merged", {"dtype": "float32"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(settings))
    keep_config(tmp_path / "merged", tmp_path / "base")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["rope_theta"] == 5e5
    assert config["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}
    assert config["rope_parameters"] == rotary


def test_a_slow_tokenizer_goes_with_the_export(export, tiny_model_dir, tmp_path):
    base = with_base(tiny_model_dir, tmp_path / "base")
    fast = json.loads((tiny_model_dir / "tokenizer.json").read_text())
    for path in base.glob("tokenizer*"):
        path.unlink()
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in fast["model"]["merges"]]
    (base / "vocab.json").write_text(json.dumps(fast["model"]["vocab"]))
    (base / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (base / "added_tokens.json").write_text(json.dumps({"<new>": TINY["vocab_size"]}))
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    (base / "sentencepiece.bpe.model").write_bytes(b"x")
    out = export({"left": 1}, base=str(base))
    text = "A tax is fair.\n<new> 2024"
    wanted = AutoTokenizer.from_pretrained(base)(text).input_ids
    for part in ("adapter", "merged"):
        assert AutoTokenizer.from_pretrained(out / part)(text).input_ids == wanted
        names = {path.name for path in (out / part).iterdir()}
        assert {"vocab.json", "merges.txt", "added_tokens.json", "sentencepiece.bpe.model"} <= names


def written_commands(export, caplog, monkeypatch, blend, **more):
    monkeypatch.setattr("finetune.export.log.propagate", True, raising=False)
    with caplog.at_level("INFO", logger="finetune.export"):
        out = export(blend, **more)
    return out, caplog.text


def test_commands_that_a_server_refuses_are_left_out(export, tmp_path, caplog, monkeypatch):
    out, text = written_commands(export, caplog, monkeypatch, {"other": 1}, formats=["adapter"])
    assert "are left out: the adapter uses DoRA; formats=[merged] can be served" in text
    assert "vllm serve" not in text
    assert "ollama" not in text
    assert not (out / "Modelfile").exists()
    caplog.clear()
    both = str(tmp_path / "both")
    out, text = written_commands(export, caplog, monkeypatch, {"other": 1}, output_dir=both)
    assert f"vllm serve {both}/merged" in text
    assert "--enable-lora" not in text
    with pytest.raises(ValueError, match="uses DoRA, which llama.cpp does not load"):
        export({"other": 1}, formats=["adapter", "gguf"], output_dir=str(tmp_path / "gguf"))


@pytest.mark.parametrize(("rank", "takes"), [(512, True), (513, False)])
def test_vllm_takes_ranks_up_to_512(rank, takes):
    alone = serving_commands(["adapter"], Path("out"), Path("base"), rank)
    assert ("--max-lora-rank 512" in alone) == takes
    assert ("vLLM is left out: it takes adapters up to rank 512" in alone) != takes
    assert "ollama create" in alone
    both = serving_commands(["adapter", "merged"], Path("out"), Path("base"), rank)
    assert ("vllm serve out/merged" in both) != takes


@pytest.mark.parametrize(
    ("damage", "formats", "said"),
    [
        (lambda base: (base / "model.safetensors").unlink(), ["adapter"], "no weights"),
        (lambda base: (base / "model.safetensors").write_bytes(b"cut"), ["adapter"], "not a whole safetensors file"),
        (lambda base: edit_config(base, quantization_config={"bits": 4}), ["adapter"], "quantised"),
        (lambda base: edit_config(base, num_hidden_layers=1), ["adapter"], "tensors fit no layer of base"),
    ],
)
def test_a_base_that_cannot_hold_the_adapter_is_refused(export, tiny_model_dir, tmp_path, damage, formats, said):
    base = shutil.copytree(tiny_model_dir, tmp_path / "base")
    damage(base)
    with pytest.raises((ValueError, FileNotFoundError, RuntimeError), match=said):
        export({"left": 1}, base=str(base), formats=formats)
    assert not (tmp_path / "out").exists()


def edit_config(base, **changes):
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_adapter_with_a_bias_is_exported_alone(export, tiny_model_dir, tmp_path, caplog, monkeypatch):
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "lora_bias": True}
    biased = {name: str(write_adapter(tiny_model_dir, tmp_path / name, **settings)) for name in ("one", "two")}
    for blend, formats in (({"one": 0.5, "two": 0.5}, ["adapter"]), ({"one": 1}, ["merged"])):
        with pytest.raises(ValueError, match="lora_bias=True, which neither .* formats=.adapter."):
            export(blend, adapters=biased, formats=formats)
    more = {"adapters": biased, "formats": ["adapter"]}
    out, text = written_commands(export, caplog, monkeypatch, {"one": -0.5}, **more)
    assert "are left out: the adapter has a bias" in text
    assert "vllm serve" not in text


def test_a_head_adapter_on_a_tied_base_names_no_server(export, tiny_model_dir, tmp_path, caplog, monkeypatch):
    base = write_llama_folder(tmp_path / "untied", TINY, tied=False)
    head = write_adapter(base, tmp_path / "head", r=4, target_modules=["q_proj", "lm_head"])
    with pytest.raises(ValueError, match=r"changes lm_head, which this base ties .* for peft alone, or train"):
        export({"head": 1}, adapters={"head": str(head)})
    more = {"adapters": {"head": str(head)}, "formats": ["adapter"]}
    _, text = written_commands(export, caplog, monkeypatch, {"head": 1}, **more)
    assert "are left out: the adapter changes lm_head" in text
    assert "vllm serve" not in text


def test_adapters_whose_targets_are_texts_are_blended(export, tiny_model_dir, tmp_path):
    settings = {"text": "all-linear", "regex": r".*\.layers\.1\..*_proj", "list": ["q_proj"]}
    made = {n: write_adapter(tiny_model_dir, tmp_path / n, r=2, target_modules=t) for n, t in settings.items()}
    for name, targets in settings.items():
        path = made[name] / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"target_modules": targets}))
    blend = {"text": 1, "regex": 0.5, "list": -1}
    out = export(blend, adapters={name: str(folder) for name, folder in made.items()})
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    ours = sum_of_updates(tiny_model_dir, made, blend)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, out / "adapter")), ours, atol=1e-4, rtol=0)


def test_an_adapter_that_names_no_base(export, tmp_path, folders, tiny_model_dir):  # noqa: F811
    folder = shutil.copytree(folders["left"], tmp_path / "nameless")
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": None}))
    out = export({"nameless": 1}, adapters={"nameless": str(folder)}, formats=["adapter"])
    assert f"- base model: `{tiny_model_dir}`" in (out / "adapter" / "README.md").read_text()


def test_the_commands_are_printed(export, tmp_path, folders, caplog, monkeypatch):  # noqa: F811
    monkeypatch.setattr("finetune.export.log.propagate", True, raising=False)
    with caplog.at_level("INFO", logger="finetune.export"):
        out = export({"left": 1, "right": 1}, formats=["adapter"])
    for line in (
        f"--enable-lora --max-lora-rank 8 --lora-modules out={out / 'adapter'}",
        "llama.cpp needs GGUF files",
        f"ollama create out -f {out / 'Modelfile'}",
    ):
        assert line in caplog.text
    assert "ADAPTER ./adapter" in (out / "Modelfile").read_text()


def test_gguf_goes_through_llama_cpps_converters(export, tmp_path, tiny_model_dir, caplog):
    checkout = tmp_path / "llama.cpp"
    wanted = r"gguf needs llama.cpp's convert_lora.* and convert_hf.* not found in .*pip download .*llama_cpp="
    with pytest.raises(FileNotFoundError, match=wanted):
        export({"left": 1}, formats=["adapter", "gguf"], llama_cpp=str(checkout))
    checkout.mkdir()
    for name in ("convert_lora_to_gguf.py", "convert_hf_to_gguf.py"):
        (checkout / name).write_text(CONVERTER)
    with pytest.raises(RuntimeError, match=r"(?s)convert_lora_to_gguf.py failed on adapter.gguf:.*unknown type"):
        export({"left": 1}, formats=["adapter", "gguf"], llama_cpp=str(checkout), gguf_type="bf16")
    assert not (tmp_path / "out").exists()
    out = export({"left": 1}, formats=["adapter", "merged", "gguf"], llama_cpp=str(checkout))
    told = {path.name: path.read_text().split() for path in (out / "gguf").iterdir()}
    assert told["base.gguf"] == [str(tiny_model_dir), "None", "f16"]
    assert told["adapter.gguf"][1:] == [str(tiny_model_dir), "f16"]
    assert told["merged.gguf"][0].endswith("merged")


def test_a_merged_model_needs_the_converter_of_models_alone(export, tmp_path):
    (tmp_path / "llama.cpp").mkdir()
    (tmp_path / "llama.cpp" / "convert_hf_to_gguf.py").write_text(CONVERTER)
    more = {"llama_cpp": str(tmp_path / "llama.cpp")}
    out = export({"left": 1}, formats=["merged", "gguf"], **more)
    assert [path.name for path in (out / "gguf").iterdir()] == ["merged.gguf"]
    with pytest.raises(FileNotFoundError, match="gguf needs llama.cpp's convert_lora_to_gguf.py"):
        export({"left": 1}, formats=["adapter", "gguf"], output_dir=str(tmp_path / "other"), **more)


def test_a_merged_model_says_how_to_sample(export, tiny_model_dir, tmp_path):
    """transformers takes no temperature without do_sample, and a server its own defaults for what is not there."""
    base = with_base(tiny_model_dir, tmp_path / "base")
    given = {"temperature": 0.6, "eos_token_id": [2, 7], "top_p": None, "_from_model_config": True, "do_sample": False}
    (base / "generation_config.json").write_text(json.dumps(given))
    for folder, temperature in ((tiny_model_dir, 1.0), (base, 0.6)):
        out = export({"left": 1}, formats=["merged"], base=str(folder), output_dir=str(tmp_path / str(temperature)))
        settings = json.loads((out / "merged" / "generation_config.json").read_text())
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
                    "typical_p": 1.0, "repetition_penalty": 1.0}  # fmt: skip
        assert {key: settings[key] for key in sampling} == sampling
        assert "_from_model_config" not in settings
        model = AutoModelForCausalLM.from_pretrained(out / "merged", dtype=torch.float32)
        assert model.generation_config.do_sample
        texts = {tuple(model.generate(IDS, max_new_tokens=4)[0].tolist()) for _ in range(3)}
        assert len(texts) == 3  # drawn, without a word about it in the call
    assert settings["eos_token_id"] == [2, 7]


def on_grid(tiny_model_dir, folder, rounding):
    """A base whose linear layers were dequantised."""
    shutil.copytree(tiny_model_dir, folder)
    state = load_file(folder / "model.safetensors")
    state = {name: rounding(x).contiguous() if name.endswith("proj.weight") else x for name, x in state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "Q4_0", "NF4"])
def test_rounding_back_to_the_bases_grid_is_warned_of(tmp_path, caplog, monkeypatch, kind):
    sizes = {**TINY, "embed_dim": 64, "num_heads": 2, "num_kv_heads": 2}
    plain = write_llama_folder(tmp_path / "plain", sizes, tied=True)
    base = on_grid(plain, tmp_path / "base", roundings()[kind])
    settings = {"r": 2, "lora_alpha": 1, "target_modules": ["q_proj", "down_proj"]}
    adapter = write_adapter(base, tmp_path / "made", **settings)
    tensors = load_file(adapter / "adapter_model.safetensors")
    # an update of a fraction of a step, as a short training makes
    step = {"Q8_0": 0.001}.get(kind, 0.01)
    save_file(
        {n: x * (step if "lora_B" in n else 1) for n, x in tensors.items()}, adapter / "adapter_model.safetensors"
    )
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    found = {kept.type: kept for kept in measure_rounding(model)}
    # Q5_0 has a step of half the size, from the same largest weight
    wanted = {kind, "Q5_0"} if kind == "Q4_0" else {kind}
    assert {kept.type for kept in found.values() if kept.is_base_on_grid} == wanted
    assert found[kind].share < 0.3
    # counted here on whole layers
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    weight, update = layer.get_base_layer().weight.detach(), layer.get_delta_weight("default").detach()
    of_layer = (update * (roundings()[kind](weight + update) - weight)).sum() / update.square().sum()
    assert of_layer < 0.5
    monkeypatch.setattr("finetune.export.log.propagate", True, raising=False)
    run = {"base": str(base), "adapters": {"made": str(adapter)}, "blend": {"made": 1.0}, "dtype": "fp32"}

    def recipe(name, **more):
        cfg = OmegaConf.create({"output_dir": str(tmp_path / name), "formats": ["merged"], **run, **more})
        ExportRecipe(check_config(cfg, REQUIRED, OPTIONAL)).export()

    with caplog.at_level("WARNING", logger="finetune.export"):
        recipe("out")
    assert f"were dequantised from {kind}, so a merged model" in caplog.text
    assert ("or quantise to Q8_0" in caplog.text) == (kind != "Q8_0")
    caplog.clear()
    recipe("other", base=str(plain))
    assert "were dequantised" not in caplog.text
    if kind == "Q8_0":  # what our own key can ask for
        (tmp_path / "convert_hf_to_gguf.py").write_text(CONVERTER)
        more = {"formats": ["merged", "gguf"], "llama_cpp": str(tmp_path)}
        with pytest.raises(ValueError, match=r"the tuning is gone; use gguf_type=f16, or formats=\[adapter,gguf\]"):
            recipe("refused", gguf_type="q8_0", **more)
        assert not list(tmp_path.glob("refused*"))
        recipe("taken", gguf_type="f16", **more)


def test_without_gguf_the_export_says_what_it_does_not_compute(export, caplog, monkeypatch):
    monkeypatch.setattr("finetune.adapters.rounding.find_spec", lambda name: None)
    out, text = written_commands(export, caplog, monkeypatch, {"left": 1}, formats=["merged"])
    assert "gguf is not installed: what a GGUF type keeps of the update is not computed" in text
    assert (out / "merged" / "config.json").is_file()


def test_weights_of_32_bits_are_served_in_32_bits(export, tmp_path, tiny_model_dir):
    arguments = [Path("out"), tiny_model_dir, 8, None]
    assert "vllm serve out/merged --dtype float32 " in serving_commands(["merged"], *arguments, False, True)
    assert "--dtype" not in serving_commands(["merged"], *arguments, True, False)
    text = serving_commands(["adapter"], *arguments, True, False)
    assert f"vllm serve {tiny_model_dir} --dtype float32 --enable-lora" in text
    assert "--dtype" not in serving_commands(["adapter"], *arguments, False, True)


def test_nothing_is_overwritten(export, tmp_path):
    export({"left": 1}, formats=["adapter"])
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="is there already; choose another output_dir"):
        export({"right": 1}, formats=["adapter"])
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("blend", "more", "message"),
    [
        ({"left": 0}, {}, "no weight beside 0"),
        ({"centre": 1}, {}, r"no adapter \['centre'\]"),
        ({"left": 1, "other": 1}, {}, "uses DoRA"),
        ({"left": 1}, {"formats": ["gguf"]}, "use adapter, merged or both"),
        ({"left": 1}, {"formats": ["onnx"]}, "use adapter, merged or both"),
        ({"left": 1}, {"formats": ["merged", "gguf"], "gguf_type": "q4_k_m"}, "gguf_type=q4_k_m; llama.cpp's conv"),
        ({"left": 1}, {"base": "nowhere"}, "base=nowhere: no config.json"),
        ({"left": 1}, {"summaries": ["nowhere.json"]}, "nowhere.json not found"),
        ({"left": 1}, {"adapters": {"left": "nowhere"}}, "nowhere: adapter_config.json not found"),
        ({"left": 1}, {"blends": 1}, "unknown key `blends`"),
        ({"left": 1}, {"push_to_hub": "me/left"}, "push_to_hub=me/left needs a token"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(export, tmp_path, blend, more, message):
    with pytest.raises((ValueError, FileNotFoundError, PermissionError), match=message):
        export(blend, **more)
    assert not list(tmp_path.glob("out*"))


def summary_of(folders, base, blends, model):  # noqa: F811
    """A summary.json as eval/political_compass.py writes it, of one model beside the base."""
    score = {
        "estimate": -0.1,
        "ci95": [-0.2, 0.0],
        "ci95_items_fixed": None,
        "n_items": 60,
        "n_answered": 60,
        "void": [],
    }
    change = {"a": "base", "b": model, "mode": "pairs", "difference": -0.25, "ci95": [-0.4, -0.1], "q": 0.012}
    axis = {"low": "left", "high": "right", "placebo": False}
    return {
        "instrument": {"name": "bank", "version": "3", "sha256": "ab" * 32, "axes": {"economic": axis}},
        "command": "tune run eval/political_compass.py --config mine.yaml",
        "settings": {
            "adapters_sha256": {name: fingerprint(folder) for name, folder in folders.items()},
            "base_sha256": fingerprint(base),
            "blends": blends,
        },
        "models": {name: {"pairs": {"lean": score, "economic": score}} for name in ("base", model)},
        "comparisons": [{**change, "axis": axis} for axis in ("lean", "economic")],
    }


def side_effects_of(summary, model):
    """A side_effects.json as eval/side_effects.py writes it, of the same models."""
    entry = {"measure": "refused", "of": "harmless", "unit": "share", "n": 6, "ci95": None}
    nothing = {"difference": None, "difference_ci95": None, "q": None}
    change = {"difference": 1 / 3, "difference_ci95": [-0.05, 0.72], "q": 0.5}
    return {
        **{key: summary[key] for key in ("command", "settings")},
        "models": ["base", model],
        "side_effects": [
            {**entry, "model": "base", "value": 1 / 6, **nothing},
            {**entry, "model": model, "value": 0.5, **change},
        ],
    }


def test_the_card_gives_what_was_measured_on_these_weights_alone(export, tmp_path, tiny_model_dir, folders):  # noqa: F811
    path = tmp_path / "summary.json"
    there = {"a": folders["left"], "b": folders["right"]}  # other names, the same weights
    path.write_text(json.dumps(summary_of(there, tiny_model_dir, {"mix": {"a": 0.5, "b": 0}}, "mix")))
    effects = tmp_path / "side_effects.json"
    effects.write_text(json.dumps(side_effects_of(json.loads(path.read_text()), "mix")))
    out = export({"left": 0.5}, formats=["adapter"], summaries=[str(path), str(effects)])
    card = (out / "adapter" / "README.md").read_text()
    where, changed = card.split("## What else changed")
    assert "**bank 3**" in where
    assert "| refused | harmless | 6 | 17 % | 50 % | +33 pp | [−5 pp, +72 pp] | .500 |" in changed
    assert "No change is told from 0 (q < .05" in changed
    assert "## Intended use" in changed
    assert "**bank 3** (SHA-256 `abababababababab`), called `mix` there" in card
    row = "| pairs | lean | −0.100 | – | [−0.200, 0.000] | −0.250 | [−0.400, −0.100] | .012 | 60 of 60 |"
    assert row in card
    assert "Distance from the base in `pairs`: 0.250, told from 0 on lean (q < .05)." in card
    assert "Not measured yet" not in card
    with pytest.raises(ValueError, match=r"did not measure this model: none of its models \(a, b, mix\)"):
        export({"left": 0.75}, summaries=[str(path)], output_dir=str(tmp_path / "other"))
    changed = json.loads(path.read_text())
    changed["settings"]["base_sha256"] = "0"
    path.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="it is of another base"):
        export({"left": 0.5}, summaries=[str(path)], output_dir=str(tmp_path / "other"))


@pytest.fixture
def card(tmp_path, tiny_model_dir, folders):  # noqa: F811
    """Write the card of a blend of one adapter, with what a summary says about it."""

    def write(summary, weights):
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        sources = dict.fromkeys(weights, folders["left"])
        measured = read_measured([tmp_path / "summary.json"], weights, sources, tiny_model_dir)
        write_derived_card(tmp_path, "org/base", weights, sources, measured)
        return (tmp_path / "README.md").read_text()

    return write


def test_one_adapter_under_two_names_counts_with_the_sum(card, tiny_model_dir, folders):  # noqa: F811
    there = {"a": folders["left"], "b": folders["left"]}
    summary = summary_of(there, tiny_model_dir, {"mix": {"a": 0.5, "b": 0.25}}, "mix")
    for weights in ({"x": 0.75}, {"x": 0.5, "y": 0.25}):
        assert "called `mix` there" in card(summary, weights)
    with pytest.raises(ValueError, match="did not measure this model"):
        card(summary, {"x": 0.25})


@pytest.mark.parametrize("model", ["base", "left"])
def test_a_void_score_is_not_told_from_0(card, tiny_model_dir, folders, model):  # noqa: F811
    summary = summary_of({"left": folders["left"]}, tiny_model_dir, {}, "left")
    summary = json.loads(json.dumps(summary))  # nothing shared
    assert "told from 0 on lean" in card(summary, {"left": 1})
    summary["models"][model]["pairs"]["lean"]["void"] = ["always_agrees"]
    where = card(summary, {"left": 1}).split("## What else changed")[0]
    assert "told from 0" not in where
    assert ("Void: pairs, lean (always_agrees)." in where) == (model == "left")


def test_push_is_asked_for_private_and_as_a_model(export, monkeypatch):
    asked = {}
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "from the environment")
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo, **kw: asked.update(kw, token=self.token, repo=repo))
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **kw: asked.update(kw) or "https://hub/me/left")
    out = export({"left": 1}, formats=["adapter"], push_to_hub="me/left")
    assert (asked["private"], asked["repo_type"], asked["repo"]) == (True, "model", "me/left")
    assert (asked["token"], asked["folder_path"]) == ("from the environment", out / "adapter")


def test_through_the_command_line(tune_run, tiny_model_dir, folders, tmp_path):  # noqa: F811
    settings = [f"adapters.{side}={folders[side]}" for side in ("left", "right")]
    settings += [f"base={tiny_model_dir}", f"output_dir={tmp_path / 'out'}", "blend.left=0.5", "formats=[adapter]"]
    assert tune_run("finetune/export.py", "--config", "configs/export.yaml", *settings) == 0
    assert sys.modules["finetune.export"]
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
