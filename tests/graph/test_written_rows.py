"""What is written where an index or a mask says, solved, or computed as a kernel: what cannot be followed is locked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.surgery import make_plan


class Writes(nn.Module):
    """``enter`` gives (4, 9), ``step`` does something with it that ends as (4, 9), and ``leave`` reads it."""

    places: Tensor
    mask: Tensor

    def __init__(self, step: Callable[[Writes, Tensor], Tensor]):
        super().__init__()
        self.enter, self.other, self.leave = nn.Linear(5, 9), nn.Linear(5, 9), nn.Linear(9, 3)
        self.step, self.width, self.table = step, 9, nn.Parameter(torch.randn(9, 4))
        self.kernel = nn.Parameter(torch.randn(9 * 3))
        self.register_buffer("places", torch.tensor([0, 2]))
        self.register_buffer("mask", torch.arange(36).view(4, 9) % 3 == 0)

    def forward(self, x: Tensor) -> Tensor:
        """(4, 5) to (4, 3)."""
        return self.leave(self.step(self, x).tanh())


def _put(net: Writes, x: Tensor) -> Tensor:
    table = net.table.sigmoid().index_put((net.places,), torch.ones(2, 4))
    return net.enter(x) + table.t()


def _copied(net: Writes, x: Tensor) -> Tensor:
    return net.enter(x).index_copy(1, net.places, net.other(x)[:, :2])


def _chosen_by_channel(net: Writes, x: Tensor) -> Tensor:
    return net.enter(x).masked_scatter(net.mask, net.other(x))


def _chosen_from_a_line(net: Writes, x: Tensor) -> Tensor:
    return net.enter(x).masked_scatter((net.places == 0).repeat(2).view(4, 1), net.other(x).flatten())


def _solved(net: Writes, x: Tensor) -> Tensor:
    said = net.enter(x).t() @ net.other(x) * 0.1
    return torch.linalg.solve_triangular(said, net.other(x).t(), upper=True, unitriangular=True).t()


def _kernel_in_groups(net: Writes, x: Tensor) -> Tensor:
    return F.conv1d(net.enter(x).unsqueeze(-1), (net.kernel * 2).view(9, 3, 1), groups=3).squeeze(-1)


def _scattered_over_channels(net: Writes, x: Tensor) -> Tensor:
    return net.enter(x).scatter(1, torch.zeros(4, 1, dtype=torch.int64), 1.0)


def _scattered_into_a_part(net: Writes, x: Tensor) -> Tensor:
    return net.enter(x).scatter_add(0, torch.zeros(2, 8, dtype=torch.int64), net.other(x))


def _chosen_elsewhere(net: Writes, x: Tensor) -> Tensor:
    best = net.enter(x).topk(2, -1).indices
    return torch.arange(36.0).view(4, 9).scatter(-1, best, 0.0) * net.other(x)


def _places_kept(net: Writes, x: Tensor) -> Tensor:
    best = net.enter(x).argmax(-1)
    kept = torch.zeros(4, dtype=torch.int64).scatter(0, torch.tensor([2, 0, 1, 3]), best)
    return net.other(x) * kept.unsqueeze(-1)


def _places_looked_up(net: Writes, x: Tensor) -> Tensor:
    best = net.enter(x).argmax(-1)[torch.tensor([2, 0, 1, 3])]
    return net.other(x) * best.unsqueeze(-1)


#: What is done, the group that is locked for it, and words of the reason.
LOCKED: dict[str, tuple[Callable[[Writes, Tensor], Tensor], str, str]] = {
    "index_put": (_put, "enter", "written by index"),
    "index_copy": (_copied, "enter", "written by index"),
    "scatter_over_channels": (_scattered_over_channels, "enter", "written by index"),
    "scatter_into_a_part": (_scattered_into_a_part, "enter", "written by index"),
    "scatter_where_chosen": (_chosen_elsewhere, "enter", "say where to write"),
    "places_kept": (_places_kept, "enter", "are written by index"),
    "places_looked_up": (_places_looked_up, "enter", "used as numbers"),
    "mask_of_channels": (_chosen_by_channel, "enter", "written where a mask says so"),
    "rows_from_a_line": (_chosen_from_a_line, "enter", "written where a mask says so"),
    "solved": (_solved, "enter", "solved for along this axis"),
    "kernel_in_groups": (_kernel_in_groups, "kernel", "laid out over groups"),
}


@pytest.mark.parametrize("name", LOCKED)
def test_what_cannot_be_followed_is_locked_with_a_reason(name: str):
    step, group, words = LOCKED[name]
    torch.manual_seed(0)
    model, x = Writes(step).eval(), torch.randn(4, 5)
    graph = sc.trace(model, x)
    assert words in graph[group].reason
    plan = make_plan(graph, {name: [0] for name in graph.widths})
    check = sc.verify(model, plan, x)
    assert check.exact, str(check)


def _rows(net: Writes, x: Tensor) -> Tensor:
    return net.enter(x).index_copy(0, net.places, net.other(x)[:2])


def _rows_by_mask(net: Writes, x: Tensor) -> Tensor:
    return net.enter(x).masked_scatter((net.places == 0).repeat(2).view(4, 1), net.other(x)[:2])


def _filled(net: Writes, x: Tensor) -> Tensor:
    found = torch.zeros_like(net.enter(x))
    for k in range(4):
        found[k] = net.other(x)[k]
    return found


def _added_to_zeros(net: Writes, x: Tensor) -> Tensor:
    return torch.zeros(4, net.width).index_add(0, net.places, net.other(x)[:2])


def _scattered_rows(net: Writes, x: Tensor) -> Tensor:
    y = net.other(x)
    where = torch.tensor([0, 0, 2, 1]).unsqueeze(-1).expand_as(y)
    return net.enter(x).scatter_reduce(0, where, y, "mean") + torch.zeros(4, net.width).scatter_add(0, where, y)


def _scattered_number(net: Writes, x: Tensor) -> Tensor:
    y = net.enter(x)
    return y.scatter(0, torch.zeros_like(y[:1], dtype=torch.int64), 2.0) + net.other(x)


def _masked_where_chosen(net: Writes, x: Tensor) -> Tensor:
    y = net.enter(x)
    return y.scatter(-1, y.topk(2, -1).indices, 0.0) + net.other(x)


@pytest.mark.parametrize(
    "step",
    [_rows, _rows_by_mask, _filled, _added_to_zeros, _scattered_rows, _scattered_number, _masked_where_chosen],
)
def test_rows_leave_their_channels_free(step: Callable[[Writes, Tensor], Tensor]):
    torch.manual_seed(0)
    model, x = Writes(step).eval(), torch.randn(4, 5)
    graph = sc.trace(model, x)
    assert 9 in graph.widths.values()
    plan = make_plan(graph, {name: [0, 3, 5] for name in graph.widths})
    check = sc.verify(model, plan, x)
    assert check.exact, str(check)
