# SPDX-License-Identifier: MIT
"""PEFT adapters on a resident torchtune model: any number, one switched on at a time.

The base is loaded once, as a plain torchtune decoder. peft's own LoRA layers are put around its linear
layers, so whatever ``adapter_config.json`` asks for (rank, alpha, patterns, rsLoRA, DoRA) is peft's
business; only the names and the rotary layout of the tensors differ from the Hugging Face model's.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from torchtune.modules import TransformerDecoder

ADAPTER_FILE = "adapter_model.safetensors"

# Hugging Face's names of the projections -> torchtune's. The reverse of what torchtune writes.
_MODULES = {
    "q_proj": "q_proj",
    "k_proj": "k_proj",
    "v_proj": "v_proj",
    "o_proj": "output_proj",
    "gate_proj": "w1",
    "down_proj": "w2",
    "up_proj": "w3",
    "lm_head": "output",
}


def read_adapter_config(folder: str | Path) -> LoraConfig:
    """Read and check the ``adapter_config.json`` of a PEFT LoRA adapter.

    Raises:
        FileNotFoundError: If the folder holds no complete adapter.
        ValueError: If it is not a LoRA on the linear layers of a Llama-like model.
    """
    folder = Path(folder)
    for name in ("adapter_config.json", ADAPTER_FILE):
        if not (folder / name).is_file():
            found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else "no such folder"
            raise FileNotFoundError(
                f"{folder}: {name} not found ({found}); give a PEFT adapter folder, "
                "for a run of ours output_dir/epoch_N"
            )
    settings = PeftConfig.from_pretrained(str(folder))
    if not isinstance(settings, LoraConfig):
        raise ValueError(f"{folder}: a {settings.peft_type} adapter; only LoRA can be switched on here")
    if not isinstance(settings.target_modules, (list, set)) or not set(settings.target_modules) <= set(_MODULES):
        raise ValueError(f"{folder}: target_modules {settings.target_modules}; allowed: a list of {sorted(_MODULES)}")
    patterns = {**settings.rank_pattern, **settings.alpha_pattern}
    if set(patterns) - set(_MODULES) or settings.exclude_modules or settings.layers_to_transform:
        raise ValueError(
            f"{folder}: rank_pattern, alpha_pattern, exclude_modules or layers_to_transform names more than whole "
            f"projections ({sorted(_MODULES)}); such an adapter can be merged with peft and scored as a base"
        )
    return settings


def _rename_modules(settings: LoraConfig) -> LoraConfig:
    """Give every projection that a config names its torchtune name."""
    settings.target_modules = {_MODULES[m] for m in settings.target_modules}
    settings.rank_pattern = {_MODULES[m]: r for m, r in settings.rank_pattern.items()}
    settings.alpha_pattern = {_MODULES[m]: a for m, a in settings.alpha_pattern.items()}
    return settings


def _torchtune_name(hf_name: str) -> tuple[str, str]:
    """Split ``base_model.model.….q_proj.lora_A.weight`` into torchtune's module name and the rest."""
    module, _, part = hf_name.removeprefix("base_model.model.").partition(".lora_")
    parent, _, projection = module.rpartition(".")
    parent = parent.removeprefix("model.").replace("self_attn", "attn")
    name = _MODULES.get(projection)
    if name is None or not part:
        raise ValueError(f"unknown adapter tensor {hf_name}; allowed are LoRA tensors on {sorted(_MODULES)}")
    return (f"{parent}.{name}" if parent else name), f"lora_{part}"


def _to_torchtune(state: Mapping[str, Tensor], base: Mapping[str, int]) -> dict[str, Tensor]:
    """Rename adapter tensors and give query and key rows torchtune's interleaved rotary layout."""
    n_heads = {"q_proj": base["num_attention_heads"]}
    n_heads["k_proj"] = base.get("num_key_value_heads") or n_heads["q_proj"]
    converted = {}
    for hf_name, tensor in state.items():
        module, part = _torchtune_name(hf_name)
        projection = module.rpartition(".")[2]
        # Only what is indexed by output features (B, DoRA's magnitude) carries the rotary layout.
        if projection in n_heads and not part.startswith("lora_A"):
            halves = tensor.reshape(n_heads[projection], 2, -1, *tensor.shape[1:])
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        converted[f"{module}.{part}"] = tensor
    return converted


class AdaptedModel:
    """A resident decoder with named adapters, all off until one is asked for.

    Args:
        model: Plain torchtune decoder with the base weights loaded; changed in place.
        adapters: Name to PEFT folder.
        checkpoint_dir: The base model's Hugging Face folder; its ``config.json`` gives the head counts.

    Raises:
        FileNotFoundError: If a folder holds no complete adapter.
        ValueError: If an adapter does not fit this base.
    """

    def __init__(
        self,
        model: TransformerDecoder,
        adapters: Mapping[str, str | Path],
        checkpoint_dir: str | Path,
    ) -> None:
        self.model = model
        self.names = tuple(adapters)
        base = json.loads((Path(checkpoint_dir) / "config.json").read_text())
        if base["model_type"] not in ("llama", "mistral"):
            raise ValueError(f"{checkpoint_dir}: a {base['model_type']} model; supported: llama, mistral")
        for name, folder in adapters.items():
            settings = _rename_modules(read_adapter_config(folder))
            if "output" in settings.target_modules and not isinstance(model.output, torch.nn.Module):
                raise ValueError(f"{folder}: adapts lm_head, but this base ties its head to the embedding")
            state = _to_torchtune(load_file(Path(folder) / ADAPTER_FILE), base)
            inject_adapter_in_model(settings, model, adapter_name=name)
            try:
                outcome = set_peft_model_state_dict(model, state, adapter_name=name)
            except RuntimeError as error:  # a tensor of another shape
                raise ValueError(f"{folder}: the adapter does not fit this base model: {error}") from error
            missing = [k for k in outcome.missing_keys if f".{name}." in k]
            if missing or outcome.unexpected_keys:
                raise ValueError(
                    f"{folder}: the adapter does not fit this base model: {len(missing)} tensors missing "
                    f"({missing[:3]}), {len(outcome.unexpected_keys)} unknown ({outcome.unexpected_keys[:3]})"
                )
        self._layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
        model.requires_grad_(False)
        self._switch(None)

    def _switch(self, name: str | None) -> None:
        for layer in self._layers:
            # A layer that this adapter does not touch must not keep another one's update.
            present = name is not None and name in layer.lora_A
            if present:
                layer.set_adapter(name, inference_mode=True)
            layer.enable_adapters(present)

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[TransformerDecoder]:
        """Switch one adapter on (None: the base alone) inside a ``with`` block.

        Raises:
            KeyError: If there is no adapter of that name.
        """
        if name is not None and name not in self.names:
            raise KeyError(f"no adapter `{name}`; loaded: {list(self.names)}")
        self._switch(name)
        try:
            yield self.model
        finally:
            self._switch(None)


def attach_adapters(
    model: TransformerDecoder, adapters: Mapping[str, str | Path], checkpoint_dir: str | Path
) -> AdaptedModel:
    """Put PEFT adapters around a resident decoder; see :class:`AdaptedModel`."""
    return AdaptedModel(model, adapters, checkpoint_dir)
