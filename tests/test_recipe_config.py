# SPDX-License-Identifier: MIT
import pytest
from omegaconf import OmegaConf

from data.recipe_config import check_config

REQUIRED, OPTIONAL = {"a", "optimizer"}, {"b": 5, "extra": None}
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


def test_component_that_does_not_exist():
    with pytest.raises(ValueError, match=r"`optimizer._component_: torch.optim.Nope` cannot be imported"):
        check({"a": 1, "optimizer": {"_component_": "torch.optim.Nope"}})


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
