"""Functions of a model's code that remember what they gave: a trace neither uses that nor adds to it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

import secateur as sc
from secateur.graph.memos import nothing_remembered
from secateur.testing.library_toys import RememberedPositions, waves


@functools.lru_cache
def slope(count: int) -> Tensor:
    return torch.arange(float(count))


def _remembering(function):
    held = functools.lru_cache(maxsize=1)(function)

    @functools.wraps(function)
    def wrapper(*args):
        return held(*args)

    wrapper.held = held
    return wrapper


class Remembers(nn.Module):
    """A static method that remembers behind a wrapper, a property, a function that is called by another one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)

    @staticmethod
    @_remembering
    def ramp(count: int, device: torch.device) -> Tensor:
        return torch.arange(float(count), device=device)

    @property
    def slope(self) -> Tensor:
        return slope(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x + self.slope.to(x.device)).relu()) + self.ramp(4, x.device)


def test_the_same_model_can_be_traced_again():
    torch.manual_seed(0)
    model, x = RememberedPositions().eval(), torch.randn(2, 7, 6)
    model(x)
    first, second = sc.trace(model, x), sc.trace(model, x)
    assert first.widths == second.widths == {"enter": 12, "a": 9}
    assert waves.cache_info().currsize == 0
    assert sc.verify(model, sc.plan(second, sc.score(second, "l1"), {"a": 4, "enter": 6}), x).exact


def test_every_way_of_remembering_is_found():
    torch.manual_seed(0)
    model, x = Remembers().eval(), torch.randn(2, 4)
    model(x)
    held = Remembers.ramp.held
    assert slope.cache_info().currsize == held.cache_info().currsize == 1
    with nothing_remembered([("", model)]):
        assert slope.cache_info().currsize == held.cache_info().currsize == 0
        model(x)
    assert slope.cache_info().currsize == held.cache_info().currsize == 0
    assert sc.trace(model, x).widths == {"a": 6}


def test_what_other_files_remember_stays():
    kept = torch.arange(3)
    other = functools.lru_cache(lambda: kept)
    other.__module__ = "elsewhere"
    other()

    class Uses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + other()

    with nothing_remembered([("", Uses())]):
        assert other.cache_info().currsize == 1


class Missing:
    """What stands in for a package that is not installed: whoever asks anything of it hears so."""

    def __getattr__(self, name: str) -> None:
        raise ImportError(name)


missing = Missing()


def test_a_package_that_is_missing_stops_no_trace():
    class Names(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            if x.dim() == 5:
                x = missing.squeeze(x)
            return self.b(self.a(x).relu())

    assert sc.trace(Names().eval(), torch.randn(2, 4)).widths == {"a": 6}
