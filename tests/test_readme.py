# SPDX-License-Identifier: MIT
"""Every command that README.md shows runs."""

import re

import pytest
from conftest import REPO
from documented import PLANNED, commands_of
from test_configs import COMMANDS as HEADER_COMMANDS

TEXT = (REPO / "README.md").read_text(encoding="utf-8")
COMMANDS = commands_of(REPO / "README.md")


def test_the_two_commands_come_first():
    assert COMMANDS[:2] == ["make quickstart", "make test"]


# what a config's header shows too is run there, and tests/test_study.py plans the shipped studies
@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {command for _, command in HEADER_COMMANDS} - PLANNED))
@pytest.mark.usefixtures("unrendered")  # the commands of the configs render
def test_command_runs(run_documented, command):
    run_documented(command)


def test_no_placeholder_is_left():
    assert not re.search(r"QUICK[A-Z]+|TODO", TEXT)
