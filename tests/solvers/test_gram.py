"""One pass over the samples: the products are those of all samples, whatever the batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur._errors import UsageError
from secateur.solvers import Contributions, GramAccumulator, Grams


def gather(x: torch.Tensor, y: torch.Tensor, sizes: list[int] | None = None) -> Grams:
    sums = GramAccumulator(x.shape[1], x.shape[2], y.shape[1])
    parts = [len(x)] if sizes is None else [*sizes, len(x) - sum(sizes)]
    for a, b in zip(x.split(parts), y.split(parts), strict=True):
        sums.add(a, b)
    return sums.grams()


def test_products_are_those_of_numpy(layer):
    x, _, y = layer(5000, 30, 9, 7)
    found, flat = gather(x, y), x.flatten(1).double()
    assert (found.samples, found.channels, found.taps, found.outputs) == (5000, 30, 9, 7)
    for ours, exact in (
        (found.xtx, flat.T @ flat),
        (found.xty, flat.T @ y.double()),
        (found.yty, y.double().square().sum(0)),
        (found.x_sum, flat.sum(0)),
        (found.y_sum, y.double().sum(0)),
    ):
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-6 * float(exact.abs().max()))
    assert torch.equal(found.xtx, found.xtx.T)


def test_entries_are_off_by_less_than_the_rounding_says(layer):
    for columns in (8, 130, 1300):  # in float64; by threads with sums of their own; shared out by PyTorch
        x, _, y = layer(9000, columns, 1, 3)
        found, flat = gather(x, y), x.flatten(1).double()
        size = flat.square().sum(0).sqrt()
        assert float(((found.xtx - flat.T @ flat).abs() / size / size[:, None]).max()) < found.rounding
        exact = gather(x.double(), y.double())
        assert exact.rounding < found.rounding
        assert float(((exact.xtx - flat.T @ flat).abs() / size / size[:, None]).max()) < exact.rounding


def test_few_rows_of_one_sign_are_off_by_less_than_the_rounding_says():
    g = torch.Generator().manual_seed(0)
    for rows in (250, 500, 1000):
        x = torch.rand(rows, 512, 1, generator=g) + 0.5
        found, flat = gather(x, x[:, :1, 0]), x.flatten(1).double()
        size = flat.square().sum(0).sqrt()
        assert float(((found.xtx - flat.T @ flat).abs() / size / size[:, None]).max()) < found.rounding


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(0, 2500), max_size=4))
def test_the_batches_do_not_matter(sizes):
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(10_000, 6, 2, generator=g), torch.randn(10_000, 3, generator=g)
    whole, parts = gather(x, y), gather(x, y, sizes)
    assert parts.samples == 10_000
    torch.testing.assert_close(parts.xtx, whole.xtx, rtol=0, atol=1e-6 * float(whole.xtx.abs().max()))
    torch.testing.assert_close(parts.xty, whole.xty, rtol=0, atol=1e-6 * float(whole.xtx.abs().max()))


def test_a_batch_may_be_overwritten_and_more_may_follow(layer):
    x, _, y = layer(300, 5, 1, 2)
    sums = GramAccumulator(5, 1, 2)
    batch = x.clone()
    sums.add(batch[:, :, 0], y)
    batch.zero_()
    first = sums.grams()
    sums.add(x, y)
    second = sums.grams()
    assert (first.samples, second.samples) == (300, 600)
    torch.testing.assert_close(second.xtx, 2 * first.xtx)
    torch.testing.assert_close(first.xtx, x[:, :, 0].double().T @ x[:, :, 0].double(), rtol=1e-5, atol=1e-3)


def test_inference_mode_half_precision_and_other_threads_leave_no_trace(layer):
    x, _, y = layer(6000, 150, 1, 2)
    before = torch.get_num_threads()
    sums = GramAccumulator(150, 1, 2)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            sums.add(x.bfloat16(), y.bfloat16())
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    sums.add(x, y)
    found, flat, rounded = sums.grams(), x[:, :, 0].double(), x[:, :, 0].bfloat16().double()
    expected = rounded.T @ rounded + flat.T @ flat
    torch.testing.assert_close(found.xtx, expected, rtol=2e-6, atol=1e-3)
    assert torch.get_num_threads() == before


def test_error_and_centred_products_are_those_of_the_samples(layer):
    x, weights, y = layer(2000, 6, 4, 3)
    y = y + 2.0
    found, kept = gather(x, y), torch.tensor([0, 2, 5])
    new, bias = torch.randn(3, 3, 4), torch.randn(3)
    output = x[:, kept].flatten(1) @ new.flatten(1).T
    for b in (None, bias):
        direct = (y - output - (0 if b is None else b)).double().square().sum(1).mean()
        assert found.error(new, kept, b) == pytest.approx(float(direct), rel=1e-5)
    assert found.error(weights, bias=torch.full((3,), 2.0)) == pytest.approx(0, abs=1e-4)
    centred, flat = found.centred(), x.flatten(1).double()
    flat = flat - flat.mean(0)
    torch.testing.assert_close(centred.xtx, flat.T @ flat, rtol=1e-4, atol=1e-2)
    assert not centred.x_sum.any()


def test_contributions_are_those_of_the_samples(layer):
    for channels in (7, 130):
        x, weights, y = layer(500, channels, 4, 3)
        y = y + torch.randn(500, 3)
        found = Contributions.of_layer(gather(x, y), weights)
        z = torch.einsum("sck,nck->snc", x.double(), weights.double()).flatten(0, 1)
        torch.testing.assert_close(found.gram, z.T @ z, rtol=1e-5, atol=1e-5 * float((z.T @ z).abs().max()))
        torch.testing.assert_close(found.target, z.T @ y.double().flatten(), rtol=1e-5, atol=1e-2)
        torch.testing.assert_close(found.norms, weights.double().square().sum((0, 2)).sqrt())
        assert found.energy == pytest.approx(float(y.double().square().sum()), rel=1e-6)
        kept, scales = torch.tensor([1, 3]), torch.tensor([0.5, 2.0])
        direct = (y.double().flatten() - z[:, kept] @ scales.double()).square().sum() / 500
        assert found.error(kept, scales) == pytest.approx(float(direct), rel=1e-5)
    own = Contributions.of_samples(z.float())
    told = Contributions.of_samples(z.float(), z.float().sum(1))
    torch.testing.assert_close(own.target, told.target, rtol=1e-5, atol=1e-2)
    assert own.energy == pytest.approx(told.energy, rel=1e-5)


def test_bad_input_is_told(layer):
    x, weights, y = layer(100, 4, 3, 2)
    with pytest.raises(UsageError, match=r"channels is 0(.|\n)*outputs is -1"):
        GramAccumulator(0, 3, -1)
    sums = GramAccumulator(4, 3, 2, samples=5000)
    with pytest.raises(UsageError, match=r"x is \[100, 4\] where(.|\n)*y is \[100\] where"):
        sums.add(x[:, :, 0], y[:, 0])
    with pytest.raises(UsageError, match="x has 100 samples and y has 99"):
        sums.add(x, y[:99])
    sums.add(x, y)
    with pytest.raises(UsageError, match="100 samples were given where 5,000 are asked for"):
        sums.grams()
    with pytest.raises(UsageError, match="0 samples were given where 1 are asked"):
        GramAccumulator(4, 3, 2).grams()
    with pytest.raises(UsageError, match="100 samples were given where 101"):
        Contributions.of_samples(x[:, :, 0], samples=101)
    grams = gather(x, y)
    with pytest.raises(UsageError, match=r"weights are \[2, 4, 1\]"):
        Contributions.of_layer(grams, weights[:, :, :1])
    with pytest.raises(UsageError, match="not finite"):
        Contributions.of_layer(grams, weights * float("nan"))
    with pytest.raises(UsageError, match="norms"):
        Contributions.of_samples(x[:, :, 0], norms=torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("where", ["x", "y"])
def test_values_that_are_not_finite_are_refused(layer, value, where):
    x, _, y = layer(100, 50, 3, 2)
    (x if where == "x" else y)[17] = value
    with pytest.raises(UsageError, match="not finite"):
        gather(x, y)


def test_there_is_no_way_on_after_values_that_are_not_finite(layer):
    x, _, y = layer(3000, 10, 1, 2)
    sums = GramAccumulator(10, 1, 2)
    sums.add(x[:1000], y[:1000])
    with pytest.raises(UsageError, match="not finite"):
        sums.add(x[1000:] * float("nan"), y[1000:])
    with pytest.raises(UsageError, match="not finite"):
        sums.grams()
