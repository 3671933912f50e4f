# SPDX-License-Identifier: MIT
"""Reference log-probabilities on disk, found by content.

The reference of LoRA DPO is the base with its adapters off: it never changes during a run, nor between the left and the
right run, nor over a sweep. The two sums of a pair are computed once (on a CPU by a forward of their own, so that they
depend on no other pair) and kept under a hash of all they depend on: the base weights, the model's settings, dtype,
device, this computation's version (the file) and the token ids and labels of both answers (the record). A changed base,
template, dtype or length never hits.

A file is a sequence of fixed-size records, appended under a lock and read through a memory map. A record that a kill
left half written fails its checksum or its length, is not used, and is overwritten.
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor

from data.pairs.tokens import Continuation
from data.recipe.files import lock

# Raise it with any change to the tree, the head or the order of the arithmetic.
COMPUTATION_VERSION, OF_BF16 = 5, 6

_RECORD = np.dtype([("key", "V16"), ("chosen", "<f4"), ("rejected", "<f4"), ("check", "<u4")])

Values = tuple[float, float]  # of chosen and rejected


def hash_base(state_dict: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """Return a hash of base weights and of the settings (model builder, dtype, device) that values depend on."""
    digest = xxhash.xxh3_128()
    version = OF_BF16 if "bfloat16" in settings["dtype"] else COMPUTATION_VERSION
    digest.update(json.dumps([version, dict(settings)], sort_keys=True).encode())
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _PairKey(NamedTuple):
    """The key of a pair's record, 16 bytes; it is the same when the two answers change places."""

    key: bytes
    rejected_first: bool

    def ordered(self, values: Values) -> Values:
        """Turn values of (chosen, rejected) into those of the record, and back."""
        return (values[1], values[0]) if self.rejected_first else values


def _hash_pair(chosen: Continuation, rejected: Continuation) -> _PairKey:
    first, second = (
        hashlib.blake2b(np.asarray([c.tokens, c.labels], dtype=np.int64).tobytes(), digest_size=16).digest()
        for c in (chosen, rejected)
    )
    both = min(first, second) + max(first, second)
    return _PairKey(hashlib.blake2b(both, digest_size=16).digest(), rejected_first=first > second)


class ReferenceCache:
    """Pairs of reference log-probabilities of one base, in memory and, if a folder is given, on disk.

    The folder holds the files of all bases; ``base`` is a hash from :func:`hash_base`.
    """

    def __init__(self, folder: str | Path | None, base: str) -> None:
        self._values: dict[bytes, Values] = {}
        self._path = None
        if folder is not None:
            self._path = Path(folder) / f"{base}.bin"
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._read(self._path)

    def _read(self, path: Path) -> None:
        n = path.stat().st_size // _RECORD.itemsize if path.exists() else 0
        for record in np.memmap(path, dtype=_RECORD, mode="r", shape=(n,)) if n else ():
            raw = record.tobytes()
            if zlib.crc32(raw[:-4]) == int(record["check"]):
                self._values[raw[:16]] = (float(record["chosen"]), float(record["rejected"]))

    def __len__(self) -> int:
        """Number of pairs known."""
        return len(self._values)

    def get(self, chosen: Continuation, rejected: Continuation) -> Values | None:
        """Return the reference log-probabilities of (chosen, rejected), or None if not known."""
        pair = _hash_pair(chosen, rejected)
        return pair.ordered(self._values[pair.key]) if pair.key in self._values else None

    def put(self, chosen: Continuation, rejected: Continuation, values: Values) -> None:
        """Remember the two values of a pair, on disk before anything uses them."""
        # a value that is not finite would stop every later run too
        if not all(math.isfinite(value) for value in values):
            raise ValueError(
                f"the base model gives an answer of {len(chosen.tokens)} and one of {len(rejected.tokens)} tokens the "
                f"log-probabilities {values}; check its weights and dtype (fp32 or bf16)"
            )
        pair = _hash_pair(chosen, rejected)
        self._values[pair.key] = pair.ordered(values)
        if self._path is None:
            return
        raw = pair.key + np.array(pair.ordered(values), dtype="<f4").tobytes()
        raw += zlib.crc32(raw).to_bytes(4, "little")
        with open(self._path, "ab") as file:
            lock(file, wait=True)
            # A kill may have left part of a record: cut it off, so that records stay aligned.
            torn = os.fstat(file.fileno()).st_size % _RECORD.itemsize
            if torn:
                os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size - torn)
            file.write(raw)
