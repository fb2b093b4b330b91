"""Integers that say where they come from: an attribute of a module, or the size of an axis.

During a trace the attributes of modules and the sizes of activations are each a :class:`SourcedInt`. Where the code
hands one over as a size, ``sources.py`` knows which axis it belongs to. What the code works out of one otherwise is a
plain number again, and that it happened is a doubt (``doubts.py``).

Python lets numbers be used in a few ways of which they do not hear: as an index into a list, as text, and in ``range``
and some functions for whole numbers. Code that uses those functions is in doubt as a whole.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from secateur.graph.doubts import Doubts, Place
from secateur.graph.ledger import AxisRef

#: Functions to which a number does not say that they use it.
_SILENT = frozenset(("range", "islice", "isqrt", "gcd", "lcm", "comb", "perm", "factorial", "bit_length", "numel"))
#: What needs no look.
_NO_NUMBERS = frozenset((Tensor, nn.Parameter, int, float, bool, str, type(None)))
#: A longer list holds no sizes of axes.
_MOST_ENTRIES = 64


class Share(NamedTuple):
    """The size of an axis divided by a number, without a rest: ``c // heads``."""

    axis: AxisRef
    divisor: int  # or a SourcedInt


class SourcedInt(int):
    """A number and where it comes from: a place that holds it, an axis that is so long, or a share of one.

    What the code works out of it otherwise is a plain number, and a doubt.
    """

    source: Place | AxisRef | Share
    doubts: Doubts

    def __floordiv__(self, divisor: Any) -> Any:
        share = int.__floordiv__(self, divisor)
        source, number = self.source, plain(divisor)
        if isinstance(source, AxisRef) and number is not None and share * number == source.size:
            return sourced(share, Share(source, divisor), self.doubts)
        self.doubted()
        if type(divisor) is SourcedInt:
            divisor.doubted()
        return share

    def doubted(self) -> None:
        """The number is used in a way that nobody follows."""
        source = self.source
        if isinstance(source, Share):
            self.doubts.about(source.axis)
            if type(source.divisor) is SourcedInt:
                source.divisor.doubted()
        else:
            self.doubts.about(source)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        self.doubted()
        return np.array(int.__int__(self), *args, **kwargs)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        self.doubted()
        return getattr(ufunc, method)(*[int.__int__(a) if type(a) is SourcedInt else a for a in args], **kwargs)

    __hash__ = int.__hash__

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        # What the code keeps outlives the trace, and is copied as the number that it is.
        return int, (int.__int__(self),)


def _watched(name: str) -> Callable[..., Any]:
    plain = getattr(int, name)

    def operation(self: SourcedInt, *others: Any) -> Any:
        self.doubted()
        for other in others:
            if type(other) is SourcedInt:
                other.doubted()
        return plain(self, *others)

    return operation


for _name in (
    *("add", "sub", "mul", "mod", "divmod", "pow", "truediv", "and", "or", "xor", "lshift", "rshift"),
    *("radd", "rsub", "rmul", "rmod", "rdivmod", "rpow", "rtruediv", "rfloordiv", "rand", "ror", "rxor"),
    *("rlshift", "rrshift", "lt", "le", "eq", "ne", "gt", "ge", "neg", "pos", "abs", "invert", "bool"),
    *("float", "int", "trunc", "floor", "ceil", "round"),
):
    setattr(SourcedInt, f"__{_name}__", _watched(f"__{_name}__"))


def plain(number: Any) -> int | None:
    """An integer without its source, which hears of no comparison; ``None`` for anything else."""
    return int.__int__(number) if isinstance(number, int) else None


def sourced(value: int, source: Place | AxisRef | Share, doubts: Doubts) -> SourcedInt:
    number = SourcedInt(value)
    number.source, number.doubts = source, doubts
    return number


def name_attributes(modules: Iterable[tuple[str, nn.Module]], doubts: Doubts) -> None:
    """Let the integers that modules hold say so, where the code is not PyTorch's.

    Those of an earlier pass say so to ``doubts`` from now on.
    """
    for path, module in modules:
        kind = type(module)
        own, hiding = _code_of(kind, kind.forward)
        if not own:
            continue
        held = module.__dict__
        for name, value in held.items():
            # Values change, no entry comes or goes, so the dictionary may be gone through meanwhile.
            if _is_held(value):
                if (number := int.__int__(value)) > 1:
                    held[name] = sourced(number, Place(path, name), doubts)
            elif type(value) in (tuple, list) and 0 < len(value) <= _MOST_ENTRIES and all(map(_is_held, value)):
                held[name] = type(value)(
                    sourced(int.__int__(v), Place(path, name, k), doubts) for k, v in enumerate(value)
                )
            if hiding:
                doubt_numbers(held[name])


def _is_held(value: Any) -> bool:
    """Whether it is a number that an attribute was given when the module was built, not by a pass."""
    kind = type(value)
    return kind is int or (kind is SourcedInt and isinstance(value.source, Place))


@lru_cache(4096)
def _code_of(kind: type, forward: Any) -> tuple[bool, bool]:
    """Whether the code of a class is not PyTorch's, and whether it may then use a number without its knowledge.

    A class that is given another ``forward`` is looked at again.
    """
    inherited = (getattr(forward, "__module__", None) or "").startswith("torch.")
    own = not inherited or forward is nn.Module.forward
    return own, own and any(map(hides_numbers, _methods(kind)))


def _methods(kind: type) -> Iterator[types.CodeType]:
    """The code of a class that runs after the model was built."""
    for base in kind.__mro__:
        if not base.__module__.startswith("torch."):
            for name, value in vars(base).items():
                if isinstance(value, types.FunctionType) and name != "__init__":
                    yield value.__code__


@cache
def hides_numbers(code: types.CodeType) -> bool:
    """Whether code may use a number without its knowledge."""
    return not _SILENT.isdisjoint(code.co_names) or any(
        hides_numbers(inner) for inner in code.co_consts if isinstance(inner, types.CodeType)
    )


def doubt_numbers(tree: Any) -> None:
    """Numbers in nested arguments are used in a way that nobody follows."""
    kind = type(tree)
    if kind is SourcedInt:
        tree.doubted()
    elif kind is tuple or kind is list or isinstance(tree, (tuple, list)):
        for item in tree:
            if type(item) not in _NO_NUMBERS:
                doubt_numbers(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            doubt_numbers(item)
    elif kind is slice:
        doubt_numbers((tree.start, tree.stop, tree.step))
