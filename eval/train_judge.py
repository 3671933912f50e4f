# SPDX-License-Identifier: MIT
"""Fit a judge that needs no API: a linear head on a frozen sentence encoder, from texts that people have labelled.

    tune run eval/train_judge.py --config configs/train_judge.yaml source=labelled.csv

Writes ``judge.json``, ``head.safetensors``, ``README.md`` (its card) and ``validation.json`` into ``output_dir``. The
figures are those of topics that were held out: every text is read by a head that was fitted, and whose settings were
chosen, without any text of its topic. The judge itself is then fitted on all texts. Config and report take it as
``eval.judges.trained_judge``, under the same floor as every judge.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from safetensors.numpy import save
from torchtune import config, utils

from data.judging.judges import Judgement, measure_judge, read_labelled
from data.judging.scales import JudgeScale, load_scale
from data.judging.trained import FORMS, Setting, choose, cross_validate, embed_texts, fit, topic_folds
from data.pairs.rows import read_records
from data.recipe.config import check_config, check_place, entry_point
from data.recipe.figures import interval, number
from data.recipe.files import write_json, write_whole
from eval.judges import encoder_identity, trained_judge

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "source", "columns", "encoder"}
OPTIONAL: dict[str, Any] = {
    "scale": "stance",
    "label_map": None,
    "n_folds": 10,
    "strengths": [0.3, 1, 3, 10, 30, 100],
    "min_kappa": 0.6,
    "n_bootstrap": 10_000,
    "seed": 0,
}


def train(cfg: DictConfig) -> dict[str, Any]:
    """Fit and measure the judge, write its files, and return its validation."""
    scale = load_scale(cfg.scale)
    if not {*scale.classes} <= {*scale.labels}:
        raise ValueError(f"scale={scale.name}: its labels are numbers and people name sides; use scale=coverage")
    columns: Any = check_config(cfg.columns, {"text", "label"}, {"target": None, "topic": None})
    topic = columns.pop("topic") or columns.target
    if topic is None:
        raise ValueError(
            "columns.topic=null and columns.target=null: name the column of topics, which are held out whole"
        )
    if not cfg.strengths or min(cfg.strengths) <= 0:
        raise ValueError(f"strengths={list(cfg.strengths)}; give numbers above 0")
    if cfg.n_folds < 2:
        raise ValueError(f"n_folds={cfg.n_folds}; use 2 or more")
    labelled = read_labelled(cfg.source, scale, **columns, label_map=cfg.label_map)
    topics = _topics(cfg.source, topic)
    in_fold = topic_folds(topics, cfg.n_folds, cfg.seed)
    classes = np.array([scale.classes.index(name) for name in labelled.truth])
    counts = Counter(labelled.truth)
    if rare := [name for name in scale.classes if counts[name] < 2]:
        log.warning(f"{cfg.source}: fewer than two texts of {', '.join(rare)}; the judge will hardly say that")
    n_words = sum(len(text.text.split()) for text in labelled.texts)
    log.info(
        f"{cfg.source}: {len(classes)} labelled texts ({n_words} words) on {len(set(topics))} topics; encoding them"
    )
    vectors = embed_texts(config.instantiate(cfg.encoder), labelled.texts)
    forms = FORMS if columns.target else FORMS[:1]
    settings = [Setting(form, strength) for form in forms for strength in cfg.strengths]
    log.info(f"{cfg.n_folds} folds of topics, {len(settings)} settings each")
    held_out = cross_validate(vectors, classes, len(scale.classes), topics, settings, in_fold, cfg.seed)
    setting = choose(vectors, classes, len(scale.classes), topics, settings, cfg.seed)
    head = fit(vectors.form(setting.form), classes, len(scale.classes), setting.strength)
    content = save({"weights": head.weights.astype(np.float32), "bias": head.bias.astype(np.float32)})
    encoder: Any = OmegaConf.to_container(cfg.encoder, resolve=True)
    about = {"scale": scale.name, "classes": scale.classes, "encoder": encoder, "setting": setting._asdict()}
    about |= {"encoder_identity": encoder_identity(encoder)}
    folder = Path(cfg.output_dir)
    write_whole(folder / "head.safetensors", content)
    write_json(folder / "judge.json", about)
    judge = trained_judge("trained", str(folder))
    said = [Judgement(scale.classes[k], None, None, str(folder)) for k in held_out.classes]
    measured = measure_judge(labelled.truth, said, scale, cfg.min_kappa, cfg.n_bootstrap, cfg.seed)
    identity = {"kind": judge.kind, "identity": judge.identity, "about": judge.about}
    folds = [{"n_texts": int((in_fold == k).sum()), **chosen._asdict()} for k, chosen in enumerate(held_out.settings)]
    validation = {
        "source": cfg.source,
        "scale": scale.name,
        "n_texts": len(classes),
        "n_topics": len(set(topics)),
        "held_out": f"{cfg.n_folds} folds of whole topics ({topic}); settings chosen inside each fold's training texts",
        "folds": folds,
        "min_kappa": cfg.min_kappa,
        "judges": {"trained": {**identity, **measured, "cue_swap": None}},
    }
    write_json(folder / "validation.json", validation)
    write_whole(folder / "README.md", card(validation, about, counts, scale))
    return validation


def _topics(source: str, column: str) -> list[str]:
    """Return the topic of each row; a row without one is an error."""
    topics = []
    for row_number, row in read_records(source):
        if not str(row.get(column) or "").strip():
            raise ValueError(f"{source} row {row_number}: {column} is empty or not there; every text needs a topic")
        topics.append(str(row[column]))
    return topics


def card(validation: Mapping[str, Any], about: Mapping[str, Any], counts: Mapping[str, int], scale: JudgeScale) -> str:
    """Return the judge's card in Markdown: what it was fitted on, and how far it agrees with people."""
    found = validation["judges"]["trained"]
    verdict = "believed" if found["believed"] else "not believed"
    lines = [
        f"# A judge of {scale.name}",
        "",
        f"A linear head on a frozen sentence encoder, fitted on {validation['n_texts']} texts on "
        f"{validation['n_topics']} topics that people have labelled. It is **{verdict}**: the floor of kappa is "
        f"{validation['min_kappa']:g}.",
        "",
        f"Measured on held-out topics: {validation['held_out']}. The figures speak for texts like these.",
        "",
        "| | kappa | macro-F1 | accuracy |",
        "|---|---|---|---|",
    ]
    tables = {f"{len(scale.classes)} classes": found} | (
        {"coarse classes": found["coarse"]} if "coarse" in found else {}
    )
    for name, figures in tables.items():
        cells = [
            f"{number(figures[key]['estimate'], signed=False)} {interval(figures[key]['ci95'], signed=False)}"
            for key in ("kappa", "macro_f1", "accuracy")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| label | means | texts | F1 |", "|---|---|---|---|"]
    for name in scale.classes:
        f1 = number(found["classes"][name]["f1"], signed=False)
        lines.append(f"| {name} | {scale.meanings[name]} | {counts.get(name, 0)} | {f1} |")
    form, strength = about["setting"]["form"], about["setting"]["strength"]
    lines += ["", f"Encoder: `{json.dumps(about['encoder'])}`. Features: {form}; strength {strength:g}.", ""]
    return "\n".join(lines)


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/train_judge.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL, components={"encoder"})
    config.log_config(recipe_name="train_judge", cfg=cfg)
    check_place(cfg)
    validation = train(cfg)
    found = validation["judges"]["trained"]
    figures = ", ".join(
        f"{name} {number(found[key]['estimate'], signed=False)} {interval(found[key]['ci95'], signed=False)}"
        for key, name in (("kappa", "kappa"), ("macro_f1", "macro-F1"))
    )
    verdict = "believed" if found["believed"] else f"not believed (floor {cfg.min_kappa:g})"
    log.info(f"wrote {cfg.output_dir}/judge.json and its card; on held-out topics: {figures}; {verdict}")


if __name__ == "__main__":
    sys.exit(recipe_main())
