#!/usr/bin/env bash
# Guess: calm sentences after an insult do not make the text inoffensive, so the probability that it offends hardly falls.
# Behaviour: the score is that of the whole bag of words, scaled by length. The same insult scores about 1 alone, under .5 in 63 words and .04 in
# 549: a longer answer seems kinder, and a comparison of two models follows the length of what they write. And the two words "gay people" alone score .94.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet alt-profanity-check==1.9.1 scikit-learn==1.9.1
"$folder/env/bin/python" - <<'PY'
from importlib.metadata import version

from profanity_check import predict_prob

INSULT = "You are a stupid idiot and everyone hates you."
CALM = " The committee met on Tuesday to discuss the budget for the coming year and agreed on a plan."

print("alt-profanity-check", version("alt-profanity-check"))
scores = {}
for n in (0, 3, 30):
    text = INSULT + n * CALM
    scores[n] = float(predict_prob([text])[0])
    print(f"the insult in {len(text.split())} words: {scores[n]:.3f}")
group = float(predict_prob(["gay people"])[0])
print(f"'gay people' alone: {group:.3f}")
assert scores[0] > 0.99 and scores[3] < 0.5 and scores[30] < 0.05, "changed: the score no longer falls with length"
assert group > 0.9, "changed: the words for a group"
PY
