# SPDX-License-Identifier: MIT
"""Losses against values derived by hand.

Two pairs. Policy chosen (-10, -20), rejected (-12, -16); reference chosen (-11, -18), rejected (-11, -19).
h = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected) = (1 - -1, -2 - 3) = (2, -5).
"""

import inspect
import math

import pytest
import torch
from torchtune.rlhf.loss import DPOLoss, RSOLoss

from finetune.losses import (
    IPOLoss,
    KTOLoss,
    LengthNormalizedDPOLoss,
    ORPOLoss,
    RobustDPOLoss,
    SFTLoss,
    SimPOLoss,
)
from finetune.run.settings import check_loss

POLICY = (torch.tensor([-10.0, -20.0]), torch.tensor([-12.0, -16.0]))
REFERENCE = (torch.tensor([-11.0, -18.0]), torch.tensor([-11.0, -19.0]))


def softplus(x: float) -> float:
    """-log sigmoid(-x)."""
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("loss", "expected", "scale"),
    [
        # target 1 / (2 x 0.25) = 2: (2 - 2)^2, (-5 - 2)^2
        (IPOLoss(tau=0.25), [0.0, 49.0], 0.25),
        # l(h) = softplus(-h / 10); (0.75 l(h) - 0.25 l(-h)) / 0.5
        (
            RobustDPOLoss(beta=0.1, flip_rate=0.25),
            [1.5 * softplus(-0.2) - 0.5 * softplus(0.2), 1.5 * softplus(0.5) - 0.5 * softplus(-0.5)],
            0.1,
        ),
        (RobustDPOLoss(beta=0.1, flip_rate=0.0), [softplus(-0.2), softplus(0.5)], 0.1),  # plain DPO
        # torchtune's two, by the same names in a config: conservative DPO and hinge
        (
            DPOLoss(beta=0.1, label_smoothing=0.25),
            [0.75 * softplus(-0.2) + 0.25 * softplus(0.2), 0.75 * softplus(0.5) + 0.25 * softplus(-0.5)],
            0.1,
        ),
        (RSOLoss(gamma=0.1), [0.8, 1.5], 0.1),  # 1 - 0.2, 1 + 0.5
    ],
)
def test_values_and_rewards(loss, expected, scale):
    losses, chosen, rejected = loss(*POLICY, *REFERENCE)
    torch.testing.assert_close(losses, torch.tensor(expected))
    torch.testing.assert_close(chosen, scale * torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(rejected, scale * torch.tensor([-1.0, 3.0]))


def test_ipo_of_means_is_trls():
    """Lengths 4, 10 and 2, 8: means of the log-ratios (1/4, -2/10), (-1/2, 3/8); target 1 / (2 x 2.5) = .2."""
    loss = IPOLoss(tau=2.5, length_normalized=True)
    lengths = torch.tensor([4.0, 10.0]), torch.tensor([2.0, 8.0])
    means = [values / n for values, n in zip((*POLICY, *REFERENCE), (*lengths, *lengths))]
    losses, chosen, rejected = loss(*means)
    torch.testing.assert_close(losses, torch.tensor([(0.75 - 0.2) ** 2, (-0.575 - 0.2) ** 2]))
    torch.testing.assert_close(chosen, 2.5 * torch.tensor([0.25, -0.2]))
    torch.testing.assert_close(rejected, 2.5 * torch.tensor([-0.5, 0.375]))
    assert loss.length_normalized
    assert not IPOLoss().length_normalized  # the paper's


def test_dpo_of_means_gains_nothing_by_length():
    """As above, h = (3/4, -23/40) and beta 2. An answer of twice the tokens with the same mean counts the same."""
    loss = LengthNormalizedDPOLoss(beta=2.0)
    means = torch.tensor([0.25, -0.2]), torch.tensor([-0.5, 0.375]), torch.zeros(2), torch.zeros(2)
    losses, chosen, rejected = loss(*means)
    torch.testing.assert_close(losses, torch.tensor([softplus(-1.5), softplus(1.15)]))
    torch.testing.assert_close(torch.stack([chosen, rejected]), 2 * torch.stack(means[:2]))
    assert loss.length_normalized
    assert not hasattr(DPOLoss(), "length_normalized")  # the recipe gives it sums


def test_simpo_needs_no_reference():
    """beta 2, gamma 1, means (-1, -2) and (-1.5, -1.2): beta (c - r) - gamma = (0, -2.6)."""
    loss = SimPOLoss(beta=2.0, gamma=1.0)
    losses, chosen, rejected = loss(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.2]), None, None)
    torch.testing.assert_close(losses, torch.tensor([math.log(2), softplus(2.6)]))
    torch.testing.assert_close(chosen, torch.tensor([-2.0, -4.0]))
    torch.testing.assert_close(rejected, torch.tensor([-3.0, -2.4]))
    assert loss.reference_free
    assert loss.length_normalized


