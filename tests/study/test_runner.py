"""Whatever happens to the runner, every run is there once in the end, and is what it would have been."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from secateur.study.owner import Owner
from secateur.study.runner import Status
from study.fake_study import Fake

Make = Callable[..., Fake]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    study = Fake(tmp_path_factory.mktemp("undisturbed"))
    # The fixture of the tests is not there yet.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.path.dirname(os.path.dirname(__file__))
    try:
        status = study.run()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    assert status.count("done") == 12
    return study.results()


def once(study: Fake) -> None:
    """No step of any stage was done twice after a checkpoint, and none after the stage was finished."""
    assert not list((study.out / "unfinished").iterdir())
    done = Counter(label for label, _, outcome in study.attempts() if outcome == "done")
    assert max(done.values()) == 1
    finished = {s.label: (study.out / s.folder / "stage.json").stat().st_mtime for s in study.plan.stages.values()}
    for entry in study.entries("start"):
        assert entry["time"] <= finished[entry["label"]] + 0.01


def test_every_shared_stage_runs_once(fake: Make, undisturbed: dict[str, str]):
    study = fake()
    status = study.run(workers=3)
    assert status.count("done") == len(study.plan.runs) == 12
    assert len(study.plan.stages) == 21
    assert Counter(e["label"] for e in study.entries("start")) == {s.label: 1 for s in study.plan.stages.values()}
    assert {row.attempts for row in status.rows.values()} == {1}
    assert study.results() == undisturbed
    assert status.seconds_left == 0
    once(study)


def test_a_study_that_is_done_does_nothing(fake: Make):
    study = fake()
    study.run()
    before = study.journal.read_text()
    assert study.run().count("done") == 12
    assert study.journal.read_text() == before


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_any_moment_it_goes_on(fake: Make, undisturbed: dict[str, str], seed: int):
    study, draw, kills = fake(), random.Random(seed), 0
    while True:
        process, before, news = study.start(), len(study.lines()), draw.randint(2, 30)
        # Counted in what happened, not in seconds: machines are busy.
        while process.is_alive() and len(study.lines()) < before + news:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.03))
        if not process.is_alive():
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    assert process.exitcode == 0
    assert kills >= 2
    assert study.results() == undisturbed
    once(study)


def test_workers_end_with_the_runner(fake: Make):
    study = fake(seconds=0.2, steps=50)
    process = study.start()
    while len(study.entries("start")) < 2:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    workers = [Owner("", e["pid"], "", "") for e in study.entries("start")]
    here = Owner.this_process().machine
    deadline = time.monotonic() + 5
    while not all(Owner(here, w.pid, "", "").is_dead() for w in workers):
        assert time.monotonic() < deadline, "a worker survived its runner"
        time.sleep(0.02)


def test_training_goes_on_from_its_checkpoint(fake: Make):
    study = fake(seconds=0.05, steps=12)
    process = study.start(workers=1)
    while len(study.entries("step6")) < 1:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    study.run(workers=4)
    first = study.entries("start")[0]["label"]
    steps = Counter(e["what"] for k in range(12) for e in study.entries(f"step{k}") if e["label"] == first)
    # The one that was going on may have been done twice, none of those before it.
    assert all(steps[f"step{k}"] == 1 for k in range(6))
    assert set(steps) == {f"step{k}" for k in range(12)}


def test_two_runners_share_the_work(fake: Make, undisturbed: dict[str, str]):
    study = fake(seconds=0.03)
    both = [study.start(), study.start()]
    for process in both:
        process.join(60)
    assert [p.exitcode for p in both] == [0, 0]
    attempts = study.attempts()
    assert Counter(label for label, _, _ in attempts) == {s.label: 1 for s in study.plan.stages.values()}
    assert len({owner for _, owner, _ in attempts}) == 2
    assert study.results() == undisturbed
    once(study)


def test_what_fails_does_not_stop_the_others(fake: Make, undisturbed: dict[str, str]):
    study = fake(fail=True)
    status = study.run()
    assert status.count("done") == 10
    assert status.count("failed") == 2
    failed = {study.plan.stages[a].label: row for a, row in status.rows.items() if row.state == "failed"}
    assert "net-random-s1 went wrong on purpose" in (failed["net-random-s1"].error or "")
    behind = failed["net-random-finetune-s1"]
    assert behind.error == "not run: it needs cut net-random-s1, which failed"
    assert behind.attempts == 0
    # Another call leaves failures alone unless it is told not to.
    assert study.run().count("failed") == 2
    assert len([e for e in study.entries("start") if e["label"] == "net-random-s1"]) == 1
    study.mended.touch()
    again = study.run(retry_failed=True)
    assert again.count("done") == 12
    assert len(study.results()) == len(undisturbed)
    once(study)


def test_a_worker_that_dies_is_replaced(fake: Make):
    study = fake(die=2)
    assert study.run().count("done") == 12
    assert len(study.entries("die")) == 2


def test_a_stage_that_kills_every_worker_fails(fake: Make):
    status = fake(die=100).run()
    assert status.count("done") == 10
    (row,) = [r for r in status.rows.values() if r.state == "failed" and r.blocked_by is None]
    assert row.error == "the worker process was ended by SIGKILL (is there enough memory?), 3 times"


def test_a_folder_that_was_deleted_is_made_again_and_nothing_else(fake: Make):
    import shutil

    study = fake()
    study.run()
    # All that led to a run that is still there may go.
    shutil.rmtree(study.out / "stages")
    gone = study.plan.stages[study.plan.runs[0]]
    shutil.rmtree(study.out / gone.folder)
    before = len(study.entries("start"))
    assert study.run().count("done") == 12
    assert [e["label"] for e in study.entries("start")[before:]] == ["net-s0", "net-l1-s0", gone.label]


def test_an_interrupt_gives_everything_back(fake: Make):
    study = fake(seconds=0.05)

    def interrupt(status: Status) -> None:
        if status.progress and any(share for share, _ in status.progress.values()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run(watch=interrupt)
    assert {outcome for _, _, outcome in study.attempts()} <= {"done", "released"}
    assert study.run().count("done") == 12


def test_time_left_falls(fake: Make):
    seen: list[float] = []
    fake(seconds=0.02).run(watch=lambda s: seen.append(s.seconds_left) if s.seconds_left is not None else None)
    assert seen[0] > 0
    assert seen[-1] == 0
    assert seen[len(seen) // 2] < max(seen)
