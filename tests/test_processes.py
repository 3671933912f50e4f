# SPDX-License-Identifier: MIT
"""Several processes give what one gives: two real ones with gloo on the CPU. tests/test_configs.py starts torchrun."""

import json
import os
import shutil
import socket
from multiprocessing.connection import wait

import pytest
import torch
from conftest import TINY, fork, read_steps, run_tune, tiny_overrides, write_llama_folder
from peft import PeftModel
from safetensors.torch import load_file
from torch import distributed
from transformers import AutoModelForCausalLM

from finetune.run.processes import Processes

RECIPE = "finetune/dpo_finetune.py"


def run_in_turn(rank: int, port: int, runs: list[list[str]]) -> None:
    """Train as one of two processes, as torchrun tells them who they are; their group serves all the runs."""
    who = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in who.items()} | {"GLOO_SOCKET_IFNAME": "lo"}
    leave, distributed.destroy_process_group = distributed.destroy_process_group, lambda: None  # a recipe's end
    for arguments in runs:
        with pytest.raises(SystemExit) as stop:
            run_tune("run", RECIPE, *arguments)
        assert not stop.value.code, arguments
    leave()


@pytest.fixture(scope="module")
def base(tiny_model_dir, tmp_path_factory):
    """A tiny Llama whose head is its own, so that it can carry a LoRA."""
    folder = write_llama_folder(tmp_path_factory.mktemp("base"), {**TINY, "rope_base": 500_000}, tied=False)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model_dir / name, folder)
    return folder


@pytest.fixture(scope="module")
def runs(base, tiny_model_dir, tmp_path_factory):
    """The arguments of each run but for its folder."""
    # five pairs to train on, one a forward, three a step: a step's last turn has work for one process only
    rows = [
        {"prompt": f"Is {t} good?", "chosen": f"Yes, {t} is very good indeed.", "rejected": f"No, avoid {t}."}
        for t in ("tea", "coffee", "juice", "milk", "water", "wine")
    ]
    path = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    kept = [x for x in tiny_overrides(base, path) if not x.startswith(("output_dir", "model._comp", "model.scale"))]
    torchtunes = [
        "--config", "configs/smollm2_135m_lora_dpo_cpu.yaml", *kept,
        "model._component_=torchtune.models.llama3.lora_llama3", "model.rope_base=500000",
        "model.apply_lora_to_output=True",
        "dataset=data.datasets.preference_pairs", "dataset.source=json", f"dataset.data_files={path}",
        "batch_size=3", "epochs=2", "lr_scheduler.num_warmup_steps=1", "max_tokens_per_forward=20",
        "clip_grad_norm=0.3", "save_every_n_steps=1", "validation_share=0.2", "enable_activation_checkpointing=True",
        "probe._component_=eval.probe.Probe", "probe.n_items=4", "probe.n_pairs=2", "probe.every_n_steps=2",
        "probe.max_tokens_per_forward=100",
    ]  # fmt: skip
    transformers = [
        "--config", "configs/any_model_lora_dpo.yaml", f"model.path={tiny_model_dir}", "dataset.subset=6",
        "batch_size=3", "max_steps_per_epoch=2", "lr_scheduler.num_warmup_steps=0", "reference_cache_dir=null",
        "max_tokens_per_forward=200", "enable_activation_checkpointing=True",
    ]  # fmt: skip
    return {"torchtune": torchtunes} | {dtype: [*transformers, f"dtype={dtype}"] for dtype in ("fp32", "bf16")}


