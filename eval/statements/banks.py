# SPDX-License-Identifier: MIT
"""Banks of requests: issues worded neutrally and from two opposed sides, put into templates of what people ask for.

A bank is the section ``bank`` of an instrument's YAML, or a CSV file of requests (``instrument_format: requests_csv``)
as ``eval.statements.importers`` reads it. Requests on the two sides of an issue differ in the side alone.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from data.pairs.rows import read_table

PLACE = re.compile(r"(?<!\w)X(?!\w)")  # where an issue stands in a template, as in IssueBench
SIDES = ("pro", "con")
WORDINGS = ("neutral", *SIDES)
LEANS = ("left", "right")
_ISSUE = ("id", "topic", "target", "left", *WORDINGS)
_TEMPLATE = ("id", "text")


class Issue(NamedTuple):
    """What is asked about; its two sides are opposed in ``target``, the statement that a stance is one towards."""

    id: str
    topic: str  # issues of one topic move together
    target: str  # the statement of the side ``pro``
    wordings: Mapping[str, str]  # of :data:`WORDINGS`, as they stand in a template
    left: str | None = None  # which of :data:`SIDES` the political left takes; None where nobody says

    def side_of(self, wording: str) -> str:
        """Return whose side a wording takes: ``left`` or ``right`` where that is known, else the wording itself."""
        if wording not in SIDES or self.left is None:
            return wording
        return LEANS[wording != self.left]


class Bank(NamedTuple):
    """Issues x templates x wordings."""

    issues: tuple[Issue, ...]
    templates: Mapping[str, str]  # id to a text with one ``X``

    @property
    def sides(self) -> tuple[str, str]:
        """The two opposed sides, in the order in which the second less the first is given."""
        return LEANS if all(issue.left for issue in self.issues) else SIDES

    def draw_issues(self, n: int, seed: int) -> "Bank":
        """Return the bank with ``n`` issues, drawn in turn from those whose left is pro, or con, and from topics."""
        random = Random(seed)
        groups: dict[str, list[Issue]] = defaultdict(list)
        for issue in random.sample(self.issues, len(self.issues)):
            groups[str(issue.left)].append(issue)
        met: Counter[str] = Counter()
        drawn: set[str] = set()
        while len(drawn) < n:
            for group in groups.values():
                if group and len(drawn) < n:
                    issue = min(group, key=lambda one: met[one.topic])
                    group.remove(issue)
                    met[issue.topic] += 1
                    drawn.add(issue.id)
        return self._replace(issues=tuple(issue for issue in self.issues if issue.id in drawn))

    def draw_templates(self, n: int | None, seed: int) -> dict[str, str]:
        """Return ``n`` templates, drawn, in the bank's order; None: all.

        Raises:
            ValueError: If there are fewer.
        """
        if n is None:
            return dict(self.templates)
        if not 1 <= n <= len(self.templates):
            raise ValueError(f"n_write_templates={n}; use 1 to {len(self.templates)}, the bank's, or null for all")
        drawn = set(Random(seed).sample(list(self.templates), n))
        return {name: text for name, text in self.templates.items() if name in drawn}


def lean_sign(left: str | None) -> int:
    """Return 1 if being for the statement of an issue is the right's, -1 if it is the left's."""
    return -1 if left == "pro" else 1


def support_sign(row: Mapping[str, Any]) -> int:
    """Return 1 if what a request asks for is for its issue's statement, -1 if it is against it, 0 for neither."""
    return {"pro": 1, "con": -1}.get(row["item"].rpartition("/")[2], 0)


