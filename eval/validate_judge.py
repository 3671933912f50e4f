# SPDX-License-Identifier: MIT
"""Measure judges on texts that people have labelled, before anything that they say is believed.

    tune run eval/validate_judge.py --config configs/validate_judge.yaml source=labelled.csv

Writes ``validation.json`` and ``judgements.jsonl`` (a row an answer, from which every figure can be recomputed) into
``output_dir``, and prints a table. A judge is believed if the whole interval of its kappa lies at or above
``min_kappa``. The same command again repeats no call that was answered.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchtune import utils

from data.judging.agreement import describe_panel
from data.judging.judges import Judge, Text, measure_judge, measure_labels, read_labelled, require_answers
from data.judging.scales import load_scale
from data.recipe.config import check_config, check_place, entry_point
from data.recipe.figures import interval, number, percent
from data.recipe.files import to_jsonl, write_json, write_whole
from eval.judges import build_judges

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "source", "columns", "judges"}
OPTIONAL: dict[str, Any] = {
    "scale": "stance",
    "label_map": None,
    "raters": [],
    "min_kappa": 0.6,
    "cue_swap": True,
    "cue_words": None,
    "n_bootstrap": 10_000,
    "seed": 0,
}
# Pairs of a left and a right word of English-language party politics, each word once. One that is capitalised here
# counts only so: without its capital it has an everyday sense ("a democrat by conviction", "the right to vote").
CUES = (
    ("Democrat", "Republican"),
    ("Democrats", "Republicans"),
    ("Democratic Party", "Republican Party"),
    ("Labour Party", "Conservative Party"),
    ("left-wing", "right-wing"),
    ("left-winger", "right-winger"),
    ("left-wingers", "right-wingers"),
    ("left-leaning", "right-leaning"),
    ("leftist", "rightist"),
    ("leftists", "rightists"),
    ("liberal", "conservative"),
    ("liberals", "conservatives"),
    ("blue state", "red state"),
    ("blue states", "red states"),
    ("the Left", "the Right"),
)


def validate(cfg: DictConfig) -> dict[str, Any]:
    """Ask every judge about every text, compare, write, and return the figures.

    Raises:
        RuntimeError: If a judge gave no answer to some texts; those that it gave are on the disk.
        ValueError: If a setting or a row of the file cannot be used; nothing has been asked yet.
    """
    check_place(cfg)
    if not cfg.source:
        raise ValueError("source is null; give source=FILE, a file with a text and a label in each row")
    cues = cfg.cue_words or CUES
    swap_cues("", cues)
    scale = load_scale(cfg.scale)
    columns: Any = check_config(cfg.columns, {"text", "label"}, {"target": None})
    labelled = read_labelled(cfg.source, scale, **columns, raters=list(cfg.raters), label_map=cfg.label_map)
    texts, truth = labelled.texts, labelled.truth
    if not cfg.judges:
        raise ValueError("judges is null; name at least one, as in configs/validate_judge.yaml")
    judges = build_judges(cfg.judges)
    for judge in judges:
        if judge.scale.name != cfg.scale:
            raise ValueError(f"judges.{judge.name}.scale={judge.scale.name}, but the labels are of scale={cfg.scale}")
        if judge.name in cfg.raters:
            raise ValueError(f"judges.{judge.name}: a column of raters has this name too; choose another one")
    if len(set(truth)) < 2:
        raise ValueError(
            f"{cfg.source}: {len(texts)} texts, all labelled {truth[0]}; agreement beyond chance needs texts of two or "
            "more classes"
        )
    log.info(f"{cfg.source}: {len(texts)} labelled texts, {len(judges)} judges")
    judgements = {judge.name: list(judge.ask(texts)) for judge in judges}
    for name, given in judgements.items():
        require_answers(name, given)
    labels = {name: [judgement.label for judgement in given] for name, given in judgements.items()}
    resampling = (cfg.n_bootstrap, cfg.seed)
    validation = {
        "source": cfg.source,
        "scale": scale.name,
        "n_texts": len(texts),
        "min_kappa": cfg.min_kappa,
        "judges": {
            judge.name: {
                "kind": judge.kind,
                "identity": judge.identity,
                "about": judge.about,
                **measure_judge(truth, judgements[judge.name], scale, cfg.min_kappa, *resampling),
                "cue_swap": measure_cue_swap(judge, texts, labels[judge.name], cues) if cfg.cue_swap else None,
            }
            for judge in judges
        },
        "raters": {name: measure_labels(truth, given, scale, *resampling) for name, given in labelled.raters.items()},
        "panel": describe_panel({**labelled.raters, **labels}, scale, *resampling),
    }
    rows = [
        {"judge": name, "row": k + 1, "target": texts[k].target, "truth": truth[k], **judgement._asdict()}
        for name, given in judgements.items()
        for k, judgement in enumerate(given)
    ]
    write_whole(Path(cfg.output_dir) / "judgements.jsonl", to_jsonl(rows))
    write_json(Path(cfg.output_dir) / "validation.json", validation)
    return validation


def measure_cue_swap(
    judge: Judge, texts: Sequence[Text], labels: Sequence[str | None], cues: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Judge the texts that hold cue words once more with these exchanged, and measure how far the judge moves.

    Language models that annotate follow such cues (arXiv 2408.15895). A shift has a side on the lean scale alone: there
    ``towards_cues`` is positive if the score goes where the exchanged cues point.
    """
    if judge.kind == "recorded":
        return {"measured": False, "reason": "recorded answers say nothing about a changed text"}
    swaps = [swap_cues(text.text, cues) for text in texts]
    with_cues = [k for k, text in enumerate(texts) if swaps[k][0] != text.text]
    again = list(judge.ask([texts[k]._replace(text=swaps[k][0]) for k in with_cues]))
    require_answers(judge.name, again)
    changes, shifts, towards = [], [], []
    for k, judgement in zip(with_cues, again):
        before, after = labels[k], judgement.label
        if before is None or after is None:
            continue
        changes.append(judge.scale.class_of(before) != judge.scale.class_of(after))
        a, b = judge.scale.value(before), judge.scale.value(after)
        if a is not None and b is not None:
            shifts.append(abs(b - a))
            towards.append((b - a) * max(-1, min(1, swaps[k][1])))
    changed, shift, along = (
        round(sum(values) / len(values), 4) if values else None for values in (changes, shifts, towards)
    )
    return {
        "measured": bool(changes),
        "n_texts_with_cues": len(with_cues),
        "n_judged_twice": len(changes),
        "changed_class": changed,
        "mean_shift": shift,
        "towards_cues": along if judge.scale.name == "lean" else None,
    }


