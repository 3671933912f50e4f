# SPDX-License-Identifier: MIT
"""Turn raw posts into a mirrored preference set: judged, selected, answered from both sides, gated, documented.

    tune run data/synthesize.py --config configs/synthesize_politune_like.yaml

Each stage lies in ``output_dir/stages``, the set in ``output_dir/dataset``. An interrupted run goes on where it was and
repeats no answered call; a stage whose settings changed is made again, from the replies on disk as far as they go.
"""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from torchtune import config, utils

from data.chat import ChatClient
from data.judging.judges import check_judge, read_labelled
from data.judging.scales import LEAN_SCALE, PostScale, load_instruction, load_views
from data.quality.contamination import shipped_statements
from data.quality.personal import mask_personal
from data.recipe.config import check_config, check_place, component, entry_point, plain
from data.recipe.files import push_folder
from data.synthesis.gates import SPLITS, GateSettings, check_rows
from data.synthesis.models import JudgePosts, Rubric, WriteAnswers, WritePrompts, mask_names
from data.synthesis.posts import NO_POSTS, PostReader, distinct_posts, select_posts
from data.synthesis.rows import write_dataset
from data.synthesis.stages import REJECTED, Stage, StageReader, StageStep, forget_posts, remake_posts, run_stages
from data.text_models import MODELS, read_alike, read_cap

log = utils.get_logger("INFO")

ALL_FILES, REJECTED_FILES = "**/*.jsonl", f"{REJECTED}/*.jsonl"

REQUIRED = {"output_dir", "name", "version", "licence", "sources", "judge", "generator", "topics", "executor"}
OPTIONAL: dict[str, Any] = {
    "second_judge": None,
    "language": "en",
    "post_words": [8, 200],
    "duplicate": 0.5,
    "embeddings": None,
    "min_cosine": 0.9,
    "toxicity": None,
    "max_toxicity": 0.5,
    "min_relevance": 6,
    "min_distance": 4,
    "quota": None,
    "instruments": [],
    "related": 0.25,
    "balance_lengths": True,
    "split_shares": {"train": 0.8, "validation": 0.1, "test": 0.1},
    "held_out_topics": [],
    "max_side_difference": 0.1,
    "max_unanswered": 0,
    "sides": ["left", "right"],
    "single_sided_reason": None,
    "store_posts": False,
    "seed": 0,
    "dry_run": False,
    "push_to_hub": None,
    "push_private": True,
}
SIGNS_A_TOKEN, SECONDS_A_CALL = 4, 2  # of English, and of a small server: for the estimate of a dry run
JUDGE = {"instruction": "judge", "structured": True, "labelled": None, "min_kappa": 0.6}
GENERATOR = {
    "instruction": "instruction",
    "answer": "answer",
    "views": "views",
    "structured": True,
    "neutral": False,
    "n_words": [60, 90],
}


class _Judge(NamedTuple):
    """A judge of posts, as the config names it."""

    client: ChatClient
    scale: PostScale
    cfg: DictConfig

    def agreement(self) -> dict[str, Any] | None:
        """Return its figures against people's labels; None if there are no labels."""
        if self.cfg.labelled is None:
            log.warning(
                f"judge {self.client.model}: no judge.labelled, so its agreement with people's labels is unknown"
            )
            return None
        labelled = read_labelled(self.cfg.labelled, LEAN_SCALE)
        figures = check_judge(self.client, self.scale, labelled, self.cfg.min_kappa)
        log.info(f"judge {self.client.model}: {figures}")
        return figures


