"""Constants and memories: tensors that a module holds as plain attributes, or in lists and dictionaries of its own.

PyTorch knows nothing of them: they are in no ``state_dict`` and do not move with the model. Those that are set when the
module is built and never after are constants, as tables of positions often are, and follow a cut like buffers do. What
the code sets when it runs is a memory of what ran, at other sizes maybe, and is left alone; dictionaries that it fills
then (caches, mostly by size) are empty in a copy.
"""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from collections import OrderedDict
from collections.abc import Iterator, Set
from functools import cache
from types import CodeType
from typing import Any

from torch import Tensor, nn

from secateur.graph.class_code import methods_of

#: Methods that set a constant without making it another: the constructor, and what moves tensors to a device.
_BUILDING = {"__init__", "_apply"}
#: What changes a list or a dictionary in place.
_CHANGING = {"append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}

Methods = dict[str, list[CodeType]]


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
    """Whether the code sets an attribute, or an item in it, when it runs."""
    return attribute in _set_when_run(type(module))


@cache
def _set_when_built(kind: type) -> frozenset[str]:
    """Attributes that the constructor of a class sets, or what only it calls, and no other method does."""
    methods = methods_of(kind)
    building = _building(methods)
    return frozenset(_sets(methods, building) - _sets(methods, methods.keys() - building))


@cache
def _filled_later(kind: type) -> frozenset[str]:
    """Attributes in which any other method sets items."""
    methods = methods_of(kind)
    return frozenset(_fills(methods, methods.keys() - _building(methods)))


@cache
def _set_when_run(kind: type) -> frozenset[str]:
    """Attributes that ``forward`` sets, or what it may call; of a class without one, all but what builds it."""
    methods = methods_of(kind)
    running = {"forward"} if "forward" in methods else methods.keys() - _building(methods)
    while grown := (_names(methods, running) & methods.keys()) - running:
        running |= grown
    return frozenset(_sets(methods, running) | _fills(methods, running))


def _building(methods: Methods) -> set[str]:
    """The methods that only build: those known as such, and what nothing else names."""
    building = _BUILDING & methods.keys()
    while True:
        named, elsewhere = _names(methods, building), _names(methods, methods.keys() - building)
        grown = building | (named & methods.keys()) - elsewhere
        if grown == building:
            return building
        building = grown


def _names(methods: Methods, some: Set[str]) -> set[str]:
    """Every name that some methods use."""
    return {name for method in some for code in methods[method] for name in code.co_names}


def _sets(methods: Methods, some: Set[str]) -> set[str]:
    """Names of the attributes that some methods set, on whatever object."""
    steps = (step for method in some for code in methods[method] for step in dis.get_instructions(code))
    return {step.argval for step in steps if step.opname in ("STORE_ATTR", "DELETE_ATTR")}


def _fills(methods: Methods, some: Set[str]) -> set[str]:
    """Names of the attributes in which some methods set items, on whatever object."""
    codes = {code for method in some for code in methods[method]}
    inner = {part for code in codes for part in code.co_consts if isinstance(part, CodeType)}
    return set().union(*map(_filled_by, codes - inner))


def _filled_by(code: CodeType) -> set[str]:
    """Names of the attributes in which a function sets items, directly or by a name of its own for them."""
    try:
        nodes = [*ast.walk(ast.parse(textwrap.dedent(inspect.getsource(code))))]
    except (OSError, SyntaxError):
        return set(code.co_names)
    assigned = [(node.value, target) for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    assigned += [(node.iter, node.target) for node in nodes if isinstance(node, ast.For)]
    known = {target.id: value for value, target in assigned if isinstance(target, ast.Name)}
    changed = [node.value for node in nodes if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)]
    called = [node.func for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    changed += [function.value for function in called if function.attr in _CHANGING]
    owners = [_owner(node, known) for node in changed]
    return {owner.attr for owner in owners if isinstance(owner, ast.Attribute)}


def _owner(node: ast.expr, known: dict[str, ast.expr]) -> ast.expr:
    """What an item belongs to, however deep it lies: ``x.a`` for ``x.a[0]["b"]``."""
    if isinstance(node, ast.Subscript):
        return _owner(node.value, known)
    if isinstance(node, ast.Name) and node.id in known:
        return _owner(known[node.id], {name: value for name, value in known.items() if name != node.id})
    return node
