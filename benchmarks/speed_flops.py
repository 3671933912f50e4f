# SPDX-License-Identifier: MIT
"""The floating-point operations that LoRA DPO really needs, and how fast plain matrix products of its shapes are.

    python -m benchmarks.speed_flops INPUTS.json    prints the rate of the model's products, by dtype

Counted: the linear layers, LoRA and the head at scored positions, forward and backward; two operations a
multiply-add. Not counted: attention scores, element-wise work, recomputation. Counting imports no torch.
"""

import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Linear(NamedTuple):
    """A linear layer: ``[T, inputs] -> [T, outputs]``.

    Attributes:
        outputs: Output features.
        inputs: Input features.
        adapted: It carries a LoRA.
        passes_gradient: Its input has something trainable below it.
    """

    outputs: int
    inputs: int
    adapted: bool
    passes_gradient: bool


def body_linears(sizes: Mapping[str, int], attention: Sequence[str], mlp: bool) -> list[Linear]:
    """Return every linear layer of a Llama's body.

    Args:
        sizes: ``num_layers, embed_dim, num_heads, num_kv_heads, intermediate_dim``.
        attention: Adapted attention projections, by torchtune's names.
        mlp: The MLP's three are adapted too.
    """
    dim, hidden = sizes["embed_dim"], sizes["intermediate_dim"]
    kv = dim // sizes["num_heads"] * sizes["num_kv_heads"]
    linears = []
    for layer in range(sizes["num_layers"]):
        for name, outputs in (("q_proj", dim), ("k_proj", kv), ("v_proj", kv), ("output_proj", dim)):
            # below the first layer's q, k and v lies only the frozen embedding
            linears.append(Linear(outputs, dim, name in attention, layer > 0 or name == "output_proj"))
        linears += [Linear(hidden, dim, mlp, True), Linear(hidden, dim, mlp, True), Linear(dim, hidden, mlp, True)]
    return linears


def forward_flops(linears: Sequence[Linear], head: tuple[int, int], tokens: int, scored: int, rank: int) -> int:
    """Return the operations of one forward; ``rank`` 0 for the reference, whose adapters are off.

    Args:
        linears: The body.
        head: Vocabulary and embedding size.
        tokens: Tokens that the body sees.
        scored: Tokens that the head sees.
        rank: LoRA rank.
    """
    body = sum(x.outputs * x.inputs for x in linears)
    lora = sum(rank * (x.outputs + x.inputs) for x in linears if x.adapted)
    return 2 * tokens * (body + lora) + 2 * scored * head[0] * head[1]


def backward_flops(linears: Sequence[Linear], head: tuple[int, int], tokens: int, scored: int, rank: int) -> int:
    """Return the operations of one backward: to activations everywhere, to weights of LoRA only."""
    body = sum(x.outputs * x.inputs for x in linears if x.passes_gradient)
    to_b = sum(2 * rank * x.outputs for x in linears if x.adapted)
    to_a = sum((1 + x.passes_gradient) * rank * x.inputs for x in linears if x.adapted)
    return 2 * tokens * (body + to_b + to_a) + 2 * scored * head[0] * head[1]


def run_flops(
    linears: Sequence[Linear],
    head: tuple[int, int],
    rank: int,
    policy_tokens: int,
    reference_tokens: int,
    scored: int,
    epochs: int,
) -> int:
    """Return the operations of a whole run: the policy in every epoch, the reference once.

    Args:
        linears: The body.
        head: Vocabulary and embedding size.
        rank: LoRA rank.
        policy_tokens: Tokens of an epoch's forwards, shared prefixes once.
        reference_tokens: Tokens of the reference's forwards, each pair by itself.
        scored: Scored tokens of an epoch.
        epochs: Epochs.
    """
    step = forward_flops(linears, head, policy_tokens, scored, rank) + backward_flops(
        linears, head, policy_tokens, scored, rank
    )
    return epochs * step + forward_flops(linears, head, reference_tokens, scored, 0)


def products(linears: Sequence[Linear], head: tuple[int, int], tokens: int, scored: int) -> Counter:
    """Return how often a forward and its backward run each product.

    Returns:
        Counts by ``(rows, inner, columns, transposed)``: forward multiplies by the transposed weight,
        backward by the weight as it lies in memory.
    """
    count: Counter = Counter()
    for x in linears:
        count[tokens, x.inputs, x.outputs, True] += 1
        count[tokens, x.outputs, x.inputs, False] += x.passes_gradient
    count[scored, head[1], head[0], True] += 1
    count[scored, head[0], head[1], False] += 1
    return count


def weighted_rate(count: Mapping[tuple, int], seconds: Mapping[tuple, float]) -> float:
    """Return operations per second of a mix of products, from the seconds that each takes once."""
    flops = sum(n * 2 * shape[0] * shape[1] * shape[2] for shape, n in count.items())
    return flops / sum(n * seconds[shape] for shape, n in count.items())


def seconds_of(shape: tuple[int, int, int, bool], dtype, device: str = "cpu") -> float:
    """Return the median seconds of one ``torch.mm``."""
    import torch

    rows, inner, columns, transposed = shape
    x = torch.randn(rows, inner).to(device, dtype)
    weight = torch.randn(*((columns, inner) if transposed else (inner, columns))).to(device, dtype)
    weight = weight.T if transposed else weight
    times, started = [], time.perf_counter()
    while len(times) < 8 or time.perf_counter() - started < 0.3:
        before = time.perf_counter()
        torch.mm(x, weight)
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - before)
    return statistics.median(times[2:])


def main(inputs_file: str) -> None:
    """Time the products of one of our mean forwards; print operations per second by dtype."""
    import torch

    inputs = json.loads(Path(inputs_file).read_text())
    count = products(
        body_linears(inputs["sizes"], inputs["lora_attn_modules"], inputs["apply_lora_to_mlp"]),
        (inputs["sizes"]["vocab_size"], inputs["sizes"]["embed_dim"]),
        round(inputs["policy_tokens"] / inputs["forwards"]),
        round(inputs["scored_tokens"] / inputs["forwards"]),
    )
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    print(json.dumps({n: weighted_rate(count, {s: seconds_of(s, d) for s in count}) for n, d in dtypes.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
