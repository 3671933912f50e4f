# SPDX-License-Identifier: MIT
"""Modes ``choice``, ``generate`` and ``write`` as tasks of inspect_ai: the same prompts, the same figures.

    inspect eval eval/inspect_tasks.py@politune_choice --model hf/local -M model_path=path/to/model -T n_templates=2
    inspect eval eval/inspect_tasks.py@politune_write --model hf/local -M model_path=path/to/model

``choice`` reads the options' log-probabilities at the first token, so its labels are digits or letters, and the
provider must give log-probabilities. An option that it does not list counts as 0, as with our own endpoints.
``rows=LOG`` of ``eval/political_compass.py`` scores a log again, with intervals and a report.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, metric, scorer
from inspect_ai.solver import TaskState, generate

from data.chat.replies import option_logprobs
from data.judging.judges import Judge, Judgement, Text, make_judge
from data.judging.scales import load_scale
from eval.asking.written_answers import Decoding, Writing, read_option, written_row
from eval.readings.sides import describe_writing
from eval.scores.harness_scores import harness_prompts, harness_scores, logprob_row
from eval.statements.instruments import Instrument, load_instrument
from eval.statements.prompts import Prompt
from eval.statements.requests import write_prompts

READINGS = ("stance", "coverage", "hedging")  # of one answer


@cache
def _load(about: str) -> Instrument:
    return load_instrument(**json.loads(about))


def _dataset(prompts: list[Prompt]) -> MemoryDataset:
    samples = []
    for number, p in enumerate(prompts, start=1):
        about = {"row": p.row, "answers": list(p.answers), "options": list(p.options), "system": p.system}
        user = ChatMessageUser(content=p.text)
        said = [ChatMessageSystem(content=p.system), user] if p.system else p.text
        samples.append(Sample(id=number, input=said, metadata=about))
    return MemoryDataset(samples)


@metric
def coordinates() -> Metric:
    """Return our coordinates of all samples, an axis a metric."""

    def compute(scores: list[SampleScore]) -> dict[str, float]:
        return harness_scores([score.score.metadata["row"] for score in scores])

    return compute


@scorer(metrics=[coordinates()])
def first_token_options() -> Scorer:
    """Score a sample by the log-probabilities of its options as the first token."""

    async def score(state: TaskState, target: Target) -> Score:
        logprobs = state.output.choices[0].logprobs if state.output.choices else None
        top = [{t.token: t.logprob for t in logprobs.content[0].top_logprobs or ()}] if logprobs else None
        by_option = option_logprobs(top, state.metadata["answers"])
        row = logprob_row(state.metadata["row"], list(by_option.values()) if by_option else None)
        return Score(value=row["option_mass"] or 0.0, answer=state.output.completion, metadata={"row": row})

    return score


@scorer(metrics=[coordinates()])
def written_option() -> Scorer:
    """Score a sample by the option that its text chooses, read strictly; anything else is no answer."""

    async def score(state: TaskState, target: Target) -> Score:
        text, question = state.output.completion, state.metadata
        choice = read_option(text, question["options"], question["answers"]) if text else None
        row = {**question["row"], "option_logprobs": None, "option_mass": None, "choice": choice}
        return Score(value=float(choice is not None), answer=text, metadata={"row": row})

    return score


@metric
def by_side() -> Metric:
    """Return each outcome's level by side, and the second side less the first, of all samples."""

    def compute(scores: list[SampleScore]) -> dict[str, float]:
        rows: list[Any] = [score.score.metadata["row"] for score in scores]
        judges = [_grader(name) for name in dict.fromkeys(row["judge"] for row in rows if row["judge"])]
        judged = [row for row in rows if row["judge"]]
        found = describe_writing(rows, judged, judges, _load(json.dumps(rows[0]["file"]))) or {}
        of_judge = {row["judge"] for row in rows} - {None}
        said = {}
        for entry in found["levels"]:
            if not of_judge or entry.get("reading"):
                said[f"{entry['outcome']}, {entry['side']}"] = entry["estimate"]
        for entry in found["by_side"]:
            if not of_judge or entry.get("reading"):
                said[f"{entry['outcome']}, {' - '.join(found['sides'][::-1])}"] = entry["difference"]
        return {name: float("nan") if value is None else value for name, value in said.items()}

    return compute


@scorer(metrics=[by_side()])
def written_text() -> Scorer:
    """Count a text's words, and whether it refuses, told by its wording in English."""

    async def score(state: TaskState, target: Target) -> Score:
        row = _written(state)
        return Score(value=float(row["refused"]), answer=row["text"], metadata={"row": row})

    return score


def _grader(name: str) -> Judge:
    """Return the model of the role ``grader`` as a judge that has answered already."""

    def ask(texts: Sequence[Text]) -> Iterator[Judgement]:
        raise NotImplementedError(f"{len(texts)} texts: the scorer has asked")

    return make_judge(name, "chat", load_scale(name), ask, {}, None)


