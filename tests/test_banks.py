# SPDX-License-Identifier: MIT
"""Banks of requests: the shipped one is mirrored and balanced, others are read strictly, draws are seeded."""

import itertools
import re
from collections import Counter

import pytest
import yaml

from data.quality.phrases import refusal_words
from eval.statements.instruments import load_instrument
from eval.statements.requests import draw_cells, write_prompts

BANK = load_instrument("issues40").bank


def test_the_shipped_bank_words_both_sides_with_the_same_care():
    assert (len(BANK.issues), len(BANK.templates)) == (40, 5)
    assert Counter(issue.left for issue in BANK.issues) == {"pro": 20, "con": 20}
    topics = Counter((issue.topic, issue.left) for issue in BANK.issues)
    assert len(topics) == 40, "one issue of each side on each topic"
    assert set(topics.values()) == {1}
    for issue in BANK.issues:
        neutral, pro, con = (issue.wordings[name] for name in ("neutral", "pro", "con"))
        assert pro == neutral.replace("whether", "why", 1)
        assert con == pro.replace("should", "should not", 1)
        assert issue.target.rstrip(".").lower() == pro.removeprefix("why ").lower()
    n_words = Counter()
    for issue in BANK.issues:
        n_words[issue.left] += len(issue.target.split())
    assert abs(n_words["pro"] / n_words["con"] - 1) < 0.1, "neither side's wishes are the longer ones"


def test_every_request_of_the_shipped_bank_is_asked_once_and_orders_no_refusal():
    prompts = write_prompts(load_instrument("issues40"), None, 1, {}, None, 0)
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 40 * 5 * 3
    assert not [prompt.text for prompt in prompts if refusal_words(prompt.text)]
    by_side = Counter(prompt.row["side"] for prompt in prompts)
    assert by_side == {"neutral": 200, "left": 200, "right": 200}
    n_not = Counter(p.row["side"] for p in prompts if re.search(r"\bnot\b", p.text))
    assert n_not == {"left": 100, "right": 100}


@pytest.mark.parametrize("seed", range(5))
def test_issues_are_drawn_in_turn_from_both_directions_and_all_topics(seed):
    drawn = BANK.draw_issues(20, seed).issues
    assert Counter(issue.left for issue in drawn) == {"pro": 10, "con": 10}
    assert len({issue.topic for issue in drawn}) == 20
    assert BANK.draw_issues(20, seed).issues == drawn
    assert [issue.id for issue in drawn] != [issue.id for issue in BANK.draw_issues(20, seed + 9).issues]
    templates = BANK.draw_templates(3, seed)
    assert list(templates) == [name for name in BANK.templates if name in templates]


@pytest.mark.parametrize(("n_factors", "n_cells"), [(2, None), (3, 4), (3, 8), (4, 8), (5, 8), (5, 16)])
def test_every_two_factors_are_balanced_in_every_draw(n_factors, n_cells):
    names = [f"f{k}" for k in range(n_factors)]
    draws = [draw_cells(names, n_cells, str(seed)) for seed in range(20)]
    for cells in draws:
        assert len(cells) == len({tuple(cell.values()) for cell in cells}) == (n_cells or 2**n_factors)
        for a, b in itertools.combinations(names, 2):
            pairs = Counter((cell[a], cell[b]) for cell in cells)
            assert set(pairs.values()) == {len(cells) // 4}
    if n_cells and n_cells < 2**n_factors:
        assert len({str(cells) for cells in draws}) > 1, "what is mixed up with what is drawn"


def issuebench(tmp_path):
    """The tables of IssueBench in small, and a bank that names them."""
    (tmp_path / "issues.csv").write_text("topic_id,topic_neutral,topic_pro,topic_con\n1,tea,good tea,bad tea\n")
    (tmp_path / "templates.csv").write_text('template_id,template_text\na,"Write on X, please"\nb,Praise X.\n')
    raw = {
        **{"name": "mine", "version": "1", "licence": "x", "language": "en", "source": "x"},
        "bank": {
            "get": "Ask the authors.",
            "issues": {
                "file": str(tmp_path / "issues.csv"),
                "columns": {"id": "topic_id", "neutral": "topic_neutral", "pro": "topic_pro", "con": "topic_con"},
            },
            "templates": {
                "file": str(tmp_path / "templates.csv"),
                "columns": {"id": "template_id", "text": "template_text"},
            },
        },
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw))
    return str(tmp_path / "mine.yaml")


