#!/usr/bin/env bash
# Guess: quadratic weights of Cohen's kappa punish a disagreement by the squared distance of the two ratings, so on a scale from 0 to 20
# the ratings 9 and 11 nearly agree, and naming the unused ratings in `labels` changes nothing.
# Behaviour: the weight is the distance of the ratings' places among those that occur. Where only 0, 9, 11 and 20 occur, 9 against 11 costs as
# much as 0 against 9: .895 instead of .990. So kappa rises or falls with the ratings that nobody gave. `labels=range(21)` is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
"$folder/env/bin/python" - <<'PY'
from importlib.metadata import version

import numpy as np
from sklearn.metrics import cohen_kappa_score

print("scikit-learn", version("scikit-learn"))
judge = np.array([0] * 10 + [20] * 10 + [9] * 5 + [11] * 5)
person = np.array([0] * 10 + [20] * 10 + [11] * 5 + [9] * 5)
by_value = 1 - ((judge - person) ** 2).mean() / ((judge[:, None] - person[None]) ** 2).mean()
plain = cohen_kappa_score(judge, person, weights="quadratic")
named = cohen_kappa_score(judge, person, weights="quadratic", labels=range(21))
print(f"by the ratings' distance {by_value:.3f}, with labels=range(21) {named:.3f}, without {plain:.3f}")
assert abs(named - by_value) < 1e-9
assert abs(plain - 0.895) < 1e-3, "changed: the weights no longer count places"
PY