@pytest.fixture(scope="module")
def two(runs, tmp_path_factory):
    """The folder of the runs in two processes, which meet over loopback."""
    folder = tmp_path_factory.mktemp("two")
    arguments = [[*of_run, f"output_dir={folder / name}"] for name, of_run in runs.items()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [fork(run_in_turn, rank, port, arguments) for rank in range(2)]
    for process in processes:
        process.start()
    wait([process.sentinel for process in processes])
    for process in processes:  # the second ends with the first, or would wait for it for hours
        process.join(300)
        process.kill()
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


@pytest.mark.slow(9)
def test_two_processes_equal_one_and_one_goes_on_from_two(tune_run, runs, base, two, tmp_path):
    one, two, resumed = tmp_path / "one", two / "torchtune", tmp_path / "resumed"
    assert tune_run(RECIPE, *runs["torchtune"], f"output_dir={one}") == 0

    shutil.copytree(two / "step_1", resumed / "step_1")
    shutil.copy(two / "trajectory.jsonl", resumed)
    assert tune_run(RECIPE, *runs["torchtune"], f"output_dir={resumed}", "resume_from_checkpoint=True") == 0

    expected = {step: values for step, values in read_steps(one).items() if step}
    assert len(expected) == 4
    for run, steps in ((two, expected), (resumed, {k: v for k, v in expected.items() if k > 1})):
        found = read_steps(run)
        assert found.keys() - {0} == steps.keys()
        for step, values in steps.items():
            for name in ("loss", "grad_norm", "log_probs/chosen", "rewards/margins"):
                assert found[step][name] == pytest.approx(values[name], abs=1e-5, rel=1e-6), (run.name, step, name)
        assert found[2]["validation/loss"] == pytest.approx(expected[2]["validation/loss"], abs=1e-5)
    assert expected[1]["grad_norm"] > 0.3  # so the clip took part
    a, b = (load_file(run / "epoch_1" / "adapter_model.safetensors") for run in (one, two))
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[key], b[key], atol=1e-5) for key in a)
    probed = [(run / "trajectory.jsonl").read_text().splitlines() for run in (one, two, resumed)]
    for rows in zip(*(map(json.loads, lines) for lines in probed), strict=True):
        for row in rows[1:]:
            assert row["step"] == rows[0]["step"]
            for a, b in zip(rows[0]["logprobs"], row["logprobs"], strict=True):
                assert b == pytest.approx(a, abs=1e-4)
    assert [json.loads(line)["step"] for line in probed[0]] == [0, 2, 4]
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), two / "epoch_1")


@pytest.mark.slow(9)  # the first of the three; the others 1
@pytest.mark.parametrize(("dtype", "near"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_two_processes_equal_one_on_a_transformers_model(tune_run, runs, two, tiny_model_dir, dtype, near, tmp_path):
    """Its head is tied, so that one weight has two names; the first process alone reads the weights."""
    one, two = tmp_path / "one", two / dtype
    assert tune_run(RECIPE, *runs[dtype], f"output_dir={one}") == 0
    expected, found = read_steps(one), read_steps(two)
    assert len(expected) == 2
    for step, values in expected.items():
        for name in ("loss", "grad_norm", "log_probs/chosen"):
            assert found[step][name] == pytest.approx(values[name], abs=near, rel=near / 10), (step, name)
    a, b = (load_file(run / "epoch_0" / "adapter_model.safetensors") for run in (one, two))
    assert a.keys() == b.keys()
    assert {tensor.dtype for tensor in [*a.values(), *b.values()]} == {torch.float32}
    # where a gradient is next to nothing, Adam's first step has its sign alone
    assert all(torch.allclose(a[key], b[key], atol=1e-3 if dtype == "fp32" else 5e-3) for key in a)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_dir), two / "epoch_0")
    assert any(p.abs().max() > 0 for name, p in model.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize("n_work", [0, 1, 2, 5, 6])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_work_is_dealt_out_once_in_equally_many_turns(n, n_work):
    dealt = []
    for rank in range(n):
        processes = Processes(torch.device("cpu"))
        processes.n, processes.rank = n, rank
        dealt.append(list(processes.turns(range(n_work))))
    assert len({len(turns) for turns in dealt}) == 1
    assert sorted(work for turns in dealt for work, counts, _ in turns if counts) == list(range(n_work))
    for turns in dealt:
        assert [last for _, _, last in turns] == [k == len(turns) - 1 for k in range(len(turns))]


def test_processes_that_see_different_files_are_stopped(monkeypatch):
    processes = Processes(torch.device("cpu"))
    assert processes.agree("data", "a") == "a"
    monkeypatch.setattr(processes, "gather", lambda value: [value, "b"])
    with pytest.raises(ValueError, match=r"do not see the same data: \['a', 'b'\].*same on every node"):
        processes.agree("data", "a")
