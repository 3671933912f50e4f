# SPDX-License-Identifier: MIT
"""Run the commands that READMEs and configs show, with only sizes and paths overridden."""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from conftest import REPO, TINY, fork, run_tune, tiny_overrides, write_llama_folder
from families import SHRUNKEN, write_family
from fault_server import FaultServer, completion
from judged_run import make_rows, write_run
from peft import LoraConfig, get_peft_model
from synthesis_rules import posts, respond
from torch.distributed import run as torchrun
from transformers import AutoModelForCausalLM, LlamaTokenizer

from data.pairs.records import pair_key, read_pairs
from data.recipe.files import read_log, to_jsonl, write_whole
from data.recipe.pages import LocalServer
from eval.scores.labelled import answer_key, draw_answers

ONE_STEP = ["epochs=1", "max_steps_per_epoch=1", "batch_size=2", "gradient_accumulation_steps=1"]
# the chat template of Mistral-7B-Instruct-v0.2
MISTRAL_V1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ ' [INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
SMALL = {**TINY, "max_seq_len": 1024}
# NF4 quantizes 64 x 256 values at a time, so no weight may be smaller
BLOCKS_OF_NF4 = {"embed_dim": 128, "num_kv_heads": 4, "intermediate_dim": 256}

LABELS = {"good": 1, "so-so": 3, "bad": 5}  # of texts in a file that a reader would bring
SERVER = "http://127.0.0.1:8000/v1"  # what the documents call a reader's own
# A study as it is shipped, of which a test does no more than plan it.
PLANNED = {
    f"tune run eval/study.py --config configs/studies/{path.name}{more}"
    for path in (REPO / "configs" / "studies").glob("*.yaml")
    for more in ("", " dry_run=True", " train.dataset.data_files=ideoinst/pairs.jsonl")
}

# what eval/playground.py has no key for, or takes from the command
NO_PAGE = ("output_dir=", "n_bootstrap=")


def commands_of(page: Path) -> list[str]:
    """Return the commands in the blocks of bash of a Markdown page."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def own_figures(folder: Path) -> Path:
    """Write a file that says an influence and a rank of each pair of the shipped left set."""
    shipped = read_pairs(read_log(REPO / "data/mirrored/pairs.jsonl"), "x", {"chosen": "left", "rejected": "right"})
    figures = ({"key": pair_key(pair), "influence": pair.row / 9, "rank": pair.row} for pair in shipped)
    write_whole(folder / "figures.jsonl", to_jsonl(figures))
    return folder / "figures.jsonl"


def influence_overrides(folder: Path) -> list[str]:
    """Return what lets ``configs/studies/influence.yaml`` find the influence of each row."""
    runs = (f"runs.without_most_{side}.dataset.where.rank.file" for side in ("left", "right"))
    return [f"{key}={own_figures(folder)}" for key in runs]


def own_topics(folder: Path) -> Path:
    """Write a file in the form of IdeoINST, and return its path."""
    topics = ("crime", "economy", "gender", "immigration", "race", "science")
    rows = [
        {
            "topic": topic, "prompt": f"What of {topic} {k}?", "left": "It is bad" + " indeed" * (k % 2 * 2) + ".",
            "right": "It is very good.", "left_label": ("Left", "left")[k % 2] + " leaning",
            "right_label": ("Right", "right", "Left")[k % 3] + " leaning",
        }
        for topic in topics for k in range(80)
    ]  # fmt: skip
    write_whole(folder / "topics.jsonl", to_jsonl(rows))
    return folder / "topics.jsonl"


@pytest.fixture
def tune(monkeypatch):
    """Run a `tune` command line in this process; return its exit status."""
    from torchtune._cli.tune import TuneCLIParser, main

    def run(arguments: list[str], parse_only: bool = False) -> int:
        monkeypatch.chdir(REPO)
        monkeypatch.setattr(sys, "argv", ["tune", *arguments])
        if parse_only:
            return TuneCLIParser().parse_args() is None
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0
        return 0

    return run


@pytest.fixture
def pairs_file(tmp_path):
    rows = [{"prompt": f"Is {t} good?", "chosen": f"Yes, {t} is good.", "rejected": f"No, avoid {t}."} for t in "abc"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@cache
def mistral_tokenizer() -> dict[str, str]:
    """Return the tokenizer's files of the folder of Mistral-7B-Instruct-v0.2."""
    vocabulary = Path(find_spec("mistral_common").submodule_search_locations[0]) / "data" / "tokenizer.model.v1"
    with TemporaryDirectory() as folder:
        shutil.copy(vocabulary, Path(folder) / "tokenizer.model")
        LlamaTokenizer.from_pretrained(folder, legacy=False).save_pretrained(folder)
        files = {name: (Path(folder) / name).read_text() for name in ("tokenizer.json", "tokenizer_config.json")}
    return files | {"chat_template.jinja": MISTRAL_V1}


