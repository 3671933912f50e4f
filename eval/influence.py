# SPDX-License-Identifier: MIT
"""Which rows did it? The first-order influence of every training row of a run on the lean of its adapter.

    tune run eval/influence.py --config configs/influence.yaml run=outputs/smollm2_left

At each checkpoint the gradient of a row's loss is multiplied with that of the lean, and the products are added up with
the learning rates of the steps that the checkpoint stands for (TracInCP, Pruthi et al. 2020, arXiv 2002.08484, section
3.2). Where the run's optimizer is Adam, the lean's gradient is divided as Adam divides a step (Xia et al. 2024, arXiv
2402.04333, section 3), without its momentum. So an influence is the share of the run's change of the lean, in nats a
token, that the row brought; positive is to the right. ``influence.jsonl`` has a row each, which ``dataset.where`` and
``data/audit.py`` read; ``influence.json`` says how far the sum of them explains what was measured.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn
from torchtune import config, training, utils
from tqdm import tqdm

from data.pairs.records import Pair, pair_key
from data.recipe.config import check_config, check_place, component, entry_point
from data.recipe.files import AppendLog, changed_settings, to_jsonl, write_json, write_whole
from eval.asking.questions import Question, to_questions
from eval.asking.respond import load_base
from eval.statements.instruments import load_instrument
from eval.statements.prompts import load_templates, pair_prompts
from eval.steering import contrast, layer_of
from finetune.adapters.folders import fingerprint
from finetune.models import base_folder, complete_model
from finetune.run.bases import Base, CausalBase, TorchtuneBase
from finetune.run.batches import PairSet, is_given, n_scored, split_by_prompt, tokenize_pairs
from finetune.run.checkpoints import RunCheckpoints, read_progress
from finetune.run.pair_losses import PairLosses
from finetune.run.policy import Policy, named_weights
from finetune.run.processes import Processes
from finetune.run.reference_cache import ReferenceCache
from finetune.run.settings import OPTIONAL as RUN_OPTIONAL
from finetune.tree.prefix_tree import build_tree, cut_by_tokens

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "run"}
OPTIONAL: dict[str, Any] = {
    "instrument": "compass300",
    "n_pair_templates": 1,
    "tokenizer": None,
    "layer": None,
    "max_tokens_per_forward": 800,
}


class Rows(NamedTuple):
    """The rows of a run, as it read them and as texts."""

    pairs: PairSet
    texts: list[Pair]


class Segment(NamedTuple):
    """A checkpoint, and the steps before it that it stands for."""

    folder: Path
    learning_rates: float  # their sum


def load_run(folder: str | Path) -> DictConfig:
    """Return the config of a finished run, with dropout off."""
    path = Path(folder) / "torchtune_config.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"run={folder}: no {path.name} there; give the output_dir of a training of this project"
        )
    cfg: Any = OmegaConf.merge(RUN_OPTIONAL, OmegaConf.load(path))
    if "lora_dropout" in cfg.model:
        cfg.model.lora_dropout = 0.0
    return complete_model(cfg)


def load_rows(cfg: DictConfig, tokenizer: Any, loss_fn: nn.Module) -> Rows:
    """Read the rows of a run as its training did.

    Raises:
        ValueError: If the dataset does not know the texts of its rows.
    """
    parts = cfg.dataset if isinstance(cfg.dataset, ListConfig) else [cfg.dataset]
    sets = [config.instantiate(part, tokenizer=tokenizer) for part in parts]
    if unknown := [part._component_ for part, built in zip(parts, sets) if not hasattr(built, "pairs")]:
        raise ValueError(f"dataset={unknown[0]} does not tell the texts of its rows; use a builder of data.datasets")
    texts = [pair for built in sets for pair in built.pairs]
    items = [built[k] for built in sets for k in range(len(built))]
    pairs = tokenize_pairs(items)._replace(origin=", ".join(built.origin for built in sets))  # named by their place
    if cfg.validation_share is not None:
        pairs, _ = split_by_prompt(pairs, cfg.validation_share)
    texts = [texts[k] for k in pairs.names]
    if getattr(loss_fn, "unpaired", False):
        pairs = pairs.with_mismatched()
    if getattr(loss_fn, "length_normalized", False):
        pairs = pairs.without_headers(tokenizer)
    return Rows(pairs, texts)


def learning_rates(cfg: DictConfig, n_steps: int) -> list[float]:
    """Return the learning rate of each step of a run, as its scheduler plans it."""
    optimizer = config.instantiate(cfg.optimizer, [nn.Parameter(torch.zeros(1))])
    if cfg.lr_scheduler is None:
        return [optimizer.param_groups[0]["lr"]] * n_steps
    is_planned = "num_training_steps" in signature(component(cfg.lr_scheduler["_component_"])).parameters
    scheduler = config.instantiate(
        cfg.lr_scheduler, optimizer, **({"num_training_steps": n_steps} if is_planned else {})
    )
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def segments(cfg: DictConfig, folders: Sequence[Path], n_steps: int) -> list[Segment]:
    """Let each checkpoint, oldest first, stand for the steps since the one before it."""
    rates, found, before = learning_rates(cfg, n_steps), [], 0
    for folder in folders:
        step = read_progress(folder)["global_step"]
        if step > before:  # the last step of an epoch may be there twice
            found.append(Segment(folder, sum(rates[before:step])))
        before = step
    return found


def lean(policy: Policy, questions: Sequence[Question], max_tokens: int, name: str) -> float:
    """Return the mean lean of pairs, nats a token, and leave its gradient if gradients are on."""
    groups = [question.answers for question in questions]
    total = 0.0
    policy.eval()
    for part in tqdm(cut_by_tokens(groups, max_tokens), desc=f"lean of {name}"):
        answers = [answer for k in part for answer in groups[k]]
        sums = policy(build_tree(answers).to(next(policy.parameters()).device))
        per_token = sums / sums.new_tensor([n_scored(answer) for answer in answers])
        score = (per_token[1::2] - per_token[::2]).sum() / len(questions)  # left and right, as eval/scores/scoring.py
        if torch.is_grad_enabled():
            score.backward()
        total += score.item()
    return total


def take_gradient(policy: Policy) -> dict[str, Tensor]:
    """Return the gradient of each trained tensor, and clear it."""
    taken = {}
    for name, parameter in named_weights(policy):
        if parameter.requires_grad:
            taken[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = None
    return taken


def check_optimizer(optimizer: Mapping[str, Any], name: str) -> None:
    """Refuse an optimizer whose steps are not known here: known are Adam's, and those of SGD without momentum.

    Args:
        optimizer: Its state in a checkpoint, by the names of the weights.
        name: Its dotpath in the config of the run.
    """
    held = {key for known in optimizer["state"].values() for key, value in known.items() if value is not None}
    made = component(name)
    is_plain = isinstance(made, type) and issubclass(made, torch.optim.SGD)
    is_adam = "exp_avg_sq" in held and "max_exp_avg_sq" not in held
    if not is_adam and (held or not is_plain):
        raise ValueError(
            f"optimizer._component_={name}: how it divides a step is not known here "
            f"(its state has {', '.join(sorted(held)) or 'nothing'}); train with torch.optim.AdamW, or with "
            "torch.optim.SGD without momentum"
        )


def as_stepped(gradient: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> dict[str, Tensor]:
    """Divide a gradient as the optimizer of a checkpoint divides a step: Adam's by the root of its second moment."""
    moments = {name: known for name, known in optimizer["state"].items() if "exp_avg_sq" in known}
    if not moments:
        return dict(gradient)
    settings, stepped = optimizer["param_groups"][0], {}
    for name, value in gradient.items():
        unbiased = moments[name]["exp_avg_sq"].to(value) / (1 - settings["betas"][1] ** float(moments[name]["step"]))
        stepped[name] = value / (unbiased.sqrt() + settings["eps"])
    return stepped


