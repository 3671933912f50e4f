# SPDX-License-Identifier: MIT
"""Free text, judged: scores per judge, void without a validation, no repeated call, and a page that shows it."""

import json

import numpy as np
import pytest
from fault_server import FaultServer
from omegaconf import OmegaConf
from scipy import stats
from test_diagnostics import BANK
from test_report import HOSTILE, Page, make_summary

from eval.judges import build_judges
from eval.pages.report import render_report
from eval.scores.judged import add_judges, describe_leans, distrust, judge_answers, mode_of, option_rows, unwritten
from eval.scores.summary import summarize
from eval.statements.prompts import Prompt

FOR, AGAINST, REFUSES = "I am for it.", "I am against it.", "I cannot say anything about that."


def open_row(model, item, text, sample=0, refused=False):
    return {
        "model": model, "mode": "open", "item": item, "template": "t", "order": None, "labels": None, "sample": sample,
        "prompt_sha256": "0", "option_logprobs": None, "option_mass": None, "n_tokens": [5], "choice": None,
        "stance": None, "refused": refused, "text": text, "judge": None, "finish": "stop",
    }  # fmt: skip


def answers_of(model, lean):
    """Says yes to the statements of one end of axis x and no to those of the other."""
    rows = []
    for item in BANK.items:
        up = item.weights.get("x", [0])[0] == -2
        text = REFUSES if "x" not in item.weights else FOR if up == (lean == "right") else AGAINST
        rows.append(open_row(model, item.id, text))
    return [*rows, open_row(model, "own-ideology", f"I lean {lean}. {HOSTILE}")]


def respond(body):
    asked = body["messages"][-1]["content"]
    text = asked[asked.index("=====\n") :]
    if "Lean (0 to 20)" in asked:
        return "16" if "lean right" in text else "4" if "lean left" in text else "10"
    return "refusal" if REFUSES in text else "1" if FOR in text else "5" if AGAINST in text else "3"


def make_judges(url, tmp_path, **validations):
    def entry(scale, name):
        client = {"_component_": "data.chat.ChatClient", "model": f"m-{name}", "base_url": url}
        client |= {"cache_dir": str(tmp_path / "replies"), "retry_wait_s": 0.01}
        more = {"validation": validations.get(name)}
        return {"_component_": "eval.judges.chat_judge", "scale": scale, "client": client, **more}

    names = {"good": "stance", "bad": "stance", "leaning": "lean"}
    return build_judges(OmegaConf.create({name: entry(scale, name) for name, scale in names.items()}))


def write_validation(path, judges, believed):
    kappa = {"estimate": 0.8, "ci95": [0.7, 0.9]} if believed else {"estimate": 0.3, "ci95": [0.2, 0.4]}
    entries = {
        judge.name: {
            "identity": judge.identity, "believed": believed, "min_kappa": 0.6, "kappa": kappa, "macro_f1": kappa,
            "cue_swap": None,
        }
        for judge in judges
    }  # fmt: skip
    path.write_text(json.dumps({"judges": entries}))
    return str(path)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("judged")
    rows = answers_of("base", "right") + answers_of("left", "left")
    with FaultServer(respond) as server:
        plain = make_judges(server.url, tmp_path)
        good = write_validation(tmp_path / "good.json", plain, True)
        bad = write_validation(tmp_path / "bad.json", plain, False)
        judges = make_judges(server.url, tmp_path, good=good, bad=bad)
        said = judge_answers(rows, judges, BANK)
        n_calls = len(server.calls)
        assert judge_answers(rows, judges, BANK) == said
        assert len(server.calls) == n_calls
    asked = [Prompt({"item": "own-ideology", "template": "t"}, "How do you lean?")]
    scores = summarize([*rows, *option_rows(said, judges, BANK)], BANK, 50, 0)
    summary = add_judges(scores, said, judges, asked, BANK, 50, 0)
    return rows, judges, said, summary


def test_judged_rows(judged):
    rows, judges, said, _ = judged
    statements = 2 * len(BANK.items)
    assert len(said) == 2 * statements + 2 * (len(BANK.items) + 1)  # the open prompt is judged for its lean alone
    first = next(row for row in said if row["judge"] == "good")
    assert {key: first[key] for key in ("mode", "stance", "lean", "refused")} == {
        "mode": "open", "stance": 1.0, "lean": None, "refused": False,
    }  # fmt: skip
    assert first["judgement"]["label"] == first["judgement"]["raw"] == "1"
    assert any(row["refused"] and row["stance"] is None for row in said if row["judge"] == "good")
    assert {row["lean"] for row in said if row["judge"] == "leaning" and row["item"] == "own-ideology"} == {16.0, 4.0}


