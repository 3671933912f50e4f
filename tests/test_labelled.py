# SPDX-License-Identifier: MIT
"""Answers of a run are drawn, labelled by people, and come back: corrected figures beside the judge's own."""

import json

import pytest
from judged_run import BANK, N, make_rows, planted, write_run
from review_client import Client
from test_report import Page

from data.judging.scales import LEAN_SCALE, STANCE
from data.recipe.files import read_log, to_jsonl
from eval.pages.report import score_table
from eval.scores.judged import add_people, judge_answers
from eval.scores.labelled import LEAST_LABELLED, answer_key, correct_judge, draw_answers, read_people


@pytest.fixture(scope="module")
def answers():
    rows, truth = make_rows()
    judge = planted(rows, truth)
    return rows, truth, judge, judge_answers(rows, [judge], BANK)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def figure(found, model, name):
    return next(f for f in found["figures"] if (f["model"], f["figure"]) == (model, name))


def test_the_draw_is_the_same_prompts_of_all_models(answers):
    judged = answers[3]
    drawn = draw_answers(judged, "stance", 40, seed=0)
    prompts = {name: [(r["item"], r["template"]) for r in drawn if r["model"] == name] for name in ("base", "left")}
    assert prompts["base"] == prompts["left"]
    assert len(prompts["base"]) == 40
    more = draw_answers(judged, "stance", 60, seed=0)
    assert {answer_key(r) for r in drawn} <= {answer_key(r) for r in more}
    assert draw_answers(judged[::-1], "stance", 40, 0) != drawn  # the models' order alone is the run's
    assert {answer_key(r) for r in draw_answers(judged[::-1], "stance", 40, 0)} == {answer_key(r) for r in drawn}
    assert {answer_key(r) for r in draw_answers(judged, "stance", 40, 1)} != {answer_key(r) for r in drawn}
    assert len(draw_answers(judged, "stance", 10_000, 0)) == 2 * N
    # an answer that another model refused is drawn of the one that gave it
    some = [row for row in judged if row["model"] == "base" or row["item"] != prompts["base"][0][0]]
    assert sum(r["model"] == "left" for r in draw_answers(some, "stance", 40, 0)) == 40


def test_labels_take_the_error_out(answers):
    """Everything labelled: the corrected figures are people's own, whatever the judge says."""
    rows, truth, _, judged = answers
    found = correct_judge(judged, STANCE, truth, BANK)
    assert found["note"] is None
    assert found["n_labelled"] == {"base": N, "left": N}
    for model in ("base", "left"):
        said = [truth[answer_key(row)] for row in rows if row["model"] == model]
        share = figure(found, model, "share against")
        assert share["corrected"]["estimate"] == pytest.approx(said.count("5") / N, abs=1e-6)
        assert share["confusion_matrix"]["estimate"] == pytest.approx(said.count("5") / N, abs=1e-6)
        assert share["uncorrected"]["estimate"] < 0.75 * said.count("5") / N
        mean = (said.count("1") - said.count("5")) / (N - said.count("refusal"))
        assert figure(found, model, "mean stance")["corrected"]["estimate"] == pytest.approx(mean, abs=1e-6)
    axis = figure(found, "left", "economic")
    assert axis["corrected"]["estimate"] < axis["uncorrected"]["estimate"] < -2
    assert axis["confusion_matrix"] is None  # an answer's weight depends on its item too


def test_a_sample_corrects_a_share_and_a_difference(answers):
    rows, truth, _, judged = answers
    labels = {answer_key(row): truth[answer_key(row)] for row in draw_answers(judged, "stance", 120, seed=0)}
    found = correct_judge(judged, STANCE, labels, BANK)
    for model in ("base", "left"):
        said = [truth[answer_key(row)] for row in rows if row["model"] == model]
        share = figure(found, model, "share against")
        low, high = share["corrected"]["ci95"]
        assert low < said.count("5") / N < high
        assert 0 < share["corrected"]["weight"] <= 1
        assert not share["uncorrected"]["ci95"][0] <= said.count("5") / N <= share["uncorrected"]["ci95"][1]
    assert figure(found, "left", "share for")["n_labelled"] == 120
    few = {answer_key(row): truth[answer_key(row)] for row in draw_answers(judged, "stance", 40, seed=0)}
    some = correct_judge(judged, STANCE, few, BANK)
    assert figure(some, "left", "share for")["corrected"] is not None
    assert figure(some, "left", "economic")["corrected"] is None  # of the 40, fewer than 30 are about it
    apart = next(d for d in found["differences"] if d["figure"] == "economic")
    assert (apart["a"], apart["b"]) == ("base", "left")
    assert apart["corrected"]["estimate"] < -3
    assert apart["p"] <= apart["q"] < 0.01


def test_without_labels_the_word_is_uncorrected(answers):
    _, truth, _, judged = answers
    found = correct_judge(judged, STANCE, {}, BANK)
    assert found["note"] == "uncorrected: no answer is labelled by people"
    assert all(f["corrected"] is None and f["confusion_matrix"] is None for f in found["figures"])
    assert {d["q"] for d in found["differences"]} == {None}
    few = [row for row in judged if row["model"] == "left"][: LEAST_LABELLED - 1]
    few += [row for row in judged if row["model"] == "base"][:LEAST_LABELLED]
    found = correct_judge(judged, STANCE, {answer_key(row): truth[answer_key(row)] for row in few}, BANK)
    assert found["note"] == "uncorrected: people have labelled 29 of left answers, and 30 of a model are needed"
    assert figure(found, "left", "share for")["corrected"] is None
    assert figure(found, "base", "share for")["corrected"] is not None
    assert all(d["corrected"] is None for d in found["differences"])


