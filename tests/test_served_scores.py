# SPDX-License-Identifier: MIT
"""Statements scored by servers that answer as vLLM, llama.cpp and SGLang do, against the resident model."""

import json
import re

import pytest
import torch
from conftest import TINY
from engine_server import EngineServer
from test_resident import resident, write_adapter  # noqa: F401
from test_respond import BANK

from data.chat import ChatClient, Failure
from data.chat.engines import ENGINES
from eval.asking.questions import to_questions
from eval.asking.respond import answer_questions
from eval.asking.respondents import Interview, Respondent, read_respondents
from eval.asking.results import row_key
from eval.asking.served import ask_served, check_served
from eval.asking.served_scores import compare_with_resident
from eval.asking.thinking import read_thinking
from eval.asking.written_answers import Decoding
from eval.statements.prompts import choice_prompts, generate_prompts, load_templates, open_prompts, pair_prompts
from finetune.adapters.resident import AdaptedModel
from finetune.tokenizers import hf_chat_tokenizer

SETTINGS = {"r": 4, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj", "down_proj"]}
SCALES = {"base": {}, "left": {"left": 1.0}, "half": {"left": 0.5}, "right": {"right": 1.0}}


@pytest.fixture(scope="module")
def adapted(tiny_model_dir, tmp_path_factory):
    """The tiny model with two adapters that change what it says."""
    from torchtune.models.llama3_2 import llama3_2
    from torchtune.training import FullModelHFCheckpointer

    folder = tmp_path_factory.mktemp("served")
    model = llama3_2(**TINY, rope_base=100_000, scale_factor=1)
    checkpointer = FullModelHFCheckpointer(str(tiny_model_dir), ["model.safetensors"], "LLAMA3", str(folder))
    model.load_state_dict(checkpointer.load_checkpoint()["model"])
    folders = {}
    for seed, name in enumerate(("left", "right")):
        torch.manual_seed(seed)
        folders[name] = write_adapter(tiny_model_dir, folder / name, **SETTINGS)
    return AdaptedModel(model.eval(), folders, tiny_model_dir)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    return hf_chat_tokenizer(str(tiny_model_dir))


@pytest.fixture(scope="module")
def interview():
    templates = load_templates("en")
    return Interview(
        {
            "choice": choice_prompts(BANK, templates, 1, 2, ["digits", "words"])[::2],
            "pairs": [p for p in pair_prompts(BANK, templates, 6) if p.row["template"] in ("your-view", "none")],
            "generate": generate_prompts(BANK, templates, 1, 2, ["digits"], 1),
            "open": open_prompts(BANK, templates, 0, 1),
        },
        BANK.options,
        {"generate": Decoding(0.3, 200, 64, 0), "open": Decoding(0.3, None, 300, 0)},
    )


def of_engine(kind, side):
    """How a config names a model of a server."""
    if kind == "vllm":
        return {"model": side}
    if kind == "sglang":
        return {"model": "base", "params": {"lora_path": side} if side != "base" else {}}
    scales = [{"id": k, "scale": SCALES[side].get(name, 0.0)} for k, name in enumerate(("left", "right"))]
    return {"model": "any", "params": {"lora": scales}}


@pytest.fixture
def respondent(tiny_model_dir, tmp_path):
    def make(server, name, modes=("choice", "pairs"), **more):
        thinking = read_thinking(more.pop("thinking", None))
        settings = {"base_url": server and server.url, "tokenizer": str(tiny_model_dir), "retry_wait_s": 0.01,
                    "max_retries": 1, "model": "base", "cache_dir": str(tmp_path / "cache" / name)}  # fmt: skip
        return Respondent(name, modes, None, None, settings | more, thinking)

    return make


def nothing(rows):
    return False


def rows_of(interview, asked, is_known=nothing):
    return [row for rows in ask_served(interview, asked, "unused", is_known) for row in rows]


@pytest.mark.parametrize("kind", list(ENGINES))
@pytest.mark.parametrize("is_named", [True, False], ids=["named", "tried"])
def test_rows_equal_the_resident_models(adapted, tokenizer, interview, respondent, kind, is_named):
    with EngineServer(kind, adapted, tokenizer) as server:
        if not is_named:  # it does not say what it is
            get = server.get
            server.get = lambda path: None if path == "/v1/models" else get(path)
        sides = ["base", "half" if kind == "llama.cpp" else "left"]
        asked = [respondent(server, side, scores=kind if is_named else None, **of_engine(kind, side)) for side in sides]
        lines = check_served(interview, asked, "unused", nothing)
        assert all(f"{kind}, scores statements" in line and "differs by 0e+00 at most" in line for line in lines)
        prompts = [*interview.prompts["choice"], *interview.prompts["pairs"]]
        questions = to_questions(prompts, tokenizer)
        for one in asked:
            with adapted.using(SCALES[one.name]) as model:
                ours = answer_questions(model, one.name, questions, 800)
            theirs = rows_of(interview, one)
            assert [row_key(row) for row in theirs] == [row_key(row) for row in ours]
            for a, b in zip(ours, theirs):
                assert b["option_logprobs"] == pytest.approx(a["option_logprobs"], abs=1e-4)
                assert b["engine"] == kind
                same = ("n_tokens", "choice", "prompt_sha256")
                assert {key: a[key] for key in same} == {key: b[key] for key in same}
            renamed = [row | {"model": "resident"} for row in ours]
            line = compare_with_resident([*renamed, *theirs], one.name, "resident")
            figure = r"(?:0\.0e\+00|\d\.\de-(?:0[5-9]|1\d))"  # equal to the bit on some machines
            assert re.search(rf"choice {figure} at most, .*; pairs {figure} at most", line)
        n_calls = len(server.calls)
        again = [rows_of(interview, one) for one in asked]  # from what was written down
        assert ENGINES[kind].path not in [path for path, _ in server.calls[n_calls:]]
        assert again[-1] == theirs
    replayed = respondent(None, sides[-1], scores=kind if is_named else None, **of_engine(kind, sides[-1]))
    assert rows_of(interview, replayed) == theirs


def test_what_each_engine_is_sent(adapted, tokenizer, interview, respondent):
    bodies = {}
    for kind in ENGINES:
        with EngineServer(kind, adapted, tokenizer) as server:
            rows_of(interview, respondent(server, kind, ("pairs",), **of_engine(kind, "left")))
            bodies[kind] = server.calls[0][1]  # the longest statement
    vllm, llama, sglang = bodies.values()
    assert {key: vllm[key] for key in ("max_tokens", "echo", "logprobs", "temperature")} == {
        "max_tokens": 0, "echo": True, "logprobs": 0, "temperature": 0
    }  # fmt: skip
    assert llama["cache_prompt"] is False
    assert llama["lora"] == [{"id": 0, "scale": 1.0}, {"id": 1, "scale": 0.0}]
    assert llama["n_predict"] == llama["grammar"].count("<[")
    assert sglang["sampling_params"]["max_new_tokens"] == 0
    assert sglang["lora_path"] == "left"
    assert vllm["prompt"] == sglang["input_ids"]
    assert vllm["prompt"][: len(llama["prompt"])] == llama["prompt"]
    assert sglang["logprob_start_len"] == len(llama["prompt"]) - 1


def spoiled(field, value):
    def change(answer, body):
        text = json.dumps(answer)
        return json.loads(text.replace(field, value))

    return change


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("vllm", lambda a, b: {"choices": [{"text": " The", "logprobs": None}]}, "vllm: no log-probabilities of the"),
        ("vllm", lambda a, b: {"choices": [a["choices"][0] | {"prompt_token_ids": [1, 2]}]}, r"the token ids \[1, 2\]"),
        ("vllm", lambda a, b: {"choices": [{"logprobs": 1}]}, "vllm: no answer of vllm"),
        ("llama.cpp", lambda a, b: a | {"completion_probabilities": []}, "llama.cpp: no log-probabilities of what"),
        ("llama.cpp", lambda a, b: a | {"tokens_evaluated": 3}, "it read 3 tokens before the answer, not the"),
        ("sglang", lambda a, b: {"meta_info": {}}, "sglang: no log-probabilities of the prompt"),
        ("sglang", spoiled("[-", "[1"), "want finite numbers up to 0"),
        ("llama.cpp", lambda a, b: a | {"content": "Bonjour"}, "mean 'Bonjour' there, so tokenizer="),
        ("chat", lambda a, b: a, "vllm: HTTP 404.*; llama.cpp: HTTP 404.*; sglang: HTTP 404"),
    ],
)
def test_a_server_that_cannot_is_one_line(adapted, tokenizer, interview, respondent, kind, changes, message):
    with EngineServer(kind, adapted, tokenizer, changes) as server, pytest.raises(ValueError, match=message) as refused:
        check_served(interview, [respondent(server, "far", **of_engine(kind, "left"))], "unused", nothing)
    assert "\n" not in str(refused.value)


