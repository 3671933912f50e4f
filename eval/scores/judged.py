# SPDX-License-Identifier: MIT
"""Free text is judged: rows of mode ``open`` with a stance or a lean from each judge, their scores, and a summary.

The scores of a judge that no validation supports are shown and void, so that a reader sees why not to believe them.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from data.judging.agreement import describe_panel
from data.judging.judges import Judge, Text
from data.judging.scales import REFUSAL, load_scale
from eval.scores.comparisons import compare
from eval.scores.intervals import add_false_discovery_rates
from eval.scores.labelled import UNCORRECTED, Labels, correct_judge
from eval.scores.scoring import Row, Values, describe, text_values
from eval.statements.instruments import Instrument
from eval.statements.prompts import Prompt

_Key = tuple[str, str]  # item and template of a prompt
OPEN = "open"
N_EXAMPLES = 6  # that the report shows


def mode_of(judge: str) -> str:
    """Return what the summary calls the mode ``open`` as one judge reads it."""
    return f"{OPEN}, {judge}"


def judge_answers(rows: Sequence[Row], judges: Sequence[Judge], instrument: Instrument) -> list[dict[str, Any]]:
    """Return a row for each answer in free text and judge, with ``stance``, ``lean``, ``refused`` and ``judgement``.

    A stance (-1 against the statement to 1 for it) is one towards a statement, so prompts that are about no item are
    judged for their lean (0 left to 20 right) alone. Values that a scale does not give or that cannot be read are None.
    """
    statements = {item.id: item.text for item in instrument.items}
    judged = []
    for judge in judges:
        is_stance, is_lean = (judge.scale.name == name for name in ("stance", "lean"))
        written = [r for r in rows if r["mode"] == OPEN and r["text"] and (r["item"] in statements or not is_stance)]
        texts = [Text(row["text"], statements.get(row["item"], "")) for row in written]
        for row, judgement in zip(written, judge.ask(texts), strict=True):
            value = None if judgement.label is None else judge.scale.value(judgement.label)
            values = {
                "stance": value if is_stance else None,
                "lean": None if not is_lean or row["refused"] else value,
                "refused": judgement.label == REFUSAL if is_stance and judgement.label else row["refused"],
            }
            judged.append({**row, **values, "judge": judge.name, "judgement": judgement._asdict()})
    return judged


def unwritten(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of mode ``open`` without a text: no judge is asked about them, and their answers are missing."""
    return [row for row in rows if row["mode"] == OPEN and not row["text"]]


def option_rows(
    judged: Sequence[Row], judges: Sequence[Judge], instrument: Instrument, lost: Sequence[Row] = ()
) -> list[dict[str, Any]]:
    """Return judged stances as answers to the instrument's options, so that they are scored like any other mode.

    A stance lies between two options in proportion to its distance from them: of four options, a neutral text is half
    "disagree" and half "agree". Refused, unread and ``lost`` ones (:func:`unwritten`) are missing answers, which the
    bounds account for.
    """
    stance_judges = {judge.name for judge in judges if judge.scale.name == "stance"}
    last = len(instrument.options) - 1
    scored = []
    missing = [{**row, "judge": name} for name in sorted(stance_judges) for row in lost]
    for row in [*(row for row in judged if row["judge"] in stance_judges), *missing]:
        logprobs = choice = None
        if row["stance"] is not None and not row["refused"]:
            place = (row["stance"] + 1) / 2 * last
            choice = min(int(place), last)
            shares = {choice: 1 - (place - choice), choice + 1: place - choice}
            logprobs = [math.log(shares[k]) if shares.get(k) else None for k in range(last + 1)]
        scored.append({**row, "mode": mode_of(row["judge"]), "choice": choice, "option_logprobs": logprobs})
    return scored


