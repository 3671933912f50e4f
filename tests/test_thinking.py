# SPDX-License-Identifier: MIT
"""A resident model that thinks before it answers: how it is asked, what its rows say, and off compared with on."""

import pytest
import torch
from families import write_family
from omegaconf import OmegaConf
from test_report import make_summary
from test_respond import BANK

from eval.asking.generate import write
from eval.asking.questions import prompt_tokens
from eval.asking.respond import ask_resident, load_adapted, load_tokenizer, prepare_questions
from eval.asking.respondents import Interview, Respondent
from eval.asking.results import result_row
from eval.asking.thinking import Thinking, find_pairs, read_thinking
from eval.asking.written_answers import Decoding
from eval.pages.report import render_report
from eval.scores.comparisons import describe_thinking
from eval.scores.summary import summarize
from eval.statements.prompts import choice_prompts, generate_prompts, load_templates
from finetune.adapters.folders import read_adapters
from finetune.tokenizers import hf_chat_tokenizer


def test_values():
    assert [read_thinking(x) for x in (None, False, "off", True, "on", {"max_tokens": 5})] == [
        None, Thinking(False), Thinking(False), Thinking(True), Thinking(True), Thinking(True, 5),
    ]  # fmt: skip
    for wrong in ("maybe", 1.5, {"max_tokens": 0}, {"max_tokens": True}, {"tokens": 5}, {}):
        with pytest.raises(ValueError, match=r"use off, on or \{max_tokens: 512\}"):
            read_thinking(wrong)


def test_off_and_on_of_one_model_belong_together():
    entries = {
        "quiet": {"thinking": "off"}, "loud": {"thinking": {"max_tokens": 5}, "modes": ["generate"]}, "plain": None,
        "left-quiet": {"adapter": "left", "thinking": False}, "left-loud": {"thinking": True, "adapter": "left"},
        "told": {"system_prompt": "Be brief.", "thinking": True},
    }  # fmt: skip
    assert find_pairs({"respondents": None}) == []
    assert find_pairs({"respondents": entries}) == [("quiet", "loud"), ("left-quiet", "left-loud")]


def test_off_and_on_are_compared_item_by_item():
    prompts = generate_prompts(BANK, load_templates("en"), 1, 2, ["digits"], 1)

    def rows_by(name, thinking, choices, **more):
        told = {**({"thinking": thinking} if thinking else {}), **more}
        return [result_row(name, p.row | told, n_tokens=[1], choice=choices[p.row["item"]], text="x") for p in prompts]

    quiet = rows_by("quiet", "off", {"a": 2, "b": 2})
    loud = rows_by("loud", "on", {"a": 3, "b": 0}, reasoning="Hm.", reasoning_cut=False)
    for rows in ([*quiet, *loud], [*loud, *quiet]):
        scores = summarize(rows, BANK, 100, 0)
        found = describe_thinking(rows, [("quiet", "loud")], scores["comparisons"], BANK)
        (change,) = found["comparisons"]
        assert (change["off"], change["on"], change["mode"], change["axis"]) == ("quiet", "loud", "generate", "x")
        after, before = (scores["models"][name]["generate"]["x"]["estimate"] for name in ("loud", "quiet"))
        assert after > before
        assert change["difference"] == pytest.approx(after - before)
        assert change["ci95"] is None or change["ci95"][0] <= change["difference"] <= change["ci95"][1]
        (flipped,) = found["flips"]
        assert [row["item"] for row in flipped["items"]] == ["b"]
        asked = {entry["model"]: entry for entry in found["asked"]}
        n = len(prompts)
        assert asked["loud"] == {
            "model": "loud", "mode": "generate", "thinking": "on", "n": n, "n_reasoned": n, "n_cut": 0,
        }  # fmt: skip
        page = render_report(make_summary(rows, BANK, thinking=found), BANK)
        assert "loud against quiet: 1 of 2 statements change side" in page
    assert describe_thinking(rows_by("plain", None, {"a": 0, "b": 0}), [], [], BANK) is None


@pytest.fixture(scope="module")
def thinker(tiny_model_dir, tmp_path_factory):
    """A shrunken Qwen3 whose tokenizer has the tags of a block of thought."""
    return write_family(tmp_path_factory.mktemp("thinker"), "Qwen3-8B", tiny_model_dir)


