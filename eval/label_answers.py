# SPDX-License-Identifier: MIT
"""Draw answers of a run for people to label, and take the judges' error out of its figures by these labels.

    tune run eval/label_answers.py --config configs/label_answers.yaml
    tune run data/review.py --config configs/review.yaml scale=stance accept=False \
        source=outputs/compass_modes/label_sample_stance.jsonl output_dir=outputs/review_answers
    tune run eval/label_answers.py --config configs/label_answers.yaml labels=outputs/review_answers/gold.jsonl

The first command writes ``label_sample_SCALE.jsonl`` into the run's folder, the last one ``people_SCALE.jsonl``, and
``summary.json`` and ``report.html`` anew. No model is loaded. ``eval/political_compass.py`` finds the labels there too.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchtune import config, utils

from data.judging.judges import Text, read_labelled
from data.judging.scales import PAIR, SCALES, load_scale
from data.recipe.beside import write_page
from data.recipe.config import check_config, check_place, entry_point
from data.recipe.figures import interval, number
from data.recipe.files import read_log, to_jsonl, write_json, write_whole
from eval.asking.respondents import plan_interview
from eval.asking.results import day_of
from eval.pages.report import render_report
from eval.pages.write import side_lines
from eval.readings.sides import correct_writing
from eval.scores.judged import add_people
from eval.scores.labelled import answer_key, draw_answers, read_people
from eval.statements.instruments import Instrument, load_instrument
from eval.statements.prompts import Prompt, load_templates
from eval.statements.requests import WRITE

log = utils.get_logger("INFO")

REQUIRED = {"output_dir"}
OPTIONAL: dict[str, Any] = {
    "scale": "stance",
    "n_per_model": 100,
    "seed": 0,
    "labels": None,
    "columns": {"text": "text", "label": "label", "target": "target"},
    "label_map": None,
}


class Run:
    """A finished run of ``eval/political_compass.py`` with judges, read from its folder."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        wanted = ("summary.json", "settings.json", "judged.jsonl")
        if missing := [name for name in wanted if not (self.folder / name).is_file()]:
            raise FileNotFoundError(
                f"{folder}: no {', '.join(missing)}; name the output_dir of a run of eval/political_compass.py that "
                "had judges"
            )
        self.summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        self.judged = read_log(self.folder / "judged.jsonl")
        of_open, of_write = self.summary["judging"] or {"judges": {}}, self.summary.get("write") or {"readings": {}}
        judges = {**of_open["judges"], **of_write["readings"]}.items()
        # people label single answers, not which of two is better
        self.judges = {name: judge["scale"] for name, judge in judges if judge["scale"] != PAIR.name}

    def instrument(self) -> Instrument:
        """Return the instrument that the run asked; another one of its name is refused."""
        settings = self.summary["settings"]
        instrument = load_instrument(
            settings["instrument"], settings["instrument_format"], settings["instrument_columns"]
        )
        if instrument.sha256 != self.summary["instrument"]["sha256"]:
            raise ValueError(f"{settings['instrument']} has changed since this run; ask it again, or restore that file")
        if settings["instrument_limit"] is not None:
            instrument = instrument.sample(settings["instrument_limit"], settings["seed"])
        return instrument

    def asked(self, instrument: Instrument) -> tuple[list[dict[str, Any]], list[Prompt], str | None]:
        """Return the answers of the run, its prompts, and the day of the answers."""
        settings = OmegaConf.create(self.summary["settings"])
        templates = load_templates(settings.templates or instrument.language)
        path = self.folder / "results.jsonl"
        return read_log(path), plan_interview(settings, instrument, templates).of_modes(settings.modes), day_of(path)


def draw(cfg: DictConfig, run: Run) -> Path:
    """Write the answers that people are to label; a draw that labels belong to is not replaced by another."""
    judges = [name for name, scale in run.judges.items() if scale == cfg.scale]
    if not judges:
        scales = ", ".join(sorted(set(run.judges.values())))
        raise ValueError(f"scale={cfg.scale}: no judge of this run has it; use one of {scales}")
    rows = draw_answers([row for row in run.judged if row["judge"] in judges], cfg.scale, cfg.n_per_model, cfg.seed)
    targets = {item.id: item.text for item in run.instrument().items}
    keys = ("model", "item", "template", "sample")
    drawn = [
        {
            "text": row["text"],
            "target": row.get("target") or targets.get(row["item"]),
            **{key: row[key] for key in keys},
        }
        for row in rows
    ]
    path = run.folder / f"label_sample_{cfg.scale}.jsonl"
    if lost := {answer_key(row) for row in read_log(path)} - set(map(answer_key, drawn)):
        raise FileExistsError(
            f"{path}: {len(lost)} of its answers are not in this draw (n_per_model={cfg.n_per_model}, "
            f"seed={cfg.seed}); keep the seed and a number as great, or delete that file"
        )
    write_whole(path, to_jsonl(drawn))
    return path


