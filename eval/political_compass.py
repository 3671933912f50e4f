# SPDX-License-Identifier: MIT
"""Score a base model and any number of its adapters with a political instrument.

    tune run eval/political_compass.py --config configs/political_compass.yaml

The base is loaded once and each adapter is switched on it. Writes ``results.jsonl`` (a row an answer),
``summary.json`` and ``compass.png`` into ``output_dir``.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchtune import config, training, utils

from data.recipe_config import check_config
from eval.instruments import load_instrument
from eval.questions import Question, choice_questions, pair_questions
from eval.report import draw_compass, require_matplotlib
from eval.respond import answer_questions
from eval.scoring import summarize
from eval.wordings import load_templates
from finetune.adapters import attach_adapters, read_adapter_config

log = utils.get_logger("INFO")

BASE = "base"
REQUIRED = {"output_dir", "model", "tokenizer", "checkpointer", "adapters", "instrument", "device", "dtype"}
OPTIONAL: dict[str, Any] = {
    "instrument_format": "yaml",
    "instrument_columns": None,
    "instrument_limit": None,
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
        FileNotFoundError: If an adapter, the instrument or the templates are not there.
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
        settings = OmegaConf.to_container(cfg, resolve=True)
        self._settings = {key: value for key, value in settings.items() if key != "output_dir"}
        self._settings["checkpointer"].pop("output_dir", None)
        self._settings["templates_version"] = self._templates.version
        self._settings["templates_sha256"] = self._templates.sha256
        self._settings["instrument_sha256"] = self._instrument.sha256
        self._check_output_dir()

    def _check_output_dir(self) -> None:
        results, summary = (self._output_dir / name for name in ("results.jsonl", "summary.json"))
        if not results.exists():
            return
        settings = json.loads(summary.read_text())["settings"] if summary.exists() else {}
        keys = {*settings, *self._settings}
        changed = sorted(key for key in keys if settings.get(key) != self._settings.get(key))
        if changed:
            raise FileExistsError(
                f"{results} holds results of other settings ({', '.join(changed)} differ); "
                "choose another output_dir, or delete that file"
            )

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
        checkpointer = config.instantiate(cfg.checkpointer)
        with training.set_default_dtype(self._dtype), self._device:
            model = config.instantiate(cfg.model)
        model.load_state_dict(checkpointer.load_checkpoint()[training.MODEL_KEY])
        self._model = attach_adapters(model.eval(), self._adapters, cfg.checkpointer.checkpoint_dir)
        log.info(
            f"{len(self._questions)} prompts ({self._instrument.name} {self._instrument.version}, "
            f"{', '.join(cfg.modes)}) for {BASE} and {len(self._adapters)} adapters"
        )

    def evaluate(self, cfg: DictConfig) -> None:
        """Ask every model every question, score the answers and write all files."""
        rows = []
        for name in [BASE, *self._adapters]:
            with self._model.using(None if name == BASE else name) as model:
                rows += answer_questions(model, name, self._questions, cfg.max_tokens_per_forward)
        instrument = self._instrument
        summary = {
            "instrument": {
                "name": instrument.name,
                "version": instrument.version,
                "sha256": instrument.sha256,
                "axes": {
                    name: {"low": axis.low, "high": axis.high, "range": instrument.axis_range(name)}
                    for name, axis in instrument.axes.items()
                },
            },
            "settings": self._settings,
            **summarize(rows, instrument, cfg.n_bootstrap, cfg.seed),
        }
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        self._write("results.jsonl", lambda path: path.write_text(lines))
        self._write("summary.json", lambda path: path.write_text(json.dumps(summary, indent=1) + "\n"))
        self._write("compass.png", lambda path: draw_compass(summary, path))
        log.info(f"wrote {len(rows)} answers to {self._output_dir}\n{_table(summary)}")

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        """Write beside and rename, so that a file is complete or absent."""
        self._output_dir.mkdir(parents=True, exist_ok=True)
        staging = self._output_dir / f"{name}.partial"
        write(staging)
        os.replace(staging, self._output_dir / name)


def _table(summary: dict[str, Any]) -> str:
    """Scores and comparisons as lines of text."""
    lines = [f"{'model':<14}{'mode':<8}{'axis':<12}{'estimate':>9}  95 % interval      answered"]
    for name, modes in summary["models"].items():
        for mode, axes in modes.items():
            for axis, v in axes.items():
                n = f"{v['n_answered']}/{v['n_items']}"
                lines.append(f"{name:<14}{mode:<8}{axis:<12}{_number(v['estimate'])}  {_interval(v)}  {n:>9}")
    lines.append(f"{'difference':<22}{'mode':<8}{'axis':<12}{'':>1}{'b - a':>9}  95 % interval             q")
    for c in summary["comparisons"]:
        between = f"{c['b']} - {c['a']}"
        line = f"{between:<22}{c['mode']:<8}{c['axis']:<12} {_number(c['difference'])}  {_interval(c)}"
        lines.append(line if c["q"] is None else f"{line}  {c['q']:9.4f}")
    return "\n".join(lines)


def _number(x: float | None) -> str:
    return f"{'not id.':>9}" if x is None else f"{x:+9.3f}"


def _interval(value: dict[str, Any]) -> str:
    return f"{'':17}" if value["ci95"] is None else "[{:+.3f}, {:+.3f}]".format(*value["ci95"])


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
