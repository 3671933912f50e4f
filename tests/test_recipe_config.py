# SPDX-License-Identifier: MIT
import json

import pytest
from omegaconf import OmegaConf

from data.recipe.config import check_config, plain_errors

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


def test_what_a_user_can_mend_is_said_in_one_line(monkeypatch):
    @plain_errors
    def main(cfg):
        """Divide."""
        if cfg == "file":
            raise ValueError("a.csv row 2: no")
        if cfg == "library":
            json.loads("{")
        if cfg == "builtin":
            return max([])
        return 1 / cfg

    assert main(2) == 0.5
    assert main.__doc__ == "Divide."
    with pytest.raises(SystemExit) as stop:
        main("file")
    assert stop.value.code == "error: a.csv row 2: no\n(ValueError; POLITUNE_TRACEBACK=1 shows where)"
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        main(0)
    with pytest.raises(ValueError, match="Expecting property name"):  # what a library says helps nobody without it
        main("library")
    with pytest.raises(ValueError, match="empty"):
        main("builtin")
    monkeypatch.setenv("POLITUNE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="row 2"):
        main("file")
