"""Bytes, parameters and MACs against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateur.measure import count_macs, count_parameters, model_bytes


def test_bytes_and_parameters_with_a_tied_weight_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].weight = model[0].weight
    assert count_parameters(model) == 16 + 4 + 4 + 8
    assert model_bytes(model) == 4 * (32 + 8) + 8
    assert model_bytes(model.half()) == 2 * (32 + 8) + 8


def test_convolutions_and_linear_layers():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4),
        nn.Flatten(),
        nn.Linear(8 * 64, 10),
    ).train()
    want = 27 * 8 * 256 + 9 * 2 * 8 * 64 + 512 * 10
    assert count_macs(model, torch.randn(1, 3, 16, 16)) == want
    assert count_macs(model, (torch.randn(2, 3, 16, 16),)) == 2 * want
    assert model.training
    assert model[1].num_batches_tracked == 0


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(8, 16, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, x):
        return self.layer(self.recurrent(x)[0])


def test_fused_kernels_are_seen():
    fastpath = torch.backends.mha.get_fastpath_enabled()
    recurrent = 5 * 4 * 16 * (8 + 16)
    projections = 5 * (16 * 48 + 16 * 16 + 2 * 16 * 32)
    attention = 2 * 5 * 5 * 16
    assert count_macs(Encoder(), {"x": torch.randn(1, 5, 8)}) == recurrent + projections + attention
    assert torch.backends.mha.get_fastpath_enabled() == fastpath


def test_the_figure_of_a_known_network():
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        model = models.resnet34()
        x = torch.empty(1, 3, 224, 224)
    assert count_macs(model, x) == 3_663_761_408
    assert count_parameters(model) == 21_797_672


class HandsOn(nn.Module):
    """A view of a parameter enters another module."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.inner = nn.Parameter(torch.ones(1, 4)), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(self.token.expand(2, -1))


def test_views_of_parameters_as_arguments():
    model = HandsOn()
    assert count_macs(model, torch.zeros(2, 3)) == 2 * 4 * 3
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("a", "b", "ends", "macs"),
    [
        ((6, 8), (2, 8, 16), (2, 6), 6 * 8 * 16),
        ((6, 8), (8, 16), (2, 8), 6 * 8 * 16),
        ((2, 3, 8), (2, 8, 16), None, 6 * 8 * 16),
        ((2, 3, 8), (8, 16), (4, 16), 3 * 8 * 16),
    ],
)
def test_products_in_groups_are_counted(a: tuple, b: tuple, ends: tuple | None, macs: int):
    class Grouped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            offs = None if ends is None else torch.tensor(ends, dtype=torch.int32)
            return nn.functional.grouped_mm(x, torch.ones(b, dtype=torch.bfloat16), offs=offs)

    assert count_macs(Grouped(), torch.ones(a, dtype=torch.bfloat16)) == macs


def test_a_list_that_the_model_changes_stays_what_it_was():
    class Replaces(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 5)

        def forward(self, given: list[Tensor]) -> Tensor:
            given[0] = self.layer(given[0])
            return given[0]

    given = [torch.randn(2, 4)]
    assert count_macs(Replaces(), (given,)) == count_macs(Replaces(), (given,)) == 2 * 4 * 5
