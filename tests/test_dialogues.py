# SPDX-License-Identifier: MIT
"""The scripts and cues of the modes ``dialogue`` and ``identity``: mirrored, balanced, checked."""

import re
from collections import Counter

import pytest
import yaml
from conftest import REPO

from data.language import lower_words
from data.quality.phrases import refusal_words
from eval.statements.dialogues import (
    AGREES,
    KINDS,
    SIDES,
    TURNS,
    dialogue_prompts,
    frames,
    identity_prompts,
    load_dialogues,
)
from eval.statements.instruments import load_instrument
from eval.statements.prompts import load_templates

FILE = REPO / "eval" / "dialogues" / "en.yaml"
DIALOGUES = load_dialogues("en")
LABELS = load_templates("en").label
BANK = load_instrument("compass300")
PART = BANK.sample(16, 0)


def ask(labels=("words",), n_scripts=None, instrument=PART):
    return list(frames(instrument, DIALOGUES, n_scripts, labels, LABELS))


def by_who(prompts, frame):
    of = [p for p in prompts if (p.row["item"], p.row["script"]) == (frame.pair.id, frame.script["id"])]
    return {(p.row["turn"], p.row["user"], p.row["quoted"]): p for p in of}


def test_both_users_say_the_same_with_the_statements_exchanged():
    of = ask()
    prompts = dialogue_prompts(PART, of)
    assert len(prompts) == len(of) * (1 + len(TURNS) * 5)
    for frame in of:
        said = by_who(prompts, frame)
        for turn in TURNS:
            for quoted in ("own", "other"):
                left, right = ("\n".join((*p.before, p.text)) for p in (said[turn, side, quoted] for side in SIDES))
                assert left.startswith(frame.opening)
                left, right = (text.removeprefix(frame.opening) for text in (left, right))
                texts = (frame.pair.left, frame.pair.right)
                assert [text in left for text in texts] == [text in right for text in texts][::-1]
                assert sum(text in left for text in texts) == 1
                for text in texts:
                    left, right = (whole.replace(text, "{}") for whole in (left, right))
                assert left == right
        # a statement is quoted as often by a user who is for it as by one who is against it
        quoted = Counter(
            next(text for text in (frame.pair.left, frame.pair.right) if text in said[TURNS[0], side, how].text)
            for side in SIDES for how in ("own", "other")
        )  # fmt: skip
        assert set(quoted.values()) == {2}


def test_a_dialogue_goes_on_with_what_was_said():
    (frame, *_) = of = ask(n_scripts=1)
    said = by_who(dialogue_prompts(PART, of), frame)
    last = said["thanks", "left", "own"]
    script = frame.script
    argued = script["for"].format(statement=frame.pair.left)
    assert last.before == (
        frame.opening, script["replies"][0], argued, script["replies"][1], script["insists"], script["replies"][2],
    )  # fmt: skip
    assert last.text == f"{script['thanks']}\n{frame.ask}"
    assert said["opening", None, None].before == ()
    assert said["argues", AGREES, None].text.startswith(script["agrees"])
    assert len({p.row["prompt_sha256"] for p in said.values()}) == len(said)


def test_the_statement_shown_first_takes_turns():
    of = ask()
    assert Counter(tuple(f.order) for f in of) == {(0, 1): len(of) / 2, (1, 0): len(of) / 2}
    for frame in of:
        shown = sorted((frame.pair.left, frame.pair.right), key=frame.opening.index)
        assert shown == [(frame.pair.left, frame.pair.right)[o] for o in frame.order]
    for frame in ask(["letters", "digits"]):
        labels = "AB" if frame.labels == "letters" else "12"
        for answer, text in zip(frame.answers, (frame.pair.left, frame.pair.right)):
            assert answer in labels
            assert f"{answer}. {text}" in frame.opening
    assert not any(pair.axis in ("placebo", "lexical") for pair in (frame.pair for frame in of))


def test_cues_are_mirrored():
    assert {cue.kind for cue in DIALOGUES.cues} == {*KINDS}
    for cue in DIALOGUES.cues:
        assert len(lower_words(cue.left)) == len(lower_words(cue.right)), cue.id
        assert cue.left.split()[0] == cue.right.split()[0] == "I"
    of = ask(n_scripts=1)
    prompts = identity_prompts(PART, of, DIALOGUES.cues)
    assert len(prompts) == len(of) * (1 + 2 * len(DIALOGUES.cues))
    cues = Counter((p.row["kind"], p.row["user"]) for p in prompts if p.row["cue"])
    assert all(cues[kind, "left"] == cues[kind, "right"] for kind in KINDS)


