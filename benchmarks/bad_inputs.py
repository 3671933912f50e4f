"""What users get wrong: a case of ``bad_inputs.yaml`` must end at once, with one clear line, and change no file.

    python -m benchmarks.bad_inputs [--only study] [--adapters outputs/quickstart] [--work outputs/bad_inputs]

Each case is a whole command (``tune run RECIPE --config FILE key=value``) in a process of its own, forked from one that
has imported torch and its like, so that the seconds are those of the recipe alone. The verdict is a letter: A, one
clear line in time; B, clear but slow; C, a traceback; D, accepted, or still running at the limit; E, a file that was
there has changed, or a key was shown; F, the last message does not say all that ``says`` asks for. Results are kept in
``--work``: the same command goes on, and ``--again`` runs what is there once more.
"""

from __future__ import annotations

import argparse
import atexit
import codecs
import gzip
import hashlib
import http.server
import json
import lzma
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import yaml

LIMIT_S, SLOW_S = 60, 3.0
HEAVY = """torch torch.distributed.fsdp torch.distributed.run torch.nn.attention.flex_attention torchao torchtune
    torchtune._cli.tune torchtune.models.llama3 torchtune.models.mistral torchtune.modules.peft torchtune.rlhf.loss
    torchtune.training transformers peft datasets huggingface_hub tokenizers safetensors.torch pandas pyarrow.parquet
    openai matplotlib.pyplot scipy.stats sklearn.linear_model sklearn.feature_extraction.text sklearn.model_selection
    jinja2 datatrove.executor uvicorn starlette.applications"""


def answer(kind: str, body: dict) -> tuple[int, str, str]:
    """Status, type and text of a faulty server's reply."""
    if kind == "html":
        return 200, "text/html", "<html><body>It works!</body></html>"
    if kind in ("401", "404", "500", "403"):
        return int(kind), "application/json", json.dumps({"error": {"message": f"refused with {kind}", "code": kind}})
    if kind == "quota":
        text = "You exceeded your current quota, please check your plan and billing details."
        return (
            429,
            "application/json",
            json.dumps({"error": {"message": text, "type": "insufficient_quota", "code": "insufficient_quota"}}),
        )
    if kind == "garbage":
        return 200, "application/json", '{"id": "x", "choices": [{"mess'
    if kind == "empty":
        return (
            200,
            "application/json",
            json.dumps({"id": "x", "object": "chat.completion", "model": "m", "created": 0, "choices": []}),
        )
    content = {"plain": "1", "words": "As an AI, I would rather not say."}[kind]  # without log-probabilities
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    reply = {
        "id": "x",
        "object": "chat.completion",
        "model": body.get("model"),
        "created": 0,
        "choices": [choice],
        "usage": usage,
    }
    return 200, "application/json", json.dumps(reply)


def serve(kind: str) -> tuple[int, int]:
    """Port and process of a server with one fault."""
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    if process := os.fork():
        listening.socket.close()
        return listening.server_address[1], process

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            try:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            except ValueError:
                body = {}
            status, form, text = answer(kind, body)
            self.send_response(status)
            self.send_header("Content-Type", form)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST

        def log_message(self, *_):
            pass

    listening.RequestHandlerClass = Handler
    listening.serve_forever()
    os._exit(0)


def write_file(path: Path, what) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(what, str):
        what = {"text": what}
    if "rows" in what:
        import pandas

        pandas.DataFrame(what["rows"]).to_parquet(path)
        return
    content = (what.get("bom") and codecs.BOM_UTF8 or b"") + what["text"].encode(what.get("encode", "utf-8"))
    content *= what.get("times", 1)
    content = {"gz": gzip.compress, "xz": lzma.compress, None: bytes}[what.get("pack")](content)
    path.write_bytes(content[: what.get("cut", len(content))])


def tiny(kind: str, folder: Path) -> None:
    """A small model with random weights, of a kind that cannot be tuned or asked here."""
    import transformers

    size = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 128,
    }
    configs = {
        "bert": lambda: transformers.BertConfig(**size),
        "vit": lambda: transformers.ViTConfig(
            image_size=16, patch_size=8, **{k: v for k, v in size.items() if k != "vocab_size"}
        ),
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=128),
        "llama": lambda: transformers.LlamaConfig(**size),
    }
    config = configs[kind]()
    with_head = transformers.AutoModelForCausalLM if kind in ("gpt2", "llama") else transformers.AutoModel
    with_head.from_config(config).save_pretrained(folder)


