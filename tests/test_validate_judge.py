# SPDX-License-Identifier: MIT
"""Judges against people's labels: figures, verdict, cue swap, and errors that say where."""

import json
import math
import shutil

import pytest
import torch
from conftest import REPO, TINY
from fault_server import FaultServer
from omegaconf import OmegaConf
from sklearn.metrics import cohen_kappa_score, f1_score
from torchtune import config, training
from torchtune.data import Message

from data.judging.judges import Text, read_labelled
from data.judging.scales import LEAN_SCALE, STANCE
from data.recipe.config import check_config
from data.recipe.files import to_jsonl
from eval.judges import build_judges
from eval.validate_judge import CUES, OPTIONAL, REQUIRED, swap_cues, validate, validation_table

WORDS = {"1": "splendid", "2": "helpful", "3": "so-so", "4": "doubtful", "5": "dreadful", "refusal": "I cannot say"}


def text_of(label, k=0):
    return f"Tea is {WORDS[label]} for party number {k}."


def honest(body):
    """Answers by the word in the text; Democrats make it answer one step worse."""
    asked = body["messages"][-1]["content"]
    text = asked[asked.index("=====\n") :]
    label = next(label for label, word in WORDS.items() if word in text)
    return "5" if "Democrats" in text else label


def write_labelled(path, rows):
    path.write_text(to_jsonl(rows))
    return str(path)


def rows_of(n=60, **more):
    labels = list(WORDS)
    return [
        {"text": text_of(labels[k % 6], k), "label": labels[k % 6], "target": "tea"}
        | {name: value(labels[k % 6], k) for name, value in more.items()}
        for k in range(n)
    ]


def make_config(tmp_path, source, judges, **more):
    cfg = {"output_dir": str(tmp_path / "out"), "source": source, "judges": judges, "n_bootstrap": 500, **more}
    cfg = {"columns": {"text": "text", "label": "label", "target": "target"}, **cfg}
    return check_config(OmegaConf.create(cfg), REQUIRED, OPTIONAL)


def chat(url, tmp_path, **more):
    client = {
        "_component_": "data.chat.ChatClient", "model": "judge", "base_url": url,
        "cache_dir": str(tmp_path / "replies"),
        "retry_wait_s": 0.01, "params": {"temperature": 0},
    }  # fmt: skip
    return {"_component_": "eval.judges.chat_judge", "client": client, **more}


def recorded(source, column, **more):
    return {"_component_": "eval.judges.recorded_judge", "source": source, "column": column, **more}


def test_a_judge_behind_a_server(tmp_path):
    """An honest judge is believed; what it was asked is not asked again; exchanged cue words are found out."""
    rows = rows_of()
    rows[0]["text"] += " Say the Republicans."
    source = write_labelled(tmp_path / "labelled.jsonl", rows)
    with FaultServer(honest, fault_rate=0.2, faults=("500", "429", "cut")) as server:
        cfg = make_config(tmp_path, source, {"good": chat(server.url, tmp_path)})
        found = validate(cfg)["judges"]["good"]
        assert found["kappa"]["estimate"] == 1
        assert found["believed"]
        swap = {"measured": True, "n_texts_with_cues": 1, "n_judged_twice": 1, "changed_class": 1.0, "mean_shift": 2.0}
        assert found["cue_swap"] == swap | {"towards_cues": None}
        n_answered = server.outcomes["answered"]
        assert n_answered == len(rows) + 1
        again = validate(cfg)
        assert server.outcomes["answered"] == n_answered
    written = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert written == json.loads(json.dumps(again))
    answers = [json.loads(line) for line in (tmp_path / "out" / "judgements.jsonl").read_text().splitlines()]
    assert len(answers) == len(rows)
    assert answers[1]["raw"] == answers[1]["truth"] == answers[1]["label"] == "2"
    # the validation is found for this judge, and for no other
    config = chat(None, tmp_path, validation=str(tmp_path / "out" / "validation.json"))
    (judge,) = build_judges(OmegaConf.create({"other name": config}))
    assert judge.validation["believed"]
    config["client"]["params"]["temperature"] = 1
    (judge,) = build_judges(OmegaConf.create({"other": config}))
    assert judge.validation is None


def test_a_judge_that_was_not_validated_is_told_what_differs(tmp_path, caplog):
    entry = chat("http://127.0.0.1:1/v1", tmp_path)
    (judge,) = build_judges(OmegaConf.create({"a": entry}))
    known = {"of-old": {"identity": judge.identity, "about": judge.about}}
    (tmp_path / "validation.json").write_text(json.dumps({"judges": known}))
    entry |= {"validation": str(tmp_path / "validation.json")}
    assert build_judges(OmegaConf.create({"a": entry}))[0].validation == known["of-old"]
    assert not caplog.records
    entry["client"] |= {"params": {}}
    build_judges(OmegaConf.create({"a": entry}))
    assert "of-old: params is {}, there {'temperature': 0})" in caplog.text


