# SPDX-License-Identifier: MIT
"""Write an adapter, or a blend of adapters, so that others can load and serve it.

    tune run finetune/export.py --config configs/export.yaml

A blend is one LoRA whose rank is the sum of its adapters' ranks (peft's ``cat``), the only combination that is
exact: ``linear`` multiplies each adapter's A with the other's B too, and ``svd`` cuts the sum down to one adapter's
rank. ``output_dir`` appears when all of it is written, and is never written over.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import torch
from jinja2 import Template
from omegaconf import DictConfig, OmegaConf
from peft import PeftModel, get_peft_model_state_dict
from torchtune import training, utils

from data.recipe.config import check_config, check_place, entry_point, is_whole
from data.recipe.files import push_folder, require_token
from finetune.adapters.cards import read_measured, write_derived_card
from finetune.adapters.folders import (
    ADAPTER_FILE,
    TOKENIZER,
    adapts_head,
    check_bases,
    read_adapter_config,
    read_adapters,
)
from finetune.adapters.norms import HOW_BEHIND_NORM, is_behind_norm
from finetune.adapters.rounding import KEPT, Kept, measure_rounding
from finetune.adapters.tensors import lora_names

log = utils.get_logger("INFO")

FORMATS = ("adapter", "merged", "gguf")
REQUIRED = {"output_dir", "base", "adapters", "blend", "formats", "dtype"}
OPTIONAL = {"summaries": None, "llama_cpp": None, "gguf_type": "f16", "push_to_hub": None, "push_private": True}
# A folder of a Hugging Face model needs these beside its weights.
BESIDE = (*TOKENIZER, "*.model", "tekken.json", "additional_chat_templates/*", "generation_config.json")
EXPORTED = "the blend"
# llama.cpp's, by what it converts, and the package whose source distribution has both.
CONVERTERS = {"adapter": "convert_lora_to_gguf.py", "model": "convert_hf_to_gguf.py"}
LLAMA_CPP = "llama-cpp-python==0.3.36"
GGUF_TYPES = ("f32", "f16", "bf16", "q8_0")  # that both converters write
# What a merged model's generation_config.json says of sampling where the base's says nothing. A server takes its own
# defaults for what it misses there, and transformers serve takes no temperature at all without do_sample.
SAMPLING = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0,
}  # fmt: skip
# vLLM takes these as --max-lora-rank.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class ExportRecipe:
    """Check everything in a config that passed ``check_config``, then load the base, blend and write."""

    def __init__(self, cfg: DictConfig) -> None:
        check_place(cfg)
        if cfg.dtype == "auto":
            raise ValueError("dtype=auto; use fp32 or bf16, the type that the merged model is written in")
        self._cfg = cfg
        self._target, self._base = Path(cfg.output_dir), Path(cfg.base)
        if self._target.exists():
            raise FileExistsError(f"{self._target} is there already; choose another output_dir")
        check_base_folder(self._base)
        self._formats = [cfg.formats] if isinstance(cfg.formats, str) else list(cfg.formats)
        if not {"adapter", "merged"} & set(self._formats) or not set(self._formats) <= set(FORMATS):
            raise ValueError(f"formats={self._formats}; use adapter, merged or both, and gguf beside them")
        if "gguf" in self._formats and cfg.gguf_type not in GGUF_TYPES:
            raise ValueError(
                f"gguf_type={cfg.gguf_type}; llama.cpp's converters write {', '.join(GGUF_TYPES)}. Others are made "
                "of such a file by its llama-quantize, best of the base, with the adapter beside it"
            )
        if wrong := {name: w for name, w in cfg.blend.items() if isinstance(w, bool) or not isinstance(w, int | float)}:
            raise ValueError(f"blend={wrong}: give each adapter a number as its weight")
        self._weights = {name: float(weight) for name, weight in cfg.blend.items() if weight}
        if not self._weights:
            raise ValueError(f"blend={cfg.blend}: no weight beside 0, which is the base; for example blend.left=1")
        folders = read_adapters(cfg.adapters).folders
        if list(self._weights.values()) != [1.0] or not self._weights.keys() <= folders.keys():
            # not one adapter as it is, which may be of any kind of LoRA
            read_adapters({**(cfg.adapters or {}), EXPORTED: self._weights})
        self._folders = {name: folders[name] for name in self._weights}
        self._settings = {name: read_adapter_config(folder) for name, folder in self._folders.items()}
        self._peft_only = self._find_peft_only()
        for line in check_bases(self._folders, self._base):
            log.warning(line)
        self._converters = find_converters(cfg.llama_cpp, self._formats) if "gguf" in self._formats else None
        self._measured = read_measured(cfg.summaries or [], self._weights, self._folders, self._base)
        if cfg.push_to_hub:
            require_token(cfg.push_to_hub)

    def _find_peft_only(self) -> str | None:
        """Say why only peft loads the adapter as it is, if that is so; refuse formats that cannot hold it."""
        config = json.loads((self._base / "config.json").read_text(encoding="utf-8"))
        others = set(self._formats) - {"adapter"}
        if biased := [name for name, settings in self._settings.items() if settings.lora_bias]:
            if others or len(self._weights) > 1:
                raise ValueError(
                    f"{biased} has lora_bias=True, which neither the base's layers nor a blend can hold; "
                    "export it alone with formats=[adapter]"
                )
            behind_norm = any(is_behind_norm(vars(settings)) for settings in self._settings.values())
            how = HOW_BEHIND_NORM if behind_norm else "peft loads it"
            return f"the adapter has a bias (lora_bias); {how}"
        if any(adapts_head(folder) for folder in self._folders.values()):
            if config.get("tie_word_embeddings") and others:
                raise ValueError(
                    "an adapter changes lm_head, which this base ties to its embedding: merged it would change both, "
                    "and llama.cpp does not start with it; use formats=[adapter] for peft alone, or train without "
                    "the head (apply_lora_to_output: False)"
                )
            if config.get("tie_word_embeddings"):
                return "the adapter changes lm_head, which this base ties to its embedding; peft loads it"
        if any(settings.use_dora for settings in self._settings.values()):
            if self._formats.count("adapter") and "gguf" in others:
                raise ValueError("an adapter uses DoRA, which llama.cpp does not load; use formats=[merged,gguf]")
            return "the adapter uses DoRA; formats=[merged] can be served"
        return None

    def export(self) -> None:
        """Write all formats beside ``output_dir``, rename, push if asked, print how to serve them."""
        staging = self._target.with_name(f"{self._target.name}.partial")
        model = self._blend()
        if broken := [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]:
            raise ValueError(f"{broken[0]} holds values that are not finite; {self._base} is damaged, or blend too big")
        if "merged" in self._formats:
            self._check_rounding(measure_rounding(model))
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        settings = model.peft_config["default"]
        base_name = settings.base_model_name_or_path or str(self._base)
        if "adapter" in self._formats:
            # no look at the Hub for whether the base's vocabulary has changed: it has not
            model.save_pretrained(staging / "adapter", selected_adapters=["default"], save_embedding_layers=False)
            self._complete(staging / "adapter", base_name, merged=False)
        if "merged" in self._formats:
            model.merge_and_unload().save_pretrained(staging / "merged")
            keep_config(staging / "merged", self._base)
            self._complete(staging / "merged", base_name, merged=True)
            spell_sampling(staging / "merged")
        if self._converters:
            convert_to_gguf(self._converters, staging, self._base, self._cfg.gguf_type)
        OmegaConf.save(self._cfg, staging / "export.yaml", resolve=True)
        rank = max([settings.r, *settings.rank_pattern.values()])
        widths = in_fp32(self._base), self._cfg.dtype == "fp32"
        commands = serving_commands(self._formats, self._target, self._base, rank, self._peft_only, *widths)
        if "merged" in self._formats or self._peft_only is None:
            (staging / "Modelfile").write_text(modelfile(self._formats, self._base))
        os.replace(staging, self._target)
        log.info(f"wrote {self._target} ({', '.join(self._formats)})\n\n{commands}")
        if self._cfg.push_to_hub:
            folder = self._target / ("adapter" if "adapter" in self._formats else "merged")
            log.info(push_folder(folder, self._cfg.push_to_hub, self._cfg.push_private, "model"))

    def _check_rounding(self, types: list[Kept]) -> None:
        """Say which types lose the update in a merged model; refuse to write one of them."""
        by_type = {kept.type: kept for kept in types}
        if by_type.keys() == {"NF4"}:
            log.warning("gguf is not installed: what a GGUF type keeps of the update is not computed; pip install gguf")
        for kept in types:
            if not kept.is_base_on_grid or kept.share >= KEPT:
                continue
            fault = (
                f"base={self._base}: its weights were dequantised from {kept.type}, so a merged model that is "
                f"quantised to {kept.type} again keeps {kept.share:.3f} of the update, and the tuning is gone"
            )
            if "gguf" in self._formats and self._cfg.gguf_type.upper() == kept.type:
                raise ValueError(f"{fault}; use gguf_type=f16, or formats=[adapter,gguf] for base and LoRA")
            remedy = "serve base and LoRA (formats=[adapter,gguf])"
            if "Q8_0" in by_type and by_type["Q8_0"].share >= KEPT:
                remedy += f", or quantise to Q8_0, which keeps {min(by_type['Q8_0'].share, 1):.3f}"
            log.warning(f"{fault}; {remedy}")

    def _blend(self) -> PeftModel:
        """Return the base with one adapter called ``default``: the only one asked for, or the sum of all."""
        # transformers takes a second to import and is needed here only
        from transformers import AutoModelForCausalLM

        dtype = training.get_dtype(self._cfg.dtype, device=torch.device("cpu"))
        model = AutoModelForCausalLM.from_pretrained(self._base, dtype=dtype)
        first, *others = self._folders
        try:
            model = PeftModel.from_pretrained(
                model, self._folders[first], first if others else "default", config=self._settings[first]
            )
            for name in others:
                model.add_adapter(name, self._settings[name])
                model.load_adapter(self._folders[name], name)
        except (RuntimeError, ValueError) as error:  # a tensor of another shape, a layer that is not there
            said = " ".join(str(error).split("\n\t")[:2])  # a line for each tensor follows
            raise ValueError(f"base={self._base}: an adapter does not fit this base model: {said}") from error
        for name, folder in self._folders.items():
            own = name if others else "default"
            held = get_peft_model_state_dict(model, adapter_name=own, save_embedding_layers=False)
            if lost := sorted(lora_names(Path(folder) / ADAPTER_FILE) - held.keys()):
                raise ValueError(f"{folder}: {len(lost)} tensors fit no layer of base={self._base}, such as {lost[0]}")
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
        for path in (path for pattern in BESIDE for path in self._base.glob(pattern) if path.is_file()):
            target = folder / path.relative_to(self._base)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
        write_derived_card(folder, base_name, self._weights, self._folders, self._measured, merged)


def keep_config(folder: Path, base: Path) -> None:
    """Give a merged model every key of the base's ``config.json``, and the rotary keys that readers of 4.x look for."""
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {**written, **json.loads((base / "config.json").read_text(encoding="utf-8"))}
    config |= {key: written["dtype"] for key in ("dtype", "torch_dtype") if key in config}
    rotary = config.get("rope_parameters") or {}
    if "rope_theta" in rotary:
        config.setdefault("rope_theta", rotary["rope_theta"])
    if rotary.get("rope_type", "default") != "default":
        config.setdefault("rope_scaling", {key: value for key, value in rotary.items() if key != "rope_theta"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_base_folder(folder: Path) -> None:
    """Refuse a base that cannot be read, or that is no plain model in Hugging Face format.

    Raises:
        FileNotFoundError, ValueError: Say what the folder lacks.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"base={folder}: no config.json; give the base model's Hugging Face folder")
    if not any(any(folder.glob(name)) for name in ("*.safetensors", "*.bin")):
        raise FileNotFoundError(f"base={folder}: no weights (*.safetensors) in it; give the base model's whole folder")
    if not any(any(folder.glob(name)) for name in ("tokenizer*", "*.model", "tekken.json")):
        log.warning(f"base={folder}: no tokenizer in it; a merged model cannot be served before its files are added")
    if cut := [path.name for path in folder.glob("*.safetensors") if not is_whole(path)]:
        raise ValueError(f"base={folder}: {', '.join(cut)}: not a whole safetensors file; download it again")
    if "quantization_config" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        raise ValueError(f"base={folder}: its weights are quantised, so no update can be added; give the plain model")


def spell_sampling(folder: Path) -> None:
    """Let ``generation_config.json`` say how to sample, completely: the base's values, and none of a server's."""
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    settings.pop("_from_model_config", None)  # transformers would make the file anew
    given = {key: value for key, value in settings.items() if value is not None}
    path.write_text(json.dumps({**settings, **SAMPLING, **given, "do_sample": True}, indent=2, sort_keys=True) + "\n")


def in_fp32(folder: Path) -> bool:
    """Return whether a model's ``config.json`` says that its weights have 32 bits, which vLLM would halve."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return (config.get("dtype") or config.get("torch_dtype")) == "float32"


def find_converters(folder: str | Path | None, formats: list[str]) -> dict[str, Path]:
    """Return those of llama.cpp's converters that formats need, in a checkout of it or on the PATH."""
    needed = {of: name for of, name in CONVERTERS.items() if of == "model" or "adapter" in formats}
    paths = {of: Path(folder) / name if folder else Path(shutil.which(name) or name) for of, name in needed.items()}
    if not all(path.is_file() for path in paths.values()):
        source = f"{LLAMA_CPP.replace('-', '_').replace('==', '-')}"
        raise FileNotFoundError(
            f"formats: gguf needs llama.cpp's {' and '.join(needed.values())}, not found in {folder or 'PATH'}; "
            f"pip download --no-deps --no-binary llama-cpp-python {LLAMA_CPP}, tar xzf {source}.tar.gz, then "
            f"llama_cpp={source}/vendor/llama.cpp (any checkout of llama.cpp will do); or leave gguf out"
        )
    return paths


def convert_to_gguf(converters: dict[str, Path], exported: Path, base: Path, gguf_type: str) -> None:
    """Write ``gguf/adapter.gguf`` and ``gguf/base.gguf`` for an adapter, ``gguf/merged.gguf`` for a merged model."""
    (exported / "gguf").mkdir()
    jobs = {}
    if (exported / "adapter").is_dir():
        jobs["adapter.gguf"] = [converters["adapter"], "--base", base, exported / "adapter"]
        jobs["base.gguf"] = [converters["model"], base]
    if (exported / "merged").is_dir():
        jobs["merged.gguf"] = [converters["model"], exported / "merged"]
    for name, command in jobs.items():
        target = exported / "gguf" / name
        arguments = [sys.executable, *command, "--outfile", target, "--outtype", gguf_type]
        done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False)
        if done.returncode or not target.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()[-5:]
            raise RuntimeError(f"{command[0]} failed on {name}:\n" + "\n".join(lines))


def serving_commands(
    formats: list[str],
    target: Path,
    base: Path,
    rank: int,
    peft_only: str | None = None,
    is_base_fp32: bool = False,
    is_merged_fp32: bool = False,
) -> str:
    """Return the commands for transformers, vLLM, llama.cpp and Ollama that serve an export of some rank.

    ``peft_only`` says why no server takes the adapter as it is. A command that its server refuses is left out. Weights
    of 32 bits are served in 32 bits.
    """
    allowed = next((r for r in VLLM_RANKS if r >= rank), None)
    if peft_only and "merged" in formats:
        formats = [name for name in formats if name != "adapter"]
    template = Template(files("finetune.adapters").joinpath("serving.txt.jinja").read_text(encoding="utf-8"))
    return template.render(
        formats=formats, target=target, name=target.name, base=base, rank=allowed, peft_only=peft_only,
        is_base_fp32=is_base_fp32, is_merged_fp32=is_merged_fp32,
    )  # fmt: skip


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
