# SPDX-License-Identifier: MIT
"""Write an adapter, or a blend of adapters, so that others can load and serve it.

    tune run finetune/export.py --config configs/export.yaml

A blend is one LoRA whose rank is the sum of its adapters' ranks (peft's ``cat``), the only combination that is
exact: ``linear`` multiplies each adapter's A with the other's B too, and ``svd`` cuts the sum down to one adapter's
rank. ``output_dir`` appears when all of it is written, and is never written over.
"""

import os
import shutil
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torchtune import config, training, utils

from data.recipe.config import check_config, plain_errors
from data.recipe.files import push_folder, require_token
from finetune.adapters.cards import write_derived_card
from finetune.adapters.folders import AdapterSet, read_adapters
from finetune.adapters.lean_table import lean_tables
from finetune.adapters.serving import convert_to_gguf, find_converters, serving_commands
from finetune.adapters.side_effect_table import side_effect_tables

log = utils.get_logger("INFO")

FORMATS = ("adapter", "merged", "gguf")
REQUIRED = {"output_dir", "base", "adapters", "blend", "formats", "dtype"}
OPTIONAL = {"summaries": None, "llama_cpp": None, "gguf_type": "f16", "push_to_hub": None, "push_private": True}
# What a folder of a Hugging Face model needs beside its weights.
BESIDE = ("tokenizer*", "special_tokens_map.json", "chat_template*", "generation_config.json")
EXPORTED = "the blend"


class ExportRecipe:
    """Check everything, load the base, blend, write.

    Args:
        cfg: A config that passed :func:`data.recipe.config.check_config`.

    Raises:
        FileExistsError: If ``output_dir`` is there.
        FileNotFoundError: If a folder, a summary or llama.cpp's converters are not there.
        PermissionError: If something is to be pushed and there is no token.
        ValueError: If a setting cannot work.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        self._target, self._base = Path(cfg.output_dir), Path(cfg.base)
        if self._target.exists():
            raise FileExistsError(f"{self._target} is there already; choose another output_dir")
        if not (self._base / "config.json").is_file():
            raise FileNotFoundError(f"base={self._base}: no config.json; give the base model's Hugging Face folder")
        self._formats = [cfg.formats] if isinstance(cfg.formats, str) else list(cfg.formats)
        if not {"adapter", "merged"} & set(self._formats) or not set(self._formats) <= set(FORMATS):
            raise ValueError(f"formats={self._formats}; use adapter, merged or both, and gguf beside them")
        self._weights = {name: float(weight) for name, weight in (cfg.blend or {}).items() if weight}
        if not self._weights:
            raise ValueError(f"blend={cfg.blend}: no weight beside 0, which is the base; for example blend.left=1")
        self._adapters = self._read_adapters()
        self._folders = {name: self._adapters.folders[name] for name in self._weights}
        self._converters = find_converters(cfg.llama_cpp) if "gguf" in self._formats else None
        measured = cfg.summaries or [], self._weights, self._folders, self._base
        self._lean = lean_tables(*measured)
        self._changed = side_effect_tables(*measured)
        if cfg.push_to_hub:
            require_token(cfg.push_to_hub)

    def _read_adapters(self) -> AdapterSet:
        found = read_adapters(self._cfg.adapters)
        if list(self._weights.values()) == [1.0] and self._weights.keys() <= found.folders.keys():
            return found  # the adapter as it is, whatever kind of LoRA
        return read_adapters({**self._cfg.adapters, EXPORTED: self._weights})

    def export(self) -> None:
        """Write all formats beside ``output_dir``, rename, push if asked, print how to serve them."""
        self._staging = self._target.with_name(f"{self._target.name}.partial")
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir(parents=True)
        model = self._blend()
        self._base_name = model.peft_config["default"].base_model_name_or_path or str(self._base)
        rank = max([model.peft_config["default"].r, *model.peft_config["default"].rank_pattern.values()])
        if "adapter" in self._formats:
            # no look at the Hub for whether the base's vocabulary has changed: it has not
            model.save_pretrained(self._staging / "adapter", selected_adapters=["default"], save_embedding_layers=False)
            self._complete("adapter")
        if "merged" in self._formats:
            model.merge_and_unload().save_pretrained(self._staging / "merged")
            self._complete("merged", kind="model")
        if self._converters:
            convert_to_gguf(self._converters, self._staging, self._base, self._cfg.gguf_type)
        OmegaConf.save(self._cfg, self._staging / "export.yaml", resolve=True)
        commands = serving_commands(self._staging, self._target, self._base, rank)
        os.replace(self._staging, self._target)
        log.info(f"wrote {self._target} ({', '.join(self._formats)})\n\n{commands}")
        if self._cfg.push_to_hub:
            folder = self._target / ("adapter" if "adapter" in self._formats else "merged")
            log.info(push_folder(folder, self._cfg.push_to_hub, self._cfg.push_private, "model"))

    def _blend(self):
        """The base with one adapter called ``default``: the only one asked for, or the sum of all."""
        # transformers takes a second to import and is needed here only
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        dtype = training.get_dtype(self._cfg.dtype, device=torch.device("cpu"))
        model = AutoModelForCausalLM.from_pretrained(self._base, dtype=dtype)
        first, *others = self._folders
        model = PeftModel.from_pretrained(model, self._folders[first], first if others else "default")
        for name in others:
            model.load_adapter(self._folders[name], name)
        names = {settings.base_model_name_or_path for settings in model.peft_config.values()}
        if len(names) > 1:
            log.warning(f"the adapters name different bases ({sorted(map(str, names))}); taken to be {self._base}")
        on_head = any("lm_head" in (of.target_modules or ()) for of in model.peft_config.values())
        if "merged" in self._formats and on_head and model.config.tie_word_embeddings:
            raise ValueError("an adapter changes lm_head, which this base ties to its embedding; use formats=[adapter]")
        if others:
            # peft hands this on to the blend, whose scale must be 1; the adapters' own layers are made already
            model.peft_config[first].use_rslora = False
            model.add_weighted_adapter(list(self._weights), list(self._weights.values()), "default", "cat")
            model.set_adapter("default")
        elif self._weights[first] != 1:
            # not add_weighted_adapter: of one adapter it takes the root of the weight on both sides, and loses its sign
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if ".lora_B.default." in name:
                        parameter.mul_(self._weights[first])
        return model.eval()

    def _complete(self, name: str, kind: str = "adapter") -> None:
        """Add tokenizer and card."""
        folder = self._staging / name
        for path in (path for pattern in BESIDE for path in self._base.glob(pattern)):
            shutil.copy(path, folder)
        write_derived_card(folder, kind, self._base_name, self._weights, self._folders, self._lean, self._changed)


@config.parse
@plain_errors
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/export.yaml for the keys."""
    ExportRecipe(check_config(cfg, REQUIRED, OPTIONAL)).export()


if __name__ == "__main__":
    sys.exit(recipe_main())
