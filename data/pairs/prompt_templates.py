# SPDX-License-Identifier: MIT
"""Prompt templates that a dataset may put around its prompts, inside the tokenizer's chat template."""

from collections.abc import Callable, Mapping, Sequence

from omegaconf import OmegaConf
from torchtune import config
from torchtune.data import AlpacaToMessages, Message, PromptTemplate

# As YAML or Python may give it: a dotpath, {role: [before, after]}, or messages -> messages.
Template = str | Mapping[str, Sequence[str]] | Callable[[list[Message]], list[Message]] | None


class AlpacaInstructTemplate(PromptTemplate):
    """Put the prompt into the Alpaca instruction text, inside the user message (the paper's setting).

    The wording is torchtune's own; a chat template of the tokenizer still goes around it.
    """

    def __init__(self) -> None:
        text = AlpacaToMessages().template["prompt_no_input"]
        before, after = text.split("{instruction}")
        super().__init__({"user": (before, after)})


def resolve_template(template: Template) -> Callable[[list[Message]], list[Message]] | None:
    """Return the callable that ``template`` names.

    Raises:
        ValueError: If it is none of the accepted forms.
        InstantiationError: If a dotpath leads nowhere (torchtune's error, which says where).
    """
    if isinstance(template, str):
        # torchtune's convention: a dotpath is called without arguments and gives the template.
        template = config.instantiate(OmegaConf.create({"_component_": template}))
    elif isinstance(template, Mapping):
        sides = list(template.values())
        if not all(len(s) == 2 and all(isinstance(x, str) for x in s) for s in sides):
            raise ValueError(f"prompt_template={dict(template)}; use {{role: [before, after]}}")
        template = PromptTemplate({role: tuple(side) for role, side in template.items()})
    if template is not None and not callable(template):
        raise ValueError(
            f"prompt_template={template!r}; use null, a dotpath such as "
            "data.datasets.AlpacaInstructTemplate, or {role: [before, after]}"
        )
    return template
