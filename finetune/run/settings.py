# SPDX-License-Identifier: MIT
"""The keys of ``finetune/dpo_finetune.py``, and which of their values cannot work together."""

import inspect
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

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
    "validation_dataset": None,
    "validation_share": None,
    "validate_every_n_steps": None,
    "probe": None,
}
# those of OPTIONAL that name a component
COMPONENTS = ("lr_scheduler", "validation_dataset", "probe")
LLAMA_LIKE = ("LLAMA2", "LLAMA3", "LLAMA3_2", "MISTRAL")


def next_command(cfg: DictConfig, base: str | Path, adapter: Path) -> str:
    """Return the command that measures the lean of a finished run's adapter."""
    shipped = Path("outputs/models/SmolLM2-135M-Instruct")  # the base of the evaluation's config
    overrides = []
    if Path(base) != shipped:
        overrides = ["model=finetune.models.causal_lm", f"model.path={base}", "tokenizer=null", "checkpointer=null"]
    overrides += [] if cfg.device == "cpu" else [f"device={cfg.device}", f"dtype={cfg.dtype}"]
    # null: not those of the evaluation's config
    adapters = {"left": "null", "right": "null"} | {Path(cfg.output_dir).name.replace(".", "_"): str(adapter)}
    shown = ", ".join(f"{key}: {value}" for key, value in adapters.items())
    overrides = [f"adapters='{{{shown}}}'", *overrides, f"output_dir={cfg.output_dir}/compass"]
    return f"tune run eval/political_compass.py --config configs/political_compass.yaml {' '.join(overrides)}"


def check_loss(loss_fn: Any) -> None:
    """Refuse a loss that does not take what its attributes promise (``finetune/losses.py``), before a weight is loaded.

    Raises:
        ValueError: Says what it must take.
    """
    takes = "the log-probabilities of chosen and rejected answers, of the policy and then of the reference"
    n = 2 if getattr(loss_fn, "reference_free", False) else 4
    if getattr(loss_fn, "chosen_only", False):
        takes, n = "the log-probabilities of chosen answers", 1
    elif getattr(loss_fn, "unpaired", False):
        takes, n = "log-probabilities of the policy and of the reference, which are desirable, and the KL term", 4
    try:
        inspect.signature(loss_fn.forward).bind(*[None] * n)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"loss={type(loss_fn).__module__}.{type(loss_fn).__qualname__} is no preference loss ({error}); it takes "
            f"{takes}"
        ) from error


def check_settings(cfg: DictConfig) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        ValueError: Says which setting, and what is allowed.
    """
    _check_causal(cfg) if cfg.checkpointer is None else _check_torchtune(cfg)
    if cfg.dtype == "fp16":
        raise ValueError("dtype=fp16 is not supported (no gradient scaling); use fp32 or bf16")
    if cfg.lr_scheduler is not None and cfg.lr_scheduler["_component_"].endswith(".ReduceLROnPlateau"):
        raise ValueError(
            "lr_scheduler._component_=ReduceLROnPlateau is not supported (it wants a measure after every step); use "
            "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup or torch.optim.lr_scheduler.ConstantLR"
        )
    on_cuda = str(cfg.device).startswith("cuda")
    if cfg.enable_activation_offloading and not (on_cuda and cfg.enable_activation_checkpointing):
        raise ValueError("enable_activation_offloading=True needs device=cuda and enable_activation_checkpointing=True")
    if cfg.validation_share is not None and cfg.validation_dataset is not None:
        raise ValueError("validation_share and validation_dataset are both given; use one of them")
    if cfg.validate_every_n_steps and cfg.validation_share is None and cfg.validation_dataset is None:
        raise ValueError("validate_every_n_steps needs validation_share (for example 0.1) or a validation_dataset")


def _check_torchtune(cfg: DictConfig) -> None:
    if cfg.checkpointer["_component_"].rpartition(".")[2] != "FullModelHFCheckpointer":
        raise ValueError(
            f"checkpointer._component_={cfg.checkpointer['_component_']} writes no PEFT adapter; use "
            "torchtune.training.FullModelHFCheckpointer on a folder in Hugging Face format"
        )
    # torchtune permutes the query and key rows of every adapter as Llama's must be: wrong for other families
    if cfg.checkpointer.model_type not in LLAMA_LIKE:
        raise ValueError(f"checkpointer.model_type={cfg.checkpointer.model_type}; supported: {LLAMA_LIKE}")
    missing = [k for k in ("lora_rank", "lora_alpha", "lora_attn_modules") if k not in cfg.model]
    if missing:
        raise ValueError(f"give model.{', model.'.join(missing)}: the adapter's config is written from them")
    if cfg.model.get("use_dora", False):
        raise ValueError("model.use_dora=True is not supported (torchtune leaves its magnitudes empty); use LoRA")


def _check_causal(cfg: DictConfig) -> None:
    if missing := [key for key in ("lora_rank", "lora_alpha") if cfg.model.get(key) is None]:
        raise ValueError(f"give model.{', model.'.join(missing)}: nothing else is trained")
    if cfg.compile:
        raise ValueError("compile=True works with torchtune's builders alone; use compile=False with causal_lm")
    if not cfg.save_adapter_weights_only:
        raise ValueError(
            "save_adapter_weights_only=False works with torchtune's builders alone; use True with causal_lm, and "
            "finetune/export.py for a merged model"
        )
