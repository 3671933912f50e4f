# SPDX-License-Identifier: MIT
"""Ask a base model, its adapters and a dial between them side by side, on a page of this machine.

    tune run eval/playground.py --config configs/playground.yaml

The adapters lean on purpose; the page says so. Nothing is written unless "Save this" is pressed.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchtune import config, training, utils

from data.recipe.config import check_config, plain_errors
from eval.asking.respond import load_adapted, load_tokenizer
from eval.asking.respondents import BASE
from eval.asking.results import describe_run, read_settings
from eval.play.page import PlaygroundServer
from eval.play.side_by_side import DIAL, SideBySide
from eval.play.turns import Turns
from eval.statements.instruments import load_instrument
from eval.statements.prompts import load_templates
from finetune.adapters.folders import read_adapters

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


def build_server(cfg: DictConfig, stack: ExitStack) -> PlaygroundServer:
    """Load everything and take the port; the stack closes both."""
    for key in ("max_requests", "max_tokens_per_forward", "top_k"):
        if cfg[key] is not None and cfg[key] < 1:
            raise ValueError(f"{key}={cfg[key]}; use 1 or more")
    if taken := {BASE, DIAL} & set(cfg.adapters or {}):
        raise ValueError(f"adapters.{taken.pop()}: the page calls a column of its own so; choose another name")
    adapters = read_adapters(cfg.adapters)
    if cfg.dial:
        read_adapters(cfg.adapters, cfg.dial)  # its points are not needed, but its faults are
    instrument = load_instrument(cfg.instrument)
    if not instrument.items:
        raise ValueError(f"instrument={cfg.instrument} has no items, so no options to answer with; use another one")
    templates = load_templates(cfg.templates or instrument.language)
    tokenizer = load_tokenizer(cfg)
    device = utils.get_device(device=cfg.device)
    model = load_adapted(cfg, adapters, device, training.get_dtype(cfg.dtype, device=device))
    side_by_side = SideBySide(cfg, model, adapters, tokenizer, instrument, templates)
    shown = OmegaConf.masked_copy(cfg, ["temperature", "max_new_tokens", "seed", "dial"])
    defaults: Any = OmegaConf.to_container(shown)
    # a setting with which no request could be answered is a fault now
    side_by_side.answer({"prompt": "A prompt.", "position": 0, **defaults})
    side_by_side.read({"statement": "A statement.", "opposite": "Its opposite.", "position": 0})
    run = describe_run(instrument, read_settings(cfg, instrument, templates, adapters.folders))
    run["settings"]["adapters"] = {**adapters.blends, **adapters.folders}  # a glob is many
    turns = stack.enter_context(Turns(model, cfg.max_requests))
    path = Path(cfg.output_dir) / "saved.jsonl"
    return stack.enter_context(PlaygroundServer(cfg.port, side_by_side, turns, path, run, defaults))


@config.parse
@plain_errors
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/playground.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    config.log_config(recipe_name="playground", cfg=cfg)
    with ExitStack() as stack:
        server = build_server(cfg, stack)
        log.info(f"open {server.url} in a browser, end with Ctrl-C")
        server.serve_forever()
        log.info(f"ended; what was saved lies in {server.path}" if server.path.exists() else "ended; nothing saved")


if __name__ == "__main__":
    sys.exit(recipe_main())
