"""Layers that run directly are seen as they are through PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur._errors import InputError
from secateur.graph import functions, leaves
from secateur.graph.capture import Capture, capture
from secateur.graph.labels import labels_of
from secateur.graph.ledger import Ledger


class OwnNorm(nn.BatchNorm2d):
    """A norm and an activation in one layer, with the function of PyTorch called in a way of its own."""

    def __init__(self, *given: str, training: bool = False):
        super().__init__(4)
        self.given, self.mode = given, training

    def forward(self, input: Tensor) -> Tensor:
        named = {name: getattr(self, name) for name in self.given}
        return functional.batch_norm(input, self.running_mean, self.running_var, training=self.mode, **named).relu()


IMAGES, ROWS, SEQUENCE, SIGNAL = (torch.zeros(shape) for shape in ((2, 4, 8, 9), (3, 4), (2, 5, 4), (2, 4, 9)))
CASES: list[tuple[nn.Module, Tensor]] = [
    (nn.Conv1d(4, 6, 3), SIGNAL),
    (nn.Conv1d(4, 6, 3), SIGNAL[0]),
    (nn.Conv2d(4, 6, 3, 2, 1, bias=False), IMAGES),
    (nn.Conv2d(4, 8, 3, padding="same", groups=2), IMAGES),
    (nn.Conv2d(4, 8, 3, groups=4), IMAGES),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGES),
    (nn.Conv3d(4, 6, 1), IMAGES[..., None]),
    (nn.BatchNorm1d(4), ROWS),
    (nn.BatchNorm1d(4), SIGNAL),
    (nn.BatchNorm2d(4), IMAGES),
    (nn.BatchNorm2d(4, affine=False, momentum=None), IMAGES),
    (nn.BatchNorm2d(4, track_running_stats=False), IMAGES),
    *[(OwnNorm(*given), IMAGES) for given in ((), ("weight", "bias"), ("bias", "eps", "momentum"))],
    (OwnNorm("weight", training=True), IMAGES),
    (OwnNorm(), ROWS),
    (nn.LayerNorm(4), SEQUENCE),
    (nn.LayerNorm([5, 4], elementwise_affine=False), SEQUENCE),
    (nn.LayerNorm(4, bias=False), SEQUENCE),
    *[
        (kind(inplace=inplace), IMAGES)
        for kind in (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LeakyReLU)
        for inplace in (True, False)
    ],
    (nn.LeakyReLU(0.3), IMAGES),
    (nn.Hardtanh(-2, 3), IMAGES),
    *[(layer, IMAGES) for layer in (nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.GELU("tanh"), nn.Identity(), nn.Dropout())],
    (nn.MaxPool2d(3, 2, 1), IMAGES),
    (nn.MaxPool2d((2, 3), ceil_mode=True), IMAGES),
    (nn.MaxPool2d(2), IMAGES[0]),
    (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), IMAGES),
    (nn.AvgPool2d((2, 3)), IMAGES),
    *[(nn.AdaptiveAvgPool2d(size), IMAGES) for size in (1, (1, 1), (2, 3), (None, 2))],
    (nn.AdaptiveAvgPool2d(1), IMAGES[:, :, :1, :1]),
    (nn.AdaptiveAvgPool2d(1), IMAGES.to(memory_format=torch.channels_last)),
]


class Surrounded(nn.Module):
    """A layer between two that give it labels and take them."""

    def __init__(self, layer: nn.Module, x: Tensor):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(4, *(1,) * (3 if x.dim() == 4 else 0))), layer
        if x.shape[-1] != 4:
            self.scale = nn.Parameter(torch.ones(4, *(1,) * (x.dim() - x.shape.index(4) - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * self.scale)


def seen(recorded: Capture) -> list[tuple]:
    return [
        (
            *(o.name, o.module, o.ordinal, o.shapes, o.numbers),
            [[(s.shape, s.stride(), s.flatten().tolist()) for s in systems] for systems in o.outputs],
            [s.flatten().tolist() for s in o.inputs],
        )
        for o in recorded.operations
    ]


@pytest.mark.parametrize(("layer", "x"), CASES, ids=[f"{k}-{type(m).__name__}" for k, (m, _) in enumerate(CASES)])
def test_a_layer_is_seen_as_through_pytorch(layer: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Surrounded(layer, x)
    direct = capture(model, x)
    monkeypatch.setattr(leaves, "LEAVES", {})
    monkeypatch.setattr(functions, "FUNCTIONS", {})
    through = capture(model, x)
    assert seen(direct) == seen(through)
    assert direct.entering.keys() == through.entering.keys()
    for a, b in ((direct.ledger, through.ledger), (through.ledger, direct.ledger)):
        assert [reason for _, reason in a.locks] == [reason for _, reason in b.locks]
        assert _ties(a) == _ties(b)
    assert direct.idle == through.idle


def _ties(ledger: Ledger) -> list[tuple[list[int], list[int], str]]:
    return [(labels_of(one).tolist(), labels_of(other).tolist(), where) for one, other, where in ledger.ties]


def test_what_a_user_changed_about_a_layer_counts() -> None:
    class Own(nn.ReLU):
        def forward(self, input: Tensor) -> Tensor:
            return input.flip(1)

    model = nn.Sequential(nn.Conv2d(4, 6, 3), Own(), nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    model[3].forward = lambda x: x.roll(1, 1)  # type: ignore[method-assign]
    hooked = model[2].register_forward_hook(lambda module, args, output: output.flip(1))
    names = [o.name for o in capture(model, IMAGES).operations]
    hooked.remove()
    assert names == ["convolution", "flip", "convolution", "flip", "roll", "convolution"]


def test_a_layer_that_refuses_says_so_itself() -> None:
    with pytest.raises(InputError, match="running_mean should contain 5 elements not 4"):
        capture(nn.Sequential(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(4)), IMAGES)


def test_a_function_that_refuses_says_so_itself() -> None:
    model = nn.Sequential(nn.Conv2d(4, 5, 1), OwnNorm())
    with pytest.raises(InputError, match="running_mean should contain 5 elements not 4"):
        capture(model, IMAGES)
