# SPDX-License-Identifier: MIT
"""What is asked in every mode, and how answers in writing are drawn."""

from typing import NamedTuple

from omegaconf import DictConfig

from eval.asking.respondents import MODES
from eval.asking.written_answers import Decoding
from eval.statements.instruments import Instrument
from eval.statements.prompts import Prompt, choice_prompts, generate_prompts, open_prompts, pair_prompts
from eval.statements.wordings import Templates

WRITTEN = ("generate", "open")


class Interview(NamedTuple):
    """What is asked.

    Attributes:
        prompts: By mode, in the order in which they are asked.
        options: Wordings, in the instrument's order.
        decodings: How the text of each mode is drawn.
    """

    prompts: dict[str, list[Prompt]]
    options: tuple[str, ...]
    decodings: dict[str, Decoding]

    def of(self, modes: tuple[str, ...]) -> list[Prompt]:
        """Return the prompts of these modes."""
        return [prompt for mode, prompts in self.prompts.items() if mode in modes for prompt in prompts]


def plan_interview(cfg: DictConfig, instrument: Instrument, templates: Templates) -> Interview:
    """Make the prompts of a config's modes.

    Raises:
        ValueError: If a mode is unknown, the instrument or the templates have nothing for it, or a setting is out of
            range.
    """
    if not cfg.modes or not {*cfg.modes} <= {*MODES}:
        raise ValueError(f"modes={list(cfg.modes)}; use any of {list(MODES)}")
    for mode, kind in (("choice", "items"), ("pairs", "pairs"), ("generate", "items")):
        if mode in cfg.modes and not getattr(instrument, kind):
            others = [m for m in cfg.modes if m != mode]
            raise ValueError(f"modes={list(cfg.modes)}, but {cfg.instrument} has no {kind}; use modes={others}")
    counts = ("n_samples", "max_new_tokens", "open_max_new_tokens", "prompts_per_batch", "top_k")
    for key in counts:
        if (cfg[key] is not None or key != "top_k") and cfg[key] < 1:
            raise ValueError(f"{key}={cfg[key]}; use 1 or more{', or null' if key == 'top_k' else ''}")
    if cfg.temperature < 0 or (cfg.temperature == 0 and cfg.n_samples > 1):
        raise ValueError(
            f"temperature={cfg.temperature}, n_samples={cfg.n_samples}; use a temperature of 0 or more, and above "
            "0 for more than one sample: at 0 all are the same"
        )
    labels = list(cfg.labels)
    make = {
        "choice": lambda: choice_prompts(instrument, templates, cfg.n_templates, cfg.n_orders, labels),
        "pairs": lambda: pair_prompts(instrument, templates, cfg.n_pair_templates),
        "generate": lambda: generate_prompts(
            instrument, templates, cfg.n_generate_templates, cfg.n_generate_orders, labels, cfg.n_samples
        ),
        "open": lambda: open_prompts(instrument, templates, cfg.n_open_templates, cfg.n_samples),
    }
    lengths = {"generate": cfg.max_new_tokens, "open": cfg.open_max_new_tokens}
    decodings = {mode: Decoding(cfg.temperature, cfg.top_k, n, cfg.seed) for mode, n in lengths.items()}
    return Interview({mode: make[mode]() for mode in MODES if mode in cfg.modes}, instrument.options, decodings)
