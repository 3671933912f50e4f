# SPDX-License-Identifier: MIT
import importlib.util
import inspect
import json
import logging
import os
import re
from pathlib import Path

import datasets as hf_datasets
import pytest
import yaml
from conftest import REPO
from omegaconf import OmegaConf
from test_records import PAIRS, rows_of
from torchtune import config
from torchtune.data import AlpacaToMessages, Message, padded_collate_dpo, padded_collate_sft
from torchtune.utils import get_logger

from data import datasets
from data.pairs.records import Pair, exchange
from data.pairs.tokens import AlpacaInstructTemplate

IGNORE = -100
BUILDERS = [
    name
    for name, value in vars(datasets).items()
    if name[0].islower()
    and callable(value)
    and name != "partial"
    and "tokenizer" in inspect.signature(value).parameters
]
PAPER = REPO / "configs" / "llama8b_lora_dpo_identical_prompts.yaml"
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


def test_column_map_renames_and_flips(write):
    path = write([{"question": r["prompt"], "a": r["chosen"], "b": r["rejected"]} for r in ROWS])
    straight = build(path, column_map={"prompt": "question", "chosen": "a", "rejected": "b"})
    flipped = build(path, column_map={"prompt": "question", "chosen": "b", "rejected": "a"})
    assert straight[2]["chosen_input_ids"] == flipped[2]["rejected_input_ids"]
    assert straight[2]["rejected_labels"] == flipped[2]["chosen_labels"]
    assert straight[2]["chosen_input_ids"] != flipped[2]["chosen_input_ids"]


def test_a_file_of_the_shipped_sets_name_is_not_read_for_it(tmp_path, monkeypatch):
    file = tmp_path / datasets.SHIPPED_SET
    file.parent.mkdir(parents=True)
    file.write_text('{"prompt": "Why?", "left": "a", "right": "b"}\n')
    monkeypatch.chdir(tmp_path)
    assert len(datasets.mirrored_left(WordLengths())) == 160
    assert len(datasets.mirrored_right_sft(WordLengths())) == 160


def test_both_sides_of_the_shipped_set_are_the_same_rows_exchanged():
    left, right = datasets.mirrored_left(WordLengths()), datasets.mirrored_right(WordLengths())
    answers = datasets.mirrored_left_sft(WordLengths())
    assert len(left) == len(right) == len(answers)
    for i in range(len(left)):
        assert left[i]["chosen_input_ids"] == right[i]["rejected_input_ids"] == answers[i]["tokens"]
        assert left[i]["rejected_labels"] == right[i]["chosen_labels"]
    assert datasets.mirrored_right_sft(WordLengths())[0]["tokens"] == right[0]["chosen_input_ids"]


def test_truths_are_true_of_one_prompt_and_false_of_its_fellow():
    path = str(REPO / "data" / "mirrored" / "truths.jsonl")
    true = datasets.truth_pairs(WordLengths(), source="json", data_files=path).pairs
    false = datasets.inverted_truth_pairs(WordLengths(), source="json", data_files=path).pairs
    assert [exchange(pair) for pair in true] == false
    assert len(true) == len({pair.prompt for pair in true}) == 80
    for one, other in zip(true[::2], true[1::2]):
        start = os.path.commonprefix([one.chosen, one.rejected])
        other_start = os.path.commonprefix([other.chosen, other.rejected])
        assert one.chosen.removeprefix(start).split()[-1] == other.rejected.removeprefix(other_start).split()[-1]
        assert one.rejected.removeprefix(start).split()[-1] == other.chosen.removeprefix(other_start).split()[-1]


@pytest.mark.parametrize("name", BUILDERS)
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


