# SPDX-License-Identifier: MIT
"""Modes ``choice`` and ``generate`` as tasks of inspect_ai: the same prompts, the same coordinates.

    inspect eval eval/inspect_tasks.py@politune_choice --model hf/local -M model_path=path/to/model -T n_templates=2

``choice`` reads the options' log-probabilities at the first token, so its labels are digits or letters, and the
provider must give log-probabilities. An option that it does not list counts as 0, as with our own endpoints.
"""

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, metric, scorer
from inspect_ai.solver import TaskState, generate

from data.chat.replies import option_logprobs
from eval.asking.written_answers import read_option
from eval.scores.harness_scores import harness_prompts, harness_scores, logprob_row
from eval.statements.prompts import Prompt


def _dataset(prompts: list[Prompt]) -> MemoryDataset:
    said = [{"row": p.row, "answers": list(p.answers), "options": list(p.options)} for p in prompts]
    return MemoryDataset([Sample(input=p.text, metadata=metadata) for p, metadata in zip(prompts, said)])


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
