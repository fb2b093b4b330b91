"""Small data sets in the layouts that people have on disk."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def batch(name: str, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """(pixels uint8 (count, 3072), labels uint8 (count,)) that differ from batch to batch."""
    rng = np.random.default_rng(BATCHES.index(name))
    return rng.integers(0, 256, (count, 3072), np.uint8), rng.integers(0, 10, count, np.uint8)


def write_binary(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for name in BATCHES:
        x, y = batch(name)
        np.concatenate([y[:, None], x], axis=1).tofile(folder / f"{name}.bin")
    return folder


def write_python(root: Path, protocol: int = 2, **changes: Any) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in BATCHES:
        x, y = batch(name)
        content = {"batch_label": name.encode(), "labels": y.tolist(), "data": x, **changes}
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    meta = {"label_names": [f"class {i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol))
    return folder


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for stem, count in (("train", 7), ("t10k", 4)):
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (count, 28, 28), np.uint8)))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(rng.integers(0, 10, count, np.uint8)))
    return folder
