# SPDX-License-Identifier: MIT
"""Every command that a page of docs/ shows in a block of bash runs, and every link leads to a page and a heading."""

import re

import pytest
from conftest import REPO
from documented import PLANNED, commands_of
from test_configs import COMMANDS as HEADER_COMMANDS
from test_readme import COMMANDS as README_COMMANDS

from finetune.tokenizers import hf_chat_tokenizer

PAGES = sorted((REPO / "docs").rglob("*.md"))
MORE = [REPO / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "findings/README.md")]
SHOWN = {command for page in PAGES for command in commands_of(page)}


# what a config's header or the README shows too is run there, and tests/test_study.py plans the shipped studies
@pytest.mark.parametrize("command", sorted(SHOWN - {c for _, c in HEADER_COMMANDS} - set(README_COMMANDS) - PLANNED))
@pytest.mark.usefixtures("unrendered")  # the commands of the configs render
def test_command_runs(run_documented, command):
    run_documented(command)


def headings(text: str) -> set[str]:
    """What GitHub makes of a page's headings."""
    lines = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", [*PAGES, *MORE], ids=lambda p: str(p.relative_to(REPO)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        if target.startswith("http"):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not heading or heading in headings(file.read_text(encoding="utf-8")), target


def test_the_builder_that_data_md_shows_builds(tiny_model_dir, tmp_path, monkeypatch):
    code = (
        (REPO / "docs" / "data" / "own_data.md")
        .read_text(encoding="utf-8")
        .partition("```python\n")[2]
        .partition("```")[0]
    )
    (tmp_path / "survey-2.csv").write_text("question,chosen,rejected\nIs tea good?,Yes it is.,No it is not.\n")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert len(names["survey_left"](hf_chat_tokenizer(str(tiny_model_dir)), wave=2)) == 1


@pytest.mark.parametrize("folder", ["data", "eval", "finetune"])
def test_the_tree_names_every_module(folder):
    text = (REPO / "docs" / "understand" / "tree.md").read_text(encoding="utf-8")
    tree = re.search(rf"^{folder}/.*\n((?:  .*\n)+)", text, flags=re.MULTILINE)[1]
    named, inside = set(), ""
    for line in tree.splitlines():
        if head := re.match(r"  (\w+)/", line):  # a sub-package; its modules follow, indented deeper
            inside = f"{head[1]}/"
        elif not line.startswith("    "):
            inside = ""
        named |= {inside + name for name in re.findall(r"^ +(\w+\.py)", line)}
    root = REPO / folder
    there = {str(path.relative_to(root)) for path in root.rglob("*.py") if path.name != "__init__.py"}
    assert named == there


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPO / "docs")))
def test_a_page_begins_with_one_sentence_and_one_command(page):
    title, sentence, block, *_ = page.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ")
    assert sentence.endswith(".")
    assert block.startswith("```bash\n")


@pytest.mark.parametrize(("heading", "most"), [("## The way of a pair", 16), ("## The way of a statement", 21)])
def test_a_walk_names_files_that_are_there_and_stays_short(heading, most):
    text = (REPO / "docs" / "understand" / "walks.md").read_text(encoding="utf-8")
    files = re.findall(r"^\d+\. `([\w/]+\.py)`", text.partition(heading)[2].partition("\n## ")[0], flags=re.MULTILINE)
    assert 10 < len(files) <= most
    assert len(set(files)) == len(files)
    assert all((REPO / file).is_file() for file in files)
