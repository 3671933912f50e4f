# SPDX-License-Identifier: MIT
"""Score a base model and any number of its adapters with a political instrument.

    tune run eval/political_compass.py --config configs/political_compass.yaml

The base is loaded once and each adapter is switched on it. Writes ``results.jsonl`` (a row an answer, as answers
come), ``summary.json``, ``report.html``, ``compass.png`` and ``compass.svg`` into ``output_dir``. The same command
again goes on where a killed run stopped.
"""

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchtune import config, training, utils

from data.recipe_config import check_config
from eval.compass_plot import draw_compass, require_matplotlib
from eval.contamination import Match, find_matches, read_sentences
from eval.instruments import load_instrument
from eval.questions import Question, choice_questions, pair_questions
from eval.report import write_report
from eval.respond import iterate_answers
from eval.results_file import ResultsFile, write_whole
from eval.run_record import describe_run, read_settings
from eval.score_table import score_table
from eval.summary import summarize
from eval.wordings import load_templates
from finetune.adapters import attach_adapters, read_adapter_config

log = utils.get_logger("INFO")

BASE = "base"
REQUIRED = {"output_dir", "model", "tokenizer", "checkpointer", "adapters", "instrument", "device", "dtype"}
OPTIONAL: dict[str, Any] = {
    "instrument_format": "yaml",
    "instrument_columns": None,
    "instrument_limit": None,
    "training_data": None,
    "modes": ["choice", "pairs"],
    "templates": None,
    "n_templates": 3,
    "n_orders": 4,
    "labels": ["digits", "letters", "words"],
    "n_pair_templates": 4,
    "max_tokens_per_forward": 800,
    "n_bootstrap": 10_000,
    "seed": 0,
}


