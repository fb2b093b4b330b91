"""Code that handles no size needs no dry run (what handles one: ``test_doubts.py``)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.graph.capture import capture
from secateur.graph.probe import Prober

IMAGE = torch.zeros(1, 3, 8, 8)


class Net(nn.Module):
    """Two convolutions with something of the model's own between them."""

    def __init__(self, between: Callable[[Net, Tensor], Tensor]):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(8, 4)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        y = self.between(self, self.first(x))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(F.relu(self.second(y) + y), 1), 1))


SIZELESS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "nothing": lambda net, y: y,
    "arithmetic": lambda net, y: (y * 2 + 1).sigmoid() * y / 3,
    "a vector in line": lambda net, y: y * net.scale.view(1, -1, 1, 1) * net.scale.reshape(-1, 1, 1),
    "statistics": lambda net, y: y * y.mean((2, 3), keepdim=True),
    "questions about no size": lambda net, y: y.to(y.dtype) if y.ndim == 4 and y.is_floating_point else y,
    "order": lambda net, y: y.permute(0, 2, 3, 1).contiguous().transpose(1, 3).transpose(2, 3),
}


def dry_runs(model: nn.Module) -> int:
    """How many a trace makes."""
    prober = Prober(capture(model, IMAGE))
    settled = prober.run()
    assert any(not g.locked for g in settled.groups)
    return prober.findings.spent["runs"]


@pytest.mark.parametrize("name", SIZELESS)
def test_code_that_handles_no_size_is_recognised_and_a_dry_run_would_change_nothing(name: str) -> None:
    prober = Prober(capture(Net(SIZELESS[name]), IMAGE))
    prober.run()
    assert prober.findings.spent["runs"] == 0
    assert [failure for seed in range(4) if (failure := prober.findings.dry_run(seed))] == []


def test_the_size_of_what_is_never_cut_may_be_read() -> None:
    class Resized(Net):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(super().forward(x)[..., None, None], size=x.shape[-2:])

    class Doubled(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.interpolate(x, size=x.shape[-2:]))

    assert dry_runs(Doubled(SIZELESS["nothing"])) == 0
    assert dry_runs(Resized(SIZELESS["nothing"])) == 0


def test_a_model_that_runs_on_real_values_is_always_tried() -> None:
    def looks(net: Net, y: Tensor) -> Tensor:
        return y if float(y.sum()) > -1e9 else -y

    recorded = capture(Net(looks), IMAGE)
    assert not recorded.on_meta
    assert recorded.doubts.always
    assert dry_runs(Net(looks)) > 0
