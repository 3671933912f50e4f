# SPDX-License-Identifier: MIT
"""Each statement opens to its prompts and to what each model answered."""

from test_report import Page, make_summary

from eval.pages.report import render_report
from eval.pages.statements import describe_statements
from eval.statements.instruments import load_instrument
from eval.statements.prompts import choice_prompts, load_templates, open_prompts, pair_prompts

BANK = load_instrument("compass60")
WORDINGS = load_templates("en")
PAIR, ITEM = BANK.pairs[0], BANK.items[0]


def rows_of(prompts, model, **answered):
    nothing = dict.fromkeys(("option_logprobs", "option_mass", "choice", "text"))
    return [{"model": model, **nothing, "n_tokens": [5, 10], **prompt.row, **answered} for prompt in prompts]


def test_prompts_and_answers_stand_under_their_statement():
    pairs = [p for p in pair_prompts(BANK, WORDINGS, 2) if p.row["item"] == PAIR.id]
    choice = [p for p in choice_prompts(BANK, WORDINGS, 1, 2, ["words"]) if p.row["item"] == ITEM.id]
    rows = rows_of(pairs, "base", option_logprobs=[-5.0, -5.0]) + rows_of(pairs, "left", option_logprobs=[-5.0, -20.0])
    rows += rows_of(choice, "base", choice=0, option_mass=0.25)
    topics = describe_statements(rows, BANK, [*pairs, *choice], ["base", "left"])
    (of_pair,) = [one for one in topics[PAIR.topic] if one.id == PAIR.id]
    assert of_pair.text == f"{PAIR.left} ↔ {PAIR.right}"
    assert [asked.prompt for asked in of_pair.asked] == [p.text or "(no request: the statements alone)" for p in pairs]
    # -1 a token against -.5, and -1 against -2
    assert of_pair.asked[0].said["base"] == "right likelier, by 0.50 nats a token"
    assert of_pair.asked[0].said["left"] == "left likelier, by 1.00 nats a token"
    (of_item,) = [one for one in topics[ITEM.topic] if one.id == ITEM.id]
    (asked,) = of_item.asked  # one order of a template
    assert asked.prompt == choice[0].text
    assert asked.said == {"base": f"{BANK.options[0]} (25 % on all options)"}


def test_what_was_written_is_shown_with_the_open_prompts():
    prompts = open_prompts(BANK, WORDINGS, 0, 1)
    topics = describe_statements(rows_of(prompts, "base", text="x" * 2000), BANK, prompts, ["base"])
    assert {one.text for one in topics["open prompts"]} == {prompt.text for prompt in prompts}
    assert topics["open prompts"][0].asked[0].said["base"] == "x" * 1200 + " …"


def test_the_page_opens_each_and_the_table_leads_there():
    pairs = pair_prompts(BANK, WORDINGS, 1)
    rows = rows_of(pairs, "base", option_logprobs=[-5.0, -10.0]) + rows_of(pairs, "left", option_logprobs=[-5.0, -20.0])
    page = Page(render_report(make_summary(rows, BANK), BANK, rows, pairs))
    assert page.tags.count("details") == len(BANK.pairs) + len({pair.topic for pair in BANK.pairs}) + 1
    targets = {value for _, name, value in page.attributes if name == "id"}
    links = [value[1:] for _, name, value in page.attributes if name == "href" and value.startswith("#s-")]
    assert len(links) == 10
    assert set(links) <= targets
