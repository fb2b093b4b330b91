"""Part of the training data set aside, to choose by: the test split is for reporting only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler, Subset

from secateur._errors import UsageError
from secateur.data.loaders import ItemLoader, Order, TensorLoader

_EVALUATION_BATCH = 100


def held_out(batches: Iterable[Any], share: float) -> tuple[Iterable[Any], Iterable[Any] | None]:
    """Batches to train on, and batches of what was set aside.

    Of Secateur's loaders the last items of every class are set aside, and come back without augmentation and in
    order; of a ``DataLoader`` over a sized data set its last items; of a list of batches the last ones.

    Args:
        share: how much is set aside, from 0 to below 1.

    Returns:
        Both; the second is ``None`` if nothing is or can be set aside (a stream, or a single batch).

    Raises:
        UsageError: the share is none.
    """
    if not 0 <= share < 1:
        raise UsageError(f"the share that is held out has to be from 0 to below 1, got {share!r}")
    if share == 0:
        return batches, None
    if isinstance(batches, TensorLoader | ItemLoader):
        return _of_loader(batches, share)
    if isinstance(batches, DataLoader) and batches.batch_size is not None and hasattr(batches.dataset, "__len__"):
        return _of_torch(batches, share)
    if isinstance(batches, Sequence) and len(batches) > 1:
        count = max(1, round(share * len(batches)))
        return batches[:-count], batches[-count:]
    return batches, None


def _of_loader(loader: TensorLoader | ItemLoader, share: float) -> tuple[Iterable[Any], Iterable[Any] | None]:
    labels = loader.split.labels.cpu()
    aside = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        places = (labels == label).nonzero().flatten()
        aside[places[len(places) - round(share * len(places)) :]] = True
    if not aside.any() or aside.all():
        return loader, None
    order = loader.order
    kept, rest = loader.split.subset((~aside).nonzero().flatten()), loader.split.subset(aside.nonzero().flatten())
    learn = Order(len(kept), min(order.batch_size, len(kept)), order.shuffle, order.seed, order.drop_last)
    check = Order(len(rest), _EVALUATION_BATCH, False, order.seed, False)
    if isinstance(loader, TensorLoader):
        return TensorLoader(kept, learn, loader.augment), TensorLoader(rest, check, False)  # pyright: ignore[reportArgumentType]
    return ItemLoader(kept, learn, loader.augment, loader.workers), ItemLoader(rest, check, False, loader.workers)


def _of_torch(loader: DataLoader[Any], share: float) -> tuple[Iterable[Any], Iterable[Any] | None]:
    dataset: Any = loader.dataset
    count = round(share * len(dataset))
    if not 0 < count < len(dataset):
        return loader, None
    common: dict[str, Any] = {"num_workers": loader.num_workers, "collate_fn": loader.collate_fn}
    learn = DataLoader(
        Subset(dataset, range(len(dataset) - count)),
        loader.batch_size,
        shuffle=isinstance(loader.sampler, RandomSampler),
        drop_last=loader.drop_last,
        generator=loader.generator,
        **common,
    )
    return learn, DataLoader(Subset(dataset, range(len(dataset) - count, len(dataset))), loader.batch_size, **common)
