# SPDX-License-Identifier: MIT
"""Run one side of a benchmark in a process of its own, and say how long it took and how much memory it had."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).parents[1]
MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux


class Usage(NamedTuple):
    """What a process took.

    Attributes:
        started: ``time.monotonic()`` before it began.
        seconds: From there to its end.
        peak_rss_bytes: Of this process alone.
    """

    started: float
    seconds: float
    peak_rss_bytes: int


def run_child(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    threads: int,
    environment: Mapping[str, str] = {},
    tree: Path = REPO,
) -> Usage:
    """Run a command from the root of a tree, the repository's own or another, its output in ``folder/output.txt``.

    Raises:
        RuntimeError: If it failed; shows the end of its output.
    """
    output_file = folder / "output.txt"
    with open(output_file, "w", encoding="utf-8") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=tree, env={**child_environment(threads), **environment}, stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            # wait4 and not wait: it gives the peak of this child alone
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
    seconds = time.monotonic() - started
    if process.returncode != 0:
        tail = "\n".join(output_file.read_text(errors="replace").splitlines()[-25:])
        raise RuntimeError(f"{name} ended with {process.returncode}; {output_file} ends with:\n{tail}")
    return Usage(started, seconds, usage.ru_maxrss * MEMORY_UNIT)


def child_environment(threads: int) -> dict[str, str]:
    """Return this environment with the thread count fixed and the network left alone."""
    fixed = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": 1,
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**os.environ, **{key: str(value) for key, value in fixed.items()}}


def versions_of(python: Path) -> dict[str, str]:
    """Return the packages of an interpreter's environment; a local build's suffix (+cpu) is no other version."""
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({d.name.replace('-', '_'): d.version for d in m.distributions()}))"
    )
    found = json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)
    return {name: version.partition("+")[0] for name, version in found.items()}
