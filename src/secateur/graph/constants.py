"""Constants and memories: tensors that a module holds as plain attributes, or in lists and dictionaries of its own.

PyTorch knows nothing of them: they are in no ``state_dict`` and do not move with the model. Those that are set when the
module is built and never after are constants, as tables of positions often are, and follow a cut like buffers do. What
the code sets when it runs is a memory of what ran, at other sizes maybe, and is left alone; dictionaries that it fills
as it needs them (caches, mostly by size) are empty in a copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from typing import Any

from torch import Tensor, nn

from secateur.graph.class_code import Methods, asked, filled, methods_of, named, set_by

#: Methods that set a constant without making it another: the constructor, and what moves tensors to a device.
_BUILDING = {"__init__", "_apply"}


def held_tensors(attribute: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors that an attribute is or holds, by their names."""
    for name, holder, key in places({attribute: value}, attribute, attribute):
        yield name, holder[key]


def places(holder: Any, key: Any, name: str, around: frozenset[int] = frozenset()) -> Iterator[tuple[str, Any, Any]]:
    """Where tensors lie in ``holder[key]``, however deep in lists, tuples and dictionaries.

    Args:
        holder: with items that can be set.
        name: of the item; what lies in it is named after it and its own key.
        around: identities of the containers around it.

    Yields:
        A name, a container and a key: ``container[key]`` is a tensor, and can be set.
    """
    value = holder[key]
    if isinstance(value, Tensor):
        yield name, holder, key
    elif type(value) in (list, tuple, dict, OrderedDict) and id(value) not in around:
        inner = _Tuple(holder, key) if type(value) is tuple else value
        for place in range(len(value)) if isinstance(value, (list, tuple)) else list(value):
            yield from places(inner, place, f"{name}.{place}", around | {id(value)})


class _Tuple:
    """A tuple whose items can be set: another one takes its place."""

    def __init__(self, holder: Any, key: Any):
        self.holder, self.key = holder, key

    def __getitem__(self, place: int) -> Any:
        return self.holder[self.key][place]

    def __setitem__(self, place: int, item: Any) -> None:
        items = list(self.holder[self.key])
        items[place] = item
        self.holder[self.key] = tuple(items)


def is_constant(module: nn.Module, attribute: str, tensor: Tensor) -> bool:
    """Whether a tensor that an attribute is, or holds, consists of numbers and is set only when the module is built."""
    return (
        tensor.is_floating_point()
        and not tensor.requires_grad
        and tensor.dim() > 0
        and attribute in _set_when_built(type(module))
        and (module.__dict__[attribute] is tensor or attribute not in _filled_later(type(module)))
    )


def is_memory(module: nn.Module, attribute: str) -> bool:
    """Whether the code fills a dictionary when it runs, and does without what is in it already."""
    return attribute in _filled_when_run(type(module))


@cache
def _set_when_built(kind: type) -> frozenset[str]:
    """Attributes that the constructor of a class sets, or what only it calls, and no other method does."""
    methods = methods_of(kind)
    building = _building(methods)
    return frozenset(set_by(methods, building) - set_by(methods, methods.keys() - building))


@cache
def _filled_later(kind: type) -> frozenset[str]:
    """Attributes in which any other method sets items."""
    methods = methods_of(kind)
    return frozenset(filled(methods, methods.keys() - _building(methods)))


@cache
def _filled_when_run(kind: type) -> frozenset[str]:
    """Attributes of which ``forward``, or what it may call, sets items and asks whether there are any.

    Of a class without a ``forward`` every method may be called that does not build it.
    """
    methods = methods_of(kind)
    running = {"forward"} if "forward" in methods else methods.keys() - _building(methods)
    while grown := (named(methods, running) & methods.keys()) - running:
        running |= grown
    return frozenset(filled(methods, running) & asked(methods, running))


def _building(methods: Methods) -> set[str]:
    """The methods that only build: those known as such, and what nothing else names."""
    building = _BUILDING & methods.keys()
    while True:
        elsewhere = named(methods, methods.keys() - building)
        grown = building | (named(methods, building) & methods.keys()) - elsewhere
        if grown == building:
            return building
        building = grown
