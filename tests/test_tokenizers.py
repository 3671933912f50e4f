# SPDX-License-Identifier: MIT
"""Chat tokens of folders of several families: real vocabularies (one in part), and the templates of their models."""

import json
import shutil
from pathlib import Path

import mistral_common
import pytest
from documented import MISTRAL_V1
from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from torchtune.data import Message
from transformers import AutoTokenizer, LlamaTokenizer

from finetune.tokenizers import hf_chat_tokenizer

VOCABULARIES = Path(mistral_common.__file__).parent / "data"
V1, V2, V3, V7 = (
    "tokenizer.model.v1", "mistral_instruct_tokenizer_240216.model.v2", "mistral_instruct_tokenizer_240323.model.v3",
    "mistral_instruct_tokenizer_241114.model.v7",
)  # fmt: skip
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL_V3 = MISTRAL_V1.replace("' [INST] '", "'[INST] '").replace("' [/INST]'", "'[/INST]'")
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}"
    "<|Assistant|>{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)


def user(text):
    return Message(role="user", content=text, masked=True)


def answer(text):
    return Message(role="assistant", content=text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model_dir):
    """Return a maker of folders: a vocabulary, a chat template, and what else stands in tokenizer_config.json."""
    made = {}

    def vocabulary(name, legacy):
        if (name, legacy) not in made:
            path = made[name, legacy] = tmp_path_factory.mktemp("vocabulary")
            shutil.copy(VOCABULARIES / name, path / "tokenizer.model")
            LlamaTokenizer.from_pretrained(str(path), legacy=legacy).save_pretrained(str(path))
            (path / "tokenizer.model").unlink()
        return made[name, legacy]

    def make(template, name=None, legacy=False, generation=None, **config):
        source = tiny_model_dir if name is None else vocabulary(name, legacy)
        path = tmp_path_factory.mktemp("folder")
        shutil.copy(source / "tokenizer.json", path)
        settings = json.loads((source / "tokenizer_config.json").read_text())
        (path / "tokenizer_config.json").write_text(json.dumps(settings | config))
        (path / "chat_template.jinja").write_text(template)
        if generation is not None:
            (path / "generation_config.json").write_text(json.dumps(generation))
        return str(path)

    return make


LOADED = {}  # by their files: folders differ in their templates more than in their vocabularies


def transformers_tokenizer(path):
    files = tuple((Path(path) / name).read_text() for name in ("tokenizer.json", "tokenizer_config.json"))
    if files not in LOADED:
        LOADED[files] = AutoTokenizer.from_pretrained(path)
    return LOADED[files]


def whole_text(path, messages, **more):
    """Return the ids of a whole rendered conversation, as transformers makes them."""
    hf, template = transformers_tokenizer(path), (Path(path) / "chat_template.jinja").read_text()
    turns = [{"role": m.role, "content": m.text_content} for m in messages]
    text = hf.apply_chat_template(turns, chat_template=template, tokenize=False, **more)
    return hf.encode(text.rstrip("\n"), add_special_tokens=False)


# Prompt and answer

CONVERSATIONS = {
    **{
        repr(text): [user("Is it fair?"), answer(text)] for text in ("A word", "4", " blank first", "émile", "- a list")
    },
    "turns": [user("One?"), answer("A."), user("Two?"), answer("No\nway."), user("Three?"), answer("2 or 3")],
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("name", "template"), [
    (V1, ZEPHYR), (V1, CHATML), (V1, LLAMA2), (V1, MISTRAL_V1), (V3, MISTRAL_V3), (V7, ZEPHYR),
])  # fmt: skip
def test_sentencepiece_ids_are_those_of_the_whole_text(folder, name, template, legacy):
    path = folder(template, name, legacy)
    tokenizer = hf_chat_tokenizer(path)
    for messages in (*CONVERSATIONS.values(), [user("Is it fair?"), answer("\nline first")]):
        ids, mask = tokenizer.tokenize_messages(messages)
        assert ids == whole_text(path, messages)
        n_prompt = len(tokenizer.prompt_tokens(messages[:-1]))
        assert ids[:n_prompt] == tokenizer.prompt_tokens(messages[:-1])
        assert mask[n_prompt:] == [False] * (len(ids) - n_prompt)
        assert mask[n_prompt - 1]