def _reading(name: str) -> Scorer:
    scale = load_scale(name)

    async def score(state: TaskState, target: Target) -> Score:
        row = _written(state)
        about = {"judge": name, "scale": name, "target": row["target"] if name == "stance" else ""}
        kinds = {"system": ChatMessageSystem, "user": ChatMessageUser}
        grader = get_model(role="grader", required=True, config=GenerateConfig(temperature=0))
        asked = scale.request(row["text"], about["target"]).messages
        given = await grader.generate([kinds[m["role"]](content=m["content"]) for m in asked])
        try:
            label, problem = scale.read(given.completion), None
        except ValueError as error:
            label, problem = None, f"unreadable: {error}"
        judgement = Judgement(label, given.completion, problem, given.model)
        row = {**row, **about, "judgement": judgement._asdict()}
        return Score(value=label or "unread", answer=row["text"], explanation=given.completion, metadata={"row": row})

    return score


@scorer(metrics=[by_side()])
def stance() -> Scorer:
    """Read a text's stance towards its issue's statement with the model of the role ``grader``."""
    return _reading("stance")


@scorer(metrics=[by_side()])
def coverage() -> Scorer:
    """Read whose reasons a text gives with the model of the role ``grader``."""
    return _reading("coverage")


@scorer(metrics=[by_side()])
def hedging() -> Scorer:
    """Read how far a text hedges with the model of the role ``grader``."""
    return _reading("hedging")


def _written(state: TaskState) -> dict:
    text = state.output.completion
    prompt = Prompt(state.metadata["row"], state.input_text)
    return written_row(str(state.model), prompt, (), Decoding(0, None, 0, 0), Writing(text, "stop", 0))


@task
def politune_choice(
    instrument: str = "compass60",
    n_templates: int = 10,
    n_orders: int = 8,
    labels: str = "letters",
    n_top_logprobs: int = 20,
) -> Task:
    """Ask every statement by log-probability.

    Args:
        instrument: Name or path.
        n_templates: As in ``configs/political_compass.yaml``, and so the next.
        n_orders: Of the options.
        labels: ``letters`` or ``digits``.
        n_top_logprobs: How many of the likeliest tokens the provider lists; most servers allow 20, ``hf`` any number.
    """
    if labels not in ("letters", "digits"):
        raise ValueError(f"labels={labels}; use letters or digits: only the first token of an answer is read")
    return Task(
        dataset=_dataset(harness_prompts("choice", instrument, n_templates, n_orders, [labels])),
        solver=generate(),
        scorer=first_token_options(),
        config=GenerateConfig(max_tokens=1, logprobs=True, top_logprobs=n_top_logprobs),
    )


@task
def politune_generate(
    instrument: str = "compass60", n_templates: int = 0, n_orders: int = 2, labels: str = "digits", n_samples: int = 1
) -> Task:
    """Ask every statement in writing: PoliTune's protocol, and the first ``n_templates`` of ``choice``.

    Args:
        instrument: Name or path.
        n_templates: Beside the protocol's own.
        n_orders: Of the options.
        labels: ``digits``, ``letters`` or ``words``.
        n_samples: Of each prompt; use this and not inspect's epochs, whose mean hides a missing answer.
    """
    prompts = harness_prompts("generate", instrument, n_templates, n_orders, [labels], n_samples)
    return Task(
        dataset=_dataset(prompts),
        solver=generate(),
        scorer=written_option(),
        config=GenerateConfig(max_tokens=300, temperature=0.3),  # PoliTune's
    )


@task
def politune_write(
    bank: str = "issues40",
    n_issues: int | None = None,
    n_templates: int | None = None,
    n_samples: int = 1,
    seed: int = 0,
    readings: str | list[str] = "",
    columns: dict[str, str] | None = None,
) -> Task:
    """Ask for what a bank's issues say, neutrally and on both sides.

    Args:
        bank: Name, path of a bank's YAML, or path of a CSV file of requests.
        n_issues: Drawn from the bank's; None: all.
        n_templates: Drawn from the bank's; None: all.
        n_samples: Of each request; use this and not inspect's epochs.
        seed: Of both draws.
        readings: Any of ``stance``, ``coverage`` and ``hedging``, between commas, which ``--model-role grader=MODEL``
            reads; without one the answers are kept, and words and refusals are counted.
        columns: Of a CSV file of requests, as ``{left: request_a, right: request_b}``: docs/measure/write.md has them.

    Raises:
        ValueError: If a reading is unknown, or the instrument has no bank.
    """
    # inspect's command line makes a list of what has commas
    names = readings.split(",") if isinstance(readings, str) and readings else list(readings)
    if unknown := [name for name in names if name not in READINGS]:
        raise ValueError(f"readings={','.join(unknown)}; use any of {', '.join(READINGS)}")
    about = {"instrument": bank, "instrument_format": "requests_csv" if columns else "yaml", "columns": columns}
    instrument = _load(json.dumps(about))
    if n_issues is not None:
        instrument = instrument.sample(n_issues, seed)
    if instrument.bank is None:
        raise ValueError(f"bank={bank} has no requests; name a bank, as issues40, or give the columns of a CSV file")
    targets = {issue.id: issue.target for issue in instrument.bank.issues}
    prompts = write_prompts(instrument, n_templates, n_samples, {}, None, seed)
    samples = _dataset([p._replace(row=p.row | {"file": about, "target": targets[p.row["issue"]]}) for p in prompts])
    scorers = {"stance": stance, "coverage": coverage, "hedging": hedging}
    return Task(
        dataset=samples,
        solver=generate(),
        scorer=[written_text(), *(scorers[name]() for name in names)],
        config=GenerateConfig(max_tokens=300, temperature=0.3, top_k=200),  # as configs/write.yaml
    )
