# SPDX-License-Identifier: MIT
"""Does the lean survive serving? Base, left and right through transformers, vLLM and llama.cpp, against the resident.

    python -m benchmarks.served_lean --vllm VENV/bin/vllm --llama-python VENV/bin/python --converters FOLDER

Every engine serves what ``finetune/export.py`` wrote. The same pairs of statements are scored (``eval/asking``), the
same prompts answered greedily, and each model's lean is compared with that of the resident model, pair by pair. One
server runs at a time. Replies are kept: the same command goes on where it stopped. Results:
``outputs/benchmarks/served_lean.json`` and ``.md``.
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torchtune.data import Message
from torchtune.training import FullModelHFCheckpointer

from benchmarks.child_process import REPO
from benchmarks.served_answers import read_prompts
from data.chat import ChatClient, Reply, Request
from data.recipe.figures import MISSING, interval, number
from data.recipe.files import AppendLog, write_json, write_whole
from eval.asking.generate import write
from eval.asking.questions import Question, pair_questions
from eval.asking.respond import answer_questions, answer_row
from eval.asking.respondents import Interview, Respondent
from eval.asking.served import ask_served, check_served
from eval.asking.served_scores import compare_with_resident
from eval.asking.written_answers import Decoding
from eval.scores.comparisons import compare
from eval.scores.scoring import describe, pair_values
from eval.statements.instruments import load_instrument
from eval.statements.prompts import load_templates, pair_prompts
from finetune.adapters.resident import AdaptedModel
from finetune.models import smollm2_135m
from finetune.tokenizers import hf_chat_tokenizer

BASE = REPO / "outputs/models/SmolLM2-135M-Instruct"
MODELS = ("base", "left", "right")
RESIDENT = "resident"
FIRST_ANSWER_S = 600
N_PRINTED = 8
VLLM_PORT, LLAMA_PORT = 8001, 8081  # the printed commands take 8000 and 8080
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}


class Engine(NamedTuple):
    """One way to serve: its command, and the model name and the parameters by which base, left and right are asked."""

    name: str
    commands: dict[str, list[str]]  # by the models that one server has: "all", or one each
    port: int
    names: Mapping[str, str]
    params: Mapping[str, Mapping[str, Any]]


def plan(args: argparse.Namespace, folder: Path) -> list[Engine]:
    """Return the engines that are asked; ``folder`` holds the exported files."""
    gguf, engines = folder / "gguf", []
    adapters = [f"{side}={getattr(args, side)}" for side in ("left", "right")]
    lora = {side: {"lora": [{"id": 0, "scale": float(side == "left")}, {"id": 1, "scale": float(side == "right")}]}
            for side in MODELS}  # fmt: skip
    for dtype in ("float32", "bfloat16"):
        command = [
            args.vllm,
            "serve",
            str(BASE),
            "--served-model-name",
            "base",
            "--dtype",
            dtype,
            "--port",
            str(VLLM_PORT),
        ]
        command += ["--enable-lora", "--max-lora-rank", "16", "--lora-modules", *adapters]
        command += ["--max-model-len", "1024", "--max-num-seqs", "1", "--enforce-eager"]
        engines.append(Engine(f"vLLM {dtype}, LoRA", {"all": command}, VLLM_PORT, {m: m for m in MODELS}, {}))
    server = [args.llama_python, str(REPO / "benchmarks/llama_cpp_server.py"), "--port", str(LLAMA_PORT), "-m"]
    scaled = ["--lora-scaled", f"{gguf / 'left-lora.gguf'}:0,{gguf / 'right-lora.gguf'}:0"]
    any_name = dict.fromkeys(MODELS, "llama.cpp")
    for kind in ("F32", "F16", "Q8_0", "Q4_K_M", "Q4_1"):
        if (gguf / f"base-{kind}.gguf").exists():
            command = [*server, str(gguf / f"base-{kind}.gguf"), *scaled]
            engines.append(Engine(f"llama.cpp {kind}, LoRA", {"all": command}, LLAMA_PORT, any_name, lora))
    for kind in ("F16", "Q8_0", "Q4_K_M", "Q4_1"):
        files = {side: gguf / f"{side}-{kind}.gguf" for side in MODELS}
        if all(file.exists() for file in files.values()):
            each = {side: [*server, str(files[side])] for side in ("left", "right", "base")}
            engines.append(Engine(f"llama.cpp {kind}, merged", each, LLAMA_PORT, any_name, {}))
    if args.only:
        engines = [engine for only in args.only for engine in engines if only in engine.name]
    return engines


@contextmanager
def running(command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a server until the block ends; yield its address.

    Raises:
        RuntimeError: If the port is taken, or it ends or answers nothing; shows the end of its output.
    """
    with socket.socket() as other:
        if other.connect_ex(("127.0.0.1", port)) == 0:
            raise RuntimeError(f"port {port} is taken by another server, which would be asked instead; end it first")
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}, start_new_session=True
        )
        try:
            for _ in range(FIRST_ANSWER_S):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).read()
                    break
                except OSError:
                    time.sleep(1)
                if process.poll() is not None:
                    break
            else:
                process.kill()
            if process.poll() is not None:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
                raise RuntimeError(f"{shlex.join(command)} ended with {process.returncode}:\n{tail}")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


