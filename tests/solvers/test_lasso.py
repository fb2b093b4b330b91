"""The LASSO path, against scikit-learn's and against its own conditions of optimality."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur._errors import UsageError
from secateur.solvers import Contributions, GramAccumulator, LassoSelection, fit_scales, select_by_lasso


def first_supports(found: Contributions) -> dict[int, set[int]]:
    """Count -> support where the path first has it, from scikit-learn."""
    from sklearn.linear_model import lars_path_gram

    scale = found.norms.numpy()
    gram = found.gram.numpy() / scale / scale[:, None]
    _, _, path = lars_path_gram(found.target.numpy() / scale, gram, n_samples=1, method="lasso")
    supports: dict[int, set[int]] = {}
    # Between two events the support is that of their middle.
    for left, right in zip(path.T[:-1], path.T[1:]):
        support = set(np.flatnonzero((left + right) / 2).tolist())
        supports.setdefault(len(support), support)
    return supports


def assert_optimal(found: Contributions, selected: LassoSelection, tolerance: float = 1e-6) -> None:
    """The conditions of Karush, Kuhn and Tucker at the penalty that is named."""
    scale = torch.where(found.norms > 0, found.norms, 1.0)
    beta = torch.zeros(found.channels, dtype=torch.float64)
    beta[selected.kept] = selected.coefficients
    correlation = (found.target / scale - (found.gram / scale / scale[:, None]) @ beta) / found.samples
    slack = tolerance * float((found.target / scale).abs().max()) / found.samples
    on = beta != 0
    assert float((correlation[on] - selected.penalty * beta[on].sign()).abs().max()) < slack
    assert bool((correlation[~on].abs() <= selected.penalty + slack).all())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), c=st.integers(2, 30), noise=st.floats(0.05, 3.0))
def test_supports_are_those_of_scikit_learn(seed, c, noise):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(200, 3, generator=g, dtype=torch.float64) @ torch.randn(3, c, generator=g, dtype=torch.float64)
    z = z + noise * torch.randn(200, c, generator=g, dtype=torch.float64)
    y = z @ torch.randn(c, generator=g, dtype=torch.float64) + torch.randn(200, generator=g, dtype=torch.float64)
    norms = torch.rand(c, generator=g, dtype=torch.float64) + 0.5
    found = Contributions.of_samples(z, y, norms)
    for count, support in first_supports(found).items():
        if count == 0:
            continue
        selected = select_by_lasso(found, count)
        assert set(selected.kept.tolist()) == support
        assert_optimal(found, selected)
        assert (selected.filled, selected.ridge, selected.notes) == ((), 0.0, ())
        assert bool((selected.coefficients != 0).all())


def test_channels_leave_again_on_the_way_and_the_path_goes_on():
    dropped = 0
    for seed in range(30):
        g = torch.Generator().manual_seed(seed)
        z = torch.randn(100, 2, generator=g, dtype=torch.float64) @ torch.randn(2, 40, generator=g, dtype=torch.float64)
        z = z + 0.3 * torch.randn(100, 40, generator=g, dtype=torch.float64)
        found = Contributions.of_samples(z, z @ torch.randn(40, generator=g, dtype=torch.float64))
        selected = select_by_lasso(found, 35)
        assert_optimal(found, selected)
        assert set(selected.kept.tolist()) == first_supports(found)[35]
        dropped += selected.dropped
    assert dropped > 20


def test_long_paths_do_not_drift(layer):
    x, weights, y = layer(4000, 300, 1, 1)
    found = Contributions.of_samples(x[:, :, 0] * weights[0, :, 0], y[:, 0])
    for count in (150, 290):
        assert_optimal(found, select_by_lasso(found, count))


def test_paths_of_nearly_dependent_channels_do_not_drift():
    g = torch.Generator().manual_seed(0)
    # The last of these has more events than the path keeps exchanges.
    for c, noise, count, events in ((300, 1e-3, 290, 0), (300, 1e-4, 250, 0), (100, 1e-5, 95, 2 * 95 + 64)):
        z = torch.randn(1000, 5, generator=g, dtype=torch.float64) @ torch.randn(5, c, generator=g, dtype=torch.float64)
        z = z + noise * torch.randn(1000, c, generator=g, dtype=torch.float64)
        y = z @ torch.randn(c, generator=g, dtype=torch.float64) + torch.randn(1000, generator=g, dtype=torch.float64)
        found = Contributions.of_samples(z, y)
        selected = select_by_lasso(found, count)
        assert (selected.ridge, selected.notes) == (0.0, ())
        assert count + 2 * selected.dropped > events
        assert_optimal(found, selected, 1e-7)


def test_the_weights_are_brought_to_unit_norm(layer):
    x, weights, y = layer(1000, 20, 4, 5)
    stretch = torch.logspace(-1, 1, 20)
    sums = GramAccumulator(20, 4, 5)
    sums.add(x, y)
    plain = Contributions.of_layer(sums.grams(), weights)
    sums = GramAccumulator(20, 4, 5)
    sums.add(x / stretch[:, None], y)
    # The same contributions of larger inputs and smaller slices: larger inputs are what the penalty must see.
    other = Contributions.of_layer(sums.grams(), weights * stretch[:, None])
    torch.testing.assert_close(other.gram, plain.gram, rtol=1e-4, atol=1e-2)
    assert select_by_lasso(other, 10).kept.tolist() != select_by_lasso(plain, 10).kept.tolist()
    unit = plain.gram / plain.norms / plain.norms[:, None], plain.target / plain.norms
    again = Contributions(*unit, plain.energy, torch.ones(20, dtype=torch.float64), plain.samples, plain.rounding)
    assert select_by_lasso(again, 10).kept.tolist() == select_by_lasso(plain, 10).kept.tolist()
    as_they_are = [select_by_lasso(found, 10, unit_weights=False) for found in (plain, other)]
    assert as_they_are[0].kept.tolist() == as_they_are[1].kept.tolist()


@pytest.mark.parametrize("unit_weights", [True, False])
def test_less_error_than_magnitude_on_samples_held_out(layer, unit_weights):
    for seed in range(5):
        x, weights, y = layer(3000, 32, 9, 16, seed)
        sums, rest = GramAccumulator(32, 9, 16), GramAccumulator(32, 9, 16)
        sums.add(x[:2000], y[:2000])
        rest.add(x[2000:], y[2000:])
        found = Contributions.of_layer(sums.grams(), weights)
        held_out = Contributions.of_layer(rest.grams(), weights)
        for count in (4, 16):
            ours = select_by_lasso(found, count, unit_weights=unit_weights).fit
            largest = fit_scales(found, weights.abs().sum((0, 2)).topk(count).indices)
            assert held_out.error(ours.kept, ours.scales) <= held_out.error(largest.kept, largest.scales)


def test_all_channels_change_nothing(layer):
    x, weights, y = layer(2000, 16, 4, 6)
    sums = GramAccumulator(16, 4, 6)
    sums.add(x, y)
    selected = select_by_lasso(Contributions.of_layer(sums.grams(), weights), 16)
    assert selected.kept.tolist() == list(range(16))
    assert torch.equal(selected.fit.scales, torch.ones(16, dtype=torch.float64))


def test_copies_dead_channels_and_negatives_are_survived_and_said(layer):
    x, weights, _ = layer(1000, 12, 1, 1)
    z = x[:, :, 0] * weights[0, :, 0]
    z[:, 4] = z[:, 1]
    z[:, 7] = -2 * z[:, 2]
    z[:, 5] = 0.0
    found = Contributions.of_samples(z)
    for count in range(1, 13):
        selected = select_by_lasso(found, count)
        assert len(selected.kept) == count
        assert len(set(selected.kept.tolist())) == count
        assert selected.ridge > 0
        assert any("ridge" in note for note in selected.notes)
        assert selected.fit.error <= selected.fit.error_before + 1e-6 * found.energy / 1000
        assert bool(torch.isfinite(selected.fit.scales).all())
    assert selected.filled == (5,)
    assert any("taken by their energy" in note for note in selected.notes)


def test_more_channels_than_samples_and_a_target_of_nothing():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(10, 30, generator=g)
    selected = select_by_lasso(Contributions.of_samples(z), 20)
    assert len(selected.kept) == 20
    assert selected.ridge > 0
    nothing = select_by_lasso(Contributions.of_samples(z, torch.zeros(10)), 5)
    assert len(nothing.filled) == 5
    assert nothing.fit.error == pytest.approx(0, abs=1e-9)


def test_a_count_out_of_range_is_refused(layer):
    x, _, y = layer(100, 4, 1, 1)
    found = Contributions.of_samples(x[:, :, 0], y[:, 0])
    for count in (0, 5, -1):
        with pytest.raises(UsageError, match=f"{count} channels cannot be kept of 4: give a number from 1 to 4"):
            select_by_lasso(found, count)
