# SPDX-License-Identifier: MIT
"""Who is asked: what a config may say, and a server on the loopback that answers by a rule."""

import json
import math

import pytest
from fault_server import FaultServer, completion
from test_respond import BANK

from eval.asking.respondents import Interview, Respondent, read_respondents
from eval.asking.served import ask_served, check_served
from eval.asking.written_answers import Decoding
from eval.scores.summary import summarize
from eval.statements.prompts import choice_prompts, generate_prompts, load_templates, open_prompts

SERVER = {"model": "stub", "base_url": "http://127.0.0.1:1/v1"}
LISTED = {"1": -0.2, " 2": -2.5, "2": -3.0, "The": -4.0, "3": -5.0}


def read(entries, has_resident=True, adapters=("left",), modes=("choice", "pairs"), labels=("digits", "words")):
    return read_respondents(entries, has_resident, adapters, modes, labels)


def test_base_adapters_and_then_the_others():
    entries = {
        "told": {"system_prompt": "Be brief."},
        "both": {"system_prompt": "Be brief.", "adapter": "left", "modes": ["pairs"]},
        "far": {**SERVER, "timeout_s": 3},
    }
    assert read(entries) == [
        Respondent("base", ("choice", "pairs")),
        Respondent("left", ("choice", "pairs"), "left"),
        Respondent("told", ("choice", "pairs"), None, "Be brief."),
        Respondent("both", ("pairs",), "left", "Be brief."),
        Respondent("far", ("choice",), None, None, {**SERVER, "timeout_s": 3}),
    ]
    assert [r.name for r in read({"far": SERVER}, has_resident=False, adapters=())] == ["far"]


@pytest.mark.parametrize(
    ("entries", "more", "message"),
    [
        ({"left": {"system_prompt": "x"}}, {}, "left: this name is taken"),
        ({"base": {"system_prompt": "x"}}, {"has_resident": False, "adapters": ()}, "base: this name is taken"),
        ({"a": None}, {}, "respondents.a: nothing; use"),
        ({"a": {"sytem_prompt": "x"}}, {}, r"\['sytem_prompt'\]; use"),
        ({"a": 5}, {}, "respondents.a: 5; give a mapping, as respondents.a.system_prompt="),
        ({"left@0": {"5": SERVER}}, {}, r"write it in brackets: 'respondents\[left@0.5\]=…'"),
        ({"a": {**SERVER, "adapter": "left"}}, {}, r"\['adapter'\]; use"),
        ({"a": {"adapter": "right"}}, {}, "adapter 'right'; the adapters are"),
        ({"a": {"modes": ["open"]}}, {}, r"modes \['open'\] are not among the run's"),
        ({"a": {**SERVER, "modes": ["pairs"]}}, {}, "leave pairs out"),
        ({"a": SERVER}, {"labels": ["words"]}, "words it does not"),
        ({"a": {"model": "m"}}, {}, "no base_url"),
        ({"a": {**SERVER, "params": {"seed": 1}}}, {}, "params.seed"),
        ({"a": {"system_prompt": "x"}}, {"has_resident": False, "adapters": ()}, "there is no resident model"),
        ({"a@2024": SERVER}, {}, "a name with @ is a dial's"),
        ({"../a": SERVER}, {}, "kept in a folder of this name"),
        ({"a": SERVER}, {"has_resident": False}, r"model=null has no adapters; drop \['left'\]"),
        (None, {"has_resident": False, "adapters": ()}, "nobody is asked"),
    ],
)
def test_what_cannot_be_asked_is_refused(entries, more, message):
    with pytest.raises(ValueError, match=message):
        read(entries, **more)


def test_all_faults_at_once():
    with pytest.raises(ValueError, match=r"(?s)a: this name is not|a: .*b: ") as refused:
        read({"a": {"adapter": "x"}, "b": {"modes": ["open"]}})
    assert len(str(refused.value).splitlines()) == 3


def test_two_addresses_with_one_model_name_share_no_replies(interview, tmp_path):
    """Each gets a folder of its own; one that is named for both is refused."""
    with FaultServer(lambda body: "3") as three, FaultServer(lambda body: "2") as two:
        said = {}
        for name, url in (("a", three.url), ("b", two.url)):
            respondent = Respondent(name, ("generate",), None, None, {"model": "stub", "base_url": url})
            check_served(interview, [Respondent("base", ("choice",)), respondent], str(tmp_path), lambda rows: False)
            rows = ask_served(interview, respondent, str(tmp_path), lambda rows: False)
            said[name] = {row["text"] for of in rows for row in of}
    assert said == {"a": {"3"}, "b": {"2"}}
    shared = {**SERVER, "cache_dir": str(tmp_path / "one")}
    other = {**shared, "base_url": "http://127.0.0.1:2/v1"}
    with pytest.raises(ValueError, match="respondents.b and respondents.a ask for model 'stub' at .* own cache_dir"):
        read({"a": shared, "b": other})
    assert read({"a": shared, "b": {**other, "model": "another"}, "c": {**shared, "base_url": None}})


