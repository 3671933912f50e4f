# SPDX-License-Identifier: MIT
"""What else a tuning changed: the statistics by hand, the recipe on a random two-layer Llama, the card."""

import json
import math
import sys

import numpy as np
import pytest
import torch
import yaml
from conftest import REPO, TINY
from omegaconf import OmegaConf
from test_political_compass import adapters  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.language import words
from data.quality.phrases import names_politics
from data.recipe.config import check_config
from data.recipe.figures import number
from eval.asking import respond
from eval.effects.doses import dose_lines, dose_texts
from eval.effects.measures import GROUPS, measure_all, ratio, share_change
from eval.effects.prompts import load_adversarial, load_neutral
from eval.scores.intervals import paired_interval, unit_interval
from eval.scores.scoring import lean_of
from eval.side_effects import OPTIONAL, REQUIRED, SideEffectsRecipe
from eval.statements.instruments import Instrument, Pair
from finetune.adapters.cards import read_measured, write_derived_card

LINES = "The kettle boils.\nRain fell on the garden all day.\nShe found the missing puzzle piece.\n"
LINES += "A gull sat on the wall.\nThe train came late.\nTwo cups stood on the shelf.\n"


class WordScore:
    """A stand-in for a classifier: the share of words that begin with a vowel."""

    def __call__(self, texts):
        return [sum(w[0].lower() in "aeiou" for w in words(t)) / max(1, len(words(t))) for t in texts]


@pytest.fixture
def run(tiny_model_dir, adapters, tmp_path):  # noqa: F811
    """Run the recipe on the shipped config with the tiny model; return its rows and its ``side_effects.json``."""
    (tmp_path / "lines.txt").write_text(LINES)

    def go(**more):
        cfg = OmegaConf.load(REPO / "configs" / "side_effects.yaml")
        cfg.model = {
            "_component_": "torchtune.models.llama3_2.llama3_2",
            "rope_base": 100_000,
            "scale_factor": 1,
        } | TINY
        cfg.adapters = more.pop("adapters", adapters)
        cfg.tokenizer.path = cfg.checkpointer.checkpoint_dir = str(tiny_model_dir)
        given = {"output_dir": str(tmp_path / "out"), "max_new_tokens": 3, "neutral_text": str(tmp_path / "lines.txt")}
        cfg = OmegaConf.merge(cfg, given, more)
        recipe = SideEffectsRecipe(check_config(cfg, REQUIRED, OPTIONAL, components={"toxicity"}))
        recipe.setup()
        recipe.evaluate()
        rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
        return rows, json.loads((tmp_path / "out" / "side_effects.json").read_text())

    return go


def test_the_paired_change_of_a_share_by_hand():
    a = np.array([True] + [False] * 9)
    b = np.array([False] + [True] * 3 + [False] * 6)
    change = share_change(a, b)
    assert change.difference == pytest.approx(2 / 10)
    assert change.ci95 == paired_interval(3, 1, 10)
    assert change.p == pytest.approx(2 * (1 + 4) / 16)
    # nothing seen is not nothing there
    z_squared = 1.959964**2
    assert share_change(a, a) == (0, pytest.approx([-z_squared / (10 + z_squared), z_squared / (10 + z_squared)]), 1)
    assert share_change(np.zeros(8, bool), np.ones(8, bool)).p == pytest.approx(2 / 2**8)


def test_the_interval_of_nats_a_token_is_that_of_a_bootstrap():
    rng = np.random.default_rng(0)
    n = rng.integers(8, 30, 80).astype(float)
    x = n * (0.03 + 0.2 * rng.standard_normal(80))
    value, error = ratio(x, n)
    assert value == pytest.approx(x.sum() / n.sum())
    lines = np.arange(80)
    low, high = unit_interval(np.stack([x, n], 1), lines, lambda m: m[..., 0] / m[..., 1], 4000, 0)
    assert (high - low) / 2 == pytest.approx(1.99 * error.error, rel=0.06)


def answered(model, refused, text="no"):
    """Rows about four requests: two that are to be declined, for the left and for the right, and two harmless ones."""
    asked = [("decline", "left"), ("decline", "right"), ("answer", "neutral"), ("answer", "neutral")]
    return [
        {"model": model, "mode": "open", "item": str(k), "expect": expect, "side": side, "text": text,
         "refused": k in refused, "n_tokens": [4 + len(refused)], "finish": "stop"}
        for k, (expect, side) in enumerate(asked)
    ]  # fmt: skip


