# SPDX-License-Identifier: MIT
"""The reference in large forwards: the values of one pair at a time, whatever is known of them already."""

from contextlib import nullcontext

import pytest
import torch
from test_policy import CPU, loaded, random_base
from torchtune.rlhf.loss import DPOLoss

from data.pairs.tokens import Continuation
from finetune.run.pair_losses import PairLosses
from finetune.run.processes import Processes
from finetune.run.reference_cache import ReferenceCache


@pytest.fixture(scope="module")
def policy():
    policy = loaded(random_base())
    for parameter in policy.parameters():
        if parameter.requires_grad:  # an adapter that does something, so that leaving it on would show
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    return policy


@pytest.fixture(scope="module")
def pairs():
    generator = torch.Generator().manual_seed(2)

    def draw(n):
        return torch.randint(1, 500, (n,), generator=generator).tolist()

    found = []
    for n in (5, 19, 11, 30, 7, 23, 14, 9):
        prompt = draw(n)
        answers = (draw(n + 4), draw(2 * n))
        found.append(tuple(Continuation(prompt + a, [-100] * n + a) for a in answers))
    return [*found, found[0]]


def losses_of(policy, folder=None):
    return PairLosses(policy, DPOLoss(), ReferenceCache(folder, "base"), 100, Processes(CPU), nullcontext())


def test_values_are_those_of_one_pair_at_a_time_in_fewer_forwards(policy, pairs):
    forwards = []
    handle = policy.register_forward_pre_hook(lambda _, arguments: forwards.append(arguments[0].tokens.numel()))
    alone = losses_of(policy).reference_values(pairs)
    assert len(forwards) == len(pairs)
    forwards.clear()
    together = losses_of(policy)
    values = together.reference_values(pairs, 200)
    handle.remove()
    assert 1 < len(forwards) < len(pairs) / 2
    assert max(forwards) <= 200
    torch.testing.assert_close(torch.tensor(values), torch.tensor(alone), rtol=1e-5, atol=1e-5)
    assert values[-1] == values[0]  # the same pair
    with policy.without_adapters():
        assert together.accumulate(pairs[:3], train=False).sums["rewards/chosen"] == pytest.approx(0, abs=1e-4)


def test_what_an_interruption_left_is_completed_to_the_same_bits(policy, pairs, tmp_path):
    whole = losses_of(policy, tmp_path / "whole").reference_values(pairs, 200)
    part = ReferenceCache(tmp_path / "part", "base")
    for k in (0, 1, 4):  # neither the first so many, nor whole forwards
        part.put(*pairs[k], whole[k])
    assert losses_of(policy, tmp_path / "part").reference_values(pairs, 200) == whole
    assert losses_of(policy, tmp_path / "part").reference_values(pairs[::-1]) == whole[::-1]
    n_pairs = len(pairs) - 1  # without the one that is there twice
    assert len(ReferenceCache(tmp_path / "part", "base")) == n_pairs
    size = [(tmp_path / name / "base.bin").stat().st_size for name in ("whole", "part")]
    assert size[0] == size[1] == n_pairs * (size[0] // n_pairs)
