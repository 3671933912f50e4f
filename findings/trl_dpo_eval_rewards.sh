#!/usr/bin/env bash
# Guess: `eval_rewards/accuracies` of trl's DPO is the share of the pairs whose chosen answer has the higher reward, and the margins are a mean over
# pairs, so neither depends on the batch size of the evaluation, as `eval_loss` does not.
# Behaviour: each is the mean of the batches' means, and a last batch of one pair counts as much as a full one. On the same five pairs the accuracy is
# .6, .5 or .375, and the mean margin even changes its sign, while `eval_loss` is the same. Take a batch size that divides the number of pairs.
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
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

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
pairs = [{"prompt": "w1 w1", "chosen": f" w{2 + k} w{3 + k}", "rejected": f" w{9 + k} w{4 + k}"} for k in range(8)]
settings = DPOConfig(
    "run", report_to=[], disable_tqdm=True, use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no",
    learning_rate=5e-2, num_train_epochs=1,
)
trainer = DPOTrainer(
    "model", args=settings, train_dataset=Dataset.from_list(pairs), eval_dataset=Dataset.from_list(pairs[:5]), processing_class=tokenizer
)
trainer.train()
print("trl", version("trl"), "transformers", version("transformers"))
found = {}
for size in (1, 2, 4, 5):
    settings.per_device_eval_batch_size = trainer.args.per_device_eval_batch_size = size
    got = trainer.evaluate()
    found[size] = [got[f"eval_{name}"] for name in ("loss", "rewards/accuracies", "rewards/margins")]
    print("five pairs, batches of {}: loss {:.4f}, accuracy {:.3f}, margin {:.3f}".format(size, *found[size]))
assert all(abs(found[size][0] - found[1][0]) < 1e-4 for size in found), "the loss does not depend on it"
assert all(abs(a - b) < 1e-4 for a, b in zip(found[1], found[5], strict=True)), "one full batch is one pair at a time"
assert abs(found[4][1] - found[1][1]) > 0.02, "changed: the accuracy is the share of pairs"
assert abs(found[4][2] - found[1][2]) > 0.05, "changed: the margin is the mean of pairs"
PY
