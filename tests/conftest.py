# SPDX-License-Identifier: MIT
import gc
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import CodeType

# Before any Hugging Face import: a test must never need the network.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from jinja2 import Environment

REPO = Path(__file__).parents[1]
gc.disable()  # until the tests are collected: modules leave no garbage
PLUGINS = ("documented", "review_client")

# A worker takes whole files: the slow ones first, or one worker would end long after the other.
SLOW_FIRST = (
    "test_configs",
    "test_synthesize",
    "test_dpo_finetune",
    "test_study",
    "test_influence",
    "test_tokenizers",
    "test_political_compass",
    "test_processes",
    "test_docs",
    "test_repair",
    "test_write",
)


def compile_once(compile_template: Callable) -> Callable:
    """Let Jinja keep what it compiled: a page is filled once in a process of a product, here hundreds of times."""
    codes: dict[tuple, CodeType] = {}

    def compile_or_recall(self, source, name=None, filename=None, raw=False, defer_init=False):
        # an unknown filter or test is refused, and constants are filtered, where a template is compiled; a report's
        # partial is a new object each time
        known = ((k, getattr(f, "func", f)) for functions in (self.filters, self.tests) for k, f in functions.items())
        key = type(self), self.lexer, self.autoescape, *self.extensions, *known, source, name, filename, raw, defer_init
        if key not in codes:
            codes[key] = compile_template(self, source, name, filename, raw, defer_init)
        return codes[key]

    return compile_or_recall


