# SPDX-License-Identifier: MIT
"""Stages of a pipeline as datatrove runs them: documents in JSON Lines, each stage in a folder that says its settings.

A stage that is complete is skipped, an interrupted one goes on with the tasks that are left. One whose settings, or
those of a stage before it, have changed is done again from the start.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from data.recipe.files import to_jsonl, write_whole
from data.synthesis.blocks import (
    BaseFilter,
    DiskWriter,
    Document,
    DocumentsPipeline,
    PipelineExecutor,
    PipelineStep,
    logger,
)

Executor = Callable[..., PipelineExecutor]
REJECTED = "rejected"  # key of a document that is out: {stage, reason, found}


class StageReader(PipelineStep):
    """Read the documents of a finished stage, each by one task.

    datatrove's own reader passes over a line that it cannot read; this one stops at it.
    """

    type = "📖 - READER"
    name = "stage"

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = str(folder)

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield this task's documents: whole files where there are enough of them, else every n-th line."""
        paths = sorted(Path(self.folder).glob("*.jsonl"))
        whole = len(paths) >= world_size
        for number, document in enumerate(read_documents(paths[rank::world_size] if whole else paths)):
            if whole or number % world_size == rank:
                yield document

    def count(self, world_size: int) -> int:
        """About how many documents a task gets, for the time left."""
        return sum(path.read_bytes().count(b"\n") for path in Path(self.folder).glob("*.jsonl")) // world_size


def read_documents(paths: Sequence[Path]) -> Iterator[Document]:
    """Yield the documents of files.

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


class StageWriter(DiskWriter):
    """Write documents as JSON Lines, a file a task; the same documents give the same bytes."""

    default_output_filename = "${rank}.jsonl"
    name = "stage"

    def __init__(self, folder: str | Path) -> None:
        super().__init__(str(folder), compression=None)

    def _write(self, document: dict[str, Any], file_handler: IO, _filename: str) -> None:
        document.pop("media", None)
        file_handler.write(json.dumps(document, ensure_ascii=False, sort_keys=True) + "\n")


class Kept(BaseFilter):
    """Let documents through that nothing has rejected; the others go to a file of their own, with the reason."""

    name = "kept"

    def __init__(self, folder: str | Path) -> None:
        super().__init__(StageWriter(Path(folder) / REJECTED))
        self.folder = str(folder)

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Let this task's documents through; what an interrupted try of it has left is removed first."""
        for folder in (Path(self.folder), Path(self.folder) / REJECTED):
            (folder / f"{rank:05d}.jsonl").unlink(missing_ok=True)
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Say whether a document stays."""
        rejected = doc.metadata.get(REJECTED)
        return (False, rejected["reason"]) if rejected else True


def reject(document: Document, stage: str, reason: str, found: str = "") -> Document:
    """Mark a document as out; the first reason stands."""
    document.metadata.setdefault(REJECTED, {"stage": stage, "reason": reason, "found": found})
    return document


class Stage(NamedTuple):
    """A stage.

    Attributes:
        folder: Its documents lie in ``*.jsonl``, what it rejected in ``rejected/``.
        steps: A reader first.
        settings: All that its outcome depends on, beside the stages before it.
        tasks: Parts that the documents are cut into; 1 for a step that must see them all.
    """

    folder: Path
    steps: Sequence[PipelineStep]
    settings: Mapping[str, Any]
    tasks: int


def run_stages(stages: Sequence[Stage], executor: Executor) -> bool:
    """Run what is not done yet, and return whether all is done now (Slurm only takes the jobs).

    Args:
        stages: In order.
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
        if not _is_done(stage, mark):
            _renew(stage, mark)
            own = {"depends": before} if submits and before else {}
            steps = [*stage.steps, Kept(stage.folder), StageWriter(stage.folder)]
            before = executor(steps, tasks=stage.tasks, logging_dir=str(stage.folder / "logs"), **own)
            before.run()
            failed = [] if submits else before.get_incomplete_ranks()
            if failed:
                raise RuntimeError(
                    f"{stage.folder}: tasks {failed} failed, see {stage.folder / 'logs'}. Start the same command "
                    "again to go on: what is done and every answered call is kept"
                )
    return all(map(_is_done, stages, marks))


def forget_texts(folders: Sequence[Path], marker: Path) -> None:
    """Take the texts out of all files of these folders, and leave a marker that says so."""
    if marker.is_file():
        return
    for path in sorted(path for folder in folders for path in folder.rglob("*.jsonl")):
        documents = [{**json.loads(line), "text": ""} for line in path.open(encoding="utf-8")]
        write_whole(path, to_jsonl(documents).encode())
    write_whole(marker, b"The posts were removed when the data set was complete (store_posts: false).\n")


def remember_texts(stages: Sequence[Stage], marker: Path) -> None:
    """If one of these stages must run and the texts are gone, clear them all: they are made again from the sources."""
    if marker.is_file() and not all(map(_is_done, stages, _marks(stages))):
        for stage in stages:
            shutil.rmtree(stage.folder, ignore_errors=True)
        marker.unlink()


def _marks(stages: Sequence[Stage]) -> list[bytes]:
    """What ``settings.json`` of each stage must hold: its settings and the hash of all before."""
    marks, digest = [], None
    for stage in stages:
        content = {**stage.settings, "tasks": stage.tasks, "before_sha256": digest}
        marks.append((json.dumps(content, sort_keys=True, indent=1) + "\n").encode())
        digest = hashlib.sha256(marks[-1]).hexdigest()
    return marks


def _is_done(stage: Stage, mark: bytes) -> bool:
    path = stage.folder / "settings.json"
    n_done = sum(1 for _ in (stage.folder / "logs" / "completions").glob("*"))
    return path.is_file() and path.read_bytes() == mark and n_done == stage.tasks


def _renew(stage: Stage, mark: bytes) -> None:
    """Clear a stage that was made under other settings."""
    path = stage.folder / "settings.json"
    if not path.is_file() or path.read_bytes() != mark:
        shutil.rmtree(stage.folder, ignore_errors=True)
        stage.folder.mkdir(parents=True)
        write_whole(path, mark)
