# SPDX-License-Identifier: MIT
"""Every command that README.md shows runs, and every file that it names is there."""

import re

import pytest
from conftest import REPO
from test_configs import COMMANDS as HEADER_COMMANDS

TEXT = (REPO / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def test_the_two_commands_come_first():
    assert COMMANDS[:2] == ["make quickstart", "make test"]


# what a config's header shows too is run there
@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {command for _, command in HEADER_COMMANDS}))
def test_command_runs(run_documented, command):
    run_documented(command)


def test_no_placeholder_is_left():
    assert not re.search(r"QUICK[A-Z]+|TODO", TEXT)


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)", TEXT)
    assert targets
    assert [t for t in targets if not t.startswith("http") and not (REPO / t).exists()] == []


def test_the_tree_names_what_is_there():
    tree = re.search(r"```text\n(.*?)```", TEXT, flags=re.DOTALL)[1]
    named = re.findall(r"^ *([\w/.]+\.(?:py|yaml|jsonl))", tree, flags=re.MULTILINE)
    folder = ""
    for line in tree.splitlines():
        found = re.match(r"^(\w+)/", line)
        folder = found[1] if found else folder
        for name in re.findall(r"^  (\S+\.(?:py|jsonl))", line):
            assert (REPO / folder / name).exists(), name
    assert named
