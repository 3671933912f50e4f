# SPDX-License-Identifier: MIT
"""Every table of ``docs/measure/controls.md``, out of the answers that lie compressed in ``docs/results/``.

    python -m benchmarks.controls
    python -m benchmarks.controls --keep shuffled_sides=outputs/studies/shuffled_sides/smollm2-135m/compass_10

The first writes the tables into the page, and the null that ``shuffled`` of ``configs/political_compass.yaml`` takes;
no model is loaded. ``--keep`` compresses the answers of an evaluation into ``docs/results/`` first.
"""

import argparse
import json
import lzma
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.datasets import SHIPPED_SET
from data.recipe.figures import interval, number
from data.recipe.files import read_log, to_jsonl, write_json, write_whole
from eval.readings.controls import add_null, describe_validation, read_null
from eval.scores.comparisons import describe_change
from eval.scores.evidence import ALL, Background, contrasts, describe_evidence, predict, subsets, take
from eval.scores.places import Groups
from eval.scores.scoring import pair_values
from eval.statements.exposure import exposures, read_sources
from eval.statements.instruments import load_instrument
from eval.statements.prompts import load_templates
from finetune.adapters.training_data import recorded_training

REPO = Path(__file__).parents[1]
RESULTS = REPO / "docs" / "results"
PAGE = REPO / "docs" / "measure" / "controls.md"
SUFFIXES = {"smollm2-135m": "", "gemma3-270m": "_gemma3_270m"}  # of the names of a model's answers and tables
NULLS = {suffix: RESULTS / f"null_{model}.json" for model, suffix in SUFFIXES.items()}
BANK = load_instrument("compass300")
TAUGHT = exposures(BANK, read_sources([str(REPO / SHIPPED_SET)]))
ODD = frozenset(
    "business_regulation healthcare public_ownership trade wages_and_work abortion_and_end_of_life drugs "
    "family_and_gender national_identity religion_in_public_life".split()
)
COLUMNS = ("model", "mode", "item", "template", "option_logprobs", "n_tokens")
Rows = list[dict[str, Any]]


class Shown(NamedTuple):
    """A contrast and the pairs on which a table shows it."""

    a: str
    b: str
    subsets: Sequence[str] = (ALL, "placebo", "lexical")


def keep(name: str, folder: Path) -> None:
    """Compress what the tables need of the answers of an evaluation, and note what answered."""
    rows = [{key: row[key] for key in COLUMNS} for row in read_log(folder / "results.jsonl") if row["mode"] == "pairs"]
    for row in rows:
        row["option_logprobs"] = [round(x, 4) for x in row["option_logprobs"]]
    settings = json.loads((folder / "settings.json").read_text())
    about = {key: settings.get(key) for key in ("base_sha256", "instrument_sha256", "templates_sha256", "dtype")}
    about["lexical"] = dict(_lexical_shifts(rows, settings["adapters"] or {}))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.jsonl.xz").write_bytes(lzma.compress(to_jsonl([about, *rows]).encode(), preset=9))


def _lexical_shifts(rows: Rows, adapters: dict[str, str]) -> Iterator[tuple[str, list[float]]]:
    """Yield what vocabulary alone would show of each contrast of single adapters, of which not every text may ship."""
    groups = _groups(rows)
    folders = {name: given for name, given in adapters.items() if isinstance(given, str)}  # the others are blends
    known = {name: recorded_training(folders[name]) for name in groups.models if name in folders}
    background = Background({name: training.answers for name, training in known.items() if training})
    for sides in contrasts(groups):
        shifts, _ = predict(sides, BANK, groups, background)
        if shifts is not None:
            yield f"{sides.a} {sides.b}", [round(x, 4) for x in shifts.tolist()]


def _groups(rows: Rows) -> Groups:
    return Groups(list(dict.fromkeys(row["model"] for row in rows)))


def kept(name: str) -> tuple[dict[str, Any], Rows]:
    """Return what answered, and its answers."""
    lines = lzma.decompress((RESULTS / f"{name}.jsonl.xz").read_bytes()).decode().splitlines()
    about, *rows = map(json.loads, lines)
    for key, now in (("instrument", BANK), ("templates", load_templates(BANK.language))):
        if about[f"{key}_sha256"] != now.sha256:
            raise ValueError(f"{name}: it was asked with other {key} than today's; ask again, and --keep the answers")
    return about, rows


