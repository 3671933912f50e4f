# SPDX-License-Identifier: MIT
"""How much memory a device needs to run a DPO config, before it is rented.

    python -m benchmarks.memory_plan --config configs/llama70b_lora_dpo_distributed.yaml --devices 8
    python -m benchmarks.memory_plan --config configs/llama8b_lora_dpo_single_device.yaml --gib 24
    python -m benchmarks.memory_plan --config configs/smollm2_135m_lora_dpo_cpu.yaml --check max_tokens_per_forward=1024

Nothing of the model is loaded. Weights are counted on torch's meta device; what a layer keeps for its backward pass is
measured, by running one layer of the true shape on the CPU with few tokens. ``--check`` trains the config for two steps
on this machine's CPU and prints the measured peak beside the prediction.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torchao.dtypes.nf4tensor import NF4Tensor
from torchtune import config, training
from torchtune.modules import RMSNorm

from data.pairs.tokens import Continuation
from finetune.run.policy import Policy, build_policy, named_weights
from finetune.tree.attention import cut_tree
from finetune.tree.logprobs import HEAD_CHUNK
from finetune.tree.prefix_tree import PrefixTree, build_tree

GIB = 2**30
TOKENS_PER_PAIR = 256  # about PoliTune's mean
# 4 bits a weight, a byte for each block of 64, and a float32 for each 256 of those blocks
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


class Plan(NamedTuple):
    """Bytes on one device.

    Attributes:
        weights: The base: this device's share, and under FSDP the layers that are whole while they run.
        adapter: LoRA weights and gradients.
        optimizer: Its state.
        activations: What the layers keep for the backward pass at ``max_tokens_per_forward`` tokens.
        head: One chunk of the vocabulary head, and the head's own LoRA gradients.
        working: Temporary tensors of one layer, forward and backward.
    """

    weights: float
    adapter: float
    optimizer: float
    activations: float
    head: float
    working: float


def n_bytes(weights: Iterable[Tensor]) -> float:
    """Return what tensors take; NF4 counted as stored."""
    return sum(w.numel() * (NF4_BYTES if isinstance(w, NF4Tensor) else w.element_size()) for w in weights)


def tree_of_a_pair() -> PrefixTree:
    """Return two answers to one prompt, ``TOKENS_PER_PAIR`` tokens in all, a fifth of them the prompt."""
    prompt, answer = TOKENS_PER_PAIR // 5, 2 * TOKENS_PER_PAIR // 5
    answers = [[k] * (answer + 1) for k in (1, 2)]  # the last token is not run
    return build_tree([Continuation([0] * prompt + tokens, [-100] * prompt + tokens) for tokens in answers])


def saved_bytes(layer: nn.Module, embed_dim: int, dtype: torch.dtype, device: str) -> float:
    """Return the bytes a token that a layer keeps for its backward pass on ``device``, measured on the CPU."""
    layer = layer.to_empty(device="cpu")
    for module in layer.modules():
        if hasattr(module, "rope_init"):
            module.rope_init()
        if device != "cpu" and isinstance(module, RMSNorm):  # its kernel there does not say how to compute it again
            module.register_forward_hook(lambda _module, _inputs, output: output.view_as(output))
    tree = tree_of_a_pair()
    # the dense mask is shared by all layers: not counted
    mask = cut_tree(tree) if device == "cpu" else tree.attention_bias(dtype)
    own = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    own |= {mask.untyped_storage().data_ptr()} if isinstance(mask, Tensor) else set()
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    n_tokens = tree.tokens.numel()
    wide = torch.promote_types(dtype, torch.float32) if device == "cpu" else dtype  # the residual stream
    hidden = torch.zeros(1, n_tokens, embed_dim, dtype=wide, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = layer(hidden, mask=mask, input_pos=tree.input_pos)
    del output
    return sum(kept.values()) / n_tokens


def state_bytes(cfg_optimizer: DictConfig, dtype: torch.dtype) -> float:
    """Return the bytes of optimizer state for each trained value, measured on a small parameter."""
    parameter = nn.Parameter(torch.zeros(4096, dtype=dtype))
    optimizer = config.instantiate(cfg_optimizer, [parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = optimizer.state[parameter].values()
    return sum(v.numel() * v.element_size() for v in state if torch.is_tensor(v) and v.numel() > 1) / 4096


def plan(cfg: DictConfig, devices: int) -> Plan:
    """Predict the peak of one of ``devices`` devices that run a config of ``finetune/dpo_finetune.py``."""
    dtype = training.get_dtype(cfg.dtype, device=torch.device("cpu"))
    policy, _ = build_policy(cfg.model, dtype, 0, recomputed=0)
    decoder = policy.decoder
    trained = [p for _, p in named_weights(decoder) if p.requires_grad]
    frozen = n_bytes(p for _, p in named_weights(decoder) if not p.requires_grad)
    layer = n_bytes(p for p in decoder.layers[0].parameters() if not p.requires_grad)
    weights = frozen / devices
    if devices > 1:
        # the root group (embedding, norm, head) and two layers (one runs, the next is on its way) are whole
        weights += (frozen - layer * len(decoder.layers)) * (1 - 1 / devices) + 2 * layer * (1 - 1 / devices)

    tokens, size, width = cfg.max_tokens_per_forward, dtype.itemsize, decoder.tok_embeddings.embedding_dim
    largest = max(m.numel() for m in decoder.layers[0].parameters())
    adapter = n_bytes(trained)
    head_lora = [p for name, p in named_weights(decoder) if p.requires_grad and name.startswith("output.")]
    vocabulary = decoder.tok_embeddings.num_embeddings
    per_token = _saved_by_a_layer(cfg, policy, width, dtype)
    n_layers = len(decoder.layers)
    recomputed = round(cfg.enable_activation_checkpointing * n_layers)
    # those that compute again keep their input, and one of them at a time what it keeps otherwise
    kept = recomputed * width * size + (n_layers - recomputed + bool(recomputed)) * per_token
    return Plan(
        weights=weights,
        # a step's gradients are whole until its last forward, then sharded
        adapter=adapter / devices + adapter,
        optimizer=sum(p.numel() for p in trained) * state_bytes(cfg.optimizer, trained[0].dtype) / devices,
        activations=tokens * kept,
        # logits, their float32 copy and its exponentials' cast; the head's LoRA gradients are kept for each answer
        head=HEAD_CHUNK * vocabulary * (4 + 2 * size) + 2 * max(1, tokens // TOKENS_PER_PAIR) * n_bytes(head_lora),
        # gradients of a layer's activations live beside them; an NF4 weight is widened while it is used
        working=tokens * per_token + (largest * size if cfg.model.get("quantize_base", False) else 0),
    )


def smallest_share(cfg: DictConfig, devices: int, gib: float) -> float | None:
    """Return the smallest share of layers that compute again with which a plan fits; None if not even all do."""

    def total(share: float) -> float:
        return sum(plan(OmegaConf.merge(cfg, {"enable_activation_checkpointing": share}), devices)) / GIB

    if total(0) <= gib:
        return 0.0
    n = len(build_policy(cfg.model, torch.bfloat16, 0, recomputed=0)[0].decoder.layers)
    one, all_of_them = total(1 / n), total(1)  # each layer between takes as much less
    less = (one - all_of_them) / max(n - 1, 1)
    return next((m / n for m in range(1, n + 1) if one - less * (m - 1) <= gib), None)


def _saved_by_a_layer(cfg: DictConfig, policy: Policy, width: int, dtype: torch.dtype) -> float:
    if cfg.model.get("quantize_base", False):  # what is kept is the same, and NF4 cannot be made empty
        policy, _ = build_policy(OmegaConf.merge(cfg.model, {"quantize_base": False}), dtype, 0, False)
    return saved_bytes(policy.decoder.layers[0], width, dtype, cfg.device)


def measure(overrides: list[str], config_path: str) -> float:
    """Train two steps on the CPU in a process of its own; return its peak resident bytes less those of bare imports."""
    root = Path(__file__).parents[1]
    code = (
        "import resource, sys\n"
        "import finetune.dpo_finetune\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n    finetune.dpo_finetune.recipe_main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('PEAK', (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "--config", config_path, f"output_dir={folder}/run", "reference_cache_dir=null", "epochs=1",
            "max_steps_per_epoch=2", "device=cpu", *overrides,
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code, "recipe", *arguments], cwd=root, capture_output=True, text=True,
            # glibc keeps freed blocks below 32 MB; with this it gives them back, so that tensors are what is measured
            env=os.environ | {"PYTHONPATH": str(root), "MALLOC_MMAP_THRESHOLD_": str(2**20)},
        )  # fmt: skip
    peak = [line for line in done.stdout.splitlines() if line.startswith("PEAK")]
    if done.returncode or not peak:
        raise SystemExit(f"the run failed:\n{done.stderr[-2000:]}")
    return float(peak[0].split()[1])


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--gib", type=float, help="memory of a device: print how many layers must compute again to fit")
    parser.add_argument("--check", action="store_true", help="train two steps on the CPU and compare")
    arguments, overrides = parser.parse_known_args()
    cfg = OmegaConf.merge(OmegaConf.load(arguments.config), OmegaConf.from_dotlist(overrides))
    found = plan(cfg, arguments.devices)
    for name, value in found._asdict().items():
        print(f"{name:<12}{value / GIB:9.2f} GiB")
    print(f"{'total':<12}{sum(found) / GIB:9.2f} GiB on each of {arguments.devices}; CUDA itself takes about 0.5 more")
    if arguments.gib is not None:
        share = smallest_share(cfg, arguments.devices, arguments.gib)
        answer = "does not fit; lower max_tokens_per_forward, or take more devices"
        if share is not None:
            answer = f"enable_activation_checkpointing={share:.2g}"
        print(f"{arguments.gib:g} GiB: {answer}")
    if arguments.check:
        measured = measure(overrides, arguments.config)
        print(f"{'measured':<12}{measured / GIB:9.2f} GiB on the CPU, {measured / sum(found):.2f} of the prediction")
        print(json.dumps({"predicted": sum(found), "measured": measured}))


if __name__ == "__main__":
    main()
