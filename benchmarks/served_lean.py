# SPDX-License-Identifier: MIT
"""Does the lean survive serving? Base, adapters and a blend through every engine, against the resident model.

    python -m benchmarks.served_lean --vllm VENV/bin/vllm --llama-python VENV/bin/python --converters FOLDER

Every engine serves what ``finetune/export.py`` wrote, and the commands that an export prints are run as they are. All
are asked the same in all four modes (``eval/asking``), written answers without chance. One server runs at a time, and
answers are kept: the same command goes on where it stopped. Results: ``outputs/benchmarks/served_lean.json``, ``.md``.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import OmegaConf

from benchmarks.child_process import REPO
from benchmarks.servers import running
from data.recipe.figures import MISSING, interval, number
from data.recipe.files import write_json, write_whole
from eval.asking.questions import prompt_tokens, to_questions
from eval.asking.respond import answer_row, ask_resident, load_adapted, prepare_questions
from eval.asking.respondents import MODES, WRITTEN, Interview, Respondent
from eval.asking.results import ResultsFile, Row, row_key
from eval.asking.served import ask_served, check_served
from eval.asking.written_answers import Decoding
from eval.scores.comparisons import compare
from eval.scores.crossed import item_means
from eval.scores.scoring import describe, pair_values
from eval.statements.instruments import Instrument, load_instrument
from eval.statements.prompts import choice_prompts, generate_prompts, load_templates, open_prompts, pair_prompts
from finetune.adapters.folders import fingerprint, read_adapters
from finetune.tokenizers import hf_chat_tokenizer

BASE = REPO / "outputs/models/SmolLM2-135M-Instruct"
SIDES = ("left", "right")
MODELS: dict[str, dict[str, float]] = {
    "base": {}, "left": {"left": 1.0}, "right": {"right": 1.0}, "blend": {"left": 0.5, "right": 0.5},
}  # fmt: skip
RESIDENT, TRANSFORMERS = "resident", "transformers"
N_ITEMS, MAX_TOKENS = 4, 32  # asked by choice and in writing, and the length of such an answer
EXPORTS = {"left": "merged,gguf", "right": "merged,gguf", "blend": "adapter,gguf"}
EXACT, ROUNDED = ("F32", "F16"), ("Q8_0", "Q4_K_M", "Q4_1")
VLLM_PORT, LLAMA_PORT = 8001, 8081  # the printed commands take 8000 and 8080
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}


class Server(NamedTuple):
    """A server of an engine, and by model that it has, the keys of a config's ``respondents`` that choose it there."""

    engine: str
    command: str
    port: int
    models: dict[str, dict[str, Any]]


