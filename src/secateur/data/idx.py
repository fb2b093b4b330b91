"""MNIST and Fashion-MNIST: idx files, plain or gzipped, in their usual folders.

Format: LeCun, Cortes, Burges, "The MNIST database of handwritten digits": a big-endian header (magic number, sizes),
then unsigned bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secateur._errors import DataError
from secateur.data.places import data_folder, find, read
from secateur.data.splits import DataSplits, TensorSplit, check_labels

IMAGES, LABELS = 0x803, 0x801
_STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
# Some archives are unpacked with a dot where the original has a hyphen.
_FILES = tuple(
    tuple(f"{s}{e}" for s in (t, t.replace("-idx", ".idx")) for e in ("-ubyte", "-ubyte.gz")) for t in _STEMS
)


@dataclass(frozen=True)
class _Known:
    folders: tuple[str, ...]
    class_names: tuple[str, ...]
    mean: float
    std: float
    system: Path | None = None


KNOWN = {
    "mnist": _Known(("", "MNIST/raw", "mnist"), tuple("0123456789"), 0.1307, 0.3081),
    "fashion-mnist": _Known(
        ("", "FashionMNIST/raw", "fashion-mnist"),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        0.2860,
        0.3530,
        # Debian's package dataset-fashion-mnist puts it there.
        Path("/usr/share/datasets/fashion-mnist"),
    ),
}


def load_idx(name: str, data_dir: str | Path | None) -> DataSplits:
    """``"mnist"`` or ``"fashion-mnist"``: 28x28 grey images, ten classes.

    Raises:
        DataError: files are missing, cut short, or their labels are out of range.
    """
    known, root = KNOWN[name], data_folder(data_dir)
    folders = [root / folder for folder in known.folders]
    if data_dir is None and known.system is not None:
        folders.append(known.system)
    layouts: list[tuple[Path, Sequence[Sequence[str]]]] = [(folder, _FILES) for folder in folders]
    _, files = find(name, layouts)
    source: dict[str, str] = {}
    mean, std = (known.mean,), (known.std,)
    train, test = (
        TensorSplit(*_pair(images, labels, len(known.class_names), source), mean, std)
        for images, labels in (files[:2], files[2:])
    )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f"{name!r}: training images are {_size(train)}, test images {_size(test)}")
    shape = tuple(train.images.shape[1:])
    return DataSplits(name, train, test, len(known.class_names), known.class_names, shape, mean, std, "none", source)


def _pair(images: Path, labels: Path, num_classes: int, source: dict[str, str]) -> tuple[Tensor, Tensor]:
    x = _array(images, IMAGES, 3, source)
    y = _array(labels, LABELS, 1, source).long()
    if len(x) != len(y):
        raise DataError(f"'{images}' has {len(x):,} images, but '{labels}' {len(y):,} labels")
    check_labels(y, num_classes, f"'{labels}'")
    return x.unsqueeze(1), y


def _array(path: Path, magic: int, axes: int, source: dict[str, str]) -> Tensor:
    raw = read(path, source)
    header = 4 + 4 * axes
    if len(raw) < header:
        raise DataError(f"'{path}' is cut short: {header} bytes of header expected, {len(raw)} found")
    found, *sizes = struct.unpack(f">{1 + axes}I", raw[:header])
    if found != magic:
        raise DataError(f"'{path}' is not an idx file of that kind: it starts with {found:#x}, not {magic:#x}")
    expected = header + math.prod(sizes)
    if len(raw) != expected:
        fault = "is cut short" if len(raw) < expected else "is too long"
        raise DataError(
            f"'{path}' {fault}: {expected:,} bytes expected by its header, {len(raw):,} found\nfetch the file again"
        )
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=header).copy().reshape(sizes))


def _size(split: TensorSplit) -> str:
    return "x".join(str(n) for n in split.images.shape[2:])
