# SPDX-License-Identifier: MIT
"""Answers that are there already, to be scored: ``results.jsonl`` of a run, or logs of inspect_ai.

::

    rows: outputs/compass/results.jsonl
    rows: logs/write.eval  # or .json; the model is called what the log calls it
    rows: {base: logs/base.eval, left: logs/left.eval}

A log is read by what was asked: a sample whose conversation is, to the character, one prompt of the config is an answer
to it, whichever task asked it. Everything else in a log is counted and said.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from data.chat.replies import Reply
from data.recipe.files import read_log
from eval.asking.respondents import Interview
from eval.asking.results import KEY, Row, row_key
from eval.asking.served import choice_row
from eval.asking.written_answers import Decoding, Writing, written_row
from eval.statements.instruments import Instrument
from eval.statements.prompts import Prompt
from finetune.adapters.folders import ADAPTER_FILE, fingerprint

LOGS = (".eval", ".json")
# Without these no model is loaded, and `respondents` alone are asked.
RESIDENT = ("model", "tokenizer", "checkpointer")
_COLUMNS = (*KEY, "instrument", "instrument_version", "instrument_sha256", "option_logprobs", "n_tokens")
_FINISH = {"max_tokens": "length", "model_length": "length"}
_READ = ("choice", "generate", "open", "write")  # a log has no log-probabilities of whole statements
_Question = tuple[str | None, str]  # system prompt and request


class GivenRows(NamedTuple):
    """Rows, and what a reader of their scores should know of where they come from."""

    rows: list[Row]
    notes: list[str]


def is_log(given: Any) -> bool:
    """Return whether ``rows`` names logs of inspect_ai rather than a ``results.jsonl``."""
    return not isinstance(given, str) or Path(given).suffix in LOGS


def paths_of(given: Any) -> list[Path]:
    """Return the files that ``rows`` names."""
    return [Path(path) for path in ([given] if isinstance(given, str) else given.values())]


def settings_of(given: Any) -> dict[str, Any]:
    """Return the settings beside a ``results.jsonl``; a log has none of ours."""
    beside = paths_of(given)[0].with_name("settings.json")
    return json.loads(beside.read_text()) if beside.is_file() and not is_log(given) else {}


def without_models(cfg: DictConfig) -> tuple[DictConfig, list[str]]:
    """Return a config that loads nothing, with the adapters that gave its rows, and why others cannot be looked up.

    The settings beside the rows name the adapters; the config's own may be those of another run.
    """
    cfg = cfg.copy()
    asked = settings_of(cfg.rows)
    there, unknown = {}, []
    for name, given in (asked.get("adapters") or {}).items():
        if given is None:
            continue
        if not isinstance(given, str):
            unknown.append(f"adapters.{name}: it is a blend")
        elif not Path(given, ADAPTER_FILE).is_file():
            unknown.append(f"adapters.{name}: {given} is not here")
        elif fingerprint(given) != asked["adapters_sha256"].get(name):
            unknown.append(f"adapters.{name}: {given} has other weights than when it was asked")
        else:
            there[name] = given
    if not asked:
        beside = paths_of(cfg.rows)[0].with_name("settings.json")
        unknown.append(f"{beside} is not here, which names the adapters that were asked")
    cfg.adapters = there
    for key in (*RESIDENT, "respondents", "dial"):
        cfg[key] = None
    return cfg, unknown


def read_rows(given: Any, instrument: Instrument, interview: Interview) -> GivenRows:
    """Return the rows that ``rows`` names.

    Raises:
        FileNotFoundError: If there is no such file, or it has no row.
        ImportError: If a log wants inspect_ai, which is not installed.
        ValueError: If they answer another instrument, or another version of it, or are no rows of a run; if a log
            answers no prompt of the config.
    """
    if is_log(given):
        if len(interview.prompts) != 1 or not {*interview.prompts} <= {*_READ}:
            raise ValueError(f"rows={given}: a log answers one mode; set modes to one of {', '.join(_READ)}")
        logs = {None: given} if isinstance(given, str) else {str(name): path for name, path in given.items()}
        read = [_log_rows(Path(path), name, interview) for name, path in logs.items()]
        return GivenRows([row for one in read for row in one.rows], [note for one in read for note in one.notes])
    rows = read_log(given)
    if not rows:
        raise FileNotFoundError(f"rows={given}: no rows there; name the results.jsonl of a run")
    if faults := list(_row_faults(rows)):
        raise ValueError(
            f"rows={given}: {len(faults)} of {len(rows)} rows cannot be scored ({'; '.join(faults[:3])}"
            f"{'; …' if len(faults) > 3 else ''}); give the file as the run wrote it"
        )
    asked = {(row["instrument"], row["instrument_version"], row["instrument_sha256"]) for row in rows}
    if others := sorted(asked - {(instrument.name, instrument.version, instrument.sha256)}):
        said = ", ".join(f"{name} {version} ({sha256[:8]})" for name, version, sha256 in others)
        raise ValueError(
            f"rows={given} answer {said}, but instrument is {instrument.name} {instrument.version} "
            f"({instrument.sha256[:8]}); set instrument to the file that was asked"
        )
    return GivenRows(rows, [])


def _row_faults(rows: Sequence[Row]) -> Iterator[str]:
    """Say which rows no run of ours has written: without a column, twice there, or with what is no log-probability."""
    first: dict[Any, int] = {}
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in _COLUMNS if name not in row]:
            yield f"row {number} has no {', '.join(missing)}"
            continue
        if (earlier := first.setdefault(row_key(row), number)) != number:
            yield f"row {number} answers what row {earlier} does: {row['model']}, {row['mode']}, {row['item']}"
            continue
        found, n_tokens, is_pair = row["option_logprobs"], row["n_tokens"], row["mode"] == "pairs"
        if found is None and not is_pair:
            continue
        given = found if isinstance(found, list) else [found]
        known = given if is_pair else [x for x in given if x is not None]  # a server may not list an option
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in known) or (is_pair and len(given) != 2):
            yield f"row {number} has the option_logprobs {found}"
        elif is_pair and not (
            isinstance(n_tokens, list) and list(map(type, n_tokens)) == [int, int] and min(n_tokens) > 0
        ):
            yield f"row {number} has the n_tokens {n_tokens}"


def _log_rows(path: Path, name: str | None, interview: Interview) -> GivenRows:
    """Return the rows of one log, and say what of it is none."""
    content = _read(path)
    (asked,) = interview.prompts.values()
    prompts: dict[_Question, list[Prompt]] = defaultdict(list)
    for prompt in asked:
        prompts[prompt.system, prompt.text or ""].append(prompt)
    left_out: Counter[str] = Counter()
    rows, unknown = [], ""
    for sample in content["samples"] or ():
        question, problem = _question(sample)
        if question is None:
            left_out[problem] += 1
        elif question not in prompts:
            left_out["ask for something else"] += 1
            unknown = unknown or f", for example {question[1]!r:.100}"
        elif not prompts[question]:
            left_out["answer a prompt once more than n_samples"] += 1
        else:
            rows.append(_row(path, name or content["eval"]["model"], prompts[question].pop(0), sample, content))
    said = "; ".join(f"samples that {what}: {n}" for what, n in left_out.items())
    said = f" ({said}{unknown})" if said else ""
    if not rows:
        raise ValueError(
            f"rows: {path} answers none of the {len(asked)} prompts of this config{said}; give the instrument, its "
            "templates, factors, system prompt and seed as they were asked"
        )
    status = "" if content.get("status") == "success" else f"; the log's status is {content.get('status')}"
    notes = [f"{path}: {len(rows)} of {len(asked)} prompts are answered{said}{status}"]
    return GivenRows(rows, notes if said or status or len(rows) < len(asked) else [])


def _read(path: Path) -> dict[str, Any]:
    """Return a log in the form of inspect_ai's JSON."""
    if not path.is_file():
        raise FileNotFoundError(f"rows: {path} is not there; name a log of inspect_ai")
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"rows: {path} is no JSON ({error}); name a log of inspect_ai") from error
    else:
        try:
            from inspect_ai.log import read_eval_log
        except ImportError as error:
            raise ImportError(
                f"rows: {path} wants inspect_ai (docs/measure/harnesses.md); where that is installed, "
                f"`inspect log convert --to json --output-dir logs_json {path}` writes a log that needs nothing"
            ) from error
        content = read_eval_log(str(path)).model_dump(mode="json")
    if not isinstance(content, dict) or not {"eval", "samples"} <= {*content}:
        raise ValueError(f"rows: {path} is no log of inspect_ai with its samples")
    return content


