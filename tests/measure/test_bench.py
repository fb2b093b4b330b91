"""Runtimes side by side: a row each, with a latency or with the reason for none."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from secateur._errors import UnknownName
from secateur.measure import bench


@pytest.fixture
def models():
    torch.manual_seed(0)
    return {"dense": nn.Sequential(nn.Linear(8, 16), nn.ReLU()), "pruned": nn.Sequential(nn.Linear(8, 4), nn.ReLU())}


def test_eager_rows(models):
    rows = bench(models, torch.randn(2, 8), ("eager",), runs=3, warmup=1)
    assert [(r.backend, r.model, r.reason) for r in rows] == [("eager", "dense", None), ("eager", "pruned", None)]
    for row in rows:
        assert row.latency is not None
        assert row.latency.runs == 3
        assert row.speedup is not None
    assert rows[0].speedup.median == 1.0
    assert all(m.training for m in models.values())


def test_a_model_that_fails_has_a_reason_and_the_others_are_measured(models):
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("no such luck\nsecond line")

    rows = bench({"dense": models["dense"], "broken": Broken()}, torch.randn(2, 8), ("eager",), runs=3)
    assert rows[0].latency is not None
    assert (rows[1].latency, rows[1].speedup, rows[1].reason) == (None, None, "ValueError: no such luck")
    rows = bench({"broken": Broken(), "dense": models["dense"]}, torch.randn(2, 8), ("eager",), runs=3)
    assert rows[1].latency is not None
    assert rows[1].speedup is None


def test_an_unknown_backend_is_named(models):
    with pytest.raises(UnknownName, match="did you mean 'onnxruntime'"):
        bench(models, torch.randn(2, 8), ("onnx-runtime",))


@pytest.mark.skipif(
    all(importlib.util.find_spec(m) for m in ("onnx", "onnxscript", "onnxruntime")), reason="the extra is installed"
)
def test_without_the_extra_onnxruntime_says_how_to_get_it(models):
    rows = bench(models, torch.randn(2, 8), ("onnxruntime",), runs=3)
    assert [r.latency for r in rows] == [None, None]
    assert all(r.reason is not None and r.reason.startswith("MissingExtra") for r in rows)


def test_onnxruntime_rows(models):
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    rows = bench(models, torch.randn(2, 8), ("onnxruntime",), runs=3)
    assert [r.reason for r in rows] == [None, None]


@pytest.mark.nightly
def test_compiled_rows(models):
    rows = bench(models, torch.randn(2, 8), ("compiled",), runs=3, warmup=1)
    for row in rows:
        assert (row.latency is None) == (row.reason is not None)
        assert row.backend == "compiled"