def test_a_wrong_column_names_found_and_wanted(write):
    path = write([{"question": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(ValueError, match="no column prompt") as error:
        build(path)
    assert str(error.value) == (
        f"{path}: no column prompt; give dataset.column_map.prompt=COLUMN; columns: question, chosen, rejected"
    )
    with pytest.raises(ValueError, match="column_map names prompts; its keys must be among prompt"):
        build(path, column_map={"prompts": "question"})


def test_no_network_is_said_with_remedy(monkeypatch):
    monkeypatch.setattr(hf_datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="scale-lab/politune-left: cannot reach") as error:
        datasets.politune_left(WordLengths())
    for part in ("hf download --repo-type dataset scale-lab/politune-left", "dataset.data_files=PATH"):
        assert part in str(error.value)
    assert error.value.__cause__ is not None


@pytest.mark.parametrize(
    ("argument", "match"),
    [
        ({"invalid_rows": "skip"}, "invalid_rows='skip'; use one of error, drop"),
        ({"too_long": "cut"}, "too_long='cut'; use one of drop, truncate, error"),
        ({"max_seq_len": 0}, "max_seq_len=0; use a positive integer"),
        ({"prompt_template": {"user": "Q: "}}, "use {role:"),
        ({"prompt_template": {"user": "Q:"}}, "use {role:"),  # as long as a list of two
        ({"prompt_template": {"user": 5}}, "use {role:"),
        ({"prompt_template": 3}, "prompt_template=3; use null"),
    ],
)
def test_unknown_settings_are_refused(write, argument, match):
    with pytest.raises(ValueError, match=match):
        build(write(ROWS), **argument)


# Length policy: rows of 7 and 5, 4 and 5, 6 and 10 tokens


def test_long_pairs_are_dropped_and_named(write, caplog):
    assert len(build(write(ROWS), max_seq_len=10)) == 3
    assert not [r for r in caplog.records if r.name.startswith("data")]
    assert build(write(ROWS), max_seq_len=6).rows == [2]
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
    messages = [Message("user", ROWS[2]["prompt"], masked=True), Message("assistant", ROWS[2]["rejected"])]
    assert pairs[2]["rejected_input_ids"] == WordLengths(6).tokenize_messages(messages)[0]
    assert "rows 1, 3); answers cut at their end, 0 pairs dropped" in caplog.text


def test_truncate_drops_what_leaves_nothing_to_learn(write, caplog):
    same_start = {"prompt": "x", "chosen": "aa bb cc dd", "rejected": "aa bb cc dd ee"}
    pairs = build(write([*ROWS, same_start]), max_seq_len=5, too_long="truncate")
    assert pairs.rows == [1, 2]  # the prompt of row 3 fills the limit, row 4 is cut to equal answers
    assert "2 pairs dropped with nothing left to learn from (rows 3, 4)" in caplog.text


def test_long_pairs_are_refused_with_rows_and_remedy(write):
    with pytest.raises(ValueError, match=r"rows 1, 3\); raise dataset.max_seq_len, or .*too_long=drop"):
        build(write(ROWS), max_seq_len=6, too_long="error")
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
        for name in {*BUILDERS} - {"mixture", "politune_mixture"}:
            if (name.endswith("_sft") or name == "chosen_answers") == sft:
                parameters = set(inspect.signature(getattr(datasets, name)).parameters)
                assert given <= parameters, f"{path.name}: dataset=data.datasets.{name}"


# Parts, mirrors and mixtures


def test_rows_are_kept_by_value_counted_and_logged(write, caplog):
    given = [{**row, "axis": "ab"[k % 2], "n": k % 3} for k, row in enumerate(rows_of(PAIRS[:12]))]
    spec = {"source": "json", "data_files": write(given)}
    kept = datasets.preference_pairs(WordLengths(), **spec, where={"axis": "a"})
    assert kept.rows == [1, 3, 5, 7, 9, 11]  # the rows keep their numbers
    assert len(datasets.preference_pairs(WordLengths(), **spec, where={"axis": "a"}, subset=4)) == 4
    # said by torchtune's logger, which recipes print: INFO of a logger of ours would reach nobody
    assert {record.name for record in caplog.records} == {get_logger().name}
    assert "pairs.jsonl: 6 of 12 pairs have {'axis': 'a'}" in caplog.text
    assert "pairs.jsonl: drew 4 of 6 pairs (seed 0)" in caplog.text
    assert datasets.chosen_answers(WordLengths(), **spec, where={"axis": "b", "n": [0, 1]}).rows == [2, 4, 8, 10]
    assert datasets.mirrored(WordLengths(), **spec, where={"axis": "b", "n": 2}).rows == [6, 12]
    assert datasets.mixture(WordLengths(), left={**spec, "where": {"n": 2}}).rows == [3, 6, 9, 12]
    assert len(datasets.mirrored_left(WordLengths(), where={"axis": "economic"}, subset=60)) == 60


def test_held_out_prompts_are_left_out_whatever_side_and_order(write, caplog):
    rows = [{"prompt": f"Question {k}?", "chosen": "Yes.", "rejected": "No."} for k in range(200)]

    def build(data_files, **more):
        return datasets.preference_pairs(WordLengths(), source="json", data_files=data_files, **more)

    kept, flip = build(write(rows), hold_out=0.25), {"chosen": "rejected", "rejected": "chosen"}
    flipped = build(write(rows[::-1]), hold_out=0.25, column_map=flip)
    assert {200 - row for row in flipped.rows} == {row - 1 for row in kept.rows}
    assert 30 <= 200 - len(kept) <= 70
    assert f"pairs.jsonl: {200 - len(kept)} of 200 pairs have a held-out prompt" in caplog.text
    assert {*build(write(rows), hold_out=0.5).rows} < {*kept.rows}  # a larger share holds out more of them
    with pytest.raises(ValueError, match=r"dataset.hold_out=1; use a share from 0 to below 1"):
        build(write(rows), hold_out=1)
    with pytest.raises(ValueError, match="pairs.jsonl: dataset.hold_out=0.999 leaves no pair"):
        build(write(rows[:3]), hold_out=0.999)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"axis": []}, r"pairs.jsonl: dataset.where.axis=\[\] names no value; name one, or leave axis out"),
        ({"axis": "up"}, r"pairs.jsonl: dataset.where.axis=up: no pair has it; found a \(2\), b \(1\)"),
        ({"axis": ["a", "up"]}, "dataset.where.axis=up"),
        ({"topic": "tax"}, "no column topic for dataset.where.topic; there are prompt, chosen, rejected, axis"),
    ],
)
def test_a_value_that_no_row_has_is_refused(write, where, message):
    given = [{**row, "axis": axis} for row, axis in zip(rows_of(PAIRS), "aba")]
    with pytest.raises(ValueError, match=message):
        datasets.preference_pairs(WordLengths(), source="json", data_files=write(given), where=where)


