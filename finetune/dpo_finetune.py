# SPDX-License-Identifier: MIT
"""LoRA DPO on the prefix tree, on one device or several.

    tune run finetune/dpo_finetune.py --config configs/llama8b_lora_dpo_single_device.yaml \
        dataset=data.datasets.politune_left
    tune run --nproc_per_node 8 finetune/dpo_finetune.py --config configs/llama70b_lora_dpo_distributed.yaml

Takes the keys of torchtune's own ``lora_dpo_single_device`` configs and a few more (``finetune/run/settings.py``).
Each step runs ``batch_size * gradient_accumulation_steps`` pairs, on however many devices, cut into forwards of at most
``max_tokens_per_forward`` tokens; every pair of a step counts the same, however the step was cut and dealt out.
"""

import math
import sys
import time
from inspect import signature
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torchtune import config, training, utils
from torchtune.recipe_interfaces import FTRecipeInterface
from tqdm import tqdm

from data.recipe.config import check_config, check_place, component, entry_point, plain
from finetune.adapters.cards import write_card
from finetune.adapters.saving import write_adapter, write_peft_adapter
from finetune.causal.decoder import CausalLM
from finetune.models import BROUGHT, base_folder, complete_model, context_length
from finetune.run.bases import Base, CausalBase, TorchtuneBase
from finetune.run.batches import PairBatches, PairSet, load_pairs, split_by_prompt
from finetune.run.checkpoints import DECIDING, RunCheckpoints, RunState, StopRequest, read_progress
from finetune.run.pair_losses import PairLosses, mean_metrics, peak_memory
from finetune.run.precision import AUTO, settle_dtype
from finetune.run.processes import Processes, whole, whole_adapter, whole_model
from finetune.run.reader import PolicyReader, WatchedRun
from finetune.run.reference_cache import ReferenceCache
from finetune.run.settings import COMPONENTS, OPTIONAL, REQUIRED, check_loss, check_settings, next_command

log = utils.get_logger("INFO")

# What a scheduler is told that plans the learning rate over the whole run.
PLANNED = "num_training_steps"


