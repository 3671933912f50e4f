# SPDX-License-Identifier: MIT
"""Audit a preference set, and on request write a clean, mirrored set out of it.

    tune run data/audit.py --config configs/audit.yaml source=mine.jsonl
    tune run data/audit.py --config configs/audit.yaml source.left=left.jsonl source.right=right.jsonl repair=True

Writes ``report.html``, ``report.json`` and ``defects.jsonl`` into ``output_dir``; with ``repair`` also
``repaired/`` with ``left`` and ``right`` (JSON Lines and parquet), ``rejected.jsonl``, ``README.md``, ``manifest.json``
and a report of its own.
The exit status is 0 if every gate passes (with ``repair``: the repaired set's), else 1.
"""

import json
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchtune import utils
from torchtune.config._errors import InstantiationError

from data.pairs.records import SIDES
from data.quality.contamination import shipped_statements
from data.quality.defects import Checks, set_defects
from data.quality.measures import require_sklearn
from data.quality.repair import Repaired, repair, repaired_card
from data.quality.sets import GATES, PreferenceSet, influence_facts, judge, load_sets, measure
from data.quality.sides import KIND as exchanged_kind
from data.quality.sides import exchanged_sides
from data.recipe.beside import write_page
from data.recipe.config import check_config, check_place, component, entry_point, plain
from data.recipe.figures import page_template
from data.recipe.files import to_jsonl, to_parquet, write_files
from data.text_models import MODELS, read_alike, read_cap

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "source", "gates"}
OPTIONAL: dict[str, Any] = {
    "column_map": None,
    "side": None,
    "topic_column": "topic",
    "split": "train",
    "revision": None,
    "name": None,
    "instruments": [],
    "language": "data.language.not_english",
    "length_ratio": [0.67, 1.5],
    "duplicate_threshold": 0.5,
    "toxicity": None,
    "max_toxicity": 0.5,
    "embeddings": None,
    "min_cosine": 0.9,
    "influence": None,
    "repair": False,
    "framed_prompts": "drop",
    "balance_within": ["topic"],
    "style_limit": 0.55,
    "max_side_difference": 0.15,
    "seed": 0,
}


