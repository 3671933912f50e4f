#!/usr/bin/env bash
# Guess: a model that wins every comparison gets the highest Bradley-Terry score, as large as the iteration lets it grow, or an error, since
# the maximum is infinite. The others keep the order that their own comparisons give.
# Behaviour: one unbeaten model, or one that never won, makes the scores of all models equal to the tolerance, after two iterations, in both
# solvers and without a word: the winner of 10 of 10 is level with the loser, and two others at 60 to 40 are level too. One lost comparison
# gives right scores again. Elo is not affected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet evalica==0.4.2 numpy==2.4.6 pandas==3.1.1
cd "$folder"
env/bin/python - <<'PY'
from importlib.metadata import version

import evalica

print("evalica", version("evalica"))


def compared(table):
    """Return the two models and the winner of each comparison; the table says how often the first and the second model of a couple won."""
    rows = []
    for (first, second), (won, lost) in table.items():
        rows += [(first, second, evalica.Winner.X)] * won + [(first, second, evalica.Winner.Y)] * lost
    return map(list, zip(*rows))


def level(scores):
    return max(scores.values()) - min(scores.values()) < 1e-9


unbeaten = {("a", "b"): (10, 0), ("a", "c"): (10, 0), ("b", "c"): (6, 4)}
one_lost = {**unbeaten, ("a", "b"): (9, 1)}
for solver in ("pyo3", "naive"):
    for name, table in (("a never lost", unbeaten), ("a lost once", one_lost)):
        result = evalica.bradley_terry(*compared(table), solver=solver)
        scores = result.scores.to_dict()
        print(f"{solver:5} {name:12} {scores} after {result.iterations} iterations")
        if table is unbeaten:
            assert level(scores), "changed: an unbeaten model no longer levels all"
        else:
            assert scores["a"] > 5 * scores["b"] and scores["b"] > 1.2 * scores["c"], "changed: scores of beaten models"
elo = evalica.elo(*compared(unbeaten)).scores.to_dict()
print("Elo", elo)
assert elo["a"] > elo["b"] and elo["a"] > elo["c"]
PY
