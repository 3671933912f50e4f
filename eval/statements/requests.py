# SPDX-License-Identifier: MIT
"""The prompts of mode ``write``: a bank's requests, under two-level factors if a config has some.

A factor adds a text to a request, or not; the factor ``system_prompt`` is one. All wordings of an issue in a template
are asked under the same levels, so that mirrored requests differ in the side alone.
"""

import itertools
from collections.abc import Mapping, Sequence
from random import Random

from eval.statements.banks import PLACE, Bank
from eval.statements.instruments import Instrument
from eval.statements.prompts import Prompt, instrument_row

WRITE = "write"
SYSTEM_PROMPT = "system_prompt"

Levels = dict[str, bool]  # of every factor: is it on?


def write_prompts(
    instrument: Instrument,
    n_templates: int | None,
    n_samples: int,
    factors: Mapping[str, str],
    factor_cells: int | None,
    seed: int,
) -> list[Prompt]:
    """Ask for what a bank's issues, wordings and templates say, under the levels of factors.

    ``item`` of a row is ``ISSUE/WORDING``; ``template`` names the factors that are on too.

    Args:
        instrument: It has a bank.
        n_templates: Drawn from the bank's; None: all.
        n_samples: Of each prompt.
        factors: Name to the text that is added.
        factor_cells: Combinations of levels that each issue is asked under in a template; None: all.
        seed: Of both draws.

    Raises:
        ValueError: If there are fewer templates, or the cells are no power of two above the number of factors.
    """
    bank: Bank = instrument.bank  # type: ignore[assignment]  # plan_interview has looked
    templates = bank.draw_templates(n_templates, seed)
    prompts = []
    for issue, (template, text) in itertools.product(bank.issues, templates.items()):
        cells = draw_cells(list(factors), factor_cells, f"{seed} {issue.id} {template}")
        for levels, (wording, worded) in itertools.product(cells, issue.wordings.items()):
            parts = [worded.join(PLACE.split(text))]
            parts += [factors[name] for name, is_on in levels.items() if is_on and name != SYSTEM_PROMPT]
            row = instrument_row(
                instrument,
                WRITE,
                f"{issue.id}/{wording}",
                "+".join([template, *(name for name, is_on in levels.items() if is_on)]),
                prompt := "\n".join(parts),
                issue=issue.id,
                topic=issue.topic,
                side=issue.side_of(wording),
                levels=levels,
            )
            system = factors[SYSTEM_PROMPT] if levels.get(SYSTEM_PROMPT) else None
            prompts += [Prompt({**row, "sample": k}, prompt, system=system) for k in range(n_samples)]
    return prompts


def draw_cells(factors: Sequence[str], n_cells: int | None, seed: str) -> list[Levels]:
    """Return combinations of levels: all, or an orthogonal fraction in which every two factors are balanced.

    The fraction takes columns of a Hadamard matrix, which ones and with which sign being drawn, so that what is mixed
    up with a main effect (the interactions of others) is another in every draw.

    Source: Plackett and Burman 1946, Biometrika 33(4); Box, Hunter and Hunter 2005, Statistics for Experimenters,
    chapter 6.

    Raises:
        ValueError: If ``n_cells`` is no power of two above the number of factors, or more than all.
    """
    n_all = 2 ** len(factors)
    if n_cells is None or n_cells == n_all:
        return [dict(zip(factors, levels)) for levels in itertools.product((False, True), repeat=len(factors))]
    if n_cells & (n_cells - 1) or not len(factors) < n_cells < n_all:
        fit = [2**k for k in range(1, len(factors) + 1) if 2**k > len(factors)]
        raise ValueError(
            f"factor_cells={n_cells}, with {len(factors)} factors; use one of {fit}, or null for all {n_all}"
        )
    random = Random(seed)
    flips = [random.random() < 0.5 for _ in factors]
    while True:
        columns = random.sample(range(1, n_cells), len(factors))
        levels = [[(cell & c).bit_count() % 2 == 1 for c in columns] for cell in range(n_cells)]
        if len({*map(tuple, levels)}) == n_cells:  # else some columns are products of others, and cells come twice
            return [{name: is_on != flip for name, is_on, flip in zip(factors, of, flips)} for of in levels]
