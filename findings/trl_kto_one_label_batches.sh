#!/usr/bin/env bash
# Guess: `KTOTrainer`, which takes pairs and splits them itself, mixes desirable and undesirable answers in a batch, and the seed changes their order.
# Behaviour, in one epoch over 64 pairs: eight batches of chosen answers, then eight of rejected ones. No reward margin is logged, two seeds end with the
# same rewards to three places, and the rejected answers have a reward above 0. Rows that were split and shuffled beforehand have mixed batches and a logged
# margin, and their rejected answers end below 0. Of more pairs, only the split is tried: `unpair_preference_dataset` alone puts the chosen answers of a
# thousand pairs before their rejected ones, then those of the next 500.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" CUDA_VISIBLE_DEVICES="" env/bin/python - 2> log <<'PY' || { tail -30 log; exit 1; }
from importlib.metadata import version

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import KTOConfig, KTOTrainer
from trl.data_utils import unpair_preference_dataset

words = ["<eos>", "<unk>", *(f"w{k}" for k in range(30))]
plain = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", unk_token="<unk>", pad_token="<unk>")
torch.manual_seed(0)
shape = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
    initializer_range=0.5, eos_token_id=0, pad_token_id=1,
)
LlamaForCausalLM(shape).save_pretrained("model")
pairs = Dataset.from_list(
    [
        {"prompt": f"w{k % 5} w{k % 7}", "chosen": f" w{8 + k % 9} w{10 + k % 3}", "rejected": f" w{19 + k % 9} w{20 + k % 3}"}
        for k in range(64)
    ]
)
mixed = unpair_preference_dataset(pairs).shuffle(seed=0)
many = unpair_preference_dataset(Dataset.from_list([{"prompt": "w1", "chosen": " w2", "rejected": " w3"}] * 1500))


class Watched(KTOTrainer):
    """The trainer, which notes the share of desirable answers in each training batch."""

    def _compute_loss(self, model, inputs, return_outputs):
        if model.training:
            self.desirable.append(float(inputs["label"].float().mean()))
        return super()._compute_loss(model, inputs, return_outputs)


def trained(rows, seed):
    """Return the share of desirable answers by batch, the rewards afterwards, and whether a margin was logged."""
    settings = KTOConfig(
        "run", report_to=[], disable_tqdm=True, use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no", seed=seed,
        learning_rate=3e-3, num_train_epochs=1, per_device_train_batch_size=8, per_device_eval_batch_size=8, logging_steps=1,
    )
    trainer = Watched("model", args=settings, train_dataset=rows, eval_dataset=mixed, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.desirable = []
    trainer.train()
    logged = any("rewards/margins" in line for line in trainer.state.log_history)
    after = trainer.evaluate()
    return trainer.desirable, {side: round(after[f"eval_rewards/{side}"], 3) for side in ("chosen", "rejected")}, logged


print("trl", version("trl"), "transformers", version("transformers"))
found = {}
for name, rows in (("pairs", pairs), ("split and shuffled", mixed)):
    for seed in (1, 2):
        shares, rewards, logged = found[name, seed] = trained(rows, seed)
        print(f"{name}, seed {seed}: desirable by batch", *(f"{share:.2g}" for share in shares), f"rewards {rewards}, margin logged {logged}")
assert many["label"][:] == [True] * 1000 + [False] * 1000 + [True] * 500 + [False] * 500, "changed: the order of split pairs"
assert found["pairs", 1][0] == [1.0] * 8 + [0.0] * 8, "changed: batches of pairs are mixed"
assert found["pairs", 1] == found["pairs", 2], "changed: the seed changes batches or rewards"
assert not found["pairs", 1][2] and found["split and shuffled", 1][2]
assert found["pairs", 1][1]["rejected"] > 0 > found["split and shuffled", 1][1]["rejected"], "changed: what is learned"
PY
