#!/usr/bin/env bash
# Guess: in JSON Lines a string stays a string, since the format says what is a string.
# Behaviour: a column of which every string looks like a date becomes timestamps. One string that does not look so keeps the column as
# text. So the type of a row depends on the other rows, and a filter on "2024-01-03" finds nothing in the first case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - <<'PY'
import json
from pathlib import Path

import datasets

datasets.disable_progress_bars()


def dates(*values):
    Path("rows.jsonl").write_text("".join(json.dumps({"prompt": "Why?", "date": value}) + "\n" for value in values))
    loaded = datasets.load_dataset("json", data_files="rows.jsonl", split="train")
    return loaded.features["date"].dtype, [type(value).__name__ for value in loaded["date"]]


all_dates = dates("2024-01-03", "2024-01-04")
one_text = dates("2024-01-03", "in January")
print("datasets", datasets.__version__, "two dates:", all_dates, "a date and a text:", one_text)
assert all_dates == ("timestamp[s]", ["datetime", "datetime"]), "changed: dates stay text"
assert one_text == ("string", ["str", "str"]), "changed: a mixed column is no text"
PY
