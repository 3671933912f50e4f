# SPDX-License-Identifier: MIT
"""The same run on datatrove's local executor and on Ray with two workers: the files must be the same, byte for byte.

pip install -c constraints.txt -e ".[ray]"
python benchmarks/synthesis_ray.py --posts 150
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).parents[1]
sys.path[:0] = [str(REPO), str(REPO / "tests")]

from fault_server import FaultServer  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from synthesis_rules import respond  # noqa: E402

from benchmarks.synthesis_kill import make_config, run_recipe, sha256_of, write_posts  # noqa: E402

RAY = {"_component_": "datatrove.executor.RayPipelineExecutor", "tasks": 2, "workers": 2, "mem_per_cpu_gb": 1}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--posts", type=int, default=150)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, FaultServer(respond) as server:
        folder = Path(scratch)
        table = write_posts(folder / "posts.csv", options.posts)
        hashes = {}
        for name in ("local", "ray"):
            cfg = make_config(folder / name, table, server.url, folder / f"{name}_replies")
            if name == "ray":
                cfg.executor = OmegaConf.create(RAY)
            start = time.monotonic()
            run_recipe(cfg)
            print(f"{name}: {time.monotonic() - start:.1f} s")
            hashes[name] = sha256_of(folder / name / "dataset")
    print("the same files:", hashes["local"] == hashes["ray"])
    return int(hashes["local"] != hashes["ray"])


if __name__ == "__main__":
    sys.exit(main())
