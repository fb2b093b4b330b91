"""A study of made-up stages, and processes that run it."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from secateur.study.local_pool import LocalPool
from secateur.study.runner import Runner, Status
from secateur.study.stages import Stage, StudyPlan
from secateur.study.store import Store

EXECUTOR = "study.fake_work:execute"


class Fake:
    """A study of three seeds, two methods and two recoveries: 21 stages, 12 runs.

    Args:
        folder: of the study and of everything beside it.
        seconds: of every step.
        wrong: more settings of the cuts of one method.
    """

    def __init__(self, folder: Path, *, seconds: float = 0.01, steps: int = 3, **wrong: Any):
        self.out, self.journal, self.mended = folder / "out", folder / "journal", folder / "mended"
        folder.mkdir(parents=True, exist_ok=True)
        self.journal.touch()
        where = {"seconds": seconds, "journal": str(self.journal), "mended": str(self.mended)}
        chains = []
        for seed, method, recover in itertools.product(range(3), ("l1", "random"), ("finetune", "scratch")):
            dense = Stage("dense", {"steps": steps, "seed": seed}, (), f"net-s{seed}", where)
            more = wrong if method == "random" and seed == 1 else {}
            settings = {"steps": steps, "method": method, **more}
            cut = Stage("cut", settings, (dense.address,), f"net-{method}-s{seed}", where)
            how = {"steps": steps, "recover": recover}
            chains.append([dense, cut, Stage("recover", how, (cut.address,), f"net-{method}-{recover}-s{seed}", where)])
        self.plan = StudyPlan.of(chains)

    def run(self, *, workers: int = 2, watch: Callable[[Status], None] = lambda s: None, **more: Any) -> Status:
        """In this process, with workers of its own."""
        with Store(self.out) as store:
            pool = LocalPool(workers)
            return Runner(store, self.plan, pool, executor=EXECUTOR, watch=watch, **more).run()

    def start(self, **more: Any) -> Any:
        """In another process."""
        process = multiprocessing.get_context("fork").Process(target=self.run, kwargs=more, daemon=True)
        process.start()
        return process

    def results(self) -> dict[str, str]:
        """What every finished stage left, by its folder."""
        found = sorted(self.out.glob("stages/*/result.json")) + sorted(self.out.glob("runs/*/result.json"))
        return {str(path.parent.relative_to(self.out)): path.read_text() for path in found}

    def entries(self, what: str) -> list[dict[str, Any]]:
        """Lines of the journal."""
        return [entry for entry in map(json.loads, self.lines()) if entry["what"] == what]

    def lines(self) -> list[str]:
        """The journal."""
        return self.journal.read_text().splitlines()

    def attempts(self) -> list[tuple[str, str, str | None]]:
        """(label of the stage, owner, outcome) of every attempt."""
        with sqlite3.connect(self.out / "study.sqlite") as db:
            rows = db.execute("SELECT label, attempts.owner, outcome FROM attempts JOIN stages ON stage = address")
            found = rows.fetchall()
        db.close()
        return found
