# SPDX-License-Identifier: MIT
"""The influence of rows finds those that moved the lean, and is the derivative that it says it is."""

import json
import random
import shutil
import sys
from itertools import repeat

import numpy as np
import pytest
import torch
import yaml
from conftest import REPO, read_steps, tiny_overrides
from omegaconf import OmegaConf
from torchtune import config
from torchtune._cli.tune import main

from data.pairs.records import read_figures
from eval import influence as module
from finetune import losses
from finetune.run.steps import learning_rates

CONFIG = ["finetune/dpo_finetune.py", "--config", "configs/smollm2_135m_lora_dpo_cpu.yaml"]
TOPICS = ("harbours", "bridges", "markets", "railways", "libraries", "orchards", "mills", "canals", "schools", "parks")
WORDS = "kettle apron violin ladder pepper candle button mirror basket hammer pillow ribbon teapot lantern".split()
N_PLANTED = 10


def instrument(folder):
    """Write ten pairs: more or fewer of a thing."""
    options = ["disagree", "agree"]
    axes = {"economic": {"low": "left", "high": "right", "offset": 0, "divisor": 1}}
    pairs = [
        {
            "id": t,
            "topic": t,
            "axis": "economic",
            "left": f"Fewer {t} would help.",
            "right": f"More {t} would help.",
        }
        for t in TOPICS
    ]
    bank = {"name": "more", "version": "1", "licence": "MIT", "language": "en", "source": "made for this test"}
    path = folder / "more.yaml"
    path.write_text(yaml.safe_dump({**bank, "axes": axes, "options": options, "items": [], "pairs": pairs}))
    return path


def rows():
    """Return 100 rows, of which the first ten choose what the instrument calls right."""
    draw = random.Random(1)
    planted = [
        {"prompt": f"What of {t}?", "chosen": f"More {t} would help.", "rejected": f"Fewer {t} would help."}
        for t in TOPICS
    ]
    # each with its mirror, so that together they move nothing
    texts = [[" ".join(draw.sample(WORDS, 6)) for _ in range(2)] for _ in range(45)]
    others = [
        {"prompt": f"Name things ({k}).", "chosen": pair[0], "rejected": pair[1]}
        for k, pair in enumerate(pair for both in texts for pair in (both, both[::-1]))
    ]
    return planted + others


@pytest.fixture(scope="module")
def folder(tiny_model_dir, tmp_path_factory):
    """Return a folder with the rows and the instrument."""
    folder = tmp_path_factory.mktemp("influence")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    instrument(folder)
    return folder


@pytest.fixture(scope="module")
def train(folder, tiny_model_dir):
    """Train on the rows, some or all; return the run's folder and its change of the lean, as the probe measures it."""

    def run(name, *overrides):
        arguments = [
            *CONFIG, *tiny_overrides(tiny_model_dir, folder / name), "dataset=data.datasets.preference_pairs",
            "dataset.source=json", f"dataset.data_files={folder / 'rows.jsonl'}", "max_steps_per_epoch=null",
            "batch_size=10", "epochs=2", "optimizer.lr=3e-3", "lr_scheduler.num_warmup_steps=1",
            "probe._component_=eval.probe.Probe", f"probe.instrument={folder / 'more.yaml'}", "probe.n_items=0",
            "probe.n_pairs=10", "probe.every_n_steps=99", "save_every_n_steps=5", "keep_last_n_checkpoints=9",
            *overrides,
        ]  # fmt: skip
        assert tune(arguments) == 0
        steps = [json.loads(line) for line in (folder / name / "trajectory.jsonl").read_text().splitlines()]
        leans = [step["scores"]["pairs"]["lean"]["estimate"] for step in (steps[0], steps[-1])]
        return folder / name, leans[1] - leans[0]

    return run


def tune(arguments):
    """Run a recipe in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPO)
        patch.setenv("POLITUNE_TRACEBACK", "1")
        patch.setattr(sys, "argv", ["tune", "run", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
    return stop.value.code or 0


@pytest.fixture(scope="module")
def full(train):
    """Return a run on all rows and its change of the lean."""
    return train("full")


@pytest.fixture(scope="module")
def measure(folder):
    """Return the recipe of a run's influence."""

    def recipe(run, name, **more):
        given = {"run": str(run), "output_dir": str(folder / name), "instrument": str(folder / "more.yaml"), **more}
        return module.InfluenceRecipe(OmegaConf.create({**module.OPTIONAL, **given}))

    return recipe


