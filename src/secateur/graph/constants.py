"""Constants: tensors that a module holds as plain attributes, set when it was built and never after.

PyTorch knows nothing of them: they are in no ``state_dict`` and do not move with the model. Tables of positions are
often kept so. They follow a cut like buffers do. An attribute that the code sets when it runs is a memory of what ran,
at other sizes maybe, and is left alone.
"""

from __future__ import annotations

import dis
from functools import cache
from types import CodeType
from typing import Any

from torch import Tensor, nn

from secateur.graph.class_code import methods_of

#: Methods that set a constant without making it another: the constructor, and what moves tensors to a device.
_BUILDING = {"__init__", "_apply"}


def is_constant(module: nn.Module, name: str, value: Any) -> bool:
    """Whether an attribute is a tensor of numbers that is set only when the module is built."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and not value.requires_grad
        and value.dim() > 0
        and name in _set_when_built(type(module))
    )


@cache
def _set_when_built(kind: type) -> frozenset[str]:
    """Attributes that the constructor of a class sets, or what only it calls, and no other method does."""
    methods = methods_of(kind)
    building = _BUILDING & methods.keys()
    while True:
        named, elsewhere = _names(methods, building), _names(methods, methods.keys() - building)
        grown = building | (named & methods.keys()) - elsewhere
        if grown == building:
            return frozenset(_sets(methods, building) - _sets(methods, methods.keys() - building))
        building = grown


def _names(methods: dict[str, list[CodeType]], some: set[str]) -> set[str]:
    """Every name that some methods use."""
    return {name for method in some for code in methods[method] for name in code.co_names}


def _sets(methods: dict[str, list[CodeType]], some: set[str]) -> set[str]:
    """Names of the attributes that some methods set, on whatever object."""
    steps = (step for method in some for code in methods[method] for step in dis.get_instructions(code))
    return {step.argval for step in steps if step.opname in ("STORE_ATTR", "DELETE_ATTR")}
