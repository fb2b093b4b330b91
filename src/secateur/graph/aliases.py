"""Parameters that a forward makes of tensors that are there already, which PyTorch does without an operation.

``nn.Parameter(weight.T)`` is one, or what a ``copy.deepcopy`` of a module holds; no dispatch mode sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def told_of_parameters(tell: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """While this lasts, ``tell(tensor, parameter)`` hears of every one."""
    own = vars(nn.Parameter)["__new__"]

    def made(kind: Any, data: Tensor | None = None, requires_grad: bool = True) -> Any:
        new = own.__func__(kind, data, requires_grad)
        if data is not None:
            tell(data, new)
        return new

    nn.Parameter.__new__ = staticmethod(made)  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Parameter.__new__ = own  # type: ignore[method-assign]
