# SPDX-License-Identifier: MIT
import json
import os
import re
from collections import Counter

import pytest
import torch
import yaml
from conftest import REPO
from omegaconf import OmegaConf
from torchtune.models.llama3 import llama3

from eval.asking import respond
from eval.asking.questions import to_questions
from eval.asking.respondents import Interview, Respondent
from eval.asking.written_answers import Decoding
from eval.scores.summary import summarize
from eval.statements.instruments import Axis, Instrument, Item, Pair
from eval.statements.prompts import (
    LABEL_SETS,
    choice_prompts,
    load_templates,
    open_prompts,
    option_orders,
    pair_prompts,
)

FIELDS = {
    "model", "instrument", "instrument_version", "instrument_sha256", "mode", "item", "template", "order", "labels",
    "sample", "prompt_sha256", "option_logprobs", "option_mass", "choice", "stance", "refused", "text", "judge",
    "n_tokens",
}  # fmt: skip
UP, DOWN = [-2, -1, 1, 2], [2, 1, -1, -2]
BANK = Instrument(
    "tiny", "1", "MIT", "en", "test", {"x": Axis("low", "high", 0, 0.4)},
    ("strongly disagree", "disagree", "agree", "strongly agree"),
    (Item("a", "Taxes should rise.", "t", {"x": UP}, "b"), Item("b", "Taxes should fall.", "t", {"x": DOWN}, "a")),
    (Pair("p", "t", "Raise {taxes}.", "Lower all taxes.", "x"), Pair("q", "t", "Buy it.", "Sell it.", None)),
    "0",
)  # fmt: skip


class Letters:
    """A chat tokenizer of single characters: <user>text<end><assistant>answer<end>."""

    bos_id, eos_id = 1, 2

    def encode(self, text, add_bos=True, add_eos=True):
        return [self.bos_id] * add_bos + [ord(c) for c in text] + [self.eos_id] * add_eos

    def prompt_tokens(self, messages):
        return [3, *self.encode("\n".join(m.text_content for m in messages), add_bos=False), 4]

    def tokenize_messages(self, messages, add_end_tokens=True):
        prompt = self.prompt_tokens(messages[:1])
        answer = self.encode(messages[1].text_content, add_bos=False, add_eos=add_end_tokens)
        return prompt + answer, [True] * len(prompt) + [False] * len(answer)

    def decode(self, tokens):
        return "".join(map(chr, tokens))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    tiny = llama3(200, num_layers=2, num_heads=4, num_kv_heads=2, embed_dim=32, max_seq_len=1024)
    for parameter in tiny.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return tiny.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def templates():
    return load_templates("en")