class Run:
    """The questions, and the answers so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, args.output
        self.folder.mkdir(parents=True, exist_ok=True)
        bank, templates = load_instrument("compass60"), load_templates("en")
        placebo = {name for name, axis in bank.axes.items() if axis.placebo}
        self.instrument = bank.keep({pair.id for pair in bank.pairs if pair.axis not in placebo})
        self.tokenizer = hf_chat_tokenizer(str(BASE))
        self.questions: list[Question] = pair_questions(self.instrument, self.tokenizer, templates, 1)
        prompts = {"pairs": pair_prompts(self.instrument, templates, 1)}
        self.interview = Interview(prompts, self.instrument.options, {})
        self.prompts = read_prompts(args.prompts)
        self.rows, self.texts = AppendLog(self.folder / "rows.jsonl"), AppendLog(self.folder / "texts.jsonl")

    def has(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether these rows are there."""
        there = {(row["model"], row["item"]) for row in self.rows.rows}
        return all((row["model"], row["item"]) in there for row in rows)

    def lacks_texts(self, name: str) -> bool:
        """Return whether a model has still to answer in writing."""
        return all(row["model"] != name for row in self.texts.rows)

    def add_texts(self, name: str, texts: Sequence[str]) -> None:
        """Write greedy answers down."""
        self.texts.append([{"model": name, "prompt": p, "text": t} for p, t in zip(self.prompts, texts)])

    def ask_resident(self) -> None:
        """Ask torchtune's model."""
        if not self.lacks_texts(f"{RESIDENT}/right"):
            return
        model = smollm2_135m()
        checkpointer = FullModelHFCheckpointer(str(BASE), ["model.safetensors"], "LLAMA3", str(self.folder / "unused"))
        model.load_state_dict(checkpointer.load_checkpoint()["model"])
        sides = {side: getattr(self.args, side) for side in ("left", "right")}
        resident = AdaptedModel(model.eval(), sides, BASE)
        greedy = Decoding(temperature=0, top_k=None, max_new_tokens=self.args.max_tokens, seed=0)
        ids = [self.tokenizer.prompt_tokens([Message(role="user", content=prompt)]) for prompt in self.prompts]
        for side in MODELS:
            with resident.using(None if side == "base" else side) as decoder:
                name = f"{RESIDENT}/{side}"
                self.rows.append(answer_questions(decoder, name, self.questions, 800))
                with torch.no_grad():
                    written = write(decoder, ids, greedy, [0] * len(ids), self.tokenizer.stop_tokens)
                self.add_texts(name, [self.tokenizer.decode(tokens) for tokens in written])

    @torch.no_grad()
    def ask_transformers(self) -> None:
        """Ask transformers' model with peft's adapters, one sequence at a time."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        if not self.lacks_texts("transformers/right"):
            return
        base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, self.args.left, "left")
        model.load_adapter(self.args.right, "right")
        for side in MODELS:
            if side != "base":
                model.set_adapter(side)
            with model.disable_adapter() if side == "base" else torch.no_grad():
                rows = []
                for question in self.questions:
                    sums = []
                    for answer in question.answers:
                        ids, labels = torch.tensor([answer.tokens]), torch.tensor(answer.labels)[1:]
                        logprobs = model(ids).logits[0, :-1].log_softmax(-1)
                        scored = labels != -100
                        sums.append(float(logprobs[scored, labels[scored]].sum()))
                    rows.append(answer_row(f"transformers/{side}", question, sums))
                self.rows.append(rows)
                texts = []
                for prompt in self.prompts:
                    ids = torch.tensor([self.tokenizer.prompt_tokens([Message(role="user", content=prompt)])])
                    out = model.generate(input_ids=ids, do_sample=False, max_new_tokens=self.args.max_tokens)
                    texts.append(self.tokenizer.decode(out[0, ids.shape[1] :].tolist()))
                self.add_texts(f"transformers/{side}", texts)

    def ask_engine(self, engine: Engine) -> None:
        """Serve, ask, end; models that are answered already are left out."""
        for of, command in engine.commands.items():
            models = [m for m in (MODELS if of == "all" else (of,))
                      if not self.has([{"model": f"{engine.name}/{m}", **q.row} for q in self.questions])
                      or self.lacks_texts(f"{engine.name}/{m}")]  # fmt: skip
            if not models:
                continue
            with running(command, engine.port, self.folder / "server.log", ENVIRONMENT) as url:
                respondents = []
                for model in models:
                    server = {"model": engine.names[model], "base_url": url, "tokenizer": str(BASE),
                              "params": dict(engine.params.get(model, {})), "max_concurrency": 1, "timeout_s": 600,
                              "cache_dir": str(self.folder / "replies" / engine.name / model)}  # fmt: skip
                    respondents.append(Respondent(f"{engine.name}/{model}", ("pairs",), None, None, server))
                for line in check_served(self.interview, respondents, "", self.has):
                    sys.stdout.write(line + "\n")
                for model, respondent in zip(models, respondents):
                    for rows in ask_served(self.interview, respondent, "", self.has):
                        self.rows.append(rows)
                    if self.lacks_texts(respondent.name):
                        self.add_texts(respondent.name, self._chat(engine, model, url))

    def _chat(self, engine: Engine, model: str, url: str) -> list[str]:
        params = {"temperature": 0, "max_tokens": self.args.max_tokens, "cache_prompt": False}
        params |= {"repeat_penalty": 1} | engine.params.get(model, {})
        cache = str(self.folder / "replies" / engine.name / f"{model}-chat")
        client = ChatClient(engine.names[model], url, cache, params, max_concurrency=1, timeout_s=600)
        requests = [Request([{"role": "user", "content": prompt}]) for prompt in self.prompts]
        replies = [reply for _, reply in client.chat_many(requests, len(requests), f"{engine.name}/{model}, greedy")]
        if failed := [reply for reply in replies if not isinstance(reply, Reply)]:
            raise RuntimeError(f"{engine.name}/{model}: {len(failed)} calls have no answer, the first: {failed[0]}")
        return [reply.text for reply in replies]


def check_printed(run: Run, args: argparse.Namespace) -> list[str]:
    """Run the commands that an export prints, as they are, ask each server a few pairs, and return a line for each.

    ``vllm`` and ``llama-server`` are those of the arguments, put on the PATH.
    """
    target, printed, tools = args.output / "left-served", args.output / "printed.txt", args.output / "bin"
    if not target.is_dir():
        overrides = [f"base={BASE}", f"adapters.left={args.left}", f"adapters.right={args.right}", "blend.right=0"]
        overrides += ["formats=[adapter,merged,gguf]", f"llama_cpp={args.converters}", "gguf_type=f32"]
        export = ["run", "finetune/export.py", "--config", "configs/export.yaml", f"output_dir={target}", *overrides]
        done = subprocess.run(
            [Path(sys.executable).with_name("tune"), *export], cwd=REPO, check=True, capture_output=True, text=True
        )
        printed.write_text(done.stdout + done.stderr)
    tools.mkdir(exist_ok=True)
    scripts = {"vllm": args.vllm, "llama-server": f"{args.llama_python} {REPO / 'benchmarks/llama_cpp_server.py'}"}
    for name, command in scripts.items():
        (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (tools / name).chmod(0o755)
    environment = {**ENVIRONMENT, "PATH": f"{tools}:{os.environ['PATH']}"}
    interview = run.interview._replace(prompts={"pairs": run.interview.prompts["pairs"][:N_PRINTED]})
    resident = [row | {"model": RESIDENT} for row in run.rows.rows if row["model"] == f"{RESIDENT}/left"]
    lines = []
    for command in printed.read_text().splitlines():
        words = command.split()
        if words[:1] not in (["vllm"], ["llama-server"]):
            continue
        port = 8000 if words[0] == "vllm" else 8080
        with running(["sh", "-c", f"exec {command}"], port, args.output / "server.log", environment) as url:
            server = {"model": target.name, "base_url": url, "tokenizer": str(BASE), "max_concurrency": 1,
                      "timeout_s": 600, "cache_dir": str(args.output / "replies" / f"printed {words[0]}")}  # fmt: skip
            respondent = Respondent(words[0], ("pairs",), None, None, server)
            lines += [command, *check_served(interview, [respondent], "", lambda rows: False)]
            rows = [row for rows in ask_served(interview, respondent, "", lambda rows: False) for row in rows]
            lines.append(compare_with_resident([*resident, *rows], words[0], RESIDENT))
    return lines


def compare_all(run: Run) -> list[dict[str, Any]]:
    """Return a row for each engine: log-probabilities, leans and greedy texts against the resident's."""
    by_name: dict[str, dict[str, Any]] = {}
    asked = {pair.id for pair in run.instrument.pairs}
    for row in (row for row in run.rows.rows if row["item"] in asked):
        by_name.setdefault(row["model"], {})[row["item"]] = row
    texts: dict[str, list[str]] = {}
    for row in run.texts.rows:
        texts.setdefault(row["model"], []).append(row["text"])
    engines = dict.fromkeys(name.rpartition("/")[0] for name in by_name)
    values = {name: pair_values(list(rows.values()), run.instrument.pairs) for name, rows in by_name.items()}
    results = []
    for engine in engines:
        there = [model for model in MODELS if f"{engine}/{model}" in texts]
        if not {"left", "right"} <= {*there}:
            continue
        differences, flips, equal = [], 0, 0
        leans = {}
        for model in there:
            name, resident = f"{engine}/{model}", f"{RESIDENT}/{model}"
            for item, theirs in by_name[name].items():
                ours = by_name[resident][item]
                per_token = [
                    (x - y) / n for x, y, n in zip(theirs["option_logprobs"], ours["option_logprobs"], ours["n_tokens"])
                ]
                differences += map(abs, per_token)
                lean = [row["option_logprobs"][1] / row["n_tokens"][1] - row["option_logprobs"][0] / row["n_tokens"][0]
                        for row in (theirs, ours)]  # fmt: skip
                flips += lean[0] * lean[1] < 0
            leans[model] = {**describe(values[name]), "against_resident": compare(values[resident], values[name])}
            equal += sum(a == b for a, b in zip(texts[name], texts[resident]))
        results.append({
            "engine": engine, "largest": max(differences), "mean": sum(differences) / len(differences),
            "right_minus_left": compare(values[f"{engine}/left"], values[f"{engine}/right"]), "leans": leans,
            "sign_changes": flips, "n_pairs": len(there) * len(run.questions), "equal_texts": equal,
            "n_texts": len(there) * len(run.prompts),
        })  # fmt: skip
    return results


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the results as tables in Markdown."""
    head = "| engine, weights | right − left | mean difference a token | largest | sign changes | equal texts |"
    lines = [head, "|---|---|---|---|---|---|"]
    for r in results:
        change = r["right_minus_left"]
        lines.append(
            f"| {r['engine']} | {number(change['difference'], 4)} {interval(change['ci95'])} | {r['mean']:.1e} | "
            f"{r['largest']:.1e} | {r['sign_changes']} of {r['n_pairs']} | {r['equal_texts']} of {r['n_texts']} |"
        )
    lines += ["", "| engine, weights | " + " | ".join(f"{m}: lean, minus the resident's" for m in MODELS) + " |",
              "|---|---|---|---|"]  # fmt: skip
    for r in results:
        cells = []
        for model in MODELS:
            if model not in r["leans"]:
                cells.append(MISSING)
                continue
            lean = r["leans"][model]
            against = lean["against_resident"]
            cells.append(f"{number(lean['estimate'], 4)}, {number(against['difference'], 4)} "
                         f"{interval(against['ci95'], 4)}")  # fmt: skip
        lines.append(f"| {r['engine']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def make_files(args: argparse.Namespace, folder: Path) -> None:
    """Convert the base, both adapters and both merged models to GGUF, in the types that the tools at hand can write."""
    gguf = folder / "gguf"
    gguf.mkdir(parents=True, exist_ok=True)
    converters = Path(args.converters)
    environment = {**os.environ, "PYTHONPATH": str(converters / "gguf-py")}

    def convert(script: str, target: Path, *arguments: str | Path) -> None:
        if not target.exists():
            command = [sys.executable, converters / script, *arguments, "--outfile", target.with_suffix(".partial")]
            subprocess.run(list(map(str, command)), env=environment, check=True, capture_output=True)
            target.with_suffix(".partial").rename(target)

    sources = {"base": BASE}
    for side in ("left", "right"):
        adapter = getattr(args, side)
        convert("convert_lora_to_gguf.py", gguf / f"{side}-lora.gguf", "--base", BASE, adapter, "--outtype", "f32")
        sources[side] = folder / side / "merged"
        if not sources[side].is_dir():
            overrides = [f"base={BASE}", f"adapters.left={args.left}", f"adapters.right={args.right}"]
            overrides += ["blend.left=0", "blend.right=0", f"blend.{side}=1", "formats=[merged]"]
            command = ["run", "finetune/export.py", "--config", "configs/export.yaml", *overrides]
            command += [f"output_dir={folder / side}"]
            subprocess.run([Path(sys.executable).with_name("tune"), *command], cwd=REPO, check=True)
    for side, source in sources.items():
        for kind in ("F32", "F16", "Q8_0"):
            convert("convert_hf_to_gguf.py", gguf / f"{side}-{kind}.gguf", source, "--outtype", kind.lower())
        for kind in ("Q4_K_M", "Q4_1") if args.quantize else ():
            if not (target := gguf / f"{side}-{kind}.gguf").exists():
                command = [*shlex.split(args.quantize), str(gguf / f"{side}-F32.gguf"), str(target), kind]
                subprocess.run(command, check=True, capture_output=True)


def main() -> int:
    """Make the files, serve, ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    quickstart = REPO / "outputs/quickstart"
    for side in ("left", "right"):
        parser.add_argument(f"--{side}", type=Path, default=quickstart / side / "epoch_0", help="(%(default)s)")
    parser.add_argument("--vllm", default="vllm", help="vLLM's command, of an environment of its own (%(default)s)")
    parser.add_argument("--llama-python", default=sys.executable, help="a Python that has xllamacpp (%(default)s)")
    parser.add_argument("--converters", default="llama.cpp", help="folder of llama.cpp's source (%(default)s)")
    parser.add_argument("--quantize", default="llama-quantize", help="its command; empty: no Q4 types (%(default)s)")
    parser.add_argument("--prompts", type=int, default=6, help="answered greedily (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=32, help="of such an answer (%(default)s)")
    parser.add_argument(
        "--only", nargs="*", help="engines whose name holds one of these; printed: the commands that an export prints"
    )
    parser.add_argument("--output", type=Path, default=REPO / "outputs/benchmarks/served_lean")
    args = parser.parse_args()
    run = Run(args)
    make_files(args, args.output)
    run.ask_resident()
    run.ask_transformers()
    for engine in plan(args, args.output):
        run.ask_engine(engine)
        results = compare_all(run)
        write_json(args.output.with_suffix(".json"), results)
        write_whole(args.output.with_suffix(".md"), table(results))
    if args.only is None or "printed" in args.only:
        sys.stdout.write("\n".join(check_printed(run, args)) + "\n")
    sys.stdout.write(table(compare_all(run)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
