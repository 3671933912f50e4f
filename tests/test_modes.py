# SPDX-License-Identifier: MIT
"""The recipe in all modes and with all kinds of respondents, on the tiny model and a server on the loopback."""

import json

import pytest
from fault_server import FaultServer
from test_political_compass import adapters, overrides, run  # noqa: F401

from eval.asking import results
from eval.statements.prompts import load_templates

WRITTEN = {
    "modes": ["choice", "generate", "open"],
    "labels": ["digits"],
    "temperature": 0.7,
    "n_samples": 2,
    "max_new_tokens": 2,
    "open_max_new_tokens": 3,
    "prompts_per_batch": 16,
}
PROMPTED = {"system_prompt": "Be brief."}


def by(rows, **values):
    return [row for row in rows if all(row[key] == value for key, value in values.items())]


@pytest.mark.usefixtures("unrendered")
def test_written_modes_beside_choice(overrides, adapters, tmp_path, caplog):  # noqa: F811
    rows, summary = run(overrides, adapters={"left": adapters["left"]}, draw=True, **WRITTEN)
    assert "n_generate_orders=2: orders and their reverses; position bias cancels on symmetric" in caplog.text
    assert "n_orders=4: orders" not in caplog.text
    for name in ("base", "left"):
        generated, opened = by(rows, model=name, mode="generate"), by(rows, model=name, mode="open")
        assert len(generated) == 4 * 2 * 2 * 2  # items x (one of choice, one of generate) x orders x samples
        assert len(opened) == (4 + 7) * 2
        assert all(row["text"] is not None and row["stance"] is None for row in (*generated, *opened))
        counts = summary["written"][name]
        assert sum(counts["generate"][k] for k in ("read", "refused", "unread", "errors")) == len(generated)
        assert counts["open"]["scored"] is False
        assert counts["open"]["note"].startswith("not scored")
        assert list(summary["models"][name]) == ["choice", "generate"]
        scores = summary["models"][name]["generate"]["economic"]
        assert scores["bounds"][0] <= -9, "a random model writes nothing that can be read"
        both = summary["mode_agreement"][name]
        assert both["n_written"] == 4 * 2 * 2
        assert both["n_prompts"] == 4 * 2
    texts = [[row["text"] for row in by(rows, model=name, mode="open")] for name in ("base", "left")]
    assert texts[0] != texts[1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Answers in writing" in page
    assert "not scored: no judge has said a stance" in page


def test_a_run_killed_while_it_writes_goes_on_bit_for_bit(overrides, tmp_path, monkeypatch):  # noqa: F811
    run(overrides, adapters=None, **WRITTEN)
    undisturbed = (tmp_path / "out" / "results.jsonl").read_bytes()
    append = results.ResultsFile.append

    def die_later(self, rows):
        append(self, rows)
        if len(self.rows) > 30:
            raise KeyboardInterrupt

    killed = {**overrides, "output_dir": str(tmp_path / "killed"), "adapters": None, **WRITTEN}
    with monkeypatch.context() as patch:
        patch.setattr(results.ResultsFile, "append", die_later)
        with pytest.raises(KeyboardInterrupt):
            run(killed)
    path = tmp_path / "killed" / "results.jsonl"
    assert undisturbed.startswith(path.read_bytes())
    assert 30 < len(path.read_bytes().splitlines()) < len(undisturbed.splitlines())
    run(killed)
    assert path.read_bytes() == undisturbed


def test_a_system_prompt_and_a_server_beside_the_base(overrides, adapters, tmp_path):  # noqa: F811
    with FaultServer(lambda body: "1") as server:
        respondents = {
            "told": PROMPTED,
            "told-left": {**PROMPTED, "adapter": "left", "modes": ["choice"]},
            "far": {"model": "stub", "base_url": server.url, **PROMPTED, "modes": ["generate"]},
        }
        settings = {"adapters": {"left": adapters["left"]}, "respondents": respondents, **WRITTEN}
        settings |= {"modes": ["choice", "pairs", "generate"], "n_pair_templates": 6}
        rows, summary = run(overrides, **settings)
        n_calls = len(server.calls)
        again, _ = run(overrides, **settings)
        assert again == rows
        assert len(server.calls) == n_calls == len(by(rows, model="far")) == 4 * 2 * 2 * 2
        assert all(call["messages"][0]["content"] == "Be brief." for call in server.calls)
    assert list(summary["models"]) == ["base", "left", "told", "told-left", "far"]
    assert {name: list(of) for name, of in summary["models"].items()} == {
        "base": ["choice", "generate", "pairs"],
        "left": ["choice", "generate", "pairs"],
        "told": ["choice", "generate", "pairs"],
        "told-left": ["choice"],
        "far": ["generate"],
    }
    plain, told = by(rows, model="base", mode="choice"), by(rows, model="told", mode="choice")
    assert [r["option_logprobs"] for r in plain] != [r["option_logprobs"] for r in told]
    left, told_left = by(rows, model="left", mode="choice"), by(rows, model="told-left")
    assert [r["option_logprobs"] for r in left] != [r["option_logprobs"] for r in told_left]
    assert summary["written"]["far"]["generate"]["read"] == 32
    # the option that stands first is always chosen, so both orders together are the center
    assert summary["models"]["far"]["generate"]["economic"]["estimate"] == 0
    assert {(c["a"], c["b"]) for c in summary["comparisons"] if c["mode"] == "generate"} >= {("base", "far")}


def test_servers_alone_need_no_model(overrides, tmp_path):  # noqa: F811
    nobody = {key: value for key, value in overrides.items() if key not in ("model", "tokenizer", "checkpointer")}
    nothing = {"model": None, "tokenizer": None, "checkpointer": None, "adapters": None, "training_data": None}
    with FaultServer(lambda body: "I am a moderate.") as server:
        respondents = {"far": {"model": "stub", "base_url": server.url}}
        rows, summary = run(nobody, draw=True, **nothing, respondents=respondents, modes=["open"])
    assert {row["server"] for row in rows} == {"stub"}
    assert summary["models"] == {"far": {}}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "replies", "report.html", "results.jsonl", "settings.json", "summary.json"
    ]  # fmt: skip
    prompts = set(load_templates("en").open_prompts)
    assert {row["item"] for row in rows} >= prompts
    assert len(prompts) == 7


def test_agreement_between_the_likeliest_and_the_written_option():
    """By hand: of four answers to prompts asked both ways, one is unread, and two of the other three agree."""
    from test_respond import BANK

    from eval.scores.comparisons import compare_written

    def row(item, prompt, choice):
        return {"item": item, "prompt_sha256": prompt, "choice": choice}

    choice = [row("a", "1", 0), row("a", "2", 3), row("b", "3", 1), row("b", "4", 2)]
    written = [row("a", "1", 0), row("a", "2", None), row("b", "3", 0), row("b", "4", 2), row("b", "5", 2)]
    found = compare_written(choice, written, BANK, 100, 0)
    assert {k: found[k] for k in ("n_prompts", "n_written", "n_read")} == {"n_prompts": 4, "n_written": 4, "n_read": 3}
    assert found["agreement"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["same_side"] == 1
    assert found["kappa"] == pytest.approx(0.5, abs=1e-6)  # by chance 1/3 * 2/3 + 1/3 * 0 + 1/3 * 1/3 = 1/3
    assert compare_written(choice, [row("b", "5", 2)], BANK, 100, 0) is None
    json.dumps(found)