def test_orders_show_every_option_equally_often():
    assert option_orders(4)[:4] == [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2]]
    cyclic = {tuple((k + r) % 4 for k in range(4)) for r in range(4)}
    assert set(map(tuple, option_orders(4))) == cyclic | {order[::-1] for order in cyclic}
    assert option_orders(2) == [[0, 1], [1, 0]]
    for n, k in ((4, 4), (4, 8), (5, 10), (6, 6), (6, 12)):
        counts = Counter(place for order in option_orders(n)[:k] for place in enumerate(order))
        assert len(counts) == n * n
        assert set(counts.values()) == {k // n}


def test_ten_templates_and_their_texts(templates):
    assert len(templates.choice) == len(set(templates.choice.values())) == 10
    assert len(templates.pairs) == len(set(templates.pairs.values())) == 10
    assert list(templates.pairs).index("none") == 5  # eval/scores/rivals.py says so
    questions = to_questions(choice_prompts(BANK, templates, 10, 8, LABEL_SETS), Letters())
    assert len(questions) == 2 * 10 * 8 * 3
    assert len({q.row["prompt_sha256"] for q in questions}) == len(questions)
    for question in questions:
        tokens = question.answers[0].tokens
        text = Letters().decode(tokens[1 : tokens.index(Letters.eos_id)])
        assert ("Taxes should rise." if question.row["item"] == "a" else "Taxes should fall.") in text
        assert not re.search(r"[{}]", text)
        for o, answer in enumerate(question.answers):
            said = Letters().decode([t for t, scored in zip(answer.tokens, answer.labels) if scored != -100])
            option = BANK.options[o]
            if question.row["labels"] == "words":
                assert said == option
                assert f"\n{option}\n" in f"\n{text}\n"
            else:
                assert f"\n{said}. {option}\n" in f"\n{text}\n".replace("\x03", "\n")


def test_a_question_with_options_of_its_own_is_asked_with_them():
    own = ("far too low", "too low", "too high", "far too high")
    bank = BANK._replace(items=(BANK.items[0]._replace(text="Are taxes …?", options=own), BANK.items[1]))
    prompts = choice_prompts(bank, load_templates("survey"), 6, 8, LABEL_SETS)
    assert len(prompts) == 2 * 6 * 8 * 3
    for prompt in prompts:
        options = own if prompt.row["item"] == "a" else BANK.options
        assert prompt.options == options
        assert all(option in prompt.text for option in options)
        assert not re.search(r"statement|[{}]", prompt.text)
        if prompt.row["labels"] == "words":
            assert prompt.answers == options
        else:
            assert all(f"{said}. {option}" in prompt.text for said, option in zip(prompt.answers, options))


def answer_slices(tree):
    starts = (0, *tree.answer_ends[:-1])
    return [tree.target[a:b].tolist() for a, b in zip(starts, tree.answer_ends)]


def planted(monkeypatch, likes):
    """A respondent that finds an answer likely if ``likes(its text)``."""

    def logprobs(model, tree):
        return torch.tensor([-0.1 if likes(Letters().decode(ids)) else -4.0 for ids in answer_slices(tree)])

    monkeypatch.setattr(respond, "read_logprobs", logprobs)


def coordinate(questions, bank=BANK):
    rows = respond.answer_questions(None, "planted", questions, 10_000)
    return summarize(rows, bank, 50, 0)["models"]["planted"]["choice"]["x"]


@pytest.mark.parametrize("n_orders", [4, 8])
@pytest.mark.parametrize("label", "1234ABCD")
def test_one_label_always_is_the_center(monkeypatch, templates, label, n_orders):
    planted(monkeypatch, lambda text: text == label)
    one_item = BANK._replace(items=(BANK.items[0]._replace(twin=None),))
    questions = to_questions(choice_prompts(one_item, templates, 2, n_orders, ["digits", "letters"]), Letters())
    assert coordinate(questions, one_item)["estimate"] == pytest.approx(0, abs=1e-6)
    kind = "digits" if label.isdigit() else "letters"
    x = coordinate([q for q in questions if q.row["labels"] == kind], one_item)
    assert x["hard"] == pytest.approx(0, abs=1e-6)
    in_order = [q for q in questions if q.row["labels"] == kind and q.row["order"] == [0, 1, 2, 3]]
    biased = coordinate(in_order, one_item)
    assert abs(biased["hard"]) >= 2.5


def test_agreeing_always_is_the_center_and_a_lean_is_found(monkeypatch, templates):
    planted(monkeypatch, lambda text: text == "agree")
    questions = to_questions(choice_prompts(BANK, templates, 2, 4, ["words"]), Letters())
    assert coordinate(questions)["hard"] == coordinate(questions)["estimate"] == 0
    # agrees with a alone: 2 + 2 points in [-4, 4], so 10
    of_a = [q for q in questions if q.row["item"] == "a"]
    planted(monkeypatch, lambda text: text == "strongly agree")
    rows = respond.answer_questions(None, "m", of_a, 999)
    planted(monkeypatch, lambda text: text == "strongly disagree")
    rows += respond.answer_questions(None, "m", [q for q in questions if q not in of_a], 999)
    assert summarize(rows, BANK, 50, 0)["models"]["m"]["choice"]["x"]["hard"] == 10


@torch.no_grad()
def alone(model, answer):
    """Log-probability of one continuation by a plain forward of its own."""
    tokens = torch.tensor([answer.tokens])
    logprobs = model(tokens).float().log_softmax(-1)[0]
    return sum(logprobs[k - 1, t].item() for k, t in enumerate(answer.labels) if t != -100)


def test_equals_one_sequence_at_a_time(model, templates):
    questions = to_questions(choice_prompts(BANK, templates, 2, 2, LABEL_SETS), Letters())
    questions += to_questions(pair_prompts(BANK, templates, 6), Letters())
    rows = respond.answer_questions(model, "base", questions, 800)
    assert [row["item"] for row in rows] == [q.row["item"] for q in questions]
    for row, question in zip(rows, questions):
        assert set(row) == FIELDS | ({"n_shared"} if row["mode"] == "pairs" else set())
        expected = [alone(model, answer) for answer in question.answers]
        assert row["option_logprobs"] == pytest.approx(expected, abs=1e-4)
        if row["mode"] == "choice":
            assert row["choice"] == max(range(4), key=expected.__getitem__)
            assert 0 <= row["option_mass"] <= 1
        else:
            pair = next(p for p in BANK.pairs if p.id == row["item"])
            assert row["n_tokens"] == [len(pair.left), len(pair.right)]
            assert row["n_shared"] == len(os.path.commonprefix([pair.left, pair.right]))
            assert row["choice"] is row["order"] is row["option_mass"] is None


def test_the_cut_changes_nothing(model, templates):
    questions = to_questions(choice_prompts(BANK, templates, 3, 4, ["digits"]), Letters())
    whole, cut, again = (respond.answer_questions(model, "m", questions, n) for n in (10_000, 300, 300))
    assert cut == again
    for a, b in zip(whole, cut):
        assert a["option_logprobs"] == pytest.approx(b["option_logprobs"], abs=1e-5)


def test_pairs_without_a_request_follow_the_begin_token(templates):
    only = templates._replace(pairs={"none": templates.pairs["none"]})
    questions = to_questions(pair_prompts(BANK, only, 1), Letters())
    assert questions[0].answers[0].tokens == [1, *map(ord, "Raise {taxes}.")]
    assert questions[0].answers[0].labels == [-100, *map(ord, "Raise {taxes}.")]
    no_begin = Letters()
    no_begin.bos_id = None
    assert to_questions(pair_prompts(BANK, only, 1), no_begin)[0].answers[0].tokens[0] == Letters.eos_id


def test_what_exceeds_the_context_is_refused_before_loading(monkeypatch):
    monkeypatch.setattr(respond, "check_base", lambda cfg: None)  # there is no checkpoint
    parts = {
        "model": {"_component_": "torchtune.models.llama3.llama3", "vocab_size": 200, "num_layers": 1, "num_heads": 1,
                  "num_kv_heads": 1, "embed_dim": 8, "max_seq_len": 600},
        "tokenizer": {"_component_": "test_respond.Letters"},
    }  # fmt: skip
    cfg, templates = OmegaConf.create(parts), load_templates("en")
    interview = Interview(
        {
            "choice": choice_prompts(BANK, templates, 1, 1, ["digits"]),
            "pairs": pair_prompts(BANK, templates, 1),
            "open": [open_prompts(BANK, templates, 1, 1)[0]],
        },
        BANK.options,
        {"open": Decoding(0.0, None, 300, 0)},
    )
    for mode in interview.prompts:
        respond.prepare_questions(cfg, interview, [Respondent("base", (mode,))])
        longer = cfg if mode != "open" else OmegaConf.merge(cfg, {"model": {"max_seq_len": 310}})
        system = "x" * 600 if mode != "open" else None
        with pytest.raises(
            ValueError, match=rf"mode {mode}, item \w+, template .*exceed the model's context of \d+; sh"
        ):
            respond.prepare_questions(longer, interview, [Respondent("told", (mode,), None, system)])


def test_a_statement_after_a_system_prompt_has_the_ids_of_the_whole_text(templates):
    class Blanks(Letters):
        """As SentencePiece: a blank before every text."""

        def encode(self, text, add_bos=True, add_eos=True):
            return super().encode(f"_{text}" if text else "", add_bos, add_eos)

    only = templates._replace(pairs={"none": templates.pairs["none"]})
    (question, *_) = to_questions(pair_prompts(BANK, only, 1), Blanks(), "Be terse.")
    assert question.answers[0].tokens == [1, *map(ord, "_Be terse.\n\nRaise {taxes}.")]


def test_unusable_settings_are_refused(templates):
    def ask(bank=BANK, n_templates=1, n_orders=4, labels=("digits",)):
        return to_questions(choice_prompts(bank, templates, n_templates, n_orders, labels), Letters())

    with pytest.raises(ValueError, match="n_templates=11; use 1 to 10"):
        ask(n_templates=11)
    with pytest.raises(ValueError, match="n_orders=9; use 1 to 8"):
        ask(n_orders=9)
    with pytest.raises(ValueError, match="labels=\\['roman'\\]; use any of"):
        ask(labels=["roman"])
    with pytest.raises(ValueError, match="'agree a bit' begins with 'agree'"):
        ask(BANK._replace(options=("no", "agree", "agree a bit", "yes")), labels=["words"])
    ten = BANK._replace(options=tuple("abcdefghij"))
    with pytest.raises(ValueError, match="only 9 labels for 10 options"):
        ask(ten)
    with pytest.raises(ValueError, match="n_pair_templates=0"):
        to_questions(pair_prompts(BANK, templates, 0), Letters())


def test_half_of_a_surrogate_pair_in_a_template_is_named(tmp_path):
    raw = yaml.safe_load((REPO / "eval" / "templates" / "en.yaml").read_text())
    raw["pairs"][1]["text"] = "As you wish \ud83d"
    (tmp_path / "mine.yaml").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"mine.yaml: pairs \S+ has half of a surrogate pair \('\\ud83d'\)"):
        load_templates(str(tmp_path / "mine.yaml"))


