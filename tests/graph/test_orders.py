"""What points into an axis may only be followed where it points, not read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.graph import trace
from secateur.surgery import verify
from secateur.testing.checks import random_plan


class Chosen(nn.Module):
    """A hidden layer, and what is made of its largest numbers."""

    def __init__(self, made: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.made = nn.Linear(6, 8), nn.Linear(8, 5), made

    def forward(self, x: Tensor) -> Any:
        """(batch, 6) to (batch, 5) and what is made of the hidden layer."""
        x = self.a(x)
        return self.b(x.relu()), self.made(x)


@pytest.mark.parametrize("made", [lambda x: x.argmax(-1), lambda x: x.max(-1), lambda x: x.topk(2, -1)])
def test_places_in_the_output_lock_their_axis(made: Callable[[Tensor], Any]):
    graph = trace(Chosen(made), torch.randn(2, 6))
    assert graph["a"].locked
    assert graph["a"].reason == "indices into it reach the model's output"


@pytest.mark.parametrize("made", [lambda x: x.max(-1)[0], lambda x: x.min(-1)[0], lambda x: x.amin(-1)])
def test_the_largest_number_is_that_of_what_stays(made: Callable[[Tensor], Any]):
    torch.manual_seed(0)
    model, x = Chosen(made), torch.randn(2, 6)
    graph = trace(model, x)
    assert not graph["a"].locked
    assert verify(model, random_plan(graph, 0), x).exact
