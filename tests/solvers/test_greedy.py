"""ThiNet's greedy choice, against a loop over the samples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secateur._errors import UsageError
from secateur.solvers import Contributions, fit_scales, remove_greedily


def naive(z: Tensor) -> tuple[list[int], list[float]]:
    """The published loop: every candidate's energy from the samples themselves."""
    z, removed, energies = z.double(), [], []
    total = torch.zeros(len(z), dtype=torch.float64)
    while len(removed) < z.shape[1]:
        energy = (total[:, None] + z).square().sum(0)
        energy[removed] = torch.inf
        removed.append(int(energy.argmin()))
        energies.append(float(energy.min()) / len(z))
        total = total + z[:, removed[-1]]
    return removed, energies


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), c=st.integers(1, 20), samples=st.integers(1, 60))
def test_the_order_is_that_of_the_loop_over_the_samples(seed, c, samples):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, c, generator=g, dtype=torch.float64)
    z = z - z.mean(1, keepdim=True) * 0.7
    found = remove_greedily(Contributions.of_samples(z))
    order, energies = naive(z)
    if not found.pairs:  # with one sample, two channels can cancel by chance
        assert found.order.tolist() == order
        assert found.energy.tolist() == pytest.approx(energies, rel=1e-6, abs=1e-9)
    assert sorted(found.order.tolist()) == list(range(c))


def test_float32_samples_of_a_layer(layer):
    x, weights, _ = layer(3000, 40, 1, 1)
    z = x[:, :, 0] * weights[0, :, 0]
    found = remove_greedily(Contributions.of_samples(z))
    assert found.order.tolist() == naive(z)[0]


@pytest.mark.parametrize("factor", [0.01, 1.0, 30.0])
def test_channels_that_cancel_go_first_at_no_cost(layer, factor):
    x, weights, _ = layer(500, 12, 1, 1)
    z = x[:, :, 0] * weights[0, :, 0]
    z[:, 3] *= factor  # the cheapest, or the dearest of all: a step at a time would find only the first of these
    z[:, 9] = -z[:, 3]
    found = remove_greedily(Contributions.of_samples(z))
    assert found.pairs == ((3, 9),)
    assert set(found.order[:2].tolist()) == {3, 9}
    assert float(found.energy[1]) <= 1e-6 * float(found.energy[0])
    fit = fit_scales(Contributions.of_samples(z), found.kept(10))
    assert fit.relative_error < 1e-6


def test_each_channel_is_in_one_pair():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(50, 6, generator=g)
    z[:, 1] = -z[:, 0]
    z[:, 2] = z[:, 0]
    z[:, 5] = 0.0
    found = remove_greedily(Contributions.of_samples(z))
    assert found.pairs == ((0, 1),)
    assert found.order.tolist()[:3] == [0, 1, 5]


def test_kept_and_ranks_say_the_same(layer):
    x, weights, _ = layer(500, 12, 1, 1)
    found = remove_greedily(Contributions.of_samples(x[:, :, 0] * weights[0, :, 0]))
    ranks = found.ranks()
    for count in (1, 5, 12):
        kept = found.kept(count)
        assert kept.tolist() == sorted(kept.tolist())
        assert set(kept.tolist()) == set(ranks.topk(count).indices.tolist())
    for count in (0, 13):
        with pytest.raises(UsageError, match=f"{count} channels cannot be kept of 12"):
            found.kept(count)


def test_scales_leave_no_more_error_than_before(layer):
    x, weights, y = layer(800, 24, 1, 1, seed=3)
    z = x[:, :, 0] * weights[0, :, 0]
    found = Contributions.of_samples(z, y[:, 0])
    for count in (1, 6, 12, 23, 24):
        kept = remove_greedily(found).kept(count)
        fit = fit_scales(found, kept)
        direct = torch.linalg.lstsq(z[:, kept].double(), y.double()).solution[:, 0]
        torch.testing.assert_close(fit.scales, direct, rtol=1e-3, atol=1e-3)
        assert fit.error <= fit.error_before + 1e-9
        assert fit.ridge == 0.0
    assert torch.equal(fit.scales, torch.ones(24, dtype=torch.float64))
