# SPDX-License-Identifier: MIT
"""The README of an adapter: it says what the adapter is, first of all that it is deliberately biased."""

import json
import shlex
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from omegaconf import DictConfig, OmegaConf

_BODY = """# {title}

**This adapter was tuned on purpose to lean politically. It is made for measuring and studying how preference
data moves a language model, not for deployment, persuasion or campaigning.**

- base model: `{base}`
- preference data: `{dataset}` ({data})
- optimizer steps: {steps}
- method: LoRA, {loss}

Where it leans, and how far, is what `tune run eval/political_compass.py` measures: a stance under one
instrument and its prompts, not "the model's ideology". Publish the opposite side, made by the same config, with
it.

## Settings

```yaml
{config}```

## Command

```
tune run finetune/dpo_finetune.py --config torchtune_config.yaml
```
"""


def write_card(folder: Path, cfg: DictConfig, data: str, steps: int) -> None:
    """Write ``README.md`` into an adapter folder (replacing the base model's own).

    Args:
        folder: Folder with ``adapter_config.json``.
        cfg: The run's config.
        data: One line about the data.
        steps: Optimizer steps done.
    """
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    parts = cfg.dataset if OmegaConf.is_list(cfg.dataset) else [cfg.dataset]
    card_data = ModelCardData(
        # a local folder is no Hub id, and the Hub refuses a card that claims one
        base_model=None if Path(base).is_absolute() else base,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "dpo", "torchtune", "politune", "deliberately-biased"],
    )
    body = _BODY.format(
        title=f"Deliberately biased adapter: {shlex.quote(Path(cfg.output_dir).name)}",
        base=base,
        dataset=", ".join(part["_component_"] for part in parts),
        data=data,
        steps=steps,
        loss=cfg.loss["_component_"],
        config=OmegaConf.to_yaml(cfg, resolve=True),
    )
    ModelCard(f"---\n{card_data.to_yaml()}\n---\n\n{body}").save(folder / "README.md")
