# SPDX-License-Identifier: MIT
"""Configs are checked before anything is loaded, and an error that a user can mend is one line."""

import json
import logging
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torchtune import config, utils
from torchtune.config._errors import InstantiationError
from tqdm import tqdm

from data.pairs.rows import read_table
from data.recipe.config import (
    FOLDERS,
    STOPPED,
    _below_bars,
    _did_you_mean,
    check_config,
    check_place,
    component,
    entry_point,
    plain_errors,
)
from data.recipe.figures import number

REQUIRED, OPTIONAL = {"a", "optimizer"}, {"b": 5, "extra": None}
LORA = {"_component_": "finetune.models.lora_smollm2_135m", "lora_attn_modules": ["q_proj"]}
ADAM = {"_component_": "torch.optim.Adam", "lr": 1e-3}


def check(cfg):
    return check_config(OmegaConf.create(cfg), REQUIRED, OPTIONAL)


def test_optional_keys_are_filled_in_and_nothing_is_changed_in_place():
    cfg = OmegaConf.create({"a": 1, "optimizer": ADAM})
    assert check_config(cfg, REQUIRED, OPTIONAL) == {"a": 1, "b": 5, "extra": None, "optimizer": ADAM}
    assert cfg == {"a": 1, "optimizer": ADAM}


def test_all_problems_are_said_at_once():
    with pytest.raises(ValueError, match="refused") as error:
        check({"optimzer": ADAM, "optimizer": {**ADAM, "weight_decy": 0}, "zzz": 1})
    text = str(error.value)
    assert "unknown key `optimzer`; did you mean `optimizer`?" in text
    assert "`optimizer.weight_decy` is not an argument of torch.optim.Adam; did you mean `weight_decay`?" in text
    assert "unknown key `zzz`; known: a, b, extra, optimizer" in text
    assert "missing key `a`" in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"output_dir": ["here"]},
            r"`output_dir=\['here'\]` is a list, want text; write output_dir=here",
        ),
        ({"seed": "abc"}, "`seed=abc` is text, want a whole number or null"),
        ({"epochs": None}, "`epochs=null` is null, want a whole number"),
        ({"n_orders": None}, "`n_orders=null` is null, want a whole number"),  # its default is 4
        ({"batch_size": "four"}, "`batch_size=four` is text, want a whole number"),
        ({"batch_size": True}, "`batch_size=True` is True or False, want a whole number"),
        ({"port": 70000}, "`port=70000` is out of range; use 0 to 65535"),
        ({"source": 5}, "`source=5` is a whole number, want text or a mapping or null"),
        ({"port": 80.5}, "`port=80.5` is a number, want a whole number"),
        ({"modes": "pairs"}, r"`modes=pairs` is text, want a list; write modes=\[pairs\]"),
        ({"optimizer": {**ADAM, "lr": -1}}, "`optimizer.lr=-1` is out of range; use 0 or more"),
        ({"optimizer": {**ADAM, "lr": "high"}}, "`optimizer.lr=high` is text, want a number"),
        ({"optimizer": {**ADAM, "amsgrad": "maybe"}}, "`optimizer.amsgrad=maybe` is text, want True or False"),
        ({"model": {**LORA, "lora_rank": 0}}, "`model.lora_rank=0` is out of range; use 1 or more"),
        (
            {"model": {**LORA, "lora_attn_modules": "q_proj"}},
            r"each one of .*; write model.lora_attn_modules=\[q_proj\]",
        ),
        ({"model": {**LORA, "lora_attn_modules": ["query"]}}, "want a list, each one of q_proj, k_proj"),
        ({"min_kappa": 6}, "`min_kappa=6` is out of range; use -1 to 1"),
        ({"min_kappa": float("nan")}, "`min_kappa=nan` is no number"),
        ({"clip_grad_norm": 0}, "`clip_grad_norm=0` is out of range; use a number above 0"),
        ({"duplicate": 1.5}, "`duplicate=1.5` is out of range; use a number above 0 to 1"),
        ({"related": 0}, "`related=0` is out of range; use a number above 0 to 1"),
        ({"min_cosine": 0.0}, "`min_cosine=0.0` is out of range; use a number above 0 to 1"),
        ({"max_toxicity": 1.5}, "`max_toxicity=1.5` is out of range; use 0 to 1"),
        ({"n_words": [90, 60]}, r"`n_words=\[90, 60\]`; use two numbers, the least and the most"),
        ({"n_words": [60]}, r"`n_words=\[60\]`; use two numbers"),
        ({"push_to_hub": "mine"}, "`push_to_hub=mine` cannot be used; write OWNER/NAME"),
        ({"column_map": {"chosen": "a", "rejected": "a"}}, "names a twice; each column is one thing"),
        ({"column_map": {"prompt": None}}, "`column_map.prompt=null` is no name of a column; leave prompt out"),
        ({"columns": {"target": True}}, "`columns.target=True` is no name of a column; YAML reads on, yes and true so"),
        ({"client": {"_component_": "data.chat.ChatClient", "model": False}}, "quotes: client.model='\"off\"'"),
        ({"modes": ["choice", "choice"]}, "names choice twice"),
        ({"column_map": [1]}, r"`column_map=\[1\]` is a list, want a mapping or null"),
        ({"columns": None}, "`columns=null` is null, want a mapping"),
        ({"hold_out": None}, "`hold_out=null` is null, want a number"),
        ({"side": ["left"]}, r"`side=\['left'\]` is a list, want text or null; write side=left$"),
        ({"side": ["left", "right"]}, "want text or null$"),
        ({"output_dir": ""}, "`output_dir=` cannot be used; name a folder"),
        ({"model": {"_component_": "json"}}, "`model._component_: json` is no class or function; give model=MODULE"),
        ({"model": {**LORA, "lora_alpha": -1}}, "`model.lora_alpha=-1` is out of range; use a number above 0"),
        ({"params": {"stream": True}}, "`params.stream` is set by what asks the server"),
        ({"params": {"max_tokens": 0}}, "`params.max_tokens=0` is out of range; use 1 or more"),
        ({"client": {"_component_": "data.chat.ChatClient", "base_url": "localhost:8000/v1"}}, "up to /v1"),
        ({"client": {"_component_": "data.chat.ChatClient", "base_url": "http://a/v1/chat/completions"}}, "up to /v1"),
    ],
)
def test_values_of_a_wrong_type_or_range_are_refused_with_the_keys(more, said):
    optional = {"seed": 0, "epochs": 1, "batch_size": 1, "port": 80, "modes": ["choice"], "model": None, "client": None}
    optional |= {"min_kappa": 0.6, "clip_grad_norm": 1.0, "duplicate": 0.5, "n_words": [6, 9], "push_to_hub": None}
    optional |= {"params": None, "column_map": None, "columns": {}, "source": None, "side": None, "output_dir": "o"}
    optional |= {"n_orders": 4, "related": 0.25, "min_cosine": 0.9, "max_toxicity": 0.5, "hold_out": 0.1}
    with pytest.raises(ValueError, match=said):
        check_config(OmegaConf.create({"optimizer": ADAM, **more}), {"optimizer"}, optional)


