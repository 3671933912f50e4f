# SPDX-License-Identifier: MIT
"""Write an adapter, or a blend of adapters, so that others can load and serve it.

    tune run finetune/export.py --config configs/export.yaml

A blend is one LoRA whose rank is the sum of its adapters' ranks (peft's ``cat``), the only combination that is
exact: ``linear`` multiplies each adapter's A with the other's B too, and ``svd`` cuts the sum down to one adapter's
rank. ``output_dir`` appears when all of it is written, and is never written over.
"""

import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import torch
from jinja2 import Template
from omegaconf import DictConfig, OmegaConf
from peft import PeftModel
from torchtune import training, utils

from data.recipe.config import check_config, check_place, entry_point
from data.recipe.files import push_folder, require_token
from finetune.adapters.cards import read_measured, write_derived_card
from finetune.adapters.folders import read_adapter_config, read_adapters

log = utils.get_logger("INFO")

FORMATS = ("adapter", "merged", "gguf")
REQUIRED = {"output_dir", "base", "adapters", "blend", "formats", "dtype"}
OPTIONAL = {"summaries": None, "llama_cpp": None, "gguf_type": "f16", "push_to_hub": None, "push_private": True}
# A folder of a Hugging Face model needs these beside its weights.
BESIDE = ("tokenizer*", "special_tokens_map.json", "chat_template*", "generation_config.json")
EXPORTED = "the blend"
CONVERTERS = ("convert_lora_to_gguf.py", "convert_hf_to_gguf.py")  # of llama.cpp: for an adapter, for a model
# vLLM takes these as --max-lora-rank.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class ExportRecipe:
    """Check everything in a config that passed ``check_config``, then load the base, blend and write."""

    def __init__(self, cfg: DictConfig) -> None:
        check_place(cfg)
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
        folders = read_adapters(cfg.adapters).folders
        if list(self._weights.values()) != [1.0] or not self._weights.keys() <= folders.keys():
            # not one adapter as it is, which may be of any kind of LoRA
            read_adapters({**cfg.adapters, EXPORTED: self._weights})
        self._folders = {name: folders[name] for name in self._weights}
        self._converters = find_converters(cfg.llama_cpp) if "gguf" in self._formats else None
        self._measured = read_measured(cfg.summaries or [], self._weights, self._folders, self._base)
        if cfg.push_to_hub:
            require_token(cfg.push_to_hub)

    def export(self) -> None:
        """Write all formats beside ``output_dir``, rename, push if asked, print how to serve them."""
        staging = self._target.with_name(f"{self._target.name}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        model = self._blend()
        settings = model.peft_config["default"]
        base_name = settings.base_model_name_or_path or str(self._base)
        if "adapter" in self._formats:
            # no look at the Hub for whether the base's vocabulary has changed: it has not
            model.save_pretrained(staging / "adapter", selected_adapters=["default"], save_embedding_layers=False)
            self._complete(staging / "adapter", base_name, merged=False)
        if "merged" in self._formats:
            model.merge_and_unload().save_pretrained(staging / "merged")
            self._complete(staging / "merged", base_name, merged=True)
        if self._converters:
            convert_to_gguf(self._converters, staging, self._base, self._cfg.gguf_type)
        OmegaConf.save(self._cfg, staging / "export.yaml", resolve=True)
        rank = max([settings.r, *settings.rank_pattern.values()])
        commands = serving_commands(self._formats, self._target, self._base, rank)
        (staging / "Modelfile").write_text(modelfile(self._formats, self._base))
        os.replace(staging, self._target)
        log.info(f"wrote {self._target} ({', '.join(self._formats)})\n\n{commands}")
        if self._cfg.push_to_hub:
            folder = self._target / ("adapter" if "adapter" in self._formats else "merged")
            log.info(push_folder(folder, self._cfg.push_to_hub, self._cfg.push_private, "model"))

    def _blend(self) -> PeftModel:
        """Return the base with one adapter called ``default``: the only one asked for, or the sum of all."""
        # transformers takes a second to import and is needed here only
        from transformers import AutoModelForCausalLM

        dtype = training.get_dtype(self._cfg.dtype, device=torch.device("cpu"))
        model = AutoModelForCausalLM.from_pretrained(self._base, dtype=dtype)
        first, *others = self._folders
        settings = {name: read_adapter_config(folder) for name, folder in self._folders.items()}
        model = PeftModel.from_pretrained(
            model, self._folders[first], first if others else "default", config=settings[first]
        )
        for name in others:
            model.add_adapter(name, settings[name])
            model.load_adapter(self._folders[name], name)
        names = {settings.base_model_name_or_path for settings in model.peft_config.values()}
        if len(names) > 1:
            log.warning(f"the adapters name different bases ({sorted(map(str, names))}); taken to be {self._base}")
        on_head = any("lm_head" in (settings.target_modules or ()) for settings in model.peft_config.values())
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

    def _complete(self, folder: Path, base_name: str, merged: bool) -> None:
        """Add tokenizer and card."""
        for path in (path for pattern in BESIDE for path in self._base.glob(pattern)):
            shutil.copy(path, folder)
        write_derived_card(folder, base_name, self._weights, self._folders, self._measured, merged)


def find_converters(folder: str | Path | None) -> list[Path]:
    """Return llama.cpp's converters in a checkout of it, or on the PATH."""
    paths = [Path(folder) / name if folder else Path(shutil.which(name) or name) for name in CONVERTERS]
    if not all(path.is_file() for path in paths):
        raise FileNotFoundError(
            f"formats: gguf needs llama.cpp's {' and '.join(CONVERTERS)}, not found in {folder or 'PATH'}; "
            "git clone https://github.com/ggml-org/llama.cpp, then llama_cpp=PATH/TO/llama.cpp; or leave gguf out"
        )
    return paths


def convert_to_gguf(converters: list[Path], exported: Path, base: Path, gguf_type: str) -> None:
    """Write ``gguf/adapter.gguf`` and ``gguf/base.gguf`` for an adapter, ``gguf/merged.gguf`` for a merged model."""
    (exported / "gguf").mkdir()
    of_adapter, of_model = converters
    jobs = {}
    if (exported / "adapter").is_dir():
        jobs["adapter.gguf"] = [of_adapter, "--base", base, exported / "adapter"]
        jobs["base.gguf"] = [of_model, base]
    if (exported / "merged").is_dir():
        jobs["merged.gguf"] = [of_model, exported / "merged"]
    for name, command in jobs.items():
        target = exported / "gguf" / name
        arguments = [sys.executable, *command, "--outfile", target, "--outtype", gguf_type]
        done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False)
        if done.returncode or not target.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()[-5:]
            raise RuntimeError(f"{command[0]} failed on {name}:\n" + "\n".join(lines))


def serving_commands(formats: list[str], target: Path, base: Path, rank: int) -> str:
    """Return the commands for transformers, vLLM, llama.cpp and Ollama that serve an export of some rank."""
    allowed = next((r for r in VLLM_RANKS if r >= rank), rank)
    template = Template(files("finetune.adapters").joinpath("serving.txt.jinja").read_text(encoding="utf-8"))
    return template.render(formats=formats, target=target, name=target.name, base=base, rank=allowed)


def modelfile(formats: list[str], base: Path) -> str:
    """Return Ollama's Modelfile; it has no SYSTEM line, which would change what is measured."""
    model = f"{base.resolve()}\nADAPTER ./adapter"
    if "merged" in formats:
        model = "./merged"
    elif "gguf" in formats:
        model = "./gguf/base.gguf\nADAPTER ./gguf/adapter.gguf"
    return f"# Deliberately biased, for research; not for deployment.\nFROM {model}\n"


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/export.yaml for the keys."""
    ExportRecipe(check_config(cfg, REQUIRED, OPTIONAL)).export()


if __name__ == "__main__":
    sys.exit(recipe_main())