def test_what_is_measured_of_answers():
    rows = answered("base", {0, 1}) + answered("left", {1, 2}, "A e")
    found = {(e["model"], e["measure"], e["of"]): e for e in measure_all(rows, WordScore(), 0.5)}
    refused = {of: found["left", "refused", of] for of in GROUPS}
    assert {of: (e["value"], e["difference"], e["n"]) for of, e in refused.items()} == {
        "to be declined": (0.5, -0.5, 2),
        "to be declined, for the left": (0, -1, 1),
        "to be declined, for the right": (1, 0, 1),
        "harmless": (0.5, 0.5, 2),
    }
    assert found["base", "refused", "harmless"]["difference"] is None
    length = found["left", "length of the answer", "all requests"]
    assert (length["value"], length["difference"], length["difference_ci95"]) == (6, 0, None)  # no spread
    toxic = found["left", "toxic (score of 0.5 or more)", "all requests"]
    assert (found["base", "toxicity", "all requests"]["value"], toxic["value"], toxic["difference"]) == (0, 1, 1)
    assert all(e["q"] >= e["p"] for e in found.values() if e["model"] == "left")
    with pytest.raises(ValueError, match="8 texts, from 2.0 to 2.0; it must give one from 0 to 1"):
        measure_all(rows, lambda texts: [2.0] * len(texts))


def task_row(model, value, stderr, documents):
    score = {"value": value, "stderr": stderr, "n": 4, "documents": documents}
    return {"model": model, "mode": "task", "version": 1.0, "item": "tiny", "results": {"tiny": {"acc": score}}}


def test_tasks_are_paired_by_document_where_each_has_a_value():
    base, left = [1.0, 0.0, 1.0, 0.0] * 2, [1.0, 1.0, 1.0, 0.0] * 2
    (_, paired) = measure_all([task_row("base", 0.5, 0.3, base), task_row("left", 0.75, 0.25, left)])
    assert paired["difference"] == 0.25
    # the differences are 0, 1, 0, 0 twice: standard error sqrt(1.5 / 56), t of 7 degrees of freedom
    half = 2.364624 * math.sqrt(1.5 / 56)
    assert paired["difference_ci95"] == pytest.approx([0.25 - half, 0.25 + half], abs=1e-3)
    assert paired["p"] == 0.5  # two changes of one sign, exactly
    (_, few) = measure_all([task_row("base", 0.5, 0.3, base[:4]), task_row("left", 0.75, 0.25, left[:4])])
    assert (few["difference_ci95"], few["p"]) == (None, 1)
    (_, alone) = measure_all([task_row("base", 0.5, 0.3, None), task_row("left", 0.75, 0.4, None)])
    assert alone["difference_ci95"] == pytest.approx([0.25 - 1.96 * 0.5, 0.25 + 1.96 * 0.5], abs=1e-3)
    (_, unknown) = measure_all([task_row("base", 0.5, None, None), task_row("left", None, None, None)])
    assert (unknown["value"], unknown["difference"], unknown["p"], unknown["ci95"]) == (None, None, None, None)
    with pytest.raises(ValueError, match=r"rows of versions \['1.0', '2.0'\] cannot be compared"):
        measure_all([task_row("base", 0.5, 0.3, base), task_row("left", 0.75, 0.25, left) | {"version": 2.0}])


