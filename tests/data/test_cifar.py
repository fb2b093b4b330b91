"""CIFAR in both layouts; damaged and hostile files."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.layouts import BATCHES, batch, write_binary, write_python
from secateur import data
from secateur._errors import DataError
from secateur.data.splits import TensorSplit


def expected() -> tuple[torch.Tensor, torch.Tensor]:
    parts = [batch(name) for name in BATCHES[:5]]
    x = np.concatenate([x for x, _ in parts]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(x), torch.from_numpy(np.concatenate([y for _, y in parts])).long()


def train(splits: data.DataSplits) -> TensorSplit:
    assert isinstance(splits.train, TensorSplit)
    return splits.train


def test_binary_layout(tmp_path: Path):
    folder = write_binary(tmp_path)
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    splits = data.load("cifar10", data_dir=tmp_path)
    x, y = expected()
    assert torch.equal(train(splits).images, x)
    assert torch.equal(splits.train.labels, y)
    assert splits.class_names == tuple("abcdefghij")
    assert (splits.input_shape, splits.num_classes, splits.augment) == ((3, 32, 32), 10, "crop-flip")
    assert splits.mean == (0.485, 0.456, 0.406)
    assert len(splits.source) == 7
    assert splits.source["test_batch.bin"].startswith("sha256:")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_python_layout(tmp_path: Path, protocol: int):
    write_python(tmp_path, protocol)
    splits = data.load("cifar10", data_dir=tmp_path)
    x, y = expected()
    assert torch.equal(train(splits).images, x)
    assert torch.equal(splits.train.labels, y)
    assert splits.class_names[3] == "class 3"


def test_python_files_of_older_numpy_and_with_bytes_keys(tmp_path: Path):
    folder = write_python(tmp_path)
    for name in BATCHES:
        x, y = batch(name)
        raw = pickle.dumps({b"data": x, b"labels": y.tolist()}, 2)
        assert b"numpy._core.multiarray" in raw
        (folder / name).write_bytes(raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert torch.equal(train(data.load("cifar10", data_dir=tmp_path)).images, expected()[0])


def test_the_folder_itself_may_be_given(tmp_path: Path):
    assert len(data.load("cifar10", data_dir=write_binary(tmp_path)).test) == 6
    assert len(data.load("cifar10", data_dir=write_python(tmp_path)).test) == 6


def test_cifar100_reads_fine_labels(tmp_path: Path):
    (tmp_path / "cifar-100-binary").mkdir()
    records = np.zeros((3, 2 + 3072), np.uint8)
    records[:, 0], records[:, 1] = 5, (97, 98, 99)
    for name in ("train.bin", "test.bin"):
        records.tofile(tmp_path / "cifar-100-binary" / name)
    splits = data.load("cifar100", data_dir=tmp_path)
    assert splits.train.labels.tolist() == [97, 98, 99]
    assert len(splits.class_names) == splits.num_classes == 100
    (tmp_path / "py" / "cifar-100-python").mkdir(parents=True)
    for name in ("train", "test"):
        content = {"data": records[:, 2:].copy(), "fine_labels": [97, 98, 99], "coarse_labels": [5, 5, 5]}
        (tmp_path / "py" / "cifar-100-python" / name).write_bytes(pickle.dumps(content, 2))
    assert data.load("cifar100", data_dir=tmp_path / "py").test.labels.tolist() == [97, 98, 99]


class Hostile:
    def __init__(self, function: Any, *args: Any):
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_by_name(tmp_path: Path, protocol: int):
    witness = tmp_path / "witness"
    folder = write_python(tmp_path)
    attacks = {
        "system": Hostile(os.system, f"touch {witness}"),
        "eval": Hostile(eval, f"open({str(witness)!r}, 'w')"),
        "Popen": Hostile(subprocess.Popen, ["touch", str(witness)]),
        "numpy": Hostile(np.memmap, str(witness), np.uint8, "w+", 0, (3,)),
    }
    for word, attack in attacks.items():
        (folder / "data_batch_3").write_bytes(pickle.dumps({"data": attack}, protocol))
        with pytest.raises(DataError, match=f"data_batch_3' is refused: it asks for .*{word}.*it was not run"):
            data.load("cifar10", data_dir=tmp_path)
    assert not witness.exists()


def test_bytes_are_never_taken_for_pointers(tmp_path: Path):
    folder = write_python(tmp_path)
    for attack in (
        Hostile(np.ndarray, (1,), np.dtype(object), bytearray(8)),
        Hostile(np.ndarray, (1,), np.dtype([("a", object)]), bytearray(8)),
        np.array([[1, "a"]], dtype=object),
    ):
        (folder / "data_batch_3").write_bytes(pickle.dumps({"data": attack, "labels": [0]}, 2))
        with pytest.raises(DataError, match="data_batch_3"):
            data.load("cifar10", data_dir=tmp_path)


def test_cut_files(tmp_path: Path):
    file = write_binary(tmp_path) / "data_batch_2.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_2.bin' is cut short: 30,730,000 bytes expected.*18,437 found"):
        data.load("cifar10", data_dir=tmp_path)
    file.write_bytes(b"")
    with pytest.raises(DataError, match="0 found"):
        data.load("cifar10", data_dir=tmp_path)
    other = tmp_path / "py"
    other.mkdir()
    file = write_python(other) / "test_batch"
    for keep in (0, 10, 9000, -1):
        whole = pickle.dumps({"data": batch("test_batch")[0], "labels": [0] * 6}, 2)
        file.write_bytes(whole[:keep])
        with pytest.raises(DataError, match="test_batch' cannot be read"):
            data.load("cifar10", data_dir=other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 1, 2, 3, 4, 10]}, "1 of 6 labels are not in 0 … 9; the first is 10, of image 5"),
        ({"labels": [0, -1, 2, 3, 4, 10]}, "2 of 6 labels"),
        ({"labels": [0, 1]}, "6 images, but 2 labels"),
        ({"labels": "abcdef"}, "not a list of integers"),
        ({"data": np.zeros((6, 3072), np.float32)}, "'data' is float32"),
        ({"data": np.zeros((6, 784), np.uint8)}, r"'data' is uint8 \(6, 784\)"),
        ({"data": [1, 2]}, "'data' is list"),
    ],
)
def test_content_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str):
    write_python(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        data.load("cifar10", data_dir=tmp_path)


def test_bad_labels_in_the_binary_layout(tmp_path: Path):
    file = write_binary(tmp_path) / "test_batch.bin"
    raw = bytearray(file.read_bytes())
    raw[0] = 77
    file.write_bytes(raw)
    with pytest.raises(DataError, match="the first is 77, of image 0"):
        data.load("cifar10", data_dir=tmp_path)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError) as caught:
        data.load("cifar10", data_dir=tmp_path / "nowhere")
    for word in ("nowhere", "no such folder", "data_batch_1.bin", "data_batch_1,", "--data-dir", "SECATEUR_DATA_DIR"):
        assert word in str(caught.value)
    folder = write_binary(tmp_path)
    (folder / "data_batch_2.bin").unlink()
    (folder / "test_batch.bin").unlink()
    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"not whole; missing: data_batch_2.bin, test_batch.bin"):
        data.load("cifar10")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "cifar-10-python.tar.gz").touch()
    with pytest.raises(DataError, match=r"unpacked first: cifar-10-python.tar.gz"):
        data.load("cifar10", data_dir=tmp_path / "empty")


@pytest.mark.nightly
def test_the_real_data(shared_data: Path, tmp_path: Path):
    script = shared_data.parent / "tools" / "unpack_data.py"
    if not script.is_file():
        pytest.skip("the script that unpacks the real data is not here")
    subprocess.run([sys.executable, str(script), str(tmp_path), "cifar10", "mnist"], check=True, capture_output=True)
    binary = data.load("cifar10", data_dir=tmp_path / "cifar-10-batches-bin")
    python = data.load("cifar10", data_dir=tmp_path / "cifar-10-batches-py")
    assert torch.equal(train(binary).images, train(python).images)
    assert torch.equal(binary.test.labels, python.test.labels)
    assert torch.equal(torch.bincount(binary.train.labels), torch.full((10,), 5000))
    assert data.load("mnist", data_dir=tmp_path).train.normalised().mean().item() == pytest.approx(0, abs=0.01)
