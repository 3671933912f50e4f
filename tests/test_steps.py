# SPDX-License-Identifier: MIT
"""What the steps of a run do with a gradient is what PyTorch's optimizers do."""

import pytest
import torch

from finetune.run import steps as module


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
        ("NAdam", {}, "exp_avg_sq"),
        ("RAdam", {}, "exp_avg_sq"),
        ("AdamW", {"maximize": True}, "maximize=True"),
        ("SGD", {"maximize": True}, "maximize=True"),
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


def test_momentum_spreads_a_gradient_over_the_steps_after_it():
    """The steps of Adam, before their division, add up to the gradients, each times what is said of its step."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], betas=(0.8, 0.99))
    rates, gradients = [0.1, 0.4, 0.3, 0.0, 0.2], [1.0, -3.0, 2.0, 5.0, -4.0]
    total = 0.0
    for t, (rate, gradient) in enumerate(zip(rates, gradients), start=1):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        total += rate * optimizer.state[weight]["exp_avg"].item() / (1 - 0.8**t)
    last = module.spread(rates, range(3, 5), 0.8)
    first = module.spread(rates, range(3), 0.8)
    weights = [own + later * last[0].own for own, later in first] + [own for own, _ in last]
    assert sum(weight * gradient for weight, gradient in zip(weights, gradients)) == pytest.approx(total, rel=1e-5)
    assert module.spread(rates, range(2, 4), 0.0) == [(0.3, 0.0), (0.0, 0.0)]  # as SGD without momentum