def test_the_shipped_requests_treat_both_sides_alike():
    rows = [prompt.row for prompt in load_adversarial("en").prompts]
    texts = {prompt.row["item"]: prompt.text for prompt in load_adversarial("en").prompts}
    assert len(rows) == 30
    for expect in ("decline", "answer"):
        kinds = {
            s: sorted(r["kind"] for r in rows if (r["side"], r["expect"]) == (s, expect)) for s in ("left", "right")
        }
        assert kinds["left"] == kinds["right"] != []
    assert not [text for text in texts.values() if names_politics(text)]
    for row in rows:
        if row["twin"]:  # the same request but for the side: most words are shared
            a, b = (set(words(texts[item].lower())) for item in (row["item"], row["twin"]))
            assert len(a & b) / min(len(a), len(b)) > 0.7, row["item"]
    lines = [prompt.answers[0] for prompt in load_neutral("en").prompts]
    assert len(lines) >= 60
    assert not [line for line in lines if names_politics(line)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": "west"}, "side is one of"),
        ({"expect": "maybe"}, "expect one of"),
        ({"twin": "b"}, "a request of one side needs a twin of the other"),
        ({"typo": 1}, "the fields are"),
        ({"text": 5}, "a: text is empty or no text"),
    ],
)
def test_a_file_of_requests_is_read_strictly(change, message, tmp_path):
    entry = {"id": "a", "kind": "k", "side": "left", "expect": "decline", "text": "Do it.", "twin": "z"}
    prompts = [entry | change, entry | {"id": "b", "side": "neutral"}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "n", "version": "1", "prompts": prompts}))
    with pytest.raises(ValueError, match=message):
        load_adversarial(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: [", "no YAML"), (b"{name: n, version: 1, prompts: [Write a poem]}", "every prompt is a mapping")],
)
def test_what_is_no_file_of_requests_is_said(content, message, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_adversarial(str(tmp_path / "mine.yaml"))


def test_a_line_of_neutral_text_ends_at_a_line_feed_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("\ufeffThe kettle\u2028boils.\r\nRain fell.\n", encoding="utf-8", newline="")
    lines = [prompt.answers[0] for prompt in load_neutral(str(tmp_path / "mine.txt")).prompts]
    assert lines == ["The kettle\u2028boils.", "Rain fell."]


def test_ids_may_be_numbers_and_neutral_text_is_utf_8(tmp_path):
    one = {"kind": "k", "expect": "decline", "text": "Do it."}
    prompts = [one | {"id": 1, "side": "left", "twin": 2}, one | {"id": 2, "side": "right", "twin": 1}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "n", "version": "1", "prompts": prompts}))
    assert len(load_adversarial(str(tmp_path / "mine.yaml")).prompts) == 2
    (tmp_path / "mine.txt").write_bytes("Tea is hot.\nCafé is open.\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"mine.txt: not UTF-8 .*save it as UTF-8"):
        load_neutral(str(tmp_path / "mine.txt"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("one\n", "1 lines"), ("one\ntwo\none\n", "2 different"), ("one\n\n" + "word " * 300, r"lines \[2\]")],
)
def test_a_neutral_text_is_read_strictly(text, message, tmp_path):
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_neutral(str(tmp_path / "mine.txt"))


def test_the_recipe_measures_base_and_adapters(run, adapters, tiny_model_dir, tmp_path):  # noqa: F811
    given = {**adapters, "off": {"left": 0}}
    rows, found = run(adapters=given, toxicity={"_component_": "test_side_effects.WordScore"})
    assert found["models"] == ["base", "left", "right", "off"]
    assert len(rows) == 4 * (30 + LINES.count("\n"))
    value = {(e["model"], e["measure"], e["of"]): e for e in found["side_effects"]}
    hf, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model_dir), AutoTokenizer.from_pretrained(tiny_model_dir)
    nats = n_tokens = 0
    for line in LINES.splitlines():
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(line, add_special_tokens=False)]])
        nats += hf(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        n_tokens += ids.shape[1] - 1
    surprise = {name: value[name, "surprise at neutral text", "lines"] for name in found["models"]}
    assert surprise["base"]["value"] == pytest.approx(nats / n_tokens, abs=1e-5)
    assert (surprise["off"]["difference"], surprise["off"]["p"]) == (0, 1)
    assert surprise["left"]["difference"] != 0
    low, high = surprise["left"]["difference_ci95"]
    assert low < surprise["left"]["difference"] < high
    texts = [row["text"] for row in rows if (row["mode"], row["model"]) == ("open", "right")]
    assert value["right", "toxicity", "all requests"]["value"] == pytest.approx(np.mean(WordScore()(texts)), abs=1e-6)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "surprise at neutral text" in page
    assert page.count("<details>") == 30 + 1  # every request, and the settings
    assert "<script" not in page
    assert "…." in page
    assert "….Every" not in page  # sentences stand apart
    # the card takes the figures of these weights on this base, whatever they are called
    path = tmp_path / "out" / "side_effects.json"

    def card(summaries, weight=1):
        model = {"x": weight}, {"x": adapters["left"]}
        write_derived_card(tmp_path, "base", *model, read_measured(summaries, *model, tiny_model_dir))
        return (tmp_path / "README.md").read_text().split("## What else changed")[1]

    table, change = card([path]), surprise["left"]["difference"]
    assert f"| surprise at neutral text, nats a token | lines | 6 | {surprise['base']['value']:.3f}" in table
    assert f"| {number(change)} |" in table
    assert "Called `left` there" in table
    with pytest.raises(ValueError, match="did not measure this model"):
        card([path], 0.5)
    assert "Not measured yet" in card([])


def test_the_lean_stands_beside_its_cost_dose_by_dose(run, adapters, tmp_path):  # noqa: F811
    axes = {
        "economic": {"low": "left", "high": "right", "offset": 0, "divisor": 1},
        "placebo": {"low": "calm", "high": "lively", "offset": 0, "divisor": 1, "placebo": True},
    }
    topics = {"tea": "placebo"} | dict.fromkeys(("rent", "tax", "trade", "wages", "debt", "farms"), "economic")
    pairs = [
        {"id": topic, "topic": topic, "axis": axis, "left": f"Less {topic}.", "right": f"More {topic}."}
        for topic, axis in topics.items()
    ]
    bank = {"name": "x", "version": "1", "licence": "MIT", "language": "en", "source": "test", "options": ["no", "yes"]}
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump({**bank, "axes": axes, "items": [], "pairs": pairs}))
    rows, found = run(
        adapters={**adapters, "left@-1": {"left": -1}, "left@0.5": {"left": 0.5}},
        adversarial=None,
        lean_instrument=str(tmp_path / "bank.yaml"),
        respondents={"told": {"system_prompt": "Be brief."}},
    )
    assert len(rows) == 6 * (6 + LINES.count("\n"))
    value = {(e["model"], e["measure"]): e for e in found["side_effects"]}
    leans = {
        name: np.mean([lean_of(row) for row in rows if (row["model"], row["mode"]) == (name, "pairs")])
        for name in found["models"]
    }
    for name, lean in leans.items():
        assert value[name, "lean"]["value"] == pytest.approx(lean, abs=1e-6)
        assert value[name, "lean"]["n"] == 6
    lines = {(line["way"], line["points"][0]["weight"] > 0): line for line in found["doses"]}
    assert [point["weight"] for point in lines["left", True]["points"]] == [0.5, 1]
    assert {way for way, _ in lines} == {"left", "right", "told"}
    assert lines["told", True]["points"][0]["lean"] == pytest.approx(leans["told"] - leans["base"], abs=1e-6)
    assert "The lean against its cost" in (tmp_path / "out" / "report.html").read_text()


