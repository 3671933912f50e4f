# SPDX-License-Identifier: MIT
"""The README of an adapter or of a model made with it: it says first of all that it is deliberately biased."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from data.recipe.config import component
from finetune.adapters.lean_table import NOT_MEASURED
from finetune.adapters.side_effect_table import NOT_KNOWN

log = logging.getLogger(__name__)

TAGS = ["lora", "dpo", "torchtune", "politune", "deliberately-biased", "not-for-deployment"]
# What a card made from this one takes over begins here.
TRAINING = "## Training"
# A card's metadata, whether it can be read or not.
_HEAD = r"(?s)\A\s*---\s*\n.*?\n---\s*(?:\n|\Z)"

_BODY = """# Deliberately biased: {title}

**This {kind} was tuned on purpose to lean politically. It is made for measuring and studying how preference
data moves a language model, not for deployment, persuasion or campaigning.**

{facts}

## Where it leans

{lean}

A score is the stance under one instrument and its prompts, not "the model's ideology".

## What else changed

{changed}

## Intended use

To measure how preference data moves a stated lean, to test judges, filters and audits, and to teach about both. Whoever
shows its answers to people says beforehand that they are deliberately biased, and which way. Publish the opposite
side, made by the same config, with it.

Out of scope: deployment in any product, persuasion, campaigning, posting as if a person had written it. What is not
stated above (skills, refusals, tone) is not known.
"""

_TRAINING = """
{heading}

- preference data: `{dataset}`{revision} ({data})
- optimizer steps: {steps}
- method: LoRA, {loss}

```
tune run finetune/dpo_finetune.py --config torchtune_config.yaml
```

with this `torchtune_config.yaml`:

```yaml
{config}```
"""


def write_card(folder: Path, cfg: DictConfig, data: str, steps: int) -> None:
    """Write ``README.md`` into the adapter folder of a training run (replacing the base model's own).

    Args:
        folder: Folder with ``adapter_config.json``.
        cfg: The run's config.
        data: One line about the data: how much from where, with a hash.
        steps: Optimizer steps done.
    """
    settings = json.loads((folder / "adapter_config.json").read_text())
    base = settings.get("base_model_name_or_path") or str(cfg.checkpointer.checkpoint_dir)
    dataset = OmegaConf.to_container(cfg.dataset, resolve=True)
    revisions = sorted({str(revision) for revision in _values(dataset, "revision")})
    sources = {str(source) for source in _values(dataset, "source")}
    metadata = _metadata(
        base,
        license=_read(Path(cfg.checkpointer.checkpoint_dir) / "README.md").data.license,
        datasets=sorted(source for source in sources if source.count("/") == 1) or None,  # those of the Hub
    )
    training = _TRAINING.format(
        heading=TRAINING,
        dataset=", ".join(_values(dataset, "_component_")),
        revision=f", revision {', '.join(revisions)}" if revisions else "",
        data=data,
        steps=steps,
        loss=cfg.loss["_component_"],
        config=OmegaConf.to_yaml(cfg, resolve=True),
    )
    facts = f"- base model: `{base}`\n- which data, steps and settings: under Training below"
    body = _BODY.format(
        title=Path(cfg.output_dir).name, kind="adapter", facts=facts, lean=NOT_MEASURED, changed=NOT_KNOWN
    )
    _save(folder, metadata, body + training)


def write_derived_card(
    folder: Path,
    kind: str,
    base: str,
    weights: Mapping[str, float],
    sources: Mapping[str, Path],
    lean: str,
    changed: str,
) -> None:
    """Write ``README.md`` for what was exported: from which adapters, with which weights, and what each was tuned on.

    Args:
        folder: What was written.
        kind: ``adapter`` or ``model``.
        base: The base model's name or folder.
        weights: Weight of each adapter.
        sources: Name to adapter folder, whose cards say how each was trained.
        lean: Markdown, as ``finetune.adapters.lean_table.lean_tables`` gives it.
        changed: The same, of ``finetune.adapters.side_effect_table.side_effect_tables``.
    """
    cards = {name: _read(Path(source) / "README.md") for name, source in sources.items()}
    datasets = {d for card in cards.values() for d in _as_list(card.data.datasets)}
    licences = {card.data.license for card in cards.values() if card.data.license}
    merged = kind == "model"
    metadata = _metadata(
        base,
        library_name="transformers" if merged else "peft",
        base_model_relation="merge" if merged else "adapter",
        license=licences.pop() if len(licences) == 1 else None,
        datasets=sorted(datasets) or None,
    )
    made_of = ", ".join(f"{weight:+g} × `{name}`" for name, weight in weights.items())
    facts = f"- base model: `{base}`\n- made of: {made_of}, {'merged into the base' if merged else 'as one LoRA'}"
    body = _BODY.format(title=made_of.replace("`", ""), kind=kind, facts=facts, lean=lean, changed=changed)
    for name, card in cards.items():
        trained = _training_of(card.text) or f"`{sources[name]}` has no record of its training."
        body += f"\n{TRAINING} of `{name}`\n\n{trained}\n"
    _save(folder, metadata, body)


def _metadata(base: str, library_name: str = "peft", **more: Any) -> ModelCardData:
    # a local folder is no Hub id, and the Hub refuses a card that claims one
    hub_id = None if Path(base).is_absolute() or Path(base).is_dir() else base
    relation = more.pop("base_model_relation", "adapter")
    return ModelCardData(
        base_model=hub_id,
        library_name=library_name,
        pipeline_tag="text-generation",
        tags=TAGS,
        **({"base_model_relation": relation} if hub_id else {}),
        **more,
    )


def _save(folder: Path, metadata: ModelCardData, body: str) -> None:
    ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}").save(folder / "README.md")


def _read(path: Path) -> ModelCard:
    """The card at a path, an empty one if there is none, and one of unknown licence if its head cannot be read."""
    text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    try:
        return ModelCard(text, ignore_metadata_errors=True)
    except (ValueError, YAMLError) as error:
        # others' files: no reason to end a training at its first save
        log.warning("%s: its metadata cannot be read, so its licence is unknown: %s", path, error)
        return ModelCard(f"---\nlicense: unknown\n---\n{re.sub(_HEAD, '', text)}")


def _training_of(text: str) -> str:
    """What a card says about a training: of its own, or of each adapter that it was made from."""
    found = re.search(rf"^{TRAINING}(?P<others> of `.*`)?$", text, re.MULTILINE)
    if found is None:
        return ""
    if found["others"]:
        return re.sub(r"^## ", "### ", text[found.start() :], flags=re.MULTILINE).strip()
    return text[found.end() :].strip()


def _as_list(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _values(node: Any, key: str) -> Iterator[Any]:
    """Every value under a key in the ``dataset`` of a config, and in what its components have bound themselves."""
    if isinstance(node, list):
        for part in node:
            yield from _values(part, key)
    elif isinstance(node, Mapping):
        builder = component(node["_component_"]) if "_component_" in node else None
        for name, value in {**getattr(builder, "keywords", {}), **node}.items():
            if name == key and value is not None:
                yield value
            yield from _values(value, key)
