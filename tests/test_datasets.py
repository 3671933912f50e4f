# SPDX-License-Identifier: MIT
import importlib.util
import inspect
import json
import logging
from pathlib import Path

import datasets as hf_datasets
import pytest
import yaml
from conftest import REPO
from omegaconf import OmegaConf
from torchtune import config
from torchtune.data import AlpacaToMessages, Message, padded_collate_dpo, padded_collate_sft

from data import datasets
from data.pairs.records import Pair, read_pairs
from data.pairs.tokens import AlpacaInstructTemplate

IGNORE = -100
ROWS = [
    {"prompt": "one two", "chosen": "aaa bbb ccc", "rejected": "dddd"},
    {"prompt": "three", "chosen": "eeeee", "rejected": "ff ggg"},
    {"prompt": "four five six", "chosen": "h", "rejected": "ii jjj kkkk lllll mmmmmm"},
]


class WordLengths:
    """Token = length of a word; 0 begins, -1 ends. Truncates silently, as torchtune's tokenizers do."""

    def __init__(self, max_seq_len=None):
        self.max_seq_len = max_seq_len

    def tokenize_messages(self, messages, add_end_tokens=True):
        tokens, mask = [0], [True]
        for message in messages:
            words = [len(word) for word in message.text_content.split()]
            tokens += words
            mask += [message.masked] * len(words)
        tokens.append(-1)
        mask.append(False)
        if self.max_seq_len and len(tokens) > self.max_seq_len:
            tokens = [*tokens[: self.max_seq_len - 1], -1]
            mask = mask[: self.max_seq_len]
        return tokens, mask


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hf_datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def write(tmp_path):
    def write_file(rows, name="pairs.jsonl"):
        path = tmp_path / name
        path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(r) + "\n" for r in rows))
        return str(path)

    return write_file


def build(path, tokenizer=None, source="json", **arguments):
    return datasets.preference_pairs(tokenizer or WordLengths(), source=source, data_files=path, **arguments)


# What comes out


def test_items_have_torchtunes_keys_and_score_the_answer_only(write):
    pairs = build(write(ROWS))
    assert len(pairs) == 3
    assert pairs.rows == [1, 2, 3]
    assert pairs[0] == {
        "chosen_input_ids": [0, 3, 3, 3, 3, 3, -1],
        "chosen_labels": [IGNORE, IGNORE, IGNORE, 3, 3, 3, -1],
        "rejected_input_ids": [0, 3, 3, 4, -1],
        "rejected_labels": [IGNORE, IGNORE, IGNORE, 4, -1],
    }


def test_torchtunes_collate_functions_take_the_items(write):
    path = write(ROWS)
    pairs = build(path)
    ids, labels = padded_collate_dpo([pairs[0], pairs[1]], padding_idx=99)
    assert ids.tolist()[1] == [0, 5, 5, -1, 99, 99, 99]
    assert labels.tolist()[2] == [IGNORE, IGNORE, IGNORE, 4, -1, IGNORE, IGNORE]

    answers = datasets.chosen_answers(WordLengths(), source="json", data_files=path)
    batch = padded_collate_sft([answers[0], answers[1]], padding_idx=99)
    assert batch["tokens"].tolist() == [[0, 3, 3, 3, 3, 3, -1], [0, 5, 5, -1, 99, 99, 99]]
    assert batch["labels"][1].tolist() == [IGNORE, IGNORE, 5, -1, IGNORE, IGNORE, IGNORE]


@pytest.mark.parametrize(
    ("source", "name"), [("json", "pairs.json"), ("csv", "pairs.csv"), ("parquet", "pairs.parquet")]
)
def test_all_file_formats_give_the_same_pairs(write, tmp_path, source, name):
    path = str(tmp_path / name)
    rows = hf_datasets.Dataset.from_list(ROWS)
    {"json": rows.to_json, "csv": rows.to_csv, "parquet": rows.to_parquet}[source](path)
    from_file, expected = build(path, source=source), build(write(ROWS))
    assert [from_file[i] for i in range(3)] == [expected[i] for i in range(3)]


def test_column_map_renames_and_flips(write):
    path = write([{"question": r["prompt"], "a": r["chosen"], "b": r["rejected"]} for r in ROWS])
    straight = build(path, column_map={"prompt": "question", "chosen": "a", "rejected": "b"})
    flipped = build(path, column_map={"prompt": "question", "chosen": "b", "rejected": "a"})
    assert straight[2]["chosen_input_ids"] == flipped[2]["rejected_input_ids"]
    assert straight[2]["rejected_labels"] == flipped[2]["chosen_labels"]
    assert straight[2]["chosen_input_ids"] != flipped[2]["chosen_input_ids"]