def shrunken(name: str, tmp_path: Path, pairs_file: Path) -> tuple[list[str], Path]:
    """Return overrides for a big model's config, and its random checkpoint in the true layout."""
    llama = name.startswith("llama")
    vocabulary, base = (128_256, 500_000) if llama else (32_000, 1_000_000)
    n_files = {"llama8b": 4, "llama70b": 3, "mistral7b": 3}[name.split("_")[0]]
    small = {**SMALL, **(BLOCKS_OF_NF4 if "qlora" in name else {})}
    sizes = {**small, "vocab_size": vocabulary, "rope_base": base}
    folder = write_llama_folder(tmp_path / "model", sizes, tied=False, n_files=n_files)
    if llama:
        tokenizer = Path(find_spec("llama_models").submodule_search_locations[0]) / "llama3" / "tokenizer.model"
    else:
        tokenizer = folder
        for file, text in mistral_tokenizer().items():
            (folder / file).write_text(text)
    # a mixture has two sets
    datasets = ["dataset.left", "dataset.right"] if name.endswith("identical_prompts") else ["dataset"]
    changed = ("num_layers", "num_heads", "num_kv_heads", "embed_dim", "intermediate_dim", "max_seq_len")
    return [
        *[f"model.{key}={small[key]}" for key in changed],
        f"output_dir={tmp_path / 'run'}",
        f"tokenizer.path={tokenizer}",
        f"checkpointer.checkpoint_dir={folder}",
        # torchtune collects garbage after each of the 30 files, which takes a second of a test's process
        *(["checkpointer.checkpoint_files.max_filename='00003'"] if name.startswith("llama70b") else []),
        *[f"{key}.source=json" for key in datasets],
        *[f"{key}.data_files={pairs_file}" for key in datasets],
        "device=cpu",
        *ONE_STEP,
    ], folder


@pytest.fixture
def stand_ins(tmp_path, pairs_file):
    """Files that a reader would bring, by the name that they have in the documents."""
    item = {"topic": "t", "text": "Taxes should fall.", "weights": {"economic": [-2, -1, 1, 2]}}
    instrument = {
        "name": "one", "version": "1", "licence": "MIT", "language": "en", "source": "test",
        "options": ["never", "no", "yes", "always"],
        "axes": {"economic": {"low": "left", "high": "right", "offset": 0, "divisor": 1}},
        "items": [{"id": "a", **item}],
        "pairs": [{"id": "p", "topic": "t", "left": "Raise taxes.", "right": "Lower taxes."}],
    }  # fmt: skip
    survey = {"wave": "1", "licence": "MIT", "source": "test", "groups": {"all": {"margins": {"a": 0.5}}}}
    texts = {
        "mine.yaml": json.dumps(instrument),  # JSON is YAML
        "voters.yaml": json.dumps({**instrument, "populations": {"survey": survey}}),
        "bank.csv": "claim,scale,sign\nTaxes should fall.,economic,1\nTaxes should rise.,economic,-1\n",
        "mine.csv": "question,for,against\nIs tea good?,Yes it is.,No it is not.\nAnd milk?,Yes.,No.\n",
        "mine.txt": "The kettle boils.\nRain fell on the garden all day.\n",
        "labelled.csv": "text,label,target\nTea is democratic.,1,tea\nTea is dreadful.,5,tea\n",
        "leans.csv": "text,label\nTea is democratic.,left\nTea is dreadful.,right\n",
        "requests.csv": "request_left,request_right\n" + "".join(f"For {k}.,Against {k}.\n" for k in range(6)),
        "posts.csv": "text\nTea for all.\nTea for nobody.\n",
        "statements.csv": "l,r,topic\nRaise taxes.,Lower taxes.,tax\nOwn it together.,Own it alone.,property\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: tmp_path / name for name in texts} | {
        "path/to/adapter": tmp_path / "mine",
        "path/to/run": tmp_path / "checkpoints",
        "outputs/populations/issuebench20.yaml": tmp_path / "voters.yaml",
        "outputs/steering/vector": tmp_path / "mine",
        "outputs/influence/influence.jsonl": own_figures(tmp_path),
        "outputs/synthesis/dataset/left-train.jsonl": pairs_file,
        "outputs/review_answers/gold.jsonl": tmp_path / "gold.jsonl",
        "outputs/compass_modes/label_sample_stance.jsonl": tmp_path / "labelled.csv",
    }


