"""A study on a cluster of two machines, one of which is lost on the way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from secateur._errors import UnknownName, UsageError
from secateur.study.runner import Runner, Status
from secateur.study.store import Store
from secateur.study.study import make_pool
from study.fake_study import EXECUTOR, Fake

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'secateur[cluster]'")
from ray.cluster_utils import Cluster  # noqa: E402

# Of Ray's own making: what it leaves to the garbage collector when it goes down.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "1")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield found
    ray.shutdown()
    found.shutdown()


def test_a_machine_is_lost_and_the_study_completes(fake: Callable[..., Fake], cluster: Any):
    study = fake(seconds=0.05, steps=4)
    second = cluster.add_node(num_cpus=2)
    lost: list[float] = []

    def watch(status: Status) -> None:
        # In the middle of things: some stages are done, and both machines are at work.
        if not lost and len(study.entries("start")) >= 5:
            cluster.remove_node(second, allow_graceful=False)
            lost.append(time.time())

    with Store(study.out) as store:
        pool = make_pool(f"ray:{cluster.address}", None, study.plan)
        assert pool.capacity == 3
        status = Runner(store, study.plan, pool, executor=EXECUTOR, watch=watch).run()
    assert lost
    assert status.count("done") == 12
    assert len(study.results()) == 21
    done = Counter(label for label, _, outcome in study.attempts() if outcome == "done")
    assert done == {stage.label: 1 for stage in study.plan.stages.values()}
    # What was under way on the lost machine was begun again, and nothing else.
    starts = Counter(entry["label"] for entry in study.entries("start"))
    assert set(starts) == set(done)
    assert sum(starts.values()) - len(starts) <= 2
    assert not list((study.out / "unfinished").iterdir())


def test_places_to_run_on(fake: Callable[..., Fake]):
    plan = fake().plan
    with pytest.raises(UnknownName, match="did you mean 'ray'"):
        make_pool("rai", None, plan)
    with pytest.raises(UsageError, match="leave --workers out"):
        make_pool("ray", 2, plan)
    with pytest.raises(UsageError, match="at least 1"):
        make_pool("local", 0, plan)
    with pytest.raises(UsageError, match=r"there is no Ray cluster at 127\.0\.0\.1:1"):
        make_pool("ray:127.0.0.1:1", None, plan)