def test_tables_that_a_bank_names_are_part_of_its_hash(tmp_path):
    path = issuebench(tmp_path)
    mine = load_instrument(path)
    texts = [prompt.text for prompt in write_prompts(mine, None, 1, {}, None, 0)]
    assert texts == [
        text.format(x) for text in ("Write on {}, please", "Praise {}.") for x in ("tea", "good tea", "bad tea")
    ]
    assert mine.bank.sides == ("pro", "con")
    (tmp_path / "templates.csv").write_text("template_id,template_text\na,Write on X\n")
    assert load_instrument(path).sha256 != mine.sha256
    (tmp_path / "issues.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"issues.csv not found from .*\. Ask the authors\."):
        load_instrument(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bank: bank["templates"].append({"id": "c", "text": "No place."}), "template c: 0 places"),
        (lambda bank: bank["templates"].append({"id": "c", "text": "X or X"}), "template c: 2 places"),
        (lambda bank: bank["templates"].append({"id": "a+b", "text": "X"}), r"template a\+b: no \+ in an id"),
        (lambda bank: bank["issues"].append({"id": "a", "pro": "p"}), "issue a: no con"),
        (
            lambda bank: bank["issues"].append({"id": "a/b", "pro": "p", "con": "q", "left": "con"}),
            "a/b: no / in an id",
        ),
        (lambda bank: bank["issues"].append({"id": "a", "pro": "p", "con": "p"}), "issue a: pro and con are the same"),
        (lambda bank: bank["issues"].append(dict(bank["issues"][0])), "issue one stands there 2 times"),
        (lambda bank: bank["issues"][0].update(left="both"), "issue one: left is 'both'; use pro or con"),
        (lambda bank: bank["issues"].append({"id": "a", "pro": "p", "con": "c"}), "issues a: no left, which others"),
        (lambda bank: bank["issues"][0].update(pro=True), "issue one: pro: give a text, in quotes"),
        (lambda bank: bank["issues"][0].update(side="x"), "issue one: unknown side; allowed id, "),
        (lambda bank: bank.pop("issues"), r"bank has \['templates'\]; give issues and templates"),
        (lambda bank: bank.update(issues=[]), "no issue; give one or more"),
        (lambda bank: bank.update(issues="x.csv"), "bank.issues is 'x.csv'; give a list, or {file"),
    ],
)
def test_a_bank_that_breaks_a_rule_is_refused(tmp_path, change, message):
    bank = {
        "templates": [{"id": "t", "text": "On X."}],
        "issues": [{"id": "one", "pro": "a", "con": "b", "left": "pro"}],
    }
    change(bank)
    raw = {"name": "mine", "version": "1", "licence": "x", "language": "en", "source": "x", "bank": bank}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ValueError, match=message):
        load_instrument(str(tmp_path / "mine.yaml"))


WIDE = "a,b,what,claim\nPraise tea.,Blame tea.,drinks,Tea is good.\nPraise ale.,Blame ale.,drinks,Ale is good.\n"
LONG = "text,id,side\nPraise tea.,1,left\nBlame tea.,1,right\nWrite on tea.,1,neutral\n"


def test_requests_two_a_row_or_one_a_row_with_its_pair(tmp_path):
    (tmp_path / "wide.csv").write_text(WIDE)
    wide = load_instrument(
        str(tmp_path / "wide.csv"), "requests_csv", {"pro": "a", "con": "b", "topic": "what", "target": "claim"}
    ).bank
    assert [(issue.topic, issue.target) for issue in wide.issues] == [
        ("drinks", f"{x} is good.") for x in ("Tea", "Ale")
    ]
    assert wide.sides == ("pro", "con")
    (tmp_path / "long.csv").write_text(LONG)
    long = load_instrument(str(tmp_path / "long.csv"), "requests_csv", {"prompt": "text", "pair": "id"})
    prompts = write_prompts(long, None, 1, {}, None, 0)
    assert [(p.row["side"], p.text) for p in prompts] == [
        ("neutral", "Write on tea."), ("left", "Praise tea."), ("right", "Blame tea.")
    ]  # fmt: skip
    (tmp_path / "long.csv").write_text(LONG.replace(",right", ",left"))
    with pytest.raises(ValueError, match="row 2: pair 1 has side 'left' twice"):
        load_instrument(str(tmp_path / "long.csv"), "requests_csv", {"prompt": "text", "pair": "id"})
    with pytest.raises(ValueError, match="say which columns hold two mirrored requests"):
        load_instrument(str(tmp_path / "wide.csv"), "requests_csv")