def test_null_stays_what_a_page_says_of_it():
    """``language: null`` audits texts of any language."""
    assert (
        check_config(OmegaConf.create({"language": None}), (), {"language": "data.language.not_english"}).language
        is None
    )


def test_null_is_an_empty_list_where_that_is_the_default():
    assert check_config(OmegaConf.create({"raters": None}), (), {"raters": []}) == {"raters": []}


def test_a_key_that_stands_where_its_name_belongs_is_not_shown():
    client = {"_component_": "data.chat.ChatClient", "api_key_env": "sk-a-secret"}
    with pytest.raises(ValueError, match="never the key") as error:
        check_config(OmegaConf.create({"client": client}), {"client"}, {})
    assert "sk-a-secret" not in str(error.value)


def test_what_this_machine_lacks_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    save_file({"weight": torch.zeros(8, 8)}, model / "model.safetensors")
    (model / "tokenizer.json").write_text("{}")
    files = {"checkpoint_dir": str(model), "checkpoint_files": ["model.safetensors"]}
    cfg = {
        "output_dir": str(tmp_path / "out"),
        "device": "cpu",
        "checkpointer": files,
        "tokenizer": {"path": str(model)},
    }

    def problem(**changes):
        with pytest.raises(ValueError, match="this cannot run here") as error:
            check_place(OmegaConf.create(cfg | changes))
        return str(error.value)

    check_place(OmegaConf.create(cfg))
    assert "`device=cuda`: torch finds no CUDA device here; use device=cpu" in problem(device="cuda")
    assert "is no device" in problem(device="gpu")
    assert "no such folder" in problem(checkpointer=files | {"checkpoint_dir": str(tmp_path / "none")})
    assert "b.safetensors is not there" in problem(checkpointer=files | {"checkpoint_files": ["b.safetensors"]})
    assert "is a file" in problem(output_dir=str(model / "config.json" / "out"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no tokenizer.json" in problem(tokenizer={"path": str(empty)})
    (model / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    assert "its weights are quantised" in problem()
    (model / "config.json").write_text("{}")
    source = tmp_path / "out" / "defects.jsonl"
    source.parent.mkdir()
    source.write_text("{}")
    assert "lies in output_dir" in problem(source=str(source))
    assert "lies in output_dir" in problem(source={"left": str(source), "right": 5})
    assert "no shell has replaced ~" in problem(output_dir="~/out")
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[:-1])
    assert "not a whole safetensors file" in problem()
    (model / "model.safetensors").write_bytes(content[:4])
    assert "not a whole safetensors file" in problem()
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "cannot be written to" in problem()


def test_a_config_that_cannot_be_read_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("- a")
    for name in ("none.yaml", "bad.yaml", "list.yaml"):
        arguments = ["--config", str(tmp_path / name)]
        monkeypatch.setattr("sys.argv", ["recipe", *arguments])
        with pytest.raises(SystemExit) as stop:
            entry_point(lambda cfg: None)()
        assert stop.value.code.startswith("error: the command line or its config cannot be read: ")
        assert len(stop.value.code.splitlines()) == 2
    (tmp_path / "good.yaml").write_text("a: []\noptimizer: {b: 1}")
    for given in ("a={b: c}", "optimizer=[1]"):
        monkeypatch.setattr("sys.argv", ["recipe", "--config", str(tmp_path / "good.yaml"), given])
        with pytest.raises(SystemExit) as stop:
            entry_point(lambda cfg: None)()
        assert f"belongs ({given}), or the reverse: key=[{{…}}] or part.key=value" in stop.value.code


def test_a_config_that_is_not_there_is_told_the_nearest_one(monkeypatch):
    def said(path):
        monkeypatch.setattr("sys.argv", ["recipe", "--config", path])
        with pytest.raises(SystemExit) as stop:
            entry_point(lambda cfg: None)()
        return stop.value.code

    near = said("configs/smollm2_135m_lora_dpo.yaml")
    assert "No such file or directory: " in near
    assert "; did you mean configs/smollm2_135m_lora_dpo_cpu.yaml?\n" in near
    assert "did you mean" not in said("q.yaml")


def interrupted(cfg):
    bar = tqdm(total=2, desc="asking")
    bar.update()
    raise KeyboardInterrupt(*cfg.get("said", []))


@pytest.mark.parametrize(("override", "said"), [([], STOPPED), (["said=[saved]"], "saved")])
def test_ctrl_c_ends_every_recipe_with_one_line(monkeypatch, tmp_path, capsys, override, said):
    (tmp_path / "empty.yaml").write_text("a: 1")
    monkeypatch.setattr("sys.argv", ["recipe", "--config", str(tmp_path / "empty.yaml"), *override])
    with pytest.raises(SystemExit) as stop:
        entry_point(interrupted)()
    assert stop.value.code == 130
    bar, line = capsys.readouterr().err.strip().rsplit("\n", 1)
    assert ("asking:" in bar, line) == (True, said)
    monkeypatch.setenv("POLITUNE_TRACEBACK", "1")
    with pytest.raises(KeyboardInterrupt):
        entry_point(interrupted)()


def test_a_line_of_the_log_begins_below_an_open_bar(capsys):
    handler = logging.StreamHandler(sys.stderr)
    log = utils.get_logger()
    log.addHandler(handler)
    log.addFilter(_below_bars)
    try:
        with tqdm(total=2, desc="asking"):
            log.warning("asked once")
        assert "\nasked once\n" in capsys.readouterr().err
        log.warning("closed")
        assert not capsys.readouterr().err.startswith("\n")  # no bar is open
    finally:
        log.removeHandler(handler)


def test_a_name_of_one_letter_is_short_for_no_word():
    assert _did_you_mean("learning_rate", {"lr", "l"}) == "; did you mean `lr`?"
    assert _did_you_mean("kind", {"k", "kinds"}) == "; did you mean `kinds`?"


def test_component_that_does_not_exist():
    with pytest.raises(ValueError, match="no mirored_left; did you mean data.datasets.mirrored_left"):
        check({"a": 1, "optimizer": {"_component_": "data.datasets.mirored_left"}})
    with pytest.raises(ValueError, match="`extra.mean` is not an argument of finetune.losses.SFTLoss; it takes none"):
        check({"a": 1, "optimizer": ADAM, "extra": {"_component_": "finetune.losses.SFTLoss", "mean": True}})
    with pytest.raises(ValueError, match="cannot be imported: No module named 'nowhere'"):
        check({"a": 1, "optimizer": {"_component_": "nowhere.at_all"}})
    with pytest.raises(ValueError, match=r"`optimizer.learning_rate` is not .*; did you mean `lr`\?"):
        check({"a": 1, "optimizer": {"_component_": "torch.optim.Adam", "learning_rate": 1e-3}})
    with pytest.raises(ValueError, match="give a module and a name"):
        check({"a": 1, "optimizer": {"_component_": "adam"}})
    with pytest.raises(ValueError, match=r"`optimizer._component_: torch.optim.Nope` cannot be imported"):
        check({"a": 1, "optimizer": {"_component_": "torch.optim.Nope"}})


def test_data_where_a_builder_belongs_is_told_how_to_name_it(tmp_path, monkeypatch):
    def problem(path):
        with pytest.raises(ValueError, match="refused") as error:
            check_config(OmegaConf.create({"dataset": {"_component_": path}}), {"dataset"}, {})
        return str(error.value).partition("\n  - ")[2]

    monkeypatch.chdir(tmp_path)
    Path("mine.csv").touch()
    assert problem("scale-lab/politune-left") == (
        "`dataset=scale-lab/politune-left` is no builder; a file or a set of the Hub is "
        "dataset=data.datasets.preference_pairs dataset.source=scale-lab/politune-left"
    )
    assert "dataset.source=mine.csv" in problem("mine.csv")
    assert "did you mean data.datasets.mirrored_left" in problem("data.datasets.mirored_left")
    several = problem(["data.datasets.mirrored_left", "data.datasets.mirrored_right"])
    assert several.startswith("`dataset` is a list: several sets are a list of mappings in the YAML file")
    assert "dataset.data_files=[a.csv,b.csv]" in several
    with pytest.raises(ValueError, match=r"\n  - `dataset` is a list: several sets are"):  # as validation_dataset=[a.b]
        check_config(OmegaConf.create({"dataset": ["a.b"]}), {"dataset"}, {})


@pytest.mark.parametrize("name", ["mirrored_left", "mirrored_right", "mirrored_centre", "mirrored_left_sft"])
def test_a_builder_that_names_its_set_takes_no_other(name):
    """torchtune keeps the arguments of the component that stood there before."""
    left_over = {
        "source": "csv", "data_files": "a.csv", "name": "a", "revision": "b", "split": "c", "column_map": {},
    }  # fmt: skip
    with pytest.raises(ValueError, match="refused") as error:
        check({"a": 1, "optimizer": {"_component_": f"data.datasets.{name}", **left_over}})
    for key in left_over:
        assert f"`optimizer.{key}` is not an argument of data.datasets.{name}" in str(error.value)
        assert f"(~optimizer.{key} takes it out)" in str(error.value)
    assert "known: hold_out" in str(error.value)  # no build, read or target, which are functions
    check({"a": 1, "optimizer": {"_component_": f"data.datasets.{name}", "where": {"axis": "social"}, "subset": 9}})


def test_a_set_of_the_hub_may_be_read_from_a_copy():
    of_set = {"revision": "b", "split": "train[:50%]", "column_map": {"chosen": "rejected", "rejected": "chosen"}}
    copy = {"source": "json", "data_files": "left.jsonl"}
    for given in (of_set, copy):
        check({"a": 1, "optimizer": {"_component_": "data.datasets.politune_left", **given}})


def test_components_in_a_list_are_checked():
    with pytest.raises(ValueError, match="`extra.wrong` is not an argument"):
        check({"a": 1, "optimizer": ADAM, "extra": [ADAM, {**ADAM, "wrong": 1}]})


def test_value_that_must_be_given():
    with pytest.raises(ValueError, match="`a` has no value"):
        check({"a": "???", "optimizer": ADAM})


def test_null_on_the_command_line_switches_a_component_off():
    # torchtune turns extra=null into extra._component_=null
    switched = check({"a": 1, "optimizer": ADAM, "extra": {"_component_": None, "lr": 1}})
    assert switched.extra is None
    with pytest.raises(ValueError, match="missing key `optimizer`"):
        check({"a": 1, "optimizer": {"_component_": None, "lr": 1}})


def test_optional_component_may_be_a_bare_dotpath_and_must_be_named():
    def found(extra):
        return check_config(OmegaConf.create({"a": 1, "optimizer": ADAM, **extra}), REQUIRED, OPTIONAL, ["extra"]).extra

    assert found({"extra": "torch.optim.Adam"}) == {"_component_": "torch.optim.Adam"}
    assert found({}) is None
    with pytest.raises(ValueError, match="`extra` names no component; give extra._component_"):
        found({"extra": {"lr": 1}})


@pytest.fixture
def ends(monkeypatch):
    """Return a function that gives the one line with which an entry point ends, or lets its error through."""
    monkeypatch.setattr("data.recipe.config.FOLDERS", [*FOLDERS, Path(__file__).resolve().parent])

    def run(body):
        with pytest.raises(SystemExit) as stop:
            plain_errors(lambda _: body())(None)
        return stop.value.code

    return run


def damaged(path):
    try:
        json.loads("{")
    except ValueError as error:
        raise ValueError(
            f"{path} row 2: "
            "no"
        ) from error  # fmt: skip


def test_an_error_that_this_project_raises_is_said_in_one_line(ends, tmp_path, monkeypatch):
    assert ends(lambda: damaged("a.csv")) == (
        "error: a.csv row 2: no\n(ValueError; POLITUNE_TRACEBACK=1 shows where)"
    )  # fmt: skip
    assert ends(lambda: check({"b": 1})).startswith("error: the config was refused:\n  - missing key `a`")
    assert ends(lambda: open(tmp_path / "none")).startswith("error: [Errno 2] No such file")
    monkeypatch.setenv("POLITUNE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="row 2"):
        ends(lambda: damaged("a.csv"))


def test_an_error_stands_on_a_line_of_its_own_after_an_open_bar(ends, tmp_path, capsys):
    def work():
        bar = tqdm(total=2, desc="asking")
        bar.update()
        read_table(tmp_path / "none.csv")

    said = ends(work)
    assert said.startswith("error: ")
    assert capsys.readouterr().err.endswith("\n")


def test_a_component_that_cannot_be_made_is_one_line(ends):
    def made(*args, **node):
        return ends(lambda: config.instantiate(OmegaConf.create(node), *args))

    said = made(**LORA, lora_rank=4, lora_alpha=8, apply_lora_to_output=True)
    assert "finetune.models.lora_smollm2_135m cannot be made of the arguments in the config: apply_lora_to_" in said
    lacking = made(None, _component_="data.datasets.preference_pairs")
    assert "missing 1 required keyword-only argument: 'source'" in lacking
    # a partial has no name of its own
    assert "data.datasets.truth_pairs cannot be made" in made(None, _component_="data.datasets.truth_pairs")
    assert "data.datasets.Alpaca" in made(_component_="data.datasets.Alpaca")
    assert "nowhere" in ends(lambda: OmegaConf.create({"a": "${nowhere}"}).a)


def test_a_place_that_cannot_be_written_is_one_line_whoever_says_it(ends, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "choose a place" in ends(lambda: (tmp_path / "file").mkdir(parents=True))
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    assert "get the file again" in ends(lambda: load_file(tmp_path / "cut.safetensors"))
    assert "Not a directory" in ends(lambda: (tmp_path / "file" / "in_it").mkdir(parents=True))


def test_an_error_of_a_user_outside_the_project_keeps_its_traceback():
    with pytest.raises(ValueError, match="row 2"):
        plain_errors(damaged)("a.csv")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (lambda: 1 / 0, ZeroDivisionError),
        (lambda: json.loads("{"), ValueError),  # the last words of a library help nobody without where
        (lambda: max([]), ValueError),
        (lambda: int("x"), ValueError),
        (lambda: number("x"), ValueError),  # in a line of data/recipe/figures.py
        (lambda: {}[1], KeyError),
    ],
)
def test_a_fault_of_the_code_keeps_its_traceback(ends, body, error):
    with pytest.raises(error):
        ends(body)


def test_an_entry_point_stays_what_it_is():
    @plain_errors
    def main(cfg):
        """Divide."""
        return 1 / cfg

    assert main(2) == 0.5
    assert main.__doc__ == "Divide."


def test_a_component_is_named_alone_or_with_arguments():
    assert component("fractions.Fraction") is Fraction
    assert component(OmegaConf.create({"_component_": "fractions.Fraction", "denominator": 3}))(2) == Fraction(2, 3)
    with pytest.raises(InstantiationError, match="Nothing"):
        component("fractions.Nothing")


def untyped(rate: "no type at all" = 1.0):  # noqa: F722
    """Take an argument whose annotation only a person can read."""


def test_an_annotation_that_python_cannot_read_is_no_problem():
    cfg = OmegaConf.create({"part": {"_component_": f"{__name__}.untyped", "rate": 2.0}})
    assert check_config(cfg, {"part"}, {}).part.rate == 2.0
