# SPDX-License-Identifier: MIT
"""Which rows did it? The first-order influence of every training row of a run on the lean of its adapter.

    tune run eval/influence.py --config configs/influence.yaml run=outputs/smollm2_left

The run is replayed from each of its checkpoints to the next. A row counts in the steps that took it: the gradient of
its share of the step's loss is multiplied with that of the lean, as the optimizer steps with it (TracIn, Pruthi et al.
2020, arXiv 2002.08484, section 3). Adam divides it by the root of its second moment (Xia et al. 2024, arXiv 2402.04333,
section 3) and spreads it over the steps that follow. So an influence is the part of the run's change of the lean, in
nats a token, that the row brought; positive is to the right. ``influence.jsonl`` has a row each, which
``dataset.where`` and ``data/audit.py`` read; ``influence.json`` says what they add up to, and what was measured.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn
from torchtune import config, training, utils
from tqdm import tqdm

from data.pairs.records import Pair, pair_key
from data.recipe.config import check_config, check_place, entry_point
from data.recipe.files import AppendLog, changed_settings, to_jsonl, write_json, write_whole
from eval.asking.questions import Question, to_questions
from eval.asking.respond import load_base
from eval.statements.instruments import load_instrument
from eval.statements.prompts import load_templates, pair_prompts
from eval.steering import contrast, layer_of
from finetune.adapters.folders import fingerprint
from finetune.models import base_folder, complete_model
from finetune.run.bases import Base, CausalBase, TorchtuneBase
from finetune.run.batches import PairBatches, PairSet, is_given, n_scored, split_by_prompt, tokenize_pairs
from finetune.run.checkpoints import RunCheckpoints, RunState, read_progress
from finetune.run.pair_losses import PairLosses
from finetune.run.policy import Policy, named_weights
from finetune.run.processes import Processes
from finetune.run.reference_cache import ReferenceCache
from finetune.run.settings import OPTIONAL as RUN_OPTIONAL
from finetune.run.steps import as_stepped, check_optimizer, learning_rates, spread
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
    """The steps of a run between two checkpoints."""

    before: Path | None  # None: the fresh adapter
    after: Path
    steps: range  # of the run, from 0


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


def segments(folders: Sequence[Path]) -> list[Segment]:
    """Divide the steps of a run at its checkpoints, which are given oldest first."""
    found: list[Segment] = []
    before, start = None, 0
    for folder in folders:
        step = read_progress(folder)["global_step"]
        if step > start:  # the last step of an epoch may be there twice
            found.append(Segment(before, folder, range(start, step)))
            before, start = folder, step
    return found


def lean(policy: Policy, questions: Sequence[Question], max_tokens: int, name: str) -> float:
    """Return the mean lean of pairs, nats a token, and leave its gradient."""
    groups = [question.answers for question in questions]
    total = 0.0
    policy.eval()
    for part in tqdm(cut_by_tokens(groups, max_tokens), desc=f"lean of {name}"):
        answers = [answer for k in part for answer in groups[k]]
        sums = policy(build_tree(answers).to(next(policy.parameters()).device))
        per_token = sums / sums.new_tensor([n_scored(answer) for answer in answers])
        score = (per_token[1::2] - per_token[::2]).sum() / len(questions)  # left and right, as eval/scores/scoring.py
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


def combine(*parts: tuple[float, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return a weighted sum of gradients."""
    return {name: sum(weight * part[name] for weight, part in parts) for name in parts[0][1]}  # type: ignore[misc]


class RowGradient(NamedTuple):
    """The gradient of a row's part of a step's summed loss, and what the row counts in the mean."""

    gradient: dict[str, Tensor]
    n: int  # a pair, or answers or tokens where the loss counts these


def row_gradient(policy: Policy, losses: PairLosses, pairs: PairSet, k: int) -> RowGradient:
    """Return the gradient of one row."""
    one = pairs.take([k])
    count = losses.accumulate(one.pairs, one.mismatched).counts["loss"]
    return RowGradient({name: count * value for name, value in take_gradient(policy).items()}, count)


