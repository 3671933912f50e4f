# SPDX-License-Identifier: MIT
"""Ask a base model, its adapters and a dial between them side by side, on a page of this machine.

    tune run eval/playground.py --config configs/playground.yaml

The adapters lean on purpose; the page says so. Nothing is written unless "Save this" is pressed.
"""

import json
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchtune import utils

from data.recipe.config import check_config, check_place, entry_point
from data.recipe.files import AppendLog
from data.recipe.pages import LocalServer, Reply, listen
from eval.asking.questions import to_questions
from eval.asking.respond import check_adapter_bases, load_adapted, load_tokenizer
from eval.asking.respondents import BASE
from eval.asking.results import describe_run, read_settings
from eval.play.side_by_side import DIAL, Record, SideBySide
from eval.play.turns import Event, Request, Turns
from eval.statements.instruments import load_instrument
from eval.statements.prompts import choice_prompts, load_templates, pair_prompts
from finetune.adapters.folders import read_adapters
from finetune.models import BROUGHT, base_folder, complete_model, context_length
from finetune.run.precision import settle_dtype

# Finished answers that can still be saved; they lie in memory alone.
N_KEPT = 64
log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "model", "tokenizer", "checkpointer", "adapters", "device", "dtype"}
OPTIONAL: dict[str, Any] = {
    "dial": None,
    "instrument": "compass60",
    "templates": None,
    "n_templates": 3,
    "n_orders": 2,
    "labels": ["words"],
    "n_pair_templates": 4,
    "temperature": 0.7,
    "top_k": None,
    "max_new_tokens": 200,
    "seed": 0,
    "max_tokens_per_forward": 200,
    "max_requests": 4,
    "port": 8766,
}


class PlaygroundServer(LocalServer):
    """Serves the playground: answers as they are written, nothing kept unless asked.

    The page sends JSON, which ``side_by_side`` turns into work for ``turns``. An answer is a stream of JSON lines: the
    record of the request, then events, at last the ``id`` by which it can be saved, beside ``run``: models, hashes,
    settings and versions.
    """

    max_bytes = 1 << 20

    def __init__(self, side_by_side: SideBySide, turns: Turns, run: Mapping[str, Any]) -> None:
        cfg, self.side_by_side, self.turns, self.run = side_by_side.cfg, side_by_side, turns, run
        self.path = Path(cfg.output_dir) / "saved.jsonl"
        names = ["temperature", "max_new_tokens", "seed", "dial"]
        defaults: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, names))
        # a setting with which no request could be answered is a fault now
        side_by_side.answer({"prompt": "A prompt.", "position": 0, **defaults})
        side_by_side.read({"statement": "A statement.", "opposite": "Its opposite.", "position": 0})
        self._fields = {
            "columns": side_by_side.columns(0),
            "statements": side_by_side.statements(),
            "instrument": side_by_side.instrument,
            "run": run,
            "defaults": defaults,
        }
        self._kept: dict[str, Record] = {}
        self._lock = threading.Lock()
        super().__init__(cfg.port, "eval.play", "playground.html.jinja")

    def show(self, path: str, query: Mapping[str, str]) -> Reply:
        """Show the page."""
        if path == "/":
            return self.page(HTTPStatus.OK, **self._fields)
        return self.problem(HTTPStatus.NOT_FOUND, f"Nothing here; open {self.url}.")

    def take(self, path: str, sent: bytes) -> Reply:
        """Answer a prompt, read a statement, or save one of these."""
        prepare = {"/answer": self.side_by_side.answer, "/read": self.side_by_side.read}.get(path)
        try:
            fields = json.loads(sent)
        except ValueError:  # neither JSON nor Unicode
            fields = None
        if (prepare is None and path != "/save") or not isinstance(fields, dict):
            return self.problem(HTTPStatus.BAD_REQUEST, "This is no request of this page. Load the page again.")
        if prepare is None:
            return self._save(str(fields.get("id")))
        try:
            record, parts = prepare(fields)
        except ValueError as error:
            return self.problem(HTTPStatus.BAD_REQUEST, str(error))
        try:
            request = self.turns.request(parts)
        except RuntimeError as error:
            return self.problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        lines = (json.dumps(event) + "\n" for event in self._events(record, request))
        # if the reader leaves, the rest is not computed
        return Reply(HTTPStatus.OK, lines, "application/x-ndjson", close=request.close)

    def problem(self, status: HTTPStatus, problem: str) -> Reply:
        """Say what is wrong, for the page to show."""
        return _json(status, {"problem": problem})

    def _events(self, record: Record, request: Request) -> Iterator[Event]:
        yield record
        for event in request:
            yield event
            record["columns"][event.pop("part")].update(event)
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[name] = record
            while len(self._kept) > N_KEPT:
                del self._kept[next(iter(self._kept))]
        yield {"id": name}

    def _save(self, name: str) -> Reply:
        with self._lock:
            record = self._kept.get(name)
            if record is None:
                problem = "This is saved already or no longer in memory; the same seed gives it again."
                return self.problem(HTTPStatus.BAD_REQUEST, problem)
            try:
                with closing(AppendLog(self.path, synced=True)) as saved:
                    time = datetime.now(UTC).isoformat(timespec="seconds")
                    saved.append([{"time": time, **record, "run": self.run}])
            except (OSError, RuntimeError, ValueError) as error:
                log.error("an answer could not be saved: %s", error)
                return self.problem(HTTPStatus.INSUFFICIENT_STORAGE, f"It could not be saved: {error}")
            del self._kept[name]
        return _json(HTTPStatus.OK, {"saved": f"Saved as the last line of {self.path.resolve()}"})


