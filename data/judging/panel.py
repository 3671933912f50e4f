# SPDX-License-Identifier: MIT
"""Several raters of the same texts: how far every two of them agree, and all of them together."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from data.judging.agreement import describe_agreement, krippendorff_alpha
from data.judging.scales import JudgeScale


def describe_panel(
    labels: Mapping[str, Sequence[str | None]], scale: JudgeScale, n_bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """Return the agreement of two raters or more, judges and people alike.

    A rater's gap is no disagreement here: two are compared on what both have rated, and Krippendorff's alpha is made
    for gaps. How much a judge leaves unrated is said where it is compared with the truth.

    Args:
        labels: Rater to label or class of each text, None where there is none.
        scale: The one on which all of them rated.
        n_bootstrap: Resamples of an interval.
        seed: Of the draws.

    Returns:
        ``kappa`` (every two: ``a``, ``b``, ``n``, ``estimate``, ``ci95``), ``alpha`` of the classes (nominal) and
        ``alpha_values``: of the five steps without refusals (ordinal), or of the lean (interval). None for one rater.
    """
    if len(labels) < 2:
        return None
    classes = {name: [None if x is None else scale.class_of(x) for x in given] for name, given in labels.items()}
    pairs = []
    for a, b in itertools.combinations(classes, 2):
        both = [(x, y) for x, y in zip(classes[a], classes[b]) if x is not None and y is not None]
        found = {"estimate": None, "ci95": None}
        if both:
            found = describe_agreement(*zip(*both), scale.classes, n_bootstrap, seed)["kappa"]
        pairs.append({"a": a, "b": b, "n": len(both), **found})
    values = {
        # people may name a side of the lean instead of a number: that is no value
        name: [None if x is None or x not in scale.labels else scale.value(x) for x in given]
        for name, given in labels.items()
    }
    numbered = [given for given in values.values() if any(x is not None for x in given)]
    level = "interval" if scale.name == "lean" else "ordinal"
    return {
        "kappa": pairs,
        "alpha": krippendorff_alpha(list(classes.values()), "nominal", n_bootstrap, seed),
        "alpha_values": krippendorff_alpha(numbered, level, n_bootstrap, seed),
    }
