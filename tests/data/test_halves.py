"""Two halves of the training data that never share an item."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from secateur._errors import UsageError
from secateur.data import load, loader
from secateur.data.halves import EveryOther, halves


def items(batches: Any) -> list[bytes]:
    return [image.numpy().tobytes() for x, _ in batches for image in x]


def test_the_packages_loaders():
    batches = loader(load("digits", limit=101).train, 16, shuffle=True, seed=1)
    first, second = halves(batches, seed=0)
    assert (len(items(first)), len(items(second))) == (51, 50)
    before = set(items(first))
    assert not before & set(items(second))
    for half in (first, second):
        half.set_epoch(1)  # type: ignore[attr-defined]
    assert set(items(first)) == before, "another epoch has another order and the same items"
    assert set(items(halves(batches, seed=0)[0])) == before
    assert set(items(halves(batches, seed=1)[0])) != before


def test_loaders_of_torch():
    data = TensorDataset(torch.arange(20.0)[:, None], torch.zeros(20))
    first, second = halves(DataLoader(data, 4, shuffle=True), seed=0)
    assert len(items(first)) == len(items(second)) == 10
    assert not set(items(first)) & set(items(second))


def test_a_list_of_batches_is_divided_by_turns():
    first, second = halves(["a", "b", "c"], seed=0)
    assert (list(first), list(second)) == (["a", "c"], ["b"])
    assert isinstance(first, EveryOther)
    assert len(first) == 2


@pytest.mark.parametrize("batches", [["a"], DataLoader(TensorDataset(torch.zeros(1, 1)), 1)])
def test_a_single_one_cannot_be_divided(batches: Any):
    with pytest.raises(UsageError, match="two halves"):
        halves(batches, seed=0)