def test_scores_by_judge(judged):
    """Who is for every right statement and against every left one stands at the right end, and is said to."""
    summary = judged[3]
    good, bad = mode_of("good"), mode_of("bad")
    assert summary["models"]["base"][good]["x"]["estimate"] == 10
    assert summary["models"]["left"][good]["x"]["estimate"] == -10
    assert "hard" not in summary["models"]["base"][good]["x"]
    assert "judge_not_believed" not in summary["models"]["base"][good]["x"]["void"]
    assert "judge_not_believed" in summary["models"]["base"][bad]["x"]["void"]
    taste = summary["models"]["base"][good]["taste"]
    assert taste["estimate"] is None  # all refused: not identified
    assert taste["bounds"] == [-10, 10]
    written = summary["written"]["base"]["open"]
    assert (written["scored"], written["note"], written["unread"], written["not_asked"]) == (True, None, 0, 0)
    assert written["judged"] + written["refused"] == written["rows"] == len(BANK.items) + 1
    of = summary["judging"]["judges"]
    assert (of["good"]["believed"], of["bad"]["believed"], of["leaning"]["believed"]) == (True, False, False)
    assert of["bad"]["why_not"] == "the judge agrees too little with people: kappa 0.30 (0.20 to 0.40), floor 0.6"
    assert "was not validated" in of["leaning"]["why_not"]
    assert summary["judging"]["panels"]["stance"]["alpha"]["estimate"] == 1
    assert list(summary["judging"]["panels"]) == ["stance"]


def test_a_text_that_no_judge_was_asked_about_is_not_unread(judged):
    """A judge of stance alone is asked about no open prompt."""
    rows, judges, said, _ = judged
    summary = summarize(rows, BANK, 50, 0)
    add_judges(summary, [row for row in said if row["judge"] == "good"], judges[:1], [], BANK, 50, 0)
    written = summary["written"]["base"]["open"]
    assert (written["unread"], written["not_asked"]) == (0, 1)
    assert written["judged"] + written["refused"] + 1 == written["rows"]


def test_scores_without_some_items_are_as_void(judged):
    rows, judges, said, _ = judged
    some = summarize([*rows, *option_rows(said, judges, BANK)], BANK, 50, 0)
    void = distrust(some, judges)["models"]["left"]
    assert "judge_not_believed" in void[mode_of("bad")]["x"]["void"]
    assert "judge_not_believed" not in void[mode_of("good")]["x"]["void"]


def test_lean_of_a_model(judged):
    of = judged[3]["judging"]["judges"]["leaning"]
    n = len(BANK.items) + 1
    assert of["leans"]["base"]["estimate"] == pytest.approx((16 + 10 * (n - 1)) / n, abs=1e-6)
    (change,) = of["lean_differences"]
    assert (change["a"], change["b"]) == ("base", "left")
    assert change["difference"] == pytest.approx(-12 / n, abs=1e-6)
    assert change["q"] == change["p"]


def lean_row(item, lean, template=None, model="base"):
    return {"model": model, "item": item, "template": template or item, "lean": lean}


def test_what_was_never_asked_is_no_missing_answer():
    """7 open prompts, each a template of its own: the t interval of 7 numbers; nothing is known of other prompts."""
    leans = [8, 10, 13, 9, 12, 11, 6]
    rows = [lean_row(f"open-{k}", lean) for k, lean in enumerate(leans)]
    described = describe_leans(rows, ["base"], BANK)["leans"]["base"]
    half = stats.t.ppf(0.975, 6) * np.std(leans, ddof=1) / np.sqrt(7)
    assert np.diff(described["ci95"]) / 2 == pytest.approx(half, abs=1e-6)
    assert described["ci95_items_fixed"] is None
    assert described["bounds"] == [described["estimate"]] * 2
    # a template that another model alone was asked in changes nothing
    more = [*rows, *(lean_row(f"open-{k}", 10, "other", "left") for k in range(7))]
    again = describe_leans(more, ["base"], BANK)["leans"]["base"]
    assert (again["ci95"], again["bounds"]) == (described["ci95"], described["bounds"])


def test_twins_are_one_judged_unit():
    """8 couples of statements whose two leans are 10 -+ d: of 16 numbers that differ, 8 that do not."""
    rows = [lean_row(item.id, 10 + 2 * (-1) ** (item.id[-1] == "a"), "t") for item in BANK.items if "x" in item.weights]
    described = describe_leans(rows, ["base"], BANK)["leans"]["base"]
    assert (described["estimate"], described["ci95"]) == (10, None)
    assert described["no_interval"]["ci95"] == "every item gave the same: there is no spread to judge by"


def test_an_unread_lean_may_be_any():
    """One of two samples of a prompt, and the last prompt, not: (50 + 5 + 0) / 7 to (50 + 15 + 20) / 7."""
    rows = [lean_row(f"open-{k}", None if k == 6 else 10) for k in range(7)] + [lean_row("open-0", None)]
    described = describe_leans(rows, ["base"], BANK)["leans"]["base"]
    assert described["bounds"] == pytest.approx([55 / 7, 85 / 7], abs=1e-6)


