"""Data from a function in the user's own file: ``file.py:function``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur._errors import DataError, UsageError
from secateur._user_code import user_function
from secateur.data.splits import DataSplits, check_labels


@dataclass(frozen=True, eq=False)
class DatasetSplit:
    """A user's map-style data set: items are taken as they come, so mean is 0 and std is 1.

    Attributes:
        dataset: ``len(dataset)`` items, each (float tensor (C, H, W), class index).
        indices: int64 (N,), which items, in which order.
        labels: int64 (N,), of those items.
    """

    dataset: Any
    indices: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        x, y = self.dataset[int(self.indices[index])]
        return x, int(y)

    def subset(self, indices: Tensor) -> DatasetSplit:
        """Those items, in that order; ``indices`` is int64 (n,)."""
        return DatasetSplit(self.dataset, self.indices[indices], self.labels[indices], self.mean, self.std)

    def normalised(self, indices: Tensor | None = None) -> Tensor:
        """Images ``indices`` (all by default), stacked as the data set gives them."""
        wanted = range(len(self)) if indices is None else indices.tolist()
        return torch.stack([self[i][0] for i in wanted])


def load_from_file(name: str, data_dir: str | Path | None) -> DataSplits:
    """Call the function, with ``data_dir`` if it is given and accepted; it returns a DataSplits or two data sets.

    Raises:
        UnknownName: the file has no such function.
        UsageError: the file or the function fails, or returns something else.
        FileError: the file does not exist.
        DataError: items are not (tensor, class index).
    """
    function = user_function(name)
    accepts = "data_dir" in inspect.signature(function).parameters
    try:
        found = function(data_dir=data_dir) if accepts and data_dir is not None else function()
    except Exception as error:
        raise UsageError(f"{name!r} failed: {type(error).__name__}: {error}") from error
    if isinstance(found, DataSplits):
        return found
    if not (isinstance(found, tuple | list) and len(found) == 2 and all(hasattr(d, "__getitem__") for d in found)):
        raise UsageError(
            f"{name!r} returned a {type(found).__name__}\n"
            "it has to return secateur.data.DataSplits or (train data set, test data set)"
        )
    shape = _shape(name, found[0])
    labels = [_labels(name, dataset) for dataset in found]
    classes = getattr(found[0], "classes", None)
    num_classes = len(classes) if classes else 1 + max(int(y.max()) for y in labels if len(y))
    for half, y in zip(("training", "test"), labels):
        check_labels(y, num_classes, f"the {half} data of {name!r}")
    names = tuple(str(c) for c in classes) if classes else tuple(str(i) for i in range(num_classes))
    mean, std = (0.0,) * shape[0], (1.0,) * shape[0]
    train, test = (DatasetSplit(d, torch.arange(len(y)), y, mean, std) for d, y in zip(found, labels))
    source = {name: f"{len(train)} training and {len(test)} test items"}
    return DataSplits(name, train, test, num_classes, names, shape, mean, std, "none", source)


def _shape(name: str, dataset: Any) -> tuple[int, ...]:
    if not len(dataset):
        raise DataError(f"the training data of {name!r} hold no items")
    item = dataset[0]
    if not (isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Tensor)):
        raise DataError(f"items of {name!r} have to be (tensor, class index), not {type(item).__name__}")
    if not item[0].is_floating_point():
        raise DataError(
            f"images of {name!r} are {item[0].dtype}\nthey have to be floats, normalised as the model wants"
        )
    return tuple(item[0].shape)


def _labels(name: str, dataset: Any) -> Tensor:
    """torchvision's data sets keep them in ``targets``; otherwise every item is read once."""
    targets = getattr(dataset, "targets", None)
    try:
        found = targets if targets is not None else [int(dataset[i][1]) for i in range(len(dataset))]
        labels = torch.as_tensor(found, dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"labels of {name!r} have to be integers: {error}") from None
    if labels.shape != (len(dataset),):
        raise DataError(f"{name!r} has {len(dataset):,} items, but its targets have the shape {tuple(labels.shape)}")
    return labels
