"""Networks that nobody thought of: wired at random, cut at random, compared with the mask, and counted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from secateur.graph import grids, trace
from secateur.testing.checks import cut_problem
from secateur.testing.random_networks import PARTS, Sample, random_network, shrunk

SEEDS = 100

# Networks that once failed: (seed, steps or None for all): what was wrong. A new part changes the network of every
# seed, so what a failure was about belongs among the toys of test_conformance.py as well.
REGRESSIONS: dict[tuple[int, tuple[int, ...] | None], str] = {
    (19, (1, 2)): "nn.ChannelShuffle took no account of its groups",
    (609, (0, 1, 2)): "nn.ChannelShuffle after a concat of a map with itself",
    (721, (1,)): "nn.ChannelShuffle of groups that a cut did not leave equal",
    (1209, None): "two nn.ChannelShuffle of one map",
    (1335, (3,)): "nn.ChannelShuffle of the stem",
    (116, None): "the scale of attention followed the width of a single head",
    (1286, None): "the same, behind another attention",
    (832, None): "two widths shared one integer and were cut alike in the dry run",
    (101, (0, 8, 10)): "cost of a linear layer over pieces of an axis",
    (319, (1, 3)): "cost of a linear layer over pieces of an axis",
    (655, (0, 1, 2)): "cost of a linear layer over pieces of an axis",
    (330, None): "cost of a linear layer over pieces of an axis behind a class token",
    (1289, (3, 4, 5, 6, 7)): "cost of a linear layer over pieces of an axis behind a concat of tokens",
    (3758, None): "a square channel shuffle: blocks are cut, and the code goes on to make as many as before",
    (4467, (0, 1, 3)): "the same behind a squeeze and excitation",
    (4159, None): "the same behind a split",
    (35375, (0, 2, 3, 4, 5)): "cost of a grouped convolution that reads one locked channel in each group",
    (7780, (0, 1, 5)): "a recurrent layer ran on real tensors only, where numbers are not held against a cut",
    (4363, (0, 1)): "an integer of one module bound to an axis of another size in a module of the same class",
    (779245, (0, 1, 2, 3)): "the rows of a map made by a view were cut, which a transposed convolution reads",
}


def require(seed: int, steps: tuple[int, ...] | None = None) -> None:
    """Fail with the smallest network that has the same problem."""
    sample = random_network(seed, steps)
    problem = cut_problem(sample.model, sample.inputs)
    if not problem:
        return
    kind = problem.split()[0]

    def alike(candidate: Sample) -> bool:
        return cut_problem(candidate.model, candidate.inputs).startswith(kind)

    small = shrunk(seed, alike) if steps is None else sample
    pytest.fail(f"random_network({seed}): {problem}\nin small: random_network({seed}, {small.steps})\n{small}")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_networks(seed: int):
    require(seed)


@pytest.mark.parametrize(("seed", "steps"), REGRESSIONS)
def test_networks_that_once_failed(seed: int, steps: tuple[int, ...] | None):
    require(seed, steps)


@pytest.mark.nightly
@settings(
    max_examples=3000,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.integers(min_value=SEEDS, max_value=10**6))
def test_thousands_of_random_networks(seed: int):
    require(seed)


def test_a_seed_is_a_network():
    one, two = random_network(3), random_network(3)
    assert str(one) == str(two)
    for a, b in zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert str(random_network(4)) != str(one)


def test_all_parts_come_up_and_much_can_be_cut():
    samples = [random_network(seed) for seed in range(80)]
    assert {type(part) for s in samples for part in s.model.parts} == set(PARTS)
    found = [trace(s.model, s.inputs) for s in samples[:12]]
    assert sum(len(graph.prunable) for graph in found) >= 3 * len(found)


def test_shrinking_finds_the_part_that_matters():
    def has_shuffle(sample: Sample) -> bool:
        return any(type(part).__name__ == "Shuffle" for part in sample.model.parts)

    seed = next(s for s in range(200) if has_shuffle(random_network(s)))
    small = shrunk(seed, has_shuffle)
    assert has_shuffle(small)
    assert len(small.model.parts) <= len(random_network(seed).model.parts)
    assert not any(has_shuffle(random_network(seed, [k for k in small.steps if k != gone])) for gone in small.steps)


@pytest.mark.parametrize("seed", range(0, SEEDS, 4))
def test_grids_are_settled_alike_when_all_of_them_is_looked_at(seed: int, monkeypatch: pytest.MonkeyPatch):
    def seen() -> list[tuple]:
        graph = trace(sample.model, sample.inputs)
        return [(str(g), g.locked, [(str(m), m.positions.tolist()) for m in g.members]) for g in graph.groups]

    sample = random_network(seed)
    narrowed = seen()
    monkeypatch.setattr(grids, "_narrowed", lambda classes: classes)
    assert narrowed == seen()
