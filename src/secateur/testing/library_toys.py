"""Toy models of habits of the large libraries: tokens that a setting leaves out, rows written by a mask or an index,
positions that are remembered, queries that begin as zeros, layers with adapters."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.testing.attention_toys import EVEN_DIM, TOKENS, Separate
from secateur.testing.token_toys import WIDTH, Tokens


class RegisterTokens(Tokens):
    """A class token, and as many registers as are asked for: none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.registers = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 0, WIDTH))
        self.a, self.b = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        extra = (self.first.expand(len(x), -1, -1), self.registers.expand(len(x), -1, -1))
        x = torch.cat([*extra, x], 1)
        return x + self.b(self.a(x).relu())


class ImagesInText(nn.Module):
    """The features of an image are written where the text has a place for them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.pixels, self.project = nn.Embedding(11, WIDTH), nn.Linear(6, 8), nn.Linear(8, WIDTH)
        self.a, self.b, self.head = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, ids: Tensor, image: Tensor) -> Tensor:
        """Tokens (batch, tokens), of which three are of number 0, and an image (batch, 3, 6)."""
        x = self.words(ids)
        seen = self.project(self.pixels(image).relu()).flatten(0, 1)
        x = x.masked_scatter((ids == 0).unsqueeze(-1).expand_as(x), seen)
        return self.head((x + self.b(self.a(x).relu())).mean(1))


class AddedByIndex(Tokens):
    """Every second token gets something added, written by index."""

    odd: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.register_buffer("odd", torch.tensor([1, 3, 5]))

    def body(self, x: Tensor) -> Tensor:
        return x.index_add(1, self.odd, self.b(self.a(x[:, self.odd]).relu()))


class ComplexRotary(Separate):
    """Rotary positions as products of complex numbers."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", 0.3 ** torch.arange(EVEN_DIM // 2), persistent=False)

    def turn(self, x: Tensor, which: str) -> Tensor:
        angle = torch.arange(TOKENS, device=x.device).unsqueeze(-1) * self.frequencies
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


class PartlyRotary(Separate):
    """Positions for a part of each head, here for all of it, so that the part that passes by is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.rotary_dim = EVEN_DIM

    def turn(self, x: Tensor, which: str) -> Tensor:
        turned, passing = x[..., : self.rotary_dim], x[..., self.rotary_dim :]
        return torch.cat([turned * 1.5, passing], -1)


class QueriesFromZeros(Tokens):
    """Queries that begin as zeros of the shape of their positions, each of which a layer of its own reads."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(4, WIDTH)
        self.content, self.place, self.key, self.value = (nn.Linear(WIDTH, 9) for _ in range(4))
        self.out = nn.Linear(9, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        places = self.places.weight.unsqueeze(0).repeat(len(x), 1, 1)
        queries = torch.zeros_like(places)
        for _ in range(2):
            asked = self.content(queries) + self.place(places)
            weights = (asked @ self.key(x).transpose(1, 2) * 0.3).softmax(-1)
            queries = queries + self.out(weights @ self.value(x))
        return queries


@lru_cache(maxsize=2)
def waves(tokens: int, width: int, device: torch.device) -> Tensor:
    """Positions as sines, which are computed once for all models of a shape."""
    angle = torch.arange(tokens, device=device).unsqueeze(-1) * 0.3 ** torch.arange(width, device=device)
    return angle.sin()


class RememberedPositions(Tokens):
    """Positions from a function that remembers what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.positions = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH), nn.Linear(4, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        x = x + self.positions(waves(x.shape[1], 4, x.device).to(x.dtype))
        return x + self.b(self.a(x).relu())


class ScanIntoZeros(Tokens):
    """A scan over tokens that writes each result into a tensor of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        y = self.a(x)
        found, state = torch.zeros_like(y), torch.zeros_like(y[:, 0])
        for t in range(x.shape[1]):
            state = 0.7 * state + y[:, t].tanh()
            found[:, t] = state
        return x + self.b(found)


class NormOfRows(Tokens):
    """Two blocks whose heads are normed and gated as the rows of a matrix, whichever token they belong to."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.b = (
            nn.ModuleList(nn.Linear(m, n) for _ in range(2))
            for m, n in ((WIDTH, 4 * EVEN_DIM), (WIDTH, 4 * EVEN_DIM), (4 * EVEN_DIM, WIDTH))
        )
        self.scale = nn.Parameter(torch.ones(EVEN_DIM))

    def body(self, x: Tensor) -> Tensor:
        for a, gate, b in zip(self.a, self.gate, self.b):
            rows = a(x).view(*x.shape[:2], -1, EVEN_DIM).tanh().reshape(-1, EVEN_DIM)
            rows = rows * (rows.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * self.scale
            rows = rows * F.silu(gate(x).reshape(-1, EVEN_DIM))
            x = x + b(rows.reshape(*x.shape[:2], -1))
        return x


class TriangularSolve(Separate):
    """What earlier tokens said is taken out of the values by solving a triangular system, for each head."""

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (y(x).view(n, t, self.num_heads, self.head_dim).transpose(1, 2) for y in (self.q, self.k, self.v))
        said = (k @ q.transpose(-1, -2) * 0.1).tril(-1)
        v = torch.linalg.solve_triangular(said, v, upper=False, unitriangular=True)
        return x + self.out(v.transpose(1, 2).reshape(n, t, -1))


class MixedKernels(Tokens):
    """A convolution whose kernel is a mixture of several, each of which is a line of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 9), nn.Linear(8, WIDTH)
        self.share, self.kernels = nn.Parameter(torch.rand(3)), nn.Parameter(torch.randn(3, 8 * 9) / 9)
        self.shape = (8, 9, 1)

    def body(self, x: Tensor) -> Tensor:
        kernel = torch.matmul(self.share.softmax(0).unsqueeze(0), self.kernels).view(self.shape)
        y = F.conv1d(self.a(x).relu().transpose(1, 2), kernel)
        return x + self.b(y.transpose(1, 2).tanh())


class Adapted(Tokens):
    """A layer whose rows are scaled to a length of their own once a change of low rank is added to them.

    What is added is asked of the two layers that make it, with an identity matrix; the weight is wrapped anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.down, self.up = nn.Linear(WIDTH, 4, bias=False), nn.Linear(4, 9, bias=False)
        self.length = nn.Parameter(torch.rand(9))

    def body(self, x: Tensor) -> Tensor:
        change = self.up(self.down(torch.eye(self.down.weight.shape[1]))).T
        weight = nn.Parameter(self.a.weight.T).T
        scale = self.length / torch.linalg.norm(weight + change, dim=1)
        y = F.linear(x, weight) * scale + (scale - 1) * self.up(self.down(x)) + self.a.bias
        return x + self.b(y.relu())


class Diagonals(Tokens):
    """Features scaled by a diagonal matrix that depends on the example, and mixed with an identity matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.b = nn.Linear(WIDTH, 9), nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        scale = torch.diag_embed(self.gate(x.mean(1)).sigmoid())
        return x + self.b(y @ (scale + torch.eye(y.shape[-1]) / 10))


class OneVector(Tokens):
    """A layer on a vector without examples: the same for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.latent, self.a, self.b = nn.Parameter(torch.randn(6)), nn.Linear(6, 9), nn.Linear(9, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        return x * F.silu(self.b(self.a(self.latent).relu()))


def library_toys() -> dict[str, Callable[[], tuple[nn.Module, Any]]]:
    """What builds every toy of this file, with example inputs of batch 1."""

    def tokens(make: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, Any]]:
        return lambda: (make(), torch.randn(1, TOKENS, 6))

    found: dict[str, Callable[[], nn.Module]] = {
        "register_tokens": RegisterTokens,
        "added_by_index": AddedByIndex,
        "attention_rotary_complex": ComplexRotary,
        "attention_partly_rotary": PartlyRotary,
        "queries_from_zeros": QueriesFromZeros,
        "remembered_positions": RememberedPositions,
        "one_vector": OneVector,
        "adapted": Adapted,
        "diagonals": Diagonals,
        "mixed_kernels": MixedKernels,
        "scan_into_zeros": ScanIntoZeros,
        "attention_solved": TriangularSolve,
        "norm_of_rows": NormOfRows,
    }
    ids = torch.tensor([[4, 0, 0, 0, 7, 2, 9]])
    return {
        **{name: tokens(make) for name, make in found.items()},
        "images_in_text": lambda: (ImagesInText(), {"ids": ids, "image": torch.randn(1, 3, 6)}),
    }