def test_the_lean_has_the_interval_of_its_topics_and_a_false_discovery_rate_of_its_own():
    rng = np.random.default_rng(0)
    pairs = [Pair(f"{t}-{k}", f"topic {t}", f"Left {t} {k}.", f"Right {t} {k}.") for t in range(10) for k in range(3)]
    bank = Instrument("b", "1", "MIT", "en", "s", {}, (), (), tuple(pairs), "")
    of_topic = np.repeat(rng.normal(0.1, 0.3, 10), 3)  # the pairs of a topic move together
    moved = {"base": np.zeros(30), "left": of_topic + rng.normal(0, 0.01, 30)}
    rows = [
        {"model": name, "mode": "pairs", "item": pair.id, "template": "t", "option_logprobs": [-4.0, -4.0 + 2 * x],
         "n_tokens": [2, 2]}
        for name, leans in moved.items()
        for pair, x in zip(pairs, leans)
    ] + [
        {"model": name, "mode": "neutral", "item": str(k), "option_logprobs": [-10.0 - (name == "left") * (1 + k / 50)],
         "n_tokens": [5]}
        for name in moved
        for k in range(20)
    ]  # fmt: skip
    lean = {e["model"]: e for e in measure_all(rows, bank=bank) if e["measure"] == "lean"}
    topics = moved["left"].reshape(10, 3).mean(1)
    half = 2.262157 * topics.std(ddof=1) / math.sqrt(10)
    assert lean["left"]["difference"] == pytest.approx(topics.mean(), abs=1e-6)
    assert lean["left"]["difference_ci95"] == pytest.approx([topics.mean() - half, topics.mean() + half], abs=1e-5)
    assert lean["base"]["n"] == 30
    (surprise,) = (e for e in measure_all(rows, bank=bank) if e["measure"] != "lean" and e["difference"] is not None)
    assert (lean["left"]["q"], surprise["q"]) == (lean["left"]["p"], surprise["p"])  # one test each
    assert lean["left"]["p"] > 100 * surprise["p"]
    # a statement that stands there three times counts once: few topics, so statements are the sample
    same = [pair._replace(topic="one", left=f"L {k // 3}.", right=f"R {k // 3}.") for k, pair in enumerate(pairs)]
    (again,) = (
        e for e in measure_all(rows, bank=bank._replace(pairs=tuple(same))) if e["measure"] == "lean" and e["p"]
    )
    assert again["difference_ci95"] == lean["left"]["difference_ci95"]
    with pytest.raises(ValueError, match="no instrument that says their topics"):
        measure_all(rows)


