# SPDX-License-Identifier: MIT
"""Measure where a model stands while it is tuned: a few items of an instrument, every n steps.

    tune run finetune/dpo_finetune.py --config configs/smollm2_135m_lora_dpo_cpu.yaml probe=eval.probe.Probe

A finding wants the whole instrument and all templates (``eval/political_compass.py``); this shows when a lean
comes, at a small share of the training's computation and without changing its result. ``trajectory.jsonl`` has a row a
step: the scores of each mode, their paired change since step 0, and the log-probabilities that they come from.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from torchtune import config, utils

from data.recipe.files import changed_settings, read_log, write_whole
from eval.asking.questions import to_questions
from eval.asking.respond import answer_row
from eval.asking.results import Row
from eval.scores.comparisons import compare
from eval.scores.curves import describe_drift, distance
from eval.scores.intervals import add_false_discovery_rates, rounded
from eval.scores.places import Groups, Place
from eval.scores.scoring import Values, collect_answers, describe, pair_values, values_by_axis
from eval.statements.instruments import Instrument, draw, load_instrument
from eval.statements.prompts import choice_prompts, load_templates, pair_prompts
from finetune.run.reader import PolicyReader, WatchedRun
from finetune.tree.prefix_tree import count_tokens, cut_by_tokens

log = utils.get_logger("INFO")

MAX_SHARE = 0.05
# A trained token costs at least this many forward passes of one token: forward, and backward through frozen weights.
FORWARDS_PER_TRAINED_TOKEN = 2
MOST_INTERVALS = 20


class Probe:
    """``choice`` and ``pairs`` on a fixed sample of an instrument: at step 0, every n steps and at the end.

    Step 0 is the base, with the adapters off.

    Args:
        run: What is tuned; given by the recipe.
        instrument: Name of a shipped instrument or path of a YAML file.
        n_items: At most this many statements for ``choice``, twins together; 0: no ``choice``.
        n_pairs: The same of ``pairs``.
        every_n_steps: None: 20 times in a run, or less often where that would pass 5 % of its computation, counted
            in tokens (at least at step 0 and at the end).
        templates: None: those of the instrument's language; or a path.
        n_templates: As in ``configs/political_compass.yaml``, and so the next three.
        n_orders: Of the options.
        labels: Label sets.
        n_pair_templates: Requests before a pair's statements.
        tokenizer: Component that renders prompts with the model's chat template; None: the run's own.
        max_tokens_per_forward: Sets the memory; changes no result.
        seed: Of the sample; not the run's.

    Raises:
        FileNotFoundError: If the instrument or the templates are not there.
        ValueError: If a setting is out of range, the tokenizer renders no chat prompt, or the run's folder holds a
            trajectory of other questions.
    """

    def __init__(
        self,
        run: WatchedRun,
        instrument: str = "compass60",
        n_items: int = 12,
        n_pairs: int = 12,
        every_n_steps: int | None = None,
        templates: str | None = None,
        n_templates: int = 1,
        n_orders: int = 2,
        labels: Sequence[str] = ("words",),
        n_pair_templates: int = 1,
        tokenizer: Mapping[str, Any] | None = None,
        max_tokens_per_forward: int = 800,
        seed: int = 0,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"probe.every_n_steps={every_n_steps}; use a positive number or null")
        chat = run.tokenizer if tokenizer is None else config.instantiate(OmegaConf.create(dict(tokenizer)))
        if not hasattr(chat, "prompt_tokens"):
            raise ValueError(
                f"the probe asks in the model's chat template, which {type(chat).__name__} cannot render; give "
                "probe.tokenizer._component_=finetune.tokenizers.hf_chat_tokenizer and probe.tokenizer.path=<the "
                "model's folder>"
            )
        self._instrument = _sample(load_instrument(instrument), n_items, n_pairs, seed)
        wordings = load_templates(templates or self._instrument.language)
        prompts = []
        if self._instrument.items:
            prompts += choice_prompts(self._instrument, wordings, n_templates, n_orders, list(labels))
        if self._instrument.pairs:
            prompts += pair_prompts(self._instrument, wordings, n_pair_templates)
        # neighbours share prefixes
        self._questions = sorted(to_questions(prompts, chat), key=lambda question: tuple(question.answers[0].tokens))
        self._groups = [question.answers for question in self._questions]
        self._max_tokens, self._n_steps, self._writes = max_tokens_per_forward, run.n_steps, run.writes
        forwards = cut_by_tokens(self._groups, self._max_tokens)
        n_tokens = sum(count_tokens([a.tokens for k in forward for a in self._groups[k]]) for forward in forwards)
        n_affordable = MAX_SHARE * FORWARDS_PER_TRAINED_TOKEN * run.n_tokens // n_tokens - 1
        self._every = every_n_steps or math.ceil(run.n_steps / max(1, min(MOST_INTERVALS, n_affordable)))
        self._say_cost(run, n_tokens)
        self._about = {
            "instrument": self._instrument.name,
            "instrument_version": self._instrument.version,
            "instrument_sha256": self._instrument.sha256,
            "questions_sha256": self._fingerprint(),
        }
        self._path = run.output_dir / "trajectory.jsonl"
        # rows of later steps were measured by a process that was killed, and go
        self._rows = [row for row in read_log(self._path) if row["step"] <= run.first_step] if run.first_step else []
        before = {key: self._rows[0].get(key) for key in self._about} if self._rows else self._about
        if changed := changed_settings(before, self._about):
            raise ValueError(
                f"{self._path} was measured with another probe ({', '.join(changed)} differ); use the settings it was "
                "made with, probe=null, or move the file away"
            )

    def begin(self, reader: PolicyReader) -> dict[str, float]:
        """Measure the base unless the run has done so; return its metrics."""
        if self._writes:
            write_whole(self._path, "".join(json.dumps(row) + "\n" for row in self._rows))
        return {} if self._base_logprobs() else self._measure(0, reader, base=True)

    def measure(self, step: int, reader: PolicyReader) -> dict[str, float]:
        """Measure the policy where a step is due; return coordinates, and their distance from step 0, as metrics."""
        return self._measure(step, reader) if step % self._every == 0 or step == self._n_steps else {}

    def report(self) -> str:
        """Return the trajectory as a table."""
        return f"{self._path}\n{trajectory_table(self._rows)}"

    def _measure(self, step: int, reader: PolicyReader, base: bool = False) -> dict[str, float]:
        logprobs = [[rounded(x) for x in options] for options in reader(self._groups, self._max_tokens, base)]
        before = self._values("step_0", self._base_logprobs() or logprobs)
        after = self._values(f"step_{step}", logprobs)
        scores: dict[str, dict[str, Any]] = {mode: {} for mode in after}
        drift, metrics = {}, {}
        for mode, by_axis in after.items():
            for axis, values in by_axis.items():
                scores[mode][axis] = {**describe(values), "change": compare(before[mode][axis], values)}
                metrics[f"probe/{mode}/{axis}"] = scores[mode][axis]["estimate"]
            drift[mode] = rounded(distance([score["change"] for score in scores[mode].values()]).magnitude)
        self._rows.append({"step": step, **self._about, "scores": scores, "drift": drift, "logprobs": logprobs})
        if self._writes:
            with self._path.open("a") as file:
                file.write(json.dumps(self._rows[-1]) + "\n")
        return metrics | {f"probe/{mode}/drift": distance for mode, distance in drift.items()}

    def _base_logprobs(self) -> list[list[float]] | None:
        return next((row["logprobs"] for row in self._rows if row["step"] == 0), None)

    def _values(self, name: str, logprobs: Sequence[list[float]]) -> dict[str, dict[str, Values]]:
        """Return the values of each mode and axis; ``lean`` is that of the pairs."""
        instrument = self._instrument
        rows = [answer_row(name, question, values) for question, values in zip(self._questions, logprobs)]
        values = {}
        if instrument.items:
            values["choice"] = values_by_axis(collect_answers(rows, instrument), instrument)
        if instrument.pairs:
            of_pairs = [row for row in rows if row["mode"] == "pairs"]
            values["pairs"] = {"lean": pair_values(of_pairs, instrument.pairs, instrument.units())}
        return values

    def _say_cost(self, run: WatchedRun, n_tokens: int) -> None:
        n_measured = 1 + math.ceil(run.n_steps / self._every)
        share = n_measured * n_tokens / (FORWARDS_PER_TRAINED_TOKEN * run.n_tokens)
        cost = (
            f"probe: {len(self._instrument.items)} items and {len(self._instrument.pairs)} pairs of "
            f"{self._instrument.name} {self._instrument.version}, {len(self._questions)} prompts, at step 0 and every "
            f"{self._every} steps: about {share:.1%} of the training's computation"
        )
        if share > MAX_SHARE:
            log.warning(f"{cost}; fewer n_items and n_pairs, or a larger every_n_steps, cost less")
        else:
            log.info(cost)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for answers in self._groups:
            for answer in answers:
                digest.update(np.asarray([answer.tokens, answer.labels], dtype=np.int64).tobytes())
        return digest.hexdigest()


def _sample(instrument: Instrument, n_items: int, n_pairs: int, seed: int) -> Instrument:
    """Draw political items and pairs, in turn from the axes; coordinates stay on about the instrument's scale."""
    items = [item for item in instrument.items if not set(item.weights) <= instrument.placebo]
    pairs = instrument.political_pairs
    drawn = instrument.keep({*draw(items, n_items, seed), *draw(pairs, n_pairs, seed)})
    if not drawn.items and not drawn.pairs:
        raise ValueError(
            f"probe.n_items={n_items}, probe.n_pairs={n_pairs} draw nothing from {instrument.name} ({len(items)} "
            f"political items, {len(pairs)} pairs; twins are drawn together); use larger numbers"
        )
    return drawn