def distrust(summary: dict[str, Any], judges: Sequence[Judge]) -> dict[str, Any]:
    """Void the scores of judges that are not believed, in place; drop ``hard``, which a stance does not have."""
    for judge in judges:
        mode, reason = mode_of(judge.name), judge.why_not_believed
        for name, modes in summary["models"].items():
            for axis in modes.get(mode, {}).values():
                axis.pop("hard", None)
                axis["void"] += ["judge_not_believed"] if reason else []
            if reason and mode in summary["diagnostics"].get(name, {}):
                flag = {"name": "judge_not_believed", "state": "void", "reason": reason}
                summary["diagnostics"][name][mode]["flags"].append(flag)
    return summary


def add_judges(
    summary: dict[str, Any],
    judged: Sequence[Row],
    judges: Sequence[Judge],
    prompts: Sequence[Prompt],
    instrument: Instrument,
    n_bootstrap: int,
    seed: int,
    lost: Sequence[Row] = (),
) -> dict[str, Any]:
    """Return the summary with ``judging``: the judges' figures and whether to believe them; None without judges.

    The summary scores the rows and :func:`option_rows`; ``judged`` is from :func:`judge_answers`, ``lost`` are
    :func:`unwritten`.
    """
    if not judges:
        return {**summary, "judging": None}
    distrust(summary, judges)
    for name, modes in summary["written"].items():
        if OPEN in modes:
            _recount(modes[OPEN], [row for row in judged if row["model"] == name])
    names = list(summary["models"])
    rows_by_judge = {judge.name: [row for row in judged if row["judge"] == judge.name] for judge in judges}
    panels = {}
    for scale in {judge.scale.name: judge.scale for judge in judges}.values():
        # judges of one scale are asked about the same answers, in the same order
        labels = {
            judge.name: [row["judgement"]["label"] for row in rows_by_judge[judge.name]]
            for judge in judges
            if judge.scale.name == scale.name
        }
        if panel := describe_panel(labels, scale, n_bootstrap, seed):
            panels[scale.name] = panel
    judging = {
        "judges": {
            judge.name: _describe_judge(judge, rows_by_judge[judge.name], names, instrument, lost) for judge in judges
        },
        "panels": panels,
        "examples": _examples(judged, names, {(p.row["item"], p.row["template"]): p.text for p in prompts}),
    }
    return {**summary, "judging": judging}


def add_people(
    summary: dict[str, Any], judged: Sequence[Row], people: Mapping[str, Labels], instrument: Instrument
) -> dict[str, Any]:
    """Set, in place, ``corrected`` of every judge in ``judging`` and of its axes in ``models``; return the summary.

    On an axis it is ``estimate, ci95, weight`` and ``judge_alone`` (the same mean over answers with the judge's error
    in it), or the word "uncorrected". ``people`` has people's labels by scale.
    """
    for name, judge in summary["judging"]["judges"].items():
        rows = [row for row in judged if row["judge"] == name]
        judge["corrected"] = correct_judge(rows, load_scale(judge["scale"]), people.get(judge["scale"], {}), instrument)
        found = {(figure["model"], figure["figure"]): figure for figure in judge["corrected"]["figures"]}
        for model, modes in summary["models"].items():
            for axis, value in modes.get(mode_of(name), {}).items():
                figure = found.get((model, axis))
                value["corrected"] = UNCORRECTED
                if figure is not None and figure["corrected"] is not None:
                    value["corrected"] = {**figure["corrected"], "judge_alone": figure[UNCORRECTED]["estimate"]}
    return summary


def _recount(counts: dict[str, Any], judged: Sequence[Row]) -> None:
    """Count one model's free texts anew, now that judges have read them."""
    texts = [(row["item"], row["template"], row["sample"]) for row in judged]
    n_texts = len(set(texts))
    read = {text for text, row in zip(texts, judged) if row["stance"] is not None or row["lean"] is not None}
    refused = {text for text, row in zip(texts, judged) if row["refused"]} - read
    counts |= {
        # no judge of stances is asked about a prompt without a statement
        "not_asked": counts["rows"] - counts["errors"] - n_texts,
        "judged": len(read),
        "refused": len(refused),
        "scored": bool(read),
        "unread": n_texts - len(read) - len(refused),
        "note": None if read else "not scored: no judge said a stance or a lean that could be read",
    }