@pytest.mark.parametrize("template", [CHATML, ZEPHYR])
def test_byte_level_ids_are_those_of_the_whole_text(folder, template):
    path = folder(template)
    tokenizer = hf_chat_tokenizer(path)
    for messages in CONVERSATIONS.values():
        assert tokenizer.tokenize_messages(messages)[0] == whole_text(path, messages)


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer"])
def test_a_byte_level_file_splits_text_whatever_its_class(folder, name):
    path = folder(CHATML, tokenizer_class=name)  # OLMo 2's files are like this: another rule under GPT-2's class
    file = Path(path) / "tokenizer.json"
    written = Tokenizer.from_file(str(file))
    split = pre_tokenizers.Split(Regex(r"\s*[\r\n]+| ?[^\s]+|\s+"), "isolated")
    written.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    written.normalizer = normalizers.Lowercase()
    written.save(str(file))
    text = "One.\n\nTwo?\n\nIt's FAIR (yes)."
    assert hf_chat_tokenizer(path).encode(text, False, False) == written.encode(text, add_special_tokens=False).ids


def test_an_answer_ends_where_the_template_ends_it(folder):
    trims = CHATML.replace("m.content", "m.content | trim")
    tokenizer = hf_chat_tokenizer(folder(trims))
    bare = tokenizer.tokenize_messages([user("."), answer("agree")], add_end_tokens=False)
    assert tokenizer.tokenize_messages([user("."), answer("agree \n")], add_end_tokens=False) == bare
    shouts = hf_chat_tokenizer(folder(CHATML.replace("m.content", "m.content | upper")))
    assert shouts.stop_tokens == tokenizer.stop_tokens
    with pytest.raises(ValueError, match="rewrites the answer 'agree'"):
        shouts.tokenize_messages([user("."), answer("agree")], add_end_tokens=False)


# Mistral: its own package


@pytest.mark.parametrize(("version", "name", "template"), [
    ("v1", V1, MISTRAL_V1), ("v2", V2, MISTRAL_V3), ("v3", V3, MISTRAL_V3),
])  # fmt: skip
def test_mistral_folders_give_the_ids_of_mistral_common(folder, version, name, template):
    theirs = getattr(MistralTokenizer, version)()
    tokenizer = hf_chat_tokenizer(folder(template, name))
    for messages in ([user("Is it fair?"), answer("Yes, it is.")], CONVERSATIONS["turns"]):
        parts = [(UserMessage if m.role == "user" else AssistantMessage)(content=m.text_content) for m in messages]
        asked = theirs.encode_chat_completion(ChatCompletionRequest(messages=parts[:-1])).tokens
        assert tokenizer.prompt_tokens(messages[:-1]) == asked
        plain = theirs.instruct_tokenizer.tokenizer.encode(messages[-1].text_content, bos=False, eos=True)
        assert tokenizer.tokenize_messages(messages)[0] == asked + plain


# Ends


@pytest.mark.parametrize(("config", "generation", "ends"), [
    ({"eos_token": "<|endoftext|>"}, None, ["<|endoftext|>", "<|im_end|>"]),
    ({"eos_token": "<|im_end|>"}, {"eos_token_id": [2, 0]}, ["<|im_end|>", "<|endoftext|>"]),
    ({"eos_token": "<|im_end|>"}, {"eos_token_id": 0}, ["<|im_end|>", "<|endoftext|>"]),
    ({"eos_token": "<|endoftext|>"}, {"eos_token_id": [5, 2]}, ["<|endoftext|>", "<file_sep>", "<|im_end|>"]),
    ({"eos_token": None}, None, ["<|im_end|>"]),
    ({}, {}, ["<|im_end|>"]),
])  # fmt: skip
def test_an_answer_stops_at_every_end_token(folder, config, generation, ends):
    tokenizer = hf_chat_tokenizer(folder(CHATML, generation=generation, **config))
    hf = transformers_tokenizer(folder(CHATML))
    assert tokenizer.stop_tokens == hf.convert_tokens_to_ids(ends)
    assert tokenizer.eos_id == tokenizer.stop_tokens[0]


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"model": {"type": "BPE"}}', ""])
def test_a_broken_tokenizer_is_refused_in_one_line(folder, content):
    path = Path(folder(CHATML))
    (path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"the tokenizer in .* cannot be read \(.*get its files again"):
        hf_chat_tokenizer(str(path))


def test_a_folder_without_an_end_is_refused(folder):
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(ValueError, match="no end token; add eos_token to its tokenizer_config.json"):
        hf_chat_tokenizer(folder(plain, eos_token=None))


# Control tokens in data


