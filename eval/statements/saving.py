# SPDX-License-Identifier: MIT
"""An instrument that an importer wrote is kept only if it can be loaded where it is to lie."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from data.recipe.files import write_whole
from eval.statements.instruments import Instrument, load_instrument

BESIDE = (".propositions.json", ".populations.yaml")  # ends of the names of files that are read with an instrument


def write_instrument(path: Path, content: str) -> Instrument:
    """Write a new instrument, after a trial in a folder of its own, and return it.

    Raises:
        FileExistsError: If another one is there.
        ValueError: If it could not be loaded there, with the propositions and populations that lie beside it.
    """
    if path.is_file() and path.read_text(encoding="utf-8") != content:
        raise FileExistsError(f"{path} is there, and is another one; choose another output_dir, or delete that file")
    with TemporaryDirectory() as trial:
        for beside in (path.with_suffix(suffix) for suffix in BESIDE):
            if beside.is_file():
                shutil.copy(beside, trial)
        write_whole(Path(trial) / path.name, content)
        try:
            loaded = load_instrument(str(Path(trial) / path.name))
        except ValueError as error:
            raise ValueError(f"nothing written: {str(error).replace(trial, str(path.parent))}") from error
    write_whole(path, content)
    return loaded
