# SPDX-License-Identifier: MIT
"""Memory is given back: pages of files that were read, kernels of shapes that were multiplied."""

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPO, fork
from safetensors.torch import load_file, save_file

from data.recipe.memory import KEPT_KERNELS, MappedFiles, bound_kernel_caches, keep_freed_blocks
from finetune.run.bases import take_weights

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="madvise and /proc")
MIB = 2**20


FILES = ("RssFile", "RssShmem")  # the second where the folder is a tmpfs


def resident(*kinds: str) -> float:
    """MiB of these kinds that are resident in this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in kinds) / 1024


def _freed_blocks() -> None:
    def left() -> float:
        """MiB that stay resident of 64 that were freed."""
        before = resident("RssAnon")
        torch.ones(16 * MIB)
        return resident("RssAnon") - before

    libc = ctypes.CDLL(None)
    for setting in (-1, -3):  # a recipe of another test may have set them in this process
        libc.mallopt(setting, 128 * 1024)
    libc.malloc_trim(0)
    assert left() < 16
    keep_freed_blocks()
    assert left() > 48


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_blocks_are_kept():
    process = fork(_freed_blocks)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_pages_of_a_mapped_file_go_back_and_are_read_again(tmp_path):
    blobs, folder = tmp_path / "blobs", tmp_path / "folder"
    blobs.mkdir()
    folder.mkdir()
    values = torch.arange(8 * MIB, dtype=torch.float32)
    save_file({"values": values}, blobs / "content")
    (folder / "model.safetensors").symlink_to(blobs / "content")  # as in the cache of the Hub
    read = load_file(folder / "model.safetensors")["values"]
    files, before = MappedFiles(folder), resident(*FILES)
    assert torch.equal(read, values)
    after = resident(*FILES)
    assert after - before > 30
    files.drop_pages(read)
    assert resident(*FILES) < after - 30
    assert torch.equal(read, values)


def test_what_takes_the_place_of_an_unmapped_file_is_left_alone(tmp_path):
    weights = {}
    for k in (1, 2):  # each tensor is a file, and larger than what malloc keeps in its heap
        save_file({f"w{k}": torch.full((10 * MIB,), k, dtype=torch.float32)}, tmp_path / f"{k}.safetensors")
        weights |= load_file(tmp_path / f"{k}.safetensors")
    files = MappedFiles(tmp_path)
    loaded = {name: weight.double() for name, weight in take_weights(weights, files)}
    assert {name: weight.unique().tolist() for name, weight in loaded.items()} == {"w1": [1.0], "w2": [2.0]}


KERNELS = """
import torch
from data.recipe import memory

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

memory.KEPT_KERNELS = n_kept = 32
memory.bound_kernel_caches()
torch.set_num_threads(1)
weight, sizes = torch.ones(1536, 64), []
for n in range(40, 40 + 3 * n_kept):
    torch.ops.mkldnn._linear_pointwise(torch.ones(n, 64), weight, None, "none", [], "")
    sizes.append(resident())
print(sizes[n_kept] - sizes[0], sizes[-1] - sizes[n_kept])
"""


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available(),
    reason="kernels that oneDNN writes for x86",
)
def test_kernels_of_shapes_no_longer_used_go(monkeypatch):
    # a process of its own: the size of these caches is read once
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "262144")  # freed kernels leave no holes in the heap
    done = subprocess.run([sys.executable, "-c", KERNELS], capture_output=True, check=True)
    of_the_kept, of_twice_as_many_more = map(int, done.stdout.split())
    assert of_twice_as_many_more < of_the_kept  # without a bound about twice as much


def test_what_the_environment_says_of_kernels_counts(monkeypatch):
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")  # so that what is set is taken back afterwards
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    bound_kernel_caches()
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == str(KEPT_KERNELS)