def test_sides_of_the_lean_have_shares_and_no_mean():
    """People name a side; the mean of 0 to 20 stays the judge's own."""
    rows, truth = make_rows()
    judge = planted(rows, truth, LEAN_SCALE)
    rows[0]["refused"] = True  # a refusal has no lean
    judged = judge_answers(rows, [judge], BANK)
    sides = {"1": "left", "5": "right"}
    labels = {key: sides.get(label, "centre") for key, label in truth.items()}
    found = correct_judge(judged, LEAN_SCALE, labels, BANK)
    share = figure(found, "base", "share left")
    assert share["corrected"]["estimate"] == pytest.approx(share["uncorrected"]["estimate"], abs=1e-6)
    assert figure(found, "base", "mean lean")["corrected"] is None
    assert found["n_labelled"]["base"] == N - 1
    numbers = {key: {"left": "4", "right": "16"}.get(side, "10") for key, side in labels.items()}
    mean = figure(correct_judge(judged, LEAN_SCALE, numbers, BANK), "base", "mean lean")
    assert mean["corrected"]["estimate"] == pytest.approx(mean["uncorrected"]["estimate"], abs=1e-6)


def test_from_the_draw_to_the_report(run, answers, tune_run, serve, tmp_path):
    """The three commands: draw, label on the page, put in; the report has both figures."""
    _, truth, judge, judged = answers
    command = ["eval/label_answers.py", "--config", "configs/label_answers.yaml", f"output_dir={run}"]
    summary = json.loads((run / "summary.json").read_text())
    assert "  uncorrected" in score_table(summary)
    assert summary["models"]["base"]["open, planted"]["economic"]["corrected"] == "uncorrected"
    assert tune_run(*command, "n_per_model=130") == 0
    drawn = read_log(run / "label_sample_stance.jsonl")
    assert len(drawn) == 260
    assert drawn[0]["target"] == {item.id: item.text for item in BANK.items}[drawn[0]["item"]]
    assert tune_run(*command, "n_per_model=20") != 0  # another draw would lose answers of this one
    of_text = {row["text"]: truth[answer_key(row)] for row in drawn}
    client: Client = serve(drawn, scale="stance", accept=False, reviewers=["a"])
    page = client.page("a")
    assert "Where does the text stand on it?" in page.text
    assert page.texts[1] in of_text
    assert not any(name in page.text.replace(page.texts[1], "") for name in ("model", "planted"))
    client.answer_all("a", lambda page: ["skip" if page.texts[1].startswith("base on p") else of_text[page.texts[1]]])
    gold = tmp_path / "out" / "gold.jsonl"
    assert {*read_log(gold)[0]} == {"text", "target", "label", "row"}
    assert tune_run(*command, f"labels={gold}") == 0
    people = read_people(run)["stance"]
    assert people == {answer_key(row): truth[answer_key(row)] for row in drawn if answer_key(row) in people}
    summary = json.loads((run / "summary.json").read_text())
    axis = summary["models"]["left"]["open, planted"]["economic"]["corrected"]
    assert axis["estimate"] < axis["judge_alone"] < 0
    assert "  corrected -" in score_table(summary) or "  corrected −" in score_table(summary)
    text = Page((run / "report.html").read_text()).text
    assert "Readings of planted, and without its error" in text
    assert "corrected −" in text
    # a run that is scored anew finds the labels
    again = add_people(summary, judged, read_people(run), BANK)
    assert json.loads(json.dumps(again["judging"])) == json.loads((run / "summary.json").read_text())["judging"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scale=lean"], "no judge of this run has it; use one of stance"),
        (["scale=mood"], "scale=mood; use one of"),
        (["labels=gold.jsonl"], "draw the answers first, with labels=null"),
    ],
)
def test_what_is_wrong_is_said(run, tune_run, arguments, message):
    command = ["eval/label_answers.py", "--config", "configs/label_answers.yaml", f"output_dir={run}"]
    assert message in str(tune_run(*command, *arguments))


def test_labels_of_other_texts_are_refused(run, tune_run, tmp_path):
    command = ["eval/label_answers.py", "--config", "configs/label_answers.yaml", f"output_dir={run}"]
    assert tune_run(*command, "n_per_model=40") == 0
    other = tmp_path / "other.jsonl"
    other.write_text(to_jsonl([{"text": "another", "target": "tea", "label": "1"}]))
    assert "none of its texts is one of" in str(tune_run(*command, f"labels={other}"))
    row = read_log(run / "label_sample_stance.jsonl")[0]
    other.write_text(to_jsonl([row | {"label": "1"}, row | {"label": "2"}]))
    assert "row 2: labelled 2, but the same text" in str(tune_run(*command, f"labels={other}"))
    missing = "no summary.json, settings.json, judged.jsonl; name the output_dir of a run"
    assert missing in str(tune_run(*command[:-1], f"output_dir={tmp_path}"))