def test_a_server_that_does_not_answer(interview, respondent):
    class Gone:
        url = "http://127.0.0.1:1/v1"

    with pytest.raises(RuntimeError, match="respondents.far: no answer to a first statement: no connection"):
        check_served(interview, [respondent(Gone, "far")], "unused", nothing)


def test_a_trace_of_another_adapter_is_found(adapted, tokenizer, interview, respondent):
    """As llama.cpp does with its cache of prompts: the answer is the one of the scales that were asked before."""
    before = []

    def trace(answer, body):
        last = before[-1] if before else body["lora"]
        before.append(body["lora"])
        if last != body["lora"]:
            for token in answer["completion_probabilities"]:
                token["logprob"] -= 0.1
        return answer

    with EngineServer("llama.cpp", adapted, tokenizer, trace) as server:
        alone = [respondent(server, "left", **of_engine("llama.cpp", "left"))]
        assert "differs by 0e+00" in check_served(interview, alone, "unused", nothing)[0]
        both = [*alone, respondent(server, "half", **of_engine("llama.cpp", "half"))]
        with pytest.raises(ValueError, match=r"after those of \['half'\], differs by up to 1.0e-01 a token"):
            check_served(interview, both, "unused", nothing)


def test_adapters_that_a_server_lacks_are_refused(adapted, tokenizer, interview, respondent, tiny_model_dir):
    with EngineServer("llama.cpp", adapted, tokenizer) as server:
        asked = respondent(server, "far", params={"lora": [{"id": 7, "scale": 1}]})
        with pytest.raises(ValueError, match=r"params.lora names \[7\].*\{0: 'left.gguf', 1: 'right.gguf'\}"):
            check_served(interview, [asked], "unused", nothing)
        server.scales = {1: 1.0}
        (line,) = check_served(interview, [respondent(server, "far")], "unused", nothing)
        assert "the server adds LoRA {1: 1.0} by itself; name the scales in params.lora" in line
    with EngineServer("vllm", adapted, tokenizer) as server:
        for modes, folder in ((("generate",), None), (("pairs",), str(tiny_model_dir))):
            asked = respondent(server, "far", modes, model="centre", tokenizer=folder)
            with pytest.raises(ValueError, match=r"no model 'centre' at .*; it has \['base', 'left', 'right'\]"):
                check_served(interview, [asked], "unused", nothing)


