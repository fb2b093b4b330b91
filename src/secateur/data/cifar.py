"""CIFAR-10 and CIFAR-100, in the binary layout or as the Python files.

Format: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009: a record is one label byte
(CIFAR-100: coarse, then fine) and 3,072 bytes (channel, row, column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur._errors import DataError
from secateur.data.array_pickle import read_arrays
from secateur.data.places import data_folder, find, read
from secateur.data.splits import DataSplits, TensorSplit, check_labels

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Known:
    binary: str
    train: tuple[str, ...]
    test: str
    names: str
    python: str
    python_train: tuple[str, ...]
    python_test: str
    python_names: str
    labels: str
    label_names: str
    label_bytes: int
    records: tuple[int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
KNOWN = {
    "cifar10": _Known(
        binary="cifar-10-batches-bin",
        train=tuple(f"{batch}.bin" for batch in _BATCHES),
        test="test_batch.bin",
        names="batches.meta.txt",
        python="cifar-10-batches-py",
        python_train=_BATCHES,
        python_test="test_batch",
        python_names="batches.meta",
        labels="labels",
        label_names="label_names",
        label_bytes=1,
        records=(10_000, 10_000),
        num_classes=10,
        # The published CIFAR-10 weights were trained with ImageNet's figures.
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    "cifar100": _Known(
        binary="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        names="fine_label_names.txt",
        python="cifar-100-python",
        python_train=("train",),
        python_test="test",
        python_names="meta",
        labels="fine_labels",
        label_names="fine_label_names",
        label_bytes=2,
        records=(50_000, 10_000),
        num_classes=100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    ),
}
_CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar(name: str, data_dir: str | Path | None) -> DataSplits:
    """``"cifar10"`` or ``"cifar100"``: 32x32 colour images; CIFAR-100 with its fine labels.

    Files of fewer whole images than the original's are taken as they are.

    Raises:
        DataError: files are missing, cut short, refused, or their labels are out of range.
    """
    known, root = KNOWN[name], data_folder(data_dir)
    binary = [[file] for file in (*known.train, known.test)]
    python = [[file] for file in (*known.python_train, known.python_test)]
    layouts: list[tuple[Path, Sequence[Sequence[str]]]] = [
        (root / known.binary, binary),
        (root / known.python, python),
        (root, binary),
        (root, python),
    ]
    position, files = find(name, layouts)
    is_binary, source = position in (0, 2), {}
    reader = _binary if is_binary else _python
    parts = [reader(path, known, source, known.records[path == files[-1]]) for path in files]
    train = TensorSplit(
        torch.cat([x for x, _ in parts[:-1]]), torch.cat([y for _, y in parts[:-1]]), known.mean, known.std
    )
    test = TensorSplit(*parts[-1], known.mean, known.std)
    names = _class_names(files[0].parent, known, is_binary, source)
    return DataSplits(name, train, test, known.num_classes, names, SHAPE, known.mean, known.std, "crop-flip", source)


def _binary(path: Path, known: _Known, source: dict[str, str], records: int) -> tuple[Tensor, Tensor]:
    raw, size = read(path, source), known.label_bytes + PIXELS
    if len(raw) % size or not raw:
        raise DataError(
            f"'{path}' is cut short: {records * size:,} bytes expected ({records:,} images of {size:,} bytes), "
            f"{len(raw):,} found\nfetch the file again"
        )
    table = torch.from_numpy(np.frombuffer(raw, np.uint8).copy().reshape(-1, size))
    labels = table[:, known.label_bytes - 1].long()
    check_labels(labels, known.num_classes, f"'{path}'")
    return table[:, known.label_bytes :].reshape(-1, *SHAPE), labels


def _python(path: Path, known: _Known, source: dict[str, str], records: int) -> tuple[Tensor, Tensor]:
    content = read_arrays(read(path, source), path)
    missing = [key for key in ("data", known.labels) if key not in content]
    if missing:
        raise DataError(f"'{path}' has no {' and no '.join(map(repr, missing))}: it is no batch of that data set")
    data: Any = content["data"]
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == PIXELS):
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"'{path}': 'data' is {found}, expected uint8 ({records:,}, {PIXELS:,})")
    try:
        labels = torch.tensor([int(label) for label in content[known.labels]], dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"'{path}': {known.labels!r} is not a list of integers: {error}") from None
    if len(labels) != len(data):
        raise DataError(f"'{path}' is cut short: {len(data):,} images, but {len(labels):,} labels")
    check_labels(labels, known.num_classes, f"'{path}'")
    return torch.from_numpy(np.ascontiguousarray(data).copy()).reshape(-1, *SHAPE), labels


def _class_names(folder: Path, known: _Known, is_binary: bool, source: dict[str, str]) -> tuple[str, ...]:
    path = folder / (known.names if is_binary else known.python_names)
    names: list[str] = []
    if path.is_file() and is_binary:
        names = read(path, source).decode("utf-8", "replace").split()
    elif path.is_file():
        names = [str(n) for n in read_arrays(read(path, source), path).get(known.label_names, [])]
    if len(names) == known.num_classes:
        return tuple(names)
    return _CIFAR10_NAMES if known.num_classes == 10 else tuple(str(i) for i in range(known.num_classes))
