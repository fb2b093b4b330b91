"""Hidden units of recurrent layers are cut exactly, gates, layers and directions together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateur.graph import trace
from secateur.surgery import cut, make_plan, verify


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], layers: int, both: bool):
        super().__init__()
        self.inp = nn.Linear(5, 8)
        self.rnn = kind(8, 6, num_layers=layers, bidirectional=both, batch_first=True)
        self.out = nn.Linear(12 if both else 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.inp(x))[0])


@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, True)])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_hidden_units_are_cut_exactly(kind: type[nn.RNNBase], layers: int, both: bool):
    model, x = Recurrent(kind, layers, both), torch.randn(2, 4, 5)
    graph = trace(model, x)
    assert graph.widths == {"inp": 8, "rnn": 6}
    plan = make_plan(graph, {"inp": [0, 3, 7], "rnn": [1, 2, 5, 4]})
    assert verify(model, plan, x).exact
    small = cut(model, plan)
    assert small.get_submodule("rnn").hidden_size == 4
    assert small(torch.randn(3, 7, 5)).shape == (3, 7, 3)
