"""The paper trail of one run: its log, its history, and the files of its folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from secateur import report
from secateur._atomic import write_atomic
from secateur._errors import FileError
from secateur.card import Card, HistoryPoint, write_card
from secateur.measure import evaluate
from secateur.surgery import save
from secateur.training import EpochRecord


@dataclass
class Trail:
    """What was seen on the way.

    Attributes:
        out: the run's folder, if it has one.
        eval_data: batches ``(x, y)`` that are only reported on.
        progress: whether training shows a bar.
        history, notes: for the card.
    """

    out: Path | None = None
    eval_data: Iterable[Any] | None = None
    progress: bool = True
    history: list[HistoryPoint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def log(self, stage: str, **facts: Any) -> None:
        """One line to ``log.jsonl``."""
        if self.out is not None:
            line = json.dumps({"time": round(time.time(), 3), "stage": stage, **facts})
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise FileError(f"cannot write to {self.out}: {error.strerror or error}") from error

    def quality(self, model: nn.Module) -> dict[str, float]:
        """Quality on the evaluation data, under its own name."""
        if self.eval_data is None:
            return {}
        found = evaluate(model, self.eval_data)
        return {"accuracy": found["accuracy"]}

    def point(self, stage: str, epoch: float, quality: Mapping[str, float], **more: Any) -> None:
        """One point of the history, in the log as well."""
        self.history.append(HistoryPoint(stage, epoch, accuracy=quality.get("accuracy"), **more))
        self.log(stage, epoch=epoch, **quality)

    def epoch(self, record: EpochRecord) -> None:
        """Called after every epoch of a training."""

    def keep(self, files: Mapping[str, str]) -> None:
        """Texts that lie beside the usual files, by name.

        Raises:
            FileError: they cannot be written.
        """
        if self.out is None:
            return
        for name, text in files.items():
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                write_atomic(self.out / name, text)
            except OSError as error:
                raise FileError(f"cannot write to {self.out}: {error.strerror or error}") from error

    def checkpoints(self, stage: str) -> Path | None:
        """Where the training of a stage keeps its checkpoint."""
        return None if self.out is None else self.out / "checkpoints" / stage


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written to.

    Raises:
        FileError: it is a file, lies in one, or must not be written to.
    """
    standing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), folder)
    if not standing.is_dir():
        raise FileError(f"cannot write to {folder}: {standing} is not a folder\nname another one with --out (out=...)")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise FileError(f"cannot write to {folder}: no permission in {standing}\nname another one with --out (out=...)")


def write_run(model: nn.Module, card: Card, recipe: Mapping[str, Any], out: Path, source: Any) -> None:
    """The run's folder, as DESIGN section 2 lists it.

    Args:
        model: the pruned network.
        recipe: what was asked for, with dots for tables.
        source: see ``sc.save``.

    Raises:
        FileError: it cannot be written.
    """
    save(model, out, source=source)
    # Scalars and lists of them are written the same in JSON and TOML, but for the escapes of rare letters.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in recipe.items()]
    try:
        write_atomic(out / "recipe.toml", "\n".join(lines) + "\n")
        write_card(card, out / "card.json")
    except OSError as error:
        raise FileError(f"cannot write to {out}: {error.strerror or error}") from error
    report.write_report([out])
