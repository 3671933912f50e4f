# SPDX-License-Identifier: MIT
"""One reviewer's answers: a file that is only ever appended to, on the disk before the next text is shown."""

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

Given = dict[str, dict[str, str]]  # item to question to answer


class Answer(NamedTuple):
    """One key pressed: an answer to a question about an item."""

    item: str
    question: str
    answer: str


def answers_path(folder: str | Path, reviewer: str) -> Path:
    """Return where the answers of a reviewer lie."""
    return Path(folder) / "answers" / f"{reviewer}.jsonl"


def read_answers(path: Path) -> tuple[list[Answer], int, int]:
    """Read what stands; answers that were undone are out.

    A last line without an end was not written whole, so the page never went on behind it: it does not count.

    Returns:
        The answers in the order given, the number of whole lines, and their bytes.

    Raises:
        ValueError: If a line is no answer; names file and line.
    """
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    answers: list[Answer] = []
    lines = whole.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if row.get("undo"):
                answers.pop()
            else:
                answers.append(Answer(row["item"], row["question"], row["answer"]))
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"{path} line {number}: no answer of a reviewer ({error!r}); restore the file") from error
    return answers, len(lines), len(whole)


def by_item(answers: list[Answer]) -> Given:
    """Return item to question to answer."""
    given: Given = {}
    for answer in answers:
        given.setdefault(answer.item, {})[answer.question] = answer.answer
    return given


class AnswerFile:
    """The answers of one reviewer, open to be appended to by one process.

    Args:
        folder: ``output_dir``.
        reviewer: Whose.

    Raises:
        RuntimeError: If another process has the file open.
        ValueError: If it holds a line that is no answer.
    """

    def __init__(self, folder: str | Path, reviewer: str) -> None:
        path = answers_path(folder, reviewer)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.reviewer = reviewer
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise RuntimeError(
                f"{path}: another run has it open; end that one, or give reviewer=NAME to both"
            ) from error
        self.answers, self.n_lines, self._n_bytes = read_answers(path)
        self._file.truncate(self._n_bytes)
        self.given = by_item(self.answers)

    def append(self, answer: Answer) -> None:
        """Write an answer; it is on the disk when this returns.

        Raises:
            OSError: If it cannot be written; the file is then as before.
        """
        self._write(answer._asdict())
        self.answers.append(answer)
        self.given.setdefault(answer.item, {})[answer.question] = answer.answer

    def undo(self) -> None:
        """Take back the last answer, if there is one."""
        if self.answers:
            self._write({"undo": True})
            self.answers.pop()
            self.given = by_item(self.answers)

    def close(self) -> None:
        """Let another process have the file."""
        self._file.close()

    def _write(self, row: dict) -> None:
        time = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({**row, "reviewer": self.reviewer, "time": time}).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError("no space left on the device")
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._n_bytes)
            raise
        self.n_lines, self._n_bytes = self.n_lines + 1, self._n_bytes + len(line)
