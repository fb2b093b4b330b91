"""A layer with fewer samples than columns is solved in the space of its samples: the same as by the products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from secateur._errors import UsageError
from secateur.solvers import (
    Contributions,
    FittedWeights,
    GramAccumulator,
    Grams,
    LayerAccumulator,
    Samples,
    contributions,
    fit_scales,
    fit_weights,
    remove_greedily,
    select_by_lasso,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
#: Channels and taps, and numbers of samples of which some, or all, are fewer than the columns.
LAYERS = pytest.mark.parametrize(
    ("c", "k", "samples"), [(12, 1, 11), (30, 1, 7), (10, 4, 25), (10, 4, 39), (9, 9, 1), (9, 9, 80), (300, 4, 100)]
)


def gather(x: Tensor, y: Tensor, batch: int = 7) -> Samples:
    """The samples themselves."""
    layer = LayerAccumulator(x.shape[1], x.shape[2], y.shape[1])
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        layer.add(a, b)
    found = layer.gathered()
    assert isinstance(found, Samples)
    return found


def multiply(x: Tensor, y: Tensor) -> Grams:
    """Their products, in float64 and as far off as samples of this precision."""
    sums, exact = (GramAccumulator(x.shape[1], x.shape[2], y.shape[1]) for _ in range(2))
    sums.add(x, y)
    exact.add(x.double(), y.double())
    return replace(exact.grams(), rounding=sums.grams().rounding)


def same(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


def by_singular_values(x: Tensor, y: Tensor, old: Tensor, ridge: float) -> Tensor:
    """The correction of ``old`` [m, n] with a ridge, of columns of unit norm."""
    x, y, old = x.double(), y.double(), old.double()
    size = torch.linalg.vector_norm(x, dim=0)
    size[size == 0] = 1.0
    u, s, v = torch.linalg.svd(x / size, full_matrices=False)
    step = v.T @ ((s / (s * s + ridge))[:, None] * (u.T @ (y - x @ old)))
    return old + step / size[:, None]


def assert_same_fit(ours: FittedWeights, theirs: FittedWeights, energy: float, tolerance: float) -> None:
    same(ours.weights, theirs.weights, tolerance)
    assert (ours.kept.tolist(), ours.ridge, ours.notes) == (theirs.kept.tolist(), theirs.ridge, theirs.notes)
    for name in ("error", "error_before"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=tolerance * energy, rel=tolerance)
    assert ours.relative_error == pytest.approx(theirs.relative_error, abs=tolerance, rel=tolerance)
    assert (ours.bias is None) == (theirs.bias is None)
    if ours.bias is not None and theirs.bias is not None:
        same(ours.bias, theirs.bias, tolerance)


@DTYPES
@LAYERS
def test_weights_are_those_of_the_products(layer: Callable, c: int, k: int, samples: int, dtype):
    x, weights, y = layer(samples, c, k, 6, dtype=dtype)
    y = y + torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    ours, theirs = gather(x, y), multiply(x, y)
    energy = float(theirs.yty.sum()) / samples
    every, half, last = torch.arange(c), torch.arange(0, c, 2), torch.tensor([c - 1])
    # Of one sample nothing is left beside an intercept.
    for kept, old, intercept in product((every, half, last), (weights, None), (False, True)[:samples]):
        found = fit_weights(ours, kept, old, intercept=intercept)
        expected = fit_weights(theirs, kept, old, intercept=intercept)
        # A ridge divides what rounding leaves where the samples say nothing: of the products, not of the samples.
        assert_same_fit(found, expected, energy, 1e-3 if found.ridge else 1e-7)
        assert found.error <= found.error_before + 1e-9 * energy
        dependent = len(kept) * k > samples - intercept
        assert (found.ridge > 0) == dependent
        assert any("solved with a ridge" in note for note in found.notes) == dependent
        assert any("fitted exactly" in note for note in found.notes) == (len(kept) * k > samples)


@DTYPES
@LAYERS
def test_weights_are_those_of_singular_values(layer: Callable, c: int, k: int, samples: int, dtype):
    x, weights, y = layer(samples, c, k, 6, dtype=dtype)
    y = y.flip(1)
    kept = torch.arange(0, c, 2) if c * k > 2 * samples else torch.arange(c)
    for old in (weights, torch.zeros_like(weights)):
        found = fit_weights(gather(x, y), kept, old)
        assert found.ridge == pytest.approx(1e-5 if dtype == torch.float32 else 1e-9)
        expected = by_singular_values(x[:, kept].flatten(1), y, old[:, kept].flatten(1).T, found.ridge)
        same(found.weights.flatten(1).T, expected, 1e-6)


@DTYPES
@LAYERS
def test_contributions_are_those_of_the_products(layer: Callable, c: int, k: int, samples: int, dtype):
    x, weights, y = layer(samples, c, k, 6, dtype=dtype)
    ours = Contributions.of_layer(gather(x, y), weights)
    theirs = Contributions.of_layer(multiply(x, y), weights)
    for name in ("gram", "target", "norms"):
        same(getattr(ours, name), getattr(theirs, name), 1e-12)
    assert ours.energy == pytest.approx(theirs.energy)
    assert (ours.samples, ours.rounding) == (theirs.samples, theirs.rounding)
    count = max(1, c // 3)
    assert select_by_lasso(ours, count).kept.tolist() == select_by_lasso(theirs, count).kept.tolist()
    kept = remove_greedily(ours).kept(count)
    assert kept.tolist() == remove_greedily(theirs).kept(count).tolist()
    same(fit_scales(ours, kept).scales, fit_scales(theirs, kept).scales, 1e-4)


@LAYERS
def test_contributions_come_out_the_same_in_both_ways(
    layer: Callable, c: int, k: int, samples: int, monkeypatch: pytest.MonkeyPatch
):
    x, weights, y = layer(samples, c, k, 6)
    found, w = gather(x, y), weights.double().flatten(1)
    expected = torch.einsum("sck,nck->csn", x.double(), weights.double()).flatten(1)
    monkeypatch.setattr(contributions, "_NUMBERS", 7 * c * 6)  # seven samples at a time
    for way in (contributions._by_samples, contributions._by_products):
        same(way(found, w).triu(), (expected @ expected.T).triu(), 1e-12)


def test_one_sample_and_columns_that_never_change_leave_the_weights_to_the_intercept(layer: Callable):
    x, weights, y = layer(1, 4, 2, 3)
    found = fit_weights(gather(x, y + 1), torch.tensor([0, 1]), weights, intercept=True)
    assert torch.equal(found.weights, weights[:, :2].double())
    assert found.error == pytest.approx(0, abs=1e-9)
    x, weights, y = layer(6, 4, 2, 3)
    x[:, 0] = 0.1
    found = fit_weights(gather(x, y + 1), torch.arange(4), weights - 1, intercept=True)
    assert torch.equal(found.weights[:, 0], (weights - 1)[:, 0].double())
    assert found.error < 1e-4 * found.error_before


@DTYPES
def test_its_own_output_leaves_the_weights_bit_for_bit(layer: Callable, dtype):
    x, weights, y = layer(20, 10, 4, 6, dtype=dtype)
    found = fit_weights(gather(x, y), torch.arange(10), weights)
    assert torch.equal(found.weights, weights.double())
    assert (found.ridge, found.notes) == (0.0, ())
    # Of one output alone there is something to make up for.
    y[:, 2] += 1.0
    found = fit_weights(gather(x, y), torch.arange(10), weights)
    others = torch.tensor([0, 1, 3, 4, 5])
    assert torch.equal(found.weights[others], weights[others].double())
    assert not torch.equal(found.weights[2], weights[2].double())
    assert found.error < 1e-4 * found.error_before


def test_columns_without_a_signal_keep_their_weights(layer: Callable):
    x, weights, y = layer(20, 10, 4, 6)
    x[:, 3] = 0.0
    found = fit_weights(gather(x, y.flip(1)), torch.arange(10), weights)
    assert torch.equal(found.weights[:, 3], weights[:, 3].double())
    assert bool(found.weights.isfinite().all())


def test_products_and_sums_are_those_of_the_samples(layer: Callable):
    x, weights, y = layer(50, 300, 9, 3)  # more columns than are in float64 at a time
    ours, theirs = gather(x, y), multiply(x, y)
    assert ours.x.dtype == torch.float32
    assert (ours.samples, ours.channels, ours.taps, ours.outputs) == (50, 300, 9, 3)
    for name in ("xty", "yty", "x_sum", "y_sum"):
        same(getattr(ours, name), getattr(theirs, name), 1e-12)
    some = torch.tensor([5, 1500, 2, 2699])
    for first, second in ((slice(None), slice(1000, None)), (some, some), (slice(7, 9), some)):
        same(ours.products(first, second), theirs.products(first, second), 1e-12)
    same(ours.centred().products(some, some), theirs.centred().products(some, some), 1e-9)
    new, bias, kept = torch.randn(3, 2, 9), torch.randn(3), torch.tensor([4, 200])
    for b in (None, bias):
        assert ours.error(new, kept, b) == pytest.approx(theirs.error(new, kept, b))
    assert ours.error(weights) == pytest.approx(0, abs=1e-4)


@DTYPES
@pytest.mark.parametrize("samples", [36, 37, 100, 6000])
def test_as_many_samples_as_columns_give_their_products_bit_for_bit(layer: Callable, samples: int, dtype):
    x, _, y = layer(samples, 9, 4, 5, dtype=dtype)
    kept, sums = LayerAccumulator(9, 4, 5), GramAccumulator(9, 4, 5)
    for a, b in zip(x.split(10), y.split(10), strict=True):
        kept.add(a, b)
        sums.add(a, b)
    ours, theirs = kept.gathered(), sums.grams()
    assert isinstance(ours, Grams)
    for name in ("xtx", "xty", "yty", "x_sum", "y_sum"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert (ours.samples, ours.rounding) == (theirs.samples, theirs.rounding)


def test_a_batch_may_be_overwritten_and_more_may_follow(layer: Callable):
    x, _, y = layer(60, 10, 4, 5)
    found, batch = LayerAccumulator(10, 4, 5), x[:30].clone()
    with torch.inference_mode():
        found.add(batch, y[:30])
    batch.zero_()
    first = found.gathered()
    found.add(x[30:35], y[30:35])
    second = found.gathered()
    assert isinstance(first, Samples)
    assert isinstance(second, Samples)
    assert torch.equal(first.x, x[:30].flatten(1))
    assert torch.equal(second.x, x[:35].flatten(1))
    found.add(x[35:], y[35:])
    third = found.gathered()
    assert isinstance(third, Grams)
    same(third.xtx, multiply(x, y).xtx, 1e-6)
    assert third.samples == 60


def test_half_precision_is_kept_and_one_float32_batch_decides_the_rounding(layer: Callable):
    x, _, y = layer(20, 10, 4, 5)
    assert gather(x.bfloat16(), y.bfloat16()).x.dtype == torch.bfloat16
    found = LayerAccumulator(10, 4, 5)
    found.add(x.double(), y.double())
    exact = found.gathered().rounding
    found.add(x, y)
    assert found.gathered().rounding > exact


def test_bad_input_is_told(layer: Callable):
    x, weights, y = layer(10, 4, 3, 2)
    with pytest.raises(UsageError, match=r"channels is 0(.|\n)*outputs is -1"):
        LayerAccumulator(0, 3, -1)
    found = LayerAccumulator(4, 3, 2)
    found.add(x[:0], y[:0])
    with pytest.raises(UsageError, match="0 samples were given where 1 are asked"):
        found.gathered()
    with pytest.raises(UsageError, match=r"x is \[10, 4\] where(.|\n)*y is \[10\] where"):
        found.add(x[:, :, 0], y[:, 0])
    with pytest.raises(UsageError, match="x has 10 samples and y has 9"):
        found.add(x, y[:9])
    with pytest.raises(UsageError, match=r"weights are \[2, 4, 1\]"):
        Contributions.of_layer(gather(x, y), weights[:, :, :1])
    with pytest.raises(UsageError, match="at least one"):
        fit_weights(gather(x, y), torch.tensor([], dtype=torch.int64))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e200])
@pytest.mark.parametrize("where", ["x", "y"])
def test_values_that_are_not_finite_are_refused(layer: Callable, value: float, where: str):
    x, _, y = layer(10, 50, 3, 2, dtype=torch.float64)
    (x if where == "x" else y)[7] = value
    with pytest.raises(UsageError, match="not finite"):
        gather(x, y)
