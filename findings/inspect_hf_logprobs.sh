#!/usr/bin/env bash
# Guess: `logprobs` of an answer are those of the answer's own tokens, as servers give them and as inspect_ai's type `Logprobs` says.
# Behaviour: the provider `hf` lists the likeliest token of every position, whatever was sampled (it samples by default), and goes on after the end of the
# answer up to the longest one of the batch. So the mean or sum, as a score of confidence, is that of another text, and a short answer has more
# log-probabilities than tokens. The answer's own are not in the log. With `-M do_sample=false` and one request at a time they are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet inspect_ai==0.3.285 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" CUDA_VISIBLE_DEVICES="" env/bin/python - 2> log <<'PY' || { tail -30 log; exit 1; }
import asyncio
from importlib.metadata import version

import torch
from inspect_ai.model import GenerateConfig, get_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LONGEST, N_ANSWERS = 12, 16
words = ["<eos>", "user:", *"should taxes rise or fall yes no perhaps they may not always".split()]
plain = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="user:"))
plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", pad_token="<eos>")
shape = LlamaConfig(
    vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, initializer_range=0.3, bos_token_id=None, eos_token_id=0, pad_token_id=0,
)
torch.manual_seed(0)
model = LlamaForCausalLM(shape).eval()
model.save_pretrained("model")
tokenizer.save_pretrained("model")
QUESTION = "should taxes rise"
prompt = tokenizer("user: " + QUESTION)["input_ids"]


@torch.no_grad()
def read(answer):
    """Return the log-probabilities of the tokens of an answer, end included where it ended, as the model gives them."""
    ids = tokenizer(answer)["input_ids"]
    ids = [*ids, 0][:LONGEST]
    given = torch.log_softmax(model(torch.tensor([prompt + ids])).logits[0], -1)
    return [float(given[len(prompt) + k - 1, token]) for k, token in enumerate(ids)]


def ask(n_answers, **arguments):
    asked = get_model("hf/local", model_path="model", device="cpu", memoize=False, **arguments)
    settings = GenerateConfig(max_tokens=LONGEST, logprobs=True)

    async def together():
        return await asyncio.gather(*(asked.generate(QUESTION, config=settings) for _ in range(n_answers)))

    torch.manual_seed(3)
    found = []
    for output in asyncio.run(together()):
        listed = output.choices[0].logprobs.content
        found.append((output.completion, [one.token for one in listed], [float(one.logprob) for one in listed]))
    return found


print("inspect_ai", version("inspect_ai"), "transformers", version("transformers"))
[(answer, listed, given)] = ask(1, do_sample=False)
right = read(answer)
print(f"likeliest tokens, one request: {' '.join(listed)}; sum {sum(given):.2f}, of the answer {sum(right):.2f}")
assert max(abs(a - b) for a, b in zip(given, right, strict=True)) < 1e-4
sampled, too_long, other, sums = ask(N_ANSWERS), 0, 0, []
for answer, listed, given in sampled:
    right = read(answer)
    too_long += len(given) > len(right)
    other += listed[: len(right)] != [*answer.split(), "<eos>"][: len(right)]
    sums.append((sum(given) / len(given), sum(right) / len(right)))
    print(f"answer: {answer}\n  listed: {' '.join(listed)}; mean {sums[-1][0]:.2f}, of the answer {sums[-1][1]:.2f}")
print(f"of {N_ANSWERS} answers {other} have tokens listed that are not theirs, {too_long} more than they have tokens")
assert len({answer for answer, _, _ in sampled}) > 4
assert other > N_ANSWERS / 2 and sum(abs(a - b) > 0.1 for a, b in sums) > N_ANSWERS / 2, "changed: the answer's own tokens are listed"
assert too_long > 0, "changed: the list ends with the answer"
PY