class SynthesizeRecipe:
    """Refuse what can be refused, ask the judges for their figures, then run the stages.

    Args:
        cfg: A config that passed :func:`data.recipe.config.check_config`.

    Raises:
        FileNotFoundError: If an instruction or a labelled file is not there.
        ValueError: If a setting breaks a rule, or a judge is under its floor.
    """

    def __init__(self, cfg: DictConfig) -> None:
        check_place(cfg)
        self.cfg, self.output_dir = cfg, Path(cfg.output_dir)
        judges = [check_config(cfg[name], {"client"}, JUDGE) for name in ("judge", "second_judge") if cfg[name]]
        self.generator_cfg = check_config(cfg.generator, {"client"}, GENERATOR)
        if not cfg.sides or not {*cfg.sides} <= {"left", "right"}:
            raise ValueError(f"sides={list(cfg.sides)}; use [left, right]")
        if {*cfg.sides} != {"left", "right"} and not str(cfg.single_sided_reason or "").strip():
            raise ValueError(f"sides={list(cfg.sides)}: say why in single_sided_reason; the card will carry it")
        check_topics(plain(cfg.topics), cfg.held_out_topics)
        shipped_statements(cfg.instruments or [])  # they are read last: a wrong path must not be found there
        if not cfg.sources:
            raise ValueError("sources is empty; name at least one, as sources.posts.source=posts.csv")
        if len(judges) > 1 and _judge_facts(judges[0]) == _judge_facts(judges[1]):
            raise ValueError("second_judge asks the same model as judge in the same words; name another one, or null")
        if not re.fullmatch(r"[\w.-]+", str(cfg.name or "")):
            raise ValueError(f"name={cfg.name}; use letters, digits, -, _ and . alone")
        self.topics = {topic: axis for axis, topics in cfg.topics.items() for topic in topics}
        rubric = self.generator_cfg
        sides = ("left", "right", "neutral") if rubric.neutral else ("left", "right")
        self.rubric = Rubric(
            rubric.instruction, rubric.answer, rubric.views, rubric.structured, tuple(rubric.n_words), sides
        )
        lacking = {(axis, side) for axis in cfg.topics for side in sides} - {*load_views(rubric.views)[1]}
        if lacking:
            raise ValueError(f"{rubric.views}: no view for {sorted(lacking)}; add a line for each")
        shares = [*cfg.split_shares.values()]
        are_shares = all(isinstance(share, int | float) and share >= 0 for share in shares)
        if {*cfg.split_shares} != {*SPLITS} or not are_shares or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"split_shares={cfg.split_shares}; want a share for each of {', '.join(SPLITS)}, in sum 1")
        self.judges = [
            _Judge(config.instantiate(node.client), PostScale(self.topics, node.instruction, node.structured), node)
            for node in judges
        ]
        self.generator = config.instantiate(self.generator_cfg.client)
        for name, source in cfg.sources.items():
            if not isinstance(source, DictConfig) or "_component_" not in source:
                raise ValueError(f"sources.{name}={source} is no component; give sources.{name}._component_ and more")
        self.sources = [component(source) for source in check_config(cfg.sources, set(cfg.sources), {}).values()]
        self.toxicity, self.alike = read_cap(cfg), read_alike(cfg)

    def preview(self) -> None:
        """Show one prompt of each stage and the number of calls, and ask nothing."""
        posts = [mask_personal(post["text"], post["names"]) for source in self.sources for post in source()]
        if not posts:
            raise ValueError(NO_POSTS)
        n, n_answers = len(posts), 1 + len(self.rubric.sides)
        example, (topic, axis) = posts[0], next(iter(self.topics.items()))
        requests = {
            "judge": self.judges[0].scale.request(example),
            "judge, names masked": self.judges[0].scale.request(mask_names(example)),
            "prompt": self.rubric.prompt_request(example, topic),
            "answer": self.rubric.answer_request("(the prompt)", axis, "left"),
        }
        for name, request in requests.items():
            text = "\n".join(f"[{message['role']}]\n{message['content']}" for message in request.messages)
            log.info(f"--- {name} ---\n{text}")
        n_judged = 2 * n * len(self.judges)
        n_signs = {name: sum(len(m["content"]) for m in request.messages) for name, request in requests.items()}
        signs = (n_signs["judge"] - len(example)) * n_judged + 2 * len(self.judges) * sum(map(len, posts))
        signs += n * (n_signs["prompt"] + len(self.rubric.sides) * n_signs["answer"])
        n_at_once = [self.judges[0].client.max_concurrency, self.generator.max_concurrency]
        minutes = (n_judged / n_at_once[0] + n * n_answers / n_at_once[1]) * SECONDS_A_CALL / 60
        log.info(
            f"{n} posts: {n_judged} calls to judge them at most (equal texts are one call), then "
            f"{n_answers} for each selected post, {n * n_answers} if all were; up to one repair each. "
            f"That is at most about {signs / SIGNS_A_TOKEN:,.0f} tokens of prompts ({SIGNS_A_TOKEN} signs a token), "
            f"and {minutes:,.1f} minutes at {SECONDS_A_CALL} s a call, {n_at_once[0]} and {n_at_once[1]} at once. "
            f"{self.judges[0].client.base_url} and {self.generator.base_url} were not asked anything"
        )

    def run(self) -> None:
        """Run all stages; then remove the posts and push, where the config says so."""
        stages = self._stages([judge.agreement() for judge in self.judges])
        dataset, marker = self.output_dir / "dataset", self.output_dir / "stages" / "posts_removed.txt"
        remake_posts(stages, marker)
        if not (dataset / "manifest.json").is_file():
            shutil.rmtree(stages[-1].folder, ignore_errors=True)
        is_done = run_stages(stages, component(self.cfg.executor))
        if not is_done:
            log.info("the jobs are submitted; start the same command again when they have run, to finish")
            return
        if not self.cfg.store_posts:
            forget_posts(stages, marker)
        log.info(
            f"the data set is in {dataset}: README.md, manifest.json, funnel.json\n"
            "train on it: tune run finetune/dpo_finetune.py --config configs/smollm2_135m_lora_dpo_cpu.yaml "
            f"dataset=data.datasets.preference_pairs dataset.source={dataset} dataset.name={self.cfg.sides[0]} "
            f"output_dir={self.output_dir}_{self.cfg.sides[0]}"
        )
        if self.cfg.push_to_hub:
            log.info(push_folder(dataset, self.cfg.push_to_hub, self.cfg.push_private, "dataset"))

    def _stages(self, agreement: Sequence[Mapping[str, Any] | None]) -> list[Stage]:
        """Return the stages: what runs in each, and the settings that its outcome depends on.

        Args:
            agreement: For each judge its figures against people's labels, or None.
        """
        cfg: dict[str, Any] = plain(self.cfg)
        tasks, most = cfg["executor"].get("tasks", 1), cfg["max_unanswered"]
        names = ("1_posts", "2_distinct", "3_judged", "4_selected", "5_prompts", "6_answers", "7_gates")
        folders = [self.output_dir / "stages" / name for name in names]
        posts, distinct, judged, selected, prompts, answers, gated = folders
        judges = [
            {**_client_facts(judge.cfg.client), "prompt_sha256": load_instruction(judge.scale.instruction).sha256}
            for judge in self.judges
        ]
        generator = {**_client_facts(self.generator_cfg.client), "prompt_sha256": self.rubric.sha256()}
        facts = {
            **_chosen(cfg, "name", "version", "licence", "language", "store_posts", "seed", "single_sided_reason"),
            "judges": [{**judge, "agreement": figures} for judge, figures in zip(judges, agreement)],
            "generator": generator,
            "settings": _chosen(
                cfg, "post_words", "duplicate", "min_relevance", "min_distance", "quota", "related", "held_out_topics",
                "max_side_difference", "max_unanswered", "toxicity", "max_toxicity", "embeddings", "min_cosine",
            ),
        }  # fmt: skip
        if not cfg["balance_lengths"]:
            facts["settings"]["balance_lengths"] = False
        limits = _chosen(cfg, "min_relevance", "min_distance", "quota")
        gates = GateSettings(**_chosen(cfg, *GateSettings._fields) | {"instruments": cfg["instruments"] or []})
        differ = partial(distinct_posts, threshold=cfg["duplicate"], alike=self.alike)
        select = partial(select_posts, topics=self.topics, toxicity=self.toxicity, **limits)
        check = partial(check_rows, settings=gates, toxicity=self.toxicity, alike=self.alike)
        dataset = self.output_dir / "dataset"
        write = partial(write_dataset, folder=dataset, before=folders[:-1], facts=facts, sides=cfg["sides"])
        return [
            Stage(
                posts,
                [PostReader(self.sources, tuple(cfg["post_words"]))],
                {"sources": cfg["sources"], "sha256": _file_hashes(cfg["sources"]), "words": cfg["post_words"]},
                tasks,
                posts=ALL_FILES,
            ),
            Stage(
                distinct,
                [StageReader(posts), StageStep("near duplicates", differ)],
                _chosen(cfg, "duplicate", "embeddings", "min_cosine"),
                posts=ALL_FILES,
            ),
            Stage(
                judged,
                [
                    StageReader(distinct),
                    *(JudgePosts(judge.client, judge.scale, StageReader(distinct), most) for judge in self.judges),
                ],
                {"judges": judges, "topics": self.topics},
                tasks,
                posts=ALL_FILES,
            ),
            Stage(
                selected,
                [StageReader(judged), StageStep("selection", select)],
                limits | _chosen(cfg, "toxicity", "max_toxicity"),
                posts=ALL_FILES,
            ),
            Stage(
                prompts,
                [StageReader(selected), WritePrompts(self.generator, self.rubric, StageReader(selected), most)],
                {"generator": generator},
                tasks,
                posts=REJECTED_FILES,  # the text of the others is the prompt now
            ),
            Stage(
                answers,
                [StageReader(prompts), WriteAnswers(self.generator, self.rubric, StageReader(prompts), most)],
                {"sides": list(self.rubric.sides), "n_words": list(self.rubric.n_words)},
                tasks,
            ),
            Stage(
                gated,
                [StageReader(answers), StageStep("gates", check), StageStep("data set", write)],
                facts
                | _chosen(cfg, "sides", "split_shares", "balance_lengths")
                | {"instruments": _file_hashes(cfg["instruments"])},
            ),
        ]


