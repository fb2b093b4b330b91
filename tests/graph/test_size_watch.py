"""Code that handles no size needs no dry run; code that handles one is always tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.graph.capture import capture
from secateur.graph.probe import probe

IMAGE = torch.zeros(1, 3, 8, 8)


class Net(nn.Module):
    """Two convolutions with something of the model's own between them."""

    def __init__(self, between: Callable[[Net, Tensor], Tensor]):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(8))
        self.width = 8
        self.head = nn.Linear(8, 4)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        y = self.between(self, self.first(x))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(F.relu(self.second(y) + y), 1), 1))


def literal_view(net: Net, y: Tensor) -> Tensor:
    return y.view(1, net.width, 64).view(1, net.width, 8, 8)


SIZELESS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "nothing": lambda net, y: y,
    "arithmetic": lambda net, y: (y * 2 + 1).sigmoid() * y / 3,
    "a vector in line": lambda net, y: y * net.scale.view(1, -1, 1, 1) * net.scale.reshape(-1, 1, 1),
    "statistics": lambda net, y: y * y.mean((2, 3), keepdim=True),
    "questions about no size": lambda net, y: y.to(y.dtype) if y.ndim == 4 and y.is_floating_point else y,
    "order": lambda net, y: y.permute(0, 2, 3, 1).contiguous().transpose(1, 3).transpose(2, 3),
}
HANDLING: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "a shape": lambda net, y: y if y.shape[1] else -y,
    "a size": lambda net, y: y if y.size(1) else -y,
    "a length": lambda net, y: y if len(net.scale) else -y,
    "a shape of a parameter": lambda net, y: y if net.scale.shape[0] else -y,
    "a view": literal_view,
    "a slice": lambda net, y: y[:, :8],
    "a split": lambda net, y: torch.cat(y.chunk(2, 1), 1),
    "a new tensor": lambda net, y: y + torch.zeros(8, 1, 1),
    "groups": lambda net, y: F.conv2d(y, torch.ones(8, 1, 1, 1, device=y.device), groups=8),
    "an operation that nobody hears": lambda net, y: torch.ops.aten.slice.Tensor(y, 1, 0, 8),
}


@pytest.mark.parametrize("name", SIZELESS)
def test_code_that_handles_no_size_is_recognised_and_a_dry_run_would_change_nothing(name: str) -> None:
    recorded = capture(Net(SIZELESS[name]), IMAGE)
    assert not recorded.handles_sizes
    at_once, tried = probe(recorded), probe(replace(recorded, handles_sizes=True))
    assert [(g.name, g.width, g.locked, g.reason) for g in at_once.groups] == [
        (g.name, g.width, g.locked, g.reason) for g in tried.groups
    ]
    assert at_once.literals == tried.literals
    assert np.array_equal(at_once.classes.of, tried.classes.of)
    assert any(not g.locked for g in at_once.groups)


@pytest.mark.parametrize("name", HANDLING)
def test_code_that_handles_a_size_is_tried(name: str) -> None:
    assert capture(Net(HANDLING[name]), IMAGE).handles_sizes


def test_the_size_of_what_is_never_cut_may_be_read() -> None:
    class Resized(Net):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(super().forward(x)[..., None, None], size=x.shape[-2:])

    class Doubled(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.interpolate(x, size=x.shape[-2:]))

    assert not capture(Doubled(SIZELESS["nothing"]), IMAGE).handles_sizes
    assert capture(Resized(SIZELESS["nothing"]), IMAGE).handles_sizes


def test_a_model_that_runs_on_real_values_is_always_tried() -> None:
    def looks(net: Net, y: Tensor) -> Tensor:
        return y if float(y.sum()) > -1e9 else -y

    recorded = capture(Net(looks), IMAGE)
    assert not recorded.on_meta
    assert recorded.handles_sizes