def test_both_sides_of_the_shipped_set_are_the_same_rows_exchanged():
    left, right = datasets.mirrored_left(WordLengths()), datasets.mirrored_right(WordLengths())
    answers = datasets.mirrored_left_sft(WordLengths())
    assert len(left) == len(right) == len(answers)
    for i in range(len(left)):
        assert left[i]["chosen_input_ids"] == right[i]["rejected_input_ids"] == answers[i]["tokens"]
        assert left[i]["rejected_labels"] == right[i]["chosen_labels"]
    assert datasets.mirrored_right_sft(WordLengths())[0]["tokens"] == right[0]["chosen_input_ids"]


@pytest.mark.parametrize("name", [name for name in datasets.__all__ if name.islower()])
def test_builders_are_what_yaml_expects(name):
    builder = getattr(datasets, name)
    parameters = inspect.signature(builder).parameters
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if name.startswith(("politune_left", "politune_right")):
        assert parameters["source"].default == f"scale-lab/politune-{name.split('_')[1]}"
    cfg = OmegaConf.create({"dataset": {"_component_": f"data.datasets.{name}", "max_seqlen": 3}})
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_seqlen'"):
        config.validate(cfg)
    del cfg.dataset.max_seqlen
    config.validate(cfg)


def test_config_instantiate_builds_as_the_stock_recipes_do(write):
    node = {"_component_": "data.datasets.politune_left_sft", "source": "json", "data_files": write(ROWS)}
    assert len(config.instantiate(OmegaConf.create(node), WordLengths())) == 3


# Rows that are not as they should be


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("chosen", None, "chosen is missing"),
        ("prompt", " \n", "prompt is empty"),
        ("rejected", 5, "rejected is int, not text"),
        ("rejected", " h\n", "chosen equals rejected"),
    ],
)
def test_an_invalid_row_is_named_with_file_and_remedy(write, field, value, reason):
    path = write([*ROWS[:2], {**ROWS[2], field: value}])
    with pytest.raises(ValueError, match="1 of 3 rows are invalid") as error:
        build(path)
    for part in (path, f"row 3: {reason}", "dataset.invalid_rows=drop"):
        assert part in str(error.value)


def test_dropped_invalid_rows_are_counted_with_reason_and_number(write, caplog):
    bad = {**ROWS[0], "chosen": ""}
    pairs = build(write([bad, *ROWS, bad]), invalid_rows="drop")
    assert pairs.rows == [2, 3, 4]
    assert "left out 2 of 5 rows as invalid (chosen is empty: 2; rows 1, 5)" in caplog.text
    with pytest.raises(ValueError, match=r"all 1 rows are invalid \(chosen is empty: 1\)"):
        build(write([bad], "bad.jsonl"), invalid_rows="drop")


def test_long_lists_of_invalid_rows_are_shortened_but_counted():
    with pytest.raises(ValueError, match=r"12 of 12 rows .*row 5: a is missing; \.\.\.\)"):
        read_pairs([{"a": None, "b": "", "c": ""}] * 12, "f", {"prompt": "a", "chosen": "b", "rejected": "c"})


def test_a_wrong_column_names_found_and_wanted(write):
    path = write([{"question": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(ValueError, match="no column prompt") as error:
        build(path)
    for part in (path, "found question, chosen, rejected", "wanted prompt, chosen", "dataset.column_map"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="column_map names prompts; its keys must be among prompt"):
        build(path, column_map={"prompts": "question"})


@pytest.mark.parametrize(("name", "text"), [("e.jsonl", ""), ("e.csv", ""), ("h.csv", "prompt,chosen,rejected\n")])
def test_an_empty_file_is_refused(write, name, text):
    path = write(text, name)
    with pytest.raises(ValueError, match="no rows|No columns") as error:
        build(path, source=name.split(".")[1].replace("jsonl", "json"))
    assert path in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("a.jsonl", json.dumps(ROWS[0]) + '\n{"prompt": "x", "chosen"\n', "a.jsonl row 2: no JSON: Expecting ':'"),
        ("b.jsonl", json.dumps(ROWS[0]) + "\n\n[1]\n", "b.jsonl row 2: a list, want an object"),
        ("c.json", json.dumps(ROWS[:1])[:-1] + ",\n{", "line 2: Expecting"),
        ("d.csv", "prompt,chosen,rejected\na,b,c\na,b,c,d\n", "d.csv row 2: 4 fields, the header has 3"),
        ("e.parquet", "no parquet", "not a parquet file"),
    ],
)
def test_a_malformed_file_is_named_with_its_row(write, name, text, where):
    path = write(text, name)
    source = name.split(".")[1].replace("jsonl", "json")
    with pytest.raises(ValueError, match=f"cannot be read as {source}") as error:
        build(path, source=source)
    where = where.removeprefix(name)  # once is enough
    for part in (f"{path}: cannot be read", where, "Mend the file", "check source"):
        assert part in str(error.value)
    assert error.value.__cause__ is not None


def test_a_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "binary.jsonl"
    path.write_bytes(b'{"prompt": "\xff\xfe"}\n')
    with pytest.raises(ValueError, match="binary.jsonl: cannot be read as json: row 1: not UTF-8"):
        build(str(path))


def test_an_unknown_split_is_named(write):
    with pytest.raises(ValueError, match=r"Unknown split .*split=test"):
        build(write(ROWS), split="test")


def test_a_missing_file_is_named_with_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="not found from .*check the path") as error:
        build(str(tmp_path / "none.jsonl"))
    assert str(tmp_path / "none.jsonl") in str(error.value)


