# SPDX-License-Identifier: MIT
"""Every module imports, our packages are ours, and the layers import one way."""

import ast
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PACKAGES = ("data", "finetune", "eval")
FILES = sorted(path for package in PACKAGES for path in (REPO / package).rglob("*.py"))
# Lowest first: a module imports what stands before it or beside it. A folder's other modules (recipes, and what YAML
# names) come last in their package.
ORDER = (
    "data.recipe data.chat data.pairs data.judging data.language data.text_models data.quality "
    "data.synthesis data.people data finetune.tree finetune.causal finetune.run finetune.adapters finetune "
    "eval.statements eval.asking eval.scores eval.readings eval.pages eval.effects eval.play eval"
).split()
RECIPES = {
    *("data.audit", "data.review", "data.synthesize", "finetune.dpo_finetune", "finetune.export", "eval.playground"),
    *("finetune.packaged_model", "eval.political_compass", "eval.side_effects", "eval.study", "eval.validate_judge"),
    *("eval.import_answers", "eval.import_populations", "eval.label_answers", "eval.train_judge"),
}


def imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports, ``from a import b`` as ``a.b``."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rank(name: str) -> int:
    """Place of a module, or of a name in one, in ``ORDER``."""
    parts = name.split(".")
    return next(ORDER.index(".".join(parts[:n])) for n in (2, 1) if ".".join(parts[:n]) in ORDER)


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
    code = "from importlib.resources import files; from importlib.util import find_spec; "
    code += "assert all(map(find_spec, ('data.datasets', 'finetune.dpo_finetune', 'eval.study'))); "
    code += "print(files('data').joinpath('mirrored/pairs.jsonl').read_text()[:1])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{", done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPO)))
def test_imports_run_downwards(path):
    name = ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")
    above = [n for n in imported_names(path) if n.split(".")[0] in PACKAGES and rank(n) > rank(name)]
    assert not above, f"{name} imports what lies above it"
    recipes = {n for n in imported_names(path) if ".".join(n.split(".")[:2]) in RECIPES}
    assert not recipes or name == "eval.study", f"{name} imports a recipe"


PURE = ("data/pairs/records.py", "data/quality/phrases.py", "data/quality/measures.py", "eval/scores/scoring.py")


@pytest.mark.parametrize("name", PURE)
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


def test_files_and_folders_keep_their_budgets():
    long = {str(p.relative_to(REPO)): n for p in FILES if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"over 400 lines, split where an idea ends: {long}"
    modules = Counter(p.parent for p in FILES if p.name != "__init__.py")
    full = {str(folder.relative_to(REPO)): n for folder, n in modules.items() if n > 16}
    assert not full, f"too many modules in a folder: {full}"


def test_no_prefix_is_a_missing_folder():
    prefixes = Counter((p.parent, p.stem.split("_")[0]) for p in FILES if "_" in p.stem and p.name != "__init__.py")
    families = {f"{folder.relative_to(REPO)}/{prefix}_*": n for (folder, prefix), n in prefixes.items() if n > 4}
    assert not families, f"a family of modules is a sub-package: {families}"
