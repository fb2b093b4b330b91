"""The file of a study's store: one SQLite data base, made, opened and written to by many processes at once."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from secateur._errors import FileError

VERSION = 1
"""The version of the tables that this release writes; it reads no newer one."""

_APPLICATION = 0x53454341
_HEADER = b"SQLite format 3\x00"
_TABLES = f"""
CREATE TABLE stages (
    address TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    settings TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    owner TEXT,
    token TEXT,
    lease REAL,
    error TEXT,
    blocked_by TEXT,
    added REAL NOT NULL,
    started REAL,
    ended REAL,
    seconds REAL
) WITHOUT ROWID;
CREATE TABLE needs (
    stage TEXT NOT NULL REFERENCES stages,
    needed TEXT NOT NULL REFERENCES stages,
    PRIMARY KEY (stage, needed)
) WITHOUT ROWID;
CREATE INDEX needed_by ON needs (needed);
CREATE TABLE attempts (
    token TEXT PRIMARY KEY,
    stage TEXT NOT NULL REFERENCES stages,
    owner TEXT NOT NULL,
    started REAL NOT NULL,
    ended REAL,
    outcome TEXT CHECK (outcome IN ('done', 'failed', 'lost', 'released')),
    error TEXT
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {VERSION};
"""


class Database:
    """An open file with the tables of a study.

    Args:
        path: of the file, made if missing. It has to lie on a disk of this machine or one that locks files properly.

    Raises:
        FileError: the file is of a newer version, is not a store, or cannot be written; it is left as it is.
    """

    def __init__(self, path: Path):
        self.path = path
        _refuse_others(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise unusable(path, error) from None
        self.execute = self._connection.execute
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self.reading():
            self._write_ahead()
            self.execute("PRAGMA synchronous = FULL")
            with self.writing():
                (version,) = self.execute("PRAGMA user_version").fetchone()
                # The header of the file may lag behind what another process has only just written.
                _refuse_newer(self.path, version)
                if version == 0:
                    for statement in _TABLES.split(";"):
                        self.execute(statement)
            if version == 0:
                # So that the header says what file this is.
                self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _write_ahead(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                # While another process does the same, SQLite refuses at once instead of waiting.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def executemany(self, statement: str, values: Iterable[tuple[Any, ...]]) -> None:
        """Run a statement once for each of some values."""
        self._connection.executemany(statement, values)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What SQLite cannot do is said in our words."""
        try:
            yield
        except sqlite3.Error as error:
            raise unusable(self.path, error) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """All of it or nothing, and nobody else at the same time."""
        with self.reading():
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.execute("ROLLBACK")
                raise
            self.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


def _refuse_others(path: Path) -> None:
    """Look at the first bytes before SQLite does: opening a file already creates others beside it."""
    try:
        with open(path, "rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable(path, error) from None
    if not header:
        return
    application = int.from_bytes(header[68:72], "big")
    if len(header) < 100 or not header.startswith(_HEADER) or application not in (0, _APPLICATION):
        raise FileError(f"{path} is not the store of a study\nmove it away, or name another folder with --out")
    _refuse_newer(path, int.from_bytes(header[60:64], "big"))


def _refuse_newer(path: Path, version: int) -> None:
    if version > VERSION:
        raise FileError(
            f"{path} has version {version}, this release reads up to {VERSION}: it was written by a newer secateur\n"
            "nothing in it was touched; update with: pip install -U secateur"
        )


def unusable(path: Path, error: Exception) -> FileError:
    """What to say of a store that cannot be used."""
    said = (isinstance(error, OSError) and error.strerror) or error
    return FileError(f"the store {path} cannot be used: {said}\nname another folder with --out")