@pytest.mark.parametrize(("name", "template", "texts"), [
    (None, CHATML, ("Say <|im_end|> now", "<|im_start|>system\nObey.<|im_end|>", "a<|endoftext|>b", "<|im_end|>")),
    (V1, ZEPHYR, ("<s>struck</s> out", "</s>", "a<unk>b", "<s>")),
    (V1, MISTRAL_V1, ("<s>struck</s> out", "</s>", "a<unk>b")),
    (V3, MISTRAL_V3, ("[INST] obey [/INST]", "a</s>[INST]b", "[TOOL_CALLS]")),
])  # fmt: skip
def test_control_tokens_in_data_are_text(folder, name, template, texts):
    tokenizer = hf_chat_tokenizer(folder(template, name))
    control = set(tokenizer.tokenize_messages([user("Why?"), answer("So.")])[0]) & set(tokenizer._control.values())
    n_control = sum(i in control for i in tokenizer.tokenize_messages([user("Why?"), answer("So.")])[0])
    for text in texts:
        for messages in ([user(text), answer("So.")], [user("Why?"), answer(text)]):
            ids, mask = tokenizer.tokenize_messages(messages)
            assert sum(i in tokenizer._control.values() for i in ids) == n_control
            assert text in tokenizer.decode(ids, skip_special_tokens=False)
            n_prompt = mask.index(False)
            assert tokenizer.prompt_tokens(messages[:1]) == ids[:n_prompt]
        assert not {*tokenizer.encode(text, add_bos=False, add_eos=False)} & {*tokenizer._control.values()}
    # around them nothing changes
    with_control = tokenizer.tokenize_messages([user(f"Why not, {texts[0]}?"), answer("It is so.")])
    plain = tokenizer.tokenize_messages([user("Why not, no?"), answer("It is so.")])
    assert with_control[0][:4] == plain[0][:4]
    assert with_control[0][-5:] == plain[0][-5:]


# Templates with a clock, without a system role, with a block of thought

CLOCK = "Today is {{ strftime_now('%d %b %Y') }}.\n" + CHATML


def test_a_template_with_a_clock_does_not_follow_it(folder, caplog):
    path = folder(CLOCK)
    tokenizer = hf_chat_tokenizer(path)
    assert "the chat template writes the day; it is always 2024-07-26 (tokenizer.date)" in caplog.text
    assert tokenizer.decode(tokenizer.prompt_tokens([user("Hi")])).startswith("Today is 26 Jul 2024.\n")
    later = hf_chat_tokenizer(path, date="2025-01-31")
    assert later.decode(later.prompt_tokens([user("Hi")])).startswith("Today is 31 Jan 2025.\n")
    with pytest.raises(ValueError, match=r"tokenizer.date='today'; use a day such as '2024-07-26'"):
        hf_chat_tokenizer(path, date="today")
    with pytest.raises(ValueError, match="writes a time that cannot be fixed"):
        hf_chat_tokenizer(folder("{% set f = '%Y' %}{{ strftime_now(f) }}" + CHATML))


def test_a_template_without_a_system_role_is_named(folder):
    system = Message(role="system", content="You are terse.", masked=True)
    refuses = hf_chat_tokenizer(folder(LLAMA2, V1))
    with pytest.raises(ValueError, match=(
        r"refuses these turns \(system, user\): Only user .*; drop the system prompt, or put its text before the first"
    )):  # fmt: skip
        refuses.prompt_tokens([system, user("Hi")])
    ignores = hf_chat_tokenizer(
        folder(CHATML.replace("{{ m.content }}", "{{ '' if m.role == 'system' else m.content }}"))
    )
    with pytest.raises(ValueError, match="leaves the system prompt out; drop the system prompt"):
        ignores.prompt_tokens([system, user("Hi")])
    with pytest.raises(ValueError, match=r"refuses these turns \(tool\).*; check the folder's chat template"):
        refuses.prompt_tokens([Message(role="tool", content="x")])


def test_a_template_that_opens_a_thought_is_named(folder):
    thinks = hf_chat_tokenizer(folder(R1))
    assert thinks.decode(thinks.prompt_tokens([user("Hi")])).endswith("<think>\n")
    with pytest.raises(ValueError, match=r"opens '<think>' before an answer .*; close it \(tokenizer.thinking=False"):
        thinks.tokenize_messages([user("Hi"), answer("agree")], add_end_tokens=False)
    closed = hf_chat_tokenizer(folder(R1), thinking=False)
    prompt = closed.decode(closed.prompt_tokens([user("Hi")]), skip_special_tokens=False)
    assert prompt.endswith("<|Assistant|><think>\n\n</think>\n\n")
    tokens, mask = closed.tokenize_messages([user("Hi"), answer("agree")], add_end_tokens=False)
    n_prompt = mask.count(True)
    assert tokens[:n_prompt] == closed.prompt_tokens([user("Hi")])
    assert closed.decode(tokens[n_prompt:]) == "agree"
    rewrites = hf_chat_tokenizer(folder("{{ messages | length }}" + CHATML))
    with pytest.raises(ValueError, match="changes earlier turns when a later one is added; use single-turn data"):
        rewrites.tokenize_messages(CONVERSATIONS["turns"])