def test_no_network_is_said_with_remedy():
    with pytest.raises(ConnectionError, match="scale-lab/politune-left: cannot reach") as error:
        datasets.politune_left(WordLengths())
    for part in ("hf download --repo-type dataset scale-lab/politune-left", "dataset.data_files=PATH"):
        assert part in str(error.value)
    assert error.value.__cause__ is not None


def test_a_format_without_files_is_refused(write, monkeypatch, tmp_path):
    write(ROWS)
    monkeypatch.chdir(tmp_path)  # where `datasets` would find pairs.jsonl by itself
    with pytest.raises(ValueError, match="source=json needs data_files"):
        build(None)


@pytest.mark.parametrize(
    ("argument", "match"),
    [
        ({"invalid_rows": "skip"}, "invalid_rows='skip'; use one of error, drop"),
        ({"too_long": "cut"}, "too_long='cut'; use one of drop, truncate, error"),
        ({"max_seq_len": 0}, "max_seq_len=0; use a positive integer"),
        ({"prompt_template": {"user": "Q: "}}, "use {role:"),
        ({"prompt_template": 3}, "prompt_template=3; use null"),
    ],
)
def test_unknown_settings_are_refused(write, argument, match):
    with pytest.raises(ValueError, match=match):
        build(write(ROWS), **argument)


# Length policy: rows of 7 and 5, 4 and 5, 6 and 10 tokens


def test_short_enough_pairs_pass_in_silence(write, caplog):
    assert len(build(write(ROWS), max_seq_len=10)) == 3
    assert not [r for r in caplog.records if r.name.startswith("data")]


def test_long_pairs_are_dropped_and_named(write, caplog):
    pairs = build(write(ROWS), max_seq_len=6)
    assert pairs.rows == [2]
    assert "2 of 3 pairs have more than max_seq_len=6 tokens (longest 10; rows 1, 3)" in caplog.text
    assert "too_long=truncate" in caplog.text
    assert caplog.records[-1].levelno == logging.WARNING


def test_the_tokenizers_limit_counts_and_its_silent_cut_does_not(write, caplog):
    tokenizer = WordLengths(max_seq_len=6)
    assert build(write(ROWS), tokenizer).rows == [2]
    assert "longest 10" in caplog.text
    assert tokenizer.max_seq_len == 6
    assert build(write(ROWS), tokenizer, max_seq_len=7).rows == [1, 2]


def test_truncate_keeps_the_end_token_as_torchtune_does(write, caplog):
    path = write(ROWS)
    pairs = build(path, max_seq_len=6, too_long="truncate")
    assert pairs.rows == [1, 2, 3]
    assert pairs[0]["chosen_input_ids"] == [0, 3, 3, 3, 3, -1]
    assert pairs[0]["chosen_labels"] == [IGNORE, IGNORE, IGNORE, 3, 3, -1]
    assert (
        pairs[2]["rejected_input_ids"]
        == WordLengths(6).tokenize_messages(
            [Message("user", ROWS[2]["prompt"], masked=True), Message("assistant", ROWS[2]["rejected"])]
        )[0]
    )
    assert "rows 1, 3); answers cut at their end, 0 pairs dropped" in caplog.text


def test_truncate_drops_what_leaves_nothing_to_learn(write, caplog):
    same_start = {"prompt": "x", "chosen": "aa bb cc dd", "rejected": "aa bb cc dd ee"}
    pairs = build(write([*ROWS, same_start]), max_seq_len=5, too_long="truncate")
    assert pairs.rows == [1, 2]  # the prompt of row 3 fills the limit, row 4 is cut to equal answers
    assert "2 pairs dropped with nothing left to learn from (rows 3, 4)" in caplog.text


def test_error_names_rows_and_remedy(write):
    with pytest.raises(ValueError, match=r"rows 1, 3\); raise dataset.max_seq_len, or .*too_long=drop"):
        build(write(ROWS), max_seq_len=6, too_long="error")


def test_nothing_left_is_an_error(write):
    with pytest.raises(ValueError, match="3 of 3 pairs .* no pair is left: raise dataset.max_seq_len"):
        build(write(ROWS), max_seq_len=3)


