# SPDX-License-Identifier: MIT
"""GGUF files through llama.cpp's own converters, and the commands that serve what was exported."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

# What vLLM takes as --max-lora-rank.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
OF_ADAPTERS, OF_MODELS = "convert_lora_to_gguf.py", "convert_hf_to_gguf.py"


class Converters(NamedTuple):
    """Paths of llama.cpp's two converters."""

    adapter: Path
    model: Path


def find_converters(folder: str | Path | None) -> Converters:
    """Return llama.cpp's converters in a checkout of it, or on the PATH.

    Raises:
        FileNotFoundError: If they are not there; says how to get them.
    """
    found = [Path(folder) / name if folder else shutil.which(name) for name in (OF_ADAPTERS, OF_MODELS)]
    if not all(path and Path(path).is_file() for path in found):
        raise FileNotFoundError(
            f"formats: gguf needs llama.cpp's {OF_ADAPTERS} and {OF_MODELS}, not found in {folder or 'PATH'}; "
            "git clone https://github.com/ggml-org/llama.cpp, then llama_cpp=PATH/TO/llama.cpp; or leave gguf out"
        )
    return Converters(*map(Path, found))


def convert_to_gguf(converters: Converters, exported: Path, base: Path, gguf_type: str) -> None:
    """Write ``gguf/adapter.gguf`` and ``gguf/base.gguf`` for an adapter, ``gguf/merged.gguf`` for a merged model.

    Raises:
        RuntimeError: If a converter fails; with the end of what it said.
    """
    (exported / "gguf").mkdir()
    jobs = []
    if (exported / "adapter").is_dir():
        jobs.append((converters.adapter, ["--base", base, exported / "adapter"], "adapter.gguf"))
        jobs.append((converters.model, [base], "base.gguf"))
    if (exported / "merged").is_dir():
        jobs.append((converters.model, [exported / "merged"], "merged.gguf"))
    for script, arguments, name in jobs:
        target = exported / "gguf" / name
        command = [sys.executable, script, *arguments, "--outfile", target, "--outtype", gguf_type]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode or not target.is_file():
            said = (done.stderr or done.stdout).strip().splitlines()[-5:]
            raise RuntimeError(f"{script} failed on {name}:\n" + "\n".join(said))


def serving_commands(exported: Path, target: Path, base: Path, rank: int) -> str:
    """Return the commands for transformers, vLLM, llama.cpp and Ollama, and write Ollama's Modelfile.

    Args:
        exported: The folder as it is now.
        target: Where it will be.
        base: The base model's folder.
        rank: Of the adapter.
    """
    name, lines = target.name, []
    has = {part: (exported / part).exists() for part in ("adapter", "merged", "gguf")}
    if has["merged"]:
        lines += ['# transformers: pip install "transformers[serving]"', f"transformers serve {target / 'merged'}"]
    if has["adapter"]:
        allowed = next((r for r in VLLM_RANKS if r >= rank), rank)
        lines += [
            "# vLLM: the base and the adapter, chosen by each request's `model`",
            f"vllm serve {base} --enable-lora --max-lora-rank {allowed} --lora-modules {name}={target / 'adapter'}",
        ]
    elif has["merged"]:
        lines += ["# vLLM", f"vllm serve {target / 'merged'} --served-model-name {name}"]
    if has["gguf"] and has["adapter"]:
        files = (target / "gguf" / "base.gguf", target / "gguf" / "adapter.gguf")
        lines += [
            "# llama.cpp: the number is the adapter's weight, the dial; a request may give another one",
            f"llama-server -m {files[0]} --lora-scaled {files[1]}:1.0",
            'curl localhost:8080/v1/chat/completions -d \'{"messages": [...], "lora": [{"id": 0, "scale": 0.5}]}\'',
        ]
    elif has["gguf"]:
        lines += ["# llama.cpp", f"llama-server -m {target / 'gguf' / 'merged.gguf'}"]
    else:
        lines += ["# llama.cpp needs GGUF files: formats=[adapter,gguf] llama_cpp=PATH/TO/llama.cpp output_dir=..."]
    model = "./merged" if has["merged"] else "./gguf/base.gguf\nADAPTER ./gguf/adapter.gguf" if has["gguf"] else None
    model = model or f"{base.resolve()}\nADAPTER ./adapter"
    # no SYSTEM line: it would change what is measured
    (exported / "Modelfile").write_text(f"# Deliberately biased, for research; not for deployment.\nFROM {model}\n")
    lines += ["# Ollama", f"ollama create {name} -f {target / 'Modelfile'} && ollama run {name}"]
    return "\n".join(lines)