def test_orpo_adds_an_odds_ratio_to_the_cross_entropy():
    """lam .5; means (log 1/2, log 1/4) have odds 1 and 1/3: log 2 - .5 log sigmoid(log 3) = log 2 + .5 log(4 / 3)."""
    losses, chosen, rejected = ORPOLoss(lam=0.5)(torch.tensor([0.5]).log(), torch.tensor([0.25]).log())
    torch.testing.assert_close(losses, torch.tensor([math.log(2) + 0.5 * math.log(4 / 3)]))
    torch.testing.assert_close(torch.stack([chosen, rejected])[:, 0], 0.5 * torch.tensor([0.5, 0.25]).log())
    assert ORPOLoss().reference_free
    assert ORPOLoss().length_normalized


def test_orpo_is_finite_where_an_answer_is_all_but_certain_or_impossible():
    policy = torch.tensor([0.0, -40.0], requires_grad=True)
    losses, *_ = ORPOLoss()(policy, policy.flip(0).detach())
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(policy.grad).all()


def test_kto_weighs_an_answer_against_the_distance_from_the_reference():
    """beta .5, log-ratios 2 and -3, kl 1: 1 - sigmoid(.5 (2 - 1)), and of the other 2 (1 - sigmoid(.5 (1 + 3)))."""
    loss = KTOLoss(beta=0.5, undesirable_weight=2.0)
    reference = torch.tensor([-10.0, -10.0])
    losses, rewards = loss(torch.tensor([-8.0, -13.0]), reference, torch.tensor([True, False]), 1.0)
    torch.testing.assert_close(losses, torch.tensor([1 / (1 + math.exp(0.5)), 2 / (1 + math.exp(2))]))
    torch.testing.assert_close(rewards, torch.tensor([1.0, -1.5]))


def test_sft_is_the_cross_entropy_of_the_chosen_answer():
    torch.testing.assert_close(SFTLoss()(POLICY[0]), torch.tensor([10.0, 20.0]))
    assert not inspect.signature(SFTLoss).parameters  # what it does not take is refused with the config


def test_robust_dpo_is_unbiased_under_flips():
    """With a share eps of the pairs flipped, its expectation is DPO's loss on the unflipped pairs."""
    eps, loss = 0.2, RobustDPOLoss(beta=0.3, flip_rate=0.2)
    straight = loss(*POLICY, *REFERENCE)[0]
    flipped = loss(*POLICY[::-1], *REFERENCE[::-1])[0]
    expected = DPOLoss(beta=0.3)(*POLICY, *REFERENCE)[0]
    torch.testing.assert_close((1 - eps) * straight + eps * flipped, expected)


@pytest.mark.parametrize("loss", [IPOLoss(), RobustDPOLoss(), SimPOLoss(), ORPOLoss(), LengthNormalizedDPOLoss()])
def test_gradient_prefers_the_chosen_answer_and_rewards_are_detached(loss):
    policy = [x.clone().requires_grad_() for x in POLICY]
    losses, *rewards = loss(*policy, *((None, None) if getattr(loss, "reference_free", False) else REFERENCE))
    losses.sum().backward()
    assert (policy[0].grad <= 0).all()
    assert (policy[1].grad >= 0).all()
    assert not any(reward.requires_grad for reward in rewards)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IPOLoss(tau=0), "loss.tau=0"),
        (lambda: RobustDPOLoss(flip_rate=0.5), "0 <= flip_rate < 0.5"),
        (lambda: RobustDPOLoss(beta=-1), "loss.beta=-1"),
        (lambda: SimPOLoss(gamma=-1), "gamma >= 0"),
        (lambda: ORPOLoss(lam=0), "loss.lam=0"),
        (lambda: KTOLoss(beta=0), "loss.beta=0"),
        (lambda: KTOLoss(desirable_weight=0, undesirable_weight=0), "one of them above 0"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_preference_loss_is_refused():
    for loss in (
        DPOLoss(),
        LengthNormalizedDPOLoss(),
        IPOLoss(),
        RobustDPOLoss(),
        SimPOLoss(),
        ORPOLoss(),
        SFTLoss(),
        KTOLoss(),
    ):
        check_loss(loss)
    with pytest.raises(ValueError, match=r"CrossEntropyLoss is no preference loss .*it takes the log-probabilities"):
        check_loss(torch.nn.CrossEntropyLoss())