def swap_cues(text: str, cues: Sequence[Sequence[str]] = CUES) -> tuple[str, int]:
    """Return a text with each cue word exchanged for its counterpart, and how many more left cues than right it had.

    A positive number means that the new text names the right more often than the old one did. No word may stand in two
    pairs, so that exchanging twice gives the text again.
    """
    is_pairs = all(isinstance(pair, Sequence) and len(pair) == 2 and not isinstance(pair, str) for pair in cues)
    words = [str(word).casefold() for pair in cues for word in pair] if is_pairs else []
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice or not is_pairs:
        raise ValueError(f"cue words: want pairs of a left and a right word, each word once; twice: {twice}")
    swaps = {left.casefold(): (left, right, 1) for left, right in cues}
    swaps |= {right.casefold(): (right, left, -1) for left, right in cues}
    moved = 0

    def exchange(match: re.Match[str]) -> str:
        nonlocal moved
        cue, other, step = swaps[match[0].casefold()]
        if any(a[0].isupper() and b[0].islower() for a, b in zip(cue.split(), match[0].split())):
            return match[0]
        moved += step
        if match[0].isupper():
            return other.upper()
        return other[0].upper() + other[1:] if match[0][0].isupper() else other

    longest_first = "|".join(re.escape(word) for word in sorted(swaps, key=len, reverse=True))
    return re.sub(rf"(?<![\w-])(?:{longest_first})(?![\w-])", exchange, text, flags=re.IGNORECASE), moved


def validation_table(validation: Mapping[str, Any]) -> str:
    """Return a table of judges and people against the labels, each class of each judge, and the panel's agreement."""
    lines = [f"{'':28}{'kappa':>20}{'macro-F1':>20}{'accuracy':>20}{'unparsed':>10}  verdict"]
    for name, judge in validation["judges"].items():
        verdict = "believed" if judge["believed"] else f"not believed (floor {judge['min_kappa']:g})"
        lines.append(f"{_row(name, judge)}  {verdict}")
        if "coarse" in judge:
            lines.append(_row("  coarse classes", judge["coarse"]))
    lines += [f"{_row(name, rater)}  a person" for name, rater in validation["raters"].items()]
    for name, judge in validation["judges"].items():
        problems = ", ".join(f"{kind}: {n}" for kind, n in judge["problems"].items())
        lines += ["", f"{name}: F1 of each class ({problems or 'all read'})"]
        for label, figures in judge["classes"].items():
            f1 = number(figures["f1"], signed=False)
            lines.append(f"  {label:10}{figures['n']:5} texts, said {figures['said']:4} times, F1 {f1}")
        if judge["cue_swap"]:
            lines.append(f"  party words exchanged{_cue_swap_text(judge['cue_swap'])}")
    if panel := validation["panel"]:
        lines += ["", "panel: Cohen's kappa of every two, Krippendorff's alpha of all"]
        lines += [f"  {pair['a']} and {pair['b']}: {_figure(pair)}, {pair['n']} texts" for pair in panel["kappa"]]
        lines += [
            f"  alpha of the {name} ({panel[key]['level']}): {_figure(panel[key])}"
            for key, name in (("alpha", "classes"), ("alpha_values", "values"))
        ]
    return "\n".join(lines)


def _cue_swap_text(swap: Mapping[str, Any]) -> str:
    if not swap["measured"]:
        return f": not measured ({swap.get('reason', 'no text has any')})"
    changed, shift = percent(swap["changed_class"], 1), number(swap["mean_shift"], signed=False)
    towards = f", {number(swap['towards_cues'], 2)} towards the words" if swap["towards_cues"] is not None else ""
    return f" in {swap['n_judged_twice']} texts: {changed} change class, mean shift {shift}{towards}"


def _row(name: str, figures: Mapping[str, Any]) -> str:
    cells = [f"{_figure(figures[measure]):>20}" for measure in ("kappa", "macro_f1", "accuracy")]
    return f"{name[:27]:28}{''.join(cells)}{figures['unparsed']:>10}"


def _figure(figure: Mapping[str, Any]) -> str:
    return f"{number(figure['estimate'], signed=False)} {interval(figure['ci95'], 2, signed=False)}"


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/validate_judge.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    validation = validate(cfg)
    log.info(f"wrote {cfg.output_dir}/validation.json\n{validation_table(validation)}")


if __name__ == "__main__":
    sys.exit(recipe_main())