def change_tensors(path: Path, change: str) -> None:
    from safetensors.torch import load_file, save_file

    if change == "cut":
        content = path.read_bytes()[:100_000]
        path.unlink()
        path.write_bytes(content)
        return
    if change == "none":
        tensors = {}
    else:
        tensors = {key: value.clone() for key, value in load_file(path).items()}
        first = sorted(tensors)[0]
        if change == "nan":
            tensors[first][0, 0] = float("nan")
        elif change == "inf":
            tensors[first][0, 0] = float("inf")
        elif change == "lose":
            tensors.pop(first)
        elif change == "more":
            tensors["base_model.model.model.layers.99.self_attn.q_proj.lora_A.weight"] = tensors[first].clone()
        elif change == "zero":
            tensors = {key: value * 0 for key, value in tensors.items()}
        elif change == "narrow":
            tensors = {key: value[..., :-8].clone() if "lora_A" in key else value for key, value in tensors.items()}
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


def make_folder(folder: Path, what: dict, sources: dict[str, Path]) -> None:
    if "tiny" in what:
        tiny(what["tiny"], folder)
    else:
        folder.mkdir(parents=True)
        for path in sources[what["copy"]].iterdir():
            if path.is_file() and path.name not in what.get("remove", []):
                if path.stat().st_size > 50_000_000:
                    (folder / path.name).symlink_to(path.resolve())
                else:
                    shutil.copy(path, folder)
    for name, values in what.get("json", {}).items():
        found = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        found.update(values)
        (folder / name).write_text(json.dumps({k: v for k, v in found.items() if v != "REMOVE"}, indent=1))
    for name, content in what.get("write", {}).items():
        write_file(folder / name, content)
    for name, change in what.get("tensors", {}).items():
        change_tensors(folder / name, change)


def child(arguments: list[str], output: Path, env: dict, limit_mb: float | None) -> int:
    """Fork, and run ``tune`` with these arguments; the process id."""
    if process := os.fork():
        return process
    os.setsid()
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    for name, value in env.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, str(value))
    if limit_mb:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit_mb * 2**20),) * 2)
    from torchtune._cli.tune import main

    sys.argv, code = ["tune", *arguments], 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 130 if isinstance(sys.exc_info()[1], KeyboardInterrupt) else 1
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait(process: int, limit_s: float) -> tuple[int | None, float, float]:
    """Exit status (None at the limit), seconds, and seconds of a processor, which a busy machine does not stretch."""
    start = time.monotonic()
    while time.monotonic() - start < limit_s:
        done, status, used = os.wait4(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), time.monotonic() - start, used.ru_utime + used.ru_stime
        time.sleep(0.02)
    stop(process)
    return None, limit_s, limit_s


