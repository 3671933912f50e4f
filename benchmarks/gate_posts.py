# SPDX-License-Identifier: MIT
"""How long many posts take to be read, masked, gated and told apart.

    python -m benchmarks.gate_posts --posts 1000000 --workers 2

Posts are made up: words of a Zipf-like vocabulary, one in ten a near copy of an earlier post. Prints seconds of each
stage (wall clock, and CPU of all processes) and the peak memory.
"""

import argparse
import itertools
import json
import random
import resource
import string
import tempfile
import time
from multiprocessing import Pool
from pathlib import Path

from data.corpora import posts
from data.language import not_english
from data.quality.defects import TEXT_GATES
from data.quality.duplicates import near_duplicate_clusters
from data.quality.personal import mask_personal

GATES = [*(gate for kind, gate in TEXT_GATES.items() if kind != "unfinished"), not_english]


def write_posts(path: Path, n: int, seed: int = 0) -> None:
    """Write posts of 10 to 45 words as JSON Lines."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(60_000)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(vocabulary))))
    recent: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(n):
            if recent and rng.random() < 0.1:
                post = rng.choice(recent).split()
                post[rng.randrange(len(post))] = rng.choice(vocabulary)
            else:
                post = rng.choices(vocabulary, cum_weights=weights, k=rng.randint(10, 45))
            text = " ".join(post)
            recent = [*recent[-999:], text] if number % 10 == 0 else recent
            file.write(json.dumps({"id": number, "text": text, "author": f"user{number}"}) + "\n")


def cleared(post: dict) -> str | None:
    """Return the masked text, or None if a gate rejects it."""
    text = mask_personal(post["text"], post["names"])
    return None if any(gate(text) for gate in GATES) else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--posts", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "posts.jsonl"
        write_posts(path, args.posts)
        start, cpu = time.monotonic(), _cpu()
        source = posts(str(path), "made up", "none", id_column="id", author_column="author")
        with Pool(args.workers) as pool:
            texts = [text for text in pool.imap(cleared, source, chunksize=500) if text]
        gated, gated_cpu = time.monotonic(), _cpu()
        clusters = near_duplicate_clusters(texts)
        done, done_cpu = time.monotonic(), _cpu()
    n_left = sum(cluster == index for index, cluster in enumerate(clusters))
    print(f"{args.posts:,} posts: {len(texts):,} pass the gates, {n_left:,} of them differ")
    print(f"read, masked and gated: {gated - start:.0f} s, {gated_cpu - cpu:.0f} s of CPU ({args.workers} workers)")
    print(f"told apart: {done - gated:.0f} s, {done_cpu - gated_cpu:.0f} s of CPU (1 process)")
    print(
        f"in all {done - start:.0f} s; peak memory of the main process {_peak_gb(resource.RUSAGE_SELF):.2f} GB", end=""
    )
    print(f", of a worker {_peak_gb(resource.RUSAGE_CHILDREN):.2f} GB")


def _cpu() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def _peak_gb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
