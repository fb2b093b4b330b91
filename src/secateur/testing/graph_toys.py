"""Toy models whose wiring depends on indices: networks over graphs, gates written by a router, maxima put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.testing.token_toys import WIDTH, Tokens
from secateur.testing.toys import Image, conv_bn

NODES = 7


class Messages(Tokens):
    """Tokens as the nodes of a graph: what lies at the end of each edge is brought to the other end and added up."""

    source: Tensor
    target: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.register_buffer("source", torch.tensor([0, 1, 2, 2, 3, 4, 5, 6, 6]))
        self.register_buffer("target", torch.tensor([1, 0, 0, 3, 2, 3, 6, 5, 2]))

    def gathered(self, edges: Tensor) -> Tensor:
        """Of every node the sum over the edges that end there: (batch, edges, …) to (batch, nodes, …)."""
        where = self.target.view(1, -1, *[1] * (edges.dim() - 2)).expand_as(edges)
        return edges.new_zeros(len(edges), NODES, *edges.shape[2:]).scatter_add_(1, where, edges)

    def body(self, x: Tensor) -> Tensor:
        return x + self.b(self.gathered(self.a(x).index_select(1, self.source)).relu())


class LargestMessages(Messages):
    """The largest message that a node gets."""

    def gathered(self, edges: Tensor) -> Tensor:
        where = self.target.view(1, -1, 1).expand_as(edges)
        start = edges.new_zeros(len(edges), NODES, edges.shape[-1])
        return start.scatter_reduce_(1, where, edges, "amax", include_self=False)


class GraphAttention(Messages):
    """Heads that weigh the edges that end in the same node by a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 4, 3
        self.a, self.b = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.ask, self.answer = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4, 3))

    def body(self, x: Tensor) -> Tensor:
        y = self.a(x).view(*x.shape[:2], self.heads, self.width)
        asked, answered = (y * self.ask).sum(-1), (y * self.answer).sum(-1)
        share = F.leaky_relu(asked[:, self.source] + answered[:, self.target]).exp()
        share = share / (self.gathered(share)[:, self.target] + 1e-6)
        return x + self.b(self.gathered(y[:, self.source] * share.unsqueeze(-1)).flatten(2))


class LayerForEachDegree(Messages):
    """Nodes with so many neighbours go through a layer of their own, and none of them has four."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(5))

    def body(self, x: Tensor) -> Tensor:
        degree, out = torch.bincount(self.target, minlength=NODES), torch.zeros_like(x)
        for count, layer in enumerate(self.layers):
            here = (degree == count).nonzero().view(-1)
            out.index_copy_(1, here, layer(x.index_select(1, here)))
        return self.b(self.a(out).relu())


class GatesByIndex(Tokens):
    """All experts run; those that a router did not choose get a gate of zero, written by index."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 5)
        self.rise, self.fall = nn.Parameter(torch.randn(5, WIDTH, 6)), nn.Parameter(torch.randn(5, 6, WIDTH))

    def body(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        weight, chosen = logits.softmax(-1).topk(2, -1)
        gates = torch.zeros_like(logits).scatter(-1, chosen, weight)
        said = (x.unsqueeze(1) @ self.rise).relu() @ self.fall
        return x + (said * gates.transpose(1, 2).unsqueeze(-1)).sum(1)


class Unpooled(Image):
    """Maxima go back to where they were found."""

    def __init__(self) -> None:
        super().__init__(6)
        self.down, self.up = conv_bn(3, 7), conv_bn(7, 6)

    def features(self, x: Tensor) -> Tensor:
        x, places = F.max_pool2d(self.down(x), 2, return_indices=True)
        return self.up(F.max_unpool2d(x, places, [2, 2])).relu()


class Warped(Image):
    """Every channel is sampled at places that another layer gives."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem, self.places, self.last = conv_bn(3, 7), nn.Conv2d(7, 2, 1), conv_bn(7, 6)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.last(F.grid_sample(x, self.places(x).permute(0, 2, 3, 1).tanh(), align_corners=False)).relu()


class OneStep(nn.Module):
    """A recurrent layer that is given one step: nothing of what it gives comes back to it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.rnn, self.head = nn.Linear(6, 8), nn.LSTM(8, 9, batch_first=True), nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 6) to (batch, 5)."""
        return self.head(self.rnn(self.enter(x))[0][:, 0])


class AssertedWidth(Tokens):
    """The code asserts one width, of several that no operation near it has."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.c, self.d = nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        y, z = self.a(x).relu(), self.c(x).relu()
        assert y.shape[-1] == 9
        positions = torch.arange(x.shape[1])
        return x + self.b(y) + self.d(z) * (positions > 2).unsqueeze(-1)


class InPairs(Tokens):
    """Every number of one vector meets every number of another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 7)
        self.pairs, self.c = nn.Bilinear(6, 7, 8), nn.Linear(8, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        return x + self.c(self.pairs(self.a(x).sigmoid(), self.b(x)).tanh())


def graph_toys() -> dict[str, Callable[[], tuple[nn.Module, Any]]]:
    """What builds every toy of this file, with example inputs of batch 1."""
    shapes: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
        "messages": (Messages, (NODES, 6)),
        "messages_largest": (LargestMessages, (NODES, 6)),
        "graph_attention": (GraphAttention, (NODES, 6)),
        "layer_for_each_degree": (LayerForEachDegree, (NODES, 6)),
        "gates_by_index": (GatesByIndex, (NODES, 6)),
        "unpooled": (Unpooled, (3, 8, 8)),
        "warped": (Warped, (3, 8, 8)),
        "in_pairs": (InPairs, (NODES, 6)),
        "lstm_one_step": (OneStep, (1, 6)),
        "asserted_width": (AssertedWidth, (NODES, 6)),
    }

    def built(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Callable[[], tuple[nn.Module, Any]]:
        return lambda: (make(), torch.randn(1, *shape))

    return {name: built(*given) for name, given in shapes.items()}