def stop(process: int) -> None:
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def fingerprints(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def run_case(name: str, case: dict, recipe: dict, work: Path, sources: dict[str, Path], limit_s: float) -> dict:
    folder = work / "cases" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, what in (recipe.get("files", {}) | case.get("files", {})).items():
        write_file(folder / path, what)
    for path, what in case.get("folders", {}).items():
        make_folder(folder / path, what, sources)
    values = {"T": str(folder), **{key.upper(): str(path) for key, path in sources.items()}}
    processes, busy = [], None
    if "server" in case:
        port, process = serve(case["server"])
        processes.append(process)
        values["S"] = f"http://127.0.0.1:{port}/v1"
    if case.get("busy"):
        busy = socket.create_server(("127.0.0.1", 0))
        values["P"] = str(busy.getsockname()[1])

    def fill(text: str) -> str:
        return re.sub(r"\$([A-Z]+)\b", lambda found: values[found[1]], text)

    def command(arguments: str) -> list[str]:
        options, config = case.get("options", ""), case.get("config", recipe["config"])
        given = recipe.get("args", "") if case.get("defaults", True) else ""
        parts = [*shlex.split(fill(options)), case.get("recipe", recipe["recipe"]), "--config", fill(config)]
        return ["run", *parts, *shlex.split(fill(given)), *shlex.split(fill(arguments))]

    env = {"OPENAI_API_KEY": "a-secret-key", **case.get("env", {})}
    if "first" in case:
        wait(child(command(case["first"]), folder / "first.txt", env, None), 4 * limit_s)
    for path in case.get("remove", []):
        (folder / path).unlink()
    for path, what in case.get("then", {}).items():
        write_file(folder / path, what)
    before, here = fingerprints(folder), set(os.listdir())
    if case.get("twice"):
        processes.append(child(command(case["args"]), folder / "other.txt", env, None))
        time.sleep(case["twice"])
        before = {}
    arguments = command(case.get("args", ""))
    code, seconds, cpu_s = wait(child(arguments, folder / "output.txt", env, case.get("limit_mb")), limit_s)
    after = fingerprints(folder)
    for process in processes:
        stop(process)
    if busy:
        busy.close()
    text = (folder / "output.txt").read_text(errors="replace")
    changed = [
        path
        for path, digest in before.items()
        if after.get(path) != digest and path not in ("first.txt", *case.get("may_change", []))
    ]
    changed += [f"{path} (new, beside the code)" for path in set(os.listdir()) - here]
    result = {"name": name, "command": shlex.join(["tune", *arguments]), "code": code, "seconds": round(seconds, 2)}
    result["cpu_s"] = round(cpu_s, 2)
    return result | {
        "changed": changed,
        "lines": text.count("\n"),
        "text": text[-20000:],
        "secret": "a-secret-key" in text,
    }


def verdict(result: dict, case: dict, start_s: float) -> str:
    text = result["text"]
    if result["changed"] or result["secret"]:
        return "E"
    if result["code"] == 0 or result["code"] is None:
        return "D"
    if re.search(r'^  File ".*", line \d+', text, re.MULTILINE):
        return "C"
    starts = [found.start() for found in re.finditer(r"^(tune run: )?error:", text, re.MULTILINE)]
    message = text[starts[-1] :] if starts else ""
    if not message or not all(re.search(pattern, message, re.IGNORECASE) for pattern in case.get("says", [])):
        return "F"
    return "B" if result["seconds"] - start_s > case.get("within", SLOW_S) else "A"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("outputs/bad_inputs"))
    parser.add_argument("--cases", type=Path, default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--model", type=Path, default=Path("outputs/models/SmolLM2-135M-Instruct"))
    parser.add_argument(
        "--adapters", type=Path, default=Path("outputs/quickstart"), help="holds left/epoch_0 and right/epoch_0"
    )
    parser.add_argument("--only", default="", help="cases whose name matches this regular expression")
    parser.add_argument("--again", action="store_true", help="run these cases again")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S)
    args = parser.parse_args()
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    listed = yaml.safe_load(args.cases.read_text())
    sources = {"model": args.model.resolve()} | {
        side: args.adapters.resolve() / side / "epoch_0" for side in ("left", "right")
    }
    log = args.work / "results.jsonl"
    done = {row["name"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    cases = {}  # every recipe first gets a mistyped key: its seconds are those that any refusal takes
    for recipe, entry in listed.items():
        cases[f"{recipe}-start"] = (
            {"args": "mistypd_key=1", "says": ["mistypd_key"], "within": 99},
            entry,
            f"{recipe}-start",
        )
        for name, case in entry["cases"].items():
            cases[f"{recipe}-{name}"] = (case, entry, f"{recipe}-start")
    todo = [name for name in cases if re.search(args.only, name) and (args.again or name not in done)]
    if todo:
        for module in HEAVY.split():
            try:
                __import__(module)
            except ImportError as missing:
                print(f"not loaded before: {missing}", file=sys.stderr)
    for name in todo:
        case, recipe, _ = cases[name]
        done[name] = run_case(name, case, recipe, args.work, sources, args.limit_s)
        with log.open("a") as file:
            file.write(json.dumps(done[name]) + "\n")
        print(name, done[name]["code"], done[name]["seconds"], flush=True)
    counts = Counter()
    for name, (case, _, start) in cases.items():
        if name in done and re.search(args.only, name):
            start_s = done[start]["seconds"] if start in done else 0.0
            letter = verdict(done[name], case, start_s)
            counts[letter] += 1
            last = [line for line in done[name]["text"].splitlines() if line.strip() and line[0] != "("][-1:]
            took = f"{done[name]['seconds'] - start_s:+.1f} s, {done[name].get('cpu_s', 0.0):.1f} s of a processor"
            print(f"{letter} | {name} | {took} | {(last or [''])[0][:160]}")
    print("  ".join(f"{letter}: {counts[letter]}" for letter in "ABCDEF"))


if __name__ == "__main__":
    main()