class Files:
    """What the engines serve, made on demand: exports, and GGUF files in one type each."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args, self._folder = args, args.output
        self._environment = {**os.environ, "PYTHONPATH": str(Path(args.converters) / "gguf-py")}

    def export(self, name: str) -> Path:
        """Return the folder of an export; what it printed lies beside it."""
        target = self._folder / "exports" / name
        if not target.with_suffix(".txt").is_file():
            shutil.rmtree(target, ignore_errors=True)
            overrides = [f"adapters.{side}={getattr(self._args, side)}" for side in SIDES]
            overrides += [f"blend.{side}={MODELS[name].get(side, 0)}" for side in SIDES]
            overrides += [f"base={BASE}", f"formats=[{EXPORTS[name]}]", f"llama_cpp={self._args.converters}"]
            tune = Path(sys.executable).with_name("tune")
            command = [tune, "run", "finetune/export.py", "--config", "configs/export.yaml", *overrides]
            command += ["gguf_type=f32", f"output_dir={target}"]
            done = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True)
            write_whole(target.with_suffix(".txt"), done.stdout + done.stderr)
        return target

    def printed(self, name: str) -> list[str]:
        """Return the commands for vLLM and llama.cpp that an export printed."""
        lines = self.export(name).with_suffix(".txt").read_text().splitlines()
        return [line for line in lines if line.split()[:1] in (["vllm"], ["llama-server"])]

    def lora(self, side: str) -> Path:
        """Return an adapter for llama.cpp."""
        adapter = ["--base", str(BASE), str(getattr(self._args, side))]
        return self._make(f"{side}-lora.gguf", self._converter("convert_lora_to_gguf.py", *adapter, "--outtype", "f32"))

    def model(self, name: str, kind: str) -> Path:
        """Return the base or a merged model for llama.cpp in a type."""
        gguf = self.export("blend") / "gguf/base.gguf" if name == "base" else self.export(name) / "gguf/merged.gguf"
        if kind == "F32":
            return gguf
        if kind in ("F16", "Q8_0"):
            source = BASE if name == "base" else self.export(name) / "merged"
            command = self._converter("convert_hf_to_gguf.py", str(source), "--outtype", kind.lower())
        else:
            command = [*shlex.split(self._args.quantize), str(gguf), "{}", kind]
        return self._make(f"{name}-{kind}.gguf", command)

    def _converter(self, script: str, *arguments: str) -> list[str]:
        return [sys.executable, str(Path(self._args.converters) / script), *arguments, "--outfile", "{}"]

    def _make(self, name: str, command: Sequence[str]) -> Path:
        target, partial = self._folder / "gguf" / name, self._folder / "gguf" / f"partial-{name}"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            named = [str(partial) if word == "{}" else word for word in command]
            subprocess.run(named, env=self._environment, check=True, capture_output=True)
            partial.rename(target)
        return target


def wanted(args: argparse.Namespace, engine: str) -> bool:
    """Return whether an engine is one of ``--only``."""
    return not args.only or any(part in engine for part in args.only)


def plan(args: argparse.Namespace, files: Files) -> Iterator[Server]:
    """Yield the servers that are asked, those of ``--only``; their files are made when their turn comes."""
    for dtype in ("float32", "bfloat16"):
        if wanted(args, engine := f"vLLM {dtype}, LoRA"):
            adapters = [f"{side}={getattr(args, side)}" for side in SIDES]
            adapters.append(f"blend={files.export('blend') / 'adapter'}")
            command = ["vllm", "serve", str(BASE), "--served-model-name", "base", "--dtype", dtype]
            command += ["--enable-lora", "--max-lora-rank", "32", "--lora-modules", *adapters, "--max-num-seqs", "1"]
            command += ["--port", str(VLLM_PORT), "--max-model-len", "1024", "--enforce-eager"]
            yield Server(engine, shlex.join(command), VLLM_PORT, {name: {"model": name} for name in MODELS})
    llama = ["llama-server", "--port", str(LLAMA_PORT), "-m"]
    for kind in (*EXACT, *ROUNDED):
        if wanted(args, engine := f"llama.cpp {kind}, LoRA") and (args.quantize or not kind.startswith("Q4")):
            loras = ",".join(f"{files.lora(side)}:0" for side in SIDES)
            command = [*llama, str(files.model("base", kind)), "--lora-scaled", loras]
            scales = {name: [{"id": k, "scale": weights.get(side, 0.0)} for k, side in enumerate(SIDES)]
                      for name, weights in MODELS.items() if kind in EXACT or name in SIDES}  # fmt: skip
            models = {name: {"model": "any", "params": {"lora": lora}} for name, lora in scales.items()}
            yield Server(engine, shlex.join(command), LLAMA_PORT, models)
    for kind in ROUNDED:
        if wanted(args, engine := f"llama.cpp {kind}, merged") and (args.quantize or not kind.startswith("Q4")):
            for name in SIDES:  # the base is the one above
                command = [*llama, str(files.model(name, kind))]
                yield Server(engine, shlex.join(command), LLAMA_PORT, {name: {"model": "any"}})
    for name, form in (("blend", "LoRA"), ("left", "merged")):
        for kind, port in (("vllm", 8000), ("llama-server", 8080)):
            if wanted(args, engine := f"printed {kind}, {form}"):
                (command_line,) = (line for line in files.printed(name) if line.startswith(kind))
                yield Server(engine, command_line, port, {name: {"model": files.export(name).name}})


def make_interview() -> tuple[Instrument, Interview]:
    """Return the pairs that are scored, and all prompts: every pair, and a few items in the other modes."""
    bank, templates = load_instrument("compass60"), load_templates("en")
    instrument = bank.keep({pair.id for pair in bank.political_pairs})
    few = bank.keep({item.id for item in bank.items[:N_ITEMS]})
    prompts = {
        "choice": choice_prompts(few, templates, 1, 1, ["words"]),
        "pairs": pair_prompts(instrument, templates, 1),
        "generate": generate_prompts(few, templates, 0, 1, ["digits"], 1),
        "open": open_prompts(few, templates, 1, 1)[:N_ITEMS],
    }
    likeliest = Decoding(temperature=0, top_k=None, max_new_tokens=MAX_TOKENS, seed=0)
    return instrument, Interview(prompts, bank.options, {mode: likeliest for mode in WRITTEN})


def ask_ours(args: argparse.Namespace, interview: Interview, results: ResultsFile) -> None:
    """Ask the resident model, with the settings of ``configs/political_compass.yaml``."""
    cfg = OmegaConf.load(REPO / "configs/political_compass.yaml")
    weights = {name: w for name, w in MODELS.items() if name not in ("base", *SIDES)}
    adapters = read_adapters({**{side: str(getattr(args, side)) for side in SIDES}, **weights})
    respondents = [Respondent(f"{RESIDENT}/{name}", MODES, None if name == "base" else name) for name in MODELS]
    questionnaire = prepare_questions(cfg, interview, respondents)
    if all(results.has({"model": r.name, **p.row} for p in interview.of_modes(MODES)) for r in respondents):
        return
    model = load_adapted(cfg, adapters, torch.device("cpu"), torch.float32)
    for respondent in respondents:
        for rows in ask_resident(cfg, model, questionnaire, respondent, results.has):
            results.append(rows)


@torch.no_grad()
def ask_transformers(args: argparse.Namespace, interview: Interview, results: ResultsFile) -> None:
    """Ask transformers' model with peft's adapters, one sequence at a time."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tokenizer = hf_chat_tokenizer(str(BASE))
    if results.has({"model": f"{TRANSFORMERS}/blend", **p.row} for p in interview.of_modes(MODES)):
        return
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, args.left, "left")
    model.load_adapter(args.right, "right")
    for name, weights in MODELS.items():
        if len(weights) > 1:
            model.add_weighted_adapter([*weights], [*weights.values()], name, combination_type="cat")
        model.set_adapter(name if weights else "left")
        with torch.no_grad() if weights else model.disable_adapter():
            for question in to_questions(interview.of_modes({"choice", "pairs"}), tokenizer):
                sums = []
                for answer in question.answers:
                    logprobs = model(torch.tensor([answer.tokens])).logits[0, :-1].log_softmax(-1)
                    labels = torch.tensor(answer.labels)[1:]
                    scored = labels != -100
                    sums.append(float(logprobs[scored, labels[scored]].sum()))
                results.append([answer_row(f"{TRANSFORMERS}/{name}", question, sums)])
            for prompt in interview.of_modes(WRITTEN):
                ids = torch.tensor([prompt_tokens(tokenizer, prompt.text)])
                written = model.generate(input_ids=ids, do_sample=False, max_new_tokens=MAX_TOKENS)
                text = tokenizer.decode(written[0, ids.shape[1] :].tolist())
                results.append([{"model": f"{TRANSFORMERS}/{name}", **prompt.row, "text": text}])


