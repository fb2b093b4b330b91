"""Training data split in two for good, for methods that learn one thing on each half."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler, Subset

from secateur._errors import UsageError
from secateur.data.loaders import ItemLoader, Order, TensorLoader


def halves(batches: Iterable[Any], seed: int) -> tuple[Iterable[Any], Iterable[Any]]:
    """Two loaders of the same kind that never give the same item; which item is where is drawn once, from the seed.

    Of batches without a data set behind them (a list, say) every other batch goes to each half; they have to come in
    the same order every time.

    Raises:
        UsageError: there are not two items, or batches, to divide.
    """
    count = _items(batches)
    if count is not None and count < 2:
        raise UsageError(f"training data of {count} items cannot be split into two halves: give more")
    if isinstance(batches, TensorLoader | ItemLoader):
        first, second = _drawn(len(batches.split), seed)
        return _of_loader(batches, first), _of_loader(batches, second)
    if isinstance(batches, DataLoader) and batches.batch_size is not None and hasattr(batches.dataset, "__len__"):
        size: Any = batches.dataset
        first, second = _drawn(len(size), seed)
        return _of_torch(batches, first), _of_torch(batches, second)
    return EveryOther(batches, 0), EveryOther(batches, 1)


class EveryOther:
    """Batches number ``first``, ``first + 2`` …"""

    def __init__(self, batches: Iterable[Any], first: int):
        self.batches, self.first = batches, first

    def __len__(self) -> int:
        size: Any = self.batches
        return (len(size) + 1 - self.first) // 2

    def set_epoch(self, epoch: int) -> None:
        """Passed on."""
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.batches):
            if number % 2 == self.first:
                yield batch


def _items(batches: Any) -> int | None:
    if isinstance(batches, TensorLoader | ItemLoader):
        return len(batches.split)
    source = getattr(batches, "dataset", batches)
    return len(source) if hasattr(source, "__len__") else None


def _drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: (count + 1) // 2].sort().values, order[(count + 1) // 2 :].sort().values


def _of_loader(loader: TensorLoader | ItemLoader, indices: torch.Tensor) -> TensorLoader | ItemLoader:
    order = loader.order
    own = Order(len(indices), min(order.batch_size, len(indices)), order.shuffle, order.seed, order.drop_last)
    if isinstance(loader, TensorLoader):
        return TensorLoader(loader.split.subset(indices.to(loader.split.images.device)), own, loader.augment)
    return ItemLoader(loader.split.subset(indices), own, loader.augment, loader.workers)


def _of_torch(loader: DataLoader[Any], indices: torch.Tensor) -> DataLoader[Any]:
    return DataLoader(
        Subset(loader.dataset, indices.tolist()),
        loader.batch_size,
        shuffle=isinstance(loader.sampler, RandomSampler),
        drop_last=loader.drop_last,
        generator=loader.generator,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )
