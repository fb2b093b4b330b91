"""Images in folders, one per class: ``folder:PATH`` with ``train/`` and ``val/`` or ``test/``; decoded when needed."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from secateur._errors import DataError, UsageError
from secateur.data.places import ENVIRONMENT, data_folder
from secateur.data.splits import DataSplits, scale

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
# ImageNet's, as every published vision model expects.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE_SIZE = 224
# The short side is resized to size / CROP, then the centre is cut out.
CROP = 0.875


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """Images that stay on disk; the same interface as a split in memory.

    Attributes:
        paths: one file per image.
        labels: int64 (N,).
        image_size: height and width of what comes out.
        mean, std: per channel, on the scale where a pixel is in [0, 1].
    """

    paths: tuple[Path, ...]
    labels: Tensor
    image_size: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        image = self._decode(index)
        short = round(self.image_size / CROP)
        factor = short / min(image.size)
        image = image.resize((max(short, round(image.width * factor)), max(short, round(image.height * factor))))
        left, top = (image.width - self.image_size) // 2, (image.height - self.image_size) // 2
        return self._tensor(image.crop((left, top, left + self.image_size, top + self.image_size))), self._label(index)

    def drawn(self, index: int, generator: torch.Generator) -> tuple[Tensor, int]:
        """One training view: a random part (8 … 100 % of the area, 3:4 … 4:3), resized, mirrored half of the time.

        Source: Szegedy et al. 2015 (arXiv 1409.4842), section 6.
        """
        image = self._decode(index)
        u = torch.rand(5, generator=generator).tolist()
        area, ratio = image.width * image.height * (0.08 + 0.92 * u[0]), (3 / 4) ** (1 - 2 * u[1])
        width = min(image.width, max(1, round(math.sqrt(area * ratio))))
        height = min(image.height, max(1, round(math.sqrt(area / ratio))))
        left, top = int(u[2] * (image.width - width + 1)), int(u[3] * (image.height - height + 1))
        box = (left, top, left + width, top + height)
        x = self._tensor(image.resize((self.image_size, self.image_size), box=box))
        return (x.flip(2) if u[4] < 0.5 else x), self._label(index)

    def subset(self, indices: Tensor) -> FolderSplit:
        """Those items, in that order; ``indices`` is int64 (n,)."""
        paths = tuple(self.paths[i] for i in indices.tolist())
        return FolderSplit(paths, self.labels[indices], self.image_size, self.mean, self.std)

    def normalised(self, indices: Tensor | None = None) -> Tensor:
        """Images ``indices`` (all by default) as float32 (n, 3, image_size, image_size)."""
        wanted = range(len(self)) if indices is None else indices.tolist()
        return torch.stack([self[i][0] for i in wanted])

    def _label(self, index: int) -> int:
        return int(self.labels[index])

    def _decode(self, index: int) -> Image:
        from PIL import Image

        path = self.paths[index]
        try:
            with warnings.catch_warnings(), Image.open(path) as image:
                # Pillow warns of palette and metadata oddities that do not touch the pixels.
                warnings.simplefilter("ignore", UserWarning)
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"'{path}' cannot be read as an image: {error}\nremove it or fetch it again") from None

    def _tensor(self, image: Image) -> Tensor:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return scale(pixels, self.mean, self.std)


def load_imagenet(data_dir: str | Path | None, image_size: int | None = None) -> DataSplits:
    """ImageNet's train/ and val/ as class folders, in DIR or in a folder of DIR that bears the data set's name.

    Raises:
        DataError: neither is there, or what is there cannot be used.
        UsageError: the image size is below 1.
    """
    root = data_folder(data_dir)
    found = next((p for p in (root, root / "imagenet", root / "ILSVRC2012") if (p / "train").is_dir()), None)
    if found is None:
        raise DataError(
            f"the data set 'imagenet' was not found: there is no train/ in '{root}' or '{root / 'imagenet'}'\n"
            f"say where it is with --data-dir DIR (data_dir=...) or {ENVIRONMENT}; nothing is downloaded"
        )
    return load_folder("imagenet", found, image_size)


def load_folder(name: str, path: str | Path, image_size: int | None) -> DataSplits:
    """Class folders under ``path``/train and ``path``/val (or test), classes in sorted order.

    Images are taken in turn from every class, so any prefix of a split is as balanced as it can be.

    Raises:
        DataError: folders are missing or empty, or the two halves do not have the same classes.
        UsageError: the image size is below 1.
    """
    root, size = Path(path), IMAGE_SIZE if image_size is None else image_size
    if size < 1:
        raise UsageError(f"image_size={size}: it has to be at least 1")
    test_root = next((root / half for half in ("val", "test") if (root / half).is_dir()), None)
    if not (root / "train").is_dir() or test_root is None:
        found = sorted(p.name for p in root.iterdir())[:8] if root.is_dir() else None
        state = "no such folder" if found is None else f"found: {', '.join(found) or 'nothing'}"
        raise DataError(
            f"{name!r}: '{root}' does not hold train/ and val/ (or test/) with one folder per class ({state})"
        )
    halves = {half: _classes(half) for half in (root / "train", test_root)}
    train, test = halves.values()
    problems = [f"no images in '{half / c}'" for half, found in halves.items() for c, f in found.items() if not f]
    problems += [f"no class folders in '{half}'" for half, found in halves.items() if not found]
    problems += [f"class {c!r} is in '{test_root}' but not in train/" for c in test if c not in train]
    if problems:
        raise DataError(f"{name!r} cannot be used:\n  " + "\n  ".join(problems))
    classes = tuple(train)
    splits = (_split(train, classes, size), _split(test, classes, size))
    source = {
        str(half): f"{len(split)} files, {sum(p.stat().st_size for p in split.paths)} bytes"
        for half, split in zip(halves, splits)
    }
    shape = (3, size, size)
    return DataSplits(name, *splits, len(classes), classes, shape, MEAN, STD, "resized-crop-flip", source)


def _classes(half: Path) -> dict[str, list[Path]]:
    return {
        folder.name: sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        for folder in sorted(half.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }


def _split(found: dict[str, list[Path]], classes: tuple[str, ...], size: int) -> FolderSplit:
    order = sorted((rank, classes.index(c), path) for c, files in found.items() for rank, path in enumerate(files))
    labels = torch.tensor([label for _, label, _ in order], dtype=torch.int64)
    return FolderSplit(tuple(path for _, _, path in order), labels, size)
