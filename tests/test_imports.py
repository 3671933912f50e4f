# SPDX-License-Identifier: MIT
"""Every module imports, our packages are ours, and the layers import one way."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PACKAGES = ("data", "finetune", "eval")
FILES = sorted(path for package in PACKAGES for path in (REPO / package).rglob("*.py"))
ALLOWED = {"data": {"data"}, "finetune": {"data", "finetune"}, "eval": {"data", "finetune", "eval"}}


def imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports, ``from a import b`` as ``a.b``."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPO)))
def test_module_imports(path):
    if path.name == "inspect_tasks.py":
        pytest.importorskip("inspect_ai", reason="the extra inspect is not installed")
    name = ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")
    importlib.import_module(name)


def test_packages_lie_in_this_repository():
    # `data`, `eval` and `finetune` are common names: another package of that name would win over the folder
    for package in PACKAGES:
        assert Path(importlib.import_module(package).__file__).parent == REPO / package


def test_packages_are_found_from_another_folder(tmp_path):
    code = "import data.datasets, finetune, eval; from importlib.resources import files; "
    code += "print(files('data').joinpath('mirrored/pairs.jsonl').read_text()[:1])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{", done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPO)))
def test_layers_import_one_way(path):
    package = path.relative_to(REPO).parts[0]
    ours = {name.split(".")[0] for name in imported_names(path)} & set(PACKAGES)
    assert ours <= ALLOWED[package]


@pytest.mark.parametrize("name", ["data/records.py", "data/filters.py", "data/measures.py", "eval/scoring.py"])
def test_pure_modules_import_no_torch(name):
    assert not {n for n in imported_names(REPO / name) if n.split(".")[0] in ("torch", "torchtune", "transformers")}


def test_every_torchtune_name_that_we_use_exists():
    names = {n for path in FILES for n in imported_names(path) if n.split(".")[0] == "torchtune"}
    assert len(names) > 10
    for name in names:
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


def test_no_file_outgrows_the_budget():
    long = {str(p.relative_to(REPO)): n for p in FILES if (n := len(p.read_text().splitlines())) > 200}
    assert long.keys() <= {"finetune/dpo_finetune.py"}, f"over 200 lines, split by noun: {long}"
    assert long.get("finetune/dpo_finetune.py", 0) <= 400
