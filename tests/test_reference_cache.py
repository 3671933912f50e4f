# SPDX-License-Identifier: MIT
import importlib
import multiprocessing
import sys

import pytest
import torch

from data.pairs.tokens import Continuation
from finetune.run.reference_cache import ReferenceCache, hash_base

A = Continuation([1, 2, 3, 4], [-100, -100, 3, 4])
B = Continuation([1, 2, 5], [-100, -100, 5])
BASE = {"w": torch.arange(6.0).reshape(2, 3), "v": torch.ones(2)}
SETTINGS = {"_component_": "m", "dtype": "torch.float32", "device": "cpu"}


def test_found_again_from_disk_and_from_the_other_side(tmp_path):
    ReferenceCache(tmp_path, "base").put(A, B, (-1.5, -2.5))
    cache = ReferenceCache(tmp_path, "base")
    assert cache.get(A, B) == (-1.5, -2.5)
    assert cache.get(B, A) == (-2.5, -1.5)  # the mirrored run shares the record
    assert len(cache) == 1


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (A._replace(tokens=[1, 2, 3, 9]), B),  # another text
        (A._replace(labels=[-100, 2, 3, 4]), B),  # another template or mask
        (Continuation(A.tokens[:3], A.labels[:3]), B),  # another length
        (A, Continuation([1, 2, 6], [-100, -100, 6])),  # another partner: its forward would be another
    ],
)
def test_any_change_of_a_pair_misses(tmp_path, chosen, rejected):
    cache = ReferenceCache(tmp_path, "base")
    cache.put(A, B, (-1.5, -2.5))
    assert cache.get(chosen, rejected) is None


def test_any_change_of_the_base_changes_its_hash():
    hashes = {hash_base(BASE, SETTINGS)}
    assert hash_base(dict(reversed(BASE.items())), SETTINGS) in hashes  # order does not matter
    nudged = BASE["w"].clone()
    nudged[1, 2] = torch.nextafter(nudged[1, 2], torch.tensor(9.0))
    for state, settings in [
        (BASE | {"w": nudged}, SETTINGS),
        (BASE | {"w": BASE["w"].bfloat16()}, SETTINGS),
        (BASE | {"w": BASE["w"].reshape(3, 2)}, SETTINGS),
        ({"u": BASE["w"], "v": BASE["v"]}, SETTINGS),
        (BASE, SETTINGS | {"dtype": "torch.bfloat16"}),
        (BASE, SETTINGS | {"rope_base": 10_000}),
    ]:
        hashes.add(hash_base(state, settings))
    assert len(hashes) == 7


def test_torn_and_damaged_records_are_not_used(tmp_path):
    cache = ReferenceCache(tmp_path, "base")
    cache.put(A, B, (-1.5, -2.5))
    cache.put(A, A._replace(tokens=[1, 2, 3, 7]), (-3.0, -4.0))
    path = tmp_path / "base.bin"
    raw = path.read_bytes()
    path.write_bytes(raw[:-5])  # killed while the second record was written
    again = ReferenceCache(tmp_path, "base")
    assert len(again) == 1
    again.put(B, B._replace(tokens=[1, 2, 8]), (-5.0, -6.0))
    assert len(ReferenceCache(tmp_path, "base")) == 2  # aligned again
    path.write_bytes(raw[:17] + b"\xff" + raw[18:])  # a flipped byte in the first value
    assert ReferenceCache(tmp_path, "base").get(A, B) is None


def _put_many(folder, start):
    cache = ReferenceCache(folder, "base")
    for k in range(start, start + 50):
        cache.put(Continuation([k, 1], [-100, 1]), Continuation([k, 2], [-100, 2]), (-float(k), -1.0))


def test_two_processes_write_one_file(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_put_many, args=(tmp_path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(ReferenceCache(tmp_path, "base")) == 100


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = ReferenceCache(None, "base")
    cache.put(A, B, (-1.0, -2.0))
    assert cache.get(A, B) == (-1.0, -2.0)
    assert list(tmp_path.iterdir()) == []


def test_without_locks_the_module_loads_and_says_what_is_missing(tmp_path, monkeypatch):
    """As on Windows, which has no fcntl."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delitem(sys.modules, "finetune.run.reference_cache")
    cache = importlib.import_module("finetune.run.reference_cache").ReferenceCache(tmp_path, "base")
    assert cache.get(A, B) is None
    with pytest.raises(OSError, match="locks of files need Linux or macOS; on Windows use WSL"):
        cache.put(A, B, (-1.5, -2.5))
