#!/usr/bin/env bash
# Guess: `total`, the size of the population that the weights should sum to, multiplies every weight by the same number, so no weighted share depends on it.
# Behaviour: every weight of exactly 1 is taken for "not weighted" and keeps its 1, and the others are scaled as if those rows were not there. A cell of a quota
# sample that lies on its target (30 % of the sample and of the population) has 0.15 % of the weight at a total of 100,000. A row without an age, which
# the raking leaves out, has the weight 1 as well. Weights without `total`, multiplied afterwards, are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet weightipy==0.4.2 pandas==3.1.1 numpy==2.4.6 scipy==1.17.1
"$folder/env/bin/python" - <<'PY'
import warnings
from importlib.metadata import version

import pandas as pd
import weightipy

warnings.simplefilter("ignore")
people = pd.DataFrame({"age": ["18-34"] * 250 + ["35-54"] * 150 + ["55+"] * 100})
agrees = pd.Series([1] * 125 + [0] * 125 + [1] * 150 + [0] * 100)
targets = {"age": {"18-34": 30.0, "35-54": 30.0, "55+": 40.0}}


def weights(people, total):
    return weightipy.weight(people, weightipy.scheme_from_dict(targets, rim_params={"total": total}))


def shares(weight):
    return {age: round(float(100 * part / weight.sum()), 2) for age, part in weight.groupby(people["age"]).sum().items()}


def agreeing(weight):
    return 100 * (weight * agrees).sum() / weight.sum()


print("weightipy", version("weightipy"), "pandas", version("pandas"), "targets", targets["age"])
plain, scaled = weights(people, 0), weights(people, 100000)
for name, weight in (("no total", plain), ("total 100,000", scaled), ("scaled afterwards", plain * 200)):
    print(f"{name}: sum {weight.sum():.0f}, per cent by age {shares(weight)}, who agree: {agreeing(weight):.1f} %")
gaps = people.copy()
gaps.loc[:49, "age"] = None
missing = weights(gaps, 0)[:50]
print("weights of rows without an age:", missing.unique())
assert shares(plain) == targets["age"] and abs(agreeing(plain * 200) - agreeing(plain)) < 1e-9
assert shares(scaled)["35-54"] < 1 and abs(agreeing(scaled) - agreeing(plain)) > 20, "changed: a total scales all weights"
assert (missing == 1).all(), "changed: a row without an age has no weight"
PY
