"""Toy models that run through time, look rows up, or mix tokens in other ways than attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.testing.token_toys import WIDTH, Tokens


class Recurrent(Tokens):
    """``nn.LSTM`` or ``nn.GRU``, two layers in both directions."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.rnn = kind(WIDTH, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(12, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        return x + self.out(self.rnn(x)[0])


class CellLoop(Tokens):
    """``nn.LSTMCell`` called step by step from states of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 9
        self.cell, self.out = nn.LSTMCell(WIDTH, 9), nn.Linear(9, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        h, c = x.new_zeros(x.shape[0], self.hidden), x.new_zeros(x.shape[0], self.hidden)
        found = []
        for step in x.unbind(1):
            h, c = self.cell(step, (h, c))
            found.append(h)
        return x + self.out(torch.stack(found, 1))


class SimpleRecurrentUnit(Tokens):
    """SRU: one product for all steps, then an elementwise recurrence with a highway."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.forget = nn.Linear(WIDTH, 3 * WIDTH), nn.Parameter(torch.randn(WIDTH) * 0.1)

    def body(self, x: Tensor) -> Tensor:
        value, forget, reset = self.both(x).chunk(3, -1)
        c, found = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            gate = (forget[:, t] + self.forget * c).sigmoid()
            c = gate * c + (1 - gate) * value[:, t]
            r = reset[:, t].sigmoid()
            found.append(r * c + (1 - r) * x[:, t])
        return torch.stack(found, 1)


class SelectiveScan(Tokens):
    """A Mamba block: an input of two halves, a causal depthwise convolution, steps and states from sizes held as
    attributes, a scan as a loop, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.inner_width, self.states, self.rank = 8, 4, 3
        self.in_proj, self.out_proj = nn.Linear(WIDTH, 16, bias=False), nn.Linear(8, WIDTH, bias=False)
        self.conv = nn.Conv1d(8, 8, 3, padding=2, groups=8)
        self.x_proj, self.dt_proj = nn.Linear(8, 3 + 2 * 4, bias=False), nn.Linear(3, 8)
        self.a_log = nn.Parameter(torch.arange(1, 5).float().log().repeat(8, 1) + 0.1 * torch.randn(8, 4))
        self.skip = nn.Parameter(torch.ones(8))

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        y, z = self.in_proj(x).chunk(2, -1)
        y = F.silu(self.conv(y.transpose(1, 2))[..., :t]).transpose(1, 2)
        dt, b, c = self.x_proj(y).split([self.rank, self.states, self.states], -1)
        dt, a = F.softplus(self.dt_proj(dt)), -self.a_log.exp()
        state = y.new_zeros(n, self.inner_width, self.states)
        found = []
        for i in range(t):
            step = dt[:, i, :, None]
            state = (step * a).exp() * state + step * b[:, i, None] * y[:, i, :, None]
            found.append((state * c[:, i, None]).sum(-1))
        return x + self.out_proj((torch.stack(found, 1) + self.skip * y) * F.silu(z))


class Fourier(Tokens):
    """FNet: the real part of a Fourier transform over tokens, or over channels as well."""

    def __init__(self, channels: bool) -> None:
        super().__init__()
        self.a, self.b, self.axes = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH), (1, 2) if channels else (1,)

    def body(self, x: Tensor) -> Tensor:
        x = x + torch.fft.fftn(x, dim=self.axes).real * 0.3
        return x + self.b(F.gelu(self.a(x)))


class FourierFilter(Tokens):
    """GFNet: a learned complex filter for every frequency and channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.filter = nn.Parameter(torch.randn(4, WIDTH, 2) * 0.3)

    def body(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x, dim=1) * torch.view_as_complex(self.filter)
        x = x + torch.fft.irfft(spectrum, n=x.shape[1], dim=1)
        return x + self.b(F.gelu(self.a(x)))


class Bag(nn.Module):
    """``nn.EmbeddingBag``: rows are looked up and averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.a, self.head = nn.EmbeddingBag(11, 8, mode="mean"), nn.Linear(8, 9), nn.Linear(9, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) of integers to (batch, 5)."""
        return self.head(self.a(self.bag(tokens)).relu())