def test_supervised_answers_follow_the_same_policy(write, caplog):
    path = write(ROWS)
    answers = datasets.chosen_answers(WordLengths(), source="json", data_files=path, max_seq_len=6)
    assert answers.rows == [2, 3]  # the long rejected answer of row 3 is not read
    assert "1 of 3 pairs have more than max_seq_len=6 tokens (longest 7; row 1)" in caplog.text


# Prompt templates


class Texts:
    """Keep what a tokenizer is given."""

    max_seq_len = None
    seen = []

    def tokenize_messages(self, messages, add_end_tokens=True):
        self.seen.append([[part["content"] for part in message.content] for message in messages])
        return [1, 2, 3], [True, False, False]


@pytest.mark.parametrize(
    "template",
    [
        "data.datasets.AlpacaInstructTemplate",
        AlpacaInstructTemplate(),
        {"user": list(AlpacaInstructTemplate().template["user"])},
    ],
)
def test_template_is_torchtunes_alpaca_text_in_one_user_message(template):
    Texts.seen.clear()
    datasets.PreferencePairs([Pair(1, "Why?", "a", "b")], "f", Texts(), template)
    expected = AlpacaToMessages()({"instruction": "Why?", "output": "a"})["messages"]
    # One part: a tokenizer that strips parts must not eat the line breaks around the prompt.
    assert Texts.seen[0] == [[expected[0].text_content], ["a"]]
    assert "### Instruction:\nWhy?\n\n### Response:\n" in Texts.seen[0][0][0]


def test_template_gives_llama3_the_tokens_of_the_papers_setting():
    spec = importlib.util.find_spec("llama_models")
    if spec is None:
        pytest.skip("llama-models is not installed")
    from torchtune.models.llama3 import llama3_tokenizer

    (path,) = sorted(Path(spec.submodule_search_locations[0]).rglob("llama3/tokenizer.model"))[:1]
    tokenizer = llama3_tokenizer(str(path))
    messages = AlpacaToMessages(train_on_input=False)({"instruction": "Why?", "output": "As it is."})["messages"]
    pairs = datasets.PreferencePairs(
        [Pair(1, "Why?", "As it is.", "No.")], "f", tokenizer, "data.datasets.AlpacaInstructTemplate"
    )
    assert pairs[0]["chosen_input_ids"] == tokenizer.tokenize_messages(messages)[0]


def test_no_template_leaves_the_prompt_alone():
    Texts.seen.clear()
    datasets.PreferencePairs([Pair(1, "Why?", "a", "b")], "f", Texts())
    assert Texts.seen == [[["Why?"], ["a"]], [["Why?"], ["b"]]]


def test_unknown_template_path_is_an_error(write):
    with pytest.raises(config._errors.InstantiationError, match="NoSuchTemplate"):
        build(write(ROWS), prompt_template="data.datasets.NoSuchTemplate")


# The real rows


@pytest.mark.parametrize(("side", "n_rows"), [("left", 1600), ("right", 1900)])
def test_published_rows_load_without_an_edit(side, n_rows):
    path = Path(__file__).parents[2] / "shared" / "data" / "politune" / f"{side}.jsonl"
    if not path.exists():
        pytest.skip("the published rows are not here")
    builder = getattr(datasets, f"politune_{side}")
    pairs = builder(WordLengths(), source="json", data_files=str(path))
    assert pairs.rows == list(range(1, n_rows + 1))


def test_every_builder_takes_what_the_configs_give():
    """`dataset=` on the command line keeps the YAML's other dataset keys, so any side must take them."""
    for path in (REPO / "configs").glob("*_lora_*.yaml"):
        given = set(yaml.safe_load(path.read_text())["dataset"]) - {"_component_"}
        if "right_share" in given:  # a mixture: sides and doses are its arguments
            assert given <= set(inspect.signature(datasets.mixture).parameters)
            continue
        sft = "lora_dpo" not in path.name
        for name in datasets.__all__:
            if (
                name not in ("AlpacaInstructTemplate", "mixture", "politune_mixture")
                and (name.endswith("_sft") or name == "chosen_answers") == sft
            ):
                parameters = set(inspect.signature(getattr(datasets, name)).parameters)
                assert given <= parameters, f"{path.name}: dataset=data.datasets.{name}"


@pytest.mark.parametrize("row", [1, 2])
def test_a_field_too_many_is_named_and_shifts_nothing(tmp_path, row):
    lines = ["prompt,chosen,rejected", "Is tea good?,Yes it is.,No it is not.", "Is rain wet?,Yes it is.,No it is not."]
    lines[row] = lines[row].replace("Yes it is.", "Yes, it is.")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"mine.csv: cannot be read as csv: row {row}: 4 fields, the header has 3"):
        build(str(tmp_path / "mine.csv"), source="csv")
