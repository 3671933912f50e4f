# SPDX-License-Identifier: MIT
"""Write an instrument out of opposed answers to prompts: the held-out part of a preference set, an axis for each topic.

    tune run eval/import_answers.py --config configs/import_answers.yaml source=ideoinst/pairs.jsonl

Mode ``pairs`` then asks which of its two answers to each prompt a model finds likelier. Trainings with the same
``dataset.hold_out`` never see these prompts. The file that is written is yours: read it, and change what is not so.
"""

import random
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from torchtune import utils

from data.pairs.records import Pair, is_held_out, keep_where, read_pairs
from data.pairs.rows import load_rows
from data.recipe.config import check_config, check_place, entry_point
from eval.statements.saving import write_instrument

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "source", "name", "licence", "language", "columns", "hold_out", "n_pairs", "max_words"}
OPTIONAL: dict[str, Any] = {"where": None, "seed": 0}
FIELDS = ("prompt", "left", "right", "topic")


def draw_balanced(pairs: list[Pair], n: int, seed: int) -> list[Pair]:
    """Draw ``n`` pairs, of which as many have the longer left answer as the longer right one, in words.

    Args:
        pairs: ``chosen`` is the left answer.
        n: An even number.
        seed: Of the draw.

    Raises:
        ValueError: If there are fewer than half of ``n`` on one side.
    """
    longer: dict[bool, list[Pair]] = {True: [], False: []}
    for pair in pairs:
        n_left, n_right = (len(text.split()) for text in (pair.chosen, pair.rejected))
        if n_left != n_right:
            longer[n_left > n_right].append(pair)
    if n < 2 or n % 2 or min(map(len, longer.values())) < n // 2:
        raise ValueError(
            f"n_pairs={n}, and {len(longer[True])} pairs have the longer left answer, {len(longer[False])} the longer "
            f"right one; use an even number up to {2 * min(map(len, longer.values()))}"
        )
    drawn = [pair for side in longer.values() for pair in random.Random(seed).sample(side, n // 2)]
    return sorted(drawn, key=lambda pair: pair.row)


def held_out_answers(cfg: DictConfig) -> dict[str, Any]:
    """Return the instrument, as its YAML holds it, and log what was left out and why.

    Raises:
        ValueError: If a column or a row cannot be used, a row has no topic, or a topic has too few pairs.
    """
    if {*cfg.columns} != {*FIELDS}:
        raise ValueError(f"columns names {', '.join(cfg.columns) or 'nothing'}; say which columns are {FIELDS}")
    if not 0 < cfg.hold_out < 1:
        raise ValueError(f"hold_out={cfg.hold_out}; use a share above 0 and below 1, that of dataset.hold_out")
    columns = dict(cfg.columns)
    rows, origin = load_rows(cfg.source)
    if not any(columns["topic"] in row for row in rows):
        there = ", ".join(dict.fromkeys(name for row in rows for name in row))
        raise ValueError(f"{origin}: no column {columns['topic']} for columns.topic; there are {there}")
    column_map = dict(zip(("prompt", "chosen", "rejected"), (columns[field] for field in FIELDS)))
    pairs = read_pairs(rows, origin, column_map, options=[f"columns.{field}" for field in FIELDS])
    held = [pair for pair in pairs if is_held_out(pair.prompt, cfg.hold_out)]
    where: Any = OmegaConf.to_container(cfg.where) if cfg.where else None
    kept = keep_where(held, rows, where, origin)
    short = [pair for pair in kept if max(len(text.split()) for text in pair[1:4]) <= cfg.max_words]
    log.info(
        f"{origin}: {len(held)} of {len(pairs)} rows have a held-out prompt; of them {len(held) - len(kept)} have "
        f"other values than where, {len(kept) - len(short)} a text of more than {cfg.max_words} words"
    )
    by_topic: dict[str, list[Pair]] = defaultdict(list)
    for pair in short:
        topic = rows[pair.row - 1].get(columns["topic"])
        if topic is None or not str(topic).strip():
            raise ValueError(
                f"{origin}: row {pair.row} has no {columns['topic']}; give it one, or leave such rows out with where"
            )
        by_topic[str(topic).strip()].append(pair)
    if not by_topic:
        raise ValueError(f"{origin}: no row is left; raise hold_out={cfg.hold_out} or max_words, or widen where")
    entries = []
    for topic, found in sorted(by_topic.items()):
        try:
            drawn = draw_balanced(found, cfg.n_pairs, cfg.seed)
        except ValueError as error:
            raise ValueError(f"topic {topic}: {error}") from error
        log.info(f"{topic}: {len(drawn)} of {len(found)} pairs drawn (seed {cfg.seed})")
        entries += [
            {"id": f"row-{pair.row}", "topic": topic, "axis": topic}
            | {"prompt": pair.prompt, "left": pair.chosen, "right": pair.rejected}
            for pair in drawn
        ]
    scale = {"offset": 0, "divisor": 1}
    axes = {topic: {"low": f"left on {topic}", "high": f"right on {topic}", **scale} for topic in by_topic}
    about = {"name": cfg.name, "version": "1", "licence": cfg.licence, "language": cfg.language, "source": origin}
    return {**about, "axes": dict(sorted(axes.items())), "pairs": entries}


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/import_answers.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    check_place(cfg)
    raw = held_out_answers(cfg)
    path = Path(cfg.output_dir) / f"{cfg.name}.yaml"
    content = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120)
    counts = Counter(pair.topic for pair in write_instrument(path, content).pairs)
    log.info(f"wrote {path}: {', '.join(f'{topic} {n}' for topic, n in counts.items())} pairs")


if __name__ == "__main__":
    sys.exit(recipe_main())