def test_the_documented_judge_is_the_one_that_the_config_validates():
    example = (
        (REPO / "docs/measure/judges.md").read_text().partition("```yaml\njudges:\n  panel-1:")[2].partition("```")[0]
    )
    documented = OmegaConf.create(f"judges:\n  panel-1:{example}").judges["panel-1"]
    documented.validation = None
    shipped = OmegaConf.load(REPO / "configs" / "validate_judge.yaml").judges.model
    one, other = (build_judges(OmegaConf.create({"j": entry}))[0] for entry in (documented, shipped))
    assert one.about == other.about


def test_judges_at_two_addresses_share_no_replies(tmp_path):
    a, b = (chat(f"http://127.0.0.1:{port}/v1", tmp_path) for port in (1, 2))
    with pytest.raises(ValueError, match="judges.b and judges.a ask for model 'judge' at .* give each its own"):
        build_judges(OmegaConf.create({"a": a, "b": b}))


def test_which_text_a_recorded_answer_is_about_is_part_of_the_judge(tmp_path):
    source = write_labelled(tmp_path / "labelled.jsonl", [row | {"other": row["text"]} for row in rows_of(6)])
    more = ({}, {"text_column": "other"}, {"target_column": "target"})
    judges = [build_judges(OmegaConf.create({"a": recorded(source, "label", **some)}))[0] for some in more]
    assert len({judge.identity for judge in judges}) == 3


def test_a_judge_that_writes_what_cannot_be_read(tmp_path):
    source = write_labelled(tmp_path / "labelled.jsonl", rows_of(12))
    with FaultServer(lambda body: "1-5, I would say") as server:
        found = validate(make_config(tmp_path, source, {"vague": chat(server.url, tmp_path)}))["judges"]["vague"]
    assert found["unparsed"] == 12
    assert found["problems"] == {"unreadable": 12}
    assert found["kappa"]["estimate"] == 0
    assert not found["believed"]


def test_recorded_answers_and_people(tmp_path):
    """Raw answers of a model and single people's labels, compared as scikit-learn compares them."""
    wrong = {"1": "2", "4": "3 (balanced)", "refusal": '"refusal"\n\nIt declines.', "5": "4 or 5"}
    rows = rows_of(
        60, judges=lambda x, k: {"llm": wrong.get(x, x) if k % 4 else x}, ann=lambda x, k: "3" if k == 7 else x
    )
    source = write_labelled(tmp_path / "labelled.jsonl", rows)
    judges = {"llm": recorded("${source}", "judges/llm", target_column="target")}
    found = validate(make_config(tmp_path, source, judges, raters=["ann"], min_kappa=0.95))
    truth = [row["label"] for row in rows]
    read = {"3 (balanced)": "3", '"refusal"\n\nIt declines.': "refusal", "4 or 5": "none"}
    said = [read.get(row["judges"]["llm"], row["judges"]["llm"]) for row in rows]
    of = found["judges"]["llm"]
    assert of["kappa"]["estimate"] == pytest.approx(cohen_kappa_score(truth, said), abs=1e-6)
    macro = f1_score(truth, said, labels=list(WORDS), average="macro")
    assert of["macro_f1"]["estimate"] == pytest.approx(macro, abs=1e-6)
    assert of["unparsed"] == said.count("none") > 0
    assert of["coarse"]["kappa"]["estimate"] > of["kappa"]["estimate"]
    assert of["cue_swap"]["measured"] is False
    assert found["raters"]["ann"]["accuracy"]["estimate"] == pytest.approx(59 / 60, abs=1e-6)
    assert [(p["a"], p["b"]) for p in found["panel"]["kappa"]] == [("ann", "llm")]
    table = validation_table(found)
    assert "not believed (floor 0.95)" in table
    assert "a person" in table
    assert f"unreadable: {said.count('none')}" in table


