# SPDX-License-Identifier: MIT
"""A judge of texts: how it is asked, how far it agrees with people's labels, and whether it is believed.

An answer that cannot be read is a counted problem, never a guess. A judge is believed if the whole 95 % interval of its
kappa lies at or above the floor; ``data/synthesize.py`` refuses one that is not, and ``eval/`` voids its scores.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.chat import ChatClient, Failure, Request
from data.judging.agreement import describe_agreement
from data.judging.scales import LEAN_SCALE, JudgeScale, PostScale, load_instruction
from data.pairs.rows import read_records
from data.recipe.files import changed_settings

log = logging.getLogger(__name__)


ASKED = ("chat", "resident")  # kinds of judges that read an instruction


class Text(NamedTuple):
    """A text to judge, and the statement or subject that it is about ("" where the scale needs none)."""

    text: str
    target: str


class LabelledTexts(NamedTuple):
    """Texts with their true classes, and the classes by further human raters (None where one gave none)."""

    texts: list[Text]
    truth: list[str]
    raters: dict[str, list[str | None]]


class Judgement(NamedTuple):
    """A judge's answer about one text: a label of the scale, or a problem that says why there is none."""

    label: str | None
    raw: Any  # the text that it wrote, or for a resident model the log-probability of each label in nats
    problem: str | None
    model: str  # its name and revision, as far as they are known


class Judge(NamedTuple):
    """A rater of texts."""

    name: str  # in files and in the report
    kind: str  # ``chat``, ``resident``, ``trained`` or ``recorded``; recorded answers say nothing about other texts
    scale: JudgeScale  # the question, and the labels that answer it
    ask: Callable[[Sequence[Text]], Iterator[Judgement]]  # judgements in the order of the texts
    about: Mapping[str, Any]  # everything that its judgements depend on: a validation holds for this judge alone
    validation: Mapping[str, Any] | None  # its figures from ``eval/validate_judge.py``; None if there are none

    @property
    def identity(self) -> str:
        """SHA-256 of ``about``."""
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()

    @property
    def why_not_believed(self) -> str | None:
        """The reason why its judgements are not to be believed, or None."""
        if self.validation is None:
            return "the judge was not validated on texts that people have labelled (eval/validate_judge.py)"
        if self.validation["believed"]:
            return None
        kappa, floor = self.validation["kappa"], self.validation["min_kappa"]
        return f"the judge agrees too little with people: {_kappa_text(kappa, 2)}, floor {floor:g}"