def ask_server(server: Server, folder: Path, interview: Interview, results: ResultsFile) -> None:
    """Start a server, ask its models, end it; one whose models are answered already is not started."""
    asked = {f"{server.engine}/{name}": name for name in server.models}
    left = [name for name in asked if not results.has({"model": name, **p.row} for p in interview.of_modes(MODES))]
    if not left:
        return
    with running(server.command, server.port, folder / "server.log") as url:
        common = {"base_url": url, "tokenizer": str(BASE), "max_concurrency": 1, "timeout_s": 600}
        respondents = []
        for name in left:
            cache_dir = str(folder / "replies" / name)
            settings = {**common, "cache_dir": cache_dir, **server.models[asked[name]]}
            respondents.append(Respondent(name, MODES, None, None, settings))
        for line in check_served(interview, respondents, "", results.has):
            sys.stdout.write(f"{line}\n")
        for respondent in respondents:
            for rows in ask_served(interview, respondent, "", results.has):
                results.append(rows)


def compare_all(rows: Sequence[Row], instrument: Instrument, n_prompts: int) -> list[dict[str, Any]]:
    """Return, for each engine, its differences from the resident: log-probabilities, leans, texts.

    A model that has not answered all ``n_prompts`` is left out.
    """
    by_name: dict[str, dict[Any, Row]] = {}
    for row in rows:
        by_name.setdefault(row["model"], {})[row_key(row)[1:]] = row
    by_name = {name: answers for name, answers in by_name.items() if len(answers) == n_prompts}
    units = instrument.units()
    values = {name: pair_values([row for row in of.values() if row["mode"] == "pairs"], instrument.pairs, units)
              for name, of in by_name.items()}  # fmt: skip
    results = []
    for engine in dict.fromkeys(name.rpartition("/")[0] for name in by_name):
        there = [name for name in MODELS if f"{engine}/{name}" in by_name]
        apart: dict[str, list[float]] = {"pairs": [], "choice": []}
        equal, leans, n_turned = [], {}, 0
        for name in there:
            ours, theirs = f"{RESIDENT}/{name}", f"{engine}/{name}"
            for key, row in by_name[theirs].items():
                known = by_name[ours][key]
                if row["mode"] in WRITTEN:
                    equal.append(row["text"] == known["text"])
                    continue
                options = zip(row["option_logprobs"], known["option_logprobs"], known["n_tokens"])
                apart[row["mode"]] += [abs(x - y) / n for x, y, n in options]
            n_turned += int((item_means(values[theirs].cells) * item_means(values[ours].cells) < 0).sum())
            leans[name] = {**describe(values[theirs]), "against_resident": compare(values[ours], values[theirs])}
        both = [f"{engine}/{side}" for side in SIDES]
        results.append({
            "engine": engine, "leans": leans, "sign_changes": n_turned, "n_pairs": len(there) * len(instrument.pairs),
            "apart": {mode: {"mean": float(np.mean(x)), "largest": max(x)} for mode, x in apart.items()},
            "equal_texts": sum(equal), "n_texts": len(equal),
            "right_minus_left": compare(*(values[name] for name in both)) if {*both} <= {*values} else None,
        })  # fmt: skip
    return results


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the results as tables in Markdown."""
    head = ["engine, weights", "right − left", "pairs: mean, largest", "choice: mean, largest", "sign changes"]
    lines = ["| " + " | ".join([*head, "equal texts"]) + " |", "|---" * (len(head) + 1) + "|"]
    for r in results:
        change = r["right_minus_left"]
        cells = [r["engine"], f"{number(change['difference'], 4)} {interval(change['ci95'])}" if change else MISSING]
        cells += [f"{r['apart'][mode]['mean']:.1e}, {r['apart'][mode]['largest']:.1e}" for mode in ("pairs", "choice")]
        cells += [f"{r['sign_changes']} of {r['n_pairs']}", f"{r['equal_texts']} of {r['n_texts']}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| engine, weights | " + " | ".join(f"{name}: lean, minus the resident's" for name in MODELS) + " |",
              "|---" * (len(MODELS) + 1) + "|"]  # fmt: skip
    for r in results:
        cells = [r["engine"]]
        for name in MODELS:
            if (lean := r["leans"].get(name)) is None:
                cells.append(MISSING)
                continue
            against = lean["against_resident"]
            change = f"{number(against['difference'], 4)} {interval(against['ci95'], 4)}"
            cells.append(f"{number(lean['estimate'], 4)} {interval(lean['ci95'])}, {change}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def put_on_path(args: argparse.Namespace) -> None:
    """Let the printed commands find ``vllm`` and ``llama-server``: those of the arguments."""
    tools = args.output / "bin"
    tools.mkdir(parents=True, exist_ok=True)
    scripts = {"vllm": args.vllm, "llama-server": f"{args.llama_python} {REPO / 'benchmarks/llama_cpp_server.py'}"}
    for name, command in scripts.items():
        (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (tools / name).chmod(0o755)
    os.environ.update(ENVIRONMENT, PATH=f"{tools}:{os.environ['PATH']}")


def main() -> int:
    """Ask the resident model, serve and ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    quickstart = REPO / "outputs/quickstart"
    for side in SIDES:
        parser.add_argument(f"--{side}", type=Path, default=quickstart / side / "epoch_0", help="(%(default)s)")
    parser.add_argument("--vllm", default="vllm", help="vLLM's command, of an environment of its own (%(default)s)")
    parser.add_argument("--llama-python", default=sys.executable, help="a Python that has xllamacpp (%(default)s)")
    parser.add_argument("--converters", default="llama.cpp", help="folder of llama.cpp's source (%(default)s)")
    parser.add_argument("--quantize", default="llama-quantize", help="its command; empty: no Q4 types (%(default)s)")
    parser.add_argument("--only", nargs="*", help="engines whose name holds one of these, such as Q8_0 or printed")
    parser.add_argument("--output", type=Path, default=REPO / "outputs/benchmarks/served_lean")
    args = parser.parse_args()
    os.chdir(REPO)
    put_on_path(args)
    instrument, interview = make_interview()
    adapters = {side: fingerprint(getattr(args, side)) for side in SIDES}
    results = ResultsFile(args.output, {"base": fingerprint(BASE), **adapters, "instrument": instrument.sha256})
    ask_ours(args, interview, results)
    if wanted(args, TRANSFORMERS):
        ask_transformers(args, interview, results)
    for server in plan(args, Files(args)):
        ask_server(server, args.output, interview, results)
    compared = compare_all(results.rows, instrument, len(interview.of_modes(MODES)))
    write_json(args.output.with_suffix(".json"), compared)
    write_whole(args.output.with_suffix(".md"), table(compared))
    sys.stdout.write(table(compared))
    return 0


if __name__ == "__main__":
    sys.exit(main())
