"""Invented cards for the tests of the report: no figure in here was measured."""

from __future__ import annotations

from typing import Any

import pytest


def _networks() -> dict[str, Any]:
    how = {"batch": 1, "threads": 1, "device": "cpu"}
    return {
        "dense": {
            "macs": 126_550_000, "params": 855_770, "bytes": 3_491_000, "accuracy": 0.9337,
            "latency_ms": {"median": 14.2, "iqr": 0.6, "runs": 50, **how},
        },
        "pruned": {
            "macs": 62_900_000, "params": 421_300, "bytes": 1_742_000, "accuracy": 0.9295,
            "latency_ms": {"median": 8.83, "iqr": 0.41, "runs": 50, **how},
        },
        "comparisons": [
            {"name": name, "epochs": epochs, "accuracy": accuracy, "macs": 62_900_000, "params": 421_300,
             "bytes": 1_742_000, "latency_ms": {**how, "median": median, "iqr": 0.4, "runs": 50}}
            for name, epochs, accuracy, median in (("scratch-e", 160, 0.9268, 8.85), ("scratch-b", 320, 0.9301, 8.81))
        ],
    }  # fmt: skip


def _groups() -> list[dict[str, Any]]:
    groups = []
    for stage, width in ((1, 16), (2, 32), (3, 64)):
        streams = [f"layer{stage}.{block}.conv2" for block in range(3)]
        streams = (["conv1"] if stage == 1 else [f"layer{stage}.0.shortcut"]) + streams
        groups.append({"name": f"stream{stage}", "kind": "channel", "width": width, "kept": width * 3 // 4,
                       "locked": False, "reason": "", "members": streams})  # fmt: skip
        for block in range(3):
            name = f"layer{stage}.{block}.conv1"
            groups.append({"name": name, "kind": "channel", "width": width, "kept": width // 2 + block,
                           "locked": False, "reason": "", "members": [name]})  # fmt: skip
    groups.append({"name": "fc", "kind": "channel", "width": 10, "kept": 10, "locked": True,
                   "reason": "it is the output of the model", "members": ["fc"]})  # fmt: skip
    return groups


def _history() -> list[dict[str, Any]]:
    start = [{"stage": "dense", "epoch": e, "accuracy": 0.9337 - 0.002 * (3 - e), "loss": 0.01} for e in range(4)]
    cut = {"stage": "cut", "epoch": 3, "accuracy": 0.6120, "loss": 1.9, "event": "cut"}
    after = [
        {"stage": "finetune", "epoch": e, "accuracy": 0.9295 - 0.32 * 0.72**e, "loss": 0.02 + 0.72**e}
        for e in range(1, 40)
    ]
    return [*start, cut, *after, {"stage": "finetune", "epoch": 40, "accuracy": 0.9295, "loss": 0.02}]


@pytest.fixture
def raw() -> dict[str, Any]:
    """A card as it stands on disk, full in every part."""
    return {
        "schema": 1,
        "model": "cifar-resnet20",
        "data": "cifar10 (test, 10 000 images)",
        "method": "l1",
        "budget": {"macs": 0.5, "round_to": 1},
        "seed": 0,
        **_networks(),
        "exactness": {"max_error": 3.1e-16, "exact": True, "dtype": "float64"},
        "hardware": {"cpu": "Example CPU at 2.4 GHz", "cores": 2, "memory": "8 GB"},
        "versions": {"secateur": "0.1.0", "torch": "2.11.0", "python": "3.11.9"},
        "reproduce": "secateur prune cifar-resnet20 --data cifar10 --method l1 --budget macs=50% --seed 0 --out out/",
        "created": "2026-01-02T03:04:05+00:00",
        "recovery": {"name": "finetune", "epochs": 40, "lr": 0.01},
        "groups": _groups(),
        "history": _history(),
        "notes": [],
    }