def test_an_unbalanced_number_of_orders_is_said(templates, caplog):
    to_questions(choice_prompts(BANK, templates, 1, 4, ["digits"]), Letters())
    assert not caplog.text
    to_questions(choice_prompts(BANK, templates, 1, 3, ["digits"]), Letters())
    assert "position bias remains" in caplog.text


def test_overflow_is_an_error(monkeypatch, templates):
    monkeypatch.setattr(respond, "read_logprobs", lambda model, tree: torch.tensor([float("nan")] * 4))
    with pytest.raises(FloatingPointError, match=r"m: log-probabilities \[nan"):
        respond.answer_questions(
            None, "m", to_questions(choice_prompts(BANK, templates, 1, 1, ["digits"]), Letters()), 10
        )


def test_templates_are_checked(tmp_path, templates):
    with pytest.raises(FileNotFoundError, match=r"templates=xx: no such file; .* one of \['en', 'survey'\]"):
        load_templates("xx")
    text = "version: '1'\nlanguage: en\nlabel: {digits: n, letters: l, words: w}\npairs: []\n"
    (tmp_path / "t.yaml").write_text(text + "choice: [{id: a, text: '{statement} {options}'}]\n")
    with pytest.raises(ValueError, match="choice a has the placeholders"):
        load_templates(str(tmp_path / "t.yaml"))
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ValueError, match="the fields must be"):
        load_templates(str(tmp_path / "t.yaml"))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("[{id: a, text: One.}, {id: a, text: Two.}]", "pairs 2 has the id a of an earlier one"),
        ("[{id: a, text: 'About {statement}'}]", "pairs a has the placeholders"),
        ("[{id: a, text: 42}]", "pairs 1 is .*want an entry with `id` and `text`"),
        ("[{text: One.}]", "pairs 1 is .*want an entry"),
        ("[One.]", "pairs 1 is 'One.'; want an entry"),
    ],
)
def test_no_template_is_dropped_or_misread_in_silence(pairs, message, tmp_path):
    head = "version: '1'\nlanguage: en\nlabel: {digits: n, letters: l, words: w}\nchoice: []\n"
    (tmp_path / "t.yaml").write_text(f"{head}pairs: {pairs}\n")
    with pytest.raises(ValueError, match=message):
        load_templates(str(tmp_path / "t.yaml"))