def take_labels(cfg: DictConfig, run: Run) -> list[dict[str, Any]]:
    """Write people's labels of the drawn answers beside them, and return their rows."""
    scale = load_scale(cfg.scale)
    path = run.folder / f"label_sample_{cfg.scale}.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; draw the answers first, with labels=null")
    columns: Any = check_config(cfg.columns, {"text", "label"}, {"target": None})
    if cfg.scale != "stance":
        columns.target = None  # the text alone is judged
    found = read_labelled(cfg.labels, scale, **columns, label_map=cfg.label_map)
    labels = dict(zip(found.texts, found.truth))
    drawn = read_log(path)
    texts = [Text(row["text"], row["target"] if columns.target else "") for row in drawn]
    people = [{**row, "label": labels[text]} for row, text in zip(drawn, texts) if text in labels]
    if not people:
        raise ValueError(f"{cfg.labels}: none of its texts is one of {path}; label the texts of that file")
    if elsewhere := set(labels) - set(texts):
        log.warning(f"{cfg.labels}: {len(elsewhere)} labelled texts were not drawn, and are left out")
    if unlabelled := len(drawn) - len(people):
        log.warning(
            f"{unlabelled} of {len(drawn)} drawn answers have no label (skipped, or people differ); the figures speak "
            "for answers like those that have one"
        )
    write_whole(run.folder / f"people_{cfg.scale}.jsonl", to_jsonl(people))
    return people


def correction_table(summary: Mapping[str, Any]) -> str:
    """Return each judge's figures, a line each: uncorrected, prediction-powered, by the confusion matrix."""
    head = f"{'figure':18}{'uncorrected':>28}{'corrected':>28}{'by confusion matrix':>28}"
    lines = []
    for judge, about in summary["judging"]["judges"].items() if summary["judging"] else ():
        found = about["corrected"]
        lines += [f"{judge} ({about['scale']}): {found['note'] or 'corrected'}", f"  {'model':22}{head}"]
        for name, figures in (("figures", found["figures"]), ("differences", found["differences"])):
            for row in figures:
                who = row["model"] if name == "figures" else f"{row['b']} - {row['a']}"
                cells = [_cell(row[key]) for key in ("uncorrected", "corrected", "confusion_matrix")]
                lines.append(f"  {who[:21]:22}{row['figure']:18}" + "".join(f"{cell:>28}" for cell in cells))
    return "\n".join([*lines, side_lines(summary["write"])] if summary.get("write") else lines)


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["estimate"] is None:
        return "–"
    return f"{number(figure['estimate'])} {interval(figure['ci95'])}"


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/label_answers.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    config.log_config(recipe_name="label_answers", cfg=cfg)
    check_place(cfg)
    if cfg.scale not in SCALES:
        load_scale(cfg.scale)
    run = Run(cfg.output_dir)
    if cfg.labels is None:
        path = draw(cfg, run)
        log.info(f"wrote {len(read_log(path))} answers to {path}; label them with data/review.py, scale={cfg.scale}")
        return
    people = take_labels(cfg, run)
    instrument = run.instrument()
    labels = read_people(run.folder)
    if run.summary["judging"]:
        add_people(run.summary, [row for row in run.judged if row["mode"] != WRITE], labels, instrument)
    if run.summary.get("write"):
        written = [row for row in run.judged if row["mode"] == WRITE]
        correct_writing(run.summary["write"], written, labels, instrument)
    write_json(run.folder / "summary.json", run.summary)
    write_page(run.folder / "report.html", render_report(run.summary, instrument, *run.asked(instrument)))
    log.info(f"{len(people)} answers with people's labels\n{correction_table(run.summary)}")


if __name__ == "__main__":
    sys.exit(recipe_main())
