# SPDX-License-Identifier: MIT
"""LoRA DPO on one device, on the prefix tree.

    tune run finetune/dpo_finetune.py --config configs/llama8b_lora_dpo_single_device.yaml \
        dataset=data.datasets.politune_left

Takes the keys of torchtune's own ``lora_dpo_single_device`` configs and a few more (``OPTIONAL`` below).
Each step runs ``batch_size * gradient_accumulation_steps`` pairs, cut into forwards of at most
``max_tokens_per_forward`` tokens; every pair of a step counts the same, however the step was cut.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor
from torchtune import config, modules, training, utils
from torchtune.datasets import ConcatDataset
from torchtune.modules.peft import (
    disable_adapter,
    get_adapter_params,
    get_adapter_state_dict,
    get_lora_module_names,
    get_merged_lora_ckpt,
    set_trainable_params,
    validate_missing_and_unexpected_for_lora,
)
from torchtune.recipe_interfaces import FTRecipeInterface
from tqdm import tqdm

from data.recipe_config import check_config
from finetune.adapter_files import check_adapter_settings, complete_adapter_config
from finetune.card import write_card
from finetune.checkpoints import RunCheckpoints, read_progress
from finetune.interrupts import StopRequest
from finetune.logprobs import answer_logprobs
from finetune.metrics import StepMetrics, peak_memory
from finetune.pair_batches import PairBatches
from finetune.prefix_tree import build_tree, cut_by_tokens
from finetune.reference_cache import ReferenceCache, hash_base

log = utils.get_logger("INFO")

REQUIRED = {
    "output_dir", "model", "tokenizer", "checkpointer", "dataset", "optimizer", "loss", "seed", "shuffle",
    "batch_size", "epochs", "max_steps_per_epoch", "gradient_accumulation_steps", "resume_from_checkpoint",
    "metric_logger", "device", "dtype",
}  # fmt: skip
OPTIONAL: dict[str, Any] = {
    "lr_scheduler": None,
    "save_adapter_weights_only": False,
    "clip_grad_norm": None,
    "log_every_n_steps": 1,
    "log_peak_memory_stats": False,
    "compile": False,
    "cudnn_deterministic_mode": None,
    "enable_activation_checkpointing": False,
    "enable_activation_offloading": False,
    # ours
    "max_tokens_per_forward": 2048,
    "reference_cache_dir": None,
    "save_every_n_steps": None,
    "keep_last_n_checkpoints": 2,
}


class DPORecipe(FTRecipeInterface):
    """Preference-tune the LoRA adapters of a frozen base.

    Args:
        cfg: A config that passed :func:`data.recipe_config.check_config`.

    Raises:
        ValueError: If a setting cannot work; says which and what is allowed.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        self._device = utils.get_device(device=cfg.device)
        self._dtype = training.get_dtype(cfg.dtype, device=self._device)
        if self._dtype == torch.float16:
            raise ValueError("dtype=fp16 is not supported (no gradient scaling); use fp32 or bf16")
        if training.is_distributed():
            raise ValueError("this recipe runs on one device; start it without --nproc_per_node")
        if cfg.enable_activation_offloading and (
            self._device.type != "cuda" or not cfg.enable_activation_checkpointing
        ):
            raise ValueError(
                "enable_activation_offloading=True needs device=cuda and enable_activation_checkpointing=True"
            )
        if min(cfg.batch_size, cfg.gradient_accumulation_steps, cfg.epochs) < 1:
            raise ValueError("batch_size, gradient_accumulation_steps and epochs must be 1 or more")
        self._pairs_per_step = cfg.batch_size * cfg.gradient_accumulation_steps
        check_adapter_settings(cfg)
        self._checkpoints = RunCheckpoints(cfg.output_dir, cfg.keep_last_n_checkpoints)
        self._newest = self._checkpoints.newest()
        if self._newest is not None and not cfg.resume_from_checkpoint:
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
        # Data first: a wrong file is found before gigabytes of weights are read.
        tokenizer = config.instantiate(cfg.tokenizer)
        parts = [
            config.instantiate(part, tokenizer=tokenizer)
            for part in (cfg.dataset if isinstance(cfg.dataset, ListConfig) else [cfg.dataset])
        ]
        dataset = parts[0] if len(parts) == 1 else ConcatDataset(datasets=parts)
        self._batches = PairBatches(dataset, self._pairs_per_step, self.seed, cfg.shuffle, cfg.max_steps_per_epoch)
        log.info(self._batches.describe())

        self._loss_fn = config.instantiate(cfg.loss)
        self._checkpointer = config.instantiate(
            cfg.checkpointer, output_dir=str(self._checkpoints.staging), should_load_recipe_state=False
        )
        base = self._checkpointer.load_checkpoint()[training.MODEL_KEY]
        self._base_hash = self._hash_base(base)
        self._reference = ReferenceCache(cfg.reference_cache_dir, self._base_hash)
        resumed = None
        if self._newest is not None:
            resumed = self._checkpoints.load(self._newest, self._identity())
        elif cfg.resume_from_checkpoint:
            log.warning(f"no complete checkpoint in {cfg.output_dir}: starting from the beginning")
        self._model = self._setup_model(cfg, base, resumed[training.ADAPTER_KEY] if resumed else None)
        del base
        self._trainable = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = config.instantiate(cfg.optimizer, self._trainable)
        self._lr_scheduler = None
        if cfg.lr_scheduler is not None:
            self._lr_scheduler = self._setup_lr_scheduler(cfg.lr_scheduler)
        if resumed is not None:
            self._restore(resumed, self._newest)
        self._metric_logger = config.instantiate(cfg.metric_logger)
        self._metric_logger.log_config(cfg)

    def _hash_base(self, base: dict[str, Tensor]) -> str:
        settings = OmegaConf.to_container(self._cfg.model, resolve=True)
        builder = {k: v for k, v in settings.items() if "lora" not in k or k == "_component_"}
        return hash_base(base, {**builder, "dtype": str(self._dtype), "device": self._device.type})

    def _identity(self) -> dict[str, Any]:
        """What must not change between a run and its continuation."""
        cfg = OmegaConf.to_container(self._cfg, resolve=True)
        components = ("model", "loss", "optimizer", "lr_scheduler", "clip_grad_norm", "max_tokens_per_forward")
        return {
            **{name: str(cfg[name]) for name in components},
            "base": self._base_hash,
            "data": self._batches.fingerprint(),
            "pairs_per_step": self._pairs_per_step,
            "steps_per_epoch": self._batches.steps_per_epoch,
            "epochs": self._cfg.epochs,
            "seed": self.seed,
            "shuffle": bool(self._cfg.shuffle),
            "dtype": str(self._dtype),
        }

    def _setup_model(
        self, cfg: DictConfig, base: dict[str, Tensor], adapter: dict[str, Tensor] | None
    ) -> modules.TransformerDecoder:
        with training.set_default_dtype(self._dtype), self._device:
            model = config.instantiate(cfg.model)
        set_trainable_params(model, get_adapter_params(model))
        if cfg.enable_activation_checkpointing:
            training.set_activation_checkpointing(model, auto_wrap_policy={modules.TransformerSelfAttentionLayer})
        base_missing, base_unexpected = model.load_state_dict(base, strict=False)
        lora_missing = lora_unexpected = None
        if adapter is not None:
            lora_missing, lora_unexpected = model.load_state_dict(adapter, strict=False)
        validate_missing_and_unexpected_for_lora(
            lora_attn_modules=list(cfg.model.lora_attn_modules),
            apply_lora_to_mlp=cfg.model.get("apply_lora_to_mlp", False),
            apply_lora_to_output=cfg.model.get("apply_lora_to_output", False),
            base_missing=base_missing,
            base_unexpected=base_unexpected,
            lora_missing=lora_missing,
            lora_unexpected=lora_unexpected,
        )
        self._activations = training.get_act_offloading_ctx_manager(model, cfg.enable_activation_offloading)
        if cfg.compile:
            training.compile_model(model)
        return model

    def _setup_lr_scheduler(self, cfg_lr_scheduler: DictConfig):
        n_steps = self._cfg.epochs * self._batches.steps_per_epoch
        warmup = cfg_lr_scheduler.get("num_warmup_steps", 0)
        if warmup >= n_steps:
            log.warning(
                f"num_warmup_steps={warmup} but the run has only {n_steps} steps: the full learning rate is "
                f"never reached; lower it, for example lr_scheduler.num_warmup_steps={n_steps // 10}"
            )
        return config.instantiate(cfg_lr_scheduler, self._optimizer, num_training_steps=n_steps)

    def _restore(self, state: dict[str, Any], folder: Path) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        if self._lr_scheduler is not None:
            self._lr_scheduler.load_state_dict(state["lr_scheduler"])
        torch.set_rng_state(state["rng"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"], self._device)
        self.global_step, self._start_epoch, self._start_step = (
            state["global_step"], state["epoch"], state["step"],
        )  # fmt: skip
        log.info(f"resumed from {folder}: step {self.global_step}")

    def save_checkpoint(self, epoch: int, step: int) -> Path:
        """Save everything that going on from here needs, as ``epoch_N`` at an epoch's end, else ``step_N``.

        Args:
            epoch: The current epoch, from 0.
            step: Optimizer steps done in it.
        """
        if not all(torch.isfinite(p).all() for p in self._trainable):
            raise RuntimeError(
                f"the adapter holds values that are not finite after step {self.global_step}: not saved. "
                f"{self._advice()}"
            )
        epoch_done = step == self._batches.steps_per_epoch
        state: dict[str, Any] = {
            "expected": self._identity(),
            "optimizer": self._optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "global_step": self.global_step,
            "epoch": epoch + 1 if epoch_done else epoch,
            "step": 0 if epoch_done else step,
        }
        if self._lr_scheduler is not None:
            state["lr_scheduler"] = self._lr_scheduler.state_dict()
        if self._device.type == "cuda":
            state["device_rng"] = torch.cuda.get_rng_state(self._device)
        return self._checkpoints.save(
            f"epoch_{epoch}" if epoch_done else f"step_{self.global_step}",
            lambda staging: self._write_adapter(staging, epoch),
            state,
            {k: state[k] for k in ("global_step", "epoch", "step")} | {"seed": self.seed},
        )

    def _write_adapter(self, staging: Path, epoch: int) -> Path:
        """Let torchtune's checkpointer write the adapter (and, if asked, the merged model); complete it."""
        lora = self._cfg.model
        targets = get_lora_module_names(
            list(lora.lora_attn_modules),
            lora.get("apply_lora_to_mlp", False),
            lora.get("apply_lora_to_output", False),
        )
        full = self._model.state_dict()
        checkpoint: dict[str, Any] = {
            training.ADAPTER_KEY: {k: v.detach().cpu() for k, v in get_adapter_state_dict(full).items()},
            training.ADAPTER_CONFIG: {
                "r": lora.lora_rank,
                "lora_alpha": lora.lora_alpha,
                "target_modules": targets,
                "peft_type": "LORA",
            },
        }
        if not self._cfg.save_adapter_weights_only:
            checkpoint[training.MODEL_KEY] = get_merged_lora_ckpt(
                {k: v.detach().cpu() for k, v in full.items()}, rank=lora.lora_rank, alpha=lora.lora_alpha
            )
        self._checkpointer.save_checkpoint(checkpoint, epoch=epoch, adapter_only=self._cfg.save_adapter_weights_only)
        folder = staging / f"epoch_{epoch}"
        base = Path(self._cfg.checkpointer.checkpoint_dir)
        complete_adapter_config(folder, base, lora.get("lora_dropout", 0.0))
        write_card(folder, self._cfg, self._batches.describe(), self.global_step)
        return folder

    def _pair_logprobs(self, pairs: list) -> tuple[Tensor, Tensor]:
        """Return the policy's log-probabilities of the chosen and the rejected answers, ``[N]`` each."""
        tree = build_tree([answer for pair in pairs for answer in pair]).to(self._device)
        with self._activations:
            sums = answer_logprobs(self._model, tree)
        return sums[0::2], sums[1::2]

    @torch.no_grad()
    def _reference_logprobs(self, pairs: list) -> tuple[Tensor, Tensor]:
        """Return the base's log-probabilities of the two answers, from the cache where they are known."""
        values = []
        for pair in pairs:
            known = self._reference.get(*pair)
            if known is None:
                self._model.eval()
                with disable_adapter(self._model):
                    known = tuple(x.item() for x in self._pair_logprobs([pair]))
                self._model.train()
                self._reference.put(*pair, known)
            values.append(known)
        chosen, rejected = torch.tensor(values, device=self._device).T
        return chosen, rejected

    def _accumulate(self, rows: list[int]) -> StepMetrics:
        """Accumulate the gradient of the mean loss over ``rows``, each with the same weight."""
        metrics = StepMetrics()
        pairs = [self._batches.pairs[row] for row in rows]
        for forward in cut_by_tokens(pairs, self._cfg.max_tokens_per_forward):
            part = [pairs[k] for k in forward]
            reference = self._reference_logprobs(part)
            policy = self._pair_logprobs(part)
            losses, chosen_rewards, rejected_rewards = self._loss_fn(*policy, *reference)
            (losses.sum() / len(rows)).backward()
            metrics.add(part, losses, chosen_rewards, rejected_rewards, *policy)
        return metrics

    def _train_step(self, epoch: int, step: int) -> dict[str, float]:
        """Run one optimizer step and log it; return its metrics.

        Raises:
            RuntimeError: If the loss is not finite; the weights are then still those of the step before.
        """
        started = time.perf_counter()
        rows = self._batches.rows(epoch, step)
        metrics = self._accumulate(rows)
        values = metrics.mean()
        if not math.isfinite(values["loss"]):
            raise RuntimeError(
                f"the loss is {values['loss']} at step {self.global_step + 1} (epoch {epoch}), rows "
                f"{self._batches.name_rows(rows)}. {self._advice()}"
            )
        if self._cfg.clip_grad_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self._trainable, self._cfg.clip_grad_norm)
            values["grad_norm"] = float(norm)
        values["lr"] = self._optimizer.param_groups[0]["lr"]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._lr_scheduler is not None:
            self._lr_scheduler.step()
        self.global_step += 1
        if self.global_step % self._cfg.log_every_n_steps == 0:
            values["tokens_per_second_per_gpu"] = metrics.n_tokens / (time.perf_counter() - started)
            if self._cfg.log_peak_memory_stats:
                values |= peak_memory(self._device)
            self._metric_logger.log_dict(values, step=self.global_step)
        return values

    def _advice(self) -> str:
        return (
            f"Newest complete checkpoint: {self._checkpoints.newest() or 'none'}. Look at the rows, or start again in "
            "another output_dir with a lower optimizer.lr or clip_grad_norm=1.0"
        )

    def train(self) -> int:
        """Train to the end, or to a stop request.

        Returns:
            Exit status: 0, or 128 + the signal's number when a signal asked to stop.
        """
        epochs, n_steps = self._cfg.epochs, self._batches.steps_per_epoch
        if self._start_epoch >= epochs:
            log.info(f"{self._cfg.output_dir} is complete at step {self.global_step}: nothing to do")
        self._model.train()
        with StopRequest() as stop:
            for epoch in range(self._start_epoch, epochs):
                first = self._start_step if epoch == self._start_epoch else 0
                bar = tqdm(range(first, n_steps), initial=first, total=n_steps, desc=f"epoch {epoch + 1}/{epochs}")
                for step in bar:
                    values = self._train_step(epoch, step)
                    bar.set_postfix(loss=f"{values['loss']:.4f}", margin=f"{values['rewards/margins']:.3f}")
                    every = self._cfg.save_every_n_steps
                    if step + 1 == n_steps or stop.signal or (every and self.global_step % every == 0):
                        folder = self.save_checkpoint(epoch, step + 1)
                    if stop.signal:
                        bar.close()
                        log.warning(
                            f"stopped by {stop.signal.name} after step {self.global_step}; saved {folder}. "
                            "Go on with resume_from_checkpoint=True"
                        )
                        return 128 + stop.signal
        return 0

    def cleanup(self) -> None:
        """Close the metric logger."""
        self._metric_logger.close()


@config.parse
def recipe_main(cfg: DictConfig) -> int:
    """Train a LoRA adapter with DPO; see the configs for every key."""
    cfg = check_config(cfg, REQUIRED, OPTIONAL)
    recipe = DPORecipe(cfg)
    recipe.setup(cfg)
    status = recipe.train()
    recipe.cleanup()
    return status


if __name__ == "__main__":
    sys.exit(recipe_main())
