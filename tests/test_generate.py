# SPDX-License-Identifier: MIT
"""Answers in writing by a resident model: batched with a cache, against one at a time without."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from test_respond import BANK, Letters
from torchtune.models.llama3 import llama3

from eval.asking import generate
from eval.asking.generate import iterate_generations, iterate_steps, write
from eval.asking.questions import prompt_tokens, to_questions
from eval.asking.respond import answer_questions
from eval.asking.results import row_key
from eval.asking.thinking import Thinking
from eval.asking.written_answers import Decoding
from eval.statements.prompts import choice_prompts, generate_prompts, load_templates, open_prompts
from finetune.tree.attention import attend
from finetune.tree.layers import use_fast_layers

GREEDY = Decoding(0.0, None, 12, 0)
WARM = Decoding(1.0, 20, 12, 0)


class Chat(Letters):
    """Any id becomes some character; two ids end a turn."""

    stop_tokens = (2, 7)

    def prompt_tokens(self, messages):
        return [3, *self.encode(" / ".join(m.text_content for m in messages), add_bos=False), 4]

    def decode(self, tokens):
        return "".join(chr(33 + t % 90) for t in tokens)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    tiny = llama3(200, num_layers=2, num_heads=4, num_kv_heads=2, embed_dim=32, max_seq_len=600)
    for parameter in tiny.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["q_proj", "w2"], init_lora_weights=False), tiny, "a")
    return tiny.eval().requires_grad_(False)


@torch.no_grad()
def alone(model, prompt, n, stop):
    """Greedy, the whole text again for every token."""
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] in stop:
            break
    return tokens[len(prompt) :]


@pytest.fixture(scope="module")
def prompts():
    torch.manual_seed(1)
    return [torch.randint(5, 200, (n,)).tolist() for n in (3, 40, 17, 1, 90, 40)]


def test_greedy_equals_one_at_a_time_without_a_cache(model, prompts):
    free = [alone(model, p, 12, ()) for p in prompts]
    stop = {free[1][3], free[2][5]}  # ends two of them early, each in its own place
    for ends in ((), stop):
        assert write(model, prompts, GREEDY, [0] * 6, ends) == [alone(model, p, 12, ends) for p in prompts]
    assert len({tuple(x) for x in free}) > 3, "a model that always says the same shows nothing"
    begun = [prompts[4] + p for p in prompts]  # what all begin with is read once
    assert write(model, begun, GREEDY, [0] * 6, ()) == [alone(model, p, 12, ()) for p in begun]
    assert write(model, [prompts[4], *begun], GREEDY, [0] * 7, ())[1:] == write(model, begun, GREEDY, [0] * 6, ())
    in_pieces = list(iterate_steps(model, begun, GREEDY, [0] * 6, (), 7))
    assert len(in_pieces) == len([step for step in in_pieces if step]) + 90 // 7 + 90 // 7 + 1
    assert not model.caches_are_setup()


def test_a_base_with_layers_for_bf16_writes_the_same_without_copies_of_keys(model, prompts, monkeypatch):
    narrow = copy.deepcopy(model)
    use_fast_layers(narrow)
    attention = narrow.layers[0].attn
    assert attention.forward.__func__ is attend
    calls = []
    once = generate._attend_to_all
    monkeypatch.setattr(generate, "_attend_to_all", lambda *given: calls.append(1) or once(*given))
    expected = write(model, prompts, GREEDY, [0] * 6, ())
    n_calls = len(calls)
    assert n_calls >= 11 * 2  # every layer, every token after the first
    assert write(narrow, prompts, GREEDY, [0] * 6, ()) == expected
    assert len(calls) == 2 * n_calls
    assert attention.forward.__func__ is attend
    long = GREEDY._replace(max_new_tokens=150)  # the cache grows twice
    assert write(narrow, prompts[:2], long, [0] * 2, ()) == [alone(model, p, 150, ()) for p in prompts[:2]]


def test_a_sampled_answer_depends_on_its_seed_and_not_on_its_neighbours(model, prompts):
    together = write(model, prompts, WARM, [5, 6, 7, 8, 9, 10], ())
    assert write(model, prompts, WARM, [5, 6, 7, 8, 9, 10], ()) == together
    for k, prompt in enumerate(prompts):
        assert write(model, [prompt], WARM, [5 + k], ()) == [together[k]]
    others = write(model, prompts, WARM, [15, 16, 17, 18, 19, 20], ())
    assert all(a != b for a, b in zip(together, others))


def test_iterators_take_turns_on_one_model(model, prompts):
    """Long prompts are read in pieces, and between two steps the model is used for others."""
    expected = [write(model, [p], WARM, [k], ()) for k, p in enumerate(prompts)]
    under_way = {k: iterate_steps(model, [p], WARM, [k], (), 7) for k, p in enumerate(prompts)}
    found, n_steps = {k: [] for k in under_way}, 0
    while under_way:
        for k, steps in list(under_way.items()):
            step, n_steps = next(steps, None), n_steps + 1
            if step is None:
                del under_way[k]
            else:
                found[k] += step.values()
            assert not model.caches_are_setup()
        alone(model, prompts[0], 1, ())
    assert [[found[k]] for k in range(len(prompts))] == expected
    n_pieces = sum((len(p) - 1) // 7 for p in prompts)
    assert n_steps == n_pieces + len(prompts) * (12 + 1)
    batch = list(iterate_steps(model, prompts, GREEDY, [0] * 6, (), 7))
    assert [[step[k] for step in batch if step] for k in range(6)] == write(model, prompts, GREEDY, [0] * 6, ())


def test_sampling_follows_the_probabilities(model, prompts):
    """The first token of 2,000 samples, against the softmax of the two likeliest at temperature 0.7."""
    with torch.no_grad():
        top = (model(torch.tensor([prompts[1]]))[0, -1] / 0.7).topk(2)
    drawn = write(model, [prompts[1]] * 2000, Decoding(0.7, 2, 1, 0), list(range(2000)), ())
    assert {tokens[0] for tokens in drawn} == set(top.indices.tolist())
    share = sum(tokens[0] == int(top.indices[0]) for tokens in drawn) / 2000
    assert share == pytest.approx(float(top.values.softmax(0)[0]), abs=0.035)  # three standard errors


def test_a_context_that_is_too_short_is_said(model):
    with pytest.raises(ValueError, match=r"a prompt of 595 tokens and an answer of 12 exceed .* 600: lower max_new_"):
        write(model, [[5] * 595], GREEDY, [0], ())


@pytest.fixture(scope="module")
def asked():
    templates = load_templates("en")
    return [
        *generate_prompts(BANK, templates, 1, 2, ["digits"], 2),
        *open_prompts(BANK, templates, 1, 1),
    ]


def rows_of(model, asked, batch_size=5, tokenizer=Chat(), **more):  # noqa: B008 - it has no state
    decodings = {"generate": WARM, "open": WARM._replace(max_new_tokens=20)}
    batches = iterate_generations(model, "m", asked, tokenizer, BANK.options, decodings, batch_size=batch_size, **more)
    return [row for rows in batches for row in rows]


@pytest.fixture(scope="module")
def rows(model, asked):
    return rows_of(model, asked)


def test_rows_say_how_they_were_made(model, asked, rows):
    key = ("mode", "item", "template", "order", "labels", "sample")
    assert {json.dumps([r[k] for k in key]) for r in rows} == {json.dumps([p.row[k] for k in key]) for p in asked}
    assert len(rows) == len(asked) == 2 * 2 * 2 * 2 + 2 + 7
    prompt_of = {json.dumps([p.row[k] for k in key]): p for p in asked}
    for row in rows[::4]:
        prompt = prompt_of[json.dumps([row[k] for k in key])]
        assert row["decoding"]["max_new_tokens"] == (12 if row["mode"] == "generate" else 20)
        assert row["finish"] == "stop" or row["n_tokens"] == [row["decoding"]["max_new_tokens"]]
        decoding = Decoding(**row["decoding"])
        (again,) = write(model, [prompt_tokens(Chat(), prompt.text)], decoding, [decoding.seed], Chat.stop_tokens)
        assert Chat().decode(again[:-1] if again[-1] in Chat.stop_tokens else again) == row["text"]
    samples = [[r["text"] for r in rows if r["mode"] == "generate" and r["sample"] == s] for s in (0, 1)]
    assert samples[0] != samples[1]


def test_known_batches_are_left_out_and_the_rest_is_the_same(model, asked, rows):
    whole = rows
    done = {
        json.dumps({k: row[k] for k in ("mode", "item", "template", "order", "labels", "sample")}) for row in whole[:12]
    }

    def is_known(rows):
        return all(
            json.dumps({k: row[k] for k in ("mode", "item", "template", "order", "labels", "sample")}) in done
            for row in rows
        )

    assert rows_of(model, asked, is_known=is_known) == whole[10:]


def test_a_system_prompt_is_part_of_the_prompt_and_of_its_hash(model, asked, rows):
    plain, told = rows, rows_of(model, asked, system_prompt="Be brief.")
    assert all(a["prompt_sha256"] != b["prompt_sha256"] for a, b in zip(plain, told))
    assert [a["text"] for a in plain] != [b["text"] for b in told]
    templates = load_templates("en")
    prompts = choice_prompts(BANK, templates, 1, 2, ["digits"])
    questions = [to_questions(prompts, Chat(), system_prompt) for system_prompt in (None, "Be brief.")]
    assert questions[1][0].answers[0].tokens[:14] == [3, *map(ord, "Be brief. / H")]
    answered = [answer_questions(model, "m", q, 800) for q in questions]
    assert all(a["option_logprobs"] != b["option_logprobs"] for a, b in zip(*answered))
    assert all(a["prompt_sha256"] != b["prompt_sha256"] for a, b in zip(*answered))


CLOSE = 19


class Thoughtful(Chat):
    """Its id 19 ends a block of thought."""

    end_of_thought = CLOSE

    def cut_thought(self):
        return [10, CLOSE, 10]


def thoughts_of(model, asked, thinking):
    return {row_key(row): row for row in rows_of(model, asked, tokenizer=Thoughtful(), thinking=thinking)}


def test_a_limited_reasoning_is_closed_and_the_answer_follows_it(model, asked):
    """Many at once against one prompt, one thought and one answer at a time."""
    most, asked = 12, asked[:9]
    rows, tokenizer = thoughts_of(model, asked, Thinking(True, most)), Thoughtful()
    for prompt in asked:
        row = rows[row_key({"model": "m", **prompt.row})]
        decoding = WARM._replace(max_new_tokens=row["decoding"]["max_new_tokens"])
        ids, seed = prompt_tokens(tokenizer, prompt.text), row["decoding"]["seed"]
        stops = (*Chat.stop_tokens, CLOSE)
        (thought,) = write(model, [ids], decoding._replace(max_new_tokens=most), [seed + 1], stops)
        ended = thought[-1] in stops
        said = tokenizer.decode(thought[:-1] if ended else thought)
        if thought[-1] != CLOSE:
            thought = [*(thought[:-1] if ended else thought), 10, CLOSE, 10]
            said += tokenizer.decode([10])
        (answer,) = write(model, [ids + thought], decoding, [seed], Chat.stop_tokens)
        rest = [10] if row["reasoning_cut"] else []
        text = tokenizer.decode(rest + (answer[:-1] if answer[-1] in Chat.stop_tokens else answer))
        assert (row["reasoning"], row["text"]) == (said, text)
        assert row["reasoning_cut"] == (rest == [10]) == (thought[-1] != CLOSE)
        assert row["n_tokens"] == [len(thought) + len(answer)]
        assert row["thinking"] == {"max_tokens": most}
    cut = [row["reasoning_cut"] for row in rows.values()]
    assert 0 < sum(cut) < len(cut), "only one of both was seen"


def test_without_a_limit_reasoning_and_answer_share_the_length(model, asked):
    plain, rows = thoughts_of(model, asked, None), thoughts_of(model, asked, Thinking(True))
    mark = Chat().decode([CLOSE])
    for key, row in rows.items():
        assert row["reasoning"] + mark * (not row["reasoning_cut"]) + row["text"] == plain[key]["text"]
        assert not (row["reasoning_cut"] and row["text"])
        assert (row["finish"], row["n_tokens"]) == (plain[key]["finish"], plain[key]["n_tokens"])
    assert len({row["reasoning_cut"] for row in rows.values()}) == 2
    quiet = thoughts_of(model, asked, Thinking(False))
    assert [{**row, "thinking": "off"} for row in plain.values()] == list(quiet.values())
