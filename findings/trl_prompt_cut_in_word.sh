#!/usr/bin/env bash
# Guess: trl's `extract_prompt` ends the prompt of a pair whose answers both repeat it (as Anthropic's hh-rlhf has them) at the end of the last turn or, at
# worst, at a word, and keeps each answer whole.
# Behaviour: it cuts inside a word where the answers begin with the same letters. "I agree." and "I argue against it." become the prompt "… I a" and the
# answers "gree." and "rgue against it."; of "Yes" and "Yes, but not now." the answers left are "s" and "s, but not now.". Answers that differ from the first
# letter stay whole. The function alone is tried, on three pairs of texts; nothing is trained.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - <<'PY'
from importlib.metadata import version

from trl import extract_prompt

print("trl", version("trl"))
asked = "\n\nHuman: Should fares rise?\n\nAssistant:"
found = []
for chosen, rejected in ((" I agree.", " I argue against it."), (" Yes", " Yes, but not now."), (" They should.", " No.")):
    parts = extract_prompt({"chosen": asked + chosen, "rejected": asked + rejected})
    found.append((parts["prompt"][len(asked) :], parts["chosen"], parts["rejected"]))
    print(f"{chosen!r} and {rejected!r}: added to the prompt {found[-1][0]!r}, answers {found[-1][1:]}")
assert found[2] == ("", " They should.", " No."), "answers that differ at once stay whole"
assert found[0] == (" I a", "gree.", "rgue against it."), "changed: the prompt no longer ends inside a word"
assert found[1] == (" Ye", "s", "s, but not now."), "changed: an answer that begins the other stays whole"
PY
