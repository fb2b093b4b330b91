"""Functions that are called directly are seen as they are through PyTorch, or as one operation that ties the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.graph import PruningGraph, functions, leaves
from secateur.graph.capture import Capture, capture


class Calls(nn.Module):
    """Code that gets an activation of shape (2, 6, 8) with units on its last axis, and a vector of them."""

    def __init__(self, code: Callable[[Tensor, Tensor], Any]):
        super().__init__()
        self.first, self.last, self.code = nn.Linear(4, 8), nn.Linear(8, 3), code
        self.vector = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.code(self.first(x), self.vector)
        return self.last(y) if y.shape[-1] == 8 else y.flatten(1)


X = torch.zeros(2, 6, 4)
SAME = {
    "add": lambda x, v: x + v,
    "add_function": lambda x, v: torch.add(x, v),
    "add_scaled": lambda x, v: torch.add(x, v, alpha=2),
    "sub": lambda x, v: x - v[:1],
    "sub_number": lambda x, v: x - 1,
    "reversed": lambda x, v: 1 - x,
    "mul": lambda x, v: 2 * x * v * x,
    "mul_half": lambda x, v: x * v.to(torch.float64),
    "mul_flag": lambda x, v: x * True,
    "div": lambda x, v: x / v / 3.0,
    "div_rounded": lambda x, v: torch.div(x, v, rounding_mode="floor"),
    "transpose": lambda x, v: torch.transpose(x.transpose(1, 2), -1, -2),
    "view": lambda x, v: x.view(2, 3, 2, -1).view([12, 8]),
    "view_type": lambda x, v: x.view(torch.int32).view(torch.float32),
    "view_of_size": lambda x, v: x.view(x.size()) + v,
    "reshape": lambda x, v: torch.reshape(x.reshape(-1, 8), (2, 6, 8)),
    "reshape_copy": lambda x, v: x.transpose(1, 2).reshape(2, 48),
    "dropout": lambda x, v: F.dropout(x, 0.3, False) * v,
}


def seen(recorded: Capture) -> list[tuple]:
    return [
        (
            *(o.name, o.module, o.ordinal, o.shapes, o.numbers),
            [[(s.shape, s.stride(), s.flatten().tolist()) for s in systems] for systems in o.outputs],
        )
        for o in recorded.operations
    ]


@pytest.mark.parametrize("name", SAME)
def test_a_function_is_seen_as_through_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Calls(SAME[name])
    direct = seen(capture(model, X))
    monkeypatch.setattr(functions, "FUNCTIONS", {})
    assert direct == seen(capture(model, X))


class Attention(nn.Module):
    """Four heads of width 4 (values of width ``wide``) over the tokens of ``x``, keys and values of ``memory``."""

    def __init__(self, attend: Callable[..., Tensor], wide: int = 4, heads: bool = True):
        super().__init__()
        self.stem, self.side, self.attend, self.heads = nn.Linear(8, 24), nn.Linear(8, 20), attend, heads
        self.q, self.k, self.v = nn.Linear(24, 16), nn.Linear(20, 16, bias=False), nn.Linear(20, 4 * wide)
        self.norm, self.out, self.head = nn.LayerNorm(24), nn.Linear(4 * wide, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x, memory = self.stem(x), self.side(memory)
        q, k, v = self.q(self.norm(x)), self.k(memory), self.v(memory)
        if self.heads:
            q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in (q, k, v))
        y = self.attend(q, k, v)
        if self.heads:
            y = y.transpose(1, 2).flatten(2)
        return self.head(x + self.out(y))


def _by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) * 0.5).softmax(-1).matmul(v)


def _mask(*shape: int) -> Tensor:
    return torch.linspace(0, 1, 1000).sin()[: torch.Size(shape).numel()].reshape(shape)


_OWN_SCALE = {"scale": 0.4}
ATTENTIONS = {
    "plain": Attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **_OWN_SCALE)),
    "scaled by width": Attention(F.scaled_dot_product_attention),
    "wide values": Attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **_OWN_SCALE), wide=6),
    "additive mask": Attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, _mask(6, 5), **_OWN_SCALE)),
    "mask for each head": Attention(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, _mask(4, 6, 5), **_OWN_SCALE)
    ),
    "mask of zeros": Attention(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.zeros(1, 4, 6, 5), **_OWN_SCALE)
    ),
    "boolean mask": Attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, _mask(1, 1, 1, 5) < 0.5)),
    "causal": Attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, **_OWN_SCALE)),
    "one head": Attention(F.scaled_dot_product_attention, heads=False),
    "one head, causal": Attention(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, **_OWN_SCALE), heads=False
    ),
    "shared heads": Attention(
        lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True, **_OWN_SCALE)
    ),
    "by hand": Attention(_by_hand),
    "by hand, one head": Attention(_by_hand, heads=False),
    "by hand, values in rows": Attention(lambda q, k, v: torch.matmul(q.softmax(-1), k.mT) @ v),
    "queries of several widths": Attention(
        lambda q, k, v: F.scaled_dot_product_attention(q.softmax(-2), k.cumsum(-1), v, **_OWN_SCALE)
    ),
}


def wiring(graph: PruningGraph) -> dict[str, Any]:
    """What the cuts of a graph come to."""
    return {
        "groups": {
            g.name: (g.width, g.kind, g.least, {(str(m), m.role, m.positions.tobytes()) for m in g.members})
            for g in graph.groups
            if not g.locked
        },
        "sites": {(s.module, s.op, s.ordinal, s.argument, s.dims) for s in graph.ledger.sites},
        "literals": {(x.module, x.attribute, x.index) for x in graph.literals},
        "blocks": [b.name for b in graph.blocks],
        "cost": graph.cost(),
        "least": graph.cost(dict.fromkeys(graph.widths, 1)),
    }


@pytest.mark.parametrize("name", ATTENTIONS)
def test_an_attention_is_one_operation_that_ties_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = ATTENTIONS[name], (torch.zeros(1, 6, 8), torch.zeros(1, 5, 8))
    graph = sc.trace(model, inputs)
    direct = wiring(graph)
    budget = {g.name: max(1, g.width // 2) for g in graph.prunable}
    plan = sc.plan(graph, sc.score(graph, "l1"), budget)
    assert sc.verify(model, plan, inputs).exact
    count = len(capture(model, inputs).operations)
    monkeypatch.setattr(functions, "FUNCTIONS", {})
    monkeypatch.setattr(leaves, "LEAVES", {})
    assert direct == wiring(sc.trace(model, inputs))
    assert count < len(capture(model, inputs).operations)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_batch_ties_no_heads(name: str) -> None:
    """PyTorch's own steps make one axis of the examples and the heads, of which no head can be taken alone."""
    model = ATTENTIONS[name]
    inputs = [(torch.zeros(n, 6, 8), torch.zeros(n, 5, 8)) for n in (1, 2)]
    one, two = (sc.trace(model, some) for some in inputs)
    assert wiring(one)["groups"] == wiring(two)["groups"]
    assert two.cost().macs == 2 * one.cost().macs
    plan = sc.plan(two, sc.score(two, "l1"), {g.name: max(1, g.width // 2) for g in two.prunable})
    assert sc.verify(model, plan, inputs[1]).exact


class Projection(nn.Module):
    def __init__(self, bias: bool, move: Callable[[Tensor], Tensor] = lambda x: x):
        super().__init__()
        self.stem, self.layer, self.head, self.move = nn.Linear(4, 8), nn.Linear(8, 6, bias=bias), nn.Linear(6, 3), move

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.move(self.stem(x))).relu())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 4), (2, 5, 4), (2, 3, 5, 4), (4,), (2, 0, 4)])
@pytest.mark.parametrize("move", ["kept", "turned", "tokens"])
def test_a_linear_layer_is_one_operation_that_ties_the_same(
    bias: bool, shape: tuple[int, ...], move: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: dict[str, Callable[[Tensor], Tensor]] = {
        "kept": lambda x: x,
        "turned": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1) if x.dim() > 1 else x,
        # Units on an axis that the layer passes over.
        "tokens": lambda x: x[..., None] + torch.zeros(8),
    }
    model, x = Projection(bias, moves[move]), torch.ones(shape)
    direct = wiring(sc.trace(model, x))
    monkeypatch.setattr(leaves, "LEAVES", {})
    assert direct == wiring(sc.trace(model, x))