def test_the_block_is_opened_by_its_tokens(thinker):
    from torchtune.data import Message

    turn = [Message(role="user", content="Hi")]
    ids = {}
    for thinking in (None, False, True):
        tokenizer = hf_chat_tokenizer(str(thinker), thinking=thinking)
        ids[thinking] = tokenizer.prompt_tokens(turn)
    begin, end = ids[True][len(ids[None])], tokenizer.end_of_thought
    assert tokenizer.decode([begin, end], skip_special_tokens=False) == "<think></think>"
    assert ids[True][: len(ids[None])] == ids[None] == ids[False][: len(ids[None])]
    assert (ids[True].count(end), ids[False].count(begin), ids[False].count(end)) == (0, 1, 1)
    assert tokenizer.decode(tokenizer.cut_thought(), skip_special_tokens=False) == "\n</think>\n\n"
    assert end in tokenizer.cut_thought()


def test_one_resident_model_is_asked_in_three_ways(thinker):
    """As the template has it, at once, and after a reasoning."""
    cfg = OmegaConf.create({
        "model": {"_component_": "finetune.models.causal_lm", "path": str(thinker)},
        "tokenizer": {"_component_": "finetune.tokenizers.hf_chat_tokenizer", "path": str(thinker)},
        "checkpointer": None, "max_tokens_per_forward": 800, "prompts_per_batch": 4,
    })  # fmt: skip
    templates = load_templates("en")
    prompts = {
        "choice": choice_prompts(BANK, templates, 1, 1, ["digits"]),
        "generate": generate_prompts(BANK, templates, 1, 1, ["digits"], 1),
    }
    interview = Interview(prompts, BANK.options, {"generate": Decoding(0.0, None, 4, 0)})
    ways = {"base": None, "quiet": Thinking(False), "loud": Thinking(True, 6)}
    respondents = [Respondent(name, tuple(prompts), thinking=how) for name, how in ways.items()]
    questionnaire = prepare_questions(cfg, interview, respondents)
    model = load_adapted(cfg, read_adapters(None), torch.device("cpu"), torch.float32)
    rows = [
        row
        for respondent in respondents
        for rows in ask_resident(cfg, model, questionnaire, respondent, lambda rows: False)
        for row in rows
    ]
    assert {(row["model"], row["mode"]): row.get("thinking") for row in rows} == {
        ("base", "choice"): None, ("base", "generate"): None, ("quiet", "choice"): "closed",
        ("quiet", "generate"): "off", ("loud", "choice"): "closed", ("loud", "generate"): {"max_tokens": 6},
    }  # fmt: skip
    base, quiet, loud = (
        [row["option_logprobs"] for row in rows if (row["model"], row["mode"]) == (name, "choice")] for name in ways
    )
    assert quiet == loud != base
    reasoned = [row for row in rows if "reasoning" in row]
    assert [(row["model"], row["reasoning_cut"]) for row in reasoned] == [("loud", True)] * len(prompts["generate"])
    # greedy: what it would have written at once, had the block been left open
    n_answer = 4
    tokenizer = questionnaire.tokenizers[True]
    (prompt, *_) = prompts["generate"]
    (thought,) = write(
        model.model, [prompt_tokens(tokenizer, prompt.text)], Decoding(0.0, None, 6, 0), [0], tokenizer.stop_tokens
    )
    row = next(row for row in reasoned if row["prompt_sha256"] == prompt.row["prompt_sha256"])
    assert row["reasoning"] == tokenizer.decode(thought).strip()
    assert row["n_tokens"] == [len(thought) + len(tokenizer.cut_thought()) + n_answer]
    with pytest.raises(ValueError, match="exceed the model's context"):
        prepare_questions(cfg, interview, [Respondent("long", ("generate",), thinking=Thinking(True, 2000))])


def test_a_model_that_cannot_think_is_refused(tiny_model_dir):
    tokenizer = {"_component_": "finetune.tokenizers.hf_chat_tokenizer", "path": str(tiny_model_dir)}
    cfg = OmegaConf.create({"tokenizer": tokenizer})
    with pytest.raises(ValueError, match="names no block of thought; leave thinking out for this model"):
        load_tokenizer(cfg, True)
