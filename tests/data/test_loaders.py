"""Batches depend on (seed, epoch) and on nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from secateur import data
from secateur._errors import UsageError
from secateur.data.crop import crop_flip
from secateur.data.loaders import TensorLoader
from secateur.data.splits import TensorSplit


@pytest.fixture
def split() -> TensorSplit:
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    return TensorSplit(images, torch.arange(50), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def epoch(loader: data.Loader, number: int) -> list[tuple[Tensor, Tensor]]:
    loader.set_epoch(number)
    return list(loader)


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("shuffle", [True, False])
def test_seed_and_epoch_decide(split: TensorSplit, shuffle: bool):
    def make(seed: int) -> data.Loader:
        return data.loader(split, 16, shuffle=shuffle, seed=seed, augment="crop-flip")

    first, second = make(1), make(1)
    epochs = [epoch(first, n) for n in range(3)]
    torch.manual_seed(99)
    assert same(epoch(second, 2), epochs[2])
    assert not same(epochs[0], epochs[1])
    assert not same(epoch(make(2), 0), epochs[0])


def test_the_global_random_state_is_left_alone(split: TensorSplit, image_folder: Path):
    folder = data.load(f"folder:{image_folder}", image_size=8).train
    before = torch.get_rng_state()
    list(data.loader(split, 16, shuffle=True, augment="crop-flip"))
    list(data.loader(folder, 2, shuffle=True, augment="resized-crop-flip"))
    assert torch.equal(before, torch.get_rng_state())


def test_every_item_once(split: TensorSplit):
    loader = data.loader(split, 16, shuffle=True)
    batches = epoch(loader, 4)
    assert len(loader) == len(batches) == 4
    assert torch.cat([y for _, y in batches]).sort().values.tolist() == list(range(50))
    assert torch.cat([y for _, y in batches]).tolist() != list(range(50))
    for x, y in batches:
        assert torch.equal(x, split.normalised(y))


@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_blocks_of_batches_are_the_batches_one_by_one(
    split: TensorSplit, batch_size: int, monkeypatch: pytest.MonkeyPatch
):
    def batches() -> list[tuple[Tensor, Tensor]]:
        return epoch(data.loader(split, batch_size, shuffle=True, seed=3, augment="crop-flip"), 2)

    together = batches()
    monkeypatch.setattr("secateur.data.loaders.BLOCK", 1)
    assert same(together, batches())


def test_data_can_move_to_a_device(split: TensorSplit):
    loader = data.loader(split, 16, shuffle=True, augment="crop-flip")
    before = epoch(loader, 1)
    assert isinstance(loader, TensorLoader)
    loader.set_device("cpu")
    assert same(before, epoch(loader, 1))
    loader.set_device("meta")
    assert {(x.device.type, y.device.type) for x, y in epoch(loader, 1)} == {("meta", "meta")}
    assert split.images.device.type == "cpu"


def test_the_short_last_batch_can_be_left_out(split: TensorSplit):
    loader = data.loader(split, 16, shuffle=False, drop_last=True)
    assert [len(y) for _, y in loader] == [16, 16, 16]
    assert len(loader) == 3


def test_normalised_is_pixel_minus_mean_over_std(split: TensorSplit):
    expected = (split.images[7, 1, 2, 3].item() / 255 - 0.4) / 0.3
    assert split.normalised()[7, 1, 2, 3].item() == pytest.approx(expected, abs=1e-6)
    assert split[7][0][1, 2, 3].item() == pytest.approx(expected, abs=1e-6)


def test_crops_are_shifts_and_mirrors():
    image = torch.arange(1, 37, dtype=torch.uint8).view(1, 1, 6, 6)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))[0, 0]
    windows = {padded[i : i + 6, j : j + 6] for i in range(5) for j in range(5)}
    legal = {w.numpy().tobytes() for w in windows} | {w.flip(1).numpy().tobytes() for w in windows}
    out = crop_flip(image.expand(2000, 1, 6, 6), torch.Generator().manual_seed(0), padding=2)
    assert {x.numpy().tobytes() for x in out} == legal


def test_folders_are_augmented_repeatably(image_folder: Path):
    split = data.load(f"folder:{image_folder}", image_size=8).train
    make = [data.loader(split, 3, shuffle=True, seed=5, augment="resized-crop-flip") for _ in range(2)]
    assert same(epoch(make[0], 1), epoch(make[1], 1))
    assert not same(epoch(make[0], 1), epoch(make[1], 2))
    plain = data.loader(split, 4, shuffle=False)
    assert torch.equal(next(iter(plain))[0], split.normalised())


def test_worker_processes_do_not_change_the_batches(image_folder: Path):
    split = data.load(f"folder:{image_folder}", image_size=8).train
    alone, helped = (data.loader(split, 2, shuffle=True, augment="resized-crop-flip", workers=n) for n in (0, 1))
    assert same(epoch(alone, 3), epoch(helped, 3))


def test_requests_that_do_not_fit(split: TensorSplit):
    with pytest.raises(UsageError, match="batch_size=0"):
        data.loader(split, 0, shuffle=True)
    with pytest.raises(UsageError, match="'none' or 'crop-flip'"):
        data.loader(split, 4, shuffle=True, augment="resized-crop-flip")
    with pytest.raises(UsageError, match="no whole batch of 64"):
        data.loader(split, 64, shuffle=True, drop_last=True)
