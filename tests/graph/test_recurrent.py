"""Hidden units of recurrent layers are cut exactly, gates, layers and directions together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateur.graph import trace
from secateur.surgery import cut, make_plan, verify


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM], layers: int, both: bool):
        super().__init__()
        self.inp = nn.Linear(5, 8)
        self.rnn = kind(8, 6, num_layers=layers, bidirectional=both, batch_first=True)
        self.out = nn.Linear(12 if both else 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.inp(x))[0])


@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, True)])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_hidden_units_are_cut_exactly(kind: type[nn.LSTM], layers: int, both: bool):
    model, x = Recurrent(kind, layers, both), torch.randn(2, 4, 5)
    graph = trace(model, x)
    assert graph.widths == {"inp": 8, "rnn": 6}
    plan = make_plan(graph, {"inp": [0, 3, 7], "rnn": [1, 2, 5, 4]})
    assert verify(model, plan, x).exact
    small = cut(model, plan)
    assert small.get_submodule("rnn").hidden_size == 4
    assert small(torch.randn(3, 7, 5)).shape == (3, 7, 3)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_layer_as_wide_inside_as_outside(kind: type[nn.LSTM]):
    """Nothing tells its two sizes apart but the parameters; and it is traced without numbers."""
    model = nn.Sequential(nn.Linear(5, 8), kind(8, 8, batch_first=True))
    model.append(First()).append(nn.Linear(8, 3)).eval()
    graph, x = trace(model, torch.randn(2, 4, 5)), torch.randn(2, 4, 5)
    assert not graph.warnings
    assert graph.widths == {"0": 8, "1": 8}
    plan = make_plan(graph, {"0": [0, 3, 7], "1": [1, 2, 5, 4]})
    assert verify(model, plan, x).exact
    layer = cut(model, plan).get_submodule("1")
    assert (layer.input_size, layer.hidden_size) == (3, 4)


class First(nn.Module):
    def forward(self, found: tuple[Tensor, Tensor]) -> Tensor:
        return found[0]
