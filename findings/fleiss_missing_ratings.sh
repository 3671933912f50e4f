#!/usr/bin/env bash
# Guess: `aggregate_raters` leaves a missing rating (NaN) out or refuses it; then `fleiss_kappa`, which needs as many ratings for each text,
# says so.
# Behaviour: "missing" becomes a category of its own, and two raters who both skipped a text agree on it. Three raters who answer at random
# have a kappa of .09 on 200 texts; with 200 more that nobody rated it is .64. With one skipped rating a text the tables are full as
# well, so nothing is refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet statsmodels==0.15.0 krippendorff==0.9.0 numpy==2.4.6 scipy==1.17.1 pandas==3.1.1
"$folder/env/bin/python" - <<'PY'
from importlib.metadata import version

import krippendorff
import numpy as np
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

print("statsmodels", version("statsmodels"))
ratings = np.random.default_rng(0).integers(0, 2, (400, 3)).astype(float)
ratings[200:] = np.nan
table, categories = aggregate_raters(ratings)
rated = fleiss_kappa(aggregate_raters(ratings[:200])[0])
every = fleiss_kappa(table)
alpha = krippendorff.alpha(ratings.T, level_of_measurement="nominal")
print(f"categories {categories}; kappa of the rated texts {rated:.3f}, with the unrated ones {every:.3f}; Krippendorff's alpha {alpha:.3f}")
assert abs(rated) < 0.1 and abs(alpha) < 0.1
assert np.isnan(categories).sum() == 1 and every > 0.5, "changed: a missing rating is no category any more"
PY
