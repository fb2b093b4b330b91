"""Code that handles sizes in ways that are known to follow a cut needs no dry run; any other is always tried."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur as sc
from secateur.graph.capture import capture
from secateur.graph.probe import Prober

TOKENS = torch.zeros(2, 6, 5)


class Net(nn.Module):
    """Three linear layers; what is between the first two belongs to the test."""

    def __init__(self, between: Callable[[Net, Tensor, Tensor], Tensor]):
        super().__init__()
        self.first, self.aside = nn.Linear(5, 12), nn.Linear(5, 12)
        self.second, self.head = nn.Linear(12, 7), nn.Linear(7, 3)
        self.norm, self.grouped = nn.GroupNorm(4, 12), nn.Conv1d(12, 12, 1, groups=4)
        self.attention = nn.MultiheadAttention(12, 4, batch_first=True)
        self.weight = nn.Parameter(torch.ones(12))
        self.heads, self.width, self.front, self.borders = 4, 12, 5, [5, 7]
        self.tokens, self.dim = 6, 2
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.between(self, self.first(x), self.aside(x))).relu())


def attended(net: Net, y: Tensor, z: Tensor, bias: Tensor | None = None) -> Tensor:
    q, k = (t.view(2, 6, net.heads, -1).transpose(1, 2) for t in (y, z))
    return F.scaled_dot_product_attention(q, k, k, bias, scale=0.5).transpose(1, 2).reshape(2, 6, -1)


FOLLOWING: dict[str, Callable[[Net, Tensor, Tensor], Tensor]] = {
    "nothing": lambda net, y, z: y + z,
    "attention": attended,
    "a bias of attention": lambda net, y, z: attended(net, y, z, torch.zeros(1, net.heads, 6, 6)),
    "an attribute for an axis": lambda net, y, z: y.view(2, 6, net.heads, -1).sin().reshape(2, 6, net.width) + z,
    "a size of the same units": lambda net, y, z: y.cos().reshape(12, y.shape[-1]).view(y.shape) + z,
    "a share": lambda net, y, z: y.reshape(2, 6, net.heads, y.shape[-1] // net.heads).sin().flatten(2),
    "sizes that stay": lambda net, y, z: y.view(2, net.tokens, -1)[:, : net.tokens].roll(1, 1) + y.shape[1],
    "an attribute that says an axis": lambda net, y, z: torch.cat([y, z], dim=net.dim).sum(net.dim, keepdim=True) * y,
    "a comparison of what stays": lambda net, y, z: y if y.shape[1] == net.tokens else z,
    "a split": lambda net, y, z: torch.cat(y.split(net.borders, dim=-1)[::-1], -1),
    "slices": lambda net, y, z: torch.cat([y[..., net.front :], y[..., 0 : net.front]], -1),
    "a slice of everything": lambda net, y, z: y[..., :12] + z[..., 0:99],
    "equal parts": lambda net, y, z: torch.cat(y.chunk(3, -1)[::-1], -1) + z,
    "halves that are tied": lambda net, y, z: torch.cat([torch.mul(*y.chunk(2, -1))] * 2, -1),
    "pieces of a fixed axis": lambda net, y, z: torch.stack([t.sin() for t in y.unbind(1)], 1) + z,
    "padding beside it": lambda net, y, z: F.pad(y, (0, 0, 0, 2))[:, :6] + z,
    "the attention of PyTorch": lambda net, y, z: net.attention(y, z, z, need_weights=False)[0] + z,
    "the shape of another": lambda net, y, z: y.flatten(0, 1).reshape_as(y) + z.view_as(z),
    "a lookup in a fixed axis": lambda net, y, z: y[:, torch.tensor([5, 4, 3, 2, 1, 0])] + z,
    "the layers of PyTorch": lambda net, y, z: net.grouped(net.norm(y.transpose(1, 2))).transpose(1, 2),
    "sums of products": lambda net, y, z: torch.einsum("bnc,bnc->bn", y, z)[..., None] * y,
    "a constant": lambda net, y, z: y + torch.zeros(2, 6, 1) + torch.ones(()),
    "a constant of the right size": lambda net, y, z: y + torch.zeros(net.width),
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_code_that_follows_by_itself_is_not_tried_and_would_pass(name: str) -> None:
    net = Net(FOLLOWING[name])
    prober = Prober(capture(net, (TOKENS,)))
    assert not prober.findings.in_doubt
    prober.run()
    assert prober.findings.spent["runs"] == 0
    assert prober.findings.free > 7, "more than the second layer can be cut"
    assert [failure for seed in range(4) if (failure := prober.findings.dry_run(seed))] == []
    graph = sc.trace(net, TOKENS)
    plan = sc.plan(graph, sc.score(graph, "l1"), {n: max(1, round(w * 0.6)) for n, w in graph.widths.items()})
    assert sc.verify(net, plan, TOKENS).exact


def repeated(times: object, y: Tensor) -> Tensor:
    return y * float(str(int(times)))  # type: ignore[call-overload]


DOUBTFUL: dict[str, Callable[[Net, Tensor, Tensor], Tensor]] = {
    "a number for an axis": lambda net, y, z: y.view(2, 6, 4, -1).sin().flatten(2),
    "a number for the whole": lambda net, y, z: y.reshape(12, 12).cos().view(2, 6, -1),
    "a number to broadcast to": lambda net, y, z: y.mean(-1, keepdim=True).expand(2, 6, 12) + z,
    "an attribute for an axis that stays": lambda net, y, z: attended(net, y, z)[:, : net.heads].sum(1, True) + z,
    "a size of other units": lambda net, y, z: z.reshape(2, 6, y.shape[-1]),
    "arithmetic": lambda net, y, z: y * (y.shape[-1] * 2),
    "a sum of attributes": lambda net, y, z: y.view(2, 6, net.heads, -1).flatten(2) * (net.heads + 1),
    "a division": lambda net, y, z: y.view(2, 6, net.heads, -1).flatten(2) / net.heads,
    "a root": lambda net, y, z: y / math.sqrt(y.shape[-1]),
    "a root of an array": lambda net, y, z: y / float(np.sqrt(y.shape[-1])),
    "a product of an array": lambda net, y, z: y * int(np.prod(y.shape[1:])),
    "a product": lambda net, y, z: y * math.prod(y.shape),
    "a sum": lambda net, y, z: y * sum(y.shape),
    "the largest": lambda net, y, z: y * max(y.shape),
    "the number of elements of a shape": lambda net, y, z: y / y.shape.numel(),
    "a power": lambda net, y, z: y * y.shape[-1] ** -0.5,
    "a comparison": lambda net, y, z: y if y.shape[-1] > 8 else z,
    "a comparison of an attribute": lambda net, y, z: y.view(2, 6, net.heads, -1).flatten(2) if net.heads == 4 else z,
    "a truth": lambda net, y, z: y if y.shape[-1] else z,
    "a rest": lambda net, y, z: y * (y.shape[-1] % 5),
    "a share without its divisor": lambda net, y, z: y * (y.shape[-1] // 5),
    "a plain number": lambda net, y, z: repeated(y.shape[-1], y),
    "a count": lambda net, y, z: sum([y for _ in range(y.shape[-1])], z),
    "a number of copies": lambda net, y, z: sum([y] * y.shape[-1], z),
    "a number to compute with": lambda net, y, z: torch.add(y, net.width) + y.view(2, 6, net.width),
    "the number of elements": lambda net, y, z: y / y.numel(),
    "a length": lambda net, y, z: y * net.weight / len(net.weight) + z,
    "a shape of a parameter": lambda net, y, z: y * net.weight * net.weight.shape[0] + z,
    "a slice": lambda net, y, z: torch.cat([y[..., 5:], y[..., :5]], -1),
    "half of it": lambda net, y, z: torch.cat([y[..., : y.shape[-1] // 2], y[..., y.shape[-1] // 2 :]], -1) + z,
    "a slice of the end": lambda net, y, z: torch.cat([y[..., -5:], y[..., :-5]], -1),
    "a step": lambda net, y, z: torch.cat([y[..., ::2], y[..., 1::2]], -1),
    "some of its places": lambda net, y, z: torch.cat([y[..., :4], y[..., 4:8], y[..., 8:]], -1) + z,
    "a split": lambda net, y, z: torch.cat(y.split(4, dim=-1)[::-1], -1),
    "padding of it": lambda net, y, z: F.pad(y, (1, 0))[..., :-1] + z,
    "a constant": lambda net, y, z: y + torch.zeros(12),
    "a constant of the wrong units": lambda net, y, z: y + torch.zeros(z.shape[-1]),
    "a constant beside it": lambda net, y, z: torch.cat([y[..., :1], torch.zeros(2, 6, 11)], -1) + z,
    "an attention's own scale": lambda net, y, z: F.scaled_dot_product_attention(y, z, z),
    "groups": lambda net, y, z: F.conv1d(y.mT, net.grouped.weight, groups=4).mT + z,
    "an operation that nobody hears": lambda net, y, z: torch.ops.aten.slice.Tensor(y, 2, 0, 12),
    "copies": lambda net, y, z: y.view(2, 6, net.heads, -1).repeat_interleave(2, 2).flatten(2)[..., :12] + z,
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_code_that_may_not_follow_is_tried(name: str) -> None:
    assert Prober(capture(Net(DOUBTFUL[name]), (TOKENS,))).findings.in_doubt


class Shared(nn.Module):
    """Attention in which two heads of queries share one of keys."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.out = nn.Linear(5, 24), nn.Linear(5, 12), nn.Linear(24, 3)
        self.dim = 3

    def forward(self, x: Tensor) -> Tensor:
        q, k = (t.view(*x.shape[:-1], -1, self.dim).transpose(1, 2) for t in (self.q(x), self.k(x)))
        y = F.scaled_dot_product_attention(q, k, k, scale=0.5, enable_gqa=True)
        return self.out(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


def test_heads_that_share_keys_follow_together() -> None:
    prober = Prober(capture(Shared(), (TOKENS,)))
    assert not prober.findings.in_doubt
    assert {g.kind: g.width for g in prober.findings.groups if not g.locked}["head"] == 4
    assert [failure for seed in range(4) if (failure := prober.findings.dry_run(seed))] == []


class Counting(nn.Module):
    """One linear layer for all heads, asked once for each."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.up, self.each, self.heads, self.code = nn.Linear(5, 12), nn.Linear(3, 3), 4, code
        self.shape = (4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).view(2, 6, self.shape[0] if self.code == "entry" else self.heads, -1)
        if self.code == "isqrt":
            return self.each(y).sum(2) * math.isqrt(self.heads)
        total = self.each(y).sum(2)
        for _ in range(self.shape[0] if self.code == "entry" else self.heads):
            total = total + self.each(y).sum(2)
        return total


@pytest.mark.parametrize("code", ["isqrt", "range", "entry"])
def test_code_that_may_use_an_attribute_in_silence_is_tried(code: str) -> None:
    assert Prober(capture(Counting(code), (TOKENS,))).findings.in_doubt