@pytest.fixture(scope="session")
def tiny_adapter(tiny_model_dir, tmp_path_factory):
    """An adapter of the tiny model as peft makes it, not to be changed."""
    hf = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    folder = tmp_path_factory.mktemp("adapter")
    get_peft_model(hf, LoraConfig(target_modules=["q_proj"], r=2)).save_pretrained(folder)
    return folder


@pytest.fixture
def compass_overrides(tiny_model_dir, tiny_adapter, stand_ins, tmp_path):
    """Overrides that make configs/political_compass.yaml run on the tiny model, three adapters and one item."""
    for folder in ("adapter", "right", "mine", "checkpoints/checkpoint-1", "checkpoints/checkpoint-2"):
        shutil.copytree(tiny_adapter, tmp_path / folder)
    return [
        f"output_dir={tmp_path / 'compass'}",
        "model._component_=torchtune.models.llama3_2.llama3_2",
        *[f"model.{key}={value}" for key, value in {**TINY, "rope_base": 100_000, "scale_factor": 1}.items()],
        f"tokenizer.path={tiny_model_dir}",
        f"checkpointer.checkpoint_dir={tiny_model_dir}",
        f"instrument={stand_ins['mine.yaml']}",
        f"adapters.left={tmp_path / 'adapter'}",
        f"adapters.right={tmp_path / 'right'}",
        "n_bootstrap=200",
    ]


@pytest.fixture
def synthesis_overrides(tmp_path):
    """Overrides that give configs/synthesize_politune_like.yaml posts and a server; only a few rows come out."""
    table = tmp_path / "posts.csv"
    table.write_text("text\n" + "".join(f"{post['text']}\n" for post in posts(40)))
    with FaultServer(respond) as server:
        yield [
            f"sources.posts.source={table}",
            *[f"{part}.client.base_url={server.url}" for part in ("judge", "generator")],
            *[f"{part}.client.cache_dir={tmp_path / 'replies'}" for part in ("judge", "generator")],
            f"output_dir={tmp_path / 'synthesis'}",
            "topics.economic=[taxation]",
            "topics.social=[drugs]",
            "max_side_difference=1",
        ]


@pytest.fixture
def labelled_run(tmp_path):
    """The folder of a run with a judge, of whose answers some are drawn, and the file with people's labels of them."""
    folder, (_, truth) = write_run(tmp_path / "labelled_run"), make_rows()
    rows = draw_answers(read_log(folder / "judged.jsonl"), "stance", 100, 0)
    drawn = [{**row, "target": "t", "label": truth[answer_key(row)]} for row in rows]
    write_whole(folder / "label_sample_stance.jsonl", to_jsonl(drawn))
    write_whole(tmp_path / "gold.jsonl", to_jsonl(drawn))
    return folder


@pytest.fixture
def judge_overrides(tmp_path):
    """Overrides that give configs/validate_judge.yaml a server, which finds everything centrist."""

    def centrist(body: dict) -> str:
        return "10" if "Lean (0 to 20)" in body["messages"][-1]["content"] else "3"

    with FaultServer(centrist) as server:
        client = {"base_url": server.url, "cache_dir": tmp_path / "replies"}
        yield [f"output_dir={tmp_path / 'judges'}", *[f"judges.model.client.{k}={v}" for k, v in client.items()]]


@pytest.fixture
def server_url():
    """Address of a server that answers every question with the first label."""
    first = {"token": "1", "logprob": -0.1}
    logprobs = {"content": [{**first, "top_logprobs": [first]}]}
    with FaultServer(lambda body: completion(body, "1", logprobs=logprobs)) as server:
        yield server.url


