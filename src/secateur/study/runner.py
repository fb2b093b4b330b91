"""The loop that brings a plan to its end: claim, hand out, listen, record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from secateur.study.job import Event, Job, Pool
from secateur.study.stages import StudyPlan
from secateur.study.store import Claim, Row, Store

EXECUTOR = "secateur.study.execute:execute"
_LOST_BEFORE_FAILED = 3
_PATIENCE = 0.5


@dataclass(frozen=True)
class Status:
    """How a study stands.

    Attributes:
        plan: all of it.
        rows: what the store knows, by address.
        progress: of the stages that this runner works on, by address: share that is done, and what is going on.
        seconds_left: an estimate; None while nothing of the kind has been finished.
    """

    plan: StudyPlan
    rows: dict[str, Row]
    progress: dict[str, tuple[float, str]] = field(default_factory=dict)
    seconds_left: float | None = None

    def count(self, state: str) -> int:
        """How many *runs* are in that state."""
        return sum(self.rows[address].state == state for address in self.plan.runs)


Watch = Callable[[Status], None]


@dataclass
class _Running:
    claim: Claim
    since: float
    share: float = 0.0
    text: str = ""


class Runner:
    """Works on a plan until everything in it is done or has failed, by itself or by other runners on the same store.

    Args:
        store: that of the study.
        plan: its stages are entered into the store.
        pool: where jobs run.
        executor: does the work of a stage, ``module:function`` or ``file.py:function``.
        watch: told how the study stands, whenever that changes and at least every half second.
        retry_failed: take up what failed in an earlier call.
    """

    def __init__(
        self,
        store: Store,
        plan: StudyPlan,
        pool: Pool,
        *,
        executor: str = EXECUTOR,
        watch: Watch = lambda status: None,
        retry_failed: bool = False,
    ):
        self.store, self.plan, self.pool, self.executor, self.watch = store, plan, pool, executor, watch
        self._running: dict[str, _Running] = {}
        self._lost: dict[str, int] = {}
        self._beaten = time.monotonic()
        self._root = store.folder.absolute()
        store.add(plan, retry_failed=retry_failed)

    def run(self) -> Status:
        """Work until nothing is left to do.

        Raises:
            KeyboardInterrupt: passed on; claims are given back, and whoever comes next goes on from the checkpoints.
        """
        try:
            while True:
                self._hand_out()
                status = self.status()
                self.watch(status)
                if not self._running and status.count("waiting") + status.count("running") == 0:
                    return status
                self._listen()
                self._beat()
        finally:
            self.pool.close()
            self.store.release([r.claim for r in self._running.values()])

    def status(self) -> Status:
        """How the study stands now."""
        rows = self.store.rows(self.plan)
        progress = {r.claim.stage.address: (r.share, r.text) for r in self._running.values()}
        return Status(self.plan, rows, progress, self._left(rows))

    def _hand_out(self) -> None:
        while len(self._running) < self.pool.capacity:
            claim = self.store.claim(self.plan)
            if claim is None:
                return
            stage = claim.stage
            kinds = {needed: self.plan.stages[needed] for needed in stage.needs}
            self._running[claim.token] = _Running(claim, time.monotonic())
            job = Job.of(
                stage,
                token=claim.token,
                needs={s.kind: str(self._root / s.folder) for s in kinds.values()},
                result=str(self.store.result_folder(claim).absolute()),
                work=str(self.store.work_folder(stage).absolute()),
                busy=self.pool.capacity - 1,
                threads=self.pool.threads,
                cwd=os.getcwd(),
                executor=self.executor,
                log=str(self._root / "logs" / f"{Path(stage.folder).name}.log"),
            )
            self.pool.submit(job)

    def _listen(self) -> None:
        """Wait for news; where there is nothing to wait for, other runners are at work."""
        if not self._running:
            time.sleep(_PATIENCE)
            return
        for event in self.pool.poll(_PATIENCE):
            running = self._running.get(event.token)
            if running is None:
                continue
            if event.what == "progress":
                running.share, running.text = event.share, event.text
                continue
            del self._running[event.token]
            self._record(running.claim, event)

    def _record(self, claim: Claim, event: Event) -> None:
        if event.what == "finished":
            self.store.finish(claim, Path(event.result), event.seconds)
        elif event.what == "failed":
            self.store.fail(claim, event.text)
        else:
            # Not the stage's fault, unless it happens every time.
            count = self._lost[claim.stage.address] = self._lost.get(claim.stage.address, 0) + 1
            if count < _LOST_BEFORE_FAILED:
                self.store.release([claim])
            else:
                self.store.fail(claim, f"{event.text}, {count} times")

    def _beat(self) -> None:
        if time.monotonic() - self._beaten < self.store.lease_seconds / 5:
            return
        self._beaten = time.monotonic()
        for claim in self.store.beat([r.claim for r in self._running.values()]):
            del self._running[claim.token]
            self.pool.cancel(claim.token)

    def _left(self, rows: dict[str, Row]) -> float | None:
        """What is still to do, at the pace of what is done; the machine is taken to stay as busy as it is."""
        done = [s for s in self.plan.stages.values() if rows[s.address].state == "done" and rows[s.address].seconds]
        spent = sum(rows[s.address].seconds or 0.0 for s in done)
        effort = sum(s.effort for s in done)
        now = time.monotonic()
        shares = {r.claim.stage.address: r.share for r in self._running.values()}
        for running in self._running.values():
            # Half an epoch says little; from a tenth of a stage on it is the best guess there is.
            if running.share > 0.1:
                spent += now - running.since
                effort += running.claim.stage.effort * running.share
        if not effort:
            return None
        left = sum(
            s.effort * (1 - shares.get(s.address, 0.0))
            for s in self.plan.stages.values()
            if rows[s.address].state in ("waiting", "running")
        )
        return left * spent / effort / max(1, min(self.pool.capacity, len(self.plan.stages)))