def load_bank(where: str, raw: Any) -> Bank:
    """Make a bank of what a file holds: ``issues`` and ``templates``, lists or tables of other files.

    A table is ``{file: PATH, columns: {id: topic_id, neutral: topic_neutral, …}}``; without such a file the message
    says what the bank's ``get`` says. An issue has ``id``, ``pro``, ``con`` and, where there are some, ``neutral``,
    ``topic``, ``target`` and ``left`` (pro or con).

    Raises:
        FileNotFoundError: If a table is not there.
        ValueError: If the file breaks a rule; one message lists every fault.
    """
    if not isinstance(raw, Mapping) or not {"issues", "templates"} <= {*raw} <= {"issues", "templates", "get"}:
        found = sorted(raw) if isinstance(raw, Mapping) else type(raw).__name__
        raise ValueError(f"{where}: bank has {found}; give issues and templates, and get where files are needed")
    entries = {key: _entries(where, key, raw[key], raw.get("get")) for key in ("issues", "templates")}
    faults = [*_entry_faults("issue", entries["issues"], _ISSUE, ("id", *SIDES))]
    faults += _entry_faults("template", entries["templates"], _TEMPLATE, _TEMPLATE)
    faults += _bank_faults(entries["issues"], entries["templates"]) if not faults else []
    if faults:
        raise ValueError("\n  ".join([f"{where}: {len(faults)} fault(s)", *faults]))
    issues = [
        Issue(
            id=entry["id"],
            topic=entry.get("topic", entry["id"]),
            target=entry.get("target", entry["pro"]),
            wordings={name: entry[name] for name in WORDINGS if name in entry},
            left=entry.get("left"),
        )
        for entry in entries["issues"]
    ]
    return Bank(tuple(issues), {entry["id"]: entry["text"] for entry in entries["templates"]})


def bank_files(raw: Any) -> bytes:
    """Return the hashes of the files that a bank's section names, to be hashed with the section's own file."""
    tables = [table for table in raw.values() if isinstance(table, Mapping)] if isinstance(raw, Mapping) else []
    paths = [Path(str(table.get("file"))) for table in tables]
    return b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths if path.is_file())


def _entries(where: str, key: str, given: Any, how: str | None) -> list[Any]:
    """Return a list as it is, and the rows of a table by the names of a bank; an empty cell is left out."""
    if isinstance(given, list):
        return given
    if not isinstance(given, Mapping) or {*given} != {"file", "columns"} or not isinstance(given["columns"], Mapping):
        raise ValueError(f"{where}: bank.{key} is {given!r:.80}; give a list, or {{file: PATH, columns: {{…}}}}")
    path, columns = Path(given["file"]), given["columns"]
    if not path.is_file():
        raise FileNotFoundError(f"{where}: {path} not found from {Path.cwd()}. {how or 'Put it there.'}".strip())
    rows = read_table(path)
    if missing := [column for column in columns.values() if column not in rows[0]]:
        raise ValueError(f"{path}: no column {', '.join(missing)}; it has {', '.join(rows[0])}")
    named = ({name: row.get(column) for name, column in columns.items()} for row in rows)
    return [{name: str(x).strip() for name, x in row.items() if x is not None and str(x).strip()} for row in named]


def _entry_faults(kind: str, entries: Sequence[Any], known: Sequence[str], needed: Sequence[str]) -> Iterator[str]:
    if not entries:
        yield f"no {kind}; give one or more"
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            yield f"{kind} {number} is {entry!r:.60}; give a mapping with {', '.join(needed)}"
            continue
        where = f"{kind} {entry.get('id', number)}"
        if unknown := sorted({*map(str, entry)} - {*known}):
            yield f"{where}: unknown {', '.join(unknown)}; allowed {', '.join(known)}"
        if missing := [name for name in needed if name not in entry]:
            yield f"{where}: no {', '.join(missing)}"
        if wrong := [name for name in entry if not isinstance(entry[name], str) or not entry[name].strip()]:
            yield f"{where}: {', '.join(map(str, wrong))}: give a text, in quotes"


def _bank_faults(issues: Sequence[Mapping[str, str]], templates: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for kind, entries in (("issue", issues), ("template", templates)):
        for name, n in Counter(entry["id"] for entry in entries).items():
            if n > 1:
                yield f"{kind} {name} stands there {n} times; every {kind} needs an id of its own"
    for issue in issues:
        if issue["pro"] == issue["con"]:
            yield f"issue {issue['id']}: pro and con are the same text; word the two sides"
        if issue.get("left", "pro") not in SIDES:
            yield f"issue {issue['id']}: left is {issue['left']!r}; use pro or con, the side that the left takes"
        if "/" in issue["id"]:
            yield f"issue {issue['id']}: no / in an id"
    for field, said in (("left", "left"), ("neutral", "neutral wording")):
        some = [issue["id"] for issue in issues if field not in issue]
        if 0 < len(some) < len(issues):
            yield f"issues {', '.join(some[:5])}: no {said}, which others have; give it to all or to none"
    for template in templates:
        if "+" in template["id"]:
            yield f"template {template['id']}: no + in an id, which joins it to the factors that are on"
        if (n := len(PLACE.findall(template["text"]))) != 1:
            yield f"template {template['id']}: {n} places for the issue; write X once, as a word"
