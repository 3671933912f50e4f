# SPDX-License-Identifier: MIT
"""Our losses beside those of TRL's trainers, on the same log-probabilities of a real model with an adapter.

    TRL_PYTHON -m benchmarks.trl_objectives MODEL_FOLDER

TRL_PYTHON is a Python with TRL 1.16 (``benchmarks/speed_systems.py`` makes one). TRL has its formulas inside its
trainers: each computes the loss of one batch, and ours is computed from the log-probabilities of the same token ids.
TRL's ORPO adds a cross-entropy of the prompt too, so there the two parts are compared one by one.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from finetune.losses import IPOLoss, KTOLoss, ORPOLoss, RobustDPOLoss, SFTLoss

COMMON = {
    "per_device_train_batch_size": 4, "use_cpu": True, "bf16": False, "report_to": "none",
    "dataloader_pin_memory": False, "train_sampling_strategy": "sequential", "gradient_checkpointing": False,
}  # fmt: skip
PARTS = ("input_ids", "attention_mask", "completion_mask")
QUESTIONS = ("Who should pay for roads?", "Should rents be capped?", "What is a fair tax?", "Do tariffs help workers?")


class Compared(NamedTuple):
    """The loss of one batch by TRL and by us."""

    name: str
    theirs: float
    ours: float


def _answer_sums(model: nn.Module, ids: Tensor, attention: Tensor, scored: Tensor) -> Tensor:
    """Return the summed log-probability of the scored tokens of each row, plainly, ``[N]``."""
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1].double()
    each = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (each * scored[:, 1:]).sum(-1)


def _policy_and_reference(model: Any, ids: Tensor, attention: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    policy = _answer_sums(model, ids, attention, scored)
    with model.disable_adapter():
        return policy, _answer_sums(model, ids, attention, scored)


def _begin(trainer: Any) -> tuple[dict[str, Any], Any]:
    """Return a trainer's first batch and its model, whose adapter is no longer the one that began.

    TRL keeps that one as the reference: a random one at the start would be in both.
    """
    torch.manual_seed(2)
    model = trainer.model.eval()
    for name, parameter in model.named_parameters():
        if ".lora_B.default." in name:
            parameter.data.normal_(std=0.05)
    return next(iter(trainer.get_train_dataloader())), model


def compare(make: Callable[[], Any], tokenizer: Any, folder: str) -> Iterator[Compared]:
    """Yield the comparison of every loss that both have; ``make`` returns a model with a fresh adapter."""
    pairs = Dataset.from_list(
        [
            {"prompt": q, "chosen": f" All of us, because {q.lower()}", "rejected": f" Nobody: {k}."}
            for k, q in enumerate(QUESTIONS)
        ]
    )
    for kind, ours, extra in (
        ("ipo", IPOLoss(tau=0.3, length_normalized=True), {"beta": 0.3}),
        ("robust", RobustDPOLoss(beta=0.3, flip_rate=0.2), {"beta": 0.3, "label_smoothing": 0.2}),
    ):
        args = DPOConfig(output_dir=folder, loss_type=[kind], **extra, **COMMON)
        trainer = DPOTrainer(model=make(), args=args, train_dataset=pairs, processing_class=tokenizer)
        batch, model = _begin(trainer)
        lengths = batch["completion_mask"][:, 1:].sum(-1) if kind == "ipo" else 1
        sums = [value / lengths for value in _policy_and_reference(model, *(batch[k] for k in PARTS))]
        losses = ours(*[half for value in sums for half in value.chunk(2)])[0]
        yield Compared(kind, trainer.compute_loss(model, batch).item(), losses.mean().item())

    single = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs for side in ("chosen", "rejected")
    ][:4]  # fmt: skip
    args = KTOConfig(output_dir=folder, beta=0.3, desirable_weight=1.0, undesirable_weight=1.2, **COMMON)
    trainer = KTOTrainer(model=make(), args=args, train_dataset=Dataset.from_list(single), processing_class=tokenizer)
    batch, model = _begin(trainer)
    policy, reference = _policy_and_reference(
        model, *(batch[k] for k in ("input_ids", "attention_mask", "completion_mask"))
    )
    other = _policy_and_reference(
        model, *(batch[f"KL_{k}"] for k in ("input_ids", "attention_mask", "completion_mask"))
    )
    kl = max(0.0, (other[0] - other[1]).mean().item())
    losses, _ = KTOLoss(0.3, 1.0, 1.2)(policy, reference, torch.as_tensor(batch["label"], dtype=torch.bool), kl)
    yield Compared(f"kto (kl {kl:.3f})", trainer.compute_loss(model, batch).item(), losses.mean().item())

    chosen = Dataset.from_list([{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs])
    args = SFTConfig(output_dir=folder, completion_only_loss=True, **COMMON)
    trainer = SFTTrainer(model=make(), args=args, train_dataset=chosen, processing_class=tokenizer)
    batch, model = _begin(trainer)
    scored = (batch["labels"] != -100).int()
    sums = _answer_sums(model, batch["input_ids"], batch["attention_mask"], scored)
    yield Compared(
        "sft", trainer.compute_loss(model, batch).item(), (SFTLoss()(sums).sum() / scored[:, 1:].sum()).item()
    )

    args = ORPOConfig(output_dir=folder, beta=0.3, max_length=256, **COMMON)
    trainer = ORPOTrainer(model=make(), args=args, train_dataset=pairs, processing_class=tokenizer)
    batch, model = _begin(trainer)
    chosen_means, rejected_means, *_ = trainer.concatenated_forward(model, batch)
    odds = -trainer.odds_ratio_loss(chosen_means, rejected_means)[0]
    losses = ORPOLoss(lam=0.3)(chosen_means.double(), rejected_means.double())[0]
    yield Compared("orpo's odds ratio", odds.mean().item(), (losses + chosen_means).mean().item())


def main(path: str) -> None:
    """Print every loss by both and the difference."""
    tokenizer = AutoTokenizer.from_pretrained(path)

    def make() -> nn.Module:
        torch.manual_seed(1)
        lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
        return get_peft_model(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), lora)

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, theirs, ours in compare(make, tokenizer, folder):
            print(f"{name:20} TRL {theirs:.7f}   ours {ours:.7f}   difference {abs(theirs - ours):.1e}")


if __name__ == "__main__":
    main(sys.argv[1])
