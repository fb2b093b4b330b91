"""Batches whose order and augmentation depend on (seed, epoch) alone, so that a resumed run sees what it would have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from secateur._errors import UsageError
from secateur.data.crop import cropped, draw
from secateur.data.folder import FolderSplit
from secateur.data.splits import Augment, Split, TensorSplit, scale

BLOCK = 1024
"""Images that are augmented at once."""


class Loader(Protocol):
    """An iterable of (x float32 (batch, C, H, W), y int64 (batch,))."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration; every epoch has its own order and its own augmentation."""
        ...


def loader(
    split: Split,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int = 0,
    augment: Augment = "none",
    drop_last: bool = False,
    workers: int = 0,
) -> Loader:
    """Batches of a split.

    Args:
        split: what to iterate over.
        batch_size: items in a batch; the last one may be shorter.
        shuffle: a new order each epoch, drawn from (seed, epoch).
        seed: of order and augmentation.
        augment: ``"crop-flip"`` (split in memory: four black pixels all round, a random crop, mirrored half of the
            time), ``"resized-crop-flip"`` (folders: a random part, resized, mirrored), or ``"none"``.
        drop_last: leave a shorter last batch out.
        workers: processes that decode images; splits in memory need none. It does not change the batches.

    Raises:
        UsageError: a batch size below 1, an augmentation this kind of split does not have, or nothing left to give.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size}: it has to be at least 1")
    kind = "crop-flip" if isinstance(split, TensorSplit) else "resized-crop-flip"
    offered = ["none", kind] if isinstance(split, TensorSplit | FolderSplit) else ["none"]
    if augment not in offered:
        raise UsageError(f"augment={augment!r}: this kind of data has {' or '.join(map(repr, offered))}")
    if drop_last and len(split) < batch_size:
        raise UsageError(f"{len(split)} items give no whole batch of {batch_size}\ntake a smaller batch")
    order = Order(len(split), batch_size, shuffle, seed, drop_last)
    if isinstance(split, TensorSplit):
        return TensorLoader(split, order, augment == "crop-flip")
    return ItemLoader(split, order, augment == "resized-crop-flip", workers)


class Order:
    """Which items make which batch of an epoch."""

    def __init__(self, count: int, batch_size: int, shuffle: bool, seed: int, drop_last: bool):
        self.count, self.batch_size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.drop_last = drop_last
        self.epoch = 0

    def __len__(self) -> int:
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def generator(self, *more: int) -> torch.Generator:
        """Random numbers of this seed, this epoch, and whatever else tells two uses apart."""
        words = np.random.SeedSequence([self.seed % 2**63, self.epoch, *more]).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))

    def batches(self) -> Iterator[Tensor]:
        """int64 indices (batch,) of one batch after the other."""
        order = torch.randperm(self.count, generator=self.generator()) if self.shuffle else torch.arange(self.count)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]


class TensorLoader:
    """Batches by indexing tensors: no processes, no items one by one.

    Several batches are made at once, on the device where the data are; the random numbers are always drawn on the CPU,
    batch by batch, so that every device and every size of such a block gives the same batches.
    """

    def __init__(self, split: TensorSplit, order: Order, augment: bool):
        self.split, self.order, self.augment = split, order, augment

    def __len__(self) -> int:
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration."""
        self.order.epoch = epoch

    def set_device(self, device: torch.device | str) -> None:
        """Move the data there, once; batches then come from there."""
        if self.split.images.device != torch.device(device):
            self.split = replace(self.split, images=self.split.images.to(device), labels=self.split.labels.to(device))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        split, generator, batches = self.split, self.order.generator(1), self.order.batches()
        device = split.images.device
        # The first block is a single batch: whoever wants only one should not wait for more.
        count = 1
        while block := list(islice(batches, count)):
            sizes = [len(indices) for indices in block]
            indices = torch.cat(block).to(device)
            images = split.images[indices]
            if self.augment:
                images = cropped(images, torch.cat([draw(n, generator) for n in sizes], 1).to(device))
            yield from zip(scale(images, split.mean, split.std).split(sizes), split.labels[indices].split(sizes))
            count = max(1, BLOCK // self.order.batch_size)


class ItemLoader:
    """Batches of items that are made one by one, by ``workers`` processes."""

    def __init__(self, split: Split, order: Order, augment: bool, workers: int):
        self.split, self.order, self.augment, self.workers = split, order, augment, workers

    def __len__(self) -> int:
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration."""
        self.order.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        items = _Items(self.split, self.order, self.augment)
        batches: Iterable[list[int]] = [batch.tolist() for batch in self.order.batches()]
        # The loader draws a base seed for its workers; without a generator of its own it would move the global one.
        yield from DataLoader(items, batch_sampler=batches, num_workers=self.workers, generator=self.order.generator(2))


class _Items(Dataset[tuple[Tensor, int]]):
    def __init__(self, split: Split, order: Order, augment: bool):
        self.split, self.order, self.augment = split, order, augment

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.augment and isinstance(self.split, FolderSplit):
            return self.split.drawn(index, self.order.generator(1, index))
        return self.split[index]
