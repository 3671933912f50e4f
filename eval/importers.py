# SPDX-License-Identifier: MIT
"""Importers: files in other forms become the mapping that an instrument's YAML holds.

An importer reads bytes and returns that mapping; ``eval.instruments`` validates it like any other.
"""

import csv
import io
import logging
import random
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

TWINVIEWS_COLUMNS = {"left": "l", "right": "r", "topic": "topic"}


def read_pairs_csv(
    file: str,
    content: bytes,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Read a CSV of opposed statements, one pair a row, as an instrument of pairs only.

    Args:
        file: Name of the file, for messages and for the instrument's name.
        content: Its bytes, UTF-8.
        columns: Which column holds ``left``, ``right`` and ``topic``; None: ``l``, ``r``, ``topic`` as in
            TwinViews (Fulay et al. 2024, arXiv 2409.05283).
        limit: How many rows to draw without replacement; None takes all.
        seed: Decides which rows ``limit`` draws.

    Raises:
        ValueError: If a column is missing, or a row has an empty field or two equal statements.
    """
    columns = {**TWINVIEWS_COLUMNS, **(columns or {})}
    if unknown := set(columns) - set(TWINVIEWS_COLUMNS):
        allowed = sorted(TWINVIEWS_COLUMNS)
        raise ValueError(f"instrument_columns: unknown {sorted(unknown)}; allowed {allowed}")
    reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    found = reader.fieldnames or []
    if missing := [column for column in columns.values() if column not in found]:
        raise ValueError(
            f"{file}: no column {missing}; found {found}; say which columns hold the statements, "
            f"such as instrument_columns.left=NAME"
        )
    pairs = []
    for number, row in enumerate(reader, start=1):
        pair = {field: (row[column] or "").strip() for field, column in columns.items()}
        if not all(pair.values()) or pair["left"] == pair["right"]:
            raise ValueError(f"{file}: data row {number}: {pair}; give a topic and two different statements")
        pairs.append({"id": f"row-{number}", **pair})
    n_rows = len(pairs)
    if limit is not None:
        if not 1 <= limit <= n_rows:
            raise ValueError(f"{file}: instrument_limit={limit}; use 1 to {n_rows} rows, or null")
        pairs = [pairs[i] for i in sorted(random.Random(seed).sample(range(n_rows), limit))]
    log.info("%s: %d of %d pairs taken (limit %s, seed %s)", file, len(pairs), n_rows, limit, seed)
    return {
        "name": file.rsplit("/", 1)[-1].removesuffix(".csv"),
        "version": "unversioned",
        "licence": "as the file's",
        "language": "en",
        "source": file,
        "pairs": pairs,
    }
