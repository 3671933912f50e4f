# SPDX-License-Identifier: MIT
"""The speed benchmark: what it counts and how it compares, and its parts inside torchtune's own recipe."""

import json
import subprocess

import pytest
import torch
from conftest import tiny_overrides
from torchtune.modules.peft import LoRALinear

from benchmarks import revision
from benchmarks.speed_components import initial_lora_a, seeded_lora
from benchmarks.speed_flops import backward_flops, body_linears, forward_flops, products, run_flops, weighted_rate
from benchmarks.speed_inputs import count, read_rows
from benchmarks.speed_report import LABELS, figures, loss_difference, markdown, paired_ratio, summarize
from benchmarks.speed_systems import SYSTEMS, trl_versions
from benchmarks.step_log import read_log, write_event
from data.pairs.tokens import Continuation
from finetune.models import SMOLLM2_135M

ONE_LAYER = {"num_layers": 1, "embed_dim": 4, "num_heads": 2, "num_kv_heads": 1, "intermediate_dim": 8}
HEAD = (10, 4)


def test_flops_of_one_layer_by_hand():
    """Weights: q 16, k 8, v 8, o 16, MLP 3 x 32 = 144; LoRA of rank 1: q 8, v 6, MLP 3 x 12 = 50."""
    linears = body_linears(ONE_LAYER, ["q_proj", "v_proj"], mlp=True)
    assert forward_flops(linears, HEAD, tokens=1, scored=0, rank=0) == 2 * 144
    assert forward_flops(linears, HEAD, tokens=3, scored=2, rank=1) == 2 * 3 * (144 + 50) + 2 * 2 * 40
    # nothing trainable lies below the first layer's q, k, v: no gradient to their inputs (32 weights), nor through
    # the inputs of q's and v's A (8); LoRA: two products for B (4 + 2 + 20 outputs), two for A (8 + 16 inputs)
    expected = (144 - 32) + 2 * (4 + 2 + 8 + 8 + 4) + 2 * (4 + 4 + 4 + 4 + 8) - 8
    assert backward_flops(linears, HEAD, tokens=1, scored=0, rank=1) == 2 * expected
    forward = forward_flops(linears, HEAD, 5, 2, 1)
    backward = backward_flops(linears, HEAD, 5, 2, 1)
    reference = forward_flops(linears, HEAD, 7, 2, 0)
    assert run_flops(linears, HEAD, 1, 5, 7, 2, epochs=4) == 4 * (forward + backward) + reference


def test_flops_of_the_packaged_model():
    """A token of SmolLM2-135M costs 212.3 MFLOP in the body forward, 7.9 in LoRA r16, 56.6 in the head."""
    linears = body_linears(SMOLLM2_135M, ["q_proj", "v_proj"], mlp=True)
    head = (SMOLLM2_135M["vocab_size"], SMOLLM2_135M["embed_dim"])
    body = forward_flops(linears, head, 1, 0, 0)
    assert body / 1e6 == pytest.approx(212.3, abs=0.1)
    assert (forward_flops(linears, head, 1, 0, 16) - body) / 1e6 == pytest.approx(7.9, abs=0.1)
    assert forward_flops(linears, head, 0, 1, 16) / 1e6 == pytest.approx(56.6, abs=0.1)


def test_products_hold_the_same_operations():
    linears = body_linears(ONE_LAYER, [], mlp=False)
    mix = products(linears, HEAD, tokens=3, scored=2)
    flops = forward_flops(linears, HEAD, 3, 2, 0) + backward_flops(linears, HEAD, 3, 2, 0)
    assert sum(n * 2 * a * b * c for (a, b, c, _), n in mix.items()) == flops
    assert weighted_rate(mix, dict.fromkeys(mix, 0.5)) == pytest.approx(flops / (0.5 * sum(mix.values())))


def pair(n_prompt: int, n_chosen: int, n_rejected: int, first: int) -> tuple[Continuation, Continuation]:
    """A pair whose prompt is ``first`` and zeros, whose answers share nothing, and whose answers are scored."""
    prompt = [first] + [0] * (n_prompt - 1)
    return tuple(
        Continuation(prompt + [token] * n, [-100] * n_prompt + [token] * n)
        for token, n in ((1, n_chosen), (2, n_rejected))
    )


def test_tokens_are_counted_real_padded_and_merged():
    counts = count([pair(3, 4, 2, 7), pair(2, 1, 1, 8)], batch_size=2, max_tokens=100)
    assert counts == {
        "pairs": 2,
        "real_tokens": 7 + 5 + 3 + 3,
        "padded_tokens": 4 * 7,
        # a prompt once, and no last token of an answer: 3 + 3 + 1, and 2
        "policy_tokens": 9,
        "reference_tokens": 9,
        "scored_tokens": 8,
        "forwards": 1,
    }
    assert count([pair(3, 4, 2, 7), pair(2, 1, 1, 8)], batch_size=2, max_tokens=1)["forwards"] == 2
    shared = count([pair(3, 4, 2, 7), pair(3, 4, 2, 7)], batch_size=2, max_tokens=100)
    assert (shared["policy_tokens"], shared["reference_tokens"]) == (7, 14)


