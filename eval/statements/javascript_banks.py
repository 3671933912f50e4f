# SPDX-License-Identifier: MIT
"""The question files of 8values and of the quizzes that descend from it.

A list of ``{"question": text, "effect": {axis: number}}``, as JSON or assigned to a name in JavaScript; a
descendant may say ``effects`` and give an ``id``.
"""

import json
import re
from typing import Any

import yaml

# Answers of the quiz and what they multiply an effect by, in the order of an instrument: disagreement first.
ANSWERS = {
    "strongly disagree": -1.0,
    "disagree": -0.5,
    "neutral or unsure": 0.0,
    "agree": 0.5,
    "strongly agree": 1.0,
}
# What the quiz calls 0 and 100 % of its axes.
ENDS = {
    "econ": ("markets", "equality"),
    "dipl": ("nation", "globe"),
    "govt": ("authority", "liberty"),
    "scty": ("tradition", "progress"),
}


def read_javascript(file: str, text: str) -> dict[str, Any]:
    """Return options, axes and items of a question file.

    The quiz shows ``100 (max + score) / (2 max)`` per cent, with ``score`` the sum of effect times answer and
    ``max`` the sum of absolute effects. That is ``(score + max) / (max / 50)``: offset ``max``, divisor
    ``max / 50``.

    Raises:
        ValueError: If the file is not such a list; the message names the question and the field.
    """
    questions = _parse(file, text)
    items, largest = [], {}
    for number, entry in enumerate(questions, start=1):
        name = str(entry["id"]) if isinstance(entry, dict) and "id" in entry else f"q{number}"
        where = f"{file}: question {number} ({name})"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: a {type(entry).__name__}; use {{question: text, effect: {{axis: number}}}}")
        effects = entry.get("effect", entry.get("effects"))
        if not isinstance(effects, dict) or not effects:
            raise ValueError(f"{where}: effect is {effects!r}; give a number for each axis")
        for axis, effect in effects.items():
            if not isinstance(effect, int | float) or isinstance(effect, bool):
                raise ValueError(f"{where}: effect on {axis} is {effect!r}; give a number")
            largest[axis] = largest.get(axis, 0) + abs(effect)
        items.append((name, entry.get("question"), effects))
    if dead := [axis for axis, total in largest.items() if not total]:
        raise ValueError(f"{file}: no question has an effect on {dead}; drop these axes")
    return {
        "options": list(ANSWERS),
        "axes": {
            str(axis): {
                **dict(zip(("low", "high"), ENDS.get(axis, (f"0 % {axis}", f"100 % {axis}")))),
                "offset": total,
                "divisor": total / 50,
            }
            for axis, total in largest.items()
        },
        "items": [
            {
                "id": name,
                "text": text,
                "topic": "none given",
                # an effect of 0 says that the question is not about this axis, unless it is about none
                "weights": {
                    str(axis): [effect * times for times in ANSWERS.values()]
                    for axis, effect in effects.items()
                    if effect or not any(effects.values())
                },
            }
            for name, text, effects in items
        ],
    }


def _parse(file: str, text: str) -> list:
    """Read the list of a JSON or JavaScript file; YAML reads the literals that JSON does not."""
    text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\s*(?:export\s+)?(?:(?:const|let|var)\s+)?[\w.$]+\s*=\s*", "", text.strip())
    text = re.sub(r"^\s*export\s+default\s+", "", text).strip().rstrip(";")
    try:
        questions = json.loads(text)
    except json.JSONDecodeError as fault:
        try:
            questions = yaml.safe_load(text.replace("\t", " "))
        except yaml.YAMLError:
            raise ValueError(f"{file}: line {fault.lineno}: not a JavaScript or JSON list ({fault.msg})") from fault
    if isinstance(questions, dict) and isinstance(questions.get("questions"), list):
        questions = questions["questions"]
    if not isinstance(questions, list) or not questions:
        raise ValueError(f'{file}: no list of questions; it must read [{{"question": …, "effect": {{…}}}}, …]')
    return questions
