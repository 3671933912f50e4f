#!/usr/bin/env bash
# Guess: `Dataset.from_generator` calls the generator, so that a file which it reads is read as it is now, as `load_dataset("json")` does.
# Behaviour: rows are kept in the cache under the generator's code and arguments. After the file was mended, another process too gets the rows of
# before, without a word: the audit is of the new file, the training of the old one. A new argument or `download_mode` makes it read again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
cat > read.py <<'PY'
import json
import sys
from pathlib import Path

import datasets

datasets.disable_progress_bars()


def pairs(file):
    for line in Path(file).read_text().splitlines():
        yield json.loads(line)


made = datasets.Dataset.from_generator(pairs, gen_kwargs={"file": "pairs.jsonl"})["chosen"][:]
read = datasets.load_dataset("json", data_files="pairs.jsonl", split="train")["chosen"][:]
print("datasets", datasets.__version__, "from_generator:", made, 'load_dataset("json"):', read)
assert made == ["first"], "changed: the generator is called again" if sys.argv[1] == "second" else "the first read"
assert read == sys.argv[1:]
PY
export HF_HUB_OFFLINE=1 HF_HOME="$folder/home"
echo '{"prompt": "Why?", "chosen": "first"}' > pairs.jsonl
env/bin/python read.py first
printf '%s\n' '{"prompt": "Why?", "chosen": "second"}' '{"prompt": "How?", "chosen": "third"}' > pairs.jsonl
env/bin/python read.py second third
