# SPDX-License-Identifier: MIT
"""The data that an adapter was trained on, by the record that its run left in the adapter's card."""

import functools
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from data import datasets
from data.quality.contamination import SOURCE_KEYS
from data.recipe.config import component


class Recorded(NamedTuple):
    """The preference sets of one adapter, each as a reader takes it, and why some or all of them are not known."""

    sources: list[dict[str, Any]]
    unknown: list[str]


def recorded_data(folder: str | Path) -> Recorded:
    """Return the sets that an adapter of ours, or each adapter of a blend, was trained on."""
    card = Path(folder) / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    sources: list[dict[str, Any]] = []
    unknown: list[str] = []
    configs = []
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        try:
            configs.append(yaml.safe_load(block))
        except yaml.YAMLError:
            continue
    nodes = [config["dataset"] for config in configs if isinstance(config, dict) and config.get("dataset")]
    for node in nodes:
        for part in node if isinstance(node, list) else [node]:
            found = list(_sources(part))
            sources += [source for source in found if source not in sources]
            if not found:
                named = part.get("_component_") if isinstance(part, dict) else part
                unknown.append(f"{named} is no builder of data.datasets")
    return Recorded(sources, unknown if nodes else ["its card has no config of a training"])


def _sources(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the sets that a ``dataset`` of a config reads, if its builder is one of ours."""
    try:
        builder = functools.partial(component(node["_component_"]), **{k: v for k, v in node.items() if k[0] != "_"})
    except Exception:  # whatever an import of somebody's module raises, or a node that is none
        return
    given: Mapping[str, Any] = builder.keywords
    if builder.func is datasets._shipped_pairs:
        shipped = files("data").joinpath("mirrored", "pairs.jsonl")
        yield {"source": datasets.SHIPPED_SET if Path(datasets.SHIPPED_SET).is_file() else str(shipped)}
    for spec in (given, given.get("left"), given.get("right")):
        if isinstance(spec, Mapping) and isinstance(spec.get("source"), str):
            yield {key: spec[key] for key in SOURCE_KEYS if spec.get(key) is not None}
