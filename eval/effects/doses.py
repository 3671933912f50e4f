# SPDX-License-Identifier: MIT
"""Ways of moving a lean, dose by dose: how far each goes, at what surprise at neutral text."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.effects.measures import LEAN, SURPRISE
from eval.scores.places import read_places


def dose_lines(entries: Sequence[Mapping[str, Any]], guard: float) -> list[dict[str, Any]]:
    """Return a line for each way and direction: its changes of lean and surprise, by weight, from the base on.

    A way is what stands before ``@`` in a name, as in ``left@0.5``; without it the weight is 1. A weight of 0 is the
    base, where every line begins.

    Args:
        entries: Those of :func:`eval.effects.measures.measure_all`.
        guard: Surprise above the base's, nats a token, that a dose may cost.

    Returns:
        ``way, points, monotone, at_guard`` each: points have ``weight, lean, ci95, surprise``; ``monotone`` says
        whether the lean moves one way with every dose before the surprise first goes beyond the guard, None with fewer
        than two of them; ``at_guard``
        is the change of the lean where the surprise first is the guard, by a straight line between two doses, None
        where it stays below, and of a way with one dose, such as a system prompt.
    """
    changes: dict[str, dict[str, Mapping[str, Any]]] = {LEAN: {}, SURPRISE: {}}
    for entry in entries:
        if entry["measure"] in changes and entry["difference"] is not None:
            changes[entry["measure"]][entry["model"]] = entry
    ways: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for name in changes[LEAN].keys() & changes[SURPRISE].keys():
        place = read_places([name]).get(name)
        way, weight = (name, 1.0) if place is None or place.weight is None else (place.run, place.weight)
        if weight == 0:
            continue
        lean, surprise = changes[LEAN][name], changes[SURPRISE][name]
        point = {"weight": weight, "lean": lean["difference"], "ci95": lean["difference_ci95"]}
        ways.setdefault((way, weight > 0), []).append({**point, "surprise": surprise["difference"]})
    lines = []
    for (way, _), points in sorted(ways.items()):
        points.sort(key=lambda point: abs(point["weight"]))
        within = [p["lean"] for p in itertools.takewhile(lambda p: p["surprise"] <= guard, points)]
        steps = np.diff([0.0, *within])
        lines.append(
            {
                "way": way,
                "points": points,
                "monotone": bool((steps > 0).all() or (steps < 0).all()) if len(within) > 1 else None,
                "at_guard": _at(guard, points) if len(points) > 1 else None,
            }
        )
    return lines


def _at(guard: float, points: Sequence[Mapping[str, Any]]) -> float | None:
    before = {"surprise": 0.0, "lean": 0.0}
    for point in points:
        if point["surprise"] >= guard:
            x = [before["surprise"], point["surprise"]]
            return round(float(np.interp(guard, x, [before["lean"], point["lean"]])), 6)
        before = dict(point)
    return None


def dose_texts(lines: Sequence[Mapping[str, Any]], guard: float) -> str:
    """Return the lines as text, for the console."""
    text = [f"{'way':<20}{'weight':>8}{'lean':>9}{'surprise':>10}"]
    for line in lines:
        for point in line["points"]:
            text.append(f"{line['way']:<20}{point['weight']:>+8g}{point['lean']:>+9.3f}{point['surprise']:>+10.3f}")
        moves = {True: "moves one way up to", False: "turns round before", None: "has fewer than two doses up to"}
        at = "not known there" if line["at_guard"] is None else f"{line['at_guard']:+.3f} there"
        text.append(f"  {line['way']} {moves[line['monotone']]} {guard:+g} nats a token of surprise; lean {at}")
    return "\n".join(text)
