"""A cut that leaves a single head makes PyTorch reshape in other steps; that is no reason to lock the heads."""

from __future__ import annotations

import pytest
import torch

from secateur.graph import trace
from secateur.surgery import make_plan, verify
from secateur.testing import token_toys

KINDS = ["FusedAttention", "ManualAttention", "ChunkedAttention", "SeparateAttention"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_two_heads_is_cut_exactly(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_toys, "HEADS", 2)
    model, x = getattr(token_toys, kind)(), torch.randn(1, 7, 6)
    graph = trace(model, x)
    (heads,) = [g for g in graph.prunable if g.kind == "head"]
    assert heads.width == 2
    assert verify(model, make_plan(graph, {heads.name: [1]}), x).exact