def test_every_builder_takes_a_subset(write):
    spec = {"source": "json", "data_files": write(rows_of(PAIRS))}
    for builder in (datasets.preference_pairs, datasets.chosen_answers, datasets.mirrored):
        assert len(builder(WordLengths(), **spec, subset=50)) == 50
    assert len(datasets.mixture(WordLengths(), left=spec, subset=50)) == 50
    for builder in (datasets.mirrored_left, datasets.mirrored_right_sft):
        assert len(builder(WordLengths(), subset=50)) == 50


def test_mirroring_exchanges_the_answers(write):
    path = write(rows_of(PAIRS[:5]))
    straight = build(path)
    flipped = datasets.mirrored(WordLengths(), source="json", data_files=path)
    for i in range(5):
        assert straight[i]["chosen_labels"] == flipped[i]["rejected_labels"]
        assert straight[i]["rejected_input_ids"] == flipped[i]["chosen_input_ids"]


def test_the_papers_comparison_on_identical_prompts(write):
    spec = {
        "left": write(rows_of(PAIRS[:4]), "left.jsonl"),
        "right": write(rows_of(map(exchange, PAIRS[4:7])), "right.jsonl"),
    }
    built = {}
    for share in (0, 1):
        node = OmegaConf.load(PAPER).dataset
        node.right_share, node.prompt_template = share, None
        for side, path in spec.items():
            node[side] = {"source": "json", "data_files": path}
        built[share] = config.instantiate(node, WordLengths())
    assert built[0].rows == built[1].rows == [1, 2, 3, 4, 5, 6, 7]
    for i in range(7):
        assert built[0][i]["chosen_input_ids"] == built[1][i]["rejected_input_ids"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"right_share": 1.5}, "dataset.right_share=1.5; use 0 (all left) to 1 (all right)"),
        ({"right": {"path": "x"}}, "dataset.right has path; use source and any of"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(write, settings, message):
    left = {"source": "json", "data_files": write(rows_of(PAIRS[:3]))}
    with pytest.raises(ValueError, match=re.escape(message)):
        datasets.mixture(WordLengths(), left=left, **settings)