INPUTS = {
    "pairs": 4,
    "batch_size": 2,
    "real_tokens": 400,
    "policy_tokens": 300,
    "reference_tokens": 300,
    "scored_tokens": 200,
    "sizes": {**ONE_LAYER, "vocab_size": 10},
    "lora_rank": 1,
    "lora_attn_modules": ["q_proj"],
    "apply_lora_to_mlp": False,
}


def a_run(step_s, cache_s=0.0, losses=None, **more):
    return {
        "setup_s": 5.0, "cache_s": cache_s, "train_s": sum(step_s),
        "cache_cpu_s": cache_s / 2, "cpu_s": sum(step_s) / 2,
        "peak_rss_bytes": 2**30, "step_s": step_s,
        "losses": losses or [0.5] * len(step_s), **more,
    }  # fmt: skip


def test_reference_reuse_is_counted_once():
    stock = figures(a_run([4.0, 4.0]), INPUTS, epochs=4)
    assert (stock["pairs_per_s"], stock["real_tokens_per_s"], stock["reference_s"]) == (0.5, 50.0, 0.0)
    # a reference pass of 8 s and 4 epochs of 4 s: 16 pairs in 24 s
    assert figures(a_run([2.0, 2.0], cache_s=8.0), INPUTS, epochs=4)["pairs_per_s"] == pytest.approx(16 / 24)
    # a cache that fills in the first epoch: 12 + 3 x 4 s
    ours = figures(a_run([6.0, 6.0] + [2.0] * 6), INPUTS, epochs=4)
    assert (ours["pairs_per_s"], ours["reference_s"]) == (pytest.approx(16 / 24), 8.0)
    with pytest.raises(ValueError, match=r"3 steps are 1\.5 epochs"):
        figures(a_run([1.0] * 3), INPUTS, epochs=4)


def test_ratios_pair_the_rounds():
    # the machine was half as fast in round 2, for both
    assert paired_ratio({1: 4.0, 2: 2.0, 3: 4.0}, {1: 2.0, 2: 1.0}) == 2.0
    assert paired_ratio({1: 4.0}, {2: 1.0}) is None
    assert loss_difference([0.5, 0.75, 0.9], [0.5, 0.5]) == {"steps": 2, "max": 0.25, "mean": 0.125}


def test_summary_and_table():
    ours = {
        k: a_run([1.0] * 8, losses=[0.5, 0.25] * 4, matmul_flop_per_s=1e6) | {"peak_rss_bytes": 2**29} for k in (1, 2)
    }
    results = summarize({"ours": ours, "stock": {1: a_run([4.0, 4.0]), 2: a_run([3.0, 3.0])}}, INPUTS, epochs=4)
    assert results["ratios"] == {
        "stock": pytest.approx(3.5), "stock_checkpointing": None, "stock_bf16": None, "trl_default": None,
        "trl_tuned": None, "ours_transformers": None, "ours_transformers_trl_tuned": None,
        "ours_bf16": None, "trl_tuned_bf16": None, "against": None, "against_bf16": None,
    }  # fmt: skip
    assert results["cpu_ratios"]["stock"] == pytest.approx(3.5)
    assert results["peak_rss_ratios"]["stock"] == 0.5
    assert results["systems"]["ours"]["loss_against_stock"] == {"steps": 2, "max": 0.25, "mean": 0.125}
    linears = body_linears(ONE_LAYER, ["q_proj"], False)
    flops = run_flops(linears, HEAD, 1, 300, 300, 200, 4)
    assert results["systems"]["ours"]["median"]["matmul_share"] == pytest.approx(flops / 8 / 1e6)
    table = markdown(
        results
        | {"data": INPUTS | {"name": "x.jsonl"}, "machine": {"cpu": "a CPU"}}
        | {"settings": {"rounds": 2, "threads": 2, "batch_size": 2, "epochs": 4}}
    )
    row = "| torchtune 0.6.1, fp32 | 0.583 | 3.50× | 1.167 | 3.50× | 58 | 1.00 (ours 0.50×) | 5.0 | each step |  |"
    assert row in table
    assert table.count("\n| ") == 2  # the header opens the text


def test_every_system_has_a_label_and_trl_versions_are_checked(tmp_path):
    assert SYSTEMS.keys() == LABELS.keys()
    with pytest.raises(FileNotFoundError, match="leave --trl-python out"):
        trl_versions(tmp_path / "python", create=False)


def test_rows_of_a_mirrored_set_are_its_left_side(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "left": "l", "right": "r"}\n')
    assert read_rows(path) == [{"prompt": "p", "chosen": "l", "rejected": "r"}]
    path.write_text('{"prompt": "p", "chosen": "l", "rejected": "r"}\n\n{"prompt": "p", "chosen": "l"}\n')
    with pytest.raises(ValueError, match="row 2 lacks"):
        read_rows(path)


