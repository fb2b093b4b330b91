"""The store of a study: one SQLite file that says what is done, who works on what, and what went wrong.

Results themselves are folders. A stage is done once its folder has taken its name; the file follows. So a kill at any
moment leaves either a finished folder, which is found, or none, and the stage is taken up again.

    waiting --claim--> running --finish--> done
       ^                 |  |
       +---- release ----+  +----fail----> failed, and with it every stage that needs this one

A claim has an owner and a lease. The lease is renewed while the owner works; once it has run out, or the owner has
died on this machine, anyone may claim the stage anew. The former owner finds that out when it comes back, and what it
brings is thrown away.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from secateur._errors import FileError
from secateur.study.database import Database, unusable
from secateur.study.owner import Owner
from secateur.study.stages import Stage, StudyPlan

FILE_NAME = "study.sqlite"
UNFINISHED = "unfinished"
STAGE_FILE = "stage.json"
LEASE_SECONDS = 60.0


@dataclass(frozen=True)
class Claim:
    """The right to work on a stage, until it is lost."""

    stage: Stage
    token: str


@dataclass(frozen=True)
class Row:
    """What the store knows of a stage. Times are seconds since 1970; ``seconds`` is how long the work took."""

    address: str
    state: str
    error: str | None
    blocked_by: str | None
    started: float | None
    ended: float | None
    seconds: float | None
    attempts: int


class Store:
    """A study's folder and the file in it.

    Args:
        folder: made if missing. The file has to lie on a disk of this machine or one that locks files properly.
        lease_seconds: how long a claim lasts without a heartbeat.

    Raises:
        FileError: the file is of a newer version, is not a store, or cannot be written; it is left as it is.
    """

    def __init__(self, folder: str | Path, *, lease_seconds: float = LEASE_SECONDS):
        self.folder = Path(folder)
        self.path = self.folder / FILE_NAME
        self.lease_seconds = lease_seconds
        self.owner = Owner.this_process()
        self._db = Database(self.path)
        try:
            (self.folder / UNFINISHED).mkdir(exist_ok=True)
        except OSError as error:
            self._db.close()
            raise unusable(self.path, error) from None

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what there is to do ------------------------------------------------------------------------------------------

    def add(self, plan: StudyPlan, *, retry_failed: bool = False) -> None:
        """Enter stages that are new, and settle what changed on the disk while nobody looked.

        A run whose folder is gone has to be made again, and with it whatever it needs that is gone as well. Nothing
        else is: the trainings behind runs that are done may be deleted to save room.

        Args:
            retry_failed: let what failed wait again.
        """
        now = time.time()
        with self._db.writing():
            for stage in plan.stages.values():
                self._db.execute(
                    "INSERT OR IGNORE INTO stages (address, kind, label, settings, added) VALUES (?, ?, ?, ?, ?)",
                    (stage.address, stage.kind, stage.label, json.dumps(stage.settings, sort_keys=True), now),
                )
            pairs = [(stage.address, needed) for stage in plan.stages.values() for needed in stage.needs]
            self._db.executemany("INSERT OR IGNORE INTO needs VALUES (?, ?)", pairs)
            if retry_failed:
                self._retry(plan)
            for address in self._gone(plan, self._states()):
                self._db.execute("UPDATE stages SET state = 'waiting', error = NULL WHERE address = ?", (address,))
            # New stages may need what failed long ago.
            roots = self._db.execute("SELECT address FROM stages WHERE state = 'failed' AND blocked_by IS NULL")
            for (address,) in roots.fetchall():
                self._block(address)
            states = self._states()
        for stage in plan.stages.values():
            if states[stage.address] == "done":
                # Whoever finished it may have been stopped before it cleared up.
                self._sweep(stage)

    def _retry(self, plan: StudyPlan) -> None:
        failed = self._db.execute("SELECT address FROM stages WHERE state = 'failed'").fetchall()
        self._db.executemany(
            "UPDATE stages SET state = 'waiting', error = NULL, blocked_by = NULL WHERE address = ?",
            [(address,) for (address,) in failed if address in plan.stages],
        )

    def _gone(self, plan: StudyPlan, states: Mapping[str, str]) -> list[str]:
        """Stages that count as done, whose folder is missing, and that somebody needs."""
        gone: list[str] = []
        wanted, seen = [run for run in plan.runs if states[run] != "failed"], set()
        while wanted:
            address = wanted.pop()
            if address in seen:
                continue
            seen.add(address)
            if states[address] == "done":
                if self.is_finished(plan.stages[address]):
                    continue
                gone.append(address)
            wanted += plan.stages[address].needs
        return gone

    # -- working on it ------------------------------------------------------------------------------------------------

    def claim(self, plan: StudyPlan) -> Claim | None:
        """The next stage of the plan that can be worked on and on which nobody works; None when there is none now."""
        token, found = uuid.uuid4().hex, []
        with self._db.writing():
            now = time.time()
            states = self._states()
            for stage in self._open(plan, states):
                if states[stage.address] == "running":
                    if not self._is_free(stage, now):
                        continue
                    self._db.execute(
                        "UPDATE attempts SET ended = ?, outcome = 'lost' WHERE stage = ? AND outcome IS NULL",
                        (now, stage.address),
                    )
                if any(states[needed] != "done" for needed in stage.needs):
                    continue
                if self.is_finished(stage):
                    # Whoever worked on it was stopped after the folder took its name and before the file said so.
                    self._mark_done(stage, self._seconds(stage), now)
                    states[stage.address] = "done"
                    found.append(stage)
                    continue
                self._db.execute(
                    "UPDATE stages SET state = 'running', owner = ?, token = ?, lease = ?, started = ?, ended = NULL, "
                    "error = NULL, blocked_by = NULL WHERE address = ?",
                    (str(self.owner), token, now + self.lease_seconds, now, stage.address),
                )
                self._db.execute(
                    "INSERT INTO attempts (token, stage, owner, started) VALUES (?, ?, ?, ?)",
                    (token, stage.address, str(self.owner), now),
                )
                break
            else:
                stage = None
        for other in found:
            self._sweep(other)
        if stage is None:
            return None
        self._sweep(stage, keep=self.work_folder(stage))
        return Claim(stage, token)

    def _open(self, plan: StudyPlan, states: Mapping[str, str]) -> Iterator[Stage]:
        """Stages that are not settled and lead to a run that is not, in the plan's order."""
        wanted: set[str] = set()
        todo = [address for address in plan.runs if states[address] in ("waiting", "running")]
        while todo:
            address = todo.pop()
            if address not in wanted and states[address] != "done":
                wanted.add(address)
                todo += plan.stages[address].needs
        for address, stage in plan.stages.items():
            if address in wanted and states[address] in ("waiting", "running"):
                yield stage

    def _is_free(self, stage: Stage, now: float) -> bool:
        owner, lease = self._db.execute(
            "SELECT owner, lease FROM stages WHERE address = ?", (stage.address,)
        ).fetchone()
        return lease < now or Owner.parse(owner).is_dead()

    def beat(self, claims: Iterable[Claim]) -> list[Claim]:
        """Renew the leases.

        Returns:
            Claims that others have taken over; work on them is for nothing.
        """
        lost = []
        with self._db.writing():
            for claim in claims:
                if self._is_mine(claim):
                    self._db.execute(
                        "UPDATE stages SET lease = ? WHERE address = ?",
                        (time.time() + self.lease_seconds, claim.stage.address),
                    )
                else:
                    lost.append(claim)
        return lost

    def finish(self, claim: Claim, result: Path, seconds: float) -> bool:
        """Give the result its name and mark the stage as done.

        Args:
            result: the folder with the result, under :meth:`work_folder`'s parent.
            seconds: how long the work took.

        Returns:
            Whether it counts: False when the claim was lost, and the result is thrown away.

        Raises:
            FileError: the folder cannot take its name.
        """
        if not self._is_mine(claim):
            shutil.rmtree(result, ignore_errors=True)
            return False
        stage, target = claim.stage, self.folder / claim.stage.folder
        document = {**stage.as_dict(), "seconds": round(seconds, 3)}
        try:
            (result / STAGE_FILE).write_text(json.dumps(document, indent=1), encoding="utf-8")
            _to_disk(result)
            with self._db.writing():
                mine = self._is_mine(claim)
                if mine:
                    target.parent.mkdir(exist_ok=True)
                    if target.exists():
                        # Not a finished one, or the stage would not have been claimed.
                        shutil.rmtree(target)
                    os.rename(result, target)
                    _sync(target.parent)
                    self._end(claim, "done")
                    self._mark_done(stage, seconds, time.time())
        except OSError as error:
            if not self._is_mine(claim):
                # Whoever took the stage over has swept this attempt away.
                return False
            raise FileError(f"cannot write {target}: {error.strerror or error}") from error
        if mine:
            self._sweep(stage)
        else:
            shutil.rmtree(result, ignore_errors=True)
        return mine

    def fail(self, claim: Claim, error: str) -> bool:
        """Record what went wrong; stages that need this one fail with it.

        Returns:
            Whether it counts: False when the claim was lost.
        """
        with self._db.writing():
            if not self._is_mine(claim):
                return False
            self._end(claim, "failed", error)
            self._db.execute(
                "UPDATE stages SET state = 'failed', owner = NULL, token = NULL, lease = NULL, error = ?, ended = ? "
                "WHERE address = ?",
                (error, time.time(), claim.stage.address),
            )
            self._block(claim.stage.address)
        # Checkpoints stay: what is tried again may go on from them.
        self._sweep(claim.stage, keep=self.work_folder(claim.stage))
        return True

    def refuse(self, stage: Stage, error: str) -> bool:
        """Record that a stage cannot succeed before anybody works on it; stages that need it fail with it.

        Returns:
            Whether it counts: False where it is no longer waiting.
        """
        with self._db.writing():
            changed = self._db.execute(
                "UPDATE stages SET state = 'failed', error = ?, ended = ? WHERE address = ? AND state = 'waiting'",
                (error, time.time(), stage.address),
            ).rowcount
            if changed:
                self._block(stage.address)
        return bool(changed)

    def release(self, claims: Iterable[Claim]) -> None:
        """Give claims back, unfinished."""
        with self._db.writing():
            for claim in claims:
                if self._is_mine(claim):
                    self._end(claim, "released")
                    self._db.execute(
                        "UPDATE stages SET state = 'waiting', owner = NULL, token = NULL, lease = NULL "
                        "WHERE address = ?",
                        (claim.stage.address,),
                    )

    # -- looking ------------------------------------------------------------------------------------------------------

    def rows(self, plan: StudyPlan) -> dict[str, Row]:
        """The state of every stage of the plan, by address."""
        with self._db.reading():
            found = self._db.execute(
                "SELECT address, state, error, blocked_by, started, ended, seconds, "
                "(SELECT count(*) FROM attempts WHERE stage = address) FROM stages"
            ).fetchall()
        return {values[0]: Row(*values) for values in found if values[0] in plan.stages}

    def work_folder(self, stage: Stage) -> Path:
        """Where checkpoints of an unfinished stage are; the same for everyone who takes it up."""
        return self.folder / UNFINISHED / f"{stage.address[:16]}.work"

    def result_folder(self, claim: Claim) -> Path:
        """Where the result of this claim may be written; nobody else writes there."""
        return self.folder / UNFINISHED / f"{claim.stage.address[:16]}.{claim.token[:12]}"

    def is_finished(self, stage: Stage) -> bool:
        """Whether its folder stands under its name."""
        try:
            document = json.loads((self.folder / stage.folder / STAGE_FILE).read_bytes())
        except (OSError, ValueError):
            return False
        return document.get("address") == stage.address

    # -- inside -------------------------------------------------------------------------------------------------------

    def _states(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT address, state FROM stages"))

    def _is_mine(self, claim: Claim) -> bool:
        row = self._db.execute("SELECT token FROM stages WHERE address = ?", (claim.stage.address,)).fetchone()
        return row is not None and row[0] == claim.token

    def _end(self, claim: Claim, outcome: str, error: str | None = None) -> None:
        self._db.execute(
            "UPDATE attempts SET ended = ?, outcome = ?, error = ? WHERE token = ?",
            (time.time(), outcome, error, claim.token),
        )

    def _mark_done(self, stage: Stage, seconds: float | None, now: float) -> None:
        self._db.execute(
            "UPDATE stages SET state = 'done', owner = NULL, token = NULL, lease = NULL, error = NULL, "
            "blocked_by = NULL, ended = ?, seconds = ? WHERE address = ?",
            (now, seconds, stage.address),
        )

    def _block(self, address: str) -> None:
        self._db.execute(
            "WITH RECURSIVE behind(address) AS (SELECT stage FROM needs WHERE needed = :failed "
            "UNION SELECT stage FROM needs JOIN behind ON needed = behind.address) "
            "UPDATE stages SET state = 'failed', blocked_by = :failed, "
            "error = 'not run: it needs ' || (SELECT kind || ' ' || label FROM stages WHERE address = :failed) "
            "|| ', which failed' WHERE state = 'waiting' AND address IN (SELECT address FROM behind)",
            {"failed": address},
        )

    def _seconds(self, stage: Stage) -> float | None:
        return json.loads((self.folder / stage.folder / STAGE_FILE).read_bytes()).get("seconds")

    def _sweep(self, stage: Stage, keep: Path | None = None) -> None:
        """Remove what earlier attempts left behind."""
        for path in (self.folder / UNFINISHED).glob(f"{stage.address[:16]}.*"):
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)


def _to_disk(folder: Path) -> None:
    """Force files and folders to the disk, so that a name never stands for content that a power cut can take."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(place, name))
        _sync(Path(place))


def _sync(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
