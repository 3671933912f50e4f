# SPDX-License-Identifier: MIT
"""Kill data/synthesize.py (SIGKILL) at random moments, against a server that goes wrong, and see what is lost.

    python benchmarks/synthesis_kill.py --kills 50 --posts 120

A run is killed and started again until it is done, then another one is begun, until there were enough kills. Counts
calls that were made again although their reply was on the disk (repeated), those sent before a kill without a reply on
the disk and so sent again (under_way), posts that are in neither the rows nor the rejected (lost), rows with an empty
field, and finished runs whose files differ from those of an undisturbed one. Exits with 1 if any of these but
under_way is not 0.
"""

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).parents[1]
sys.path[:0] = [str(REPO), str(REPO / "tests")]

from fault_server import FaultServer, request_sha256  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402
from synthesis_rules import posts, respond  # noqa: E402

from data.chat.cache import ReplyCache  # noqa: E402
from data.recipe.config import check_config  # noqa: E402
from data.synthesize import OPTIONAL, REQUIRED, SynthesizeRecipe  # noqa: E402

FAULTS = ("429", "500", "timeout", "cut", "html", "no choices", "empty", "not utf-8")


def write_posts(path: Path, n: int) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "author", "date"])
        writer.writeheader()
        writer.writerows(posts(n))
    return path


def make_config(folder: Path, posts_file: Path, url: str | None, cache: Path | None = None, **changes) -> DictConfig:
    """The shipped config with its paths, and short waits."""
    cfg = OmegaConf.load(REPO / "configs/synthesize_politune_like.yaml")
    cfg.output_dir = str(folder)
    cfg.sources.posts |= {"source": str(posts_file), "author_column": "author", "date_column": "date"}
    client = {"base_url": url, "cache_dir": str(cache or folder / "replies"), "timeout_s": 0.5}
    client |= {"retry_wait_s": 0.01, "max_retries": 10}
    for part in ("judge", "generator"):
        cfg[part].client = OmegaConf.merge(cfg[part].client, client)
    cfg.topics = {"economic": ["taxation", "housing"], "social": ["drugs", "immigration"]}  # few posts, few topics
    return check_config(OmegaConf.merge(cfg, changes), REQUIRED, OPTIONAL)


def run_recipe(cfg: DictConfig) -> None:
    SynthesizeRecipe(cfg).run()


def _child(cfg: DictConfig) -> None:
    os.setsid()  # whatever it starts is killed with it
    sys.stderr = open(os.devnull, "w")
    run_recipe(cfg)


def sha256_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def check_rows(dataset: Path, n_posts: int) -> tuple[int, int]:
    """Return the number of posts that are missing, and of rows with an empty field."""
    rows = [json.loads(line) for path in dataset.glob("left-*.jsonl") for line in path.open()]
    rejected = (dataset / "rejected.jsonl").read_text().splitlines()
    empty = sum(not (row["prompt"] and row["chosen"] and row["rejected"]) for row in rows)
    return n_posts - len(rows) - len(rejected), empty


def kill_at_random(folder: Path, n_kills: int, n_posts: int, fault_rate: float = 0.15, seed: int = 0) -> dict[str, int]:
    """Return the counts that the module's docstring names."""
    draw = random.Random(seed)
    table = write_posts(folder / "posts.csv", n_posts)
    figures = dict.fromkeys(("kills", "runs_done", "calls", "repeated", "under_way", "lost", "empty", "differing"), 0)
    loose = {"max_side_difference": 1}  # few posts: one row more or less is a large share
    with FaultServer(respond, fault_rate, FAULTS, seed, stall_s=0.7) as server:
        start = time.monotonic()
        run_recipe(make_config(folder / "undisturbed", table, server.url, **loose))
        whole_s = time.monotonic() - start
        wanted = sha256_of(folder / "undisturbed" / "dataset")
        run = 0
        while figures["kills"] < n_kills:
            run += 1
            cfg = make_config(folder / f"run{run}", table, server.url, **loose)
            seen, known, done = len(server.calls), set(), False
            sent: set[str] = set()
            while not done:
                child = multiprocessing.get_context("fork").Process(target=_child, args=(cfg,))
                child.start()
                # the last start of a run is left alone once there were enough kills
                child.join(draw.uniform(0, whole_s) if figures["kills"] < n_kills else None)
                if child.is_alive():
                    try:
                        os.killpg(child.pid, signal.SIGKILL)
                    except ProcessLookupError:  # not yet the leader of its group
                        child.kill()
                    child.join()
                    figures["kills"] += 1
                elif child.exitcode != 0:
                    raise RuntimeError(f"a run ended by itself with {child.exitcode}")
                else:
                    done = True
                time.sleep(0.1)  # what was sent reaches the server
                now = [(request_sha256(body), body) for body in server.calls[seen:]]
                seen += len(now)
                figures["calls"] += len(now)
                figures["repeated"] += sum(key in known for key, _ in now)
                figures["under_way"] += len(({key for key, _ in now} & sent) - known)
                known = ReplyCache(cfg.judge.client.cache_dir).keys()
                sent |= {key for key, _ in now}
            figures["runs_done"] += 1
            lost, empty = check_rows(folder / f"run{run}" / "dataset", n_posts)
            figures["lost"] += lost
            figures["empty"] += empty
            figures["differing"] += sha256_of(folder / f"run{run}" / "dataset") != wanted
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--posts", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = kill_at_random(Path(scratch), options.kills, options.posts, seed=options.seed)
    print(json.dumps(result))
    sys.exit(any(result[name] for name in ("repeated", "lost", "empty", "differing")))
