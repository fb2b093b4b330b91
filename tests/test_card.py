"""The evidence record: it comes back as it went out, and a bad file is told everything that is wrong with it."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secateur import _atomic
from secateur._atomic import write_atomic
from secateur._errors import FileError
from secateur.card import (
    SCHEMA,
    Card,
    Comparison,
    Exactness,
    GroupWidth,
    HistoryPoint,
    Latency,
    Measurement,
    Recovery,
    parse_card,
    read_card,
    write_card,
)


@pytest.fixture
def card() -> Card:
    latency = Latency(4.0, 0.2, 30, {"batch": 1, "device": "cpu"})
    return Card(
        model="lenet5",
        data="mnist",
        method="l1",
        budget={"macs": 0.5},
        seed=3,
        dense=Measurement(1000, 100, 400, latency, {"accuracy": 0.99, "robust_accuracy": 0.4}),
        pruned=Measurement(500, 50, 200, latency, {"accuracy": 0.98, "robust_accuracy": 0.5}),
        exactness=Exactness(0.0, True),
        hardware={"cpu": "Example", "cores": 2},
        versions={"torch": "2.11"},
        reproduce="secateur prune lenet5",
        recovery=Recovery("finetune", 4, {"lr": 0.1}),
        comparisons=(Comparison("scratch-e", 10, 500, 50, quality={"accuracy": 0.97}),),
        groups=(GroupWidth("conv1", "channel", 6, 3, members=("conv1",)),),
        history=(HistoryPoint("finetune", 1, 0.9, 0.3, "cut", {"robust_accuracy": 0.3}),),
        notes=("a note",),
        extra={"study": "first"},
    )


def test_round_trip(card: Card, tmp_path: Path):
    path = write_card(card, tmp_path / "card.json")
    assert read_card(path) == card


def test_open_names_stand_beside_the_fixed_ones_on_disk(card: Card, tmp_path: Path):
    raw = json.loads(write_card(card, tmp_path / "card.json").read_text(encoding="utf-8"))
    assert next(iter(raw)) == "schema"
    assert raw["dense"]["accuracy"] == 0.99
    assert raw["dense"]["robust_accuracy"] == 0.4
    assert raw["dense"]["latency_ms"]["batch"] == 1
    assert raw["recovery"] == {"name": "finetune", "epochs": 4, "lr": 0.1}
    assert raw["study"] == "first"
    assert set(raw) >= {
        "schema", "model", "data", "method", "budget", "seed", "dense", "pruned", "exactness", "hardware", "versions",
        "reproduce", "created", "recovery", "comparisons", "groups", "history", "notes",
    }  # fmt: skip


def test_a_card_is_frozen(card: Card):
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.seed = 4  # type: ignore[misc]


def test_scalars_of_arrays_are_written_as_numbers(card: Card, tmp_path: Path):
    dense: Any = Measurement(np.int64(1000), 100, 400, quality={"accuracy": np.float32(0.5)})  # type: ignore[arg-type]
    path = write_card(dataclasses.replace(card, dense=dense), tmp_path / "card.json")
    assert read_card(path).dense == Measurement(1000, 100, 400, quality={"accuracy": 0.5})


def test_every_problem_is_listed_at_once(card: Card):
    raw = card.to_dict()
    del raw["model"], raw["created"]
    raw["schema"] = SCHEMA + 1
    raw["seed"] = "three"
    raw["dense"] = {**raw["dense"], "macs": -1, "accuracy": 93.1}
    raw["hardware"] = 7
    raw["groups"] = [{"name": "a", "kind": "channel", "width": 4, "kept": 5}]
    raw["history"] = [{"stage": "finetune", "epoch": 1, "accuracy": "high"}]
    with pytest.raises(FileError) as caught:
        parse_card(raw, "out/card.json")
    message = str(caught.value)
    assert message.startswith("out/card.json is not a card that can be used: 9 problems")
    for part in (
        "created: missing",
        f"schema: {SCHEMA + 1} is newer than {SCHEMA}",
        "model: missing",
        "seed: should be a valid integer, got 'three'",
        "dense.macs: should be greater than or equal to 0, got -1",
        "dense: accuracy is 93.1; write a fraction between 0 and 1",
        "hardware: expected a text or a table",
        "history[0].accuracy",
        "groups[0]: keeps 5 units of 4",
        "pip install -U secateur",
    ):
        assert part in message, part


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_truncated_file(card: Card, tmp_path: Path, keep: int):
    path = write_card(card, tmp_path / "card.json")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileError, match="truncated or not JSON"):
        read_card(path)


def test_files_that_are_no_card(tmp_path: Path):
    with pytest.raises(FileError, match=r"cannot be read.*\n.*secateur prune"):
        read_card(tmp_path / "card.json")
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(FileError, match="it holds a list"):
        read_card(tmp_path / "list.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not JSON"):
        read_card(tmp_path / "bytes.json")


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_a_card_that_could_not_be_read_again_is_not_written(card: Card, tmp_path: Path, error: float):
    path = write_card(card, tmp_path / "card.json")
    with pytest.raises(FileError, match=r"exactness\.max_error"):
        write_card(dataclasses.replace(card, exactness=Exactness(error, False)), path)
    assert read_card(path) == card


def test_write_atomic_replaces_and_follows_links(tmp_path: Path):
    path = tmp_path / "a.txt"
    assert write_atomic(path, "one\n") == path
    (tmp_path / "link").symlink_to(path)
    write_atomic(tmp_path / "link", b"two")
    assert path.read_bytes() == b"two"
    assert (tmp_path / "link").is_symlink()
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", "link"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch, card: Card, step: str):
    path = tmp_path / "card.json"
    path.write_text("old", encoding="utf-8")

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_atomic.os, step, full)
    with pytest.raises(FileError, match="No space left"):
        write_card(card, path)
    monkeypatch.undo()
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_kill_in_the_middle_leaves_the_old_file_whole(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    program = (
        "import os, runpy, signal, sys\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "runpy.run_path(sys.argv[1])['write_atomic'](sys.argv[2], 'new' * 100_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(_atomic.__file__), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text(encoding="utf-8") == "old"