def test_a_refused_statement_ends_the_run_and_one_that_is_lost_is_asked_again(
    adapted, tokenizer, interview, respondent
):
    def half(answer, body):
        return answer if len(body["prompt"]) % 2 else {"choices": []}

    with EngineServer("vllm", adapted, tokenizer, half) as server:
        server.get = lambda path: {"data": [{"id": "base", "owned_by": "vllm"}]} if path == "/v1/models" else None
        asked = respondent(server, "far", ("pairs",))
        with pytest.raises((RuntimeError, ValueError), match="no answer of vllm"):
            rows_of(interview, asked)


# Every parameter that vLLM 0.32 takes from generation_config.json (config/model.py, get_diff_sampling_param), and
# that llama.cpp takes from general.sampling.* and its command line, with the value that does nothing.
FROM_A_FOLDER = {"top_p": 1, "min_p": 0, "repetition_penalty": 1, "frequency_penalty": 0}
FROM_A_GGUF_OR_COMMAND = {
    "top_p": 1, "min_p": 0, "repeat_penalty": 1, "frequency_penalty": 0, "typical_p": 1, "top_n_sigma": -1,
    "xtc_probability": 0, "dry_multiplier": 0, "dynatemp_range": 0, "mirostat": 0,
    "samplers": ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("vllm", {"top_k": 200, **FROM_A_FOLDER}),
        ("llama.cpp", {"top_k": 200, "cache_prompt": False, **FROM_A_GGUF_OR_COMMAND}),
        ("sglang", {"top_k": 200, **FROM_A_FOLDER}),
        ("chat", {"top_p": 1}),
    ],
)
def test_every_sampling_parameter_is_sent_and_recorded(adapted, tokenizer, interview, respondent, kind, more):
    with EngineServer(kind, adapted, tokenizer) as server:
        rows = rows_of(interview, respondent(server, "far", ("generate", "open"), params={"presence_penalty": 0.5}))
        own = rows_of(interview, respondent(server, "own", ("open",), params={"top_p": None, "top_k": 7}))
        sent = [body for path, body in server.calls if path.endswith("/chat/completions")]
    bare = [{name: x for name, x in body.items() if name not in ("model", "messages")} for body in sent]
    assert sorted(bare, key=str) == sorted((row["sampling"] for row in [*rows, *own]), key=str)
    for row in rows:
        limit = 64 if row["mode"] == "generate" else 300
        written = dict(more)
        if "top_k" in more and row["mode"] == "open":  # the run's top_k is null: all tokens
            written["top_k"] = ENGINES[kind].every_token
        wanted = {"temperature": 0.3, "max_tokens": limit, "presence_penalty": 0.5, **written}
        assert {name: x for name, x in row["sampling"].items() if name != "seed"} == wanted
        assert row["sampling"]["seed"] == row["decoding"]["seed"]
    assert all("top_p" not in row["sampling"] and row["sampling"]["top_k"] == 7 for row in own)


