"""The store: claims, leases, and files that it must not touch."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from secateur._errors import FileError
from secateur.study.database import VERSION
from secateur.study.owner import Owner
from secateur.study.store import Claim, Store
from study.fake_study import Fake

Make = Callable[..., Fake]


def work(store: Store, claim: Claim, text: str = "result") -> Path:
    folder = store.result_folder(claim)
    folder.mkdir()
    (folder / "result.json").write_text(text)
    return folder


def test_a_claim_belongs_to_one(fake: Make):
    study = fake()
    with Store(study.out) as one, Store(study.out) as two:
        one.add(study.plan)
        two.add(study.plan)
        claims = [one.claim(study.plan), two.claim(study.plan), one.claim(study.plan), two.claim(study.plan)]
        # Only the three dense trainings need nothing.
        assert [c and c.stage.kind for c in claims] == ["dense", "dense", "dense", None]
        assert len({c.stage.address for c in claims if c}) == 3


def test_a_lease_that_ran_out_can_be_taken(fake: Make):
    study = fake()
    with Store(study.out, lease_seconds=-1) as sleepy, Store(study.out) as other:
        sleepy.add(study.plan)
        first = sleepy.claim(study.plan)
        assert first is not None
        late = work(sleepy, first, "late")
        second = other.claim(study.plan)
        assert second is not None
        assert second.stage == first.stage
        assert sleepy.beat([first]) == [first]
        # What the one who slept brings is thrown away, before and after the other has finished.
        assert not sleepy.finish(first, late, 1.0)
        assert not sleepy.fail(first, "too late")
        assert other.finish(second, work(other, second), 2.0)
        assert not sleepy.finish(first, late, 1.0)
        assert other.rows(study.plan)[first.stage.address].state == "done"
        assert (study.out / first.stage.folder / "result.json").read_text() == "result"
    assert [o for label, _, o in study.attempts() if label == first.stage.label] in (["lost", "done"], ["done", "lost"])


def test_a_dead_owner_is_not_waited_for(fake: Make, monkeypatch: pytest.MonkeyPatch):
    study = fake()
    with Store(study.out) as store:
        store.add(study.plan)
        claim = store.claim(study.plan)
        assert claim is not None
        with Store(study.out) as other:
            taken = other.claim(study.plan)
            assert taken is not None
            assert taken.stage != claim.stage
            monkeypatch.setattr(Owner, "is_dead", lambda self: True)
            again = other.claim(study.plan)
            assert again is not None
            assert again.stage == claim.stage


def test_owners():
    here = Owner.this_process()
    assert Owner.parse(str(here)) == here
    assert not here.is_dead()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    child = Owner(here.machine, pid, "", "")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert child.is_dead(), "a zombie does no work"
    os.waitpid(pid, 0)
    assert child.is_dead()
    assert Owner(here.machine, here.pid, "1", "").is_dead(), "the number was given to another process"
    assert not Owner("elsewhere", 2**22 + 1, "", "").is_dead(), "nobody knows"


def test_a_kill_between_the_folder_and_the_file(fake: Make, monkeypatch: pytest.MonkeyPatch):
    study = fake()
    with Store(study.out) as store:
        store.add(study.plan)
        claim = store.claim(study.plan)
        assert claim is not None
        result = work(store, claim)

        def power_cut(*_: object) -> None:
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(Store, "_mark_done", power_cut)
            with pytest.raises(SystemExit):
                store.finish(claim, result, 3.0)
        assert store.rows(study.plan)[claim.stage.address].state == "running"
    monkeypatch.setattr(Owner, "is_dead", lambda self: True)
    with Store(study.out) as store:
        following = store.claim(study.plan)
        assert following is not None
        assert following.stage != claim.stage
        row = store.rows(study.plan)[claim.stage.address]
        assert (row.state, row.seconds) == ("done", 3.0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_newer_store_is_left_alone(fake: Make):
    study = fake()
    Store(study.out).close()
    with sqlite3.connect(study.out / "study.sqlite") as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    before = contents(study.out)
    with pytest.raises(FileError, match=f"(?s)version {VERSION + 1}.*newer secateur.*nothing in it was touched"):
        Store(study.out)
    assert contents(study.out) == before


def test_a_newer_version_that_is_only_in_the_log_is_seen_too(fake: Make):
    study = fake()
    with Store(study.out) as store:
        store._db.execute("PRAGMA wal_autocheckpoint = 0")
        store._db.execute(f"PRAGMA user_version = {VERSION + 1}")
        with pytest.raises(FileError, match="newer secateur"):
            Store(study.out)


@pytest.mark.parametrize("content", [b"notes of mine\n", b"SQLite format 3\x00" + bytes(60)])
def test_other_files_are_left_alone(tmp_path: Path, content: bytes):
    (tmp_path / "study.sqlite").write_bytes(content)
    with pytest.raises(FileError, match="not the store of a study"):
        Store(tmp_path)
    assert contents(tmp_path) == {str(tmp_path / "study.sqlite"): content}


def test_a_store_that_is_damaged(fake: Make):
    study = fake()
    Store(study.out).close()
    path = study.out / "study.sqlite"
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 5000)
    with pytest.raises(FileError, match="cannot be used"), Store(study.out) as store:
        store.add(study.plan)