def on_transformers(
    recipe: str, config: Path, words: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[list[str], Path | None]:
    """Return overrides that let a command with a transformers model run on a small one, and the folder of a family's.

    A config that names a family gets a shrunken model of this family, the others get the tiny Llama.
    """
    named = [word.removeprefix("model.path=") for word in words if word.startswith("model.path=")]
    path = (named or [yaml.safe_load((REPO / config).read_text())["model"]["path"]])[-1]
    tiny = request.getfixturevalue("tiny_model_dir")
    family = write_family(tmp_path / "family", Path(path).name, tiny) if Path(path).name in SHRUNKEN else None
    if family:  # its picture is that of any model
        request.getfixturevalue("unrendered")
    overrides = [f"model.path={family or tiny}"]
    if family and (recipe == "finetune/dpo_finetune.py" or any(w.startswith("tokenizer.path=") for w in words)):
        if "tokenizer" in yaml.safe_load((REPO / config).read_text()):
            overrides += [f"tokenizer.path={family}"]
    if recipe == "finetune/dpo_finetune.py":
        if family:
            rows = request.getfixturevalue("pairs_file")
            overrides += ["device=cpu"]
            if "data.datasets.politune" in (REPO / config).read_text():
                overrides += ["dataset.source=json", f"dataset.data_files={rows}"]
        return [*overrides, f"output_dir={tmp_path / 'run'}", "reference_cache_dir=null", *ONE_STEP], family
    asked = request.getfixturevalue("compass_overrides")
    if family:
        base = AutoModelForCausalLM.from_pretrained(family)
        for folder in ("adapter", "right", "mine"):
            get_peft_model(base, LoraConfig(target_modules=["q_proj"], r=2)).save_pretrained(tmp_path / folder)
        overrides += ["device=cpu", "modes=[choice,pairs]"]
    asked = [word for word in asked if not word.startswith(("model.", "tokenizer.", "checkpointer."))]
    return [*overrides, *asked], None


def start_worker(unbuffered: str, as_module: str, module: str, *arguments: str) -> None:
    """Do in a fork what torchrun's command does in a new process: ``python -u -m module arguments``."""
    assert (unbuffered, as_module) == ("-u", "-m")
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__")


def launch(*arguments: str) -> None:
    """Run `tune run --nproc_per_node`, with torchrun's own agent, in forks of this process, which has the imports."""
    read = torchrun.config_from_args

    def forking(args):
        config, _, words = read(args)
        config.start_method = "fork"
        return config, start_worker, words

    torchrun.config_from_args = forking
    run_tune(*arguments)


@pytest.fixture
def run_documented(tune, tmp_path, pairs_file, stand_ins, request):
    """Return a function that runs one documented command; it returns the run's folder and the model's."""

    def run(command: str) -> tuple[Path | None, Path | None]:
        words = shlex.split(command)
        names = {name: path for name, path in stand_ins.items() if any(name in word for word in words)}
        for name, path in names.items():  # what the reader would bring
            words = [word.replace(name, str(path)) for word in words]
        if any(SERVER in word for word in words):
            words = [word.replace(SERVER, request.getfixturevalue("server_url")) for word in words]
        if words[0] == "make":  # what make runs is documented, and tested, by itself
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=REPO, check=True, capture_output=True)
            return None, None
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], cwd=REPO, check=True)
            return None, None
        assert words[0] == "tune", f"not a command that can be tested: {command}"
        arguments = words[1:]
        if arguments[0] in ("download", "validate"):  # no network here: the command line must at least be right
            tune(arguments, parse_only=True)
            return None, None
        recipe = next(word for word in arguments[1:] if word.endswith(".py") or word.startswith("lora_"))
        config = Path(arguments[arguments.index("--config") + 1])
        assert (REPO / config).is_file()
        assert (REPO / recipe).is_file() or recipe == "lora_finetune_single_device"
        folder = None
        if config.stem == "packaged_gemma3_270m":  # its package is an extra: the command line must at least be right
            tune(arguments, parse_only=True)
            return None, None
        if recipe == "finetune/packaged_model.py":
            arguments += [f"output_dir={request.getfixturevalue('packaged_model_dir')}"]
        elif config.stem.startswith(("llama8b", "llama70b", "mistral7b_lora", "mistral7b_qlora")):
            overrides, folder = shrunken(config.stem, tmp_path, pairs_file)
            arguments += overrides
            if recipe == "finetune/dpo_finetune.py":
                arguments += [f"reference_cache_dir={tmp_path / 'reference'}"]
        elif recipe == "eval/influence.py":
            trained = tmp_path / "trained"
            train = tiny_overrides(request.getfixturevalue("tiny_model_dir"), trained) + ONE_STEP + ["dataset.subset=2"]
            config = "configs/smollm2_135m_lora_dpo_cpu.yaml"
            assert tune(["run", "finetune/dpo_finetune.py", "--config", config, *train, "lr_scheduler=null"]) == 0
            arguments += [f"run={trained}", f"output_dir={tmp_path / 'influence'}"]
            arguments += [f"instrument={stand_ins['mine.yaml']}"]
        elif recipe == "eval/steering.py":
            model = request.getfixturevalue("tiny_model_dir")
            arguments += [f"model.path={model}", f"output_dir={tmp_path / 'steering'}", "dataset.subset=2"]
            arguments += [f"neutral_text={stand_ins['mine.txt']}", "strengths=[0.1]", "max_surprise=9"]
        elif config.stem == "doses":
            request.getfixturevalue("compass_overrides")  # its adapters
            folders = {"steering": "mine", "left": "adapter", "right": "right"}
            arguments += [f"adapters.{name}={tmp_path / folder}" for name, folder in folders.items()]
            arguments += [f"model.path={request.getfixturevalue('tiny_model_dir')}", f"output_dir={tmp_path / 'doses'}"]
            arguments += [f"neutral_text={stand_ins['mine.txt']}", f"lean_instrument={stand_ins['mine.yaml']}"]
        elif config.parent.name != "studies" and "finetune.models.causal_lm" in (REPO / config).read_text() + command:
            overrides, folder = on_transformers(recipe, config, arguments, request, tmp_path)
            arguments += overrides
            if folder is not None and any(w.startswith("dataset=") and w.endswith("_right") for w in arguments):
                tune(arguments, parse_only=True)  # the same command for the left runs, and differs in its rows alone
                return None, None
        elif recipe == "finetune/dpo_finetune.py":
            arguments += tiny_overrides(request.getfixturevalue("tiny_model_dir"), tmp_path / "run") + ONE_STEP
            if any(word.startswith("dataset=data.datasets.politune") for word in arguments):
                arguments += ["dataset.source=json", f"dataset.data_files={pairs_file}"]
        elif recipe == "data/synthesize.py":
            arguments += request.getfixturevalue("synthesis_overrides")
        elif recipe == "eval/validate_judge.py":
            arguments += request.getfixturevalue("judge_overrides")
        elif recipe == "eval/train_judge.py":
            labels = [(f"Tea is {word}.", label, f"t{k}") for k in range(4) for word, label in LABELS.items()]
            rows = [dict(zip(("text", "label", "target"), row)) for row in labels]
            write_whole(tmp_path / "many.jsonl", to_jsonl(rows))
            arguments += [f"source={tmp_path / 'many.jsonl'}", f"output_dir={tmp_path / 'judge'}", "n_folds=2"]
            arguments += [f"encoder.folder={request.getfixturevalue('tiny_model_dir')}", "strengths=[1]"]
        elif recipe == "eval/import_populations.py":
            voters = {"democrats": 0.5, "republicans": 0, "all_voters": 0.25}
            (tmp_path / "party_margins.json").write_text(json.dumps([{"topic_id": k, **voters} for k in "12"]))
            issues = "topic_id,topic_neutral,topic_pro,topic_con\n1,tea,good tea,bad tea\n2,milk,good milk,bad milk\n"
            (tmp_path / "issues.csv").write_text(issues)
            arguments += [f"source={tmp_path}", f"output_dir={tmp_path / 'populations'}"]
        elif recipe == "eval/import_answers.py":
            arguments += [f"source={own_topics(tmp_path)}", f"output_dir={tmp_path / 'topics'}", "n_pairs=2"]
        elif recipe == "eval/label_answers.py":
            arguments += [f"output_dir={request.getfixturevalue('labelled_run')}"]
        elif recipe == "eval/study.py":
            arguments += [f"output_dir={tmp_path / 'study'}", "dry_run=True"]  # tests/test_study.py runs one
            for side in ("left", "right"):  # files of the reader's own, whose presence a dry run looks at
                own = tmp_path / f"{side}.jsonl"
                rows = ({"prompt": f"Who {k}?", "chosen": "All.", "rejected": "None."} for k in range(99))
                own.write_text("".join(json.dumps(row) + "\n" for row in rows))
                arguments = [word.replace(f"=politune/{side}.jsonl", f"={own}") for word in arguments]
            if str(config).endswith("studies/topics.yaml"):
                topics = [f"train.dataset.data_files={own_topics(tmp_path)}", "eval.instrument=compass60"]
                arguments = [w for w in arguments if not w.startswith("train.dataset.data_files=")] + topics
            if str(config).endswith("studies/influence.yaml"):
                arguments += influence_overrides(tmp_path)
        elif recipe == "data/audit.py":
            arguments += [f"output_dir={tmp_path / 'audit'}"]
        elif recipe in ("data/review.py", "eval/playground.py"):
            arguments += [f"output_dir={tmp_path / 'page'}", "port=0"]
            if recipe == "eval/playground.py":
                arguments += [w for w in request.getfixturevalue("compass_overrides") if not w.startswith(NO_PAGE)]
            request.getfixturevalue("monkeypatch").setattr(LocalServer, "serve_forever", lambda _: None)
        elif recipe == "finetune/export.py":
            request.getfixturevalue("compass_overrides")  # its adapter
            sides = [f"adapters.left={tmp_path / 'adapter'}", f"adapters.right={tmp_path / 'right'}"]
            base = request.getfixturevalue("tiny_model_dir")
            arguments += [*sides, f"base={base}", f"output_dir={tmp_path / 'export'}"]
        elif recipe == "eval/side_effects.py":
            overrides = request.getfixturevalue("compass_overrides")
            arguments += [w for w in overrides if not w.startswith(("instrument=", "n_bootstrap="))]
            arguments += ["max_new_tokens=2"]
        elif recipe == "eval/political_compass.py":
            arguments = [word for word in arguments if not word.startswith("shuffled=")]  # the shipped bank's null
            given = {word.split("=")[0] for word in arguments}
            nothing = {word.removesuffix("=null") for word in arguments if word.endswith("=null")}
            overrides = {word.split("=")[0]: word for word in request.getfixturevalue("compass_overrides")}
            sizes = {"max_new_tokens": 2, "open_max_new_tokens": 2}
            if config.stem == "write":  # the shipped bank, a few requests of it
                del overrides["instrument"]
                sizes |= {"instrument_limit": 6, "n_write_templates": 1}
            if "instrument=compass60" in arguments:
                sizes |= {"instrument_limit": 6}
            overrides |= {key: f"{key}={n}" for key, n in sizes.items()}
            if config.stem == "dialogue":  # the tiny bank has fewer pairs
                overrides["instrument_limit"] = "instrument_limit=null"
            if "rows" in given:  # of a run that is there
                assert tune([*arguments[:4], *overrides.values()]) == 0
                rows = Path(overrides["output_dir"].removeprefix("output_dir="), "results.jsonl")
                arguments = [f"rows={rows}" if word.startswith("rows=") else word for word in arguments]
                overrides["output_dir"] = f"output_dir={tmp_path / 'anew'}"
            arguments += [
                word
                for key, word in overrides.items()
                if key not in given - {"output_dir", "instrument_limit"} and key.split(".")[0] not in nothing
            ]
        if "--nnodes" in arguments:  # there is one node here: the command line must at least be right
            tune(arguments, parse_only=True)
            return None, None
        if "--nproc_per_node" in arguments and any("politune_right" in word for word in arguments):
            # the same command for the left starts real processes; the mirrored one differs in its rows alone
            k = arguments.index("--nproc_per_node")
            del arguments[k : k + 2]
        if "--nproc_per_node" in arguments:
            arguments[arguments.index("--nproc_per_node") + 1] = "2"
            launcher = fork(launch, *arguments)
            launcher.start()
            launcher.join()
            assert launcher.exitcode == 0
        else:
            assert tune(arguments) == 0
        return tmp_path / "run", folder

    return run
