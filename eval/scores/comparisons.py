# SPDX-License-Identifier: MIT
"""Paired comparisons: models on an axis and on an item, and one model with itself: in another mode, after a reasoning.

A model's first token and what it goes on to write can choose differently (Wang et al. 2024, arXiv 2402.14499).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.judging.agreement import cohen_kappa
from eval.scores.crossed import item_means, mean_error, mean_errors, topic_correlation, variance_table
from eval.scores.diagnostics import agreement
from eval.scores.intervals import mean_p, rounded, share, unit_interval
from eval.scores.scoring import Answers, Row, Values, collect_answers, describe_intervals
from eval.statements.instruments import Instrument


def compare(a: Values, b: Values) -> dict[str, Any]:
    """Return the paired difference ``b - a``, on what both answered, with both intervals, bounds and a p-value.

    Paired by prompt: the same item under the same template and order, averaged over samples and label sets; of twins
    both count or none. ``bounds`` hold the difference over all items in the prompts that both were asked, whatever a
    missing answer would have been; None where an item has no such prompt. ``n_left_out`` counts the items that the
    difference was not taken from. ``se`` and ``df`` are those of ``ci95``. The p-value is that of
    :func:`~eval.scores.intervals.mean_p` with the items sampled too; what a model does in one template or order on all
    items alike is then no sign of a moved lean.
    """
    bounds = [scale_mean(item_means(ends), a.scale) for ends in (b.low - a.high, b.high - a.low)]
    return describe_change(a, b.cells - a.cells) | {"bounds": bounds}


def describe_change(like: Values, change: np.ndarray) -> dict[str, Any]:
    """Return the mean of changes of cells on the scale of the values that they are of, without bounds.

    ``dz`` is the mean over the items' standard deviation, ``up`` the share of the items that moved towards the high
    end. ``ci95_single_items`` takes items as the sample where ``ci95`` takes topics, and ``topic_correlation`` says how
    alike those of one topic are. ``variance`` is :func:`~eval.scores.crossed.variance_table`.
    """
    means = item_means(change)
    used = ~like.incomplete(means)
    errors = mean_errors(change[used], like.unit[used], like.topic[used])
    single = mean_errors(change[used], like.unit[used]) if errors.units == "topics" else None
    deviation = float(means[used].std(ddof=1)) if used.sum() > 1 else 0.0
    units, first = np.unique(like.unit[used], return_index=True)
    of_units = np.array([means[used][like.unit[used] == unit].mean() for unit in units])
    alike = topic_correlation(of_units, like.topic[used][first])
    table = variance_table(change[used] * like.scale, like.topic[used], alike["estimate"] if alike else 0.0)
    mean = scale_mean(means[used], like.scale)
    # two scores of one scale differ by its length at most
    ends = (like.ends[0] - like.ends[1], like.ends[1] - like.ends[0]) if like.ends else None
    return {
        "difference": mean,
        **describe_intervals(errors, mean, like.scale, ends),
        "ci95_single_items": single and describe_intervals(single, mean, like.scale, ends)["ci95"],
        "topic_correlation": alike,
        "variance": table,
        "dz": rounded(float(means[used].mean()) / deviation) if deviation > 1e-9 else None,
        "up": share(int((means[used] > 0).sum()), int(used.sum())),
        "se": rounded(abs(like.scale) * errors.sampled.error) if errors.sampled else None,
        "df": rounded(errors.sampled.df) if errors.sampled else None,
        "p": rounded(mean_p(errors.parts, errors.sampled)),
        "q": None,
        "n_items": int(used.sum()),
        "n_left_out": int((~used).sum()),
    }


def scale_mean(values: np.ndarray, scale: float) -> float | None:
    """Return the mean on a scale; None without values, or with one that is nan."""
    return rounded(scale * values.mean()) if len(values) and not np.isnan(values).any() else None


def compare_items(a: Values, b: Values) -> list[dict[str, Any]]:
    """Return of every item that both answered the paired difference and both values, over the prompts of both."""
    rows = []
    for item, cells_a, cells_b in zip(a.items, a.cells, b.cells):
        change = cells_b - cells_a
        known = change[~np.isnan(change)]
        if not len(known):
            continue
        rows.append(
            {
                "item": item,
                "a_value": rounded(cells_a[~np.isnan(change)].mean()),
                "b_value": rounded(cells_b[~np.isnan(change)].mean()),
                "difference": rounded(known.mean()),
                "p": rounded(mean_p(known / len(known), mean_error(change))),
                "q": None,
            }
        )
    return rows


def item_agreement(answers: Answers) -> dict[str, float]:
    """Return the mean of P(agree) - P(disagree) of every answered item."""
    sides = agreement(answers)  # [I, T, O, L]
    means = item_means(sides.reshape(*sides.shape[:2], -1))
    return {item.id: rounded(x) for item, x in zip(answers.items, means) if not np.isnan(x)}


def flips(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, Any]:
    """Return the items on whose side (sign of :func:`item_agreement`) two modes or two models differ."""
    both = [item for item in a if item in b]
    flipped = [item for item in both if a[item] * b[item] < 0]
    return {
        "n_items": len(both),
        "n_flipped": len(flipped),
        "agree_to_disagree": sum(a[item] > 0 for item in flipped),
        "items": [{"item": item, "a_agreement": a[item], "b_agreement": b[item]} for item in flipped],
    }


def compare_written(
    choice: Sequence[Row], generate: Sequence[Row], instrument: Instrument, n_bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """Compare the likeliest option with the one that one model writes; None where no prompt was asked both ways.

    Only prompts of ``generate`` that are word by word those of ``choice`` count. ``agreement`` is the share of the
    answers read that chose the likeliest option, ``same_side`` the share on the same side of the scale.
    """

    def prompt(row: Row) -> tuple[str, str]:
        return row["item"], row["prompt_sha256"]

    likeliest = {prompt(row): row["choice"] for row in choice}
    both = [row for row in generate if prompt(row) in likeliest]
    if not both:
        return None
    read = [row for row in both if None not in (likeliest[prompt(row)], row["choice"])]
    described: dict[str, Any] = {
        "n_prompts": len({row["prompt_sha256"] for row in both}),
        "n_written": len(both),
        "n_read": len(read),
        **dict.fromkeys(("agreement", "ci95", "kappa", "same_side")),
    }
    if not read:
        return described
    a, b = np.array([likeliest[prompt(row)] for row in read]), np.array([row["choice"] for row in read])
    item = np.array([row["item"] for row in read])
    # answers of an item weigh by their number, so that the mean is that over answers
    flat = np.array([((a == b)[item == name].sum(), (item == name).sum()) for name in dict.fromkeys(item)], dtype=float)
    of_item = instrument.units()
    units = np.array([of_item.get(name, name) for name in dict.fromkeys(item)])
    interval = unit_interval(flat, units, lambda means: means[..., 0] / means[..., 1], n_bootstrap, seed)
    middle = (len(instrument.options) - 1) / 2
    return described | {
        "agreement": rounded(np.mean(a == b)),
        "ci95": None if interval is None else [rounded(min(max(x, 0.0), 1.0)) for x in interval],
        "kappa": rounded(cohen_kappa(list(map(str, a)), list(map(str, b)))),
        "same_side": rounded(np.mean(np.sign(a - middle) == np.sign(b - middle))),
    }


def describe_thinking(
    rows: Sequence[Row],
    pairs: Sequence[tuple[str, str]],
    comparisons: Sequence[Mapping[str, Any]],
    instrument: Instrument,
) -> dict[str, Any] | None:
    """Describe models that were told whether to think before they answer; None where none was.

    Args:
        rows: Of all models; ``thinking`` says how one was asked.
        pairs: Models that differ in thinking alone: the one that does not, the one that does.
        comparisons: Of every two models.
        instrument: What they answered.

    Returns:
        ``asked``: by model and mode how it was asked, its answers, those with a reasoning, and those of them cut.
        ``comparisons``: after less before the reasoning, in the modes in writing. ``flips``: the items whose side
        differs between both.
    """
    told: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "thinking" in row:
            told.setdefault((row["model"], row["mode"]), []).append(row)
    if not told:
        return None
    asked = [
        {
            "model": model,
            "mode": mode,
            "thinking": of_mode[0]["thinking"],
            "n": len(of_mode),
            "n_reasoned": sum(bool(row.get("reasoning")) for row in of_mode),
            "n_cut": sum(row.get("reasoning_cut", False) for row in of_mode),
        }
        for (model, mode), of_mode in told.items()
    ]
    changes, flipped = [], []
    for off, on in pairs:
        for c in comparisons:
            if {c["a"], c["b"]} == {off, on} and c["mode"] not in ("choice", "pairs"):
                sign = 1 if c["a"] == off else -1
                change = {
                    "difference": None if c["difference"] is None else sign * c["difference"],
                    "ci95": c["ci95"] and sorted(sign * x for x in c["ci95"]),
                }
                kept = {key: c[key] for key in ("mode", "axis", "placebo", "p", "q", "n_items")}
                changes.append({"off": off, "on": on, **kept, **change})
        both = [told[name, "generate"] for name in (off, on) if (name, "generate") in told]
        if len(both) == 2:
            sides = [item_agreement(collect_answers(of_mode, instrument)) for of_mode in both]
            flipped.append({"off": off, "on": on, **flips(*sides)})
    return {"asked": asked, "comparisons": changes, "flips": flipped}
