"""The table of data sets, and how any data name is resolved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from secateur._errors import UnknownName, UsageError
from secateur._user_code import is_user_code
from secateur.data.cifar import load_cifar
from secateur.data.digits import load_digits
from secateur.data.folder import load_folder, load_imagenet
from secateur.data.idx import load_idx
from secateur.data.splits import DataSplits, limited
from secateur.data.user_file import load_from_file


@dataclass(frozen=True)
class DataEntry:
    """One line of ``secateur data``.

    Attributes:
        name: what to write.
        description: one line: what it is and which files it reads.
        input_shape: (channels, height, width) of one image, None where it depends on the data.
        num_classes: likewise.
    """

    name: str
    description: str
    input_shape: tuple[int, ...] | None = None
    num_classes: int | None = None


_Reader = Callable[[str | Path | None], DataSplits]
_BUILT_IN: dict[str, tuple[_Reader, DataEntry]] = {
    entry.name: (reader, entry)
    for reader, entry in (
        (
            lambda _: load_digits(),
            DataEntry("digits", "1,797 handwritten digits, inside scikit-learn: no files needed", (1, 8, 8), 10),
        ),
        (
            partial(load_idx, "mnist"),
            DataEntry("mnist", "handwritten digits; idx files, plain or .gz, in DIR or DIR/MNIST/raw", (1, 28, 28), 10),
        ),
        (
            partial(load_idx, "fashion-mnist"),
            DataEntry(
                "fashion-mnist", "clothes; idx files in DIR, DIR/FashionMNIST/raw or Debian's package", (1, 28, 28), 10
            ),
        ),
        (
            partial(load_cifar, "cifar10"),
            DataEntry("cifar10", "DIR/cifar-10-batches-bin or DIR/cifar-10-batches-py", (3, 32, 32), 10),
        ),
        (
            partial(load_cifar, "cifar100"),
            DataEntry("cifar100", "fine labels; DIR/cifar-100-binary or DIR/cifar-100-python", (3, 32, 32), 100),
        ),
        (
            load_imagenet,
            DataEntry("imagenet", "DIR/train and DIR/val, one folder per class; decoded when needed", (3, 224, 224)),
        ),
    )
}
_FOLDERS = ("folder", "imagenet")
_SOURCES = (
    DataEntry("folder:PATH", "images in PATH/train and PATH/val (or test), one folder per class"),
    DataEntry("file.py:function", "what your own function returns: DataSplits or (train data set, test data set)"),
)


def names() -> list[DataEntry]:
    """The built-in data sets, in the table's order."""
    return [entry for _, entry in _BUILT_IN.values()]


def sources() -> list[DataEntry]:
    """The other forms that a data name can have."""
    return list(_SOURCES)


def resizable(name: str) -> bool:
    """Whether a data set is of photographs that are brought to the size that is asked for."""
    return name.partition(":")[0] in _FOLDERS


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    limit_test: int | None = None,
    image_size: int | None = None,
) -> DataSplits:
    """Read a data set. Nothing is downloaded.

    Args:
        name: a built-in name, ``folder:PATH`` or ``file.py:function``.
        data_dir: where the files are; by default what SECATEUR_DATA_DIR says, else ``./data``.
        limit: at most so many training images, the first ones.
        limit_test: likewise for the test images.
        image_size: height and width, for ``folder:PATH`` and ``imagenet`` only (224 by default).

    Raises:
        UnknownName: no such data set.
        UsageError: arguments that do not fit the data set.
        DataError: files that are missing, cut short or damaged, or labels out of range.
    """
    kind, _, rest = name.partition(":")
    if image_size is not None and not resizable(name):
        raise UsageError(
            f"image_size={image_size}: {name!r} has a size of its own; only folder:PATH and imagenet can be resized"
        )
    if kind == "folder" and rest:
        splits = load_folder(name, rest, image_size)
    elif name == "imagenet":
        splits = load_imagenet(data_dir, image_size)
    elif is_user_code(name):
        splits = load_from_file(name, data_dir)
    elif name in _BUILT_IN:
        splits = _BUILT_IN[name][0](data_dir)
    else:
        raise UnknownName("data set", name, _BUILT_IN, hint="or: " + ", ".join(entry.name for entry in _SOURCES))
    return replace(
        splits,
        train=limited(splits.train, limit, "limit"),
        test=limited(splits.test, limit_test, "limit_test"),
    )