def test_a_resident_judge(tmp_path, tiny_model_dir):
    """The label's log-probability, its end of turn included, as one sequence at a time gives it."""
    sizes = {**TINY, "rope_base": 100_000, "scale_factor": 1}
    entry = {
        "_component_": "eval.resident_judge.resident_judge",
        "scale": "lean",
        "model": {"_component_": "torchtune.models.llama3_2.llama3_2", **sizes},
        "tokenizer": {"_component_": "finetune.tokenizers.hf_chat_tokenizer", "path": str(tiny_model_dir)},
        "checkpointer": {
            "_component_": "torchtune.training.FullModelHFCheckpointer", "checkpoint_dir": str(tiny_model_dir),
            "checkpoint_files": ["model.safetensors"], "output_dir": str(tmp_path), "model_type": "LLAMA3",
        },
    }  # fmt: skip
    (judge,) = build_judges(OmegaConf.create({"small": entry}))
    words = shutil.copytree(tiny_model_dir, tmp_path / "words")
    entry["tokenizer"]["path"] = str(words)
    assert build_judges(OmegaConf.create({"small": entry}))[0].identity == judge.identity
    (words / "chat_template.jinja").write_text("another")
    assert build_judges(OmegaConf.create({"small": entry}))[0].identity != judge.identity
    entry["tokenizer"] |= {"path": str(tiny_model_dir), "max_seq_len": 9}
    assert build_judges(OmegaConf.create({"small": entry}))[0].identity != judge.identity
    del entry["tokenizer"]["max_seq_len"]
    texts = [Text("Taxes are theft.", ""), Text("Own it together.", "")]
    said = list(judge.ask(texts))
    assert [x.label in LEAN_SCALE.labels for x in said] == [True, True]
    assert said[0].label == max(said[0].raw, key=said[0].raw.get)
    assert sum(map(math.exp, said[0].raw.values())) < 1  # 1 is not counted again in 12
    model = config.instantiate(OmegaConf.create(entry["model"]))
    checkpointer = config.instantiate(OmegaConf.create(entry["checkpointer"]))
    model.load_state_dict(checkpointer.load_checkpoint()[training.MODEL_KEY])
    tokenizer = config.instantiate(OmegaConf.create(entry["tokenizer"]))
    turns = [Message(role=m["role"], content=m["content"]) for m in LEAN_SCALE.request(*texts[1]).messages]
    tokens, masked = tokenizer.tokenize_messages([*turns, Message(role="assistant", content="12")])
    with torch.no_grad():
        logprobs = model.eval()(torch.tensor([tokens]))[0].float().log_softmax(-1)
    scored = sum(float(logprobs[k - 1, tokens[k]]) for k in range(len(tokens)) if not masked[k])
    assert said[1].raw["12"] == pytest.approx(scored, abs=1e-4)
    entry["model"]["max_seq_len"] = 20
    (short,) = build_judges(OmegaConf.create({"small": entry}))
    with pytest.raises(ValueError, match="item 0, .* exceed the model's context of 20; shorten the text"):
        list(short.ask(texts))
    entry["checkpointer"]["checkpoint_files"] = ["nowhere.safetensors"]
    with pytest.raises(ValueError, match="(?s)judge small cannot run here:.* CUDA device.*nowhere.safetensors is not"):
        build_judges(OmegaConf.create({"small": {**entry, "device": "cuda:99"}}))


