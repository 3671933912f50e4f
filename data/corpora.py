# SPDX-License-Identifier: MIT
"""Posts of published corpora and of files of one's own, streamed: a source of ``data/synthesize.py``.

A source yields ``text, dataset, licence, date, names``; ``names`` is what the record calls its author, to be masked in
the text before anything is stored. Author columns themselves go no further.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from glob import glob
from typing import Any, NamedTuple

from data.pairs.formats import BadRow, no_column
from data.pairs.hub import hub_rows
from data.pairs.rows import file_format, matching_files, scan_records

MAX_CHARACTERS = 20_000  # 10,000 is the longest comment that Reddit takes
BAD_ROWS = ("error", "skip")

_log = logging.getLogger(__name__)


class _Corpus(NamedTuple):
    dataset: str
    licence: str
    columns: Mapping[str, str | None]
    max_characters: int
    bad_rows: str
    limit: int | None
    has_options: bool = False  # that name its columns: sources.NAME.text_column and the like


def posts(
    source: str,
    dataset: str,
    licence: str,
    split: str = "train",
    revision: str | None = None,
    name: str | None = None,
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
        name: Config of a Hub dataset that has several.
        text_column: Column of the text.
        id_column: Column of the post's id; an id that occurs again is a bad row.
        date_column: Column of the date.
        author_column: Column of the author's name.
        max_characters: A longer text is a bad row.
        bad_rows: ``error`` names file and row, ``skip`` leaves bad rows out; a warning counts them by reason.
        limit: Most posts; None takes all.
    """
    columns = {"text": text_column, "id": id_column, "date": date_column, "author": author_column}
    is_file = file_format(source) or glob(source)
    of_hub = () if is_file else hub_rows(source, split, revision, name=name)
    rows = _file_rows(source) if is_file else ((f"{source} row", row) for row in of_hub)
    return _posts(_Corpus(dataset, licence, columns, max_characters, bad_rows, limit, has_options=True), rows)


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

    ``data_files`` is a path or glob. ``subreddits`` are names, without regard to case; None takes all. ``languages``
    are those that CLD2 told. Other arguments are as for :func:`posts`.
    """
    wanted = {name.lower() for name in subreddits or ()}
    columns = {"text": "body", "id": "id", "date": "created_utc", "author": "author"}

    def is_taken(row: Mapping[str, Any]) -> bool:
        is_wanted = not wanted or str(row.get("subreddit")).lower() in wanted
        return is_wanted and row.get("language", "en") in languages and row["body"] not in ("[deleted]", "[removed]")

    corpus = _Corpus("Reddit Politosphere", licence, columns, max_characters, bad_rows, limit)
    return _posts(corpus, _file_rows(data_files, "json"), is_taken)


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

    ``data_files`` is a path or glob; ``replies=True`` takes replies too. Other arguments are as for :func:`posts`.
    """
    columns = {"text": "text", "id": "id", "date": "timestamp", "author": None}
    columns |= {"is_retruth": "is_retruth", "is_reply": "is_reply"}

    def is_taken(row: Mapping[str, Any]) -> bool:
        return row["is_retruth"] != "t" and (replies or row["is_reply"] != "t")

    corpus = _Corpus("Truth Social", licence, columns, max_characters, bad_rows, limit)
    return _posts(corpus, _file_rows(data_files, "tsv", quoted=False), is_taken)


def _file_rows(pattern: str, kind: str | None = None, quoted: bool = True) -> Iterator[tuple[str, dict | BadRow]]:
    """Yield file and number of each row, as messages should name it, with its columns or what is wrong with it."""
    for path in matching_files(pattern):
        number = 0
        for row in scan_records(path, kind, quoted=quoted):
            number, content = (row.number, row) if isinstance(row, BadRow) else row
            yield f"{path} row {number}", content
        if not number:
            raise ValueError(f"{path}: no rows; give a file with at least one row")


def _posts(
    corpus: _Corpus,
    rows: Iterable[tuple[str, dict[str, Any] | BadRow]],
    is_taken: Callable[[Mapping[str, Any]], bool] = lambda row: True,
) -> Iterator[dict[str, Any]]:
    if corpus.bad_rows not in BAD_ROWS:
        raise ValueError(f"bad_rows={corpus.bad_rows!r}; use one of {', '.join(BAD_ROWS)}")
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    n_posts = 0
    for where, row in rows:
        if corpus.limit is not None and n_posts >= corpus.limit:
            break
        if isinstance(row, BadRow):
            kind, reason = "unreadable", row.reason
        else:
            if missing := [name for name, column in corpus.columns.items() if column and column not in row]:
                needed = [f"{name}_column" for name in missing] if corpus.has_options else []
                raise ValueError(no_column(where, [str(corpus.columns[name]) for name in missing], needed, row))
            cells = {name: row[column] if column else None for name, column in corpus.columns.items()}
            kind, reason = _defect(corpus, cells, seen)
            if not kind and is_taken(row):
                n_posts += 1
                names = [str(cells["author"])] if cells["author"] else []
                source = {"dataset": corpus.dataset, "licence": corpus.licence}
                yield {"text": cells["text"], **source, "date": _date(cells["date"]), "names": names}
                continue
        if reason and corpus.bad_rows == "error":
            raise ValueError(f"{where}: {reason}. Mend it, or set bad_rows=skip to leave such rows out, counted")
        left_out[kind or "not asked for"] += 1
    if left_out:
        _log.warning("%s: took %d posts, left out %s", corpus.dataset, n_posts, dict(left_out.most_common()))


def _defect(corpus: _Corpus, cells: Mapping[str, Any], seen: set[str]) -> tuple[str, str]:
    """Return kind and reason of what is wrong with a row, both empty if nothing is; remembers its id."""
    text, key = cells["text"], cells["id"]
    if not isinstance(text, str) or not text.strip():
        return "no text", f"{corpus.columns['text']} is {text!r:.40}, want text"
    if len(text) > corpus.max_characters:
        return "too long", f"{len(text):,} characters, at most {corpus.max_characters:,} are taken"
    if key is not None and repr(key) in seen:  # the text: an id may be a list
        return "duplicate id", f"{corpus.columns['id']} {key!r:.60} occurs before"
    seen.add(repr(key))
    return "", ""


def _date(value: Any) -> str | None:
    """Return a date as text; seconds since 1970, as Pushshift has them, or milliseconds, as the day."""
    text = str(value or "")
    if re.fullmatch(r"\d{10}(\d{3})?", text):  # fewer digits are a year, or a day such as 20200131
        return datetime.fromtimestamp(int(text[:10]), UTC).date().isoformat()
    return text or None
