"""Least squares from products, against NumPy's on the samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur._errors import UsageError
from secateur.solvers import Contributions, GramAccumulator, Grams, fit_scales, fit_weights


def gather(x: torch.Tensor, y: torch.Tensor) -> Grams:
    sums = GramAccumulator(x.shape[1], x.shape[2], y.shape[1])
    sums.add(x, y)
    return sums.grams()


def by_numpy(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """[n, columns]"""
    return np.linalg.lstsq(x.flatten(1).double().numpy(), y.double().numpy(), rcond=None)[0].T


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), c=st.integers(1, 8), k=st.sampled_from([1, 4, 9]), n=st.integers(1, 6))
def test_weights_are_those_of_numpy(seed, c, k, n):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(400, c, k, generator=g, dtype=torch.float64)
    y = torch.randn(400, n, generator=g, dtype=torch.float64) + 0.5
    kept = torch.randperm(c, generator=g)[: max(1, c // 2)]
    found = fit_weights(gather(x, y), kept)
    assert found.kept.tolist() == sorted(kept.tolist())
    expected = by_numpy(x[:, found.kept], y)
    np.testing.assert_allclose(found.weights.flatten(1).numpy(), expected, rtol=1e-8, atol=1e-8)
    left = y - x[:, found.kept].flatten(1) @ found.weights.flatten(1).T
    assert found.error == pytest.approx(float(left.square().sum() / 400), rel=1e-8)
    assert found.relative_error == pytest.approx(float(left.square().sum() / y.square().sum()), rel=1e-8)
    assert (found.ridge, found.notes, found.bias) == (0.0, (), None)


def test_a_bias_is_fitted_with_the_weights(layer):
    x, weights, y = layer(3000, 6, 4, 3, dtype=torch.float64)
    y = y + torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    kept = torch.tensor([0, 1, 4])
    found = fit_weights(gather(x, y), kept, weights, intercept=True)
    with_ones = torch.cat([x[:, kept].flatten(1), torch.ones(3000, 1, dtype=torch.float64)], 1)
    expected = by_numpy(with_ones, y)
    np.testing.assert_allclose(found.weights.flatten(1).numpy(), expected[:, :-1], rtol=1e-6, atol=1e-8)
    assert found.bias is not None
    np.testing.assert_allclose(found.bias.numpy(), expected[:, -1], rtol=1e-6)
    assert found.error < fit_weights(gather(x, y), kept, weights).error
    whole = fit_weights(gather(x, y), torch.arange(6), weights, intercept=True)
    assert torch.equal(whole.weights, weights)
    assert whole.bias is not None
    torch.testing.assert_close(whole.bias, torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))


def test_all_channels_of_its_own_output_leave_the_weights_bit_for_bit(layer):
    for seed, (c, k, n) in enumerate([(3, 1, 1), (16, 9, 8), (64, 9, 32)]):
        x, weights, y = layer(4000, c, k, n, seed)
        found = fit_weights(gather(x, y), torch.arange(c), weights)
        assert torch.equal(found.weights, weights.double())
        assert found.ridge == 0.0
        assert found.relative_error < 1e-6


def test_float32_samples_give_the_error_of_float64(layer):
    x, weights, y = layer(4000, 32, 9, 8)
    kept = torch.arange(0, 32, 2)
    ours = fit_weights(gather(x, y), kept, weights)
    exact = fit_weights(gather(x.double(), y.double()), kept, weights)
    assert ours.error == pytest.approx(exact.error, rel=1e-4)
    assert ours.error < ours.error_before


def test_dependent_columns_get_a_ridge_towards_the_old_weights_and_it_is_said(layer):
    for dtype in (torch.float32, torch.float64):
        x, weights, _ = layer(1000, 6, 4, 3, dtype=dtype)
        x[:, 1] = 0.0  # never fires
        x[:, 3] = x[:, 2]
        target = x.flatten(1) @ weights.flatten(1).T
        kept = torch.tensor([0, 1, 2, 3])
        found = fit_weights(gather(x, target), kept, weights)
        assert found.ridge > 0
        assert any("ridge" in note for note in found.notes)
        assert torch.equal(found.weights[:, 1], weights[:, 1].double())
        assert found.error <= found.error_before
        best = target.double() - x[:, kept].flatten(1).double() @ torch.from_numpy(by_numpy(x[:, kept], target)).T
        assert found.error == pytest.approx(float(best.square().sum() / 1000), rel=1e-3)
        # Two copies share what they have to take over.
        moved = found.weights - weights[:, kept].double()
        torch.testing.assert_close(moved[:, 2], moved[:, 3], rtol=1e-2, atol=1e-3)


def test_fewer_samples_than_columns():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 10, 4, generator=g), torch.randn(20, 3, generator=g)
    found = fit_weights(gather(x, y), torch.arange(8))
    assert found.ridge > 0
    assert found.relative_error < 1e-3
    assert bool(torch.isfinite(found.weights).all())


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    c=st.integers(1, 10),
    samples=st.integers(1, 60),
    rank=st.integers(1, 10),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_never_more_error_than_the_old_weights(seed, c, samples, rank, dtype):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, rank, generator=g, dtype=dtype) @ torch.randn(rank, c * 2, generator=g, dtype=dtype)
    x, weights = x.reshape(samples, c, 2), torch.randn(2, c, 2, generator=g, dtype=dtype)
    y = x.flatten(1) @ weights.flatten(1).T
    kept = torch.randperm(c, generator=g)[: max(1, c // 2)]
    grams = gather(x, y)
    slack = 20 * grams.rounding * float(grams.yty.sum() + (weights.double().flatten() ** 2).sum() * grams.xtx.trace())
    found = fit_weights(grams, kept, weights)
    assert found.error <= found.error_before + slack / samples
    scales = fit_scales(Contributions.of_layer(grams, weights), kept)
    assert scales.error <= scales.error_before + slack / samples
    assert found.error <= scales.error + slack / samples


def test_kept_channels_that_do_not_fit_are_all_told(layer):
    x, weights, y = layer(100, 4, 1, 2)
    grams = gather(x, y)
    with pytest.raises(UsageError, match=r"outside of 0 to 3(.|\n)*named twice"):
        fit_weights(grams, torch.tensor([1, 1, 4]))
    with pytest.raises(UsageError, match="at least one"):
        fit_scales(Contributions.of_layer(grams, weights), torch.tensor([], dtype=torch.int64))
    for wrong in (torch.tensor([True, False, True, True]), torch.tensor([0.0]), torch.tensor([[0]])):
        with pytest.raises(UsageError, match="indices"):
            fit_weights(grams, wrong)
    with pytest.raises(UsageError, match=r"weights are \[2, 3, 1\]"):
        fit_weights(grams, torch.tensor([0]), weights[:, :3])
    with pytest.raises(UsageError, match="not finite"):
        fit_weights(grams, torch.tensor([0]), weights * float("inf"))