class Codebook(Tokens):
    """Vector quantisation: the nearest of the vectors in a buffer."""

    book: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH)
        self.register_buffer("book", torch.randn(6, 8))

    def body(self, x: Tensor) -> Tensor:
        z = self.down(x)
        distance = z.square().sum(-1, keepdim=True) - 2 * z @ self.book.t() + self.book.square().sum(-1)
        return x + self.up(self.book[distance.argmin(-1)] + 0.1 * z)


class Routed(Tokens):
    """Top-1 mixture of experts: every expert is called on the tokens that chose it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 8 + k), nn.ReLU(), nn.Linear(8 + k, WIDTH)) for k in range(3)
        )

    def body(self, x: Tensor) -> Tensor:
        weight, chosen = self.gate(x).softmax(-1).max(-1)
        y = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            here = chosen == k
            y[here] = weight[here].unsqueeze(-1) * expert(x[here])
        return x + y


class RoutedStack(Tokens):
    """Top-1 mixture of experts whose weights lie in one tensor each, picked by the integer gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, 3)
        self.up, self.down = nn.Parameter(torch.randn(3, WIDTH, 9) / 3), nn.Parameter(torch.randn(3, 9, WIDTH) / 3)

    def body(self, x: Tensor) -> Tensor:
        chosen = self.gate(x).argmax(-1)
        hidden = (x.unsqueeze(-2) @ self.up[chosen]).relu()
        return x + (hidden @ self.down[chosen]).squeeze(-2)


class SoftExperts(RoutedStack):
    """All experts at once, weighted by the gate."""

    def body(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("btc,ech->beth", x, self.up).relu()
        return x + torch.einsum("beth,ehc,bte->btc", hidden, self.down, self.gate(x).softmax(-1))


class SummedOverWidth(Tokens):
    """A mean over channels by ``mean``, or as a sum divided by the width that the tensor has."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.a, self.b, self.by_hand = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH), by_hand

    def body(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        mean = y.sum(-1, keepdim=True) / y.shape[-1] if self.by_hand else y.mean(-1, keepdim=True)
        return x + self.b(y - mean)


class NormByHand(Tokens):
    """LayerNorm written out, with ``mean`` and ``var``."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH), nn.Parameter(torch.ones(9))

    def body(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return x + self.b((y * self.scale).relu())


class PickedTokens(Tokens):
    """Tokens put into another order by an index, and back by ``index_select``: channels have no part in it."""

    order: Tensor
    back: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.register_buffer("order", torch.tensor([3, 0, 6, 5, 1, 4, 2]))
        self.register_buffer("back", self.order.argsort())

    def body(self, x: Tensor) -> Tensor:
        y = self.a(x[:, self.order]).relu()
        return x + self.b(y.index_select(1, self.back))


class SharedOverWindows(Tokens):
    """``Tensor.unfold`` over tokens: three neighbours side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3 * WIDTH, 9), nn.Linear(9, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        y = F.pad(x, (0, 0, 1, 1)).unfold(1, 3, 1).flatten(2)
        return x + self.b(self.a(y).relu())


def sequence_toys() -> dict[str, Callable[[], tuple[nn.Module, Any]]]:
    """What builds every toy of this file, with example inputs of batch 1."""

    def tokens(make: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, Any]]:
        return lambda: (make(), torch.randn(1, 7, 6))

    found: dict[str, Callable[[], nn.Module]] = {
        "lstm": lambda: Recurrent(nn.LSTM),
        "gru": lambda: Recurrent(nn.GRU),
        "lstm_cell": CellLoop,
        "sru": SimpleRecurrentUnit,
        "mamba": SelectiveScan,
        "fourier_tokens": lambda: Fourier(channels=False),
        "fourier_channels": lambda: Fourier(channels=True),
        "fourier_filter": FourierFilter,
        "codebook": Codebook,
        "experts_routed": Routed,
        "experts_stacked": RoutedStack,
        "experts_soft": SoftExperts,
        "mean_over_width": lambda: SummedOverWidth(by_hand=False),
        "mean_by_hand": lambda: SummedOverWidth(by_hand=True),
        "norm_by_hand": NormByHand,
        "picked_tokens": PickedTokens,
        "windows_of_tokens": SharedOverWindows,
    }
    return {
        **{name: tokens(make) for name, make in found.items()},
        "embedding_bag": lambda: (Bag(), torch.randint(0, 11, (1, 7))),
    }