def trajectory_drift(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return drift magnitude and drift time of each mode (:func:`~eval.scores.curves.describe_drift`) from the rows.

    q is the false discovery rate over all rows, modes and axes.
    """
    comparisons = [
        {"a": "step_0", "b": f"step_{row['step']}", "mode": mode, "axis": axis, **score["change"]}
        for row in rows
        if row["step"]
        for mode, scores in row["scores"].items()
        for axis, score in scores.items()
    ]
    add_false_discovery_rates(comparisons)
    axes = {mode: list(scores) for mode, scores in rows[0]["scores"].items()}
    places = {f"step_{row['step']}": Place("run", step=row["step"]) for row in rows}
    return describe_drift(Groups(list(places), places), comparisons, axes)


def trajectory_table(rows: Sequence[Row]) -> str:
    """Return the scores as lines of text: a row a step, below it when each mode's drift came."""
    if not rows:
        return "nothing was measured"
    columns = [(mode, axis) for mode, scores in rows[0]["scores"].items() for axis in scores]
    columns += [(mode, "drift") for mode in rows[0]["drift"]]
    lines = [f"{'step':>6}" + "".join(f"{' '.join(column):>18}" for column in columns)]
    for row in rows:
        values = [
            row["drift"][mode] if axis == "drift" else row["scores"][mode][axis]["estimate"] for mode, axis in columns
        ]
        lines.append(f"{row['step']:>6}" + "".join(f"{value:>+18.3f}" for value in values))
    for drift in trajectory_drift(rows):
        half, first_apart = drift["half_step"], drift["told_apart_step"]
        apart = "never told from the base" if first_apart is None else f"told from the base from step {first_apart} on"
        reached = "no drift" if half is None else f"half of its drift at step {half:.3g}"
        lines.append(f"{drift['mode']}: {reached}; {apart} (q < 0.05)")
    return "\n".join(lines)