def test_a_stray_brace_is_named_with_its_template(tmp_path):
    head = (
        "version: '1'\nlanguage: en\nlabel: {digits: n, letters: l, words: w}\npairs: [{id: b, text: 'A { brace.'}]\n"
    )
    (tmp_path / "t.yaml").write_text(head + "choice: [{id: a, text: '{statement} {options} {label} {'}]\n")
    with pytest.raises(ValueError, match="choice a: .*; write a brace of the text twice"):
        load_templates(str(tmp_path / "t.yaml"))


def test_with_a_real_tokenizer(packaged_model_dir, templates):
    """The prompt ends where the model would begin to answer, and a digit is one token after it."""
    from finetune.tokenizers import hf_chat_tokenizer

    tokenizer = hf_chat_tokenizer(str(packaged_model_dir))
    question = to_questions(choice_prompts(BANK, templates, 1, 4, ["digits"]), tokenizer)[1]
    assert question.row["order"] == [3, 2, 1, 0]
    texts = [tokenizer.decode(a.tokens, skip_special_tokens=False) for a in question.answers]
    assert [text[-1] for text in texts] == ["4", "3", "2", "1"]
    assert texts[0].endswith("Statement: Taxes should rise.<|im_end|>\n<|im_start|>assistant\n4")
    assert all(sum(t != -100 for t in a.labels) == 1 for a in question.answers)
    left = to_questions(pair_prompts(BANK, templates, 1), tokenizer)[0].answers[0]
    assert tokenizer.decode([t for t in left.labels if t != -100]) == "Raise {taxes}."