def products(
    policy: Policy, losses: PairLosses, pairs: PairSet, direction: Mapping[str, Tensor], rows: Sequence[int]
) -> Iterator[tuple[int, float]]:
    """Yield the product of a direction with the gradient of each row's part of a step's summed loss."""
    for k in rows:
        one = pairs.take([k])
        count = losses.accumulate(one.pairs, one.mismatched).counts["loss"]  # tokens or answers, where these count
        gradient = take_gradient(policy)
        yield k, count * sum(float((direction[name] * value).sum()) for name, value in gradient.items())


class InfluenceRecipe:
    """Measure the influence of every row of a run."""

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg, self.run = cfg, load_run(cfg.run)
        self._folder = Path(cfg.output_dir)
        self._checkpoints = RunCheckpoints(cfg.run, 1, writes=False)
        folders = self._checkpoints.complete()
        if not folders:
            raise FileNotFoundError(f"run={cfg.run}: no complete checkpoint there")
        loss_fn = config.instantiate(self.run.loss)
        tokenizer = config.instantiate(self.run.tokenizer)
        self.rows = load_rows(self.run, tokenizer, loss_fn)
        last = self._checkpoints.read(folders[-1])
        check_optimizer(last["optimizer"], self.run.optimizer["_component_"])
        expected = last["expected"]
        if expected["data"] != self.rows.pairs.fingerprint():
            raise ValueError(f"run={cfg.run}: {self.rows.pairs.origin} is no longer the data that it was trained on")
        n_steps = expected["epochs"] * expected["steps_per_epoch"]
        self.segments = segments(self.run, folders, n_steps)
        if not sum(segment.learning_rates for segment in self.segments):
            raise ValueError(f"run={cfg.run}: its learning rate was 0 before each of its checkpoints")
        bank = load_instrument(cfg.instrument)
        political = bank.keep({pair.id for pair in bank.political_pairs})
        chat_cfg = self.run.tokenizer if cfg.tokenizer is None else cfg.tokenizer
        chat = tokenizer if cfg.tokenizer is None else config.instantiate(chat_cfg)
        if not political.pairs or not hasattr(chat, "prompt_tokens"):
            raise ValueError(
                f"instrument={cfg.instrument} needs pairs ({len(political.pairs)} found), and the tokenizer a chat "
                f"template: tokenizer._component_=finetune.tokenizers.hf_chat_tokenizer "
                f"tokenizer.path={base_folder(self.run)}"
            )
        prompts = pair_prompts(political, load_templates(bank.language), cfg.n_pair_templates)
        self.questions = to_questions(prompts, chat)
        self._settings = {
            "run": str(cfg.run),
            "checkpoints": {segment.folder.name: fingerprint(segment.folder) for segment in self.segments},
            "data": expected["data"],
            "instrument": bank.name,
            "instrument_version": bank.version,
            "instrument_sha256": bank.sha256,
            "n_pair_templates": cfg.n_pair_templates,
            "tokenizer": OmegaConf.to_container(chat_cfg, resolve=True),
            "layer": cfg.layer,
        }
        self.loss_fn = loss_fn

    def measure(self) -> None:
        """Measure what is not measured yet, and write the rows and what they add up to."""
        path = self._folder / "settings.json"
        before = json.loads(path.read_text()) if path.is_file() else self._settings
        if changed := changed_settings(before, self._settings):
            raise FileExistsError(f"{path} is of other settings ({', '.join(changed)} differ); use another output_dir")
        write_json(path, self._settings)
        done = AppendLog(self._folder / "products.jsonl")
        self._project(done)
        leans = self._multiply(done)
        self._write(done.rows, leans)
        done.close()

    def load(self) -> tuple[Policy, PairLosses]:
        """Load the policy of the run, and its losses."""
        run, device = self.run, utils.get_device(device=self.run.device)
        processes, dtype = Processes(device), training.get_dtype(run.dtype, device=device)
        if run.checkpointer is None:
            base: Base = CausalBase(run, dtype, run.seed, processes)
        else:
            base = TorchtuneBase(run, dtype, run.seed, processes, str(self._folder / ".base"))
        reference = ReferenceCache(run.reference_cache_dir, base.hash())
        policy = base.load(base.fresh)
        return policy, PairLosses(policy, self.loss_fn, reference, run.max_tokens_per_forward, processes, nullcontext())

    def take(self, policy: Policy, folder: Path) -> dict[str, Any]:
        """Give a policy the adapter of a checkpoint; return the state of its optimizer."""
        state = self._checkpoints.read(folder)
        with torch.no_grad():
            for name, parameter in named_weights(policy.decoder):
                if parameter.requires_grad:
                    parameter.copy_(state[training.ADAPTER_KEY][name])
        return state["optimizer"]

    def _project(self, done: AppendLog) -> None:
        """Project the difference of each row's answers on the steering direction of all rows."""
        pairs = self.rows.pairs
        if any(row["at"] == "projection" for row in done.rows):
            return
        values: list[float | None] = [None] * len(pairs.pairs)
        if all(is_given(answer) for pair in pairs.pairs for answer in pair):
            plain = OmegaConf.create(
                {"model": {"_component_": "finetune.models.causal_lm", "path": str(base_folder(self.run))}}
            )
            device = utils.get_device(device=self.run.device)
            decoder: Any = load_base(plain, device, training.get_dtype(self.run.dtype, device=device))
            with torch.no_grad():
                found = contrast(decoder, pairs, layer_of(decoder, self._cfg.layer))
            values = ((found.chosen - found.rejected) @ found.direction() / found.length).tolist()
        done.append({"at": "projection", "row": k, "value": value} for k, value in enumerate(values))

    def _multiply(self, done: AppendLog) -> dict[str, float]:
        """Multiply gradients at every checkpoint; return the lean of the base and of each of them."""
        n_rows = len(self.rows.pairs.pairs)
        known = {(row["at"], row["row"]) for row in done.rows}
        leans = {row["at"]: row["value"] for row in done.rows if row["row"] is None}
        if all((segment.folder.name, k) in known for segment in self.segments for k in range(n_rows)):
            return leans
        policy, losses = self.load()
        if "base" not in leans:
            with torch.no_grad(), policy.without_adapters():
                leans["base"] = lean(policy, self.questions, self._cfg.max_tokens_per_forward, "base")
            done.append([{"at": "base", "row": None, "value": leans["base"]}])
        for segment in self.segments:
            name = segment.folder.name
            missing = [k for k in range(n_rows) if (name, k) not in known]
            if not missing:
                continue
            optimizer = self.take(policy, segment.folder)
            value = lean(policy, self.questions, self._cfg.max_tokens_per_forward, name)
            direction = as_stepped(take_gradient(policy), optimizer)
            if name not in leans:
                leans[name] = value
                done.append([{"at": name, "row": None, "value": value}])
            found = products(policy, losses, self.rows.pairs, direction, missing)
            for k, product in tqdm(found, desc=f"rows at {name}", initial=n_rows - len(missing), total=n_rows):
                done.append([{"at": name, "row": k, "value": product}])
        return leans

    def _write(self, measured: Sequence[Mapping[str, Any]], leans: Mapping[str, float]) -> None:
        values = {(row["at"], row["row"]): row["value"] for row in measured}
        pairs, n_rows = self.rows.pairs, len(self.rows.texts)
        # a step's loss is a mean; over an epoch each row is in one step
        if getattr(self.loss_fn, "chosen_only", False):
            n = sum(n_scored(chosen) for chosen, _ in pairs.pairs)
        elif getattr(self.loss_fn, "unpaired", False):
            n = sum(is_given(answer) for pair in pairs.pairs for answer in pair)
        else:
            n = n_rows
        influence = [
            -sum(s.learning_rates * values[s.folder.name, k] for s in self.segments) / n for k in range(n_rows)
        ]
        order = sorted(range(n_rows), key=lambda k: -influence[k])
        keys = [pair_key(pair) for pair in self.rows.texts]
        rank: dict[str, int] = {}
        for place, k in enumerate(order, start=1):
            rank.setdefault(keys[k], place)  # a row that repeats another has its place
        rows = [
            {
                "key": keys[k], "row": pair.row, "prompt": pair.prompt, "influence": influence[k],
                "rank": rank[keys[k]], "projection": values["projection", k],
            }
            for k, pair in enumerate(self.rows.texts)
        ]  # fmt: skip
        last = self.segments[-1].folder.name
        about = {
            **self._settings,
            "learning_rates": {segment.folder.name: segment.learning_rates for segment in self.segments},
            "lean": dict(leans),
            "measured_change": leans[last] - leans["base"],
            "sum_of_influences": sum(influence),
        }
        write_whole(self._folder / "influence.jsonl", to_jsonl(rows))
        write_json(self._folder / "influence.json", about)
        log.info(
            f"{self._folder / 'influence.jsonl'}: {n_rows} rows at {len(self.segments)} checkpoints; their influences "
            f"add up to {about['sum_of_influences']:+.4f}, and {last} is {about['measured_change']:+.4f} nats a token "
            "from the base"
        )
        for title, part in (("most to the right", order[:3]), ("most to the left", order[:-4:-1])):
            for k in part:
                log.info(f"{title}: {influence[k]:+.5f} row {rows[k]['row']}, {rows[k]['prompt'][:80]!r}")


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Measure the influence of the rows of a run; see configs/influence.yaml for the keys."""
    cfg = check_config(cfg, REQUIRED, OPTIONAL, {"tokenizer"})
    check_place(cfg)
    InfluenceRecipe(cfg).measure()


if __name__ == "__main__":
    sys.exit(recipe_main())
