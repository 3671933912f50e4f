#!/usr/bin/env bash
# Guess: `Dataset.from_list` makes a column of every key that occurs in a row, with None where a row lacks it, as reading the same rows from JSON
# Lines does.
# Behaviour: the first row alone says which columns there are. What only later rows have (here a system prompt) is gone, without a word.
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
rows = [{"prompt": "Why?", "chosen": "So."}, {"prompt": "Why?", "chosen": "So.", "system": "Answer as a farmer."}]
Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
listed = datasets.Dataset.from_list(rows).column_names
turned = datasets.Dataset.from_list(rows[::-1]).column_names
read = datasets.load_dataset("json", data_files="rows.jsonl", split="train").column_names
print("datasets", datasets.__version__, "from_list:", listed, "the rows turned round:", turned, "the same rows as JSON Lines:", read)
assert "system" in turned and "system" in read
assert listed == ["prompt", "chosen"], "changed: keys of later rows are kept"
PY
