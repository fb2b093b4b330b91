"""The 8x8 digits that come inside scikit-learn's wheel: real data that need no download.

Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998 (its test part, 1,797 images).
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from secateur.data.splits import DataSplits, TensorSplit

SPLIT_SEED = 0


def load_digits() -> DataSplits:
    """1,797 grey images, 80 % to train and 20 % to test, stratified; the split is always the same."""
    import sklearn
    from sklearn.datasets import load_digits as from_wheel
    from sklearn.model_selection import train_test_split

    wheel: Any = from_wheel()
    images, labels = np.asarray(wheel["images"]), np.asarray(wheel["target"])
    everything = np.arange(len(labels))
    parts = train_test_split(everything, test_size=0.2, stratify=labels, random_state=SPLIT_SEED)
    train, test = (torch.from_numpy(part) for part in parts)
    # Pixels are 0 … 16.
    x = torch.from_numpy(images / 16).float().unsqueeze(1)
    y = torch.from_numpy(labels).long()
    mean, std = (round(float(f(x[train])), 4) for f in (torch.mean, torch.std))
    whole = TensorSplit(x, y, (mean,), (std,))
    digest = hashlib.sha256(images.astype(np.uint8).tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    source = {f"sklearn.datasets.load_digits of scikit-learn {sklearn.__version__}": f"sha256:{digest}"}
    names = tuple("0123456789")
    train_split, test_split = whole.subset(train), whole.subset(test)
    return DataSplits("digits", train_split, test_split, 10, names, (1, 8, 8), (mean,), (std,), "none", source)
