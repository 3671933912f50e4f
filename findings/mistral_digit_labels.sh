#!/usr/bin/env bash
# Guess: answers that are one character long, 1 to 4 as A to D, are one token each, so the first token tells the label.
# Behaviour: Mistral's SentencePiece tokenizers (v1, v2, v3, v7) write a digit as two tokens, a blank and the digit; a letter is one token. The first
# token of 1, 2, 3 and 4 is the same, so a server's top log-probabilities of the first token list no label.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet mistral-common==1.9.1 sentencepiece==0.2.3
"$folder/env/bin/python" - <<'PY'
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sentencepiece import SentencePieceProcessor

print("mistral-common", version("mistral-common"))
folder = Path(find_spec("mistral_common").submodule_search_locations[0]) / "data"
names = ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3", "mistral_instruct_tokenizer_241114.model.v7"]
for name in names:
    pieces = {label: SentencePieceProcessor(model_file=str(folder / name)).encode(label, out_type=str) for label in "1234ABCD"}
    print(name, pieces)
    assert all(pieces[digit] == ["\u2581", digit] for digit in "1234"), "changed: digits"
    assert all(pieces[letter] == ["\u2581" + letter] for letter in "ABCD"), "changed: letters"
PY
