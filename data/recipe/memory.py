# SPDX-License-Identifier: MIT
"""Memory on a CPU: kernels of old shapes and pages of a file once read are given back, freed blocks can be kept."""

import ctypes
import mmap
import os
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

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
        # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc's malloc.h; an older glibc takes no more than 32 MiB of the
        # first, and the second alone would map every block anew
        if libc.mallopt(-3, 2**30) or libc.mallopt(-3, 2**25):
            libc.mallopt(-1, 2**31 - 1)


class MappedFiles:
    """Where a folder's files are mapped in this process, once they are; what was read of them so far is given back."""

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
                self._ranges.append((start, end))
                self._drop(start, end)

    def drop_pages(self, tensor: Tensor) -> None:
        """Give back what was read of a tensor that was there from the start, if it lies in a file.

        It is read again where it is used; what was written there would be lost. The tensor is held meanwhile, since a
        file is unmapped with its last one, and something else may then lie at its address.
        """
        start, end, page = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, mmap.PAGESIZE
        if any(low <= start and end <= high for low, high in self._ranges):
            self._drop(-(-start // page) * page, end // page * page)

    def _drop(self, start: int, end: int) -> None:
        if end > start:
            self._libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
