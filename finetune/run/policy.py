# SPDX-License-Identifier: MIT
"""The model that is tuned: a decoder with LoRA, read as log-probabilities of answers.

It is built on torch's meta device, without memory for its weights; the checkpoint's tensors then become its weights. So
there is one copy of them, and a model needs no more memory to load than to hold.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torchao.dtypes.nf4tensor import NF4Tensor, to_nf4
from torchtune import config, modules, training
from torchtune.modules.peft import LoRALinear, disable_adapter, get_adapter_params, set_trainable_params
from transformers import AutoConfig

from finetune.tree.layers import use_fast_layers, widen_adapter
from finetune.tree.logprobs import Decoder, TreeDecoder, answer_logprobs
from finetune.tree.prefix_tree import PrefixTree

# Sizes of trees for which layers are compiled: what is padded is less than so small a part of the largest. torch
# compiles the same code at most eight times.
SIZES = 8


class Policy(nn.Module):
    """A decoder with LoRA as one module whose call scores a tree, so that FSDP's hooks surround all of it."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder: Any = decoder
        self._multiple: int | None = None  # of tokens to which trees are padded

    def compile_layers(self, max_tokens: int) -> None:
        """Compile torchtune's layers, once for each eighth of ``max_tokens``: trees of all sizes between are padded.

        All layers run the same code, but for the first one: it stays as it is, since its input has no gradient. Where
        none is taken, nothing is padded or compiled.
        """
        layers = [m for m in self.decoder.modules() if isinstance(m, modules.TransformerSelfAttentionLayer)]
        for layer in layers[1:]:
            layer.compile(backend=os.environ.get("TORCH_COMPILE_BACKEND", "inductor"), dynamic=False)
        self._multiple = -(-max_tokens // SIZES)

    def without_adapters(self) -> AbstractContextManager[None]:
        """Be the base inside a ``with`` block."""
        return self.decoder.without_adapters() if isinstance(self.decoder, TreeDecoder) else disable_adapter(self)

    def forward(self, tree: PrefixTree) -> Tensor:
        """Return the summed log-probability of each answer, nats ``[N]``."""
        if self._multiple is None:
            return answer_logprobs(self.decoder, tree)
        if torch.is_grad_enabled():
            return answer_logprobs(self.decoder, tree.padded(self._multiple))
        with torch.compiler.set_stance("force_eager"):
            return answer_logprobs(self.decoder, tree)


def named_weights(decoder: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield parameters under the names that checkpoints use, whether or not layers are wrapped."""
    for name, parameter in decoder.named_parameters():
        yield name.replace("_checkpoint_wrapped_module.", ""), parameter


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seed of the CPU's generator alone (dropout on a device has its own), and leave no trace."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _fresh_adapter(decoder: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return initial LoRA weights of a decoder on the meta device; neither device nor number of processes decides."""
    adapted = [m for m in decoder.modules() if isinstance(m, LoRALinear)]
    with seeded(seed):
        for module in adapted:
            module.to_empty(device="cpu")
            module.initialize_parameters()
    adapter = {name: p.detach().clone() for name, p in named_weights(decoder) if p.requires_grad}
    for module in adapted:
        module.to_empty(device="meta")
    return adapter


def recompute_activations(decoder: Any, share: float) -> None:
    """Let a share of a decoder's layers, evenly spread, keep their input alone and compute again for the backward pass.

    torchtune calls it activation checkpointing, and does it for all of them.
    """
    n = len(decoder.layers)
    m = max(round(share * n), share > 0)  # a share above 0 is a layer at least
    chosen = [layer for k, layer in enumerate(decoder.layers) if (k + 1) * m // n > k * m // n]
    if chosen:
        training.set_activation_checkpointing(decoder, lambda module, recurse, **_: recurse or module in chosen)


def build_policy(
    cfg_model: DictConfig, dtype: torch.dtype, seed: int, recomputed: float
) -> tuple[Policy, dict[str, Tensor]]:
    """Build a policy on the meta device, only its adapter trainable; return it and initial weights of that adapter.

    ``recomputed`` is the share of :func:`recompute_activations`.
    """
    with training.set_default_dtype(dtype), torch.device("meta"):
        decoder = config.instantiate(cfg_model)
    set_trainable_params(decoder, get_adapter_params(decoder))
    widen_adapter(decoder)
    adapter = _fresh_adapter(decoder, seed)
    use_fast_layers(decoder)
    recompute_activations(decoder, recomputed)
    return Policy(decoder), adapter


def check_builder(decoder: modules.TransformerDecoder, checkpoint_dir: str | Path) -> None:
    """Refuse a decoder that computes otherwise than the checkpoint's ``config.json`` says: the weights would fit it.

    A decoder on the meta device is enough. Keys are those of ``config.json``.

    Raises:
        ValueError: Names every key with both values.
    """
    path = Path(checkpoint_dir) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found; give the Hugging Face folder of the model as checkpoint_dir")
    # it knows the defaults of keys that are absent, and both forms of the rotary settings
    wanted = AutoConfig.from_pretrained(path.parent)
    if wanted.model_type not in ("llama", "mistral"):
        raise ValueError(f"{path}: a {wanted.model_type} model; supported: llama, mistral")
    layer = decoder.layers[0]
    attention, rope = layer.attn, layer.attn.pos_embeddings
    rotary = dict(wanted.rope_parameters)
    scaling = {"rope_type": rotary.get("rope_type", "default")}
    if scaling["rope_type"] != "default":
        scaling |= {key: rotary[key] for key in sorted(rotary) if key not in ("rope_type", "rope_theta")}
    built_scaling: dict[str, Any] = {"rope_type": "default"}
    if getattr(rope, "scale_factor", 1) != 1:
        built_scaling = {
            "rope_type": "llama3",
            "factor": rope.scale_factor,
            "high_freq_factor": rope.high_freq_factor,
            "low_freq_factor": rope.low_freq_factor,
            "original_max_position_embeddings": rope.old_context_len,
        }
    heads = wanted.num_attention_heads
    window = getattr(wanted, "sliding_window", None) or decoder.max_seq_len
    # key of config.json: its value, the builder's value, the builder's argument
    values = {
        "rope_theta": (rotary["rope_theta"], rope.base, "rope_base"),
        "rope_scaling": (scaling, built_scaling, "scale_factor"),
        "rms_norm_eps": (wanted.rms_norm_eps, decoder.norm.eps, "norm_eps"),
        "num_attention_heads": (heads, attention.num_heads, "num_heads"),
        "num_key_value_heads": (wanted.num_key_value_heads, attention.num_kv_heads, "num_kv_heads"),
        "head_dim": (wanted.head_dim or wanted.hidden_size // heads, attention.head_dim, "num_heads and embed_dim"),
        # the builders attend to all that is before
        "sliding_window": (window, max(window, decoder.max_seq_len), "max_seq_len"),
    }
    if problems := [
        f"{key}: config.json {config_value}, the model {built} ({argument})"
        for key, (config_value, built, argument) in values.items()
        if not _agree(config_value, built)
    ]:
        raise ValueError(
            f"model._component_ builds another model than {path} describes:\n  - "
            + "\n  - ".join(problems)
            + "\nSet these arguments of model, or take the builder of this checkpoint as model._component_"
        )


def _agree(a: Any, b: Any) -> bool:
    """Say whether two settings are the same, numbers to float32: files made from GGUF hold them so."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_agree(a[key], b[key]) for key in a)
    return a == b if isinstance(a, str) or isinstance(b, str) else math.isclose(a, b, rel_tol=1e-6)


def load_weights(
    policy: Policy, base: Iterable[tuple[str, Tensor]], adapter: Mapping[str, Tensor], device: torch.device
) -> None:
    """Give a policy from :func:`build_policy` its weights: whole tensors under torchtune's names, taken one by one.

    If the policy is sharded, each process keeps its own share of every tensor.
    """
    decoder = policy.decoder
    targets = dict(named_weights(decoder))
    placed = {}
    for name, tensor in chain(base, adapter.items()):
        target = targets.get(name)
        if target is not None and target.shape == tensor.shape:  # else load_state_dict says what is wrong
            tensor = place(tensor.to(target.dtype), target, device)
        placed[name] = tensor
    try:
        missing, unexpected = decoder.load_state_dict(placed, strict=False, assign=True)
    except RuntimeError as error:  # a tensor of another shape
        raise ValueError(f"the checkpoint does not fit the model: {error}") from error
    if missing or unexpected:
        raise ValueError(
            f"the checkpoint does not fit the model: {len(missing)} tensors missing {missing[:3]}, {len(unexpected)} "
            f"unknown {unexpected[:3]}; check model.* and checkpointer.model_type"
        )
    with training.set_default_dtype(torch.float32), device:
        for module in decoder.modules():
            if hasattr(module, "rope_init"):  # rotary tables are in no checkpoint
                module.rope_init()
    training.validate_no_params_on_meta_device(decoder)


def place(tensor: Tensor, target: Tensor, device: torch.device) -> Tensor:
    """Return a whole tensor in the model's form: on ``device``, in NF4 if quantized, this process's share of it."""
    local = target.to_local() if isinstance(target, DTensor) else target
    if isinstance(local, NF4Tensor):
        tensor = to_nf4(tensor.to(device), local.block_size, local.scaler_block_size)
    if not isinstance(target, DTensor):
        return tensor.to(device)
    mesh = target.device_mesh
    shares = tensor.chunk(mesh.size(), dim=0)  # as fully_shard cuts
    rank = mesh.get_local_rank()
    share = shares[rank] if rank < len(shares) else tensor[:0]
    if isinstance(local, NF4Tensor):
        share = share.new_zeros(share.size()).copy_(share)
    # The constructor: DTensor.from_local wants views, which NF4Tensor has not.
    spec = DTensorSpec(mesh, target.placements, TensorMeta(target.shape, target.stride(), target.dtype))
    return DTensor(share.contiguous().to(device), spec, requires_grad=False)