def test_log_must_be_of_one_whole_run(tmp_path):
    log = tmp_path / "steps.jsonl"
    write_event(log, event="train_start")
    write_event(log, step=1, loss=0.5)
    write_event(log, step=2, loss=0.25)
    times = read_log(log)
    assert times.losses == [0.5, 0.25]
    assert sum(times.step_s) == pytest.approx(times.train_s)
    assert 0 <= times.cpu_s < 1
    write_event(log, event="train_start")
    with pytest.raises(ValueError, match="2 starts"):
        read_log(log)


def lora_weights(model) -> dict[str, torch.Tensor]:
    return {name: m.lora_a.weight for name, m in model.named_modules() if isinstance(m, LoRALinear)}


def test_seeded_weights_do_not_depend_on_how_the_model_is_built():
    arguments = {
        "builder": "torchtune.models.llama3_2.lora_llama3_2", "lora_attn_modules": ["q_proj"], "vocab_size": 8,
        "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "embed_dim": 8, "max_seq_len": 8, "intermediate_dim": 8,
        "lora_rank": 2, "lora_alpha": 4,
    }  # fmt: skip
    first = lora_weights(seeded_lora(**arguments))
    with torch.device("meta"):
        late = seeded_lora(**arguments)
    for module in late.modules():
        if isinstance(module, LoRALinear):
            module.to_empty(device="cpu")
            module.initialize_parameters()
            assert not module.lora_b.weight.any()
    assert len(first) == 2
    assert all(torch.equal(weight, first[name]) for name, weight in lora_weights(late).items())
    assert not torch.equal(*first.values())
    name, weight = next(iter(first.items()))
    assert torch.equal(weight, initial_lora_a(name, 2, 8, 0))
    assert not torch.equal(weight, initial_lora_a(name, 2, 8, 1))


def test_torchtunes_own_recipe_and_ours_log_the_same_losses(tune_run, tiny_model_dir, tmp_path):
    """The unmodified stock recipe takes our dataset, logger, schedule and seeded model; so does ours."""
    data = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Is {t} good?", "chosen": f"Yes, {t} is.", "rejected": f"No, no {t}."} for t in "abcdefgh"]
    data.write_text("\n".join(map(json.dumps, rows)))
    times = {}
    for recipe in ("lora_dpo_single_device", "finetune/dpo_finetune.py"):
        output = tmp_path / recipe.partition("/")[0]
        tune_run(
            recipe, "--config", "configs/smollm2_135m_lora_dpo_cpu.yaml", *tiny_overrides(tiny_model_dir, output),
            "model.builder=torchtune.models.llama3_2.lora_llama3_2",
            "model._component_=benchmarks.speed_components.seeded_lora", "dataset=data.datasets.preference_pairs",
            "dataset.source=json", f"dataset.data_files={data}", "shuffle=False", "batch_size=2",
            "max_steps_per_epoch=null", "optimizer.lr=1e-2", "metric_logger=benchmarks.step_log.StepLog",
            f"metric_logger.log_file={output}.jsonl", "~metric_logger.log_dir", "lr_scheduler.num_warmup_steps=1",
            "lr_scheduler._component_=benchmarks.speed_components.stamped_cosine_schedule",
            "lr_scheduler.n_steps=8", f"lr_scheduler.log_file={output}.jsonl",
        )  # fmt: skip
        times[recipe] = read_log(f"{output}.jsonl")
    stock, ours = (times[recipe].losses for recipe in times)
    assert len(stock) == len(ours) == 4
    assert stock[-1] < stock[0] - 1e-3  # the weights moved, so the equality says something
    assert ours == pytest.approx(stock, abs=1e-5)


def test_another_revision_is_laid_beside_this_tree_once(tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    (repository / "outputs" / "models").mkdir(parents=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(repository)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    clock = repository / revision.CLOCK
    clock.parent.mkdir()
    for text in ("old", "new"):
        for file in (repository / "file.txt", clock):
            file.write_text(text)
        subprocess.run([*git, "add", "file.txt", clock], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", text], check=True)
    monkeypatch.setattr(revision, "REPO", repository)
    tree = revision.checkout("HEAD~1", tmp_path / "trees")
    assert (tree / "file.txt").read_text() == "old"
    assert (tree / revision.CLOCK).read_text() == "new"  # else an older clock leaves out what the report reads
    assert (tree / "outputs" / "models").resolve() == repository / "outputs" / "models"
    (tree / "file.txt").write_text("kept")
    assert revision.checkout("HEAD~1", tmp_path / "trees") == tree
    assert (tree / "file.txt").read_text() == "kept"
    with pytest.raises(ValueError, match="--against HEAD~9: git knows no such commit"):
        revision.checkout("HEAD~9", tmp_path / "trees")