class PoliticalCompassRecipe:
    """Ask, score, draw. What can be refused without the model's weights is refused before they load.

    Args:
        cfg: A config that passed :func:`data.recipe_config.check_config`.

    Raises:
        FileNotFoundError: If an adapter, the instrument, the templates or the training data are not there.
        FileExistsError: If ``output_dir`` holds the results of other settings.
        ValueError: If a setting or a file breaks a rule.
    """

    def __init__(self, cfg: DictConfig) -> None:
        require_matplotlib()
        self._device = utils.get_device(device=cfg.device)
        self._dtype = training.get_dtype(cfg.dtype, device=self._device)
        self._output_dir = Path(cfg.output_dir)
        self._adapters = dict(cfg.adapters or {})
        if BASE in self._adapters:
            raise ValueError(f"adapters.{BASE}: this name is the base model's; choose another one")
        for folder in self._adapters.values():
            read_adapter_config(folder)
        self._instrument = load_instrument(
            cfg.instrument, cfg.instrument_format, cfg.instrument_columns, cfg.instrument_limit, cfg.seed
        )
        for mode, kind in (("choice", "items"), ("pairs", "pairs")):
            if mode in cfg.modes and not getattr(self._instrument, kind):
                others = [m for m in cfg.modes if m != mode]
                raise ValueError(f"modes={list(cfg.modes)}, but {cfg.instrument} has no {kind}; use modes={others}")
        if not cfg.modes or not {*cfg.modes} <= {"choice", "pairs"}:
            raise ValueError(f"modes={list(cfg.modes)}; use any of ['choice', 'pairs']")
        self._templates = load_templates(cfg.templates or self._instrument.language)
        self._training_data = [cfg.training_data] if isinstance(cfg.training_data, str) else cfg.training_data
        self._check_training_data()
        self._settings = read_settings(cfg, self._instrument, self._templates, self._adapters)
        self._results = ResultsFile(self._output_dir, self._settings)

    def _check_training_data(self) -> None:
        """Find the statements that a model may have been tuned on, before anything is scored."""
        self._training_files: list[dict[str, Any]] = []
        self._matches: list[Match] = []
        if self._training_data is None:
            return
        sentences = []
        for path in self._training_data:
            found, about = read_sentences(path)
            sentences += found
            self._training_files.append(about)
        self._matches = find_matches(self._instrument, sentences)
        log.info(f"{len(self._matches)} statements occur in {', '.join(self._training_data)}")

    def setup(self, cfg: DictConfig) -> None:
        """Prepare the questions, then load the base with its adapters."""
        tokenizer = config.instantiate(cfg.tokenizer)
        if not hasattr(tokenizer, "prompt_tokens"):
            raise ValueError(
                f"tokenizer._component_={cfg.tokenizer._component_} cannot render a prompt; use "
                f"finetune.tokenizers.hf_chat_tokenizer with path={cfg.checkpointer.checkpoint_dir}"
            )
        self._questions: list[Question] = []
        if "choice" in cfg.modes:
            self._questions += choice_questions(
                self._instrument, tokenizer, self._templates, cfg.n_templates, cfg.n_orders, list(cfg.labels)
            )
        if "pairs" in cfg.modes:
            self._questions += pair_questions(self._instrument, tokenizer, self._templates, cfg.n_pair_templates)
        self._output_dir.mkdir(parents=True, exist_ok=True)
        self._results.open()
        checkpointer = config.instantiate(cfg.checkpointer)
        with training.set_default_dtype(self._dtype), self._device:
            model = config.instantiate(cfg.model)
        model.load_state_dict(checkpointer.load_checkpoint()[training.MODEL_KEY])
        self._model = attach_adapters(model.eval(), self._adapters, cfg.checkpointer.checkpoint_dir)
        n_asked = len(self._questions) * (1 + len(self._adapters))
        log.info(
            f"{len(self._questions)} prompts ({self._instrument.name} {self._instrument.version}, "
            f"{', '.join(cfg.modes)}) for {BASE} and {len(self._adapters)} adapters; "
            f"{len(self._results.rows)} of {n_asked} answers are there already"
        )

    def evaluate(self, cfg: DictConfig) -> None:
        """Ask every model every question, score the answers and write all files."""
        for name in [BASE, *self._adapters]:
            with self._model.using(None if name == BASE else name) as model:
                for rows in iterate_answers(
                    model, name, self._questions, cfg.max_tokens_per_forward, self._results.has
                ):
                    self._results.append(rows)
        self._results.close()
        summary = self._summarize(cfg)
        folder = self._output_dir
        write_whole(folder / "summary.json", lambda path: path.write_text(json.dumps(summary, indent=1) + "\n"))
        self._draw(summary)
        log.info(f"wrote {len(self._results.rows)} answers to {folder}\n{score_table(summary)}")

    def _draw(self, summary: dict[str, Any]) -> None:
        for name, content in draw_compass(summary).items():
            write_whole(self._output_dir / f"compass.{name}", lambda path, content=content: path.write_bytes(content))
        write_whole(self._output_dir / "report.html", lambda path: write_report(summary, self._instrument, path))

    def _summarize(self, cfg: DictConfig) -> dict[str, Any]:
        instrument, rows = self._instrument, self._results.rows
        flagged = {match.item for match in self._matches}
        # a twin without the other would bring agreement with everything back into the score
        flagged |= {item.twin for item in instrument.items if item.id in flagged and item.twin}
        ids = {entry.id for entry in (*instrument.items, *instrument.pairs)}
        without = summarize(rows, instrument.keep(ids - flagged), cfg.n_bootstrap, cfg.seed) if flagged else None
        return {
            **describe_run(instrument, self._settings),
            **summarize(rows, instrument, cfg.n_bootstrap, cfg.seed),
            "contamination": {
                "training_data": self._training_files,
                "matches": [match._asdict() for match in self._matches],
                "left_out": sorted(flagged),
                "without": without and {key: without[key] for key in ("models", "comparisons")},
            },
        }


@config.parse
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/political_compass.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    config.log_config(recipe_name="PoliticalCompassRecipe", cfg=cfg)
    recipe = PoliticalCompassRecipe(cfg)
    recipe.setup(cfg)
    recipe.evaluate(cfg)


if __name__ == "__main__":
    sys.exit(recipe_main())