def test_lines_of_doses_by_hand():
    doses = {"a@0.5": (0.1, 0.02), "a": (0.3, 0.06), "a@2": (0.2, 0.5), "a@-1": (-0.1, 0.01), "b": (0.4, 0.1)}
    entries = [
        {"model": name, "measure": measure, "difference": change, "difference_ci95": [change - 1, change + 1]}
        for name, changes in doses.items()
        for measure, change in zip(("lean", "surprise at neutral text"), changes)
    ]
    lines = dose_lines(entries, guard=0.04)
    assert [(line["way"], [p["weight"] for p in line["points"]]) for line in lines] == [
        ("a", [-1]), ("a", [0.5, 1, 2]), ("b", [1]),
    ]  # fmt: skip
    assert [line["at_guard"] for line in lines] == [None, pytest.approx(0.2), None]
    assert [line["monotone"] for line in lines] == [None, None, None]
    assert [line["monotone"] for line in dose_lines(entries, guard=0.1)] == [None, True, None]
    assert [line["monotone"] for line in dose_lines(entries, guard=1)] == [None, False, None]
    assert "a turns round before +1 nats" in dose_texts(dose_lines(entries, guard=1), 1)


def test_doses_behind_the_first_crossing_of_the_guard_do_not_count():
    doses = {"a@0": (0, 0), "a@0.5": (0.1, 0.01), "a": (0.2, 0.02), "a@2": (0.3, 0.09), "a@3": (0.1, 0.03)}
    entries = [
        {"model": name, "measure": measure, "difference": change, "difference_ci95": None}
        for name, changes in doses.items()
        for measure, change in zip(("lean", "surprise at neutral text"), changes)
    ]
    (line,) = dose_lines(entries, guard=0.04)  # the weight 0 is where it begins, and no line of its own
    assert [point["weight"] for point in line["points"]] == [0.5, 1, 2, 3]
    assert line["monotone"] is True
    assert line["at_guard"] == pytest.approx(0.2 + 0.1 * 2 / 7, abs=1e-6)
    (line,) = dose_lines(entries, guard=0.1)
    assert line["monotone"] is False


def test_a_blend_has_the_dose_that_its_name_says(run, adapters, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match=r"adapters.left@0.5: \{'left': 2\}, but its name says \{'left': 0.5\}"):
        run(adapters={**adapters, "left@0.5": {"left": 2}})
    half = {"both": {"left": 0.5, "right": 0.5}}
    with pytest.raises(ValueError, match=r"adapters.both@2: .* but its name says \{'left': 1.0, 'right': 1.0\}"):
        run(adapters={**adapters, **half, "both@2": {"left": 1, "right": 0.5}})
    assert not (tmp_path / "out").exists()


def test_respondents_alone_are_measured(run):
    rows, found = run(adapters=None, adversarial=None, respondents={"told": {"system_prompt": "Be brief."}})
    assert found["models"] == ["base", "told"]
    assert len(rows) == 2 * LINES.count("\n")


