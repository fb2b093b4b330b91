"""Products of two activations: the masked model leaves out what the cut one does not have, in every operation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.surgery import make_plan


class Products(nn.Module):
    """Two activations that are never zero, multiplied along their units."""

    def __init__(self, product: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.a, self.b, self.product = nn.Linear(5, 8), nn.Linear(5, 8), product

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Inputs (3, 5) and (4, 5)."""
        return self.product(self.a(x).sigmoid(), self.b(y).sigmoid())


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mm": lambda a, b: torch.mm(a, b.t()),
    "addmm": lambda a, b: torch.addmm(torch.arange(12.0).view(3, 4), a, b.t(), beta=0.5),
    "bmm": lambda a, b: torch.bmm(a.expand(2, -1, -1), b.t().expand(2, -1, -1)),
    "baddbmm": lambda a, b: torch.ones(2, 3, 4).baddbmm(a.expand(2, -1, -1), b.t().expand(2, -1, -1), alpha=0.3),
    "mv": lambda a, b: torch.mv(a, b[0]),
    "addmv": lambda a, b: torch.addmv(torch.arange(3.0), a, b[0]),
    "dot": lambda a, b: torch.dot(a[1], b[2]),
    "vdot": lambda a, b: torch.vdot(a[1], b[2]),
    "linear": lambda a, b: nn.functional.linear(a, b),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_units_are_cut_together_and_exactly(name: str):
    torch.manual_seed(0)
    model, inputs = Products(PRODUCTS[name]).eval(), (torch.randn(3, 5), torch.randn(4, 5))
    graph = sc.trace(model, inputs)
    assert graph.widths == {"a": 8}
    check = sc.verify(model, make_plan(graph, {"a": [0, 3, 5]}), inputs)
    assert check.exact, str(check)
    small = sc.cut(model, make_plan(graph, {"a": [0, 3, 5]}))
    assert [tuple(p.shape) for p in small.parameters()] == [(3, 5), (3,), (3, 5), (3,)]
