# SPDX-License-Identifier: MIT
"""Measure judges on texts that people have labelled, before anything that they say is believed.

    tune run eval/validate_judge.py --config configs/validate_judge.yaml source=labelled.csv

Writes ``validation.json`` and ``judgements.jsonl`` (a row an answer, from which every figure can be recomputed) into
``output_dir``, and prints a table. A judge is believed if the whole interval of its kappa lies at or above
``min_kappa``. The same command again repeats no call that was answered.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchtune import config, utils

from data.judging.agreement import describe_agreement, reaches_floor
from data.judging.labelled_texts import LabelledTexts, Text, read_labelled
from data.judging.panel import describe_panel
from data.judging.scales import JudgeScale, load_scale
from data.recipe.config import check_config, plain_errors
from data.recipe.files import to_jsonl, write_json, write_whole
from eval.cue_words import CUES, swap_cues
from eval.judges import Judge, Judgement, build_judges
from eval.pages.validation_table import validation_table

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


def validate(cfg: DictConfig) -> dict[str, Any]:
    """Ask every judge about every text, compare, write, and return what was found.

    Raises:
        FileNotFoundError: If the labelled file or an instruction is not there.
        ValueError: If the labels are not of the scale, or a judge is of another scale.
    """
    scale, columns = load_scale(cfg.scale), check_config(cfg.columns, {"text", "label"}, {"target": None})
    labelled = read_labelled(cfg.source, scale, **columns, raters=list(cfg.raters), label_map=cfg.label_map)
    judges = build_judges(cfg.judges)
    for judge in judges:
        if judge.scale.name != cfg.scale:
            raise ValueError(f"judges.{judge.name}.scale={judge.scale.name}, but the labels are of scale={cfg.scale}")
        if judge.name in cfg.raters:
            raise ValueError(f"judges.{judge.name}: a column of raters has this name too; choose another one")
    log.info(f"{cfg.source}: {len(labelled.texts)} labelled texts, {len(judges)} judges")
    said = {judge.name: list(judge.ask(labelled.texts)) for judge in judges}
    options = (scale, cfg.n_bootstrap, cfg.seed)
    found = {
        "source": cfg.source,
        "scale": scale.name,
        "n_texts": len(labelled.texts),
        "min_kappa": cfg.min_kappa,
        "judges": {
            judge.name: {
                "kind": judge.kind,
                "identity": judge.identity,
                "about": judge.about,
                **judge_figures(labelled.truth, said[judge.name], *options, cfg.min_kappa),
                "cue_swap": _cue_swap(judge, labelled.texts, said[judge.name], cfg) if cfg.cue_swap else None,
            }
            for judge in judges
        },
        "raters": {name: _against(labelled.truth, given, *options) for name, given in labelled.raters.items()},
        "panel": describe_panel(
            {**labelled.raters, **{name: [x.label for x in given] for name, given in said.items()}}, *options
        ),
    }
    folder = Path(cfg.output_dir)
    write_whole(folder / "judgements.jsonl", to_jsonl(_rows(labelled, said)))
    write_json(folder / "validation.json", found)
    return found


def judge_figures(
    truth: Sequence[str], said: Sequence[Judgement], scale: JudgeScale, n_bootstrap: int, seed: int, min_kappa: float
) -> dict[str, Any]:
    """Return the figures of one judge against the truth, and whether it may be believed.

    Args:
        truth: Class of each text.
        said: The judge's answers, in the same order; one without a label counts as wrong.
        scale: Of both.
        n_bootstrap: Resamples of an interval.
        seed: Of the draws.
        min_kappa: The floor.
    """
    figures = _against(truth, [x.label for x in said], scale, n_bootstrap, seed)
    problems = [x.problem.partition(":")[0] for x in said if x.problem]
    return {
        "believed": reaches_floor(figures["kappa"], min_kappa),
        "min_kappa": min_kappa,
        "problems": {kind: problems.count(kind) for kind in sorted(set(problems))},
        **figures,
    }


def _against(
    truth: Sequence[str], labels: Sequence[str | None], scale: JudgeScale, n_bootstrap: int, seed: int
) -> dict[str, Any]:
    said = [None if label is None else scale.class_of(label) for label in labels]
    figures = describe_agreement(truth, said, scale.classes, n_bootstrap, seed)
    if scale.coarse:
        coarse = [scale.coarse[x] for x in truth], [scale.coarse.get(x) for x in said]
        figures["coarse"] = describe_agreement(*coarse, list(dict.fromkeys(scale.coarse.values())), n_bootstrap, seed)
    return figures


def _cue_swap(judge: Judge, texts: Sequence[Text], said: Sequence[Judgement], cfg: DictConfig) -> dict[str, Any]:
    """Judge the texts that hold cue words once more with these exchanged."""
    if judge.kind == "recorded":
        return {"measured": False, "reason": "recorded answers say nothing about a changed text"}
    swapped = [(k, *swap_cues(text.text, cfg.cue_words or CUES)) for k, text in enumerate(texts)]
    swapped = [(k, new, moved) for k, new, moved in swapped if new != texts[k].text]
    again = list(judge.ask([texts[k]._replace(text=new) for k, new, _ in swapped]))
    shifts, towards, changed = [], [], 0
    for (k, _, moved), after in zip(swapped, again):
        before = said[k].label
        if before is None or after.label is None:
            continue
        a, b = judge.scale.value(before), judge.scale.value(after.label)
        changed += judge.scale.class_of(before) != judge.scale.class_of(after.label)
        if a is not None and b is not None:
            shifts.append(abs(b - a))
            towards.append((b - a) * ((moved > 0) - (moved < 0)))
    n_both = sum(said[k].label is not None and after.label is not None for (k, _, _), after in zip(swapped, again))
    return {
        "measured": n_both > 0,
        "n_texts_with_cues": len(swapped),
        "n_judged_twice": n_both,
        "changed_class": round(changed / n_both, 4) if n_both else None,
        "mean_shift": _mean(shifts),
        # on the lean scale alone a shift has a side: positive goes where the exchanged cues point
        "towards_cues": _mean(towards) if judge.scale.name == "lean" else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _rows(labelled: LabelledTexts, said: dict[str, list[Judgement]]) -> list[dict[str, Any]]:
    return [
        {"judge": name, "row": k + 1, "target": labelled.texts[k].target, "truth": labelled.truth[k], **x._asdict()}
        for name, given in said.items()
        for k, x in enumerate(given)
    ]


@config.parse
@plain_errors
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/validate_judge.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    config.log_config(recipe_name="validate_judge", cfg=cfg)
    found = validate(cfg)
    log.info(f"wrote {cfg.output_dir}/validation.json\n{validation_table(found)}")


if __name__ == "__main__":
    sys.exit(recipe_main())
