# SPDX-License-Identifier: MIT
"""Data sets in the form of the Hub: repositories, read by ``datasets``, and which files of a local folder are a config.

Class labels become their names, here and in parquet files that ``datasets`` wrote.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class FolderConfig(NamedTuple):
    """One config of a local folder: the files of each split, and the features that the folder's card gives."""

    files: dict[str, list[str]]
    features: Mapping[str, Any]


def hub_rows(
    source: str,
    split: str,
    revision: str | None,
    data_files: Sequence[str] = (),
    streaming: bool = True,
    name: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Hub dataset, errors as :func:`data.pairs.rows.load_rows`; streamed rows are not kept."""
    import datasets

    origin = "/".join([source, *data_files])
    to_files = "source=FILE, or dataset.source=json dataset.data_files=PATH (or csv, parquet)"
    options = {"data_files": list(data_files) or None, "split": split, "revision": revision, "streaming": streaming}
    try:
        rows = datasets.load_dataset(source, name, **options)
        features = (rows.features or {}) and rows.features.to_dict()
        for row in rows:
            yield named_labels(row, features)
    except ConnectionError as error:
        raise ConnectionError(
            f"{origin}: cannot reach the Hugging Face Hub ({error}). Connect (and unset HF_HUB_OFFLINE) to "
            f"fetch it once with `hf download --repo-type dataset {source}`, or use local files: {to_files}"
        ) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{origin}: not found from {Path.cwd()} ({error}). Check the path or the repository's name (and "
            f"`hf auth login` if it is private); local files need {to_files}"
        ) from error
    except (datasets.exceptions.DatasetsError, ValueError) as error:
        if configs := re.search(r"available[^\[\]]*(\[.*?\])", str(error), re.IGNORECASE):
            raise ValueError(_choose(origin, name, ast.literal_eval(configs[1]))) from error
        detail = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(f"{origin}: cannot be read: {detail}. Check source, its files and split={split}") from error


def folder_config(folder: str, name: str | None, suffixes: Sequence[str]) -> FolderConfig:
    """Find the files of a config of a local folder, by its README.md or, without configs there, by the files' names.

    Only files with one of the ``suffixes`` count. A ValueError lists the configs if ``name`` is none of them, or is
    None and there are several without a default.
    """
    from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns
    from datasets.exceptions import DataFilesNotFoundError
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    if any((Path(folder) / written).is_file() for written in ("state.json", "dataset_dict.json")):
        raise ValueError(
            f"{folder}: written by save_to_disk, which only datasets reads; make a file of it: datasets.load_from_disk"
            f"('{folder}').to_parquet('NEW.parquet') (of a dict: load_from_disk('{folder}')['train'])"
        )
    card = Path(folder) / "README.md"
    data = DatasetCard.load(card).data if card.is_file() else {}
    configs = MetadataConfigs.from_dataset_card_data(data)
    name = name or configs.get_default_config_name()
    if (configs and name not in configs) or (name and not configs):
        raise ValueError(_choose(folder, name, list(configs)))
    config = configs.get(name, {})
    base = str(Path(folder) / config.get("data_dir", ""))
    try:
        patterns = sanitize_patterns(config["data_files"]) if "data_files" in config else get_data_patterns(base)
        found = DataFilesDict.from_patterns(patterns, base_path=base, allowed_extensions=list(suffixes))
    except (DataFilesNotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"{folder}: no data files ({str(error).splitlines()[0]}); name them with dataset.data_files"
        ) from error
    infos = DatasetInfosDict.from_dataset_card_data(data)
    info = infos.get(name or "default")
    return FolderConfig(
        {str(split): list(files) for split, files in found.items() if files},
        info.features.to_dict() if info and info.features else {},
    )


def _choose(origin: str, name: str | None, configs: Sequence[str]) -> str:
    """Say which configs there are."""
    if not configs:
        return f"{origin}: name={name}, but it has no configs; leave dataset.name out"
    found = "it has several configs" if name is None else f"no config {name}"
    return f"{origin}: {found}; choose one of {', '.join(configs)} (of a dataset: dataset.name={configs[0]})"


def named_labels(value: Any, feature: Any) -> Any:
    """Return a value with class labels as their names, by the feature that ``datasets`` describes it with."""
    if value is None or not isinstance(feature, list | Mapping):
        return value
    if isinstance(feature, list):
        return [named_labels(part, feature[0]) for part in value]
    kind = feature.get("_type")
    if kind == "ClassLabel":
        names = feature["names"]
        if not isinstance(value, int):
            return value
        return names[value] if 0 <= value < len(names) else None  # -1: not labelled
    if kind in ("List", "LargeList", "Sequence"):
        inner = feature["feature"]
        if isinstance(value, Mapping):  # a list of structs, as old versions turn it round
            return {key: [named_labels(x, inner.get(key)) for x in part] for key, part in value.items()}
        return [named_labels(part, inner) for part in value]
    if kind is None and isinstance(value, Mapping):
        return {key: named_labels(part, feature.get(key)) for key, part in value.items()}
    return value