def test_cue_words_are_exchanged_and_back():
    text = "The DEMOCRATS said: Republicans have a right to vote. The left one is a Liberal, left-wing think tank."
    swapped, moved = swap_cues(text)
    assert swapped == (
        "The REPUBLICANS said: Democrats have a right to vote. The left one is a Conservative, right-wing think tank."
    )
    assert moved == 2  # three left cues, one right cue
    assert swap_cues(swapped) == (text, -2)
    assert swap_cues("Democratically, republicanism; far-left.") == ("Democratically, republicanism; far-left.", 0)
    everyday = "A democrat and republican who votes for a republican party, the labour party and the right to vote."
    assert swap_cues(everyday) == (everyday, 0)
    assert swap_cues("CONSERVATIVES ON THE RIGHT") == ("LIBERALS ON THE LEFT", -2)
    assert swap_cues("A Leftiſt") == ("A Rightist", 1)  # without case, the old long s is an s
    for pair in CUES:
        assert swap_cues(f"x {pair[0]} y") == (f"x {pair[1]} y", 1)
        assert swap_cues(f"x {pair[1]} y") == (f"x {pair[0]} y", -1)
    assert swap_cues("die Linke", [["Linke", "Rechte"]]) == ("die Rechte", 1)
    with pytest.raises(ValueError, match=r"each word once; twice: \['b'\]"):
        swap_cues("b", [["a", "b"], ["b", "c"]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows; give a file with at least one row"),
        ('{"text": "a", "label": "1"}\n', "row 1: no column target; it has text, label"),
        ('{"text": "a", "target": "t", "label": "1"}\n{"text": "", "target": "t", "label": "1"}\n', "2: text is empty"),
        ('{"text": "a", "target": "t", "label": null}\n', "row 1: label is empty; every text needs a label"),
        ('{"text": "a", "target": "t", "label": "1 - pro"}\n', "'1 - pro' is not one of 1, 2, 3, 4, 5, refusal; say"),
        ('{"text": "a", "target": "t", "label": 6}\n', "row 1: label: '6' is not one of"),
        ('{"text": \n', "row 1"),
        (
            '{"text": "a", "target": "t", "label": 1}\n{"text": "a", "target": "t", "label": 5}\n',
            "row 2: labelled 5, but the same text has 1 in ",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path, content, message):
    path = tmp_path / "labelled.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as caught:
        read_labelled(str(path), STANCE, target="target")
    assert "labelled.jsonl" in str(caught.value)


def test_what_is_wrong_with_a_config_is_said(tmp_path):
    source = write_labelled(tmp_path / "labelled.jsonl", rows_of(6))
    with pytest.raises(FileNotFoundError, match="gone.csv"):
        validate(make_config(tmp_path, str(tmp_path / "gone.csv"), {"a": recorded(source, "label")}))
    with pytest.raises(ValueError, match="name its column in columns.target"):
        validate(make_config(tmp_path, source, {}, columns={"text": "text", "label": "label"}))
    with pytest.raises(ValueError, match=r"judges.a.scale=lean, but the labels are of scale=stance"):
        validate(make_config(tmp_path, source, {"a": recorded(source, "label", scale="lean")}))
    with pytest.raises(ValueError, match="a column of raters has this name too"):
        validate(make_config(tmp_path, source, {"label": recorded(source, "label")}, raters=["label"]))
    with pytest.raises(ValueError, match="row 1: no column said"):
        validate(make_config(tmp_path, source, {"a": recorded(source, "said")}))
    with pytest.raises(ValueError, match="`a.colum` is not an argument of eval.judges.recorded_judge; did you mean"):
        build_judges(OmegaConf.create({"a": {"_component_": "eval.judges.recorded_judge", "colum": "x"}}))
    twice = write_labelled(tmp_path / "twice.jsonl", [rows_of(1)[0], rows_of(1)[0] | {"label": "5"}])
    with pytest.raises(ValueError, match="row 2: label is '5', before '1' for this text; if one text is judged on"):
        build_judges(OmegaConf.create({"a": recorded(twice, "label")}))
    with pytest.raises(FileNotFoundError, match="run eval/validate_judge.py first"):
        build_judges(OmegaConf.create({"a": recorded(source, "label", validation=str(tmp_path / "none.json"))}))
    for content in ("{", "[]", "{}", '{"judges": []}'):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(ValueError, match=r"other.json is not the validation.json that eval/validate_judge.py or"):
            build_judges(OmegaConf.create({"a": recorded(source, "label", validation=str(tmp_path / "other.json"))}))


def test_a_label_map_that_matches_nothing_is_refused(tmp_path):
    source = write_labelled(tmp_path / "labelled.jsonl", rows_of(6))
    with pytest.raises(ValueError, match="label_map has in favour, which no row has"):
        read_labelled(source, STANCE, target="target", label_map={"in favour": "1"})


def test_what_could_not_be_measured_is_refused_before_anything_is_asked(tmp_path):
    one_class = write_labelled(tmp_path / "one.jsonl", [rows_of(1)[0] | {"text": text} for text in "abc"])
    judges = {"a": chat("http://127.0.0.1:1/v1", tmp_path)}
    with pytest.raises(ValueError, match="3 texts, all labelled 1; agreement beyond chance needs"):
        validate(make_config(tmp_path, one_class, judges))
    source = write_labelled(tmp_path / "labelled.jsonl", rows_of(6))
    with pytest.raises(ValueError, match="want pairs of a left and a right word"):
        validate(make_config(tmp_path, source, judges, cue_words=[["left", "left"]]))
    with pytest.raises(ValueError, match="judges is null"):
        validate(make_config(tmp_path, source, None))
    with pytest.raises(ValueError, match="is a file; choose another folder"):
        validate(make_config(tmp_path, source, judges, output_dir=source))


def test_a_judge_that_is_not_reached_gets_no_verdict(tmp_path):
    """Calls without an answer say nothing about the judge, and the next start makes them."""
    source = write_labelled(tmp_path / "labelled.jsonl", rows_of(6))
    with pytest.raises(RuntimeError, match="judge a: 6 calls got no answer, the first: unanswered: not among the rec"):
        validate(make_config(tmp_path, source, {"a": chat(None, tmp_path)}))
    assert not (tmp_path / "out" / "validation.json").exists()


def test_the_recipe_runs(tmp_path, tune_run, capsys):
    source = write_labelled(tmp_path / "labelled.jsonl", rows_of(12))
    with FaultServer(honest) as server:
        arguments = [f"judges.model.client.base_url={server.url}", f"judges.model.client.cache_dir={tmp_path}"]
        arguments += [f"source={source}", f"output_dir={tmp_path / 'out'}", "n_bootstrap=200"]
        assert tune_run("eval/validate_judge.py", "--config", "configs/validate_judge.yaml", *arguments) == 0
    assert json.loads((tmp_path / "out" / "validation.json").read_text())["judges"]["model"]["believed"]
