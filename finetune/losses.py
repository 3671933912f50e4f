# SPDX-License-Identifier: MIT
"""Losses that torchtune 0.6.1 lacks: of preference pairs, with the signature of its ``DPOLoss``, and of single answers.

torchtune has two: ``torchtune.rlhf.loss.DPOLoss`` (with ``label_smoothing`` it is conservative DPO, Mitchell 2023) and
``torchtune.rlhf.loss.RSOLoss`` (hinge). Every loss takes the summed log-probabilities (nats) of the policy's and the
reference's answers, ``[N]`` each, and returns ``(losses, chosen_rewards, rejected_rewards)``, ``[N]`` each, the rewards
detached. A loss of your own works alike, by its dotpath.

A loss may declare attributes that the recipe reads:

- ``reference_free = True``: it gets None for the reference, whose forward passes are then never run.
- ``length_normalized = True``: it gets means over the scored tokens instead of sums.
- ``chosen_only = True``: rejected answers are not read; see :class:`SFTLoss`. A step's loss is a mean over tokens.
- ``unpaired = True``: answers count one by one; see :class:`KTOLoss`. A step's loss is a mean over answers.

Legend: N pairs, M answers; h is (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchtune.rlhf.loss import DPOLoss


class LengthNormalizedDPOLoss(DPOLoss):
    """DPO on means over an answer's tokens: a chosen answer that is only longer than the rejected one gains nothing.

    ``-log sigmoid(beta (mean_chosen - mean_rejected))`` of log-ratios to the reference, with DPO's own arguments. Of
    answers of n tokens each it is DPO with ``beta / n``. Source: Lambert et al. 2024 (Tulu 3), arXiv 2411.15124, Eq. 6,
    with beta 5.
    """

    length_normalized = True


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


class ORPOLoss(nn.Module):
    """Odds ratio preference optimization: learn the chosen answer, and prefer it, without a reference.

    ``-mean_chosen - lam * log sigmoid(log odds(mean_chosen) - log odds(mean_rejected))`` with ``log odds(x) = x -
    log(1 - exp(x))`` of mean log-probabilities. Source: Hong, Lee and Thorne 2024, arXiv 2403.07691, Eq. 4, 6 and 7.
    TRL's first term is a mean over the tokens of prompt and answer; ours is the paper's, of the answer's.

    Args:
        lam: Weight of the odds ratio, > 0; the paper uses 0.1 to 0.25.
    """

    reference_free = True
    length_normalized = True

    def __init__(self, lam: float = 0.1) -> None:
        super().__init__()
        if lam <= 0:
            raise ValueError(f"loss.lam={lam}; use a positive number, for example 0.1")
        self.lam = lam

    def forward(
        self,
        policy_chosen: Tensor,
        policy_rejected: Tensor,
        reference_chosen: None = None,
        reference_rejected: None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses and rewards, ``[N]`` each, from means over tokens; the reference is not looked at."""
        means = [policy_chosen.clamp(max=-1e-6), policy_rejected.clamp(max=-1e-6)]  # certainty has no odds
        log_odds = [x - torch.log(-torch.expm1(x)) for x in means]
        losses = -policy_chosen - self.lam * F.logsigmoid(log_odds[0] - log_odds[1])
        return losses, self.lam * policy_chosen.detach(), self.lam * policy_rejected.detach()


class SFTLoss(nn.Module):
    """Supervised fine-tuning: the cross-entropy of the chosen answers; the rejected ones are not read.

    A step's loss is the mean over its answers' tokens, as in torchtune's ``lora_finetune_single_device``.
    """

    reference_free = True
    chosen_only = True

    def __init__(self) -> None:  # nn.Module's own takes any argument, so that a wrong one would be found late
        super().__init__()

    def forward(self, policy_chosen: Tensor) -> Tensor:
        """Return the sums over an answer's tokens, nats ``[N]``."""
        return -policy_chosen


class KTOLoss(nn.Module):
    """Kahneman-Tversky optimization: each answer by itself is desirable or not.

    With the log-ratio r of policy and reference: ``w (1 - sigmoid(beta (r - kl)))`` of a desirable answer, ``w (1 -
    sigmoid(beta (kl - r)))`` of another. Source: Ethayarajh et al. 2024, arXiv 2402.01306, Eq. 7 and 8. The chosen and
    rejected answers of a pair are two answers; ``data.datasets.unpaired_answers`` gives answers without a partner.

    Args:
        beta: Strength of the pull towards the reference, > 0.
        desirable_weight: Weight of desirable (chosen) answers, >= 0.
        undesirable_weight: Weight of the others, >= 0. The paper wants ``n_desirable desirable_weight`` within 1 to 4/3
            times ``n_undesirable undesirable_weight``.
    """

    unpaired = True

    def __init__(self, beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> None:
        super().__init__()
        if beta <= 0:
            raise ValueError(f"loss.beta={beta}; use a positive number, for example 0.1")
        if min(desirable_weight, undesirable_weight) < 0 or not desirable_weight + undesirable_weight:
            weights = f"loss.desirable_weight={desirable_weight}, loss.undesirable_weight={undesirable_weight}"
            raise ValueError(f"{weights}; use numbers of 0 or more, one of them above 0")
        self.beta, self.desirable_weight, self.undesirable_weight = beta, desirable_weight, undesirable_weight

    def forward(self, policy: Tensor, reference: Tensor, desirable: Tensor, kl: float) -> tuple[Tensor, Tensor]:
        """Return losses and rewards of M answers.

        Args:
            policy: Summed log-probabilities, nats ``[M]``.
            reference: Those of the reference ``[M]``.
            desirable: Which answers are desirable, bool ``[M]``.
            kl: The policy's distance from the reference, nats: the mean log-ratio of answers to other prompts, from 0.
        """
        ratio = policy - reference
        sign = desirable.to(ratio.dtype) * 2 - 1
        weight = torch.where(desirable, self.desirable_weight, self.undesirable_weight)
        return weight * (1 - torch.sigmoid(self.beta * sign * (ratio - kl))), self.beta * ratio.detach()