def multiply(direction: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> float:
    """Return the scalar product of two gradients."""
    return sum(float((direction[name] * value).sum()) for name, value in gradient.items())


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
        self.segments, n_epoch = segments(folders), expected["steps_per_epoch"]
        n_steps = self.segments[-1].steps.stop
        rates = learning_rates(self.run, expected["epochs"] * n_epoch)[:n_steps]
        if not sum(rates):
            raise ValueError(f"run={cfg.run}: its learning rate was 0 before each of its checkpoints")
        self._rates, self._beta = rates, last["optimizer"]["param_groups"][0].get("betas", [0.0])[0]
        of_run = (expected[name] for name in ("pairs_per_step", "seed", "shuffle", "steps_per_epoch"))
        batches = PairBatches(self.rows.pairs, *of_run)
        self.steps = [batches.rows(*divmod(step, n_epoch)) for step in range(n_steps)]
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
            "checkpoints": {segment.after.name: fingerprint(segment.after) for segment in self.segments},
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
        done = AppendLog(self._folder / "steps.jsonl")
        self._project(done)
        leans = self._replay_all(done)
        self._write(done.rows, leans)
        done.close()

    def load(self) -> tuple[Policy, PairLosses]:
        """Load the policy of the run, and its losses."""
        run, device = self.run, utils.get_device(device=self.run.device)
        self._processes = processes = Processes(device)
        dtype = training.get_dtype(run.dtype, device=device)
        if run.checkpointer is None:
            base: Base = CausalBase(run, dtype, run.seed, processes)
        else:
            base = TorchtuneBase(run, dtype, run.seed, processes, str(self._folder / ".base"))
        reference = ReferenceCache(run.reference_cache_dir, base.hash())
        self._fresh = {name: value.clone() for name, value in base.fresh.items()}  # the policy takes these themselves
        policy = base.load(base.fresh)
        return policy, PairLosses(policy, self.loss_fn, reference, run.max_tokens_per_forward, processes, nullcontext())

    def take(self, policy: Policy, folder: Path | None) -> dict[str, Any]:
        """Give a policy the adapter of a checkpoint, or the fresh one; return the checkpoint's state."""
        state = {training.ADAPTER_KEY: self._fresh} if folder is None else self._checkpoints.read(folder)
        with torch.no_grad():
            for name, parameter in named_weights(policy.decoder):
                if parameter.requires_grad:
                    parameter.copy_(state[training.ADAPTER_KEY][name])
        return state

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

    def _replay_all(self, done: AppendLog) -> dict[str, float]:
        """Replay the run, its last part first, since momentum carries a gradient on; return the lean at each end."""
        known = {(row["at"], row["row"]) for row in done.rows}
        leans = {row["at"]: row["value"] for row in done.rows if row["row"] is None}
        missing = [s for s in self.segments if not known >= {(step, k) for step in s.steps for k in self.steps[step]}]
        if not missing:
            return leans
        policy, losses = self.load()

        def lean_gradient(folder: Path | None) -> dict[str, Tensor]:
            name = "base" if folder is None else folder.name
            value = lean(policy, self.questions, self._cfg.max_tokens_per_forward, name)
            if name not in leans:
                leans[name] = value
                done.append([{"at": name, "row": None, "value": value}])
            return take_gradient(policy)

        optimizer = self.take(policy, self.segments[-1].after)["optimizer"]
        after = lean_gradient(self.segments[-1].after)
        later = combine((0.0, after))
        for segment in reversed(self.segments):
            state = self.take(policy, segment.before)
            before = lean_gradient(segment.before)
            own = as_stepped(combine((0.5, before), (0.5, after)), optimizer)
            weights = spread(self._rates, segment.steps, self._beta)
            directions = (combine((weight.own, own), (weight.later, later)) for weight in weights)
            if segment in missing:
                done.append(list(self._replay(policy, losses, segment, state, directions)))
            later = combine((weights[0].own, own), (weights[0].later, later))
            optimizer, after = state.get("optimizer", {}), before
        return leans

    def _replay(
        self, policy: Policy, losses: PairLosses, segment: Segment, state: Mapping[str, Any], directions: Iterator[Any]
    ) -> Iterator[dict[str, Any]]:
        """Train from one checkpoint to the next, and yield what each row of each step does to the lean."""
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        optimizer = config.instantiate(self.run.optimizer, trained)
        if segment.before is not None:
            for group, saved in zip(optimizer.param_groups, state["optimizer"]["param_groups"]):
                group |= {key: value for key, value in saved.items() if key not in group}  # what a scheduler adds
            # a copy, since the optimizer takes the tensors themselves
            RunState(policy, optimizer, None, self._processes).restore(deepcopy(state), has_dropout=False)
        bar = tqdm(segment.steps, desc=f"steps until {segment.after.name}")
        for step, direction in zip(bar, directions):
            rows, products, n = self.steps[step], [], 0
            total: dict[str, Tensor] = {}
            for k in rows:
                gradient, n_row = row_gradient(policy, losses, self.rows.pairs, k)
                products.append(multiply(direction, gradient))
                total = combine((1.0, total), (1.0, gradient)) if total else gradient
                n += n_row
            for name, parameter in named_weights(policy):
                if parameter.requires_grad:
                    parameter.grad = total[name] / n
            norm = nn.utils.clip_grad_norm_(trained, self.run.clip_grad_norm or math.inf)
            clipped = min(1.0, (self.run.clip_grad_norm or math.inf) / float(norm + 1e-6))  # as PyTorch clips
            for group in optimizer.param_groups:
                group["lr"] = self._rates[step]
            optimizer.step()
            optimizer.zero_grad()
            yield from ({"at": step, "row": k, "value": -clipped * product / n} for k, product in zip(rows, products))

    def _write(self, measured: Sequence[Mapping[str, Any]], leans: Mapping[str, float]) -> None:
        values = {(row["at"], row["row"]): row["value"] for row in measured}
        keys = [pair_key(pair) for pair in self.rows.texts]
        n_same = Counter(keys)  # rows that repeat each other are one to `dataset.where`: each has the mean of them
        weights = [weight.own for weight in spread(self._rates, range(len(self.steps)), self._beta)]
        mean = sum(weights) / len(weights)
        influence, evened = dict.fromkeys(keys, 0.0), dict.fromkeys(keys, 0.0)
        for step, taken in enumerate(self.steps):
            for k in taken:
                value = values[step, k] / n_same[keys[k]]
                influence[keys[k]] += value
                evened[keys[k]] += value * mean / weights[step] if weights[step] else 0.0
        order = sorted(range(len(keys)), key=lambda k: -evened[keys[k]])
        rank: dict[str, int] = {}
        for place, k in enumerate(order, start=1):
            rank.setdefault(keys[k], place)
        rows = [
            {
                "key": key, "row": pair.row, "prompt": pair.prompt, "influence": influence[key],
                "at_mean_rate": evened[key], "rank": rank[key], "projection": values["projection", k],
            }
            for k, (key, pair) in enumerate(zip(keys, self.rows.texts))
        ]  # fmt: skip
        last = self.segments[-1].after.name
        n_unused = len(keys) - len({k for step in self.steps for k in step})
        about = {
            **self._settings,
            "lean": {name: leans[name] for name in ("base", *self._settings["checkpoints"])},
            "measured_change": leans[last] - leans["base"],
            "sum_of_influences": sum(row["influence"] for row in rows),
            "rows_in_no_step": n_unused,
        }
        write_whole(self._folder / "influence.jsonl", to_jsonl(rows))
        write_json(self._folder / "influence.json", about)
        log.info(
            f"{self._folder / 'influence.jsonl'}: {len(keys)} rows in {len(self.steps)} steps; their influences add "
            f"up to {about['sum_of_influences']:+.4f}, and {last} is {about['measured_change']:+.4f} nats a token from "
            f"the base{f'; {n_unused} rows were in no step' if n_unused else ''}"
        )
        texts = list({keys[k]: k for k in reversed(order)}.values())  # one of rows that repeat each other; left first
        for title, part in (("most to the right", texts[:-4:-1]), ("most to the left", texts[:3])):
            for k in part:
                row = rows[k]
                shown = f"{row['influence']:+.5f} ({row['at_mean_rate']:+.5f} at the mean learning rate)"
                log.info(f"{title}: {shown} row {row['row']}, {row['prompt'][:80]!r}")


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Measure the influence of the rows of a run; see configs/influence.yaml for the keys."""
    cfg = check_config(cfg, REQUIRED, OPTIONAL, {"tokenizer"})
    check_place(cfg)
    InfluenceRecipe(cfg).measure()


if __name__ == "__main__":
    sys.exit(recipe_main())