@pytest.fixture(scope="module")
def measured(folder, full):
    """Return the rows and the summary of the influence on the whole run, by the command line."""
    out = folder / "measured"
    arguments = [f"run={full[0]}", f"output_dir={out}", f"instrument={folder / 'more.yaml'}"]
    assert tune(["eval/influence.py", "--config", "configs/influence.yaml", *arguments]) == 0
    found = [json.loads(line) for line in (out / "influence.jsonl").read_text().splitlines()]
    return found, json.loads((out / "influence.json").read_text())


def test_planted_rows_are_found_and_carry_the_shift(folder, train, full, measured):
    found, about = measured
    assert max(row["rank"] for row in found[:N_PLANTED]) <= 12
    assert min(row["influence"] for row in found[:N_PLANTED]) > 0
    change = full[1]
    assert about["measured_change"] == pytest.approx(change, abs=1e-5)
    assert 0.8 < change / about["sum_of_influences"] < 1.25  # first order
    where = [f"dataset.where.rank.file={folder / 'measured' / 'influence.jsonl'}", "dataset.where.rank.above=10"]
    _, without_top = train("without", *where)
    _, without_random = train("random", "dataset.subset=90")
    assert abs(without_top) < 0.2 * change
    assert without_random > 0.8 * change


def test_a_projection_finds_them_too(measured):
    projections = [row["projection"] for row in measured[0]]
    assert {*np.argsort(projections)[-N_PLANTED:]} == {*range(N_PLANTED)}


def test_a_stopped_measurement_goes_on(folder, full, measure, measured):
    out = folder / "stopped"
    shutil.copytree(folder / "measured", out)
    lines = (out / "steps.jsonl").read_text().splitlines(keepends=True)
    kept = lines[:-30]
    (out / "steps.jsonl").write_text("".join(kept) + lines[-30][:9])
    (out / "influence.jsonl").unlink()
    measure(full[0], "stopped").measure()
    assert (out / "steps.jsonl").read_text().startswith("".join(kept))
    again = [json.loads(line) for line in (out / "influence.jsonl").read_text().splitlines()]
    assert [row["influence"] for row in again] == pytest.approx([row["influence"] for row in measured[0]], rel=1e-4)
    with pytest.raises(FileExistsError, match="n_pair_templates differ"):
        measure(full[0], "stopped", n_pair_templates=2).measure()
    own = OmegaConf.to_container(OmegaConf.load(full[0] / "torchtune_config.yaml").tokenizer, resolve=True)
    measure(full[0], "stopped", tokenizer=own).measure()  # the run's own, by its name
    with pytest.raises(FileExistsError, match=r"\(tokenizer differ\)"):
        measure(full[0], "stopped", tokenizer={**own, "max_seq_len": 999}).measure()


@pytest.mark.parametrize("loss", ["DPOLoss", "SFTLoss", "KTOLoss"])
def test_a_product_is_the_derivative_of_the_lean_along_a_row(full, measure, loss):
    """A small step down one row's loss moves the lean by the step times the product."""
    recipe = measure(full[0], "unused")
    if loss != "DPOLoss":
        recipe.loss_fn = getattr(losses, loss)()
        recipe.rows = module.load_rows(recipe.run, config.instantiate(recipe.run.tokenizer), recipe.loss_fn)
    policy, pair_losses = recipe.load()
    pairs, row = recipe.rows.pairs, 3
    recipe.take(policy, recipe.segments[-1].after)
    trained = [p for p in policy.parameters() if p.requires_grad]
    at = [p.detach().clone() for p in trained]
    module.lean(policy, recipe.questions, 800, "here")
    direction = module.take_gradient(policy)
    found = module.row_gradient(policy, pair_losses, pairs, row).gradient
    product, gradient = module.multiply(direction, found), list(found.values())
    size = 0.02 / float(torch.cat([g.flatten() for g in gradient]).norm())
    moved = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, start, step in zip(trained, at, gradient):
                parameter.copy_(start + sign * size * step)
        moved.append(module.lean(policy, recipe.questions, 800, "beside"))
    assert (moved[0] - moved[1]) / (2 * size) == pytest.approx(product, rel=0.02)