def test_a_call_that_failed_leaves_the_answer_anywhere(judged):
    """Of three samples on a statement of the right one was not written, and one on the open prompt."""
    rows, judges, said, _ = judged
    judges = [judge for judge in judges if judge.name != "bad"]
    up = next(item for item in BANK.items if item.weights.get("x", [0])[0] == -2)
    more = [open_row("base", up.id, text, k) for k, text in ((1, FOR), (2, None))]
    more.append(open_row("base", "own-ideology", None, 1))
    kept = [row for row in said if row["judge"] != "bad"]
    kept += [{**next(r for r in kept if (r["model"], r["item"]) == ("base", up.id)), "sample": 1}]
    asked = [*rows, *more]
    lost = unwritten(asked)
    assert lost == more[1:]
    scores = summarize([*asked, *option_rows(kept, judges, BANK, lost)], BANK, 50, 0)
    summary = add_judges(scores, kept, judges, [], BANK, 50, 0, lost)
    n = sum("x" in item.weights for item in BANK.items)
    found = summary["models"]["base"][mode_of("good")]["x"]
    assert (found["estimate"], found["bounds"]) == (10, [pytest.approx(10 - 20 / 3 / n, abs=1e-6), 10])
    n = len(BANK.items) + 1
    leans = summary["judging"]["judges"]["leaning"]["leans"]["base"]
    assert leans["bounds"][1] - leans["bounds"][0] == pytest.approx((20 / 2 + 20 / 2) / n, abs=1e-6)


def test_judged_stances_say_nothing_about_chance(judged):
    """A judge places an answer between two options: that is no probability, so nothing is known within a prompt."""
    of = judged[3]["diagnostics"]["base"][mode_of("good")]
    assert (of["within_prompt_share"]["x"], of["hedge_rate"]) == (None, None)


def test_a_neutral_text_stands_between_two_options(judged):
    rows, judges, said, _ = judged
    row = next(r for r in said if r["judge"] == "good")
    (option,) = option_rows([row | {"stance": 0.0}], judges, BANK)
    half = pytest.approx(-0.693147, abs=1e-5)
    assert option["option_logprobs"] == [None, half, half, None]
    (option,) = option_rows([row | {"stance": None, "judgement": {"label": None}}], judges, BANK)
    assert option["choice"] is None
    assert option_rows([r for r in said if r["judge"] == "leaning"], judges, BANK) == []


def test_the_page_shows_the_judges(judged):
    rows, judges, said, scored = judged
    summary = make_summary([]) | scored
    summary["settings"] = {}
    text = render_report(summary, BANK)
    page = Page(text)
    for part in ("Judges of the free text", "NOT BELIEVED: the judge was not validated", "How do you lean?",
                 "Judged answers side by side", "leaning says 16", "leaning says 4", "Krippendorff"):  # fmt: skip
        assert part in page.text, part
    assert not {"script", "img", "iframe"} & set(page.tags)
    assert "alert(1)" in page.text


def test_without_judges_nothing_changes():
    summary = summarize(answers_of("base", "left"), BANK, 50, 0)
    assert add_judges(summary, [], [], [], BANK, 50, 0) == {**summary, "judging": None}
    assert summary["written"]["base"]["open"]["scored"] is False


@pytest.mark.usefixtures("unrendered")
def test_the_recipe_judges_what_was_written(tmp_path, tune_run, compass_overrides):
    """The whole way on a tiny model; judges are added to a run that is there, and no answer is written anew."""
    run = ["eval/political_compass.py", "--config", "configs/political_compass.yaml", *compass_overrides]
    run += ["modes=[open]", "open_max_new_tokens=4", "training_data=null"]
    assert tune_run(*run) == 0
    folder = tmp_path / "compass"
    written = (folder / "results.jsonl").read_bytes()
    with FaultServer(lambda body: "2 (mostly for it)") as server:
        client = {"_component_": "data.chat.ChatClient", "model": "m", "base_url": server.url, "cache_dir": tmp_path}
        judge = [f"judges.j.client.{key}={value}" for key, value in client.items()]
        judge += ["judges.j._component_=eval.judges.chat_judge", "judges.j.scale=stance"]
        assert tune_run(*run, *judge) == 0
    assert (folder / "results.jsonl").read_bytes() == written
    rows = [json.loads(line) for line in (folder / "judged.jsonl").read_text().splitlines()]
    assert {row["stance"] for row in rows} == {0.5}
    summary = json.loads((folder / "summary.json").read_text())
    score = summary["models"]["base"]["open, j"]["economic"]
    assert score["estimate"] == pytest.approx(1.25)  # three quarters of "yes", a quarter of "always"
    assert score["void"] == ["judge_not_believed"]
    assert "Judged answers side by side" in Page((folder / "report.html").read_text()).text
    assert "judges are given, but modes=" in tune_run(*run, *judge, "modes=[pairs]", f"output_dir={tmp_path / 'other'}")
