#!/usr/bin/env bash
# Guess: ratings from 0 to 20 give the same statistics whatever integer type they are stored in, since the libraries compute in floats.
# Behaviour: some subtract first. In unsigned bytes (here from pandas' `downcast="unsigned"`) 3 - 5 is 254. Then scipy's paired t-test of two judges that do
# not differ significantly (p = .66) has p = 1e-10 (its Wilcoxon test, its unpaired t-test and Pearson's correlation are right), Krippendorff's alpha falls
# from .94 to .17 for interval ratings and is wrong for ratio ratings too (ordinal is right), and scikit-learn's median and maximum of the absolute error are
# wrong where its mean is right. All ten measures are right on the same bytes turned into floats.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet scipy==1.17.1 scikit-learn==1.9.1 krippendorff==0.9.0 pandas==3.1.1 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
from importlib.metadata import version

import krippendorff
import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics

print(*(f"{name} {version(name)}" for name in ("scipy", "scikit-learn", "krippendorff", "numpy")))
random = np.random.default_rng(0)
drawn = np.clip(random.integers(0, 21, 100) + random.integers(-2, 3, (2, 100)), 0, 20)
ratings = pd.DataFrame(drawn.T, columns=["first", "second"])
small = ratings.apply(pd.to_numeric, downcast="unsigned")
measures = {
    "paired t-test, p": lambda a, b: stats.ttest_rel(a, b).pvalue,
    "alpha, interval": lambda a, b: krippendorff.alpha([a, b], level_of_measurement="interval"),
    "alpha, ratio": lambda a, b: krippendorff.alpha([a, b], level_of_measurement="ratio"),
    "median absolute error": metrics.median_absolute_error,
    "maximal error": metrics.max_error,
    "unpaired t-test, p": lambda a, b: stats.ttest_ind(a, b).pvalue,
    "Wilcoxon, p": lambda a, b: stats.wilcoxon(a, b).pvalue,
    "correlation": lambda a, b: stats.pearsonr(a, b).statistic,
    "alpha, ordinal": lambda a, b: krippendorff.alpha([a, b], level_of_measurement="ordinal"),
    "mean absolute error": metrics.mean_absolute_error,
}
found = {}
for name, measure in measures.items():
    found[name] = [float(measure(*(table[judge].to_numpy() for judge in table))) for table in (ratings, small, small.astype(float))]
    print("{:22} int64 {:8.3g}  uint8 {:8.3g}  floats {:8.3g}".format(name, *found[name]))
assert all(np.isclose(plain, floats) for plain, _, floats in found.values())
wrong = {name for name, (plain, unsigned, _) in found.items() if not np.isclose(plain, unsigned)}
assert found["paired t-test, p"][0] > 0.05 > 1e-4 > found["paired t-test, p"][1], "changed: scipy's paired test is right"
assert found["alpha, interval"][0] > 0.9 and found["alpha, interval"][1] < 0.5, "changed: alpha is right"
assert wrong == set(list(measures)[:5]), f"changed: wrong are {sorted(wrong)}"
PY