@pytest.mark.parametrize(("given", "is_on"), [("off", False), (False, False), ("on", True), (True, True)])
def test_thinking_is_switched_and_the_reasoning_kept(adapted, tokenizer, interview, respondent, given, is_on):
    with EngineServer("vllm", adapted, tokenizer) as server:
        rows = rows_of(interview, respondent(server, "far", ("open",), tokenizer=None, thinking=given))
        kwargs = [body["chat_template_kwargs"] for path, body in server.calls if path.endswith("/chat/completions")]
    assert kwargs == [{"enable_thinking": is_on}] * 7
    assert {row["reasoning"] for row in rows} == {"Let me weigh it." if is_on else None}
    assert {row["text"] for row in rows} == {"2"}
    assert {row["thinking"] for row in rows} == {"on" if is_on else "off"}


@pytest.mark.parametrize(
    ("kind", "name"), [("vllm", "thinking_token_budget"), ("llama.cpp", "reasoning_budget_tokens")]
)
def test_a_budget_of_thinking_is_added_to_the_answers_length(adapted, tokenizer, interview, respondent, kind, name):
    with EngineServer(kind, adapted, tokenizer) as server:
        asked = respondent(server, "far", ("open",), tokenizer=None, thinking={"max_tokens": 50})
        rows = rows_of(interview, asked)
    assert {(row["sampling"][name], row["sampling"]["max_tokens"]) for row in rows} == {(50, 350)}
    assert {row["sampling"]["chat_template_kwargs"]["enable_thinking"] for row in rows} == {True}
    with EngineServer("sglang", adapted, tokenizer) as server:
        asked = respondent(server, "far", ("open",), tokenizer=None, thinking={"max_tokens": 50})
        with pytest.raises(ValueError, match="sglang takes no limit of a reasoning"):
            check_served(interview, [asked], "unused", nothing)


