# SPDX-License-Identifier: MIT
"""Time ``make quickstart`` of this commit beside that of another one, in turn, each from an empty folder.

    python -m benchmarks.quickstart_speed --against d842b10

Installation and model are there already; kept reference values are not. Both sides are commits: what is not committed
does not count. Each round begins with the other side. Results: ``OUTPUT/result.json``.
"""

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path

from benchmarks.child_process import REPO, run_child
from benchmarks.revision import checkout


def seconds_of(tree: Path, folder: Path, threads: int) -> float:
    """Return the seconds of a tree's ``make quickstart``, after its results of before were deleted.

    Raises:
        RuntimeError: If it failed; shows the end of its output.
    """
    for name in ("quickstart", "reference_cache"):
        shutil.rmtree(tree / "outputs" / name, ignore_errors=True)
    binaries = Path(sys.executable).parent
    command = ["make", "quickstart", f"BIN={binaries}", f"PYTHON={sys.executable}"]
    # the installation is this environment's, so make must not try one of its own
    installed = tree / ".venv" / "installed"
    installed.parent.mkdir(exist_ok=True)
    installed.touch()
    return run_child(tree.name, command, folder, threads, {"PYTHONPATH": str(tree)}, tree).seconds


def main() -> None:
    """Run both sides ``--rounds`` times and print their seconds and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", required=True, metavar="REV", help="a git revision")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=REPO / "outputs" / "benchmarks" / "quickstart_speed")
    arguments = parser.parse_args()
    try:
        trees = {name: checkout(name, arguments.output) for name in ("HEAD", arguments.against)}
    except ValueError as error:
        parser.error(str(error))
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    for k in range(arguments.rounds):
        for name in list(trees)[:: -1 if k % 2 else 1]:
            seconds[name].append(seconds_of(trees[name], arguments.output, arguments.threads))
            print(f"round {k + 1}: {name} {seconds[name][-1]:.0f} s", flush=True)
    ratio = statistics.median(new / old for new, old in zip(*seconds.values()))
    result = {"commits": {name: tree.name for name, tree in trees.items()}, "seconds": seconds, "ratio": ratio}
    (arguments.output / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"HEAD takes {ratio:.2f} of the time of {arguments.against}; {arguments.output}/result.json")


if __name__ == "__main__":
    main()