def _json(status: HTTPStatus, value: Record) -> Reply:
    return Reply(status, json.dumps(value), "application/json")


def build_server(cfg: DictConfig, stack: ExitStack) -> PlaygroundServer:
    """Load everything and take the port; the stack closes both."""
    complete_model(cfg)
    check_place(cfg)
    for key in ("max_requests", "max_tokens_per_forward", "top_k"):
        if cfg[key] is not None and cfg[key] < 1:
            raise ValueError(f"{key}={cfg[key]}; use 1 or more")
    if taken := {BASE, DIAL} & set(cfg.adapters or {}):
        raise ValueError(f"adapters.{taken.pop()}: the page calls a column of its own so; choose another name")
    adapters = read_adapters(cfg.adapters)
    check_adapter_bases(cfg, adapters)
    if cfg.dial:
        read_adapters(cfg.adapters, cfg.dial)  # its points are not needed, but its faults are
    instrument = load_instrument(cfg.instrument)
    if not instrument.items:
        raise ValueError(f"instrument={cfg.instrument} has no items, so no options to answer with; use another one")
    templates = load_templates(cfg.templates or instrument.language)
    tokenizer = load_tokenizer(cfg)
    # that these settings can be used is found before a minute of loading
    listen(cfg.port).close()
    shown = (instrument.sample(min(2, len(instrument.items)), cfg.seed), templates)
    prompts = choice_prompts(*shown, cfg.n_templates, cfg.n_orders, cfg.labels)
    to_questions([*prompts, *pair_prompts(*shown, cfg.n_pair_templates)], tokenizer)
    context = context_length(cfg.model)
    if context is not None and not 0 < cfg.max_new_tokens < context:
        raise ValueError(f"max_new_tokens={cfg.max_new_tokens}; use 1 to {context - 1}, since the context is {context}")
    device = utils.get_device(device=cfg.device)
    model = load_adapted(cfg, adapters, device, settle_dtype(cfg, device, base_folder(cfg)))
    side_by_side = SideBySide(cfg, model, adapters, tokenizer, instrument, templates)
    run = describe_run(instrument, read_settings(cfg, instrument, templates, adapters.folders))
    run["settings"]["adapters"] = {**adapters.blends, **adapters.folders}  # a glob is many
    turns = stack.enter_context(Turns(model, cfg.max_requests))
    return stack.enter_context(PlaygroundServer(side_by_side, turns, run))


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/playground.yaml for the keys."""
    cfg = check_config(cfg, REQUIRED, OPTIONAL, nullable=BROUGHT)
    with ExitStack() as stack:
        server = build_server(cfg, stack)
        log.info(f"open {server.url} in a browser, end with Ctrl-C")
        server.serve_forever()
        log.info(f"ended; what was saved lies in {server.path}" if server.path.exists() else "ended; nothing saved")


if __name__ == "__main__":
    sys.exit(recipe_main())