QWEN3_LIKE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def test_by_log_probability_the_block_of_thought_is_closed(
    adapted, tokenizer, interview, respondent, tiny_model_dir, tmp_path
):
    folder = tmp_path / "thinker"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_model_dir / name).read_bytes())
    (folder / "chat_template.jinja").write_text(QWEN3_LIKE)
    with EngineServer("llama.cpp", adapted, tokenizer) as server:
        asked = respondent(server, "far", ("pairs",), tokenizer=str(folder), thinking=True)
        (line,) = check_served(interview, [asked], "", nothing)
        before = [tokenizer.decode(body["prompt"], skip_special_tokens=False) for _, body in server.calls]
        assert "with its block of thought closed" in line
        assert all(text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n") for text in before)
        assert {row["thinking"] for row in rows_of(interview, asked)} == {"closed"}
        asked = respondent(server, "plain", ("pairs",), thinking=False)
        with pytest.raises(ValueError, match="has no switch enable_thinking .*; leave thinking out"):
            check_served(interview, [asked], "unused", nothing)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"tokenizer": "nowhere"}, "tokenizer=nowhere: no such folder"),
        ({"tokenizer": ".", "scores": "ollama"}, r"scores=ollama; use one of \['vllm', 'llama.cpp', 'sglang'\]"),
        ({"scores": "vllm", "modes": ["choice"]}, "scores without tokenizer"),
        ({"modes": ["pairs"]}, "a chat gives no log-probability of a whole statement; give the folder"),
        ({"params": {"lora": [0.5]}}, r"params.lora=\[0.5\]; write it as \[\{id: 0, scale: 0.5\}\]"),
        ({"thinking": "maybe"}, "thinking=maybe; use off, on or"),
        ({"thinking": {"max_tokens": 0}}, "use off, on or"),
        ({"same_as": "centre"}, r"same_as=centre, but the resident models are \['base', 'left'\]"),
    ],
)
def test_settings_that_cannot_work(entry, message):
    server = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "modes": ["generate"]}
    modes, labels = ("choice", "pairs", "generate"), ("digits",)
    with pytest.raises(ValueError, match=message):
        read_respondents({"far": server | entry}, True, ("left",), modes, labels)


def test_a_point_of_a_served_dial_may_be_named_so():
    entry = {"model": "m", "base_url": None, "tokenizer": ".", "params": {"lora": [{"id": 0, "scale": 0.5}]}}
    (_, asked) = read_respondents({"left@0.5": entry}, True, (), ("pairs",), ("digits",))
    assert (asked.name, asked.modes) == ("left@0.5", ("pairs",))


def test_answers_that_are_kept_are_found_when_the_server_is_gone(adapted, tokenizer, interview, respondent):
    """The engine, on which the requests depend, is looked up; it is remembered where nobody answers."""
    with EngineServer("llama.cpp", adapted, tokenizer) as server:
        asked = respondent(server, "far", ("pairs", "open"))
        rows = rows_of(interview, asked)
    assert rows_of(interview, asked) == rows


def test_a_server_that_is_gone_is_no_answer(tmp_path):
    client = ChatClient("m", None, str(tmp_path))
    request = ENGINES["vllm"].score("m", [1, 2, 3], 1, {})
    assert client.score(request) == Failure("unanswered", "not among the recorded replies, and base_url is null",
                                            client.score(request).key)  # fmt: skip
