"""Training data set aside."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from secateur._errors import UsageError
from secateur.data import TensorSplit, held_out, loader

LABELS = torch.tensor([0] * 40 + [1] * 30 + [2] * 10)
SPLIT = TensorSplit(torch.arange(80, dtype=torch.uint8).view(80, 1, 1, 1), LABELS, (0.0,), (1.0,))


def pixels(batches: object) -> list[int]:
    return [round(float(v) * 255) for x, _ in batches for v in x.reshape(-1)]  # type: ignore[attr-defined]


def test_the_last_items_of_every_class_and_none_twice():
    learn, check = held_out(loader(SPLIT, 16, shuffle=True, seed=3), 0.1)
    assert check is not None
    assert pixels(check) == [36, 37, 38, 39, 67, 68, 69, 79]
    first = pixels(learn)
    assert sorted(first + pixels(check)) == list(range(80))
    learn.set_epoch(1)  # type: ignore[attr-defined]
    assert sorted(pixels(learn)) == sorted(first) != first
    assert pixels(learn) != first


def test_a_torch_loader_gives_its_last_items():
    data = TensorDataset(torch.arange(50.0).view(50, 1) / 255, torch.zeros(50))
    learn, check = held_out(DataLoader(data, 8, shuffle=True), 0.2)
    assert check is not None
    assert pixels(check) == list(range(40, 50))
    assert sorted(pixels(learn)) == list(range(40))


def test_a_list_gives_its_last_batches_and_a_stream_none():
    batches = [(torch.full((2,), float(k)), torch.zeros(2)) for k in range(10)]
    learn, check = held_out(batches, 0.1)
    assert (len(learn), len(check or ())) == (9, 1)  # type: ignore[arg-type]
    stream = iter(batches)
    assert held_out(stream, 0.1) == (stream, None)
    assert held_out(batches, 0.0) == (batches, None)
    assert held_out(batches[:1], 0.5) == (batches[:1], None)


def test_a_share_that_is_none():
    with pytest.raises(UsageError, match="from 0 to below 1"):
        held_out([], 1.0)
