"""The meter that planning reads: whatever is taken and given back, it says what the graph says."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.graph import trace
from secateur.testing.toys import toys


@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("name", toys())
def test_the_meter_agrees_with_the_cost(name: str, metric: str):
    graph = trace(*toys()[name])
    groups = graph.prunable
    # Lanes of one group and of two, with different losses.
    lanes = [{g.name: 1} for g in groups[2:]] + ([{groups[0].name: 1, groups[1].name: 2}] if len(groups) > 1 else [])
    most = [min((graph[n].width - 1) // loss for n, loss in lane.items()) for lane in lanes]
    rng = np.random.default_rng(0)
    taken = np.array([rng.integers(0, m + 1) for m in most], dtype=np.int64)

    def spent() -> int:
        lost = {n: loss * int(k) for lane, k in zip(lanes, taken) for n, loss in lane.items()}
        return getattr(graph.cost({n: graph[n].width - gone for n, gone in lost.items()}), metric)

    meter = graph.meter(metric, lanes)
    assert meter.take(taken) == spent()
    for lane in rng.permutation(len(lanes)).tolist():
        back = int(rng.integers(0, taken[lane] + 1))
        taken[lane] -= back
        limit = spent()
        assert not meter.give_back(lane, back, limit - 1)
        assert meter.give_back(lane, back, limit)
    assert meter.take(taken) == spent()