Environment.compile = compile_once(Environment.compile)


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest the one mark and the fixtures of these tests."""
    config.addinivalue_line("markers", "slow(seconds): takes five seconds or more of a processor, about so many")
    # what starts workers runs no test, and they wait for it: it imports neither torch nor what else takes seconds
    if not config.getoption("numprocesses", None):
        for name in PLUGINS:
            config.pluginmanager.import_plugin(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow files first."""
    place = {name: k for k, name in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    """Collect garbage again, but old objects only where a file begins and where torchtune asks for it."""
    gc.freeze()
    gc.set_threshold(700, 10, 1000)
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def _look_for_garbage_among_the_new() -> None:
    """Let no collection look again at what is there before a file's tests: torchtune asks for one in each training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _without_waiting_for_the_disk() -> Iterator[None]:
    """Leave to the system when it writes: a killed process loses nothing by that, and no test cuts the power."""
    from data.chat import cache

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(cache, "SYNCHRONOUS", "OFF")
        yield


# Sizes of a Llama small enough for a recipe to run in a second; its tokens are the packaged model's first 8,192.
TINY = {
    "vocab_size": 8192,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "embed_dim": 32,
    "intermediate_dim": 64,
    "max_seq_len": 512,
}


def render_nothing(patch: pytest.MonkeyPatch) -> None:
    """Let every panel of a picture be made, but no picture rendered, which takes a quarter of a small run's time."""
    from matplotlib import pyplot

    from eval.pages import compass

    def close(figure, *formats: str) -> dict[str, bytes]:
        pyplot.close(figure)
        return dict.fromkeys(formats, b"<svg></svg>")

    patch.setattr(compass, "_save", close)


@pytest.fixture
def unrendered(monkeypatch) -> None:
    """For tests of a whole run that look at no picture: tests/test_political_compass.py and the configs' render."""
    render_nothing(monkeypatch)


@pytest.fixture(scope="session")
def packaged_model_dir() -> Path:
    """The packaged model as `make model` builds it; built here if it is not there yet."""
    from finetune.packaged_model import build_packaged_model

    return build_packaged_model(REPO / "outputs" / "models" / "SmolLM2-135M-Instruct")


def write_llama_folder(folder: Path, sizes: dict, tied: bool, n_files: int = 1, seed: int = 0) -> Path:
    """Write random weights in the true Hugging Face layout of a Llama or Mistral."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    dim, heads, kv_heads = sizes["embed_dim"], sizes["num_heads"], sizes["num_kv_heads"]
    head_dim, hidden = dim // heads, sizes["intermediate_dim"]
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator) * 0.05

    state = {"model.embed_tokens.weight": random(sizes["vocab_size"], dim), "model.norm.weight": torch.ones(dim)}
    for k in range(sizes["num_layers"]):
        layer = f"model.layers.{k}."
        state |= {
            layer + "self_attn.q_proj.weight": random(dim, dim),
            layer + "self_attn.k_proj.weight": random(kv_heads * head_dim, dim),
            layer + "self_attn.v_proj.weight": random(kv_heads * head_dim, dim),
            layer + "self_attn.o_proj.weight": random(dim, dim),
            layer + "mlp.gate_proj.weight": random(hidden, dim),
            layer + "mlp.up_proj.weight": random(hidden, dim),
            layer + "mlp.down_proj.weight": random(dim, hidden),
            layer + "input_layernorm.weight": torch.ones(dim),
            layer + "post_attention_layernorm.weight": torch.ones(dim),
        }
    if not tied:
        state["lm_head.weight"] = random(sizes["vocab_size"], dim)
    names = sorted(state)
    per_file = -(-len(names) // n_files)
    weight_map = {}
    for k in range(n_files):
        name = f"model-{k + 1:05}-of-{n_files:05}.safetensors" if n_files > 1 else "model.safetensors"
        part = {key: state[key] for key in names[k * per_file : (k + 1) * per_file]}
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    if n_files > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": dim,
        "intermediate_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": sizes["num_layers"],
        "vocab_size": sizes["vocab_size"],
        "max_position_embeddings": sizes["max_seq_len"],
        "rms_norm_eps": 1e-5,
        "rope_theta": sizes.get("rope_base", 100_000),
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "original_repo_id.json").write_text('{"repo_id": "tests/tiny-llama"}')
    return folder


@pytest.fixture(scope="session")
def tiny_model_dir(packaged_model_dir, tmp_path_factory) -> Path:
    """A random two-layer Llama with a tied head, and the packaged model's tokenizer without its later merges."""
    folder = write_llama_folder(tmp_path_factory.mktemp("tiny"), TINY, tied=True)
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(packaged_model_dir / name, folder)
    tokenizer = json.loads((packaged_model_dir / "tokenizer.json").read_text(encoding="utf-8"))
    bpe, size = tokenizer["model"], TINY["vocab_size"]
    bpe["merges"] = bpe["merges"][: len(bpe["merges"]) + size - len(bpe["vocab"])]  # each makes the next token
    bpe["vocab"] = {token: i for token, i in bpe["vocab"].items() if i < size}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def tiny_overrides(tiny_model_dir: Path, output_dir: Path) -> list[str]:
    """Overrides that make configs/smollm2_135m_lora_dpo_cpu.yaml run on the tiny model."""
    sizes = {k: v for k, v in TINY.items()} | {"rope_base": 100_000, "scale_factor": 1}
    return [
        f"output_dir={output_dir}",
        "model._component_=torchtune.models.llama3_2.lora_llama3_2",
        *[f"model.{key}={value}" for key, value in sizes.items()],
        f"tokenizer.path={tiny_model_dir}",
        f"checkpointer.checkpoint_dir={tiny_model_dir}",
        "reference_cache_dir=null",
    ]


def fork(target: Callable, *args: str | int | list) -> BaseProcess:
    """Return a process that has the imports of this one.

    Autograd's threads for a GPU bear no fork, nor does macOS, and Windows has none: there it imports by itself.
    """
    import torch

    kind = "fork" if sys.platform == "linux" and not torch.cuda.is_available() else "spawn"
    return multiprocessing.get_context(kind).Process(target=target, args=args)


def run_tune(*arguments: str) -> None:
    """Run the command line in a process of ``fork``, in which a training computes with one thread."""
    import torch
    from torchtune._cli.tune import main

    torch.set_num_threads(1)  # those of the process that forked are not here
    os.chdir(REPO)
    sys.argv = ["tune", *arguments]
    main()


@pytest.fixture
def tune_run(monkeypatch):
    """Run the real command line in this process (imports are paid for once): ``tune_run("recipe.py", *arguments)``."""
    from torchtune._cli.tune import main

    def run(recipe: str, *arguments: str) -> int:
        monkeypatch.chdir(REPO)
        monkeypatch.setattr(sys, "argv", ["tune", "run", recipe, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0

    return run


def read_steps(output_dir: Path) -> dict[int, dict[str, float]]:
    """Return what DiskLogger wrote, by step; a resumed run has several files."""
    steps = {}
    for path in sorted((output_dir / "logs").glob("log_*.txt")):
        for line in path.read_text().splitlines():
            head, _, values = line.partition(" | ")
            steps[int(head.removeprefix("Step "))] = {
                name: float(value) for name, value in (part.rsplit(":", 1) for part in values.split())
            }
    return steps
