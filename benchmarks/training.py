"""An epoch of training beside a plain loop over a ``DataLoader``: ``python -m benchmarks.training [--out FILE]``.

ResNet-20 on images of CIFAR's size, both sides in turn in one process, at several batch sizes, with and without the
usual augmentation. Without it the plain loop gets its images normalised beforehand and does nothing but learn. The
ratio of a turn is its plain time over ours: above 1 ours is faster. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from secateur._atomic import write_atomic
from secateur.data import TensorSplit, loader
from secateur.measure import hardware, versions
from secateur.models import build
from secateur.training import TrainConfig, fit

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCHES = {16: 16, 64: 6, 256: 3}
"""Batch size -> batches in an epoch."""


class Augmented(Dataset[tuple[Tensor, int]]):
    """What torchvision's CIFAR10 gives with the transforms of its papers: one image after the other."""

    def __init__(self, split: TensorSplit):
        from torchvision import transforms

        self.images, self.labels = split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist()
        crop, flip = transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()
        scale = transforms.Normalize(MEAN, STD)
        self.transform = transforms.Compose([transforms.ToPILImage(), crop, flip, transforms.ToTensor(), scale])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def plain_epoch(model: nn.Module, optimiser: torch.optim.Optimizer, batches: Iterable[Any]) -> float:
    """Seconds of the loop that everybody writes."""
    start = time.perf_counter()
    model.train()
    total = 0.0
    for x, y in batches:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        total += loss.item() * len(y)
    return time.perf_counter() - start


def contestants(split: TensorSplit, batch: int, augment: bool, compiled: bool) -> dict[str, Callable[[], float]]:
    """What takes one epoch and says how long it took, by name."""
    config = TrainConfig(epochs=1, batch_size=batch, channels_last=True, compiled=compiled)
    ours, plain = build("cifar-resnet20"), build("cifar-resnet20")
    own = loader(split, batch, shuffle=True, augment="crop-flip" if augment else "none")
    data: Dataset[Any] = Augmented(split) if augment else TensorDataset(split.normalised(), split.labels)
    theirs = DataLoader(data, batch, shuffle=True)
    sgd = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    return {
        "ours": lambda: fit(ours, own, config, progress=False, device="cpu")[0].seconds,
        "plain": lambda: plain_epoch(plain, sgd, theirs),
    }


def row(batch: int, augment: bool, turns: int, compiled: bool) -> dict[str, Any]:
    """One line of the table."""
    generator = torch.Generator().manual_seed(0)
    count = batch * BATCHES[batch]
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = TensorSplit(images, torch.randint(0, 10, (count,), generator=generator), MEAN, STD)
    sides = contestants(split, batch, augment, compiled)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        # Who goes first changes, so that whatever wears off or warms up meets both.
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            seconds = sides[name]()
            if turn:
                times[name].append(1000 * seconds / BATCHES[batch])
    ratios = [p / o for p, o in zip(times["plain"], times["ours"])]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "batch": batch,
        "augmented": augment,
        "ours_ms_per_batch": round(statistics.median(times["ours"]), 2),
        "plain_ms_per_batch": round(statistics.median(times["plain"]), 2),
        "ratio": round(middle, 4),
        "ratio_quartiles": [round(low, 4), round(high, 4)],
        "turns": turns,
    }


def main(words: list[str] | None = None) -> int:
    """Run it all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description="an epoch beside a plain loop")
    parser.add_argument("--batch", type=int, action="append", choices=list(BATCHES), help="only this size; repeatable")
    parser.add_argument("--turns", type=int, default=9, help="timed epochs of each side (default 9)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (default 2)")
    parser.add_argument("--compiled", action="store_true", help="ours through torch.compile")
    parser.add_argument("--out", type=Path, metavar="FILE", help="store the JSON here")
    asked = parser.parse_args(words)
    if asked.turns < 2 or asked.threads < 1:
        parser.error("--turns must be 2 or more and --threads 1 or more")
    torch.set_num_threads(asked.threads)
    console = Console()
    busy = os.getloadavg()[0]
    rows = []
    for augment in (False, True):
        for batch in asked.batch or BATCHES:
            rows.append(row(batch, augment, asked.turns, asked.compiled))
            console.print(f"batch {batch}, {'augmented' if augment else 'bare'}: {rows[-1]['ratio']:.3f}")
    table = Table(title=f"ResNet-20, 32 x 32 pixels, {asked.threads} threads: milliseconds for a batch")
    for head in ("batch", "augmented", "ours", "plain loop", "plain / ours", "quartiles"):
        table.add_column(head, justify="right")
    for r in rows:
        times = (f"{r['ours_ms_per_batch']:.1f}", f"{r['plain_ms_per_batch']:.1f}")
        spread = "{:.3f} … {:.3f}".format(*r["ratio_quartiles"])
        table.add_row(str(r["batch"]), "yes" if r["augmented"] else "no", *times, f"{r['ratio']:.3f}", spread)
    console.print(table)
    line = shlex.join(["python", "-m", "benchmarks.training", *(words if words is not None else sys.argv[1:])])
    result = {
        "hardware": {**hardware(), "threads": asked.threads},
        "versions": versions(),
        # Above the number of cores others were at work: the ratios hold less then, the milliseconds nothing.
        "load_average": [round(busy, 1), round(os.getloadavg()[0], 1)],
        "openmp": {k: v for k, v in os.environ.items() if k.startswith("OMP_")},
        "compiled": asked.compiled,
        "reproduce": line,
        "rows": rows,
        "slowest_ratio": min(r["ratio"] for r in rows),
    }
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(asked.out, json.dumps(result, indent=1) + "\n")
    ratios = {f"{r['batch']}{'-augmented' if r['augmented'] else ''}": r["ratio"] for r in rows}
    print(json.dumps({"ratios": ratios, "slowest_ratio": result["slowest_ratio"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
