# SPDX-License-Identifier: MIT
"""The influence of rows finds those that moved the lean, and is the derivative that it says it is."""

import json
import random
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml
from conftest import REPO, read_steps, tiny_overrides
from omegaconf import OmegaConf
from torchtune import config
from torchtune._cli.tune import main

from eval import influence as module
from finetune import losses

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
            "probe.n_pairs=10", "probe.every_n_steps=99", *overrides,
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
    assert 0.3 < change / about["sum_of_influences"] < 2  # of its size and sign: first order
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
    lines = (out / "products.jsonl").read_text().splitlines(keepends=True)
    kept = lines[:-30]
    (out / "products.jsonl").write_text("".join(kept) + lines[-30][:9])
    (out / "influence.jsonl").unlink()
    measure(full[0], "stopped").measure()
    assert (out / "products.jsonl").read_text().startswith("".join(kept))
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
    recipe.take(policy, recipe.segments[-1].folder)
    trained = [p for p in policy.parameters() if p.requires_grad]
    at = [p.detach().clone() for p in trained]
    module.lean(policy, recipe.questions, 800, "here")
    direction = module.take_gradient(policy)
    [(_, product)] = module.products(policy, pair_losses, pairs, direction, [row])

    one = pairs.take([row])
    n = pair_losses.accumulate(one.pairs, one.mismatched).counts["loss"]
    gradient = [n * p.grad.clone() for p in trained]
    module.take_gradient(policy)
    size = 0.02 / float(torch.cat([g.flatten() for g in gradient]).norm())
    moved = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, start, step in zip(trained, at, gradient):
                parameter.copy_(start + sign * size * step)
            moved.append(module.lean(policy, recipe.questions, 800, "beside"))
    assert (moved[0] - moved[1]) / (2 * size) == pytest.approx(product, rel=0.02)


def test_the_rates_are_those_that_the_run_logged(full, measure):
    recipe = measure(full[0], "unused")
    logged = [step["lr"] for _, step in sorted(read_steps(full[0]).items()) if "lr" in step]
    assert module.learning_rates(recipe.run, 20) == pytest.approx(logged, rel=1e-6)
    assert sum(segment.learning_rates for segment in recipe.segments) == pytest.approx(sum(logged))


def test_a_step_of_adam_is_divided_by_its_second_moment():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.Adam([weight], lr=0.1, betas=(0.0, 0.9))
    for gradient in ([3.0, -4.0], [1.0, 2.0]):
        before = weight.detach().clone()
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    state = {"state": {"w": optimizer.state[weight]}, "param_groups": [optimizer.param_groups[0]]}
    stepped = module.as_stepped({"w": weight.grad}, state)["w"]  # without momentum that is the whole step
    torch.testing.assert_close(before - 0.1 * stepped, weight.detach())
    plain = module.as_stepped({"w": weight.grad}, {"state": {}, "param_groups": [{}]})["w"]
    torch.testing.assert_close(plain, weight.grad)


def states(optimizer):
    """Return the state of an optimizer after one step, as a checkpoint has it."""
    (weight,) = optimizer.param_groups[0]["params"]
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    return {"state": {"w": optimizer.state[weight]}, "param_groups": optimizer.param_groups}


@pytest.mark.parametrize(
    ("name", "settings", "held"),
    [
        ("RMSprop", {}, "square_avg"),
        ("Adafactor", {}, "col_var"),
        ("SGD", {"momentum": 0.9}, "momentum_buffer"),
        ("Adam", {"amsgrad": True}, "max_exp_avg_sq"),
        ("AdamW", {}, None),
        ("SGD", {}, None),
    ],
)
def test_an_optimizer_with_other_moments_is_refused(name, settings, held):
    weight = torch.nn.Parameter(torch.ones(3, 2))
    state, path = states(getattr(torch.optim, name)([weight], lr=0.1, **settings)), f"torch.optim.{name}"
    if held is None:
        module.check_optimizer(state, path)
    else:
        with pytest.raises(ValueError, match=f"optimizer._component_={path}: .*{held}"):
            module.check_optimizer(state, path)


def test_an_optimizer_that_is_no_sgd_and_has_no_moments_is_refused():
    state = {"state": {"w": {"state1": torch.ones(2), "state2": torch.ones(2)}}}
    with pytest.raises(ValueError, match="optimizer._component_=torch.optim.AdamW: .*state1, state2"):
        module.check_optimizer(state, "torch.optim.AdamW")
    with pytest.raises(ValueError, match="its state has nothing"):
        module.check_optimizer({"state": {}}, "torch.optim.Rprop")


def test_another_tokenizer_is_a_setting_and_can_be_given(folder, train, full, measured, tmp_path, tiny_model_dir):
    small, _ = train("small", "dataset.subset=20", "epochs=1")
    given = [f"run={small}", f"instrument={folder / 'more.yaml'}", f"output_dir={tmp_path / 'out'}"]
    path = ["tokenizer._component_=finetune.tokenizers.hf_chat_tokenizer", f"tokenizer.path={tiny_model_dir}"]
    command = ["eval/influence.py", "--config", "configs/influence.yaml", *given]
    assert tune([*command, *path]) == 0
    about = json.loads((tmp_path / "out" / "influence.json").read_text())
    assert about["tokenizer"] == {"_component_": path[0].split("=")[1], "path": str(tiny_model_dir)}
    assert (
        measured[1]["tokenizer"]["_component_"]
        == OmegaConf.load(full[0] / "torchtune_config.yaml").tokenizer._component_
    )


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
