"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """train/ and val/ with the classes ant, bee; two and one images a class, not square."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for half, count in (("train", 2), ("val", 1)):
        for name in ("ant", "bee"):
            folder = tmp_path / "images" / half / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "images"
