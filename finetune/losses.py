# SPDX-License-Identifier: MIT
"""Preference losses that torchtune 0.6.1 lacks, with the signature of its ``DPOLoss``.

torchtune has two: ``torchtune.rlhf.loss.DPOLoss`` (with ``label_smoothing`` it is conservative DPO, Mitchell 2023) and
``torchtune.rlhf.loss.RSOLoss`` (hinge). Every loss takes the summed log-probabilities (nats) of the policy's and the
reference's answers, ``[N]`` each, and returns ``(losses, chosen_rewards, rejected_rewards)``, ``[N]`` each, the rewards
detached. A loss of your own works alike, by its dotpath.

A loss may declare two attributes that the recipe reads:

- ``reference_free = True``: it gets None for the reference, whose forward passes are then never run.
- ``length_normalized = True``: it gets means over the scored tokens instead of sums.

Legend: N pairs; h is (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected).
"""

import torch.nn.functional as F
from torch import Tensor, nn


class IPOLoss(nn.Module):
    """Identity preference optimization: regress the log-ratio margin on a fixed target.

    ``(h - 1 / (2 tau))^2``. Unlike DPO's its optimum is finite, so that certain preferences are not overfitted.
    Source: Azar et al. 2023, arXiv 2310.12036, Eq. 17, whose h is of whole answers: the sums over their tokens. TRL
    takes the means instead, so that equal values of tau are another loss there.

    Args:
        tau: Strength of the pull towards the reference, > 0; the target margin is ``1 / (2 tau)`` nats.
        length_normalized: Take the means over an answer's tokens, as TRL does; the target is then in nats a token.
    """

    def __init__(self, tau: float = 0.1, length_normalized: bool = False) -> None:
        super().__init__()
        if tau <= 0:
            raise ValueError(f"loss.tau={tau}; use a positive number, for example 0.1")
        self.tau, self.length_normalized = tau, length_normalized

    def forward(
        self, policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses and rewards, ``[N]`` each; see the module."""
        chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
        losses = (chosen - rejected - 1 / (2 * self.tau)) ** 2
        return losses, self.tau * chosen.detach(), self.tau * rejected.detach()


class RobustDPOLoss(nn.Module):
    """DPO that is unbiased when a known share of the preferences is flipped.

    ``[(1 - eps) l(h) - eps l(-h)] / (1 - 2 eps)`` with DPO's ``l(h) = -log sigmoid(beta h)``. Its mean over flipped
    labels is DPO's loss on the true ones. Source: Chowdhury, Kini and Natarajan 2024, arXiv 2403.00409, Section 3.

    Args:
        beta: DPO's beta, > 0.
        flip_rate: Assumed share of flipped preferences (eps), 0 <= eps < 0.5.
    """

    def __init__(self, beta: float = 0.1, flip_rate: float = 0.1) -> None:
        super().__init__()
        if beta <= 0:
            raise ValueError(f"loss.beta={beta}; use a positive number, for example 0.1")
        if not 0 <= flip_rate < 0.5:
            raise ValueError(f"loss.flip_rate={flip_rate}; use 0 <= flip_rate < 0.5")
        self.beta, self.flip_rate = beta, flip_rate

    def forward(
        self, policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses and rewards, ``[N]`` each; see the module."""
        chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
        h = chosen - rejected
        kept, flipped = -F.logsigmoid(self.beta * h), -F.logsigmoid(-self.beta * h)
        losses = ((1 - self.flip_rate) * kept - self.flip_rate * flipped) / (1 - 2 * self.flip_rate)
        return losses, self.beta * chosen.detach(), self.beta * rejected.detach()


class SimPOLoss(nn.Module):
    """Simple preference optimization: DPO on mean log-probabilities, with a margin and without a reference.

    ``-log sigmoid(beta (mean_chosen - mean_rejected) - gamma)``.
    Source: Meng, Xia and Chen 2024, arXiv 2405.14734, Eq. 6.

    Args:
        beta: Scale of the reward, > 0; the paper uses 2.0 to 10.
        gamma: Target reward margin, >= 0; the paper's ratio gamma / beta is 0.1 to 0.5.
    """

    reference_free = True
    length_normalized = True

    def __init__(self, beta: float = 2.0, gamma: float = 1.0) -> None:
        super().__init__()
        if beta <= 0 or gamma < 0:
            raise ValueError(f"loss.beta={beta}, loss.gamma={gamma}; use beta > 0 and gamma >= 0")
        self.beta, self.gamma = beta, gamma

    def forward(
        self,
        policy_chosen: Tensor,
        policy_rejected: Tensor,
        reference_chosen: None = None,
        reference_rejected: None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses and rewards, ``[N]`` each, from means over tokens; the reference is not looked at."""
        chosen, rejected = self.beta * policy_chosen, self.beta * policy_rejected
        return -F.logsigmoid(chosen - rejected - self.gamma), chosen.detach(), rejected.detach()
