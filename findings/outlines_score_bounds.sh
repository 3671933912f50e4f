#!/usr/bin/env bash
# Guess: a judge that is held to a JSON schema can only give what the schema allows: a whole number from 1 to 5, a ranking without repeats.
# What the library cannot hold it refuses, as llguidance does.
# Behaviour: outlines-core drops `minimum`, `maximum`, `uniqueItems` and `not` without a word. Its expression for a score from 1 to 5 lets -40 and 7000
# through, and a ranking of three may name one answer three times. A list of allowed values (`enum`) is held.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet outlines-core==0.2.14 llguidance==1.9.1 jsonschema==4.26.0
"$folder/env/bin/python" - <<'PY'
import json
import re
from importlib.metadata import version

import jsonschema
from llguidance import LLMatcher
from outlines_core.json_schema import build_regex_from_schema

print("outlines-core", version("outlines-core"), "llguidance", version("llguidance"))


def lets_through(schema, text):
    """Return whether the expression made of the schema accepts a text, and whether the text is valid under the schema."""
    valid = jsonschema.Draft202012Validator(schema).is_valid(json.loads(text))
    return re.fullmatch(build_regex_from_schema(json.dumps(schema)), text) is not None, valid


def refused(schema):
    return LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema)))


score = {"type": "object", "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}}, "required": ["score"]}
listed = {"type": "object", "properties": {"score": {"enum": [1, 2, 3, 4, 5]}}, "required": ["score"]}
ranking = {"type": "array", "items": {"enum": ["A", "B", "C"]}, "minItems": 3, "maxItems": 3, "uniqueItems": True}
for name, schema, text in (
    ("score", score, '{"score":4}'),
    ("score", score, '{"score":-40}'),
    ("score", score, '{"score":7000}'),
    ("enum", listed, '{"score":4}'),
    ("enum", listed, '{"score":7}'),
    ("ranking", ranking, '["A","A","A"]'),
):
    through, valid = lets_through(schema, text)
    print(f"{name:8} {text:16} valid {valid!s:5}  let through {through}")
    assert through == (valid or schema is not listed), "changed: the schema is held"
print("llguidance on the ranking:", refused(ranking))
assert "uniqueItems" in refused(ranking) and not refused(score)
PY