class DPORecipe(FTRecipeInterface):
    """Preference-tune the LoRA adapters of a frozen base, by a config that passed ``check_config``."""

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = complete_model(cfg)
        check_settings(cfg)
        check_place(cfg)
        self._device = utils.get_device(device=cfg.device)
        self._processes = Processes(self._device)
        if not self._processes.first:
            log.setLevel("ERROR")
        self._pairs_per_step = cfg.batch_size * cfg.gradient_accumulation_steps
        self._processes.agree("config", OmegaConf.to_yaml(cfg))
        self._checkpoints = RunCheckpoints(cfg.output_dir, cfg.keep_last_n_checkpoints, self._processes.first)
        self._newest = self._processes.agree("newest checkpoint", self._checkpoints.newest())
        if self._newest is not None and not cfg.resume_from_checkpoint:
            self.release()
            raise FileExistsError(
                f"{cfg.output_dir} already holds a run ({self._newest.name}); go on with "
                "resume_from_checkpoint=True or choose another output_dir"
            )
        seed = cfg.seed
        if seed is None and self._newest is not None:
            seed = read_progress(self._newest)["seed"]
        self.seed = training.set_seed(seed=seed, debug_mode=cfg.cudnn_deterministic_mode)
        cfg.seed = self.seed  # a drawn seed is logged, so that the run can be repeated
        self.global_step = 0
        self._start_epoch = 0
        self._start_step = 0

    def setup(self, cfg: DictConfig) -> None:
        """Load data and model, and go to where the newest checkpoint stands if asked to."""
        loss_fn = config.instantiate(cfg.loss)
        check_loss(loss_fn)
        # Data first: a wrong file is found before gigabytes of weights are read.
        self._setup_data(cfg, loss_fn)
        self._setup_dtype(cfg)
        if cfg.checkpointer is None:
            base: Base = CausalBase(cfg, self._dtype, self.seed, self._processes)
        else:
            base = TorchtuneBase(cfg, self._dtype, self.seed, self._processes, str(self._checkpoints.staging))
        self._checkpointer = base.checkpointer
        self._base_hash = self._processes.from_first(base.hash() if self._processes.first else "")
        resumed = None
        if self._newest is not None:
            # a run whose learning rates do not depend on its length may be made longer
            ignored = () if _is_planned(cfg.lr_scheduler) else ("epochs",)
            resumed = self._checkpoints.load(self._newest, self._identity(), ignored)
        elif cfg.resume_from_checkpoint:
            log.warning(f"no complete checkpoint in {cfg.output_dir}: starting from the beginning")
        self._policy = base.load(resumed[training.ADAPTER_KEY] if resumed else base.fresh)
        del base
        if cfg.compile:
            self._policy.compile_layers(cfg.max_tokens_per_forward)
        self._trainable = [p for p in self._policy.parameters() if p.requires_grad]
        self._optimizer = config.instantiate(cfg.optimizer, self._trainable)
        self._lr_scheduler = self._setup_lr_scheduler(cfg) if cfg.lr_scheduler is not None else None
        self._state = RunState(self._policy, self._optimizer, self._lr_scheduler, self._processes)
        if resumed is not None:
            self._state.restore(resumed, has_dropout=bool(cfg.model.get("lora_dropout", 0.0)))
            self.global_step, self._start_epoch, self._start_step = (
                resumed["global_step"], resumed["epoch"], resumed["step"],
            )  # fmt: skip
            log.info(f"resumed from {self._newest}: step {self.global_step}")
        self._losses = PairLosses(
            self._policy,
            loss_fn,
            ReferenceCache(cfg.reference_cache_dir if self._processes.first else None, self._base_hash),
            cfg.max_tokens_per_forward,
            self._processes,
            training.get_act_offloading_ctx_manager(self._policy.decoder, cfg.enable_activation_offloading),
        )
        for part in (self._batches.used(cfg.epochs), self._validation):
            if part is not None:
                self._losses.prepare([*part.pairs, *part.mismatched])
        self._reader = PolicyReader(self._policy, self._processes)
        self._metric_logger = None
        if self._processes.first:
            self._metric_logger = config.instantiate(cfg.metric_logger)
            self._metric_logger.log_config(cfg)

    def _setup_data(self, cfg: DictConfig, loss_fn: nn.Module) -> None:
        tokenizer = config.instantiate(cfg.tokenizer)
        pairs, validation = load_pairs(cfg.dataset, tokenizer), None
        if cfg.validation_share is not None:
            pairs, validation = split_by_prompt(pairs, cfg.validation_share)
        elif cfg.validation_dataset is not None:
            validation = load_pairs(cfg.validation_dataset, tokenizer)
        if getattr(loss_fn, "unpaired", False):
            pairs, validation = pairs.with_mismatched(), validation and validation.with_mismatched()
        for part in (pairs, validation):
            if part is not None:
                part.check_answers(loss_fn)
                part.check_lengths(context_length(cfg.model))
        if getattr(loss_fn, "length_normalized", False):
            # a mean over tokens must not count a turn's header; in a sum it cancels
            pairs = pairs.without_headers(tokenizer)
            validation = validation and validation.without_headers(tokenizer)
        self._processes.agree("training pairs", pairs.fingerprint())
        self._processes.agree("validation pairs", validation and validation.fingerprint())
        self._batches = PairBatches(pairs, self._pairs_per_step, self.seed, cfg.shuffle, cfg.max_steps_per_epoch)
        self._validation = validation
        log.info(self._batches.describe())
        if validation is not None:
            log.info(f"validation on {len(validation.pairs)} pairs from {validation.origin}")
            trained = set(pairs.prompts())
            if n_trained := sum(prompt in trained for prompt in validation.prompts()):
                log.warning(
                    f"{n_trained} of them have a prompt that is trained on: not a measure of unseen prompts; "
                    "validation_share=0.1 instead of validation_dataset holds prompts out"
                )
        self._probe = None
        if cfg.probe is not None:
            run = WatchedRun(
                output_dir=Path(cfg.output_dir),
                writes=self._processes.first,
                tokenizer=tokenizer,
                n_steps=cfg.epochs * self._batches.steps_per_epoch,
                n_tokens=cfg.epochs * self._batches.count_tokens(),
                first_step=0 if self._newest is None else read_progress(self._newest)["global_step"],
            )
            self._probe = config.instantiate(cfg.probe, run)

    def _setup_dtype(self, cfg: DictConfig) -> None:
        if cfg.dtype == AUTO and self._processes.first:
            known = None if self._newest is None else self._checkpoints.recorded_dtype(self._newest)
            settle_dtype(cfg, self._device, base_folder(cfg), known)
        cfg.dtype = self._processes.from_first(cfg.dtype)
        self._dtype = training.get_dtype(cfg.dtype, device=self._device)

    def _identity(self) -> dict[str, Any]:
        """Return what must not change between a run and its continuation. The number of devices may."""
        cfg = plain(self._cfg)
        if self._checkpointer is None:
            del cfg["model"]["path"]  # folders move; the hash of the base says which it is
        return {
            **{name: cfg[name] for name in DECIDING},
            "base": self._base_hash,
            "data": self._batches.set.fingerprint(),
            "pairs_per_step": self._pairs_per_step,
            "steps_per_epoch": self._batches.steps_per_epoch,
            "epochs": cfg["epochs"],
            "seed": self.seed,
            "shuffle": bool(cfg["shuffle"]),
            "dtype": str(self._dtype),
        }

    def _setup_lr_scheduler(self, cfg: DictConfig) -> LRScheduler:
        if not _is_planned(cfg.lr_scheduler):
            return config.instantiate(cfg.lr_scheduler, self._optimizer)
        n_steps = cfg.epochs * self._batches.steps_per_epoch
        warmup = cfg.lr_scheduler.get("num_warmup_steps", 0)
        if warmup >= n_steps:
            log.warning(
                f"num_warmup_steps={warmup} but the run has only {n_steps} steps: the full learning rate is "
                f"never reached; lower it, for example lr_scheduler.num_warmup_steps={n_steps // 10}"
            )
        return config.instantiate(cfg.lr_scheduler, self._optimizer, **{PLANNED: n_steps})

    def save_checkpoint(self, epoch: int, step: int) -> Path | None:
        """Save all that going on after ``step`` steps of an epoch needs, as ``epoch_N`` at its end, else ``step_N``.

        Returns the folder; None on all processes but the first.
        """
        cfg, adapter = self._cfg, whole_adapter(self._policy.decoder)
        if not all(torch.isfinite(tensor).all() for tensor in adapter.values()):
            raise RuntimeError(
                f"the adapter holds values that are not finite after step {self.global_step}: not saved. "
                f"{self._advice()}"
            )
        model = None if cfg.save_adapter_weights_only else whole_model(self._policy.decoder, self._processes)
        epoch_done = step == self._batches.steps_per_epoch
        position = {
            "global_step": self.global_step,
            "epoch": epoch + 1 if epoch_done else epoch,
            "step": 0 if epoch_done else step,
        }
        state = {"expected": self._identity(), **self._state.capture(), **position}
        decoder = self._policy.decoder
        if isinstance(decoder, CausalLM):
            state[training.ADAPTER_KEY] = adapter

        def write(staging: Path) -> Path:
            folder = staging / f"epoch_{epoch}"
            if isinstance(decoder, CausalLM):
                write_peft_adapter(decoder, folder, adapter)
            else:
                write_adapter(self._checkpointer, cfg, folder, adapter, model)
            write_card(folder, cfg, base_folder(cfg), self._batches.describe(), self.global_step)
            return folder

        if not self._processes.first:
            return None
        name = f"epoch_{epoch}" if epoch_done else f"step_{self.global_step}"
        saved = self._checkpoints.save(name, write, state, {**position, "seed": self.seed})
        log.info(f"saved {saved}")
        return saved

    def _train_step(self, epoch: int, step: int, signal: Signals | None) -> tuple[dict[str, float], Signals | None]:
        """Run one optimizer step and log it; stop before a loss or gradient that is not finite reaches the weights.

        ``signal`` asked this process to stop. Returns the metrics, and the signal that asked any process to.
        """
        started = time.perf_counter()
        rows = self._batches.rows(epoch, step)
        pairs = self._batches.set.take(rows)
        metrics = self._losses.accumulate(pairs.pairs, pairs.mismatched)
        parts, signals = zip(*self._processes.gather((metrics, signal)))
        values = mean_metrics(parts)
        norm = torch.nn.utils.clip_grad_norm_(self._trainable, self._cfg.clip_grad_norm or math.inf)
        values["grad_norm"] = whole(norm).item()
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise RuntimeError(
                    f"{name} is {values[name]} at step {self.global_step + 1} (epoch {epoch}), rows "
                    f"{self._batches.name_rows(rows)}. {self._advice()}"
                )
        values["lr"] = self._optimizer.param_groups[0]["lr"]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._lr_scheduler is not None:
            self._lr_scheduler.step()
        self.global_step += 1
        n_tokens = sum(part.n_tokens for part in parts)
        values["tokens_per_second_per_gpu"] = n_tokens / (time.perf_counter() - started) / self._processes.n
        every = self._cfg.validate_every_n_steps
        last = step + 1 == self._batches.steps_per_epoch
        if self._validation is not None and (last or (every and self.global_step % every == 0)):
            values |= self._validate(self._validation)
        probed = {} if self._probe is None else self._probe.measure(self.global_step, self._reader)
        values |= probed
        due = self.global_step % self._cfg.log_every_n_steps == 0 or probed or "validation/loss" in values
        if self._metric_logger and due:
            if self._cfg.log_peak_memory_stats:
                values |= peak_memory(self._device)
            self._metric_logger.log_dict(values, step=self.global_step)
        return values, next((signal for signal in signals if signal), None)

    def _validate(self, validation: PairSet) -> dict[str, float]:
        """Measure the held-out pairs; training is the same with and without it."""
        metrics = self._losses.accumulate(validation.pairs, validation.mismatched, train=False)
        values = mean_metrics(self._processes.gather(metrics))
        names = [name for name in ("loss", "rewards/accuracies", "rewards/margins") if name in values]
        return {f"validation/{name}": values[name] for name in names}

    def _advice(self) -> str:
        return (
            f"Newest complete checkpoint: {self._checkpoints.newest() or 'none'}. Look at the rows, or start again in "
            "another output_dir with a lower optimizer.lr or clip_grad_norm=1.0"
        )

    def train(self) -> int:
        """Train to the end, or to a signal; return the exit status, 0 or 128 + the signal's number."""
        epochs, n_steps = self._cfg.epochs, self._batches.steps_per_epoch
        if self._start_epoch >= epochs:
            log.info(f"{self._cfg.output_dir} is complete at step {self.global_step}: nothing to do")
        elif self._probe is not None and (values := self._probe.begin(self._reader)) and self._metric_logger:
            self._metric_logger.log_dict(values, step=0)
        with StopRequest(self._checkpoints.newest) as stop:
            for epoch in range(self._start_epoch, epochs):
                first = self._start_step if epoch == self._start_epoch else 0
                bar = tqdm(
                    range(first, n_steps), initial=first, total=n_steps, desc=f"epoch {epoch + 1}/{epochs}",
                    disable=not self._processes.first,
                )  # fmt: skip
                for step in bar:
                    values, signal = self._train_step(epoch, step, stop.signal)
                    shown = {"loss": "loss", "margin": "rewards/margins"}
                    bar.set_postfix({k: f"{values[name]:.4f}" for k, name in shown.items() if name in values})
                    every = self._cfg.save_every_n_steps
                    if step + 1 == n_steps or signal or (every and self.global_step % every == 0):
                        folder = self.save_checkpoint(epoch, step + 1)
                    if signal:
                        bar.close()
                        log.warning(
                            f"stopped by {signal.name} after step {self.global_step}; saved {folder}. "
                            "Go on with resume_from_checkpoint=True"
                        )
                        return 128 + signal
        if self._probe is not None:
            log.info(self._probe.report())
        if newest := self._checkpoints.newest():
            command = next_command(self._cfg, base_folder(self._cfg), newest)
            log.info(f"done: the adapter is in {newest}, README.md is its card. Measure its lean:\n  {command}")
        return 0

    def cleanup(self) -> None:
        """Close the metric logger, and leave the output folder and the process group."""
        if self._metric_logger:
            self._metric_logger.close()
        self.release()
        self._processes.close()

    def release(self) -> None:
        """Let another run have the output folder."""
        self._checkpoints.release()


def _is_planned(lr_scheduler: DictConfig | None) -> bool:
    """Say whether a scheduler is told the number of steps of the run, as those of torchtune are."""
    return lr_scheduler is not None and PLANNED in signature(component(lr_scheduler["_component_"])).parameters


@entry_point
def recipe_main(cfg: DictConfig) -> int:
    """Train a LoRA adapter with DPO; see the configs for every key."""
    cfg = check_config(cfg, REQUIRED, OPTIONAL, COMPONENTS, BROUGHT)
    recipe = DPORecipe(cfg)
    try:
        recipe.setup(cfg)
        status = recipe.train()
    finally:
        recipe.release()
    recipe.cleanup()
    return status


if __name__ == "__main__":
    sys.exit(recipe_main())