def test_a_killed_run_goes_on(run, tmp_path, monkeypatch):
    rows, found = run()
    path = tmp_path / "out" / "results.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # a row is cut in two
    again, found_again = run()
    assert path.read_bytes() == content
    assert found_again["side_effects"] == found["side_effects"]
    monkeypatch.setattr(respond, "read_logprobs", None)  # nothing is left to ask, so nothing is loaded
    assert run(toxicity={"_component_": "test_side_effects.WordScore"})[0] == rows
    with pytest.raises(FileExistsError, match="max_new_tokens differ"):
        run(max_new_tokens=4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"adapters": None}, "nothing was tuned or told"),
        ({"respondents": {"told": {"modes": ["open"]}}}, r"respondents.told: \['modes'\] cannot be given here"),
        ({"respondents": {"told": {"thinking": True, "system_prompt": "Hm."}}}, r"\['thinking'\] cannot be given here"),
        ({"adversarial": None, "neutral_text": None}, "are all null"),
        ({"adversarial": None, "toxicity": {"_component_": "test_side_effects.WordScore"}}, "toxicity is that of"),
        ({"toxicity_threshold": 0}, "toxicity_threshold=0"),
        ({"adversarial": "nowhere"}, r"adversarial=nowhere: no such file; give a path or one of \['en'\]"),
        ({"max_new_tokens": 0}, "max_new_tokens=0` is out of range; use 1 or more"),
        ({"task_limit": 0}, "task_limit=0` is out of range; use 1 or more"),
        ({"respondents": {"far": {"model": "m", "base_url": "http://127.0.0.1:1/v1"}}}, "behind an address"),
        ({"lean_instrument": "nowhere"}, "instrument=nowhere"),
        ({"tasks": "mmlu"}, r"give a list: tasks=\[mmlu\]"),
    ],
)
def test_refused_before_anything_loads(run, more, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(**more)
    assert not (tmp_path / "out").exists()


def test_half_of_a_surrogate_pair_in_a_request_is_named(tmp_path):
    entry = {"id": "a", "kind": "k", "side": "neutral", "expect": "answer", "text": "Tell \ud83d."}
    (tmp_path / "a.yaml").write_text(json.dumps({"name": "n", "version": "1", "prompts": [entry]}))
    with pytest.raises(ValueError, match=r"a: text has half of a surrogate pair \('\\ud83d'\); write the sign whole"):
        load_adversarial(str(tmp_path / "a.yaml"))


def test_tasks_need_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ImportError, match=r'pip install -c constraints.txt -e "\.\[lm-eval\]", or tasks=null'):
        run(tasks=["mmlu"])


@pytest.fixture
def own_task(tmp_path):
    """A multiple-choice task of lm-evaluation-harness that needs no network."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    documents = [{"q": f"{k} plus one is", "a": [str(k + 1), str(k + 2)]} for k in range(1, 7)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, documents)))
    task = {
        "task": "own_sums", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": f"{folder}/sums.jsonl"}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{a}}",
        "doc_to_target": 0, "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (folder / "own_sums.yaml").write_text(yaml.safe_dump(task))
    return str(folder)


def test_tasks_of_lm_evaluation_harness(run, own_task, tmp_path):
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    run(adversarial=None)
    given = {"adversarial": None, "tasks": ["own_sums"], "task_include_path": own_task}
    rows, found = run(**given, task_limit=5)  # tasks are added to what is there
    assert len(rows) == 3 * (3 + 1)
    rows = rows[9:]
    assert [row["model"] for row in rows] == ["base", "left", "right"]
    score = {row["model"]: row["results"]["own_sums"]["acc"] for row in rows}
    assert all(len(s["documents"]) == s["n"] == 5 for s in score.values())
    assert all(np.mean(s["documents"]) == pytest.approx(s["value"]) and s["stderr"] is not None for s in score.values())
    entries = {e["model"]: e for e in found["side_effects"] if e["measure"] == "own_sums: acc"}
    assert entries["left"]["difference"] == pytest.approx(score["left"]["value"] - score["base"]["value"])
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    run(**given, task_limit=5)
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before
    rows, found = run(**given, task_limit=3)
    assert len(rows) == 3 * (3 + 2)
    assert [e["n"] for e in found["side_effects"] if e["measure"] == "own_sums: acc"] == [3, 3, 3]
    with pytest.raises(ValueError, match=r"tasks: \['own_sum'\] not found"):
        run(**given | {"tasks": ["own_sum"]})


def test_tasks_load_no_blend(run, adapters, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "lm_eval", sys)  # as if it were installed
    with pytest.raises(ValueError, match=r"\['half'\] are blends, which lm-evaluation-harness cannot load"):
        run(adapters={**adapters, "half": {"left": 0.5}}, tasks=["mmlu"])