def test_the_replay_is_the_run(full, measure):
    """It takes the run's rows at the run's rates, and ends each part at the weights of the checkpoint."""
    recipe = measure(full[0], "unused")
    logged = [step for _, step in sorted(read_steps(full[0]).items()) if "lr" in step]
    assert learning_rates(recipe.run, 20) == pytest.approx([step["lr"] for step in logged], rel=1e-6)
    assert [(segment.before, segment.after.name, segment.steps) for segment in recipe.segments] == [
        (None, "step_5", range(5)),
        (full[0] / "step_5", "epoch_0", range(5, 10)),
        (full[0] / "epoch_0", "step_15", range(10, 15)),
        (full[0] / "step_15", "epoch_1", range(15, 20)),
    ]
    assert sorted(k for step in recipe.steps for k in step) == sorted([*range(100)] * 2)
    policy, pair_losses = recipe.load()

    def weights():
        return torch.cat([p.detach().flatten() for p in policy.parameters() if p.requires_grad])

    nothing = {name: torch.zeros_like(p) for name, p in module.named_weights(policy) if p.requires_grad}
    for segment in recipe.segments[:2]:
        state = recipe.take(policy, segment.before)
        start = weights()
        list(recipe._replay(policy, pair_losses, segment, state, repeat(nothing)))
        end = weights()
        recipe.take(policy, segment.after)
        assert (end - weights()).norm() < 0.01 * (weights() - start).norm()


def test_influences_of_small_steps_add_up_to_what_was_measured(folder, train, measure):
    """Where the path is nearly straight, with momentum, clipping and warm-up, the sum is the change."""
    run, _ = train("straight", "optimizer.lr=1e-4", "clip_grad_norm=0.5", "save_every_n_steps=2", "epochs=1")
    measure(run, "straight_out").measure()
    about = json.loads((folder / "straight_out" / "influence.json").read_text())
    assert about["sum_of_influences"] == pytest.approx(about["measured_change"], rel=0.05)


def test_a_row_that_no_step_took_brought_nothing_and_a_repeated_one_has_one_influence(
    folder, train, measure, tmp_path, tiny_model_dir
):
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()[:9] + rows()[1:2]))
    few = ["batch_size=3", "epochs=2", "max_steps_per_epoch=1", "lr_scheduler=null", "clip_grad_norm=1.0"]
    run, _ = train("few", f"dataset.data_files={path}", *few)
    given = [f"run={run}", f"instrument={folder / 'more.yaml'}", f"output_dir={tmp_path / 'out'}"]
    # the tokenizer is a setting
    chat = ["tokenizer._component_=finetune.tokenizers.hf_chat_tokenizer", f"tokenizer.path={tiny_model_dir}"]
    assert tune(["eval/influence.py", "--config", "configs/influence.yaml", *given, *chat]) == 0
    about = json.loads((tmp_path / "out" / "influence.json").read_text())
    assert about["tokenizer"] == {"_component_": chat[0].split("=")[1], "path": str(tiny_model_dir)}
    influence = [json.loads(line)["influence"] for line in (tmp_path / "out" / "influence.jsonl").open()]
    taken = {k for step in measure(run, "unused", tokenizer=about["tokenizer"]).steps for k in step}
    assert about["rows_in_no_step"] == 10 - len(taken) > 3
    assert taken & {1, 9}
    assert influence[1] == influence[9] != 0
    assert {k for k, value in enumerate(influence) if value} == taken | {1, 9}
    assert about["sum_of_influences"] == pytest.approx(sum(influence))
    for name in ("influence", "at_mean_rate", "rank"):
        assert len(read_figures(str(tmp_path / "out" / "influence.jsonl"), name)) == 9
    assert len(read_figures(str(tmp_path / "out" / "influence.jsonl"), "influence")) == 9


def test_what_cannot_be_is_refused(tmp_path, folder, full, measure):
    with pytest.raises(FileNotFoundError, match="no torchtune_config.yaml there"):
        measure(tmp_path, "unused")
    changed = tmp_path / "changed"
    shutil.copytree(full[0], changed)
    path = changed / "torchtune_config.yaml"
    path.write_text(path.read_text() + "\n")
    cfg = OmegaConf.load(path)
    cfg.dataset.subset = 50
    OmegaConf.save(cfg, path)
    with pytest.raises(ValueError, match="no longer the data"):
        measure(changed, "unused")
    plain = {"_component_": "collections.OrderedDict"}
    with pytest.raises(
        ValueError, match="tokenizer._component_=finetune.tokenizers.hf_chat_tokenizer tokenizer.path=/"
    ):
        measure(full[0], "unused", tokenizer=plain)
