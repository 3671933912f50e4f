# SPDX-License-Identifier: MIT
"""Posts of published corpora and of files of one's own, streamed: a source of ``data/synthesize.py``.

A source yields ``text, dataset, licence, date, names``; ``names`` is what the record calls its author, to be masked in
the text before anything is stored. Author columns themselves go no further.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from glob import glob
from typing import Any

from data.pairs.rows import BadRow, file_format, hub_rows, matching_files, scan_records

MAX_CHARACTERS = 20_000  # 10,000 is the longest comment that Reddit takes
BAD_ROWS = ("error", "skip")

_log = logging.getLogger(__name__)


def posts(
    source: str,
    dataset: str,
    licence: str,
    split: str = "train",
    revision: str | None = None,
    text_column: str = "text",
    id_column: str | None = None,
    date_column: str | None = None,
    author_column: str | None = None,
    max_characters: int = MAX_CHARACTERS,
    bad_rows: str = "error",
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the posts of files or of a Hub dataset.

    Args:
        source: Path or glob (CSV, TSV, JSON, JSON Lines, parquet; the text formats also .gz and .bz2), or a dataset
            repository of the Hub, which is streamed.
        dataset: Name of the corpus, for the rows and the card.
        licence: Its licence, for the rows and the card.
        split: Split of a Hub dataset.
        revision: Branch, tag or commit of a Hub dataset.
        text_column: Column of the text.
        id_column: Column of the post's id; an id that occurs again is a bad row.
        date_column: Column of the date.
        author_column: Column of the author's name.
        max_characters: A longer text is a bad row.
        bad_rows: ``error`` names file and row, ``skip`` leaves bad rows out, counted and logged by reason.
        limit: Most posts; None takes all.

    Raises:
        FileNotFoundError: If no file or repository is there.
        ValueError: If a file, a column or (under ``error``) a row is not as it should be.
    """
    columns = {"text": text_column, "id": id_column, "date": date_column, "author": author_column}
    if file_format(source) is None and not glob(source):
        named = ((f"{source} row", row) for row in hub_rows(source, split, revision))
    else:
        named = _file_rows(source, None, True, bad_rows)
    return _posts(named, dataset, licence, columns, max_characters, bad_rows, limit)


