"""Where the jobs of a study run, and how many threads each of them gets."""

from __future__ import annotations

import pytest

from secateur._errors import UnknownName, UsageError
from secateur.study.stages import StudyPlan
from secateur.study.study import make_pool

NOTHING = StudyPlan({}, ())


@pytest.mark.parametrize(("said", "threads"), [("", 3), ("1", 1), ("2,1", 2), ("0", 1), ("8", 3), ("many", 3)])
def test_threads_are_a_share_of_the_cores_or_what_the_environment_allows(
    monkeypatch: pytest.MonkeyPatch, said: str, threads: int
):
    monkeypatch.setattr("secateur.study.study._cores", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    pool = make_pool("local", 2, NOTHING)
    try:
        assert pool.threads == threads
    finally:
        pool.close()


def test_places_and_numbers_that_make_no_sense_are_refused():
    with pytest.raises(UnknownName, match="locl"):
        make_pool("locl", None, NOTHING)
    with pytest.raises(UsageError, match="workers=0"):
        make_pool("local", 0, NOTHING)
    with pytest.raises(UsageError, match="leave --workers out"):
        make_pool("ray", 2, NOTHING)
