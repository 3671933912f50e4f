#!/usr/bin/env bash
# Guess: `Dataset.to_json` writes a number so that reading it gives the same number, as parquet and Python's json do.
# Behaviour: numbers are cut to ten places after the point (pandas' default). The probability 2e-11 of an unlikely answer is written as 0.0, and its
# logarithm is minus infinity; 2e-16 is kept, so the smaller of the two comes back as the larger. `double_precision=15` cuts after fifteen places instead.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - <<'PY'
import json

import datasets

datasets.disable_progress_bars()
written = [2e-11, 2e-16, 0.12345678901234567]


def again(name, **more):
    made = datasets.Dataset.from_dict({"probability": written})
    getattr(made, f"to_{name}")(f"rows.{name}", **more)
    return datasets.load_dataset(name, data_files=f"rows.{name}", split="train")["probability"][:]


print("datasets", datasets.__version__, "written:", written)
read = again("json")
more = again("json", double_precision=15)
print("to_json:", read, "with double_precision=15:", more, "to_parquet:", again("parquet"))
assert again("parquet") == written and json.loads(json.dumps(written)) == written
assert abs(more[0] / 2e-11 - 1) < 1e-3
assert read[0] == 0 and read[1] > 0 and abs(read[2] - written[2]) > 1e-11, "changed: numbers are no longer cut"
PY
