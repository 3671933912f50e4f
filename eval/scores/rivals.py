# SPDX-License-Identifier: MIT
"""What could make a change of the pairs mean something else: three-state flags, and what vocabulary alone would show.

``valid``: the rival is excluded. ``void``: the rival is shown, and nothing is concluded. ``doubtful``: neither is,
and the burden lies with the score. The limits are ours, stated with each figure. A tuned model may only have learned
which words its answers hold: so beside every change stands that of a model of single words of the training answers.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from data.recipe.figures import interval, number
from eval.scores.crossed import item_means, mean_errors
from eval.scores.intervals import MeanError, fit_line, rounded, rounded_ends, t_interval, t_p
from eval.scores.scoring import Row, lean_of, pair_cells
from eval.statements.instruments import Pair

# A change of a placebo is none if it is shown to lie within this share of the lean's.
MARGIN = 1 / 3
# Void: everything that the model says became likelier, or less likely, by more than so many times the lean's change.
DRIFT = 10.0
# Other formulas of the lean, and why rows may not allow them.
OTHER_LEANS = {"after_shared": "what follows a pair's shared beginning", "pmi": "what the request adds (PMI)"}
NO_SENSITIVITY = {
    "after_shared": "rows of an earlier version do not say how many tokens two statements share",
    "pmi": "the pairs were not asked both with a request and without one (n_pair_templates=6)",
}
NO_COMMON_PROMPT = "no wording with a request was asked of both"
# Added to the count of every word (Lidstone's estimate with the Jeffreys-Perks value).
ADDED = 0.5
_WORD = re.compile(r"[a-z']+")
_NOTHING = hashlib.sha256(b"").hexdigest()  # of the prompt where a statement follows no request


class Change(NamedTuple):
    """A change of the mean of pairs, with its standard error."""

    mean: float
    error: MeanError | None

    def inside(self, margin: float) -> str:
        """Return the state of "it lies within +- margin".

        Two one-sided tests at 5 % pass it (Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15(6)):
        the 90 % interval lies inside. Void: the 95 % interval lies outside.
        """
        if self.error is None:
            return "doubtful"
        half = float(special.stdtrit(self.error.df, 0.95)) * self.error.error
        if abs(self.mean) + half <= margin:
            return "valid"
        outer = float(special.stdtrit(self.error.df, 0.975)) * self.error.error
        return "void" if abs(self.mean) - outer > margin else "doubtful"

    def equivalence_p(self, margin: float) -> float | None:
        """Return the greater p of the two one-sided tests."""
        if self.error is None:
            return None
        return float(special.stdtr(self.error.df, -(margin - abs(self.mean)) / self.error.error))

    def describe(self) -> dict[str, Any]:
        """Return estimate, 95 % interval and p."""
        interval = rounded_ends(t_interval(self.mean, self.error))
        return {"estimate": rounded(self.mean), "ci95": interval, "p": rounded(t_p(self.mean, self.error))}


def change_of(cells: np.ndarray, unit: np.ndarray, topic: np.ndarray) -> Change:
    """Return the mean of changes of cells over the items that have any; nan without one."""
    means = item_means(cells)
    known = ~np.isnan(means)
    errors = mean_errors(cells[known], unit[known], topic[known])
    return Change(float(means[known].mean()) if known.any() else math.nan, errors.sampled)


def level_of(row: Row) -> float:
    """Return the mean log-probability a token of both statements of a row of ``pairs``."""
    return sum(logprob / n for logprob, n in zip(row["option_logprobs"], row["n_tokens"])) / 2


def lexical_shifts(pairs: Sequence[Pair], before: Iterable[str], after: Iterable[str]) -> np.ndarray:
    """Return the shift of a model of single words from one set of texts to another on each pair, ``[P]``.

    The mean log-probability a word of the right statement less that of the left one, under the words of ``after``, less
    the same under those of ``before``; in nats a word, as ``pairs`` scores in nats a token. The words are ``[a-z']+``
    in lower case, those of both sets are the vocabulary, and each is counted ``ADDED`` times more.
    """
    counts = [Counter(word for text in texts for word in _WORD.findall(text.lower())) for texts in (before, after)]
    n_words = len(counts[0] | counts[1])
    if not n_words:
        return np.zeros(len(pairs))
    totals = [count.total() + ADDED * n_words for count in counts]

    def shift(text: str) -> float:
        logs = [
            [np.log((count[word] + ADDED) / total) for word in _WORD.findall(text.lower())]
            for count, total in zip(counts, totals)
        ]
        return float(np.mean(logs[1]) - np.mean(logs[0])) if logs[0] else 0.0

    return np.array([shift(pair.right) - shift(pair.left) for pair in pairs])


def other_leans(rows: Sequence[Row], pairs: Sequence[Pair], templates: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the lean of each pair by other formulas, ``[P, T, 1]`` in nats a token, those that the rows allow.

    ``after_shared``: what two statements begin with divides out of the lean a token unless both are of one length. So
    this is ``log p(right) - log p(left)`` over the mean number of tokens after it. ``pmi``: the lean less that without
    a request, which is what the request adds (domain-conditional pointwise mutual information: Holtzman et al. 2021,
    arXiv 2104.08315), a token. ``templates``: as in :func:`~eval.scores.scoring.pair_cells`.
    """
    asked = {row["template"] for row in rows}
    bare = {row["template"] for row in rows if row.get("prompt_sha256") == _NOTHING}
    columns = np.array([name in bare for name in templates])
    lean = pair_cells(rows, pairs, lean_of, templates)
    found = {}
    if all("n_shared" in row for row in rows):
        found["after_shared"] = pair_cells(rows, pairs, _after_shared, templates)
    if bare and bare != asked:
        found["pmi"] = np.where(columns[:, None], np.nan, lean - lean[:, columns].mean(1, keepdims=True))
    return found


def _after_shared(row: Row) -> float:
    left, right = row["option_logprobs"]
    return (right - left) / (sum(row["n_tokens"]) / 2 - row["n_shared"])


def less_placebo(political: Change, placebo: Change) -> dict[str, Any]:
    """Return the political change less that of a placebo (Welch 1947, Biometrika 34)."""
    error = None
    if political.error and placebo.error:
        squares = [change.error.error**2 for change in (political, placebo) if change.error]
        dfs = [change.error.df for change in (political, placebo) if change.error]
        df = sum(squares) ** 2 / sum(s * s / d for s, d in zip(squares, dfs))
        error = MeanError(math.sqrt(sum(squares)), df)
    return Change(political.mean - placebo.mean, error).describe()


def scaling(base: np.ndarray, change: np.ndarray, cluster: np.ndarray) -> dict[str, Any] | None:
    """Return the line of changes on the base's lean: how far the lean was scaled, and how far it was shifted.

    ``b = 1.3 a`` moves the mean wherever that of ``a`` is not 0, and yet nothing was added: scale 1.30, shift 0.
    """
    line = fit_line(base, change, cluster)
    if line is None or line.slope is None:
        return None
    shift, slope = Change(line.intercept, line.intercept_error), Change(line.slope, line.slope_error).describe()
    ends = slope["ci95"] and [rounded(1 + end) for end in slope["ci95"]]
    return {"scale": rounded(1 + line.slope), "scale_ci95": ends, "shift": shift.describe()}


def flags(
    lean: Change,
    placebos: Mapping[str, Change],
    sizes: tuple[float, float] | None,
    drift: Change | None,
    line: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """Return the flags of a contrast.

    Args:
        lean: Change of the political pairs.
        placebos: Those of the placebos that are not about vocabulary.
        sizes: Root mean square of the changes of political pairs, and of those of the placebos.
        drift: Change of the log-probability a token of the placebo statements, whichever side.
        line: :func:`scaling`.
    """
    margin = MARGIN * abs(lean.mean)
    found = []
    for name, change in placebos.items():
        text = f"{name} moved {_said(change)}; a third of the lean's change is {margin:.3f}"
        found.append(_flag("placebo", change.inside(margin), text, axis=name, p=rounded(change.equivalence_p(margin))))
    if sizes:
        state = "valid" if sizes[1] < sizes[0] / 2 else "void" if sizes[1] > 2 * sizes[0] else "doubtful"
        text = f"a placebo pair moves by {sizes[1]:.3f}, a political one by {sizes[0]:.3f} (root mean square)"
        found.append(_flag("placebo_scatter", state, text))
    if drift:
        inside = drift.inside(abs(lean.mean))
        state = (
            "void" if drift.inside(DRIFT * abs(lean.mean)) == "void" else "valid" if inside == "valid" else "doubtful"
        )
        text = f"all text of the placebo moved {_said(drift)}, whichever its side; the lean {number(lean.mean)}"
        found.append(_flag("generic_drift", state, text))
    if line:
        shift = Change(line["shift"]["estimate"], None)
        between = line["shift"]["ci95"]
        same_side = bool(between) and min(between) * max(between) > 0 and shift.mean * lean.mean > 0
        told = lean.error is not None and abs(lean.mean) > special.stdtrit(lean.error.df, 0.975) * lean.error.error
        none = bool(between) and max(map(abs, between)) <= max(margin, abs(lean.mean) / 2)
        state = "valid" if same_side else "void" if told and none else "doubtful"
        moved = number(shift.mean)
        text = f"scale {line['scale']:.2f}, shift {'0' if moved == '0.000' else moved}"
        if between:
            text += f" {interval(between)} where the base leans to neither side"
        found.append(_flag("sharpening", state, text))
    return found


def _flag(name: str, state: str, reason: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "reason": reason, **more}


def _said(change: Change) -> str:
    between = t_interval(change.mean, change.error)
    return number(change.mean) + (f" {interval(between)}" if between else "")
