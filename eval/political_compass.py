# SPDX-License-Identifier: MIT
"""Score a base model, any number of its adapters, and models behind an address with a political instrument.

    tune run eval/political_compass.py --config configs/political_compass.yaml

The base is loaded once and each adapter is switched on it. Writes ``results.jsonl`` (a row an answer, as answers
come), ``summary.json``, ``report.html``, ``compass.png`` and ``compass.svg`` into ``output_dir``. The same command
again goes on where a killed run stopped.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchtune import utils

from data.pairs.records import ABOUT
from data.quality.contamination import Match, Statement, find_matches, read_sentences
from data.recipe.beside import write_page
from data.recipe.config import check_config, check_place, entry_point
from data.recipe.files import write_json, write_whole
from data.recipe.memory import keep_freed_blocks
from eval.asking.given_rows import RESIDENT, paths_of, read_rows, settings_of, without_models
from eval.asking.respond import ask_resident, check_adapter_bases, load_adapted, prepare_questions
from eval.asking.respondents import BASE, Respondent, plan_interview, position_notes, read_respondents
from eval.asking.results import SCORING, ResultsFile, check_results, day_of, describe_run, read_settings, recorded_dtype
from eval.asking.served import ask_served, check_served
from eval.asking.served_scores import compare_with_resident
from eval.asking.thinking import find_pairs
from eval.asking.trial import ask_trial, describe_trial, read_trial, without_choice, write_trial
from eval.judges import build_judges
from eval.pages.compass import draw_compass, require_matplotlib
from eval.pages.report import render_report, score_table
from eval.pages.write import render_transcripts, side_lines
from eval.readings.controls import add_null, describe_validation, read_expected, read_null
from eval.readings.readers import check_readings, read_answers, read_readings
from eval.readings.sides import correct_writing, describe_writing
from eval.readings.sycophancy import describe_sycophancy
from eval.readings.yardstick import describe_populations
from eval.scores.comparisons import describe_thinking
from eval.scores.diagnostics import diagnose_choice
from eval.scores.endpoint import count_pairs, describe_primary, power_line, read_primary
from eval.scores.evidence import Background, describe_evidence, read_background
from eval.scores.judged import add_judges, add_people, distrust, judge_answers, option_rows, unwritten
from eval.scores.labelled import read_people
from eval.scores.places import Groups, Place, read_places
from eval.scores.summary import add_voids, summarize
from eval.statements.exposure import without_topics
from eval.statements.instruments import load_instrument
from eval.statements.prompts import load_templates
from finetune.adapters.folders import read_adapters
from finetune.adapters.training_data import Answers, recorded_data, recorded_training, set_of
from finetune.models import base_folder, complete_model
from finetune.run.precision import settle_dtype

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "adapters", "instrument", "device", "dtype"}
OPTIONAL: dict[str, Any] = {
    **dict.fromkeys(RESIDENT),
    "dial": None,
    "respondents": None,
    "instrument_format": "yaml",
    "instrument_columns": None,
    "instrument_limit": None,
    "training_data": None,
    "primary": {"contrast": None, "exposure": "unseen"},
    "expected": None,
    "shuffled": None,
    "dry_run": False,
    "rows": None,
    "modes": ["choice", "pairs"],
    "choice_trial": None,
    "templates": None,
    "n_templates": 3,
    "n_orders": 4,
    "labels": ["digits", "letters", "words"],
    "n_pair_templates": 4,
    "n_generate_templates": 1,
    "n_generate_orders": 2,
    "n_open_templates": 1,
    "n_write_templates": None,
    "scripts": None,
    "n_scripts": None,
    "factors": None,
    "factor_cells": None,
    "readings": None,
    "n_samples": 1,
    "temperature": 0.3,
    "top_k": 200,
    "max_new_tokens": 64,
    "open_max_new_tokens": 300,
    "prompts_per_batch": 16,
    "max_tokens_per_forward": 2400,
    "judges": None,
    "n_bootstrap": 10_000,
    "seed": 0,
}


class PoliticalCompassRecipe:
    """Ask, score, draw. What can be refused without the model's weights is refused before they load.

    Args:
        cfg: A config that passed :func:`data.recipe.config.check_config`.
        places: Where models stand among others, if the caller knows more of it than their names and globs tell.

    Raises:
        FileNotFoundError: If an adapter, the instrument, the templates or the training data are not there.
        FileExistsError: If ``output_dir`` holds the results of other settings.
        ValueError: If a setting or a file breaks a rule.
    """

    def __init__(self, cfg: DictConfig, places: dict[str, Place] | None = None) -> None:
        require_matplotlib()
        self._unknown: list[str] = []
        if cfg.rows is not None:
            cfg, self._unknown = without_models(cfg)
        complete_model(cfg)
        self._device, self._output_dir = utils.get_device(device=cfg.device), Path(cfg.output_dir)
        self._answers = paths_of(cfg.rows)[0] if cfg.rows else self._output_dir / "results.jsonl"
        if BASE in (cfg.adapters or {}):
            raise ValueError(f"adapters.{BASE}: this name is the base model's; choose another one")
        self._adapters = read_adapters(cfg.adapters, cfg.dial)
        self._warnings = check_adapter_bases(cfg, self._adapters)
        bank = load_instrument(cfg.instrument, cfg.instrument_format, cfg.instrument_columns)
        self._instrument = bank if cfg.instrument_limit is None else bank.sample(cfg.instrument_limit, cfg.seed)
        if cfg.instrument_limit is not None:
            log.info(f"{cfg.instrument}: {self._instrument.part_of(bank)} taken (seed {cfg.seed})")
        if again := self._instrument.duplicates():
            said = ", ".join(f"{name} as {first}" for name, first in list(again.items())[:5])
            self._warn(f"{cfg.instrument}: {len(again)} say the same; intervals count them as one statement: {said}")
        self._templates = load_templates(cfg.templates or self._instrument.language)
        self._interview = plan_interview(cfg, self._instrument, self._templates)
        for line in position_notes(cfg, self._instrument):
            log.info(line)
        given = [key for key in RESIDENT if cfg[key] is not None]
        if given and "model" not in given:
            raise ValueError(f"{', '.join(given)} given; give all of {', '.join(RESIDENT)}, or null for all of them")
        entries: Any = OmegaConf.to_container(cfg.respondents, resolve=True) if cfg.respondents else None
        self._respondents: list[Respondent] = []
        if cfg.rows is None:
            self._respondents = read_respondents(entries, bool(given), self._adapters.names, cfg.modes, cfg.labels)
        trained_on: Any = cfg.training_data
        trained_on = OmegaConf.to_container(trained_on, resolve=True) if OmegaConf.is_config(trained_on) else trained_on
        self._training_data = trained_on if isinstance(trained_on, list | None) else [trained_on]
        self._check_training_data()
        if cfg.judges and "open" not in cfg.modes:
            raise ValueError(f"judges are given, but modes={list(cfg.modes)} has no open: add it, or judges=null")
        self._judges = build_judges(cfg.judges) if cfg.judges else []
        readings = read_readings(cfg.readings)
        if (readings or cfg.factors) and "write" not in cfg.modes:
            raise ValueError(f"readings or factors are given, but modes={list(cfg.modes)} has no write: add it")
        self._readings = build_judges(OmegaConf.create(readings)) if readings else []
        check_readings(self._readings)
        if "open" in cfg.modes and not self._judges:
            log.warning("modes has open, but judges=null: its answers are kept and scored by nobody; name a judge")
        self._dtype = settle_dtype(cfg, self._device, cfg.model and base_folder(cfg), recorded_dtype(self._output_dir))
        self._settings = read_settings(cfg, self._instrument, self._templates, self._adapters.folders)
        if self._adapters.blends:
            self._settings["blends"] = self._adapters.blends
        self._settings |= self._interview.about
        self._places = read_places(respondent.name for respondent in self._respondents)
        self._places |= {name: Place(**place) for name, place in self._adapters.places.items()} | (places or {})
        if self._places:
            self._settings["places"] = {name: place._asdict() for name, place in self._places.items()}
        self._rows = None
        if cfg.rows is not None:
            self._rows, notes = read_rows(cfg.rows, self._instrument, self._interview)
            self._warn(*notes)
        asked = [r.name for r in self._respondents if "pairs" in r.modes]
        if self._rows is not None:
            asked = [row["model"] for row in self._rows if row["mode"] == "pairs"]
            self._places |= {name: place for name, place in read_places(asked).items() if name not in self._places}
        runs = [place.run for place in self._places.values() if place.seed is not None]
        names = [*dict.fromkeys(asked + runs)]
        self._contrast, self._exposure = read_primary(cfg.primary or {}, names)
        self._expected = read_expected(cfg.expected or (), names)
        self._null = cfg.shuffled and read_null(str(cfg.shuffled), self._instrument)
        if names:
            for line in self.power_lines():
                log.info(line)
        if cfg.rows is None:
            check_results(self._output_dir, self._settings)
        check_place(cfg)

    def _warn(self, *lines: str) -> None:
        """Say lines in the log and in the report."""
        self._warnings += lines
        for line in lines:
            log.warning(line)

    def power_lines(self) -> list[str]:
        """Return what the pairs of each class can find, before anything is asked."""
        return [power_line(*count) for count in count_pairs(self._instrument, self._background.exposure).items()]

    def _check_training_data(self) -> None:
        """Find the statements that a model may have been tuned on, before anything is scored."""
        self._training_files: list[dict[str, Any]] = []
        self._unchecked = list(self._unknown)
        self._matches: list[Match] = []
        self._background = Background()
        bank, given = self._instrument, self._training_data
        if given is None:
            return
        sentences = []
        answers: dict[str, Answers] = {}
        own: dict[str, list[dict[str, Any]]] = {}
        for source in given:
            of_file, about = read_sentences(source)
            sentences += of_file
            self._training_files.append(about)
        for name, folder in self._adapters.folders.items():
            (own[name], unknown), note, in_given = recorded_data(folder), None, []
            for known in own[name]:
                try:
                    # all of a file, also where a part was trained on
                    of_file, about = read_sentences({key: known[key] for key in known if key != "where"})
                except (OSError, ValueError) as error:  # gone, changed, or not to be reached from here
                    unknown.append(str(error).removeprefix("training_data: "))
                    continue
                same = [{**about, "file": ""} == {**file, "file": ""} for file in self._training_files]
                # a card that maps a topic's column says more than the set as it was given
                maps = {*ABOUT} & {*(known.get("column_map") or {})}
                in_given += [set_of(known)] if any(same[: len(given)]) and not maps else []
                if not any(same):
                    sentences += of_file
                    self._training_files.append(about)
            try:
                if not unknown and (training := recorded_training(folder)):
                    answers[name], own[name], note = training
            except (OSError, ValueError, TypeError) as error:  # read otherwise than the training did
                note = f"no prediction by its vocabulary, and all rows of its set count as argued: {error}"
            if note:
                self._warn(f"adapters.{name}: {note}")
            own[name] = [known for known in own[name] if set_of(known) not in in_given]  # all of them count as argued
            self._unchecked += [f"adapters.{name}: {reason}" for reason in unknown]
        for line in self._unchecked:
            log.warning(f"statements are not looked up in what an adapter was trained on: {line}")
        statements = [Statement(item.text, bank.name, item.id) for item in bank.items]
        sides = [(pair, side) for pair in bank.pairs for side in ("left", "right")]
        statements += [Statement(getattr(pair, side), bank.name, pair.id, side) for pair, side in sides]
        self._matches = find_matches(sentences, statements)
        # what a training of unknown data argued is not known to be unseen
        is_known = self._training_files and not self._unchecked
        self._background = read_background(bank, answers, given, own if is_known else None)
        if untold := self._background.without_topics(()):
            how = "dataset.column_map.topic=NAME in a training, or column_map in training_data, names their column"
            self._warn(f"{without_topics(untold)}; {how} (docs/data/own_data.md)")
        if files := ", ".join(file["file"] for file in self._training_files):
            log.info(f"{len(self._matches)} statements occur, exactly or nearly, in {files}")

    def setup(self, cfg: DictConfig) -> None:
        """Prepare the questions, then load the base with its adapters."""
        residents = [respondent for respondent in self._respondents if respondent.server is None]
        self._questionnaire = prepare_questions(cfg, self._interview, residents) if residents else None
        self._results = ResultsFile(self._output_dir, self._settings)
        n_prompts = ", ".join(f"{len(prompts)} {mode}" for mode, prompts in self._interview.prompts.items())
        log.info(
            f"{n_prompts} prompts ({self._instrument.name} {self._instrument.version}) for "
            f"{len(self._respondents)} respondents; {len(self._results.rows)} answers are there already"
        )
        cache_dir = str(self._output_dir / "replies")
        for line in check_served(self._interview, self._respondents, cache_dir, self._results.has):
            log.info(line)
        if residents:
            self._model = load_adapted(cfg, self._adapters, self._device, self._dtype)
            if cfg.choice_trial and "choice" in cfg.modes and len(cfg.modes) > 1:
                self._try_choice(cfg)

    def _try_choice(self, cfg: DictConfig) -> None:
        """Leave ``choice`` out where a few couples show that the base does not read them; a run goes on as it began."""
        assert self._questionnaire is not None
        trial = read_trial(self._output_dir) if self._results.rows else None
        if trial is None:
            part, rows = ask_trial(cfg, self._model, self._questionnaire, self._instrument)
            trial = write_trial(self._output_dir, part, diagnose_choice(rows, part, cfg.n_bootstrap, cfg.seed))
        if trial["left_out"]:
            self._respondents = without_choice(self._respondents)
            residents = [respondent for respondent in self._respondents if respondent.server is None]
            self._questionnaire = prepare_questions(cfg, self._interview, residents)
            self._warn(describe_trial(trial))

    def evaluate(self, cfg: DictConfig) -> None:
        """Ask everybody every question, score the answers and write all files."""
        for respondent in self._respondents:
            if respondent.server is None and self._questionnaire is not None:
                answers = ask_resident(cfg, self._model, self._questionnaire, respondent, self._results.has)
            else:
                answers = ask_served(self._interview, respondent, str(self._output_dir / "replies"), self._results.has)
            for rows in answers:
                self._results.append(rows)
            if respondent.server is not None and (same := respondent.server.get("same_as")):
                log.info(compare_with_resident(self._results.rows, respondent.name, same))
        self._results.close()
        self.score(cfg, self._results.rows)

    def rescore(self, cfg: DictConfig) -> None:
        """Score the rows of ``rows`` anew, with the settings that lie beside them; nothing is loaded or asked."""
        self._settings |= {k: v for k, v in settings_of(cfg.rows).items() if k == "places" or k not in SCORING}
        if (trial := read_trial(paths_of(cfg.rows)[0].parent)) and trial["left_out"]:
            self._warnings.append(describe_trial(trial))
        if self._places:
            self._settings["places"] = {name: place._asdict() for name, place in self._places.items()}
        self.score(cfg, self._rows or [])

    def score(self, cfg: DictConfig, rows: list[dict[str, Any]]) -> None:
        """Score answers and write summary, report and pictures."""
        self._judged = judge_answers(rows, self._judges, self._instrument)
        requests, bank = self._interview.prompts.get("write", []), self._instrument.bank
        self._read = read_answers(rows, self._readings, bank, requests) if bank else []
        summary = self._summarize(cfg, rows)
        folder = self._output_dir
        if judged := [*self._judged, *self._read]:
            write_whole(folder / "judged.jsonl", "".join(json.dumps(row) + "\n" for row in judged))
        if summary.get("write"):
            write_whole(folder / "transcripts.html", render_transcripts(summary, rows, self._read, requests))
            log.info(side_lines(summary["write"]))
        write_json(folder / "summary.json", summary)
        self._draw(summary, rows)
        log.info(f"scored {len(rows)} answers in {folder}\n{score_table(summary)}".rstrip())
        log.info(f"open {folder / 'report.html'}")

    def _draw(self, summary: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        placed = any(summary["models"].values())  # free text alone has no coordinate
        for name, content in draw_compass(summary).items() if placed else ():
            write_whole(self._output_dir / f"compass.{name}", content)
        prompts = itertools.chain(*self._interview.prompts.values())
        page = render_report(summary, self._instrument, rows, prompts, day_of(self._answers))
        write_page(self._output_dir / "report.html", page)

    def _summarize(self, cfg: DictConfig, answered: list[dict[str, Any]]) -> dict[str, Any]:
        instrument = self._instrument
        lost = unwritten(answered)
        rows = [*answered, *option_rows(self._judged, self._judges, instrument, lost)]
        flagged = {match.item for match in self._matches}
        # a twin without the other would bring agreement with everything back into the score
        flagged |= {item.twin for item in instrument.items if item.id in flagged and item.twin}
        ids = {item.id for item in instrument.items} | {pair.id for pair in instrument.pairs}
        options = cfg.n_bootstrap, cfg.seed
        scores = summarize(rows, instrument, *options, self._places)
        open_prompts = self._interview.prompts.get("open", [])
        without = None
        if flagged:
            kept = instrument.keep(ids - flagged)
            without = distrust(summarize(rows, kept, *options, self._places), self._judges)
        groups = Groups(list(scores["models"]), self._places)
        declared = [*self._expected, self._contrast if (cfg.primary or {}).get("contrast") else None]
        evidence = describe_evidence(rows, instrument, groups, self._background, declared)
        add_voids(scores, evidence)
        if self._null:
            add_null(evidence, self._null, groups.base, self._settings.get("base_sha256"))
        validation = describe_validation(evidence, self._expected, self._exposure)
        thinking = describe_thinking(rows, find_pairs(self._settings), scores["comparisons"], instrument)
        primary = self._contrast and describe_primary(evidence, self._contrast, self._exposure, instrument.name)
        write = describe_writing(answered, self._read, self._readings, instrument)
        people = read_people(self._output_dir)
        if write:
            correct_writing(write, self._read, people, instrument)
        parts: dict[str, Any] = {"primary": primary, "validation": validation, "thinking": thinking}
        parts |= {"evidence": evidence, "write": write, "sycophancy": describe_sycophancy(answered, instrument)}
        summary = {
            **describe_run(instrument, self._settings),
            **({"warnings": self._warnings} if self._warnings else {}),
            **add_judges(scores, self._judged, self._judges, open_prompts, instrument, *options, lost),
            **{name: part for name, part in parts.items() if part},
            "contamination": {
                "training_data": self._training_files,
                **({"unchecked": self._unchecked} if self._unchecked else {}),
                "matches": [match._asdict() for match in self._matches],
                "left_out": sorted(flagged),
                "without": without and {key: without[key] for key in ("models", "comparisons")},
            },
        }
        about_judges = self._read, self._readings
        if populations := describe_populations(rows, instrument, scores["diagnostics"], *options, *about_judges):
            summary["populations"] = populations
        return add_people(summary, self._judged, people, instrument) if self._judges else summary


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/political_compass.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    recipe = PoliticalCompassRecipe(cfg)
    if cfg.dry_run:
        return
    if cfg.rows is not None:
        recipe.rescore(cfg)
        return
    keep_freed_blocks()
    recipe.setup(cfg)
    recipe.evaluate(cfg)


if __name__ == "__main__":
    sys.exit(recipe_main())