def make_judge(
    name: str,
    kind: str,
    scale: JudgeScale,
    ask: Callable[[Sequence[Text]], Iterator[Judgement]],
    about: Mapping[str, Any],
    validation: str | None,
) -> Judge:
    """Return a judge that is known by all that its judgements depend on, with what was found about just this one."""
    instruction = load_instruction(scale.instruction).sha256 if kind in ASKED else None
    about = {"kind": kind, "scale": scale.name, "labels": scale.labels, "instruction": instruction, **about}
    judge = Judge(name, kind, scale, ask, json.loads(json.dumps(about, default=str)), None)
    if validation is None:
        return judge
    if not Path(validation).is_file():
        missing = f"judge {name}: validation={validation} not found from {Path.cwd()}"
        raise FileNotFoundError(f"{missing}; run eval/validate_judge.py first, or use null")
    try:
        validated = json.loads(Path(validation).read_text(encoding="utf-8"))["judges"]
        known = {figures["identity"]: figures for figures in validated.values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        made = "the validation.json that eval/validate_judge.py or eval/train_judge.py wrote"
        raise ValueError(f"judge {name}: validation={validation} is not {made} ({error!r})") from error
    if judge.identity in known:
        return judge._replace(validation=known[judge.identity])
    differences = []
    for other, figures in validated.items():
        keys = changed_settings(figures["about"], judge.about)
        settings = [f"{k} is {judge.about.get(k)!s:.80}, there {figures['about'].get(k)!s:.80}" for k in keys]
        differences.append(f"{other}: {', '.join(settings)}")
    log.warning("judge %s is not validated: %s is about other judges (%s)", name, validation, "; ".join(differences))
    return judge


def ask_client(
    client: ChatClient, requests: Iterable[Request], n: int, title: str, label_of: Callable[[Any], str] = str
) -> Iterator[Judgement]:
    """Yield the judgements of a model behind a URL; ``label_of`` takes the label from an answer as it was parsed."""
    for _, result in client.chat_many(requests, total=n, title=title):
        if isinstance(result, Failure):
            yield Judgement(None, None, f"{result.kind}: {result.reason}", client.model)
        else:
            yield Judgement(label_of(result.parsed), result.text, None, result.model)


def require_answers(judge: str, judgements: Iterable[Judgement]) -> None:
    """Refuse to measure a judge that was not reached: only its server's trouble would be counted.

    Raises:
        RuntimeError: Says how many texts have no answer, and the first reason.
    """
    reasons = [given.problem for given in judgements if given.problem and given.problem.startswith("unanswered")]
    if reasons:
        raise RuntimeError(
            f"judge {judge}: {len(reasons)} calls got no answer, the first: {reasons[0]}. Check its base_url and "
            "cache_dir, and start the same command again: what was answered is kept"
        )


def measure_labels(
    truth: Sequence[str], labels: Sequence[str | None], scale: JudgeScale, n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Return the agreement of a rater, judge or person, with the truth, on the classes and on coarser ones."""
    answers = [None if label is None else scale.class_of(label) for label in labels]
    figures = describe_agreement(truth, answers, scale.classes, n_bootstrap, seed)
    if scale.coarse:
        coarse = [scale.coarse[name] for name in truth], [scale.coarse.get(name or "") for name in answers]
        figures["coarse"] = describe_agreement(*coarse, list(dict.fromkeys(scale.coarse.values())), n_bootstrap, seed)
    return figures


def measure_judge(
    truth: Sequence[str],
    judgements: Sequence[Judgement],
    scale: JudgeScale,
    min_kappa: float,
    n_bootstrap: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the figures of one judge against the truth, and whether it is believed; no label counts as a wrong one."""
    figures = measure_labels(truth, [judgement.label for judgement in judgements], scale, n_bootstrap, seed)
    problems = Counter(judgement.problem.partition(":")[0] for judgement in judgements if judgement.problem)
    return {
        "believed": reaches_floor(figures["kappa"], min_kappa),
        "min_kappa": min_kappa,
        "problems": dict(sorted(problems.items())),
        **figures,
    }


def reaches_floor(kappa: Mapping[str, Any], floor: float) -> bool:
    """Return the one verdict on a judge: whether the whole interval of its kappa lies at or above the floor."""
    # the estimate alone would let a judge pass by the luck of a few texts
    low = kappa["ci95"][0] if kappa["ci95"] else kappa["estimate"]
    return low is not None and low >= floor


def _kappa_text(kappa: Mapping[str, Any], digits: int) -> str:
    """Return kappa and its interval as text; it is not defined where judge and people said one class alone."""
    if kappa["estimate"] is None:
        return "kappa not defined (one class alone)"
    low, high = kappa["ci95"] or (None, None)
    ends = "unknown" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
    return f"kappa {kappa['estimate']:.{digits}f} ({ends})"


def check_judge(client: ChatClient, scale: PostScale, labelled: LabelledTexts, min_kappa: float) -> dict[str, Any]:
    """Return how far a judge of posts agrees with people's labels of the lean; under the floor it is a ValueError."""
    if len({*labelled.truth}) < 2:
        raise ValueError(
            f"judge.labelled: every text has the label {', '.join({*labelled.truth}) or 'none'}, so no agreement "
            "beyond chance can be measured; add texts of another class, or use judge.labelled=null"
        )
    requests = (scale.request(text.text) for text in labelled.texts)
    answers = ask_client(client, requests, len(labelled.texts), "labelled texts", lambda scores: str(scores["lean"]))
    given = list(answers)
    require_answers(f"{client.model} at {client.base_url}", given)
    measured = measure_judge(labelled.truth, given, LEAN_SCALE, min_kappa)
    figures = {
        "n": measured["n"],
        "kappa": measured["kappa"]["estimate"],
        "ci95": measured["kappa"]["ci95"],
        "agreement": measured["accuracy"]["estimate"],
        "unusable": measured["unparsed"],
        "confusion": {f"{a} said as {b}": n for a, row in measured["confusion"].items() for b, n in row.items()},
    }
    if not measured["believed"]:
        raise ValueError(
            f"judge {client.model} is refused: {_kappa_text(measured['kappa'], 3)} with people's "
            f"labels, and all of this interval must reach judge.min_kappa={min_kappa}; {json.dumps(figures)}. Use "
            "another model, a better judge.instruction, or more labelled texts"
        )
    return figures


def read_labelled(
    source: str,
    scale: JudgeScale,
    *,
    text: str = "text",
    label: str = "label",
    target: str | None = None,
    raters: Sequence[str] = (),
    label_map: Mapping[str, str] | None = None,
) -> LabelledTexts:
    """Read labelled texts from a CSV, TSV, JSONL or parquet file; an error names file and row.

    Columns are named by ``text``, ``label``, ``target`` (what a text is about) and ``raters`` (single people's labels,
    which may have gaps). ``label_map`` says which label of the scale is meant by one of the file.
    """
    if scale.name == "stance" and target is None:
        raise ValueError(f"{source}: a stance is one towards something; name its column in columns.target")
    mapped = {str(key): str(value) for key, value in (label_map or {}).items()}
    labelled = LabelledTexts([], [], {name: [] for name in raters})
    unused, seen = set(mapped), dict[Text, tuple[str, str]]()
    for where, cells in _rows(source, [name for name in (text, label, target, *raters) if name]):
        if empty := [name for name in (text, target) if name and name not in cells]:
            raise ValueError(f"{where}: {empty[0]} is empty; mend or remove the row")
        if label not in cells:
            raise ValueError(f"{where}: {label} is empty; every text needs a label")
        classes: dict[str, str] = {}
        for column in [name for name in (label, *raters) if name in cells]:
            name = cells[column].strip()
            unused.discard(name)
            try:
                classes[column] = scale.class_of(mapped.get(name, name))
            except ValueError as error:
                hint = "say in label_map (eval/validate_judge.py) what it means, or mend the row"
                raise ValueError(f"{where}: {column}: {error}; {hint}") from error
        labelled.texts.append(Text(cells[text], cells[target] if target else ""))
        before, said = seen.setdefault(labelled.texts[-1], (where, classes[label]))
        if said != classes[label]:
            raise ValueError(
                f"{where}: labelled {classes[label]}, but the same text has {said} in {before}; give each text one "
                "row, and labels of several people in columns of their own"
            )
        labelled.truth.append(classes[label])
        for rater, given in labelled.raters.items():
            given.append(classes.get(rater))
    if unused:
        raise ValueError(f"{source}: label_map has {', '.join(sorted(unused))}, which no row has; mend its spelling")
    return labelled


def read_labels(source: str, column: str, text: str, target: str | None) -> dict[Text, str]:
    """Return the answers of one column by the text, and what it is about, that they answer."""
    answers: dict[Text, str] = {}
    for where, cells in _rows(source, [name for name in (text, column, target) if name]):
        if column not in cells:
            continue
        key = Text(cells.get(text, ""), cells.get(target, "") if target else "")
        if answers.setdefault(key, cells[column]) != cells[column]:
            hint = "" if target else "; if one text is judged on several subjects, name their column in target_column"
            raise ValueError(f"{where}: {column} is {cells[column]!r}, before {answers[key]!r} for this text{hint}")
    return answers


def _rows(source: str, columns: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield file and row number for messages, and the text of each cell that is not empty."""
    for number, row in read_records(source):
        values = _flat(row)
        where = f"{source} row {number}"
        if missing := [name for name in columns if name not in values]:
            raise ValueError(f"{where}: no column {', '.join(missing)}; it has {', '.join(values)}")
        yield where, {name: str(x) for name, x in values.items() if x is not None and str(x).strip()}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row by column; ``a/b`` is the field ``b`` of the column ``a``."""
    values: dict[str, Any] = {}
    for column, value in row.items():
        if isinstance(value, Mapping):
            values |= {f"{column}/{field}": inner for field, inner in _flat(value).items()}
        else:
            values[column] = value
    return values
