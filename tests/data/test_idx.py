"""MNIST and Fashion-MNIST files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from data.layouts import idx, write_idx
from secateur import data
from secateur._errors import DataError
from secateur.data.splits import TensorSplit


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST/raw"), ("mnist", "."), ("fashion-mnist", "FashionMNIST/raw")]
)
def test_plain_and_gzipped_files_agree(tmp_path: Path, name: str, folder: str):
    written = write_idx(tmp_path / "d" / folder)
    plain = data.load(name, data_dir=tmp_path / "d")
    for path in list(written.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = data.load(name, data_dir=tmp_path / "d")
    assert isinstance(plain.train, TensorSplit)
    assert isinstance(packed.train, TensorSplit)
    assert torch.equal(plain.train.images, packed.train.images)
    assert plain.train.images.shape == (7, 1, 28, 28)
    assert len(plain.test) == 4
    assert plain.class_names[9] == ("9" if name == "mnist" else "Ankle boot")


def damage(tmp_path: Path, file: str, content: bytes) -> str:
    folder = write_idx(tmp_path / "d")
    (folder / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        data.load("mnist", data_dir=tmp_path / "d")
    assert file in str(caught.value)
    return str(caught.value)


def test_a_cut_file(tmp_path: Path):
    whole = idx(np.zeros((7, 28, 28), np.uint8))
    message = damage(tmp_path, "train-images-idx3-ubyte", whole[:-5])
    assert "5,504 bytes expected by its header, 5,499 found" in message


def test_a_cut_header(tmp_path: Path):
    assert "16 bytes of header expected, 6 found" in damage(tmp_path, "train-images-idx3-ubyte", b"\0\0\x08\x03\0\0")


def test_too_long_a_file(tmp_path: Path):
    assert "too long" in damage(tmp_path, "t10k-labels-idx1-ubyte", idx(np.zeros(4, np.uint8)) + b"\0")


def test_another_kind_of_file(tmp_path: Path):
    assert "starts with" in damage(tmp_path, "t10k-labels-idx1-ubyte", b"PK\3\4" * 20)


def test_bad_labels(tmp_path: Path):
    message = damage(tmp_path, "t10k-labels-idx1-ubyte", idx(np.array([1, 2, 10, 3], np.uint8)))
    assert "the first is 10, of image 2" in message


def test_counts_that_differ(tmp_path: Path):
    assert "4 images, but" in damage(tmp_path, "t10k-labels-idx1-ubyte", idx(np.zeros(3, np.uint8)))


def test_a_cut_gzip_file(tmp_path: Path):
    folder = write_idx(tmp_path / "d")
    file = folder / "train-images-idx3-ubyte"
    (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes())[:-20])
    file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        data.load("mnist", data_dir=folder)
