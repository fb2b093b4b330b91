"""Any data set by name: digits, folders, the user's own files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur import data
from secateur._errors import DataError, FileError, UnknownName, UsageError
from secateur.data.splits import Split, TensorSplit


def test_names_have_one_line_each():
    entries = data.names() + data.sources()
    assert len({entry.name for entry in entries}) == len(entries)
    assert all(entry.description and "\n" not in entry.description for entry in entries)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'cifar10'"):
        data.load("cifar-10")


def test_digits():
    first, second = data.load("digits"), data.load("digits")
    assert isinstance(first.train, TensorSplit)
    assert isinstance(second.train, TensorSplit)
    assert torch.equal(first.train.images, second.train.images)
    assert (len(first.train), len(first.test)) == (1437, 360)
    assert torch.bincount(first.test.labels).min() >= 35
    assert first.train.images.min() == 0
    assert first.train.images.max() == 1
    assert first.train.normalised().std().item() == pytest.approx(1, abs=1e-3)
    assert first.train.normalised(torch.tensor([5, 3])).shape == (2, 1, 8, 8)
    seen = {x.numpy().tobytes() for x in first.train.images}
    assert not any(x.numpy().tobytes() in seen for x in first.test.normalised())


def test_limits():
    whole, part = data.load("digits"), data.load("digits", limit=10, limit_test=3)
    assert (len(part.train), len(part.test)) == (10, 3)
    assert torch.equal(part.train.labels, whole.train.labels[:10])
    assert len(data.load("digits", limit=10).test) == 360
    with pytest.raises(UsageError, match="limit=0"):
        data.load("digits", limit=0)
    with pytest.raises(UsageError, match="image_size=9"):
        data.load("digits", image_size=9)


def test_folder(image_folder: Path):
    splits = data.load(f"folder:{image_folder}", image_size=16)
    assert isinstance(splits.train, Split)
    assert splits.class_names == ("ant", "bee")
    assert splits.train.labels.tolist() == [0, 1, 0, 1]
    x, y = splits.train[3]
    assert (x.shape, x.dtype, y) == ((3, 16, 16), torch.float32, 1)
    assert splits.test.normalised().shape == (2, 3, 16, 16)
    assert len(data.load(f"folder:{image_folder}", limit=2).train) == 2
    assert data.load(f"folder:{image_folder}").input_shape == (3, 224, 224)
    assert splits.source[str(image_folder / "train")].startswith("4 files")


@pytest.mark.parametrize("inside", ["", "imagenet"])
def test_imagenet_is_a_folder_of_classes(image_folder: Path, inside: str):
    if inside:
        (image_folder / inside).mkdir()
        for half in ("train", "val"):
            (image_folder / half).rename(image_folder / inside / half)
    splits = data.load("imagenet", data_dir=image_folder, image_size=16)
    assert (splits.name, splits.input_shape, len(splits.train), splits.num_classes) == ("imagenet", (3, 16, 16), 4, 2)
    assert data.load("imagenet", data_dir=image_folder).input_shape == (3, 224, 224)


def test_imagenet_that_is_not_there(tmp_path: Path):
    with pytest.raises(DataError, match="--data-dir") as caught:
        data.load("imagenet", data_dir=tmp_path)
    assert str(tmp_path / "imagenet") in str(caught.value)


def test_folder_test_instead_of_val(image_folder: Path):
    (image_folder / "val").rename(image_folder / "test")
    assert len(data.load(f"folder:{image_folder}").test) == 2


def test_folder_problems_come_together(image_folder: Path):
    (image_folder / "train" / "cat").mkdir()
    (image_folder / "val" / "dog").mkdir()
    with pytest.raises(DataError) as caught:
        data.load(f"folder:{image_folder}")
    for word in ("no images in", "train/cat", "val/dog", "class 'dog'"):
        assert word in str(caught.value)


def test_folder_missing(tmp_path: Path):
    with pytest.raises(DataError, match="no such folder"):
        data.load(f"folder:{tmp_path}/absent")
    with pytest.raises(DataError, match="found: nothing"):
        data.load(f"folder:{tmp_path}")


def test_a_broken_image_is_named(image_folder: Path):
    (image_folder / "train" / "ant" / "0.png").write_bytes(b"not an image")
    split = data.load(f"folder:{image_folder}").train
    with pytest.raises(DataError, match=r"0\.png"):
        split[0]


SOURCE = """
import torch
from torch.utils.data import TensorDataset
from secateur.data import DataSplits, TensorSplit

def pair():
    return (TensorDataset(torch.randn(6, 3, 4, 4), torch.arange(6) % 3),
            TensorDataset(torch.randn(3, 3, 4, 4), torch.arange(3)))

def splits(data_dir="none"):
    part = TensorSplit(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), (0.5,), (1.0,))
    return DataSplits(str(data_dir), part, part, 1, ("a",), (1, 4, 4), (0.5,), (1.0,))

def number():
    return 7

def broken():
    raise RuntimeError("no luck")

def whole_numbers():
    return [(torch.zeros(3, 4, 4, dtype=torch.uint8), 0)], [(torch.zeros(3, 4, 4), 0)]

def negative():
    return [(torch.zeros(3, 4, 4), -1)], [(torch.zeros(3, 4, 4), 0)]

def words():
    return [(torch.zeros(3, 4, 4), "cat")], [(torch.zeros(3, 4, 4), 0)]

def empty():
    return [], []
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_file_and_function(file: Path):
    splits = data.load(f"{file}:pair", limit=4)
    assert (len(splits.train), len(splits.test), splits.num_classes) == (4, 3, 3)
    assert splits.input_shape == (3, 4, 4)
    assert isinstance(splits.train, Split)
    batches = list(data.loader(splits.train, 3, shuffle=True))
    assert [len(y) for _, y in batches] == [3, 1]
    assert data.load(f"{file}:splits", data_dir="here").name == "here"
    assert data.load(f"{file}:splits").name == "none"


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("number", UsageError, "returned a int"),
        ("broken", UsageError, "no luck"),
        ("whole_numbers", DataError, "have to be floats"),
        ("negative", DataError, "labels are not in"),
        ("words", DataError, "have to be integers"),
        ("empty", DataError, "no items"),
        ("paar", UnknownName, "did you mean 'pair'"),
    ],
)
def test_what_a_file_gets_wrong(file: Path, function: str, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        data.load(f"{file}:{function}")


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(FileError, match="does not exist"):
        data.load(f"{tmp_path}/absent.py:pair")
