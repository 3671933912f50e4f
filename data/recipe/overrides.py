# SPDX-License-Identifier: MIT
"""Changes of a config file as torchtune's command line makes them: keys that ``~key`` takes out, and values."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchtune.config._utils import _remove_key_by_dotpath


class Changes:
    """A config file, and what is another in it, layer by layer.

    The values of a layer replace those of the file and of the layers before. A key that begins with ``~`` and is null
    takes a key out of them: ``loss: {~beta: null}``, like ``~loss.beta: null``, is ``~loss.beta`` of the command line.
    A text where the file has a component is the component's name, as there.
    """

    def __init__(self, path: str) -> None:
        self._file: Any = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(self._file, dict):
            raise ValueError(f"{path} holds no mapping; give a config, with lines `key: value`")
        self._removed: list[str] = []  # of the file
        self._taken: set[str] = set()  # of the file or of a layer
        self.values: dict[str, Any] = {}

    def add(self, layer: Any, name: str) -> None:
        """Lay one more layer over the others.

        Args:
            layer: A mapping, or a part of a config, whose ``${...}`` are those of that config.
            name: What messages call it.

        Raises:
            ValueError: If a key to be taken out has a value, is a component, or is not there.
        """
        values: Any = OmegaConf.to_container(layer, resolve=True) if OmegaConf.is_config(layer) else layer
        for key, value in _take_marked(values):
            if value is not None:
                raise ValueError(f"{name}: ~{key} takes the key out, and has the value {value}; write `~{key}: null`")
            found = [_has_removed(part, key) for part in (self._file, self.values)]
            if not any(found) and key not in self._taken:
                raise ValueError(
                    f"{name}: ~{key}: there is no {key} to take out (a component is switched off by `{key}: null`)"
                )
            self._taken.add(key)
            if found[0]:
                self._removed.append(key)
        for key, value in values.items():
            before = [part[key] for part in (self._file, self.values) if isinstance(part.get(key), dict)]
            if isinstance(value, str) and any("_component_" in part for part in before):
                values[key] = {"_component_": value}
        self.values = _merged(self.values, values)

    def config(self) -> DictConfig:
        """Return the file with all changes."""
        return OmegaConf.create(_merged(self._file, self.values))

    def overrides(self) -> list[str]:
        """Return the changes as a command line takes them; one that it cannot take is a ValueError."""
        values = [*as_overrides(self.values)]
        if wrong := [text for text in values if text.count("=") > 1]:
            raise ValueError(
                f"{wrong[0]}: torchtune's command line takes no = in a value; write it into a config of your own, and "
                "name that as models.NAME.train.config"
            )
        return [*(f"~{key}" for key in self._removed), *values]


def as_overrides(values: Any, prefix: str = "") -> Iterator[str]:
    """Yield ``key=value`` of every leaf of a config or mapping, as a command line takes it."""
    plain: Any = OmegaConf.to_container(values, resolve=True) if isinstance(values, DictConfig) else values
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            yield from as_overrides(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            yield f"{prefix}{key}={text}"


def _merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return one mapping with another over it, as OmegaConf merges them."""
    both = {key: _merged(values[key], more[key]) for key in more if _is_mapping(values.get(key), more[key])}
    return {**values, **more, **both}


def _is_mapping(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def _take_marked(values: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    """Take all that is behind a ``~`` out of a mapping; return each key's whole path, without it, and value."""
    taken = []
    for key, value in [*values.items()]:
        parts = (*path, str(key))
        is_marked = any(part.startswith("~") for part in parts)
        if isinstance(value, dict) and value:
            taken += _take_marked(value, parts)
            if not value:  # nothing is left in it
                del values[key]
        elif is_marked:
            taken.append((".".join(part.removeprefix("~") for part in parts), value))
            del values[key]
    return taken


def _has_removed(values: dict[str, Any], key: str) -> bool:
    """Take a key out as torchtune does; return whether it was there."""
    try:
        _remove_key_by_dotpath(values, key)
    except (KeyError, TypeError, ValueError):  # not there, below what is no mapping, a component
        return False
    return True