def check_topics(topics: Mapping[str, Any], held_out: Sequence[str]) -> None:
    """Refuse topics that are no list under an axis or stand on two, and held-out ones that are none.

    Raises:
        ValueError: Says which, and what is wanted.
    """
    if not topics or not all(isinstance(listed, list) and listed for listed in topics.values()):
        raise ValueError(f"topics={dict(topics)}; give each axis a list, as topics.economic=[taxation,housing]")
    if wrong := [topic for listed in topics.values() for topic in listed if not isinstance(topic, str)]:
        raise ValueError(f"topics: {wrong[0]!r} is no text; put it in quotes")
    known = [topic for listed in topics.values() for topic in listed]
    if twice := sorted({topic for topic in known if known.count(topic) > 1}):
        raise ValueError(f"topics: {', '.join(twice)} stands there twice; a topic belongs to one axis")
    if unknown := sorted({*held_out} - {*known}):
        raise ValueError(f"held_out_topics: {', '.join(unknown)} is no topic; known: {', '.join(known)}")


def _chosen(settings: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: settings[key] for key in keys}


def _client_facts(client: DictConfig) -> dict[str, Any]:
    """Return model and parameters; where calls go and how fast changes no outcome."""
    return {"model": client.get("model"), "params": plain(client).get("params")}


def _judge_facts(judge: DictConfig) -> tuple[Any, ...]:
    return *_client_facts(judge.client).values(), judge.client.get("base_url"), judge.instruction


def _file_hashes(node: Any) -> list[str]:
    """Return the SHA-256 of every local file that a part of a config names, by its path or a glob."""
    if not isinstance(node, str):
        values = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
        return [digest for value in values for digest in _file_hashes(value)]
    digests = []
    for path in filter(os.path.isfile, sorted(glob(node))):
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/synthesize_politune_like.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL, components=MODELS)
    recipe = SynthesizeRecipe(cfg)
    if cfg.dry_run:
        recipe.preview()
    else:
        recipe.run()


if __name__ == "__main__":
    sys.exit(recipe_main())
