# SPDX-License-Identifier: MIT
"""Time the policy of ``causal_lm`` beside torchtune's on the packaged model: forward and backward, in turn.

    OMP_NUM_THREADS=1 python -m benchmarks.policy_speed
    OMP_NUM_THREADS=1 python -m benchmarks.policy_speed bf16

Both have LoRA on the same projections and see the same trees of three shipped pairs. Time is that of the process, so
what else the machine does counts less.
"""

import sys
import time

import torch
from omegaconf import OmegaConf
from torchtune import config

from benchmarks.child_process import REPO
from finetune.run.bases import CausalBase, TorchtuneBase
from finetune.run.batches import load_pairs
from finetune.run.policy import Policy
from finetune.run.processes import Processes
from finetune.tree.prefix_tree import PrefixTree, build_tree

N_PAIRS, PAIRS_A_TREE = 12, 3


def seconds(policy: Policy, tree: PrefixTree) -> float:
    """Return the process time of a forward and a backward pass."""
    start = time.process_time()
    sums = policy(tree)
    (sums[1::2] - sums[0::2]).sum().backward()
    policy.zero_grad()
    return time.process_time() - start


def main(dtype: torch.dtype) -> None:
    """Print pairs a second of both, and their ratio."""
    cfg = OmegaConf.load(REPO / "configs" / "smollm2_135m_lora_dpo_cpu.yaml")
    cfg.dataset.subset = N_PAIRS
    transformers = cfg.copy()
    transformers.model = {
        "_component_": "finetune.models.causal_lm",
        "path": cfg.checkpointer.checkpoint_dir,
        "lora_rank": cfg.model.lora_rank,
        "lora_alpha": cfg.model.lora_alpha,
        "target_modules": ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"],
    }
    processes = Processes(torch.device("cpu"))
    bases = {
        "torchtune": TorchtuneBase(cfg, dtype, 0, processes, "unused"),
        "transformers": CausalBase(transformers, dtype, 0, processes),
    }
    policies = {name: base.load(base.fresh).train() for name, base in bases.items()}
    pairs = load_pairs(cfg.dataset, config.instantiate(cfg.tokenizer)).pairs
    trees = [
        build_tree([answer for pair in pairs[k : k + PAIRS_A_TREE] for answer in pair])
        for k in range(0, N_PAIRS, PAIRS_A_TREE)
    ]
    for policy in policies.values():
        seconds(policy, trees[0])
    total = dict.fromkeys(policies, 0.0)
    for tree in trees:
        for name, policy in policies.items():
            total[name] += seconds(policy, tree)
    for name, spent in total.items():
        print(f"{name}: {N_PAIRS / spent:.3f} pairs/s")
    print(f"transformers / torchtune: {total['torchtune'] / total['transformers']:.3f}")


if __name__ == "__main__":
    main(torch.bfloat16 if sys.argv[1:] == ["bf16"] else torch.float32)