def test_a_server_is_checked_before_anybody_answers(interview, tmp_path):
    far = Respondent("far", ("generate",), None, None, {"model": "m", "retry_wait_s": 0.01, "max_retries": 0})
    for faults, error, message in (
        ("400", ValueError, "refuses the first call of mode generate: HTTP 400"),
        ("404", RuntimeError, "refuses model 'm'"),
        ("500", RuntimeError, "no answer to the first call of mode generate: HTTP 500.*nobody has been asked yet"),
    ):
        with FaultServer(answer, fault_rate=1.0, faults=(faults,)) as server:
            asked = far._replace(server={**far.server, "base_url": server.url})
            with pytest.raises(error, match=message):
                check_served(interview, [asked], str(tmp_path), lambda rows: False)
            check_served(interview, [asked], str(tmp_path), lambda rows: True)  # all is answered already
            assert len(server.calls) == 1
    check_served(interview, [far._replace(server={"model": "m", "base_url": None})], str(tmp_path), lambda rows: False)


@pytest.fixture(scope="module")
def interview():
    templates = load_templates("en")
    return Interview(
        {
            "choice": choice_prompts(BANK, templates, 1, 2, ["digits", "words"]),
            "generate": generate_prompts(BANK, templates, 1, 2, ["digits"], 2),
            "open": open_prompts(BANK, templates, 0, 1),
        },
        BANK.options,
        {"generate": Decoding(0.3, 200, 64, 0), "open": Decoding(0.3, 200, 300, 0)},
    )


def answer(body, listed=LISTED, text="2. I agree."):
    if not body.get("logprobs"):
        return text
    likeliest = [{"token": token, "logprob": x} for token, x in listed.items()]
    content = [{**likeliest[0], "top_logprobs": likeliest}]
    return completion(body, "1", logprobs={"content": content})


def ask(interview, url, tmp_path, modes=("choice", "generate", "open"), known=(), system_prompt=None, **server):
    settings = {"model": "stub", "base_url": url, "retry_wait_s": 0.01, "timeout_s": 2, **server}
    respondent = Respondent("far", modes, None, system_prompt, settings)
    keys = {json.dumps([r[k] for k in ("mode", "item", "template", "order", "labels", "sample")]) for r in known}
    key = ("mode", "item", "template", "order", "labels", "sample")

    def is_known(rows):
        return all(json.dumps([r[k] for k in key]) in keys for r in rows)

    return [row for rows in ask_served(interview, respondent, str(tmp_path / "cache"), is_known) for row in rows]


def test_choice_by_log_probabilities_and_the_rest_in_writing(interview, tmp_path):
    told = {"system_prompt": "Be brief.", "params": {"top_k": 5, "presence": 1}}
    with FaultServer(answer, fault_rate=0.2, faults=("429", "500", "cut")) as server:
        rows = ask(interview, server.url, tmp_path, **told)
        calls = [call for call in server.calls if call.get("logprobs")]
        assert all(c["max_tokens"] == 1 and c["top_logprobs"] == 20 and c["temperature"] == 0 for c in calls)
        written = [call for call in server.calls if not call.get("logprobs")]
        assert {(c["max_tokens"], c["top_k"], c["presence"]) for c in written} == {(64, 5, 1), (300, 5, 1)}
        assert all(c["messages"][0] == {"role": "system", "content": "Be brief."} for c in server.calls)
        n_calls = len(server.calls)
        # killed and started again, from what was written down: the rest is the same, and is not paid for
        assert ask(interview, server.url, tmp_path, known=rows[:5], **told) == rows[5:]
        assert len(server.calls) == n_calls
    assert ask(interview, None, tmp_path, **told) == rows
    by_mode = {mode: [row for row in rows if row["mode"] == mode] for mode in interview.prompts}
    assert {mode: len(of) for mode, of in by_mode.items()} == {"choice": 2 * 2, "generate": 2 * 2 * 2 * 2, "open": 7}
    for row in by_mode["choice"]:
        by_label = [-0.2, math.log(math.exp(-2.5) + math.exp(-3)), -5.0, None]
        expected = [by_label[row["order"].index(o)] for o in range(4)]
        assert row["option_logprobs"] == [x and pytest.approx(x, abs=1e-6) for x in expected]
        assert row["choice"] == row["order"][0]
        assert row["option_mass"] == pytest.approx(sum(math.exp(x) for x in by_label[:3]), abs=1e-6)
        assert row["option_floor"] == -5.0
    for row in by_mode["generate"]:
        # the label and the wording contradict each other where place 2 is another option
        assert row["choice"] == (2 if row["order"][1] == 2 else None)
        assert row["decoding"]["top_k"] == 5
    assert len({row["decoding"]["seed"] for row in by_mode["generate"]}) == 16
    summary = summarize(rows, BANK, 50, 0)
    assert summary["written"]["far"]["choice"] == {
        "rows": 4, "options_unlisted": 4, "unlisted_at_most": pytest.approx(math.exp(-5), abs=1e-6)
    }  # fmt: skip
    assert summary["written"]["far"]["open"]["note"].startswith("not scored")
    share = summary["models"]["far"]["choice"]["x"]
    assert share["n_answered"] == 2