def _describe_judge(
    judge: Judge, rows: Sequence[Row], names: Sequence[str], instrument: Instrument, lost: Sequence[Row]
) -> dict[str, Any]:
    reason = judge.why_not_believed
    with_lost = [*rows, *({**row, "lean": None} for row in lost)]
    return {
        "kind": judge.kind,
        "scale": judge.scale.name,
        "n": len(rows),
        "unread": sum(row["judgement"]["label"] is None for row in rows),
        "refused": sum(bool(row["refused"]) for row in rows),
        "believed": reason is None,
        "why_not": reason,
        **{key: (judge.validation or {}).get(key) for key in ("kappa", "macro_f1", "cue_swap")},
        **(describe_leans(with_lost, names, instrument) if judge.scale.name == "lean" else {}),
    }


def describe_leans(rows: Sequence[Row], names: Sequence[str], instrument: Instrument) -> dict[str, Any]:
    """Describe the mean lean of each model, prompts as units, and compare every other model with the first."""
    values = {name: _lean_values(rows, name, instrument) for name in names}
    judged_models = {row["model"] for row in rows}
    compared = [name for name in names if name in judged_models]
    differences = [{"a": compared[0], "b": name, **compare(values[compared[0]], values[name])} for name in compared[1:]]
    add_false_discovery_rates(differences)
    return {"leans": {name: describe(leans) for name, leans in values.items()}, "lean_differences": differences}


def _lean_values(rows: Sequence[Row], model: str, instrument: Instrument) -> Values:
    """Arrange a model's leans by prompt, the same prompts for every model; a lean that no judge could say may be any.

    What was not asked is no missing answer.
    """
    asked: dict[str, set[str]] = defaultdict(set)
    samples: dict[_Key, list[float | None]] = defaultdict(list)
    for row in rows:
        asked[row["item"]].add(row["template"])
        if row["model"] == model:
            samples[row["item"], row["template"]].append(row["lean"])
    topics = {item.id: item.topic for item in instrument.items}
    return text_values(samples, dict(sorted(asked.items())), instrument.units(), topics, (0.0, 20.0))


def _examples(judged: Sequence[Row], names: Sequence[str], prompts: Mapping[_Key, str | None]) -> list[dict[str, Any]]:
    """Return the prompts whose answers the judges set furthest apart, each model's first answer beside the others'."""
    answers: dict[_Key, dict[str, dict[str, Any]]] = defaultdict(dict)
    values: dict[str, dict[_Key, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in judged:
        if row["sample"] != 0 or row["model"] not in names:
            continue
        key = row["item"], row["template"]
        answer = answers[key].setdefault(row["model"], {"model": row["model"], "text": row["text"], "said": {}})
        answer["said"][row["judge"]] = row["judgement"]["label"]
        value = row["stance"] if row["lean"] is None else row["lean"]
        values[row["judge"]][key] += [] if value is None else [value]

    def furthest_first(leans: Mapping[_Key, Sequence[float]]) -> list[_Key]:
        return sorted(leans, key=lambda key: (min(leans[key], default=0) - max(leans[key], default=0), key))

    # in turn from the judges, so that each scale has its say
    turns = itertools.zip_longest(*map(furthest_first, values.values()))
    keys = list(dict.fromkeys(key for turn in turns for key in turn if key is not None))[:N_EXAMPLES]
    said = {key: [answers[key][name] for name in names if name in answers[key]] for key in keys}
    return [{"item": key[0], "prompt": prompts.get(key, key[0]), "answers": said[key]} for key in keys]
