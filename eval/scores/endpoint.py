# SPDX-License-Identifier: MIT
"""The one contrast that a run is about: declared before it, judged in one sentence after it, with its power."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import optimize, special, stats

from data.recipe.figures import interval, number, p_value
from eval.scores.crossed import LEAST_UNITS
from eval.scores.evidence import ALL
from eval.scores.intervals import rounded
from eval.scores.places import seeds_note
from eval.scores.rivals import OTHER_LEANS
from eval.statements.exposure import EXPOSURES, Exposure
from eval.statements.instruments import Instrument

# Mean over standard deviation of the pairs' changes in the project's own runs, whatever the dose.
TYPICAL_DZ = 0.3


def power(dz: float, n: int) -> float:
    """Return the power of the two-sided t-test at 5 % of n pairs whose mean is ``dz`` standard deviations."""
    if n < 2:
        return 0.0
    critical, center = float(special.stdtrit(n - 1, 0.975)), dz * math.sqrt(n)
    # far from 0 the other tail is nothing, and scipy gives nan for it
    other = stats.nct.cdf(-critical, n - 1, center) if center < 3 else 0.0
    return float(stats.nct.sf(critical, n - 1, center) + other)


def detectable(n: int, wanted: float = 0.8) -> float | None:
    """Return the least dz that n pairs find with this power; None for fewer than three pairs."""
    if n < 3:
        return None
    most = 5 * float(special.stdtrit(n - 1, 0.975)) / math.sqrt(n)
    return float(optimize.brentq(lambda dz: power(dz, n) - wanted, 0.0, most))


def count_pairs(instrument: Instrument, exposure: Mapping[str, Exposure] | None) -> dict[str, int]:
    """Return how many political pairs there are, in all and of each class of exposure."""
    political = instrument.political_pairs
    counts = {ALL: len(political)}
    if exposure is not None:
        counts |= {name: sum(exposure[p.id] == name for p in political) for name in EXPOSURES}
    return counts


def power_line(name: str, n: int) -> str:
    """Return what n pairs can find, as a line."""
    least = detectable(n)
    if least is None or n < LEAST_UNITS:
        return f"power: {name}: {_too_few(n)}"
    return (
        f"power: {n} pairs ({name}) find a change of {least:.2f} standard deviations of the pairs' changes in 80 % of "
        f"runs; of one of {TYPICAL_DZ}, the usual one, {power(TYPICAL_DZ, n):.0%}. Pairs of one topic move together: "
        "the true power is lower"
    )


def read_primary(primary: Mapping[str, Any], models: Sequence[str]) -> tuple[tuple[str, str] | None, str]:
    """Return the two models ``a``, ``b`` of the contrast ``b - a``, and which pairs it is about.

    A contrast of null is the last model less the one before; None where there is one model alone.

    Raises:
        ValueError: If it names a model, a class of pairs or a key that there is none of.
    """
    if unknown := sorted(set(primary) - {"contrast", "exposure"}):
        raise ValueError(f"primary has {', '.join(unknown)}; use contrast and exposure (mode pairs, score lean)")
    wanted = str(primary.get("exposure") or ALL)
    if wanted not in (ALL, *EXPOSURES):
        raise ValueError(f"primary.exposure={wanted}; use one of {', '.join(EXPOSURES)}, or null for all")
    given = primary.get("contrast")
    if given is None:
        return ((models[-2], models[-1]) if len(models) > 1 else None), wanted
    b, dash, a = (part.strip() for part in str(given).partition(" - "))
    listed = ", ".join(models) or "those that mode pairs asks (there are none)"
    if not dash or {a, b} - set(models) or a == b:
        raise ValueError(f"primary.contrast={given}; write B - A with two of {listed}, or null")
    return (a, b), wanted


def describe_primary(
    evidence: Sequence[Mapping[str, Any]], contrast: tuple[str, str], wanted: str, instrument: str
) -> dict[str, Any] | None:
    """Return the primary endpoint with its verdict; None where the contrast was not asked.

    ``told``: the interval excludes 0. ``beyond_vocabulary``: so does that of ``beyond``, on the same side; None where
    the training answers are not known. ``unseen``: told on unseen pairs; None where there are none. Each is None where
    there is no interval either. ``verdict`` says it in a sentence.
    """
    found = [e for e in evidence if (e["a"], e["b"]) == contrast]
    if not found:
        return None
    rows = {row["subset"]: row for row in found[0]["subsets"]}
    name = wanted if wanted in rows else ALL
    if name not in rows:
        return None
    row = rows[name]
    sign = math.copysign(1, row["difference"] or 0.0)
    told = _is_told(row["ci95"], sign)
    beyond = _is_told(row["beyond"]["ci95"], sign) if row["beyond"] else None
    unseen = _is_told(rows["unseen"]["ci95"], sign) if "unseen" in rows else None
    whole = math.copysign(1, rows[ALL]["difference"] or 0.0)
    taught = any(key in rows and _is_told(rows[key]["ci95"], whole) for key in ("seen proposition", "seen topic"))
    no_topics = found[0].get("no_topics")
    unseen_pairs = "pairs unseen by their wording" if no_topics else "unseen topics"
    raised = found[0].get("flags", ())
    void = [flag["reason"] for flag in raised if flag["state"] == "void"]
    doubtful = list(dict.fromkeys(flag["name"].replace("_", " ") for flag in raised if flag["state"] == "doubtful"))
    least = detectable(row["n_items"])
    said = [f"{contrast[1]} - {contrast[0]}, pairs, {name}: {_said_change(row)}"]
    if told is None and rows[ALL]["ci95"]:
        said.append(f"{ALL} ({rows[ALL]['n_items']}): {_said_change(rows[ALL])}")
    elif told is not None:
        said.append(_said_beyond(row, beyond, found[0]["no_lexical"]))
    if row.get("beyond_null") is not None:
        place = "beyond" if row["beyond_null"] else "within"
        said.append(f"{place} the null of shuffled sides {interval(row['null95'])}")
    elif row.get("no_null"):
        said.append(f"not held against the null of shuffled sides: {row['no_null']}")
    if unseen is None:
        if "unseen" not in rows:
            said.append(f"no pair of {instrument} is known to be unseen")
        elif name != "unseen":
            said.append(f"unseen: {_said_change(rows['unseen'])}")
    elif unseen:
        said.append(f"found on {unseen_pairs}")
    else:
        said.append("topic learning: found on what was taught alone" if taught else f"not found on {unseen_pairs}")
    if no_topics:
        said.append(no_topics)
    if told and (others := [k for k, x in row["sensitivity"].items() if _is_told(x["ci95"], sign) is False]):
        said.append(f"not told by {' and '.join(OTHER_LEANS[name] for name in others)}")
    if void:
        said.append(f"void: {'; '.join(void)}")
    elif told and doubtful:
        said.append(f"doubtful, since not excluded: {', '.join(doubtful)}")
    if note := seeds_note(found[0]["n_seeds"]):
        said.append(note)
    return {
        "a": contrast[0],
        "b": contrast[1],
        "mode": "pairs",
        "score": "lean",
        "subset": name,
        "told": told,
        "beyond_vocabulary": beyond,
        "unseen": unseen,
        "topic_learning": bool(taught and unseen is False),
        "void": bool(void),
        "state": "void" if void else "doubtful" if doubtful else "valid",
        "n_seeds": found[0]["n_seeds"],
        "power": {
            "n_pairs": row["n_items"],
            "detectable_dz": rounded(least),
            "detectable": rounded(_detectable_change(row)),
            "of_found": rounded(power(abs(row["dz"]), row["n_items"])) if row["dz"] is not None else None,
        },
        "verdict": "; ".join(said) + ".",
    }


def _too_few(n: int) -> str:
    return f"{n} pair{'' if n == 1 else 's'}, too few for an interval ({LEAST_UNITS} needed)"


def no_interval(row: Mapping[str, Any]) -> str:
    """Return why a change of pairs has no interval."""
    n = row["n_items"]
    if n < LEAST_UNITS:
        return _too_few(n)
    return f"{n} pairs without an interval ({row['no_interval']['ci95']})"


def _said_change(row: Mapping[str, Any]) -> str:
    if not row["ci95"]:
        return f"{no_interval(row)}: no verdict"
    told = _is_told(row["ci95"], math.copysign(1, row["difference"] or 0.0))
    # the one test of its family: its q is its p
    change = f"{number(row['difference'])} {interval(row['ci95'])}, q {p_value(row['p'])}"
    return f"{change}, {'told from 0' if told else 'not told from 0'}"


def _said_beyond(row: Mapping[str, Any], beyond: bool | None, why_not: str | None) -> str:
    if beyond is None:
        return f"vocabulary not excluded: {why_not or 'it has no interval'}"
    without = f"{number(row['beyond']['estimate'])} {interval(row['beyond']['ci95'])}"
    figures = f"{number(row['lexical'])} by it alone, {without} without it"
    return f"{'' if beyond else 'not '}beyond vocabulary ({figures})"


def _is_told(ci95: Sequence[float] | None, sign: float) -> bool | None:
    return min(sign * end for end in ci95) > 0 if ci95 else None


def _detectable_change(row: Mapping[str, Any]) -> float | None:
    """Return the change that these pairs find with 80 % power, from the standard error that was found."""
    if not row["se"] or not row["df"]:
        return None
    return row["se"] * float(special.stdtrit(row["df"], 0.975) + special.stdtrit(row["df"], 0.8))