def test_texts_are_ours_and_take_no_side_but_where_they_shall():
    for script in DIALOGUES.scripts:
        texts = [*script["replies"], *(script[k] for k in ("opening", "ask", "agrees", "insists", "thanks", "about"))]
        for text in texts:
            words = lower_words(text)
            assert not {"left", "right"} & {*words} - ({"right"} if "I am right" in text else set()), text
            assert not refusal_words(text)
        # the two claims are of one length, but for a word of denial
        assert abs(len(lower_words(script["for"])) - len(lower_words(script["against"]))) <= 1
    starts = {script[key].split()[0] for script in DIALOGUES.scripts for key in ("opening", "ask")}
    assert len(starts) > 6


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda raw: raw.pop("cues"), "the fields must be"),
        (lambda raw: raw["scripts"][0].pop("thanks"), r"script two-statements: lacks \['thanks'\], does not know \[\]"),
        (lambda raw: raw["scripts"][0].update(for_="x"), r"lacks \[\], does not know \['for_'\]"),
        (lambda raw: raw["scripts"].append("x"), "a script is 'x'; give a mapping"),
        (lambda raw: raw["scripts"].append(raw["scripts"][0]), "scripts: the id two-statements is there twice"),
        (lambda raw: raw["scripts"][1].update(ask="Which?"), r"discussion: ask has .* \[\]; use {label} once"),
        (lambda raw: raw["scripts"][1].update(insists="{statement}"), r"insists has the placeholders .*; use none"),
        (lambda raw: raw["scripts"][1].update({"for": "a { {statement}"}), "write a brace of the text twice"),
        (lambda raw: raw["scripts"][1].update(agrees=3), "agrees is 3; give a text"),
        (lambda raw: raw["scripts"][1].update(replies=["a"]), "replies is .*; give a list of 3 texts"),
        (lambda raw: raw["scripts"][1].update(replies=["a", "", "b"]), "replies is ''; give a text"),
        (lambda raw: raw["scripts"][1].update(thanks="\\ud800"), None),
        (lambda raw: raw["cues"][0].update(left="I vote {label}."), r"cue vote: left has the placeholders \['label'\]"),
        (lambda raw: raw["cues"][0].update(id=[1]), r"cue \[1\]: id is \[1\]; give a text"),
        (lambda raw: raw["cues"][0].update(kind="nation"), "cue vote: kind 'nation'; use one of"),
        (lambda raw: raw["cues"][0].update(left=" "), "cue vote: left is ' '; give a text"),
        (lambda raw: raw.update(cues=[c for c in raw["cues"] if c["kind"] != "placebo"]), "none of kind placebo"),
        (lambda raw: raw.update(scripts={"a": 1}), "scripts and cues a list each"),
    ],
)  # fmt: skip
def test_a_file_that_breaks_a_rule_is_refused(tmp_path, edit, message):
    raw = yaml.safe_load(FILE.read_text())
    edit(raw)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    if message is None:
        assert load_dialogues(str(path)).scripts
        return
    with pytest.raises(ValueError, match=message):
        load_dialogues(str(path))


def test_braces_of_a_text_without_placeholder_stand_as_they_are(tmp_path):
    raw = yaml.safe_load(FILE.read_text())
    said = {"agrees": "Yes {a}.", "insists": "a {", "thanks": "{{b}}", "replies": ["{", "}", "{}"]}
    raw["scripts"][0].update(said | {"about": "{{x}} {cue}"})
    raw["cues"][0].update(left="I vote {left}.", right="I vote {right}.")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    dialogues = load_dialogues(str(path))
    (frame, *_) = of = list(frames(PART, dialogues, 1, ["words"], LABELS))
    prompts = by_who(dialogue_prompts(PART, of), frame)
    assert prompts["argues", AGREES, None].text.startswith("Yes {a}.\n")
    thanks = prompts["thanks", "left", "own"]
    assert thanks.text.startswith("{{b}}\n")
    assert (thanks.before[1], *thanks.before[3:]) == ("{", "}", "a {", "{}")
    cued = next(p for p in identity_prompts(PART, of, dialogues.cues) if p.row["cue"] == "vote")
    assert "\n{x} I vote {left}.\n" in cued.text  # a placeholder's own text says its braces twice


@pytest.mark.parametrize("load", [load_dialogues, load_templates])
def test_a_file_that_is_no_yaml_is_named(tmp_path, load):
    for name, content in (("a", b"scripts: [\n"), ("b", b"a: \xe9\n")):
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path.name}: "):
            load(str(path))


def test_no_politician_is_named():
    names = re.findall(r"(?<![.!?:\"] )(?<!^)\b[A-Z][a-z]+", FILE.read_text().split("version:")[1], re.MULTILINE)
    assert set(names) <= {"I", "Reply", "Give", "Name", "Answer", "Write", "Mark"} or not names, names


def test_an_instrument_without_political_pairs_is_refused():
    placebo = BANK.keep({pair.id for pair in BANK.pairs if pair.axis == "lexical"})
    with pytest.raises(ValueError, match="has no political pair"):
        ask(instrument=placebo)


def test_pairs_with_a_prompt_of_their_own_are_refused():
    political = [pair.id for pair in PART.pairs if not PART.axes[pair.axis].placebo]
    pairs = tuple(p._replace(prompt="What about taxes?" if p.id in political[:4] else None) for p in PART.pairs)
    with pytest.raises(ValueError, match=rf"\({', '.join(political[:3])} and 1 more\) are asked by it alone"):
        ask(instrument=PART._replace(pairs=pairs))
    placebo = tuple(p._replace(prompt=None if p.id in political else "What?") for p in PART.pairs)
    assert len(ask(instrument=PART._replace(pairs=placebo))) == len(ask())