def _question(sample: Mapping[str, Any]) -> tuple[_Question | None, str]:
    """Return what a sample's model was asked, if that is one request, and else why there is none."""
    if sample.get("error"):
        return None, "ended in an error"
    if not (sample.get("output") or {}).get("choices"):
        return None, "have no answer"
    roles = [message["role"] for message in sample.get("messages") or ()]
    if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
        return None, "are not one request and its answer"
    texts = [_text(message["content"]) for message in sample["messages"]]
    return (texts[0] if len(texts) == 3 else None, texts[-2]), ""


def _text(content: Any) -> str:
    """Return the text of a message without its reasoning."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _row(path: Path, name: str, prompt: Prompt, sample: Mapping[str, Any], content: Mapping[str, Any]) -> Row:
    output, choice = sample["output"], sample["output"]["choices"][0]
    text, reason = _text(choice["message"]["content"]), choice["stop_reason"]
    finish, n_tokens = _FINISH.get(reason, reason), (output.get("usage") or {}).get("output_tokens", 0)
    about = {"server": output["model"], "log": path.name, "sample_id": sample["id"], "epoch": sample["epoch"]}
    if prompt.row["mode"] == "choice":
        first = ((choice.get("logprobs") or {}).get("content") or [{}])[0].get("top_logprobs")
        top = [{entry["token"]: entry["logprob"] for entry in first}] if first else None
        reply = Reply(text, text, finish, output["model"], (0, n_tokens), top, "")
        return choice_row(name, prompt, reply) | about
    said = None if reason == "content_filter" and not text else text
    row = written_row(name, prompt, prompt.options, Decoding(0, None, 0, 0), Writing(said, finish, n_tokens))
    config = (content.get("plan") or {}).get("config") or {}
    keys = {"temperature": "temperature", "top_k": "top_k", "max_new_tokens": "max_tokens", "seed": "seed"}
    return row | about | {"decoding": {ours: config.get(theirs) for ours, theirs in keys.items()}}