def test_a_server_without_log_probabilities_is_not_asked_for_them(interview, tmp_path, caplog):
    with FaultServer(lambda body: "3") as server:
        rows = ask(interview, server.url, tmp_path)
        assert {row["mode"] for row in rows} == {"generate", "open"}
        assert sum("logprobs" in call for call in server.calls) == 1
    assert "far: the server gives no log-probabilities" in caplog.text


def test_a_server_that_can_answer_nothing_is_refused(interview, tmp_path):
    with FaultServer(lambda body: "3") as server:
        far = Respondent("far", ("choice",), None, None, {"model": "m", "base_url": server.url})
        with pytest.raises(ValueError, match="far: the server gives no log-probabilities, which all .* add generate"):
            check_served(interview, [far], str(tmp_path), lambda rows: False)
    with pytest.raises(ValueError, match="far: no mode to ask it in: modes=..pairs.. and no tokenizer"):
        read({"far": SERVER}, False, (), ("pairs",))


def test_labels_that_a_blank_token_hides_are_refused_at_the_first_call(interview, tmp_path):
    # SentencePiece of Mistral v1 to v7: every answer begins with the same token, a blank
    for blank in ("▁", " "):
        with FaultServer(lambda body, blank=blank: answer(body, {blank: -0.01, "The": -6.0})) as server:
            with pytest.raises(ValueError, match="is a blank.*labels=digits.*use labels=.letter"):
                ask(interview, server.url, tmp_path / blank.replace(" ", "_"), ("choice",))
            assert len(server.calls) == 1


def test_fields_that_a_server_refuses_are_left_out(interview, tmp_path):
    params = {"seed": None, "max_tokens": None, "temperature": None, "max_completion_tokens": 512}
    with FaultServer(answer) as server:
        rows = ask(interview, server.url, tmp_path, params=params)
        assert not any({"seed", "max_tokens", "temperature"} & set(call) for call in server.calls)
        lengths = {(bool(call.get("logprobs")), call["max_completion_tokens"]) for call in server.calls}
    assert lengths == {(True, 1), (False, 512)}
    assert {row["decoding"]["max_new_tokens"] for row in rows if row["mode"] != "choice"} == {512}


def test_no_option_among_the_likeliest_is_no_answer(interview, tmp_path):
    with FaultServer(lambda body: answer(body, {"Well": -0.1, "So": -3.0})) as server:
        rows = ask(interview, server.url, tmp_path, ("choice",))
    assert all(row["choice"] is row["option_logprobs"] is None and row["option_mass"] == 0 for row in rows)
    summary = summarize(rows, BANK, 50, 0)
    assert summary["models"]["far"]["choice"]["x"]["bounds"] == [-10, 10]
    assert summary["models"]["far"]["choice"]["x"]["estimate"] is None
    assert summary["written"]["far"]["choice"]["options_unlisted"] == 4 * 4


def test_one_refused_call_is_an_error_that_is_counted_and_a_refused_first_one_stops(interview, tmp_path):
    def respond(body):
        return "3" if "Reagan" not in body["messages"][-1]["content"] else {"choices": [{"message": {"content": ""}}]}

    with FaultServer(respond) as server:
        rows = ask(interview, server.url, tmp_path, ("open",), max_retries=1)
    texts = {row["item"]: row["text"] for row in rows}
    assert texts.pop("reagan") is None
    assert set(texts.values()) == {"3"}
    assert summarize(rows, BANK, 50, 0)["written"]["far"]["open"]["errors"] == 1
    with FaultServer(respond, fault_rate=1.0, faults=("400",)) as server:
        with pytest.raises(ValueError, match="refuses the first call of mode generate: HTTP 400.*Mend its params"):
            ask(interview, server.url, tmp_path / "other", ("generate",))
        assert len(server.calls) == 1


def test_unanswered_calls_stop_the_run_when_all_others_are_there(interview, tmp_path):
    got = []
    with FaultServer(answer, fault_rate=0.5, faults=("500",)) as server:
        settings = {"model": "stub", "base_url": server.url, "retry_wait_s": 0.01, "max_retries": 0, "stop_after": 99}
        respondent = Respondent("far", ("generate",), None, None, settings)
        answers = ask_served(interview, respondent, str(tmp_path), lambda rows: False)
        with pytest.raises(RuntimeError, match=r"far: \d+ calls were not answered, the last: HTTP 500.*same command"):
            got.extend(answers)
    assert 0 < len(got) < 16