def reddit_politosphere(
    data_files: str,
    subreddits: Collection[str] | None = None,
    languages: Collection[str] = ("en",),
    licence: str = "CC BY 4.0",
    max_characters: int = MAX_CHARACTERS,
    bad_rows: str = "error",
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield comments of the Reddit Politosphere (Hofmann, Schütze and Pierrehumbert 2022).

    Reads ``comments_YYYY-MM.bz2``: JSON Lines with Pushshift's fields (``id, author, body, created_utc, subreddit``)
    and ``language``. Comments that Reddit or their author took down are left out.

    Args:
        data_files: Path or glob.
        subreddits: Names, without regard to case; None takes all.
        languages: As CLD2 told them.
        licence: As for :func:`posts`.
        max_characters: As there.
        bad_rows: As there.
        limit: As there.
    """
    wanted = {name.lower() for name in subreddits or ()}
    columns = {"text": "body", "id": "id", "date": "created_utc", "author": "author"}

    def keep(row: Mapping[str, Any]) -> bool:
        right_place = not wanted or str(row.get("subreddit")).lower() in wanted
        return right_place and row.get("language", "en") in languages and row["body"] not in ("[deleted]", "[removed]")

    rows = _file_rows(data_files, "json", True, bad_rows)
    return _posts(rows, "Reddit Politosphere", licence, columns, max_characters, bad_rows, limit, keep)


def truth_social(
    data_files: str,
    replies: bool = False,
    licence: str = "CC BY 4.0",
    max_characters: int = MAX_CHARACTERS,
    bad_rows: str = "skip",
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield truths of the Truth Social dataset (Gerard, Botzer and Weninger 2023), ReTruths left out.

    Reads ``truths.tsv``: ``id, timestamp, is_retruth, is_reply, author, text`` and others, tabs and no quoting; its
    author is a number. A post with a line break lies on two rows: so bad rows are skipped, and counted, by default.

    Args:
        data_files: Path or glob.
        replies: Whether replies are taken too.
        licence: For the rows and the card.
        max_characters: See :func:`posts`, as for ``bad_rows`` and ``limit``.
        bad_rows: See there.
        limit: See there.
    """
    columns = {"text": "text", "id": "id", "date": "timestamp", "author": None}

    def keep(row: Mapping[str, Any]) -> bool:
        return row["is_retruth"] != "t" and (replies or row["is_reply"] != "t") and bool(row["text"].strip())

    rows = _file_rows(data_files, "tsv", False, bad_rows)
    return _posts(rows, "Truth Social", licence, columns, max_characters, bad_rows, limit, keep)


def _file_rows(pattern: str, kind: str | None, quoted: bool, bad_rows: str) -> Iterator[tuple[str, dict | BadRow]]:
    if bad_rows not in BAD_ROWS:
        raise ValueError(f"bad_rows={bad_rows!r}; use one of {', '.join(BAD_ROWS)}")
    for path in matching_files(pattern):
        for row in scan_records(path, kind, quoted=quoted):
            number, content = (row.number, row) if isinstance(row, BadRow) else row
            yield f"{path} row {number}", content


def _posts(
    rows: Iterable[tuple[str, dict | BadRow]],
    dataset: str,
    licence: str,
    columns: Mapping[str, str | None],
    max_characters: int,
    bad_rows: str,
    limit: int | None,
    keep: Callable[[Mapping[str, Any]], bool] = lambda row: True,
) -> Iterator[dict[str, Any]]:
    skipped: Counter[str] = Counter()
    seen, n_posts = set(), 0
    for where, row in rows:
        if limit is not None and n_posts >= limit:
            break
        kind, reason = (
            ("unreadable", row.reason) if isinstance(row, BadRow) else _defect(row, columns, max_characters, seen)
        )
        if kind == "no column":  # never a single row's fault
            raise ValueError(f"{where}: {reason}")
        if kind and bad_rows == "error":
            raise ValueError(f"{where}: {reason}. Mend it, or set bad_rows=skip to leave such rows out, counted")
        kind = kind or ("" if keep(row) else "not asked for")
        if kind:
            skipped[kind] += 1
            continue
        n_posts += 1
        yield {
            "text": row[columns["text"]],
            "dataset": dataset,
            "licence": licence,
            "date": _date(row[columns["date"]]) if columns["date"] else None,
            "names": [str(row[columns["author"]])] if columns["author"] and row[columns["author"]] else [],
        }
    if skipped:
        _log.warning("%s: took %d posts, left out %s", dataset, n_posts, dict(skipped.most_common()))


def _defect(
    row: Mapping[str, Any], columns: Mapping[str, str | None], max_characters: int, seen: set[Any]
) -> tuple[str, str]:
    """Kind and reason of what is wrong with a row, both empty if nothing is; remembers its id."""
    if missing := [column for column in columns.values() if column and column not in row]:
        return "no column", f"no column {', '.join(missing)}; found {', '.join(row)}"
    text, key = row[columns["text"]], row[columns["id"]] if columns["id"] else None
    if not isinstance(text, str) or not text.strip():
        return "no text", f"{columns['text']} is {text!r:.40}, want text"
    if len(text) > max_characters:
        return "too long", f"{len(text):,} characters, at most {max_characters:,} are taken"
    if key is not None and key in seen:
        return "duplicate id", f"{columns['id']} {key!r:.60} occurs before"
    if key is not None:
        seen.add(key)
    return "", ""


def _date(value: Any) -> str | None:
    """A date as text; seconds since 1970, as Pushshift has them, as the day."""
    if str(value).isdigit():
        return datetime.fromtimestamp(int(value), UTC).date().isoformat()
    return str(value) if value else None