class AuditRecipe:
    """Load, measure, judge, write; then repair, and audit the repaired set."""

    def __init__(self, cfg: DictConfig) -> None:
        require_sklearn()
        if unknown := {*cfg.gates} - {*GATES}:
            raise ValueError(f"gates has {', '.join(sorted(unknown))}; known: {', '.join(GATES)}")
        if wrong := {k: v for k, v in cfg.gates.items() if v is not None and not _is_share(v)}:
            raise ValueError(f"gates: {wrong}; give each a number from 0 to 1, or null for no limit")
        if isinstance(cfg.source, DictConfig) and len({*cfg.source.values()}) < len(cfg.source):
            raise ValueError(f"source={cfg.source}: both sides are the same file; give one source and its side")
        if cfg.seed is None:
            raise ValueError("seed=null; give a number, so that the audit can be repeated")
        low, high = cfg.length_ratio
        if not 0 < low <= 1 <= high:
            raise ValueError(f"length_ratio=[{low}, {high}]; use one up to 1 and one from 1, such as [0.67, 1.5]")
        self._settings: dict[str, Any] = plain(cfg)
        self._output_dir = Path(self._settings.pop("output_dir"))
        self._facts: dict[str, Any] = {}
        self._checks = Checks(
            statements=shipped_statements(cfg.instruments or []),
            length_ratio=(low, high),
            language=_language(cfg.language),
            threshold=cfg.duplicate_threshold,
            toxicity=read_cap(cfg),
            alike=read_alike(cfg),
        )

    def setup(self) -> None:
        """Load the set or the sets."""
        keys = ("source", "column_map", "side", "topic_column", "split", "revision", "name")
        self._sets = load_sets(**{key: self._settings[key] for key in keys})
        if (path := self._settings["influence"]) is not None:
            self._facts = {"influence": influence_facts(self._sets, path)}

    def run(self) -> bool:
        """Audit, repair if asked to; return whether the gates passed."""
        report = self.audit(self._sets, self._output_dir, self._facts)
        if not self._settings["repair"]:
            return report["passed"]
        folder = self._output_dir / "repaired"
        repaired = self.repair(folder)
        paths = {side: str(folder / f"{side}.jsonl") for side in SIDES}
        return self.audit(load_sets(paths), folder / "audit", {"repair": repaired.funnel})["passed"]

    def audit(self, sets: list[PreferenceSet], folder: Path, facts: dict[str, Any] | None = None) -> dict[str, Any]:
        """Measure sets, judge them, write the report; return it."""
        settings, defects = self._settings, {}
        for part in sets:
            log.info(f"Auditing {part.origin} ({part.name}, {part.n_rows} rows)")
            exchanged = exchanged_sides(part.pairs, part.side)
            defects[part.name] = [*part.broken, *set_defects(part.pairs, self._checks), *exchanged]
        unasked = [kind for kind in ("toxicity", "language") if not settings[kind]]
        unasked += [] if any(part.side for part in sets) else [exchanged_kind]
        report = measure(sets, defects, settings["seed"], unasked) | (facts or {})
        report["instruments"] = sorted({statement.instrument for statement in self._checks.statements})
        report["settings"] = settings
        limits = settings["gates"] | {"side_difference": settings["max_side_difference"]}
        report["gates"] = judge(report, limits)
        report["passed"] = all(gate["passed"] is not False for gate in report["gates"])
        files = {
            "report.json": json.dumps(report, indent=1, ensure_ascii=False) + "\n",
            "defects.jsonl": to_jsonl({"set": name, **d._asdict()} for name, of_set in defects.items() for d in of_set),
        }
        write_files(folder, files, {"inputs": _inputs(sets), "settings": settings})
        # not among the files of the manifest: the links in it follow what lies beside it
        write_page(folder / "report.html", render_report(report, f"{date.today():%-d %B %Y}"))
        can_be_repaired = not report["passed"] and not settings["repair"] and all(part.side for part in sets)
        remedy = "; repair=True makes a set of the rows that pass" if can_be_repaired else ""
        log.info(f"{folder / 'report.html'}: {'passed' if report['passed'] else f'FAILED{remedy}'}\n{_table(report)}")
        return report

    def repair(self, folder: Path) -> Repaired:
        """Write the repaired set with the dropped rows and the manifest."""
        keys = ("framed_prompts", "balance_within", "style_limit", "seed")
        repaired = repair(self._sets, self._checks, **{key: self._settings[key] for key in keys})
        inputs = _inputs(self._sets)
        files: dict[str, str | bytes] = {
            f"{name}.jsonl": to_jsonl(getattr(repaired, name)) for name in (*SIDES, "rejected")
        }
        files |= {f"{side}.parquet": to_parquet(getattr(repaired, side)) for side in SIDES}
        files["README.md"] = repaired_card([entry["dataset"] for entry in inputs], repaired.funnel, len(repaired.left))
        write_files(folder, files, {"inputs": inputs, "settings": self._settings, "funnel": repaired.funnel})
        log.info(f"{folder}: {len(repaired.left)} prompts, each on both sides; {len(repaired.rejected)} rows rejected")
        return repaired


def _language(path: str | None) -> Callable[[str], str | None] | None:
    try:
        return component(path) if path else None
    except InstantiationError as error:
        raise ValueError(
            f"language={path}: no function; give a dotpath, as data.language.not_english, or null"
        ) from error


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def render_report(report: dict[str, Any], day: str | None = None) -> str:
    """Return the report, made on this day, as one page that needs no other file."""

    def short(text: str) -> str:
        return text if len(text) <= 600 else f"{text[:600]} …"

    set_columns = [f"#{column}" for name in report["sets"] for column in (name, "rows")]
    template = page_template("data.quality", "audit.html.jinja", short=short)
    return template.render(report=report, set_columns=set_columns, date=day)


def _inputs(sets: list[PreferenceSet]) -> list[dict[str, Any]]:
    return [{"set": p.name, "dataset": p.dataset, "rows": p.n_rows, "rows_sha256": p.sha256} for p in sets]


def _table(report: dict[str, Any]) -> str:
    """Return the gates as lines of text."""
    lines = []
    for gate in report["gates"]:
        value = "not measured" if gate["value"] is None else f"{gate['value']:.3f}"
        limit = "no limit" if gate["limit"] is None else f"at most {gate['limit']:g}"
        verdict = {True: "pass", False: "FAIL", None: "-"}[gate["passed"]]
        note = gate["note"] and f"; {gate['note']}"
        lines.append(f"  {verdict:<5}{gate['gate']:<20}{value:>13}  {limit}{note}")
    return "\n".join(lines)


@entry_point
def recipe_main(cfg: DictConfig) -> int:
    """Entry point: see configs/audit.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL, components=MODELS)
    check_place(cfg)
    recipe = AuditRecipe(cfg)
    recipe.setup()
    return 0 if recipe.run() else 1


if __name__ == "__main__":
    sys.exit(recipe_main())
