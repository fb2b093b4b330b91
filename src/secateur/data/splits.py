"""What every data set is once it is read: a training and a test split, and what is needed to use them fairly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from secateur._errors import DataError, UsageError

Augment = Literal["none", "crop-flip", "resized-crop-flip"]


@runtime_checkable
class Split(Protocol):
    """One half of a data set: ``len(split)`` items, ``split[i]`` is (normalised float image (C, H, W), class index)."""

    @property
    def labels(self) -> Tensor:
        """int64 (N,), class indices."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, on the scale where a pixel is in [0, 1]."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, on the scale where a pixel is in [0, 1]."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]: ...

    def subset(self, indices: Tensor) -> Split:
        """Those items, in that order; ``indices`` is int64 (n,)."""
        ...

    def normalised(self, indices: Tensor | None = None) -> Tensor:
        """Images ``indices`` (all by default) as float32 (n, C, H, W), (pixel - mean) / std."""
        ...


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """A split that is held in memory.

    Attributes:
        images: (N, C, H, W), uint8 in 0..255 or floats in [0, 1].
        labels: int64 (N,), class indices.
        mean: per channel, on the scale where a pixel is in [0, 1].
        std: likewise.
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        return self._scale(self.images[index]), int(self.labels[index])

    def subset(self, indices: Tensor) -> TensorSplit:
        """Those items, in that order; ``indices`` is int64 (n,)."""
        return TensorSplit(self.images[indices], self.labels[indices], self.mean, self.std)

    def normalised(self, indices: Tensor | None = None) -> Tensor:
        """Images ``indices`` (all by default) as float32 (n, C, H, W), (pixel - mean) / std."""
        return self._scale(self.images if indices is None else self.images[indices])

    def _scale(self, images: Tensor) -> Tensor:
        return scale(images, self.mean, self.std)


def scale(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(…, C, H, W), uint8 in 0..255 or floats in [0, 1] -> float32, (pixel - mean) / std."""
    low, width = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (mean, std))
    if images.dtype != torch.uint8:
        return (images.float() - low) / width
    # In place from the second step on: the division of millions of pixels waits for memory.
    return images.float().div_(255).sub_(low).div_(width)


@dataclass(frozen=True, eq=False)
class DataSplits:
    """A data set.

    Attributes:
        name: as the user wrote it.
        train: what may be trained and tuned on.
        test: what is only evaluated on.
        num_classes: labels are 0 … num_classes - 1.
        class_names: one per class.
        input_shape: (channels, height, width) of one image.
        mean, std: per channel, on the scale where a pixel is in [0, 1]; both splits are normalised with them.
        augment: what training images of this data set usually get; see :func:`secateur.data.loader`.
        source: which bytes these are: a file or folder -> its sha256, or its number of files and bytes.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment = "none"
    source: dict[str, str] = field(default_factory=dict)


def limited(split: Split, limit: int | None, what: str) -> Split:
    """The first ``limit`` items, or all.

    Raises:
        UsageError: the limit is below 1.
    """
    if limit is None:
        return split
    if limit < 1:
        raise UsageError(f"{what}={limit}: it has to be at least 1")
    return split.subset(torch.arange(min(limit, len(split))))


def check_labels(labels: Tensor, num_classes: int, where: str) -> None:
    """
    Raises:
        DataError: there are no labels, or some are not in 0 … num_classes - 1.
    """
    if not len(labels):
        raise DataError(f"{where} holds no images")
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{where}: {len(wrong):,} of {len(labels):,} labels are not in 0 … {num_classes - 1}; "
            f"the first is {int(labels[first])}, of image {first}\nthe file is damaged or of another data set"
        )
