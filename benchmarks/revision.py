# SPDX-License-Identifier: MIT
"""The files of another git revision beside these, so that a benchmark runs both in turn."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from benchmarks.child_process import REPO

CLOCK = Path("benchmarks", "step_log.py")  # imports nothing of the project; both sides are timed by the same one


def checkout(revision: str, folder: Path) -> Path:
    """Return a tree with a revision's files in a subfolder of ``folder``; models and clock are those of this tree.

    Raises:
        ValueError: If git knows no such revision.
    """
    asked = ["git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    commit = subprocess.run(asked, cwd=REPO, capture_output=True, text=True).stdout.strip()
    if not commit:
        raise ValueError(f"--against {revision}: git knows no such commit here; see git log --oneline")
    tree = folder.resolve() / commit  # PYTHONPATH of a child that works elsewhere
    if not (tree / "outputs").exists():  # made last
        tree.mkdir(parents=True, exist_ok=True)
        archive = tree / "files.tar"
        subprocess.run(["git", "archive", "--output", archive, commit], cwd=REPO, check=True)
        with tarfile.open(archive) as files:
            files.extractall(tree, filter="data")
        archive.unlink()
        shutil.copy(REPO / CLOCK, tree / CLOCK)
        (tree / "outputs").mkdir()
        os.symlink(REPO / "outputs" / "models", tree / "outputs" / "models")
    return tree
