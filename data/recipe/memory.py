# SPDX-License-Identifier: MIT
"""Memory on a CPU: kernels of old shapes and pages of a file once read are given back, freed blocks can be kept."""

import ctypes
import mmap
import os
import sys
from pathlib import Path
from typing import Any

# oneDNN makes a kernel for each shape of a product, .3 to .6 MiB of code; it and torch's bridge to it (ideep) keep a
# thousand each. A forward and backward pass takes some twenty, and no two trees have the same number of tokens.
KEPT_KERNELS = 64


def bound_kernel_caches() -> None:
    """Let a process that has multiplied nothing yet keep few kernels; what the environment says already counts."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KEPT_KERNELS))


def keep_freed_blocks() -> None:
    """Let this process keep what it frees, from now on: to get it anew in every layer took a tenth of an evaluation."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD of glibc's malloc.h
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD


class MappedFiles:
    """Where a folder's files are mapped in this process."""

    def __init__(self, folder: str | Path) -> None:
        self._libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._ranges: list[tuple[int, int]] = []
        if self._libc is None:
            return
        files = {str(path.resolve()) for path in Path(folder).iterdir()}
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, *_, file = line.split(maxsplit=5)
            if file in files:
                start, end = (int(address, 16) for address in addresses.split("-"))
                self._ranges.append((start, end - start))

    def drop_pages(self) -> None:
        """Give back what was read of them. It is read again where it is used; what was written there would be lost."""
        for start, length in self._ranges:
            self._libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
