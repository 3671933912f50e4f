# SPDX-License-Identifier: MIT
"""Stages of a pipeline as datatrove runs them: documents in JSON Lines, each stage in a folder that says its settings.

A stage that is complete is skipped, an interrupted one goes on with the tasks that are left. One whose settings, or
those of a stage before it, have changed is done again from the start.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.recipe.files import to_jsonl, write_whole

try:
    from datatrove.data import Document, DocumentsPipeline
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from loguru import logger
except ImportError as error:
    raise ImportError('synthesis needs datatrove: pip install -c constraints.txt -e ".[synthesis]"') from error

Executor = Callable[..., PipelineExecutor]
REJECTED = "rejected"  # key of a document that is out, and the folder of those: {stage, reason, found}


class Stage(NamedTuple):
    """A stage of a pipeline.

    Attributes:
        folder: Its documents lie in ``*.jsonl``, those that it rejected in ``rejected/``.
        steps: The first one reads or makes the documents.
        settings: All that its outcome depends on, beside the stages before it.
        tasks: Parts that the documents are cut into; 1 if a step must see them all.
        posts: Pattern of its files in which the text of a document is a post; None if there are none.
    """

    folder: Path
    steps: Sequence[PipelineStep]
    settings: Mapping[str, Any]
    tasks: int = 1
    posts: str | None = None


def reject(document: Document, stage: str, reason: str, detail: str = "") -> Document:
    """Mark a document as out; the first reason stands."""
    document.metadata.setdefault(REJECTED, {"stage": stage, "reason": reason, "found": detail})
    return document


def kept(documents: Iterable[Document]) -> list[Document]:
    """Return the documents that nothing has rejected."""
    return [document for document in documents if REJECTED not in document.metadata]


def rejected_documents(folder: str | Path) -> Iterator[Document]:
    """Yield the documents that a finished stage has rejected."""
    return read_documents(sorted(Path(folder, REJECTED).glob("*.jsonl")))


def read_documents(paths: Iterable[Path]) -> Iterator[Document]:
    """Yield the documents of files.

    datatrove's own reader passes over a line that it cannot read; this one stops at it.

    Raises:
        ValueError: If a line is no document; names file and line.
    """
    for path in paths:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield Document(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise ValueError(
                        f"{path} line {number} is no document of a stage ({error}); delete the folder "
                        f"{path.parent} and start the same command again: answered calls are not repeated"
                    ) from error


class StageReader(PipelineStep):
    """Read the documents of a finished stage, each by one task."""

    type = "📖 - READER"
    name = "stage"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield this task's documents: whole files if there are enough of them, else every n-th line."""
        paths = sorted(self.folder.glob("*.jsonl"))
        if len(paths) >= world_size:
            yield from read_documents(paths[rank::world_size])
        else:
            yield from (doc for n, doc in enumerate(read_documents(paths)) if n % world_size == rank)

    def count(self, world_size: int) -> int:
        """Return about how many documents a task gets, for the time left."""
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob("*.jsonl")) // world_size


class StageStep(PipelineStep):
    """Run a function on all documents of a stage at once; the stage has one task."""

    type = "🔻 - FILTER"

    def __init__(self, name: str, function: Callable[[list[Document]], Iterable[Document]]) -> None:
        self.name, self.function = name, function
        super().__init__()

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield the documents that the function returns."""
        yield from self.function(list(data))


class StageWriter(PipelineStep):
    """Write documents as JSON Lines, a file for each task; the same documents give the same bytes.

    Those that something has rejected go to a file of their own, and no further.
    """

    type = "💽 - WRITER"
    name = "stage"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Write this task's documents over those of an interrupted try, and yield those that stay."""
        paths = [folder / f"{rank:05d}.jsonl" for folder in (self.folder, self.folder / REJECTED)]
        paths[1].parent.mkdir(parents=True, exist_ok=True)
        with paths[0].open("w", encoding="utf-8") as file, paths[1].open("w", encoding="utf-8") as rejected_file:
            for document in data:
                is_rejected = REJECTED in document.metadata
                row = {"text": document.text, "id": document.id, "metadata": document.metadata}
                line = json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n"
                (rejected_file if is_rejected else file).write(line)
                self.stat_update("rejected" if is_rejected else "kept")
                if not is_rejected:
                    yield document


def run_stages(stages: Sequence[Stage], executor: Executor) -> bool:
    """Run the stages that are not done yet, and return whether all are done now (Slurm only takes the jobs).

    Args:
        stages: All of them, in order.
        executor: A datatrove executor that lacks ``pipeline``, ``tasks`` and ``logging_dir``.

    Raises:
        RuntimeError: If a task failed where others went on.
    """
    logger.disable("datatrove")  # some ten lines a task; its workers still write theirs into logs/
    # A traceback with the values of variables would put posts into the logs; workers inherit this.
    os.environ["LOGURU_DIAGNOSE"] = "NO"
    submits = "Slurm" in getattr(executor, "func", executor).__name__
    marks = _marks(stages)
    before = None
    for stage, mark in zip(stages, marks):
        if _is_done(stage, mark):
            continue
        if not _has_mark(stage, mark):  # made under other settings, or not at all
            shutil.rmtree(stage.folder, ignore_errors=True)
            write_whole(stage.folder / "settings.json", mark)
        depends: dict[str, Any] = {"depends": before} if submits and before else {}
        steps = [*stage.steps, StageWriter(stage.folder)]
        before = executor(steps, tasks=stage.tasks, logging_dir=str(stage.folder / "logs"), **depends)
        before.run()
        failed = [] if submits else before.get_incomplete_ranks()
        if failed:
            raise RuntimeError(
                f"{stage.folder}: tasks {failed} failed, see {stage.folder / 'logs'}. Start the same command "
                "again to go on: what is done and every answered call is kept"
            )
    return all(map(_is_done, stages, marks))


def forget_posts(stages: Sequence[Stage], marker: Path) -> None:
    """Take the texts of posts out of the files of all stages, and leave a marker that says so."""
    if marker.is_file():
        return
    for path in [path for stage in stages if stage.posts for path in sorted(stage.folder.glob(stage.posts))]:
        documents = [{**json.loads(line), "text": ""} for line in path.open(encoding="utf-8")]
        write_whole(path, to_jsonl(documents))
    write_whole(marker, "The posts were removed when the data set was complete (store_posts: false).\n")


def remake_posts(stages: Sequence[Stage], marker: Path) -> None:
    """Clear the stages that hold posts if the posts are gone and one of them must run: the sources still have them."""
    with_posts = [stage for stage in stages if stage.posts]
    if marker.is_file() and not all(map(_is_done, with_posts, _marks(with_posts))):
        for stage in with_posts:
            shutil.rmtree(stage.folder, ignore_errors=True)
        marker.unlink()


def _marks(stages: Sequence[Stage]) -> list[bytes]:
    """Return the ``settings.json`` of each stage: its settings, and the hash of all before."""
    marks: list[bytes] = []
    for stage in stages:
        digest = hashlib.sha256(marks[-1]).hexdigest() if marks else None
        content = {**stage.settings, "tasks": stage.tasks, "before_sha256": digest}
        marks.append((json.dumps(content, sort_keys=True, indent=1) + "\n").encode())
    return marks


def _has_mark(stage: Stage, mark: bytes) -> bool:
    path = stage.folder / "settings.json"
    return path.is_file() and path.read_bytes() == mark


def _is_done(stage: Stage, mark: bytes) -> bool:
    n_done = sum(1 for _ in (stage.folder / "logs" / "completions").glob("*"))
    return _has_mark(stage, mark) and n_done == stage.tasks