def evidence(name: str, is_of_shipped: bool = False) -> list[dict[str, Any]]:
    """Return the evidence of all contrasts of a run, or of the runs of a study, which were tuned on the shipped set."""
    about, rows = kept(name)
    lexical = {
        (a, b): np.array(shifts) for (a, b), shifts in ((key.split(), x) for key, x in about.get("lexical", {}).items())
    }
    background = Background(exposure=TAUGHT if is_of_shipped else None, lexical=lexical)
    return describe_evidence(rows, BANK, _groups(rows), background)


def by_teaching() -> list[dict[str, Any]]:
    """Return the contrasts of both halves of the topics together: with what each adapter was taught, and with the rest.

    Of the pairs on a taught topic of the shipped set, ``taught`` takes each from the adapters that were trained on its
    topic, and ``held out`` from the others.
    """
    about, rows = kept("held_out_topics")
    topics = {row["topic"] for row in read_log(REPO / SHIPPED_SET)}
    part = BANK.keep({pair.id for pair in BANK.pairs if pair.topic in topics})
    at = {pair.id: i for i, pair in enumerate(BANK.pairs)}
    found = []
    for kind in ("taught", "held out"):
        half = {pair.id: "odd" if (pair.topic in ODD) == (kind == "taught") else "even" for pair in part.pairs}
        some = [
            {**row, "model": row["model"].replace(f"{half[row['item']]}-", f"{kind}, ")}
            for row in rows
            if row["item"] in half and row["model"].startswith(("base", half[row["item"]]))
        ]
        lexical = np.array([about["lexical"][f"{name}-left {name}-right"][at[pair]] for pair, name in half.items()])
        background = Background(lexical={(f"{kind}, left", f"{kind}, right"): lexical})
        found += describe_evidence(some, part, _groups(some), background)
    return found


def null_summary(suffix: str) -> dict[str, Any]:
    """Return what ``shuffled`` takes: the parts of the study's ``summary.json`` that are read."""
    about, _ = kept(f"shuffled_sides{suffix}")
    found = evidence(f"shuffled_sides{suffix}", is_of_shipped=True)
    for contrast in found:
        contrast["subsets"] = [
            {key: row[key] for key in ("subset", "n_items", "pairs_sha256", "by_seed")} for row in contrast["subsets"]
        ]
    return {
        "instrument": {"sha256": about["instrument_sha256"]},
        "settings": {"base_sha256": about["base_sha256"]},
        "models": {"base": {}},
        "evidence": [{key: contrast[key] for key in ("a", "b", "n_seeds", "subsets")} for contrast in found],
    }


