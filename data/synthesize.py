# SPDX-License-Identifier: MIT
"""Turn raw posts into a mirrored preference set: judged, selected, answered from both sides, gated, documented.

    tune run data/synthesize.py --config configs/synthesize_politune_like.yaml

Each stage lies in ``output_dir/stages``, the set in ``output_dir/dataset``. An interrupted run goes on where it was and
repeats no answered call; a stage whose settings changed is made again, from the replies on disk as far as they go.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchtune import config, utils

from data.chat import ChatClient
from data.judging.instructions import load_views
from data.judging.judges import check_judge
from data.judging.labelled_texts import read_labelled
from data.judging.scales import LEAN_SCALE, PostScale
from data.quality.phrases import mask_personal
from data.recipe.config import check_config, component, plain_errors
from data.recipe.files import push_folder
from data.synthesis.annotate import mask_names
from data.synthesis.generate import answer_request, prompt_request
from data.synthesis.plan import plan_stages
from data.synthesis.stages import REJECTED, forget_texts, remember_texts, run_stages
from data.text_models import MODELS, read_alike, read_cap

log = utils.get_logger("INFO")

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
JUDGE = {"instruction": "judge", "structured": True, "labelled": None, "min_kappa": 0.6}
GENERATOR = {
    "instruction": "instruction",
    "answer": "answer",
    "views": "views",
    "structured": True,
    "neutral": False,
    "n_words": [60, 90],
}


class SynthesizeRecipe:
    """Refuse what can be refused, ask the judges for their figures, then run the stages.

    Args:
        cfg: A config that passed :func:`data.recipe.config.check_config`.

    Raises:
        FileNotFoundError: If an instruction or a labelled file is not there.
        ValueError: If a setting breaks a rule, or a judge is under its floor.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg, self.output_dir = cfg, Path(cfg.output_dir)
        named = [name for name in ("judge", "second_judge") if cfg[name]]
        self.judge_cfgs = [check_config(cfg[name], {"client"}, JUDGE) for name in named]
        self.generator_cfg = check_config(cfg.generator, {"client"}, GENERATOR)
        if not cfg.sides or not {*cfg.sides} <= {"left", "right"}:
            raise ValueError(f"sides={list(cfg.sides)}; use [left, right]")
        if {*cfg.sides} != {"left", "right"} and not str(cfg.single_sided_reason or "").strip():
            raise ValueError(f"sides={list(cfg.sides)}: say why in single_sided_reason; the card will carry it")
        self.topics = {topic: axis for axis, topics in cfg.topics.items() for topic in topics}
        views = load_views(self.generator_cfg.views)[1]
        self.sides = ["left", "right", *(["neutral"] if self.generator_cfg.neutral else [])]
        lacking = {(axis, side) for axis in cfg.topics for side in self.sides} - {*views}
        if lacking:
            raise ValueError(f"{self.generator_cfg.views}: no view for {sorted(lacking)}; add a line for each")
        self.judges = [config.instantiate(judge.client) for judge in self.judge_cfgs]
        self.generator = config.instantiate(self.generator_cfg.client)
        self.scales = [PostScale(self.topics, judge.instruction, judge.structured) for judge in self.judge_cfgs]
        self.sources = [component(source) for source in check_config(cfg.sources, set(cfg.sources), {}).values()]
        self.toxicity, self.alike = read_cap(cfg), read_alike(cfg)
        self._marker = self.output_dir / "stages" / "posts_removed.txt"

    def preview(self) -> None:
        """Show one prompt of each stage and the number of calls, and ask nothing."""
        posts = [mask_personal(post["text"], post["names"]) for source in self.sources for post in source()]
        n, cfg = len(posts), self.generator_cfg
        example, (topic, axis) = posts[0], next(iter(self.topics.items()))
        requests = {
            "judge": self.scales[0].request(example),
            "judge, names masked": self.scales[0].request(mask_names(example)),
            "prompt": prompt_request(example, topic, cfg.instruction, cfg.structured),
            "answer": answer_request(
                "(the prompt)", axis, "left", tuple(cfg.n_words), cfg.answer, cfg.views, cfg.structured
            ),
        }
        for name, request in requests.items():
            text = "\n".join(f"[{message['role']}]\n{message['content']}" for message in request.messages)
            log.info(f"--- {name} ---\n{text}")
        judged, most = 2 * n * len(self.judges), n * (1 + len(self.sides))
        log.info(
            f"{n} posts: {judged} calls to judge them at most (equal texts are one call), then {1 + len(self.sides)} "
            f"for each selected post, {most} if all were; up to one repair each. {self.judges[0].base_url} and "
            f"{self.generator.base_url} were not asked anything"
        )

    def run(self) -> None:
        """Run all stages; then remove the posts and push, where the config says so."""
        agreement = [self._agreement(*judge) for judge in zip(self.judges, self.scales, self.judge_cfgs)]
        stages = plan_stages(self, agreement)
        remember_texts(stages[:5], self._marker)
        if not (self.output_dir / "dataset" / "manifest.json").is_file():
            shutil.rmtree(stages[-1].folder, ignore_errors=True)
        done = run_stages(stages, component(self.cfg.executor))
        if not done:
            log.info("the jobs are submitted; start the same command again when they have run, to finish")
            return
        if not self.cfg.store_posts:
            # from the prompts on, a document's text is the prompt
            posts = [stage.folder for stage in stages[:4]] + [stages[4].folder / REJECTED]
            forget_texts(posts, self._marker)
        log.info(f"the data set is in {self.output_dir / 'dataset'}: README.md, manifest.json, funnel.json")
        if self.cfg.push_to_hub:
            log.info(push_folder(self.output_dir / "dataset", self.cfg.push_to_hub, self.cfg.push_private, "dataset"))

    def _agreement(self, client: ChatClient, scale: PostScale, cfg: DictConfig) -> dict[str, Any] | None:
        if cfg.labelled is None:
            log.warning(f"judge {client.model}: no judge.labelled, so its agreement with people's labels is unknown")
            return None
        figures = check_judge(client, scale, read_labelled(cfg.labelled, LEAN_SCALE), cfg.min_kappa)
        log.info(f"judge {client.model}: {figures}")
        return figures


@config.parse
@plain_errors
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/synthesize_politune_like.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL, components=MODELS)
    config.log_config(recipe_name="SynthesizeRecipe", cfg=cfg)
    recipe = SynthesizeRecipe(cfg)
    if cfg.dry_run:
        recipe.preview()
    else:
        recipe.run()


if __name__ == "__main__":
    sys.exit(recipe_main())
