# SPDX-License-Identifier: MIT
"""The stages of data/synthesize.py: what runs in each, and what its outcome depends on."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from data.judging.instructions import load_instruction, load_views
from data.synthesis.annotate import JudgePosts
from data.synthesis.gates import Gates
from data.synthesis.generate import WriteAnswers, WritePrompts
from data.synthesis.posts import Distinct, PostReader, Selection
from data.synthesis.rows import WriteDataset
from data.synthesis.stages import Stage, StageReader

if TYPE_CHECKING:
    from data.synthesize import SynthesizeRecipe

PROMPT_FILES = {"prompt": "instruction", "answer": "answer"}
SELECTING = (
    "post_words", "duplicate", "min_relevance", "min_distance", "quota", "related", "held_out_topics",
    "max_side_difference", "max_unanswered", "toxicity", "max_toxicity", "embeddings", "min_cosine",
)  # fmt: skip


def plan_stages(run: "SynthesizeRecipe", agreement: Sequence[Mapping[str, Any] | None]) -> list[Stage]:
    """Return the stages of a run.

    Args:
        run: The recipe, with its parts built.
        agreement: For each judge its figures against people's labels, or None.
    """
    cfg, generator, folder = run.cfg, run.generator_cfg, run.output_dir / "stages"
    tasks = cfg.executor.get("tasks", 1)
    names = ("1_posts", "2_distinct", "3_judged", "4_selected", "5_prompts", "6_answers", "7_gates")
    folders = [folder / name for name in names]
    judges = [
        {**_plain(judge.client), "prompt_sha256": load_instruction(judge.instruction).sha256}
        for judge in run.judge_cfgs
    ]
    told = {name: load_instruction(generator[key]).sha256 for name, key in PROMPT_FILES.items()}
    told["views"] = load_views(generator.views)[0]
    facts = {
        **{key: cfg[key] for key in ("name", "version", "licence", "language", "store_posts", "seed")},
        "single_sided_reason": cfg.single_sided_reason,
        "judges": [{**judge, "agreement": found} for judge, found in zip(judges, agreement)],
        "generator": {**_plain(generator.client), "prompt_sha256": told},
        "settings": {key: _container(cfg[key]) for key in SELECTING},
    }
    made_by = {"params": dict(run.generator.params), "prompt_sha256": told, "seed": cfg.seed}
    gating = [_container(cfg[key]) for key in ("instruments", "duplicate", "related", "split_shares")]
    gates = Gates(*gating, list(cfg.held_out_topics), cfg.seed, cfg.language, run.toxicity, run.alike)
    writer = WriteDataset(
        str(run.output_dir / "dataset"), list(map(str, folders[:-1])), facts, list(cfg.sides), made_by,
        cfg.max_side_difference, cfg.store_posts,
    )  # fmt: skip
    words = tuple(generator.n_words)
    how = (generator.answer, generator.views, generator.structured)
    steps = [
        [PostReader(run.sources, tuple(cfg.post_words))],
        [Distinct(cfg.duplicate, run.alike)],
        [JudgePosts(list(zip(run.judges, run.scales)), StageReader(folders[1]), cfg.max_unanswered)],
        [Selection(run.topics, cfg.min_relevance, cfg.min_distance, cfg.quota, run.toxicity)],
        [
            WritePrompts(
                run.generator, StageReader(folders[3]), cfg.max_unanswered, generator.instruction, generator.structured
            )
        ],
        [WriteAnswers(run.generator, StageReader(folders[4]), cfg.max_unanswered, run.sides, words, *how)],
        [gates, writer],
    ]
    settings = [
        {
            "sources": _container(cfg.sources),
            "sha256": list(_file_hashes(cfg.sources)),
            "words": list(cfg.post_words),
        },
        {key: _container(cfg[key]) for key in ("duplicate", "embeddings", "min_cosine")},
        {"judges": judges, "topics": run.topics},
        {key: _container(cfg[key]) for key in ("min_relevance", "min_distance", "quota", "toxicity", "max_toxicity")},
        {"generator": facts["generator"]},
        {"sides": run.sides, "n_words": list(words)},
        {
            **facts,
            "sides": list(cfg.sides),
            "split_shares": gating[3],
            "instruments": list(_file_hashes(gating[0])),
        },
    ]
    readers = [[], *([StageReader(before)] for before in folders)]
    n_tasks = (tasks, 1, tasks, 1, tasks, tasks, 1)
    return [Stage(f, [*r, *s], k, n) for f, r, s, k, n in zip(folders, readers, steps, settings, n_tasks)]


def _container(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _plain(client: DictConfig) -> dict[str, Any]:
    """Leave out where calls go and how fast: that changes no outcome."""
    return {key: _container(client.get(key)) for key in ("model", "params")}


def _file_hashes(node: Any) -> Iterator[str]:
    """Yield the SHA-256 of every local file that a config names, by its path or a glob."""
    if isinstance(node, str):
        for path in filter(os.path.isfile, sorted(glob(node))):
            with open(path, "rb") as file:
                yield hashlib.file_digest(file, "sha256").hexdigest()
    elif not isinstance(node, str):
        values = node.values() if isinstance(node, Mapping | DictConfig) else node
        try:
            for value in values:
                yield from _file_hashes(value)
        except TypeError:
            return