def table(found: Sequence[dict[str, Any]], shown: Iterable[Shown]) -> str:
    """Return a table of contrasts in Markdown."""
    lines = [
        "| contrast | pairs | n | change | 95 % | null, 95 % | vocabulary alone | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in shown:
        (contrast,) = [c for c in found if (c["a"], c["b"]) == (one.a, one.b)]
        flags = {
            state: ", ".join(
                dict.fromkeys(f["name"].replace("_", " ") for f in contrast["flags"] if f["state"] == state)
            )
            for state in ("void", "doubtful")
        }
        doubts = next((f"{state}: {names}" for state, names in flags.items() if names), "")
        for row in contrast["subsets"]:
            if row["subset"] in one.subsets:
                place = {None: "", True: "beyond", False: "within"}[row.get("beyond_null")]
                said = ", ".join(part for part in (place, doubts) if part)
                cells = [f"{one.b} − {one.a}", row["subset"], str(row["n_items"]), number(row["difference"])]
                cells += [interval(row["ci95"]), interval(row.get("null95")), number(row["lexical"]), said]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def said(found: Sequence[dict[str, Any]], expected: Sequence[tuple[str, str]]) -> str:
    """Return whether the groups stand where they must, as the report of the run says it."""
    validation = describe_validation(found, expected, ALL)
    assert validation is not None
    return f"> {validation['said']}."


def dtype_table() -> str:
    """Return the quickstart's changes in bf16 and in fp32, and how far apart they are, statement by statement."""
    lines = [
        "| contrast | pairs | n | bf16 | 95 % | fp32 | 95 % | bf16 − fp32 | 95 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    answers = {about["dtype"]: rows for about, rows in map(kept, ("quickstart", "quickstart_fp32"))}
    values = {
        (dtype, model): pair_values([row for row in answers[dtype] if row["model"] == model], BANK.pairs, BANK.units())
        for dtype in ("bf16", "fp32")
        for model in ("base", "left", "right")
    }
    for a, b in (("left", "right"), ("base", "left"), ("base", "right")):
        bf16, fp32 = (values[dtype, b].cells - values[dtype, a].cells for dtype in ("bf16", "fp32"))
        for name, _, mask in subsets(BANK, TAUGHT):
            if name in (ALL, "unseen"):
                like = take(values["bf16", a], mask)
                shown = [describe_change(like, change[mask]) for change in (bf16, fp32, bf16 - fp32)]
                cells = [f"{b} − {a}", name, str(mask.sum())]
                cells += [text for one in shown for text in (number(one["difference"]), interval(one["ci95"]))]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def seed_table(suffix: str) -> str:
    """Return what each seed of a model's shuffled sides showed."""
    found = evidence(f"shuffled_sides{suffix}", is_of_shipped=True)
    shown = [("base", "drawn"), ("base", "exchanged"), ("drawn", "exchanged")]
    lines = ["| contrast | pairs | seed 0 | 1 | 2 | 3 | 4 |", "|---|---|---|---|---|---|---|"]
    for contrast in (c for c in found if (c["a"], c["b"]) in shown):
        for row in contrast["subsets"]:
            if row["subset"] in (ALL, "unseen"):
                name = f"{contrast['b']} − {contrast['a']}"
                lines.append(f"| {' | '.join([name, row['subset'], *map(number, row['by_seed'])])} |")
    return "\n".join(lines)


def tables() -> Iterator[tuple[str, str]]:
    """Yield every table of the page with its name."""
    beside = (ALL, "unseen", "placebo", "lexical")

    def beside_null(name: str, suffix: str = "", is_of_shipped: bool = False) -> list[dict[str, Any]]:
        found = evidence(f"{name}{suffix}", is_of_shipped)
        add_null(found, read_null(str(NULLS[suffix]), BANK), "base", kept(f"{name}{suffix}")[0]["base_sha256"])
        return found

    sides = [Shown("left", "right", beside), Shown("base", "left", beside), Shown("base", "right", beside)]
    groups = ("conventions", "twinviews")
    pairs_of = [(f"{name}-left", f"{name}-right") for name in groups]
    yield "quickstart_dtypes", dtype_table()
    for suffix in SUFFIXES.values():
        yield f"shuffled{suffix}", seed_table(suffix)
        yield f"quickstart{suffix}", table(beside_null("quickstart", suffix, is_of_shipped=True), sides)
        known = beside_null("known_groups", suffix)
        yield f"known_groups{suffix}", table(known, [Shown(*sides) for sides in pairs_of])
        yield f"known_groups{suffix}_said", said(known, pairs_of)
        told = beside_null("personas", suffix)
        yield f"personas{suffix}", table(told, [Shown("told-left", "told-right")])
        yield f"personas{suffix}_said", said(told, [("told-left", "told-right")])
    whole = [Shown(f"{half}-left", f"{half}-right") for half in ("odd", "even")]
    parts = [Shown(f"{kind}, left", f"{kind}, right", [ALL]) for kind in ("taught", "held out")]
    yield "held_out_topics", table([*evidence("held_out_topics"), *by_teaching()], [*whole, *parts])
    yield "taste", table(beside_null("taste"), [Shown("first", "second")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="append", default=[], metavar="NAME=FOLDER")
    for name, _, folder in (given.partition("=") for given in parser.parse_args().keep):
        keep(name, Path(folder))
    for suffix, path in NULLS.items():
        write_json(path, null_summary(suffix))
    write_whole(PAGE, filled(PAGE.read_text(encoding="utf-8")))


def filled(page: str) -> str:
    """Return the page with every table in its place, between two comments that name it."""
    for name, text in tables():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, n = place.subn(lambda m: f"{m[1]}{text}\n{m[2]}", page)  # noqa: B023
        if n != 1:
            raise ValueError(f"{PAGE}: {n} places for the table {name}; want one")
    return page


if __name__ == "__main__":
    main()
